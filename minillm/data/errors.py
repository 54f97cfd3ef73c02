"""The one error of the data modules, and the check that every reader starts with."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class DataError(ValueError):
    """A data file or name is missing, cut short or of the wrong form: what was given, what was expected, what to do."""


def existing_file(path: str | os.PathLike[str], expected: str) -> Path:
    """`path` as a Path, or a DataError if it is no existing regular file. `expected` says what the file should be."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{str(path)!r} cannot be opened ({reason}): expected {expected}; check the path") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{str(path)!r} is a folder: expected {expected}; give the path of a file in it")
    if not stat.S_ISREG(mode):
        raise DataError(f"{str(path)!r} is not a regular file: expected {expected}; save the data to a file first")
    return Path(path)


def read_bytes(path: str | os.PathLike[str], expected: str) -> bytes:
    """The bytes of an existing regular file; DataError where it is missing, a folder or not readable."""
    file = existing_file(path, expected)
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror}): expected {expected}") from None
