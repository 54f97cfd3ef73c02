"""Train the language model on a text, beside character counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import explain, optim
from .. import functional as F
from ..baselines import NGram, unigram_entropy
from ..creation import as_tensor
from ..data import DataError, load
from ..explain import Metric, Report
from ..models import GPT
from ..random import Generator, manual_seed
from ..recording import no_grad
from ..text import CharTokenizer, sample_windows, train_validation_split
from ..training import fit_batches
from .base import Common, Outcome, draw_losses, setting

ORDER = 5  # of the n-gram beside the model


@dataclass(frozen=True)
class Settings:
    steps: int = setting(1500, "training steps")
    batch_size: int = setting(12, "windows a step")
    context: int = setting(64, "characters a window")
    layers: int = setting(4, "transformer blocks")
    heads: int = setting(4, "attention heads of each block")
    width: int = setting(128, "size of the residual stream")
    dropout: float = setting(0.0, "dropout")
    lr: float = setting(1e-3, "AdamW's highest learning rate")
    warmup: int = setting(100, "steps of linear warm-up, at most a fifth of all; then a cosine to a tenth", least=0)
    weight_decay: float = setting(0.1, "AdamW's weight decay")
    clip_norm: float = setting(1.0, "largest norm of the gradient")
    every: int = setting(250, "steps between measurements")
    prompt: str = setting("", "text to continue in the report's samples (default: some held-out words)")


def train(settings: Settings, common: Common) -> Outcome:
    """Fit on the first 90 % of the text; measure on the rest."""
    data = load(common.data, "text")
    tokenizer = CharTokenizer.train(data.inputs)
    ids = tokenizer.encode(data.inputs)
    train_ids, held_out = train_validation_split(ids, 0.9)
    if len(held_out) <= settings.context or len(train_ids) <= settings.context:
        raise DataError(
            f"the text has {len(ids):,} characters; a context of {settings.context} needs at least "
            f"{10 * settings.context + 20}. Give a longer text or a smaller --context"
        )
    manual_seed(common.seed)
    names = ("context", "layers", "heads", "width", "dropout")
    model = GPT(tokenizer.vocab_size, **{n: getattr(settings, n) for n in names})
    model.to(common.device)
    window = _words(tokenizer, held_out, min(24, settings.context))
    prompt = tokenizer.encode(settings.prompt) if settings.prompt else window
    samples: list[tuple[str, str]] = []

    def batches() -> Iterator[tuple]:
        generator = Generator(common.seed)
        while True:
            x, y = sample_windows(train_ids, settings.batch_size, settings.context, generator)
            yield as_tensor(x).to(common.device), as_tensor(y).to(common.device)

    def measure(step: int) -> dict[str, float]:
        ids = model.generate(prompt, 200, temperature=0.8, top_k=40, generator=Generator(2))
        samples.append((f"step {step}", tokenizer.decode(ids[len(prompt) :])))
        return {"validation_loss": validation_loss(model, held_out, most=200)}

    history = fit_batches(
        model, batches(), model.loss, _optimizer(model, settings), settings.steps, every=settings.every,
        measure=measure, clip_norm=settings.clip_norm, schedule=lambda step: learning_rate(step, settings),
        progress=common.progress, title="gpt",
    )  # fmt: skip
    counts = NGram(ORDER).fit(train_ids, tokenizer.vocab_size)
    counted = counts.cross_entropy(held_out)
    metrics = [
        Metric(
            "cross-entropy on held-out text", validation_loss(model, held_out), "nats per character",
            baseline=unigram_entropy(held_out), baseline_name="character frequencies",
            floor=counted, floor_name=f"{ORDER}-gram counts", floor_is_bound=False,
        )
    ]  # fmt: skip

    def draw(report: Report) -> None:
        draw_losses(
            report, {"training": history.curve("loss"), "held out": history.curve("validation_loss")},
            "How well the next character is predicted. The dashed lines are what counting reaches.",
            "Cross-entropy against step, with the baselines",
            {f"{ORDER}-gram counts": counted, "character frequencies": unigram_entropy(held_out)},
            ylabel="cross-entropy, nats per character",
        )  # fmt: skip
        if samples:
            start = tokenizer.decode(prompt)
            report.text(f"What it writes after {start!r}, a sample from each stage of the training:")
            report.samples(samples)
        labels = list(tokenizer.decode(window))
        maps = model.attention_maps(as_tensor(window).to(common.device))
        report.figure(
            explain.attention_maps(maps[-1], labels, names=[f"head {i + 1}" for i in range(maps.shape[1])]),
            "What each head of the last layer looks at while it reads held-out text: a row each, darker is more.",
            "Attention maps of the last layer's heads",
        )
        report.figure(
            explain.next_token_bars(
                [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)],
                _next(model, window, common.device),
                10,
                tokenizer.decode(window),
            ),
            "The likeliest next characters after that text.",
            "Bars of the next character's probabilities",
        )

    about = f"{len(train_ids):,} characters to train on, {len(held_out):,} held out, {tokenizer.vocab_size} symbols: "
    about += f"{data.description}; licence: {data.licence}"
    return Outcome("gpt", "Language model", model, history, about, metrics, draw, {"tokenizer": tokenizer.to_dict()})


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine down to a tenth (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    warmup = min(settings.warmup, settings.steps // 5)
    if step <= warmup:
        return settings.lr * step / warmup
    done = (step - warmup) / (settings.steps - warmup)
    return settings.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0))))


def _optimizer(model: GPT, settings: Settings) -> optim.AdamW:
    """AdamW with decay for matrices only: biases and norms have no scale to keep small."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.99))


@no_grad()
def validation_loss(model: GPT, ids: Any, most: int | None = None) -> float:
    """Mean loss in nats a token over ids (T,), cut into windows side by side; over `most` of them, evenly spread."""
    context, device = model.config.context, model.token.weight.device
    count = (len(ids) - 1) // context
    x = ids[: count * context].reshape(count, context)
    y = ids[1 : count * context + 1].reshape(count, context)
    if most is not None and most < count:
        chosen = np.linspace(0, count - 1, most).astype(np.int64)
        x, y, count = x[chosen], y[chosen], most
    was_training, total = model.training, 0.0
    model.eval()
    for i in range(0, count, 64):
        part = slice(i, i + 64)
        total += model.loss(as_tensor(x[part]).to(device), as_tensor(y[part]).to(device)).item() * len(x[part])
    model.train(was_training)
    return total / count


def _words(tokenizer: CharTokenizer, ids: Any, length: int) -> Any:
    """A piece of ids worth looking at: of those early in the text that begin at a word, the richest in letters."""
    text = tokenizer.decode(ids[:3000])
    starts = [i for i in range(len(text) - length) if i == 0 or text[i - 1].isspace()]
    pieces = [text[i : i + length] for i in starts]
    scores = [sum(c.isalpha() for c in piece) + 2 * len(piece.split()) for piece in pieces]
    best = starts[int(np.argmax(scores))]
    return ids[best : best + length]


@no_grad()
def _next(model: GPT, ids: Any, device: str) -> np.ndarray:
    """Probabilities of the token after ids: (vocab,)."""
    return F.softmax(model(as_tensor(ids[None]).to(device))[0, -1], dim=-1).numpy()
