"""Weights on disk: safetensors files, in one piece or in several with an index, read a tensor at a time.

A safetensors file is 8 bytes, the length of a header; the header, JSON of {name: {dtype, shape, data_offsets}}; and the
numbers. The library checks that the header fits the file; then a tensor is a view of the file itself (numpy.memmap),
and takes memory only as it is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import HubError
from .fields import check_file, read_object

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy has no bfloat16


class Stored(NamedTuple):
    """A tensor in a file: its kind of number, shape and first byte."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


def find_tensors(folder: Path) -> dict[str, Stored]:
    """All tensors of a model's folder by name; HubError where a file is missing, damaged or does not belong there."""
    if (folder / FILE).exists():
        return read_header(folder / FILE)
    if (folder / INDEX).exists():
        return _sharded(folder)
    if other := sorted(p.name for p in folder.glob("*.bin")):
        raise HubError(
            f"{folder} holds its weights as {other[0]}, a pickle, which can run any program when it is read: expected "
            f"{FILE}; in transformers, save_pretrained writes it"
        )
    raise HubError(f"{folder} has no weights: expected {FILE}, or {INDEX} and the files it names")


def _sharded(folder: Path) -> dict[str, Stored]:
    index = folder / INDEX
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise HubError(f"{index} has no weight_map: expected an object of the file that holds each tensor")
    files: dict[str, dict[str, Stored]] = {}
    for name, file in places.items():
        if not isinstance(file, str) or not _is_plain(file):
            raise HubError(
                f"{index} puts {name!r} into {str(file)[:80]!r}: expected the name of a .safetensors file beside it"
            )
        if file not in files:
            files[file] = read_header(folder / file)
        if name not in files[file]:
            raise HubError(f"{index} and {file} do not belong together: the file has no tensor {name!r}")
    return {name: files[file][name] for name, file in places.items()}


def _is_plain(file: str) -> bool:
    """The name of a file of the folder itself, on any system. It may be a link: the Hub's own cache is made of them."""
    plain = len(file) < 256 and not file.startswith(".") and not set(file) & set("/\\:\0")
    return plain and file.endswith(".safetensors")


def read_header(path: Path) -> dict[str, Stored]:
    """{name: where it is} of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    check_file(path, "a safetensors file")
    try:
        with safe_open(path, "numpy"):  # checks lengths, offsets, shapes, dtypes, and that the file has as many bytes
            pass
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(length))
    except (SafetensorError, OSError, ValueError, RecursionError, MemoryError) as error:
        raise HubError(f"{path} is not a readable safetensors file ({error})") from None
    header.pop("__metadata__", None)
    return {
        name: Stored(path, about["dtype"], tuple(about["shape"]), 8 + length + about["data_offsets"][0])
        for name, about in header.items()
    }


def read_tensor(stored: Stored) -> np.ndarray:
    """The tensor: float32 or float64 as a view of the file, float16 and bfloat16 as float32, which is exact."""
    try:
        array: Any = np.memmap(stored.path, _DTYPES[stored.dtype], "r", stored.offset, stored.shape)
    except (OSError, ValueError) as error:  # the file has changed since
        raise HubError(f"{stored.path} cannot be read ({error})") from None
    if stored.dtype == "BF16":
        return bfloat16_to_float32(array)
    return array.astype(np.float32) if stored.dtype == "F16" else array


def bfloat16_to_float32(bits: Any) -> np.ndarray:
    """A bfloat16 number is the upper half of a float32: bits uint16 -> float32 of the same shape.

    >>> bfloat16_to_float32(np.array([0x3F80, 0xC049], np.uint16)).tolist()
    [1.0, -3.140625]
    """
    wide = np.asarray(bits).astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def check_stored(name: str, stored: Stored, shape: tuple[int, ...], config: Any) -> None:
    """HubError unless the tensor has the shape that the config asks for, and numbers that can be read."""
    if stored.shape != shape:
        hint = " (is it transposed?)" if len(shape) > 1 and stored.shape == shape[::-1] else ""
        raise HubError(f"{name} has shape {stored.shape} in {stored.path}; by {config} it must be {shape}{hint}")
    if stored.dtype not in _DTYPES:
        raise HubError(f"{name} in {stored.path} is of type {stored.dtype}: expected one of {', '.join(_DTYPES)}")
