"""Saves: the whole state of a training run, from time to time, so that a run that was stopped can go on as if not.

    RUN/saves/0007-step-1500/state.json           numbers, settings, random states; arrays are named in it
                             state.safetensors    the arrays: weights, moments, averages
                             SHA256SUMS           of both, as `sha256sum -c SHA256SUMS` reads them

A save is a folder that appears whole: it is written under another name, synced, then renamed; only then are older ones
removed, all but the best. So whatever moment a run is killed at, its newest save is whole. What happens to a disk
later is noticed by the checksums. Nothing in a save is executed, and no path is taken from one.

(Activation checkpointing, which saves memory in one step, is minillm/checkpoint.py.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..durable import sync_folder, write_synced

STATE, ARRAYS, SUMS = "state.json", "state.safetensors", "SHA256SUMS"
FORMAT = "minillm save 1"
LARGEST = 256 * 2**20  # bytes of a state.json
_NAME = re.compile(r"(\d{4,12})-step-\d{1,18}")


class RunError(ValueError):
    """A run directory that cannot be read or written: which file, what is wrong, what to do."""


class Saves:
    """The saves of a run, in `folder`. A state is a dict of dicts, lists, NumPy arrays, numbers, text and None."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.best: str | None = None  # the name of the one that is kept beside the newest

    def names(self) -> list[str]:
        """Those that are there, oldest first."""
        try:
            found = [entry.name for entry in os.scandir(self.folder) if _NAME.fullmatch(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise RunError(f"{self.folder} cannot be read: {error.strerror}") from error
        return sorted(found, key=lambda name: int(name.split("-")[0]))

    # ----------------------------------------------------------------------------------------------- write

    def write(self, step: int, state: dict[str, Any], is_best: bool = False, prune: bool = True) -> str:
        """Add a save and (prune) remove those that are neither it nor the best; returns its name.

        RunError where the disk is full or refuses: then all older saves are still there.
        """
        from safetensors.numpy import save

        names = self.names()
        name = f"{int(names[-1].split('-')[0]) + 1 if names else 1:04d}-step-{step}"
        best = name if is_best else self.best
        arrays: dict[str, np.ndarray] = {}
        tree = pack(state, arrays)
        data = save(arrays)
        about = {"format": FORMAT, "step": step, "best": best, "arrays_bytes": len(data), "state": tree}
        text = json.dumps(about, indent=1, allow_nan=False).encode()
        sums = sums_of(hashlib.sha256(text).hexdigest(), hashlib.sha256(data).hexdigest())
        temporary = self.folder / f".new-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process that had our number
            temporary.mkdir()
            for file, content in ((ARRAYS, data), (STATE, text), (SUMS, sums.encode())):
                write_synced(temporary / file, content)
            sync_folder(temporary)
            os.rename(temporary, self.folder / name)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            there = f"; the save before it, {names[-1]}, is whole" if names else ""
            raise RunError(f"{self.folder / name} cannot be written: {error.strerror or error}{there}") from error
        self.best = best
        if prune:
            self.remove_others({name, best})
        return name

    def remove_others(self, keep: Any) -> None:
        """Remove all saves but those of these names, and what killed processes left half-written or half-removed."""
        with contextlib.suppress(OSError):  # what cannot be removed now may stay
            for name in set(self.names()) - set(keep):
                os.rename(self.folder / name, self.folder / f".old-{name}")  # from here on it is not a save
            for entry in list(os.scandir(self.folder)):
                if entry.name.startswith((".new-", ".old-")) and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------ read

    def newest(self) -> tuple[str, dict[str, Any]] | None:
        """(name, state) of the newest save; None if there is none."""
        names = self.names()
        return (names[-1], self.read(names[-1])) if names else None

    def read(self, name: str) -> dict[str, Any]:
        """The state that was saved under that name, to the bit. RunError where a file is missing or damaged."""
        folder, others = self.folder / name, [n for n in self.names() if n != name]
        try:
            state, best = self._read(folder)
        except _Damaged as error:
            hint = f"; {others[-1]} beside it can be used once this folder is removed" if others else ""
            raise RunError(f"the save {folder} is damaged: {error}{hint}") from error.__cause__
        self.best = best if best in (*others, name) else None
        return state

    def _read(self, folder: Path) -> tuple[dict[str, Any], Any]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        sums, text = _text(folder / SUMS, 10_000), _text(folder / STATE, LARGEST)
        found = hashlib.sha256(text.encode()).hexdigest()
        if found not in sums:
            raise _Damaged(f"the checksum of {STATE} is not the one in {SUMS}")
        try:
            about = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _Damaged(f"{STATE} is not readable JSON ({error})") from error
        if not isinstance(about, dict) or about.get("format") != FORMAT or not isinstance(about.get("state"), dict):
            raise _Damaged(f"{STATE} is not of the format {FORMAT!r}")
        size = _size(folder / ARRAYS)
        if size != about.get("arrays_bytes"):
            raise _Damaged(f"{ARRAYS} has {size:,} bytes, it was written with {about.get('arrays_bytes')}")
        try:
            with open(folder / ARRAYS, "rb") as f:
                arrays_found = hashlib.file_digest(f, "sha256").hexdigest()
            if sums_of(found, arrays_found) != sums:
                raise _Damaged(f"the checksum of {ARRAYS} is not the one in {SUMS}")
            arrays = load_file(folder / ARRAYS)
            return unpack(about["state"], arrays), about.get("best")
        except (OSError, SafetensorError, TypeError, ValueError, KeyError) as error:
            if isinstance(error, _Damaged):
                raise
            raise _Damaged(f"{ARRAYS} cannot be read ({error})") from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Inside the block no other process trains this run: two would remove each other's saves."""
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / ".lock", "a")  # noqa: SIM115 (held while the block runs)
        except OSError as error:
            raise RunError(f"{self.folder} cannot be written into: {error.strerror or error}") from error
        with file:  # the lock goes when the file is closed, or its process ends, however it ends
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.folder.parent} is being trained by another process; wait for it") from None
            except OSError:
                pass  # a disk without locks
            yield


