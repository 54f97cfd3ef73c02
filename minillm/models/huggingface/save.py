"""From a GPT and its tokenizer to a folder in Hugging Face's form."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...data.errors import DataError
from ...device import to_numpy
from ...durable import sync_folder
from ..gpt import GPT, GPTConfig
from . import gpt2, llama
from .entry import Entry
from .errors import HubError
from .fields import read_object
from .weights import FILE, INDEX

SHARD_BYTES = 2 * 2**30
FIRST = ("<|begin_of_text|>", "<s>", "<|endoftext|>")  # names that a text's first token has, and its last
LAST = ("<|end_of_text|>", "</s>", "<|endoftext|>")
CONFIG = "config.json"
_WEIGHTS = re.compile(r"model(-\d{5,}-of-\d{5,})?\.safetensors(\.index\.json)?")


def save_pretrained(model: GPT, folder: str | Path, tokenizer: Any = None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write config.json, model.safetensors and, with a tokenizer, tokenizer.json into `folder` (made if need be):
    load_pretrained reads the same bits, and transformers' from_pretrained a model with the same logits.

    tokenizer    one of minillm.text's, any kind
    shard_bytes  weights of more bytes go into several files with an index, none longer than that unless a tensor is

    A model with learned positions and layer norms is written as GPT-2, one with rotary positions, RMSNorm and SwiGLU as
    Llama; HubError, and nothing written, for one that is neither. Biases of GPT-2 that the model lacks become zeros.
    Stochastic depth is not written, and neither is Llama's dropout: that form has none.

    All files are written under other names and synced before one takes its place, so that a full disk leaves what was
    there. A folder with a config.json that is not of this form, such as a run of `minillm train`, is refused.
    """
    if not isinstance(model, GPT):
        raise HubError(f"save_pretrained: expected a GPT, got {type(model).__name__}")
    if shard_bytes < 1:
        raise HubError(f"save_pretrained: shard_bytes={shard_bytes}; expected 1 or more")
    from safetensors.numpy import save_file

    folder, config = Path(folder), model.config
    family = _family(config)
    tensors = {e.theirs: e for e in family.entries(config)}
    parameters = _parameters(model, tensors)
    dtype = model.token.weight.dtype
    files = _tokenizer_files(tokenizer, config.vocab_size, folder)
    ends = {f"{k}_token_id": _token(tokenizer, names)[1] for k, names in (("bos", FIRST), ("eos", LAST))}
    about = {**family.write_config(config), **ends, "torch_dtype": dtype.name}
    _check_folder(folder)
    shards = _shards(tensors, dtype.itemsize, shard_bytes)
    places = {name: file for file, names in shards.items() for name in names}
    with _replaced(folder) as put:
        for file, names in shards.items():
            save_file({n: _array(tensors[n], parameters, dtype) for n in names}, put(file), {"format": "pt"})
        if len(shards) > 1:
            total = sum(prod(e.shape) for e in tensors.values()) * dtype.itemsize
            files[INDEX] = _json({"metadata": {"total_size": total}, "weight_map": places})
        for file, text in {**files, CONFIG: _json(about)}.items():
            put(file).write_text(text, "utf-8")


def _family(c: GPTConfig) -> Any:
    """The module of the format that can hold such a model."""
    if own := [name for name in ("window", "qk_norm", "softcap", "experts") if getattr(c, name)]:
        raise HubError(f"neither GPT-2 nor Llama has {own[0]}, which this model has: it cannot be saved as one of them")
    problems = {family: family.lacks(c) for family in (gpt2, llama)}
    for family, lacks in problems.items():
        if not lacks:
            return family
    a, b = (", ".join(lacks) for lacks in problems.values())
    raise HubError(f"this model is neither a GPT-2, which has no {a}, nor a Llama, which has no {b}")


