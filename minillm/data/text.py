"""Text to train on: the running Python's own documentation and source, or any UTF-8 file."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from .errors import DataError, read_bytes


def python_docs_text() -> str:
    """The language reference that `help()` shows: English prose with code, about half a million characters.

    Taken from `pydoc_data.topics` of the running Python, topics in alphabetical order: one version of Python always
    gives the same text, the next a slightly different one. DataError on a Python that comes without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            f"Python {sys.version.split()[0]} at {sys.prefix} comes without pydoc_data, which holds its documentation: "
            "install the full standard library, or give a text file of your own"
        ) from None
    return "\n".join(topics[name] for name in sorted(topics))


def python_source_text(max_chars: int | None = 1_000_000) -> str:
    """The source of the standard library's top-level modules, in alphabetical order, up to `max_chars` characters.

    One installation of Python always gives the same text. `max_chars=None` gives all of it. DataError where the
    sources were left out of the installation.
    """
    if max_chars is not None and max_chars < 1:
        raise DataError(f"max_chars={max_chars}: expected a positive number of characters, or None for all")
    folder = Path(sysconfig.get_path("stdlib"))
    # the names that Python itself lists: distributions put generated files of their own into this folder
    files = [folder / f"{name}.py" for name in sorted(sys.stdlib_module_names)]
    parts: list[str] = []
    length = 0
    for file in files:
        if max_chars is not None and length >= max_chars:
            break
        if file.is_file():
            parts.append(read_text(file))
            length += len(parts[-1])
    if not parts:
        raise DataError(
            f"no .py source in {str(folder)!r}: expected the standard library's source; "
            "install it, or give a text file of your own"
        )
    return "".join(parts)[:max_chars]


def read_text(path: str | os.PathLike[str]) -> str:
    """A UTF-8 text file as it is, line endings included; only a byte-order mark at the start is dropped.

    DataError: missing, a folder, empty, not UTF-8 (with the offset of the first wrong byte), or binary.
    """
    data = read_bytes(path, "a UTF-8 text file")
    if not data:
        raise DataError(f"{str(path)!r} is empty: expected a UTF-8 text file with at least one character")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{str(path)!r} is not UTF-8 text: byte {data[error.start]:#04x} at offset {error.start} ({error.reason}); "
            "save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(
            f"{str(path)!r} holds a NUL character at offset {data.index(0)}: expected text, and this is a binary file"
        )
    text = text.removeprefix("\ufeff")
    if not text:
        raise DataError(f"{str(path)!r} holds only a byte-order mark: expected a UTF-8 text file with some text")
    return text
