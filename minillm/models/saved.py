"""Whether a config that was read from a file can be believed: kinds of values, sizes beside those of the weights.

A damaged or a hostile file must not make a model of a petabyte.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

SMALL = 2**24  # numbers
MOST_TOKENS = 2**22  # of a context: tables of positions are made for all of it


def check_types(cls: type, values: Mapping[str, Any]) -> None:
    """ValueError for a value that is not of the kind that the dataclass's field has. Unknown names pass."""
    hints = typing.get_type_hints(cls)
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name in values and not _is(values[f.name], hints[f.name]):
            raise ValueError(f"{f.name} must be {_word(hints[f.name])}, got {str(values[f.name])[:40]!r}")


def _is(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_is(value, h) for h in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, (list, tuple)):
            return False
        kinds = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
        return len(kinds) == len(value) and all(map(_is, value, kinds))
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _word(hint: Any) -> str:
    words = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "null"}
    if isinstance(hint, types.UnionType):
        return " or ".join(map(_word, typing.get_args(hint)))
    return words.get(hint, "a list of numbers")


def fewest_numbers(model: str, c: Any) -> int:
    """The numbers that a model of this config object has at least, without making it."""
    if model == "gpt":
        D = c.width // max(1, c.heads) if c.head_dim is None else c.head_dim
        attention = (2 * c.heads + 2 * (c.heads if c.kv_heads is None else c.kv_heads)) * D * c.width
        mlp = 2 * c.width * (c.mlp_width or c.width) * max(1, c.experts)
        places = c.context * c.width if c.position == "learned" else 0
        return c.vocab_size * c.width + places + c.layers * (attention + mlp)
    if model == "vae":
        return _dense(c.input_dim, *c.hidden, c.latent_dim) + _dense(c.latent_dim, *c.hidden[::-1], c.input_dim)
    if model == "autoencoder":
        return _dense(c.input_dim, *c.encoder_widths, *c.decoder_widths)
    if model == "attention":
        ends = (c.length + c.features + (c.classes or c.length * c.features)) * c.width
        return ends + 4 * c.width**2 * (1 + c.blocks)
    return 0


def check_size(model: str, config: Any, numbers: int, where: str) -> None:
    """ValueError where the config asks for more numbers than there can be in the file that holds them.

    Small models are made whatever the file holds: what does not fit is then said name by name.
    """
    needed, context = fewest_numbers(model, config), getattr(config, "context", 0)
    if needed > max(numbers, SMALL):
        raise ValueError(f"a model of at least {needed:,} numbers, but {where} holds {numbers:,} at most")
    if context > MOST_TOKENS:
        raise ValueError(f"a context of {context:,} tokens; at most {MOST_TOKENS:,} can be")


def _dense(*widths: int) -> int:
    return sum(a * b for a, b in pairwise(widths))
