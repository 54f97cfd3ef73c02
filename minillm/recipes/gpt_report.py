"""What the report says about a language model: its figure beside what counting reaches, samples, attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import explain
from .. import functional as F
from ..baselines import NGram, unigram_entropy
from ..creation import as_tensor
from ..explain import Metric, Report
from ..models import GPT
from ..recording import no_grad
from ..training import History
from .base import draw_losses
from .gpt_model import Text

ORDER = 5  # of the n-gram beside the model
COUNTABLE = 1024  # tokens in a vocabulary: with more, five in a row are too rare to count
MOST_SAMPLES = 12  # in the report


def count(text: Text) -> float | None:
    """What n-gram counts reach on the held-out text, in nats a token; None where counting makes no sense."""
    if text.tokenizer.vocab_size > COUNTABLE:
        return None
    return NGram(ORDER).fit(text.train, text.tokenizer.vocab_size).cross_entropy(text.held_out)


def metric(value: float, text: Text, counted: float | None) -> Metric:
    floor: dict[str, Any] = {"floor": counted, "floor_name": f"{ORDER}-gram counts", "floor_is_bound": False}
    floor = {} if counted is None else floor
    return Metric(
        "cross-entropy on held-out text", value, f"nats per {text.unit}",
        baseline=unigram_entropy(text.held_out), baseline_name=f"{text.unit} frequencies", **floor,
    )  # fmt: skip


def add_pictures(report: Report, model: GPT, history: History, text: Text, prompt: Any, counted: float | None) -> None:
    names = {f"{ORDER}-gram counts": counted, f"{text.unit} frequencies": unigram_entropy(text.held_out)}
    draw_losses(
        report, {"training": history.curve("loss"), "held out": history.curve("validation_loss")},
        f"How well the next {text.unit} is predicted. The dashed lines are what counting reaches.",
        "Cross-entropy against step, with the baselines", {k: v for k, v in names.items() if v is not None},
        ylabel=f"cross-entropy, nats per {text.unit}",
    )  # fmt: skip
    decode, window = text.tokenizer.decode, sample_start(text, model.config.context)
    samples = [(f"step {row['step']}", row["sample"]) for row in history if isinstance(row.get("sample"), str)]
    if samples:
        chosen = np.unique(np.linspace(0, len(samples) - 1, MOST_SAMPLES).astype(int))
        report.text(f"What it writes after {decode(prompt)!r}, a sample from each stage of the training:")
        report.samples([samples[i] for i in chosen])
    labels = [decode([i]) for i in window]
    maps = model.attention_maps(as_tensor(window).to(model.token.weight.device))
    report.figure(
        explain.attention_maps(maps[-1], labels, names=[f"head {i + 1}" for i in range(maps.shape[1])]),
        "What each head of the last layer looks at while it reads held-out text: a row each, darker is more.",
        "Attention maps of the last layer's heads",
    )
    report.figure(
        explain.next_token_bars(
            [decode([i]) for i in range(text.tokenizer.vocab_size)], _next(model, window), 10, decode(window)
        ),
        f"The likeliest next {text.unit}s after that text.",
        f"Bars of the next {text.unit}'s probabilities",
    )


def sample_start(text: Text, context: int) -> Any:
    """Held-out tokens worth looking at: of those early in the text that begin at a word, the richest in letters."""
    ids, length = text.held_out, min(24, context)
    early = text.tokenizer.decode(ids[:3000])
    if len(early) != len(ids[:3000]):  # tokens are not characters: no looking at them one by one
        return ids[:length]
    starts = [i for i in range(len(early) - length) if i == 0 or early[i - 1].isspace()]
    pieces = [early[i : i + length] for i in starts]
    scores = [sum(c.isalpha() for c in piece) + 2 * len(piece.split()) for piece in pieces]
    best = starts[int(np.argmax(scores))]
    return ids[best : best + length]


@no_grad()
def _next(model: GPT, ids: Any) -> np.ndarray:
    """Probabilities of the token after ids: (vocab,)."""
    return F.softmax(model(as_tensor(ids[None]).to(model.token.weight.device))[0, -1], dim=-1).numpy()
