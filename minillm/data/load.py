"""One entry to all data: an embedded set by its name, or your own file or folder by its path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .digits import load_digits
from .errors import DataError, read_bytes
from .mnist import read_pair
from .table import load_table, looks_like_table
from .text import python_docs_text, python_source_text, read_text

KINDS = ("images", "text", "table")
EMBEDDED = {"digits": "images", "docs": "text", "source": "text"}
DEFAULT = {"images": "digits", "text": "docs", None: "digits"}
PSF = "PSF License 2.0"
YOURS = "that of your file"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data with what one must know about it."""

    name: str
    kind: str  # "images", "text" or "table"
    inputs: Any  # images float32 (N, pixels) in [0, 1]; table float32 (N, D); text str
    labels: Any | None  # int64 (N,) classes, float32 (N,) numbers of a table, or None
    image_shape: tuple[int, int] | None  # (rows, columns) of images
    description: str
    licence: str
    source: str
    classes: tuple[str, ...] = ()  # what label k means, where a table's labels are words
    columns: tuple[str, ...] = ()  # the names of a table's D columns


@dataclass(frozen=True)
class Listing:
    """One line of `list_datasets`."""

    name: str
    kind: str
    what: str
    size: str
    licence: str
    source: str


def load(
    source: str | os.PathLike[str] | None = None,
    kind: str | None = None,
    *,
    split: str | None = None,
    target: str | int | None = None,
) -> Dataset:
    """The data set called `source`, or the file or folder at that path.

    source: "digits", "docs", "source" (a name goes before a file of that name: write ./docs for the file); the path of
    a folder with MNIST's idx files, an idx file, a CSV or TSV file, or a UTF-8 text file; None for the embedded set of
    that kind, digits if no kind is given.
    kind: "images", "text" or "table"; None finds out by looking at the content.
    split: "train" (the default) or "test" of a set of images; text and tables come whole.
    target: the column of a table that becomes `labels`.

    >>> digits = load("digits", split="test")
    >>> digits.kind, digits.inputs.shape, digits.image_shape
    ('images', (360, 64), (8, 8))
    """
    if kind not in (None, *KINDS):
        raise DataError(f"kind={kind!r}: expected {', '.join(map(repr, KINDS))} or None")
    if source is None:
        if kind == "table":
            raise DataError("no table is embedded: give the path of a CSV or TSV file")
        source = DEFAULT[kind]
    embedded = EMBEDDED.get(source) if isinstance(source, str) else None
    if embedded and kind not in (None, embedded):
        raise DataError(f"{source!r} is the embedded set of {embedded}, not {kind}: give a path or another name")
    found = embedded or kind or _kind_of(source)
    if split is not None and found != "images":
        raise DataError(f"split={split!r}: {str(source)!r} is {found}, which has no parts of its own; leave split out")
    if target is not None and found != "table":
        raise DataError(f"target={target!r}: {str(source)!r} is {found}; only a table has a target column")
    if embedded:
        return _digits(split or "train") if source == "digits" else _python_text(str(source))
    if found == "images":
        return _images(source, split)
    return _table(source, target) if found == "table" else _text(source)


def list_datasets() -> list[Listing]:
    """The embedded data sets."""
    listings = []
    for name, kind in EMBEDDED.items():
        try:
            data = load(name, split="all" if name == "digits" else None)
        except DataError as error:  # a Python without its documentation still has the other sets
            listings.append(Listing(name, kind, str(error), "not available", "", ""))
            continue
        size = f"{len(data.inputs):,} images, 8 x 8" if data.kind == "images" else f"{len(data.inputs):,} characters"
        listings.append(Listing(name, data.kind, data.description, size, data.licence, data.source))
    return listings


def _kind_of(path: str | os.PathLike[str]) -> str:
    """What a path holds, by its content; a name in .csv or .tsv settles it, so that errors speak of tables."""
    if "\0" not in os.fspath(path) and os.path.isdir(path):
        return "images"
    data = read_bytes(
        path, "'digits', 'docs', 'source', an MNIST folder or idx file, a CSV or TSV file, or a UTF-8 text file"
    )
    if data[:2] in (b"\x1f\x8b", b"\0\0"):  # gzip, idx
        return "images"
    if Path(path).suffix.lower() in (".csv", ".tsv"):
        return "table"
    return "table" if looks_like_table(data[:100_000].decode("utf-8", "replace")) else "text"


def _digits(split: str) -> Dataset:
    images, labels = load_digits(split)
    return Dataset(
        name="digits",
        kind="images",
        inputs=images,
        labels=labels,
        image_shape=(8, 8),
        description="handwritten digits of 13 writers, 17 shades of grey, 10 classes",
        licence="CC BY 4.0",
        source="E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998), doi 10.24432/C50P49",
    )


def _python_text(name: str) -> Dataset:
    docs = name == "docs"
    return Dataset(
        name=name,
        kind="text",
        inputs=python_docs_text() if docs else python_source_text(),
        labels=None,
        image_shape=None,
        description="Python's language reference, as help() shows it" if docs else "Python source, by module name",
        licence=PSF,
        source="pydoc_data.topics of the running Python" if docs else "the standard library of the running Python",
    )


def _images(path: str | os.PathLike[str], split: str | None) -> Dataset:
    images, labels = read_pair(path, split)  # uint8 (N, rows, columns), (N,)
    rows, columns = images.shape[1:]
    return Dataset(
        name=_name(path),
        kind="images",
        inputs=images.reshape(len(images), -1).astype(np.float32) / 255,
        labels=labels.astype(np.int64),
        image_shape=(rows, columns),
        description=f"images of {rows} x {columns} pixels from idx files",
        licence=YOURS,
        source=str(path),
    )


def _table(path: str | os.PathLike[str], target: str | int | None) -> Dataset:
    features, labels, columns = load_table(path, target)
    classes: tuple[str, ...] = ()
    if labels is not None and labels.dtype.kind == "U":
        names, labels = np.unique(labels, return_inverse=True)
        classes, labels = tuple(names.tolist()), labels.astype(np.int64)
    return Dataset(
        name=_name(path),
        kind="table",
        inputs=features,
        labels=labels,
        image_shape=None,
        description=f"table of {features.shape[1]} columns of numbers",
        licence=YOURS,
        source=str(path),
        classes=classes,
        columns=tuple(columns),
    )


def _text(path: str | os.PathLike[str]) -> Dataset:
    return Dataset(
        name=_name(path),
        kind="text",
        inputs=read_text(path),
        labels=None,
        image_shape=None,
        description="UTF-8 text",
        licence=YOURS,
        source=str(path),
    )


def _name(path: str | os.PathLike[str]) -> str:
    return os.path.basename(os.path.normpath(path))
