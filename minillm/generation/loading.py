"""A model that writes, from a folder: a run of `minillm train gpt`, or a model in Hugging Face's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data import DataError
from ..training import RunError, load_model
from ..training.saves import LARGEST

END = ("<|endoftext|>", "<|end_of_text|>", "</s>")  # names of the token that ends a text


class Writer(NamedTuple):
    """model: a GPT; tokenizer: with encode and decode; first: the ids that an empty prompt stands for, (1,); end: ids
    that end a text."""

    model: Any
    tokenizer: Any
    first: np.ndarray
    end: tuple[int, ...]


def load_writer(folder: str | Path) -> Writer:
    """The model and tokenizer of a folder, in evaluation mode; RunError in one sentence where there is none."""
    config = _json(Path(folder) / "config.json")
    return _pretrained(Path(folder), config) if "model_type" in config else _run(folder)


def _run(folder: str | Path) -> Writer:
    from ..text import tokenizer_from_dict

    model, config = load_model(folder)
    if config["model"] != "gpt" or "tokenizer" not in config:
        raise RunError(
            f"{folder} holds a model of kind {config['model']!r}; only `minillm train gpt` makes one that writes"
        )
    tokenizer = tokenizer_from_dict(config["tokenizer"])
    end = _named_ends(tokenizer)
    return Writer(model, tokenizer, np.array(end[:1] or _line_end(tokenizer), np.int64), end)


def _named_ends(tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens that are called an end, where tokens have names."""
    ids = [tokenizer.token_id(name) for name in END] if hasattr(tokenizer, "token_id") else []
    return tuple(i for i in ids if i is not None)


def _line_end(tokenizer: Any) -> list[int]:
    """The id of a line end, after which a text can begin; 0 where there is none."""
    try:
        return tokenizer.encode("\n")[-1:].tolist() or [0]
    except DataError:  # a text in one line
        return [0]


def _pretrained(folder: Path, config: dict[str, Any]) -> Writer:
    from ..models.huggingface import load_pretrained

    model, tokenizer = load_pretrained(folder)
    if tokenizer is None:
        raise RunError(f"{folder} has no tokenizer that this program reads: put its tokenizer.json into the folder")
    config = config | _json(folder / "generation_config.json")  # where both say it, the latter is meant for writing
    size = model.config.vocab_size
    end = _ids(config.get("eos_token_id"), size)
    first = _ids(config.get("bos_token_id"), size) or end or (0,)
    return Writer(model.eval(), tokenizer, np.array(first[:1], np.int64), end)


def _json(path: Path) -> dict[str, Any]:
    """An object in a file; empty where there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return {}
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _ids(value: Any, size: int) -> tuple[int, ...]:
    """Token ids from null, a number or a list of them; a default of the format may lie outside the vocabulary."""
    values = value if isinstance(value, list) else [value]
    return tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 <= v < size)
