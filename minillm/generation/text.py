"""From text to text: a tokenizer around `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .generate import generate
from .sampling import Sampling
from .stream import TextStream

if TYPE_CHECKING:
    from ..models import GPT


def generate_text(
    model: GPT,
    tokenizer: Any,
    prompts: Sequence[Any],
    settings: Sampling | None = None,
    *,
    max_new_tokens: int,
    stop: Iterable[str] = (),
    stop_tokens: Iterable[int] = (),
    seed: int = 0,
    on_text: Callable[[int, str], Any] | None = None,
) -> list[str]:
    """What the model writes after each prompt, without the prompt.

    prompts      texts, or id arrays (T,); a batch
    tokenizer    encode(text) -> ids, decode(ids) -> text; ids from its vocab_size on, if it says one, are never chosen
    stop         strings that end a text; they are no part of it
    stop_tokens  token ids that do
    on_text      called with (index of the prompt, piece of its text) as soon as that piece is certain

    The rest as `generate`, which does the work.
    """
    ids = [tokenizer.encode(p) if isinstance(p, str) else p for p in prompts]
    stops, stop = frozenset(int(s) for s in stop_tokens), [stop] if isinstance(stop, str) else list(stop)
    streams = [TextStream(tokenizer, prompt, stop) for prompt in ids]
    texts = [""] * len(ids)

    def show(i: int, piece: str) -> None:
        texts[i] += piece
        if piece and on_text is not None:
            on_text(i, piece)

    def on_token(i: int, token: int) -> bool:
        if token not in stops:
            show(i, streams[i].push(token))
        return streams[i].stopped is not None

    generate(
        model, ids, settings, max_new_tokens=max_new_tokens, stop=stops, seed=seed, on_token=on_token,
        vocab_size=getattr(tokenizer, "vocab_size", None),
    )  # fmt: skip
    for i, stream in enumerate(streams):
        show(i, stream.finish())
    return texts
