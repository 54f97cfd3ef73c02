"""MNIST and everything stored like it (Fashion-MNIST, KMNIST ...): pairs of idx files, gzipped or not.

The idx format (Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits), all integers big-endian:

    offset 0         0x00 0x00 0x08 d        magic number: unsigned bytes, d axes (images 3: 2051, labels 1: 2049)
    offset 4         d integers of 32 bits   the length of each axis
    offset 4 + 4 d   the bytes               last axis fastest

The lengths are compared with what the file really holds before anything of that size is allocated.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import DataError, existing_file

AXES = {"images": 3, "labels": 1}
PREFIX = {"train": "train", "test": "t10k"}


def load_mnist(folder: str | os.PathLike[str], split: str | None = None) -> tuple[Any, Any]:
    """Images float32 (N, rows * columns) in [0, 1], 784 pixels for MNIST, and labels int64 (N,).

    folder: the folder that holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, each gzipped
    (`.gz`) or not; or one of these files: the other of its pair is found beside it.
    split: "train" or "test"; None is "train" for a folder, and whatever the file is for a file.
    Raises DataError for anything missing, cut short, corrupted, or of the wrong form.
    """
    images, labels = read_pair(folder, split)
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64)


def read_pair(path: str | os.PathLike[str], split: str | None = None) -> tuple[Any, Any]:
    """Images uint8 (N, rows, columns) and labels uint8 (N,) of a folder or of one file of a pair: see `load_mnist`."""
    if split not in (None, "train", "test"):
        raise DataError(f"split={split!r}: expected 'train' or 'test'")
    try:
        is_folder = os.path.isdir(path)
    except ValueError:  # a NUL character in the name: existing_file says so
        is_folder = False
    image_file, label_file = _pair_in(Path(path), split or "train") if is_folder else _pair_of(path, split)
    images, labels = read_idx(image_file, "images"), read_idx(label_file, "labels")
    if len(images) != len(labels):
        raise DataError(
            f"{str(image_file)!r} holds {len(images):,} images and {str(label_file)!r} {len(labels):,} labels: "
            "expected one label for each image; take both files from the same source"
        )
    return images, labels


def read_idx(path: str | os.PathLike[str], what: str) -> Any:
    """One idx file of unsigned bytes: uint8 (N, rows, columns) for what="images", (N,) for what="labels"."""
    axes = AXES[what]
    magic = 0x800 + axes
    file = existing_file(path, f"an idx file of {what}")
    try:
        with _open(file) as stream:
            header = _read_up_to(stream, 4 + 4 * axes)
            if len(header) >= 4 and header[:4] != struct.pack(">I", magic):
                raise DataError(_wrong_magic(path, header, what, magic))
            if len(header) < 4 + 4 * axes:
                raise DataError(
                    f"{str(path)!r} ends after {len(header)} bytes: expected an idx file of {what} with a header of "
                    f"{4 + 4 * axes} bytes; the file is cut short, fetch it again"
                )
            shape = struct.unpack(f">{axes}I", header[4:])
            size = math.prod(shape)
            body = _read_up_to(stream, size + 1)  # one more than declared: finds surplus, and makes gzip check its sum
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}): corrupted or cut short; fetch it again") from None
    declared = " x ".join(f"{n:,}" for n in shape)
    if size == 0:
        raise DataError(f"{str(path)!r} declares {declared} {what}: expected at least one, of at least one pixel")
    if len(body) != size:
        held = f"{len(body):,}" if len(body) < size else "more"
        raise DataError(
            f"{str(path)!r} declares {declared} = {size:,} bytes of {what} and holds {held}: "
            "the file is cut short or its header is wrong, fetch it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _wrong_magic(path: str | os.PathLike[str], header: bytes, what: str, magic: int) -> str:
    found = int.from_bytes(header[:4], "big")
    guess = next((f", which means {kind}" for kind, axes in AXES.items() if found == 0x800 + axes), "")
    return (
        f"{str(path)!r} begins with magic number {found}{guess}: expected {magic}, an idx file of {what}; "
        "give an idx file, gzipped or not"
    )


def _open(file: Path) -> BinaryIO:
    with file.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(file, "rb") if zipped else file.open("rb")  # type: ignore[return-value]


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """At most `size` bytes, a piece at a time: a header that declares 10^18 bytes must not allocate them."""
    data = bytearray()
    while len(data) < size and (piece := stream.read(min(size - len(data), 1 << 20))):
        data += piece
    return bytes(data)


def _pair_in(folder: Path, split: str) -> tuple[Path, Path]:
    """The two files of one split in a folder."""
    found = []
    for what, axes in AXES.items():
        names = [f"{PREFIX[split]}-{what}{dot}idx{axes}-ubyte" for dot in "-."]
        found.append(_first_existing([folder / name for name in names], f"the {what} of the {split} part of MNIST"))
    return found[0], found[1]


def _pair_of(path: str | os.PathLike[str], split: str | None) -> tuple[Path, Path]:
    """The pair to which one file belongs."""
    file = existing_file(path, "a folder with MNIST's idx files, or one of these files")
    name = file.name
    own = next((part for part, prefix in PREFIX.items() if name.startswith(prefix)), None)
    if split and own != split:
        raise DataError(
            f"{str(path)!r} is not of the {split} part by its name: expected {PREFIX[split]}-...; give its folder"
        )
    what = "labels" if "labels" in name else "images"
    read_idx(file, what)  # a file that is no idx file at all should be told so, not that its partner is missing
    other = "images" if what == "labels" else "labels"
    partner = name.removesuffix(".gz").replace(what, other).replace(f"idx{AXES[what]}", f"idx{AXES[other]}")
    if partner == name.removesuffix(".gz"):
        raise DataError(
            f"the name {name!r} holds neither 'images' nor 'labels', so its partner is not known: "
            "expected names such as 'train-images-idx3-ubyte'; rename the two files so"
        )
    found = _first_existing([file.with_name(partner)], f"the {other} that belong to {name!r}")
    return (file, found) if what == "images" else (found, file)


def _first_existing(files: list[Path], what: str) -> Path:
    candidates = [candidate for file in files for candidate in (file, file.with_name(file.name + ".gz"))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"no file with {what} in {str(files[0].parent)!r}: expected {files[0].name!r} or {files[0].name + '.gz'!r}; "
        "put it there, or give another folder"
    )
