"""From a folder in Hugging Face's form to a GPT and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...data.errors import DataError
from ...nn.init import skipped
from ..gpt import GPT, GPTConfig
from . import gpt2, llama
from .entry import Entry
from .errors import HubError
from .fields import Fields, read_object
from .weights import Stored, check_stored, find_tensors, read_tensor

FAMILIES: dict[str, Any] = {"gpt2": gpt2, "llama": llama}  # by the model_type of config.json


def load_pretrained(folder: str | Path, context: int | None = None) -> tuple[GPT, Any]:
    """(GPT, SubwordTokenizer) of a folder with config.json, model.safetensors (or several with an index) and
    tokenizer.json (without one: None). The model is in evaluation mode, its parameters are float32 (float64 where a
    tensor is): the numbers of the files, to the bit.

    context  tokens that it shall see, at most as many as it was made for: shorter ones need less memory for caches

    GPT-2 and Llama, with everything that GPT has (grouped heads, scaled rotary positions, tied or own head). HubError,
    one sentence, for others, and for files that are damaged or do not belong together. Sizes are compared with those
    of the files before the model is made; numbers are then read a tensor at a time.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HubError(f"{str(folder)!r} is no folder: expected one with config.json and model.safetensors")
    path = folder / "config.json"
    fields = Fields(read_object(path), path)
    family = fields.choice("model_type", "", FAMILIES)
    fields.only("quantization_config", None, "quantized weights are not read here")
    config: GPTConfig = family.read_config(fields)
    tensors = find_tensors(folder)
    pairs = list(_matched(family, config, tensors, path))
    tokenizer = _read_tokenizer(folder, config.vocab_size)
    if context is not None and not 1 <= context <= config.context:
        raise HubError(f"context={context}: expected 1 to {config.context}, the most tokens this model can see")
    try:
        with skipped():
            model = GPT.from_config(config if context is None else replace(config, context=context))
    except ValueError as error:
        raise HubError(f"{path}: {error}") from None
    if any(stored.dtype == "F64" for _, stored in pairs):
        with np.errstate(all="ignore"):  # what the memory happens to hold is converted, too: numbers come next
            model.to(np.float64)
    parameters = dict(model.named_parameters())
    for entry, stored in pairs:
        array = read_tensor(stored)
        target = parameters[entry.ours].data[slice(*entry.rows) if entry.rows else slice(None)]
        target[...] = (array.T if entry.transposed else array)[: len(target)]  # of positions perhaps only the first
    return model.eval(), tokenizer


def _matched(family: Any, config: GPTConfig, tensors: dict[str, Stored], path: Path) -> Iterator[tuple[Entry, Stored]]:
    """Each entry with its tensor, once every name and shape is right. Ends at the first that is not: a config may ask
    for any number of layers."""
    prefix = family.PREFIX if any(name.startswith(family.PREFIX) for name in tensors) else ""
    used = set()
    for entry in family.entries(config, prefix):
        if entry.theirs not in tensors:
            raise HubError(f"the weights beside {path} lack {entry.theirs!r}, of shape {entry.shape}, that it asks for")
        stored = tensors[entry.theirs]
        check_stored(entry.theirs, stored, entry.shape, path)
        used.add(entry.theirs)
        yield entry, stored
    if config.tie and "lm_head.weight" in tensors:
        head, token = tensors["lm_head.weight"], tensors[next(iter(family.entries(config, prefix))).theirs]
        if head.shape != token.shape or not np.array_equal(read_tensor(head), read_tensor(token), equal_nan=True):
            raise HubError(f"by {path} head and embedding are one (tie_word_embeddings), but {head.path} has two")
        used.add("lm_head.weight")
    odd = [name for name in tensors if name not in used and not name.endswith(family.IGNORED)]
    if odd:
        raise HubError(f"the weights beside {path} hold {odd[0]!r}, which no part of the model that it describes has")


def _read_tokenizer(folder: Path, vocab_size: int) -> Any:
    from ...text import SubwordTokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    try:
        tokenizer = SubwordTokenizer.from_file(path)
    except DataError as error:
        raise HubError(str(error)) from None
    if tokenizer.vocab_size > vocab_size:
        raise HubError(
            f"{path} has {tokenizer.vocab_size:,} tokens, the model beside it only {vocab_size:,}: expected the "
            "tokenizer that the model was trained with"
        )
    return tokenizer
