"""Beam search: keep the `beams` likeliest beginnings, step by step, in place of drawing tokens.

    score(Y) = log P(Y | prompt) / lp(|Y|),    lp(n) = ((5 + n) / 6)^a        n tokens, the end token included

A longer text is never likelier than its beginning; a > 0 makes up for that. One beam is greedy decoding.
Source: Wu et al. 2016, Google's Neural Machine Translation System, arXiv:1609.08144, section 7 (without coverage).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..nn.modes import evaluation
from .generate import check_prompt, check_token
from .reader import Reader

if TYPE_CHECKING:
    from ..models import GPT


class Hypothesis(NamedTuple):
    """ids: the prompt and what follows it, int64 (T,); log_probability of what follows, in nats; score: see above."""

    ids: np.ndarray
    log_probability: float
    score: float


def beam_search(
    model: GPT,
    prompt: Any,
    *,
    max_new_tokens: int,
    beams: int = 4,
    length_penalty: float = 0.0,
    stop: Iterable[int] = (),
    vocab_size: int | None = None,
) -> list[Hypothesis]:
    """Up to `beams` continuations of the prompt, ids (T,), the best score first.

    length_penalty  a: 0 compares log probabilities, 1 about the means of a token's
    stop            ids that end a text; the one that did is its last token. Texts without one have max_new_tokens
    vocab_size      only ids below it are chosen; None: all

    It ends early where no beginning can overtake what it has. Raises as `generate` does.
    """
    if beams < 1 or max_new_tokens < 1:
        raise ValueError(f"beam_search: needs at least 1 beam and 1 token, got {beams} and {max_new_tokens}")
    if not length_penalty >= 0:
        raise ValueError(f"beam_search: length_penalty must be at least 0, got {length_penalty}")
    start = check_prompt(prompt, model.config.vocab_size)
    stops = {check_token(s, model.config.vocab_size, "the stop token") for s in stop}
    done: list[Hypothesis] = []
    with evaluation(model):
        reader = Reader(model, [start], len(start) + max_new_tokens, vocab_size)
        log_p, so_far = log_softmax(reader.first()), np.zeros(1)  # (1, V), (1,)
        for n in range(1, max_new_tokens + 1):
            total = so_far[:, None] + log_p  # (beams, V)
            rows, tokens = _best(total, beams * (1 + len(stops)))  # at most len(stops) of a beam's tokens end it
            penalty = ((5 + n) / 6) ** length_penalty
            going: list[tuple[int, int]] = []
            for rank, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist())):
                if token in stops or n == max_new_tokens:
                    if rank < beams:  # a worse end would leave no beam for the better beginnings beside it
                        ids = np.array([*reader.texts[row], token], np.int64)
                        done.append(Hypothesis(ids, float(total[row, token]), float(total[row, token] / penalty)))
                elif len(going) < beams:
                    going.append((row, token))
            done = sorted(done, key=lambda h: -h.score)[:beams]
            if not going or _settled(done, beams, total[going[0]], ((5 + max_new_tokens) / 6) ** length_penalty):
                break
            so_far = np.array([total[g] for g in going])
            reader.select([row for row, _ in going])
            log_p = log_softmax(reader.step([token for _, token in going]))
    return done


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log of softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _best(total: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the `count` largest, the largest first, without those of probability 0."""
    flat = total.reshape(-1)
    if count < flat.size:
        chosen = np.argpartition(-flat, count - 1)[:count]
    else:
        chosen = np.arange(flat.size)
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")]
    chosen = chosen[np.isfinite(flat[chosen])]
    return np.divmod(chosen, total.shape[1])


def _settled(done: list[Hypothesis], beams: int, best: float, penalty: float) -> bool:
    """True where even the likeliest beginning, if all its further tokens were certain, would score less than all that
    is done."""
    return len(done) == beams and best / penalty <= done[-1].score