class _Damaged(ValueError):
    """What is wrong with a save's files."""


def pack(value: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """The value as JSON; its arrays go into `arrays`, under the path that leads to them."""
    if isinstance(value, dict):
        return {str(k): pack(v, arrays, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(v, arrays, f"{path}.{i}") for i, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        if path in arrays:
            raise ValueError(f"a save has two arrays of the name {path!r}")
        arrays[path] = np.array(value, order="C")  # ascontiguousarray would lose 0-d
        return {"$array": path}
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}  # which JSON lacks
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a save holds arrays, numbers, text, lists and dicts; {path!r} is a {type(value).__name__}")


def unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `pack` was given, with lists for tuples and text for the keys of dicts."""
    if isinstance(value, dict):
        if set(value) == {"$array"}:
            return arrays[value["$array"]]
        if set(value) == {"$float"}:
            return float(value["$float"])
        return {k: unpack(v, arrays) for k, v in value.items()}
    return [unpack(v, arrays) for v in value] if isinstance(value, list) else value


def sums_of(state: str, arrays: str) -> str:
    """The text of SHA256SUMS."""
    return f"{state}  {STATE}\n{arrays}  {ARRAYS}\n"


def _size(path: Path) -> int:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise _Damaged(f"it has no {path.name}") from None
    except OSError as error:
        raise _Damaged(f"{path.name} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):
        raise _Damaged(f"{path.name} is not a file")
    return found.st_size


def _text(path: Path, most: int) -> str:
    size = _size(path)
    if size > most:
        raise _Damaged(f"{path.name} has {size:,} bytes, more than any that was written")
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise _Damaged(f"{path.name} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _Damaged(f"{path.name} is not UTF-8 text") from error
