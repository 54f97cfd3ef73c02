"""Continue texts of ids with a language model: a batch, a KV cache, a stream of random numbers for each text.

    logits = model(text)[-1]        (V,)
    text   = text + draw(filters(logits))        until a stop token, or max_new_tokens
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..creation import as_tensor
from ..nn.modes import evaluation
from ..random import Generator, default_generator
from .reader import Reader
from .sampling import Sampling

if TYPE_CHECKING:
    from ..models import GPT


def generate(
    model: GPT,
    prompts: Sequence[Any],
    settings: Sampling | None = None,
    *,
    max_new_tokens: int,
    stop: Iterable[int] = (),
    seed: int = 0,
    generators: Sequence[Any] | None = None,
    on_token: Callable[[int, int], Any] | None = None,
    vocab_size: int | None = None,
    recorded: bool = False,
) -> list[np.ndarray]:
    """Each prompt followed by new tokens: a list of int64 arrays in main memory, in the order of the prompts.

    prompts     id arrays (T,), of any lengths, each of at least one token
    settings    how a token is chosen; None: Sampling(), from the model's own probabilities
    stop        token ids that end a text; the one that did is its last token
    seed        the same seed and prompt give the same text, up to rounding, whatever else is in the batch; equal
                prompts in a batch get different texts
    generators  a Generator for each prompt, instead of those that the seed makes
    on_token    called with (index of the prompt, new token) as soon as there is one; a true answer ends that text
    vocab_size  only ids below it are chosen: of a tokenizer that has fewer than the model. None: all
    recorded    on a GPU: each token's step as one recorded launch (recorded.py), for long texts of small models

    The model sees the last `context` tokens of a prompt. When the context is full the cache is dropped and the last
    context / 2 tokens are read again, so that it sees between context / 2 and context tokens of a long text.

    Raises ValueError for an empty prompt, an id outside the vocabulary, logits that are NaN; TypeError for ids that
    are no integers.
    """
    settings = Sampling() if settings is None else settings
    if max_new_tokens < 0:
        raise ValueError(f"generate: max_new_tokens must be at least 0, got {max_new_tokens}")
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"generate: vocab_size must be at least 1, got {vocab_size}")
    texts = [check_prompt(p, model.config.vocab_size) for p in prompts]
    stops = {check_token(s, model.config.vocab_size, "the stop token") for s in stop}
    if generators is None:
        generators = row_generators(seed, texts)
    elif len(generators) != len(texts):
        raise ValueError(f"generate: {len(texts)} prompts, but {len(generators)} generators; give one for each")
    new: list[list[int]] = [[] for _ in texts]
    live = list(range(len(texts)))  # texts that go on: text live[b] is row b of the batch
    if live and max_new_tokens:
        with evaluation(model):
            reader = Reader(model, texts, max(map(len, texts)) + max_new_tokens, vocab_size, recorded)
            logits = reader.first()  # (B, V)
            while True:
                tokens, going = [], []
                for b, i in enumerate(live):
                    token = settings.choose(logits[b], reader.texts[b], generators[i])
                    new[i].append(token)
                    ended = on_token is not None and bool(on_token(i, token))
                    if not ended and token not in stops and len(new[i]) < max_new_tokens:
                        tokens.append(token)
                        going.append(b)
                if not going:
                    break
                if len(going) < len(live):
                    live = [live[b] for b in going]
                    reader.select(going)
                logits = reader.step(tokens)
    return [np.concatenate([text, np.array(more, np.int64)]) for text, more in zip(texts, new)]


def generate_ids(
    model: GPT,
    ids: Any,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: Any = None,
) -> np.ndarray:
    """One text, ids (T,), with the arguments of `GPT.generate`; generator None: the default one, see manual_seed."""
    prompt = as_tensor(ids).numpy().reshape(-1)
    generator = default_generator if generator is None else generator
    settings = Sampling(temperature, top_k)
    return generate(model, [prompt], settings, max_new_tokens=max_new_tokens, generators=[generator])[0]


def row_generators(seed: int, texts: Sequence[np.ndarray]) -> list[Generator]:
    """A Generator for each text. Its seed is a hash of the seed, the ids and how many equal texts stand before it, so
    that neither its place in the batch nor the others matter."""
    Generator(seed)  # refuses what is no seed
    made, copies = [], dict[bytes, int]()
    for text in texts:
        ids = np.asarray(text, "<i8").tobytes()
        copy = copies[ids] = copies.get(ids, -1) + 1
        word = hashlib.blake2b(int(seed).to_bytes(8, "little") + copy.to_bytes(8, "little") + ids, digest_size=8)
        made.append(Generator(int.from_bytes(word.digest(), "little")))
    return made


def check_prompt(prompt: Any, vocab_size: int) -> np.ndarray:
    """The prompt as int64 (T,) in main memory; an error in a sentence where it is none."""
    ids = as_tensor(prompt).numpy()
    if ids.ndim != 1:
        raise ValueError(
            f"generate: a prompt is an array of ids of shape (T,), got the shape {ids.shape}; several prompts are a "
            "list of such arrays"
        )
    if not ids.size:
        raise ValueError("generate: the prompt is empty; give at least one token")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"generate: the prompt must be integer ids of tokens, got {ids.dtype}")
    for wrong in ids[(ids < 0) | (ids >= vocab_size)][:1]:
        check_token(wrong, vocab_size, "the prompt's token")
    return ids.astype(np.int64)


def check_token(token: Any, vocab_size: int, what: str) -> int:
    """The id as an int; ValueError where the vocabulary has no such."""
    if not 0 <= int(token) < vocab_size:
        raise ValueError(f"generate: {what} {token} is outside the model's vocabulary of ids 0 to {vocab_size - 1}")
    return int(token)
