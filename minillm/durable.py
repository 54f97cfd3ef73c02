"""Writing so that a power cut or a kill leaves the old file or the new one, never half of one.

A rename is atomic, but the names of a folder and the bytes of a file reach the disk each in its own time: the file is
synced before it is renamed, and the folder after it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace_file(target: Path, data: bytes) -> None:
    """Write beside the target, sync, rename over it. OSError, and nothing of it left, where that fails."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, data)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def write_synced(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns."""
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def sync_folder(folder: Path) -> None:
    """The names in a folder, on the disk when this returns (where the system can say that)."""
    with contextlib.suppress(OSError):  # Windows opens no folders, some network disks sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