def _parameters(model: GPT, tensors: dict[str, Entry]) -> dict[str, Any]:
    """The model's parameters; HubError where some have no place in the format."""
    parameters = dict(model.named_parameters())
    if odd := sorted(set(parameters) - {e.ours for e in tensors.values()}):
        raise HubError(
            f"the format has no place for the parameter {odd[0]!r}, which was added to the GPT: take it off "
            "(adapters: lora.merge(), then lora.remove())"
        )
    return parameters


def _array(entry: Entry, parameters: dict[str, Any], dtype: np.dtype) -> np.ndarray:
    """What the file holds of it."""
    if entry.ours not in parameters:
        return np.zeros(entry.shape, dtype)  # a bias that the model lacks
    array = to_numpy(parameters[entry.ours].data)[slice(*entry.rows) if entry.rows else slice(None)]
    return np.ascontiguousarray(array.T if entry.transposed else array)


def _shards(tensors: dict[str, Entry], itemsize: int, most: int) -> dict[str, list[str]]:
    """{file: names of its tensors}, filled in order."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, entry in tensors.items():
        needed = prod(entry.shape) * itemsize
        if groups[-1] and size + needed > most:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += needed
    if len(groups) == 1:
        return {FILE: groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups, 1)}


def _tokenizer_files(tokenizer: Any, vocab_size: int, folder: Path) -> dict[str, str]:
    if tokenizer is None:
        return {}
    from ...text.bpe import to_subword

    try:
        described = to_subword(tokenizer).to_json()
    except DataError as error:
        raise HubError(str(error)) from None
    if tokenizer.vocab_size > vocab_size:
        raise HubError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model only {vocab_size:,}: expected the tokenizer "
            "that the model was trained with"
        )
    files = {"tokenizer.json": described}
    if not (folder / "tokenizer_config.json").exists():  # another's may hold a template for chats
        names = {"bos_token": _token(tokenizer, FIRST)[0], "eos_token": _token(tokenizer, LAST)[0]}
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        files["tokenizer_config.json"] = _json({**about, **{k: v for k, v in names.items() if v is not None}})
    return files


def _token(tokenizer: Any, names: tuple[str, ...]) -> tuple[str | None, int | None]:
    """(name, id) of the first of these that the tokenizer has."""
    token_id = getattr(tokenizer, "token_id", lambda name: None)
    return next(((n, token_id(n)) for n in names if token_id(n) is not None), (None, None))


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise HubError(f"{folder} is a file; expected a folder (it is made where there is none)")
    path = folder / CONFIG
    if path.exists() and "model_type" not in read_object(path):
        raise HubError(f"{path} is not of a Hugging Face model, and would be lost: choose another folder")


@contextlib.contextmanager
def _replaced(folder: Path) -> Iterator[Callable[[str], Path]]:
    """Inside, put(name) is where to write a new file; at the end all of them take their places, or none does."""
    from safetensors import SafetensorError

    written: dict[str, Path] = {}
    config, aside, placed = folder / CONFIG, folder / f".{CONFIG}.{os.getpid()}.old", False

    def put(name: str) -> Path:
        return written.setdefault(name, folder / f".{name}.{os.getpid()}.tmp")

    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield put
        for temporary in written.values():
            shutil.copymode(written[CONFIG], temporary)  # the library makes files that only their owner may read
            _sync(temporary)
        with contextlib.suppress(FileNotFoundError):
            os.rename(config, aside)  # a kill from here on leaves a folder that is refused, not parts of two models
        sync_folder(folder)
        for name, temporary in written.items():
            if name != CONFIG:
                os.replace(temporary, folder / name)
                placed = True
        for entry in list(os.scandir(folder)):  # the weights of a model that was there before
            if _WEIGHTS.fullmatch(entry.name) and entry.name not in written:
                os.unlink(entry.path)
        sync_folder(folder)
        os.replace(written[CONFIG], config)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        raise HubError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if aside.exists() and not placed:
            os.rename(aside, config)
        for temporary in (aside, *written.values()):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with open(path, "rb+") as f:
        os.fsync(f.fileno())


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
