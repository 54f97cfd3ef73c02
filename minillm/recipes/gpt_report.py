"""What the report says about a language model: its figure beside what counting reaches, what it costs, what it writes,
where its heads look and what it expects."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import explain
from .. import functional as F
from ..baselines import NGram, unigram_entropy
from ..creation import as_tensor
from ..explain import Metric, Report, language
from ..models import GPT
from ..models.gpt_summary import gpt_parts, step_memory
from ..recording import no_grad
from ..training import History
from .base import draw_losses
from .gpt_model import Text
from .gpt_settings import Settings

ORDERS = 7  # of the n-grams beside the model
MOST_SAMPLES = 12  # in the report


def count(text: Text) -> list[float]:
    """What n-gram counts of the orders 1 to ORDERS reach on the held-out text, in nats a token."""
    return NGram(ORDERS).fit(text.train, text.tokenizer.vocab_size).cross_entropies(text.held_out)


def metric(value: float, text: Text, counted: list[float]) -> Metric:
    """The loss on held-out text, beside the best of the n-grams."""
    return Metric(
        "cross-entropy on held-out text", value, f"nats per {text.unit}",
        baseline=unigram_entropy(text.held_out), baseline_name=f"{text.unit} frequencies",
        floor=min(counted), floor_name=f"{int(np.argmin(counted)) + 1}-gram counts", floor_is_bound=False,
    )  # fmt: skip


def memory_of(model: GPT, optimizer: Any, ema: Any, settings: Settings) -> dict[str, dict[str, float]]:
    """Bytes of a step as it was trained, and of one that treats the blocks the other way; see models/gpt_summary.py."""
    more = {} if ema is None else {"averaged weights": sum(p.data.nbytes for p in model.parameters())}
    found, now = {}, model.checkpoint_blocks
    for again in (now, not now):
        model.checkpoint_blocks = again
        name = "blocks computed again" if again else "blocks kept"
        found[name] = step_memory(model, settings.batch_size, settings.context, optimizer, more)
    model.checkpoint_blocks = now
    return found


def add_pictures(
    report: Report, model: GPT, history: History, text: Text, prompt: Any, value: float, counted: list[float],
    memory: dict[str, dict[str, float]], settings: Settings,
) -> None:  # fmt: skip
    """All of the section behind its figures. value: the loss on the held-out text."""
    _add_training(report, history, text, value, counted, settings)
    _add_costs(report, model, memory, settings)
    _add_samples(report, history, text, prompt)
    _add_attention(report, model, text)
    _add_predictions(report, model, text)


def _add_training(
    report: Report, history: History, text: Text, value: float, counted: list[float], settings: Settings
) -> None:
    training = history.trace.curve("loss") or history.curve("loss")
    draw_losses(
        report, {"training": training, "held out": history.curve("validation_loss")},
        f"How well the next {text.unit} is predicted. The dashed lines are what counting reaches: {text.unit}s by "
        f"themselves (1-gram), after the {text.unit} before (2-gram), and so on.",
        "Cross-entropy against step, with the n-gram counts",
        {f"{order}-gram": h for order, h in enumerate(counted, 1)},
        ylabel=f"cross-entropy, nats per {text.unit}",
    )
    rows = [[f"{order}-gram counts", h, float(np.exp(h))] for order, h in enumerate(counted, 1)]
    report.table(
        [*rows, ["this model", value, float(np.exp(value))]], ["", f"nats per {text.unit}", "perplexity"],
        "On the held-out text. Counts are smoothed as Witten and Bell (1991) do it; longer histories help as long as "
        "they have been seen before.",
    )  # fmt: skip
    trace = history.trace
    if trace.curve("lr"):
        means = f"Each point is the mean of {trace.stride} steps. " if trace.stride > 1 else ""
        cut = "A gradient above the dashed line is shortened to it." if settings.clip_norm else ""
        report.figure(
            language.step_curves(trace.curve("lr"), trace.curve("grad_norm"), settings.clip_norm or None),
            f"Learning rate and norm of the gradient while training. {means}{cut}".strip(),
            "Learning rate and gradient norm against step",
        )


def _add_costs(report: Report, model: GPT, memory: dict[str, dict[str, float]], settings: Settings) -> None:
    parts = gpt_parts(model, settings.batch_size, settings.context)
    numbers = np.array([[p.parameters, p.flops / 1e6, p.activations / 1e6] for p in parts])
    rows = zip([*(p.name for p in parts), "total"], [*numbers, numbers.sum(0)])
    report.table(
        [[name, int(n), round(flops, 2), round(mb, 1)] for name, (n, flops, mb) in rows],
        ("part", "parameters", "MFLOPs a token", "activations, MB"),
        f"What the model costs: a training step takes {settings.batch_size} windows of {settings.context} tokens at a "
        "time. FLOPs are those of forward and backward pass; activations are what is kept between the two, computed.",
    )  # fmt: skip
    trained, other = memory
    report.figure(
        language.memory_bars(memory),
        f"Memory of a training step: as it was trained ({trained}), and for comparison ({other}). Weights, gradients "
        "and optimizer state are counted from their arrays; activations are computed from the model's shape.",
        "Bars of the memory that weights, gradients, optimizer state and activations take",
    )


def _add_samples(report: Report, history: History, text: Text, prompt: Any) -> None:
    samples = [(f"step {row['step']}", row["sample"]) for row in history if isinstance(row.get("sample"), str)]
    if samples:
        chosen = language.evenly(len(samples), MOST_SAMPLES)
        begin = text.tokenizer.decode(prompt)
        report.text(f"What it writes after {begin!r}, a sample from each stage of the training:")
        report.samples([samples[i] for i in chosen])


def _add_attention(report: Report, model: GPT, text: Text) -> None:
    window = sample_start(text, model.config.context)
    labels = [text.tokenizer.decode([i]) for i in window]
    maps = model.attention_maps(as_tensor(window).to(model.token.weight.device))  # (layers, heads, T, T)
    layers, heads = maps.shape[:2]
    if layers > 1:
        most = language.MOST_LAYERS, language.MOST_HEADS
        capped = layers > most[0] or heads > most[1]
        only = f" Of {layers} layers and {heads} heads at most {most[0]} and {most[1]} are shown."
        report.figure(
            language.attention_grid(maps, labels),
            "What each head of each layer looks at while it reads held-out text: a row for each "
            f"{text.unit} that looks, darker is more.{only if capped else ''}",
            "Grid of attention maps, a row of heads for each layer",
        )
    shown = language.evenly(heads, language.MOST_HEADS)
    some = f" {len(shown)} of its {heads} heads." if len(shown) < heads else ""
    report.figure(
        explain.attention_maps(maps[-1, shown], labels, names=[f"head {i + 1}" for i in shown]),
        f"The last layer, larger: a row each, darker is more.{some}",
        "Attention maps of the last layer's heads",
    )


def _add_predictions(report: Report, model: GPT, text: Text) -> None:
    decode, window = text.tokenizer.decode, sample_start(text, model.config.context, more=1)
    p = _expected(model, window[:-1])  # (T, vocab)
    names = [decode([i]) for i in range(text.tokenizer.vocab_size)]
    report.figure(
        language.predictions([names[i] for i in window[:-1]], window[1:], p, names),
        f"Held-out text read from top to bottom: the probability of the {text.unit} that came next, and the likeliest "
        "ones, each from all that stands above.",
        f"For each {text.unit} of a text the probabilities of the next",
    )
    report.figure(
        explain.next_token_bars(names, p[-1], 10, decode(window[:-1])),
        f"The likeliest next {text.unit}s after that text.",
        f"Bars of the next {text.unit}'s probabilities",
    )


def sample_start(text: Text, context: int, more: int = 0) -> Any:
    """Held-out tokens worth looking at: of those early in the text that begin at a word, the richest in letters.

    more: so many that follow them, too (0 or 1)
    """
    ids, length = text.held_out, min(24, context)
    early = text.tokenizer.decode(ids[:3000])
    if len(early) != len(ids[:3000]):  # tokens are not characters: no looking at them one by one
        return ids[: length + more]
    starts = [i for i in range(len(early) - length) if i == 0 or early[i - 1].isspace()]
    pieces = [early[i : i + length] for i in starts]
    scores = [sum(c.isalpha() for c in piece) + 2 * len(piece.split()) for piece in pieces]
    best = starts[int(np.argmax(scores))]
    return ids[best : best + length + more]


@no_grad()
def _expected(model: GPT, ids: Any) -> np.ndarray:
    """Probabilities of the token after each of ids (T,): (T, vocab)."""
    return F.softmax(model(as_tensor(ids[None]).to(model.token.weight.device))[0], dim=-1).numpy()
