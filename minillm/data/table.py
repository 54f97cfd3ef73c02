"""Tables of numbers: CSV, TSV and the like (RFC 4180 quoting, by the standard library's csv module)."""

from __future__ import annotations

import csv
import io
import math
import os
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError
from .text import read_text

LARGEST = float(np.finfo(np.float32).max)


class Table(NamedTuple):
    """What `load_table` returns; unpacks as `features, targets, columns`."""

    features: Any  # float32 (N, D)
    targets: Any | None  # (N,): int64 where all are whole numbers, else float32, else str; None if none was asked for
    columns: list[str]  # the names of the D feature columns


def load_table(
    path: str | os.PathLike[str],
    target: str | int | None = None,
    delimiter: str | None = None,
    header: bool | str = "auto",
) -> Table:
    """A text file of N rows -> (features float32 (N, D), targets (N,) or None, names of the D columns).

    target: the column to predict, by name or by position from 0 (negative from the end); its cells may be words.
    delimiter: one character; None takes the tab, comma or semicolon that is most frequent in the first line.
    header: True, False, or "auto": the first row is a header if none of its cells is a number.
    Blank lines are skipped. DataError names line and column of a row that is too short or too long, and of a cell
    that is no finite float32.
    """
    if header not in (True, False, "auto"):
        raise DataError(f"header={header!r}: expected True, False or 'auto'")
    text = read_text(path)
    rows = _rows(path, text, guess_delimiter(text) if delimiter is None else delimiter)
    has_header = not any(_is_number(cell) for cell in rows[0][1]) if header == "auto" else header
    width = len(rows[0][1])
    names = [cell.strip() for cell in rows[0][1]] if has_header else [f"column {j}" for j in range(width)]
    rows = rows[1:] if has_header else rows
    if not rows:
        raise DataError(f"{str(path)!r} holds a header and no rows: expected at least one row of numbers")
    for line, cells in rows:
        if len(cells) != width:
            raise DataError(
                f"{str(path)!r}, line {line}: {len(cells)} columns, expected {width} as in the first row; "
                f"{'column ' + repr(names[len(cells)]) + ' is missing' if len(cells) < width else 'mend the line'}"
            )
    position = None if target is None else _position(path, names, target)
    kept = [j for j in range(width) if j != position]
    if not kept:
        raise DataError(f"{str(path)!r} has the target column alone: expected at least one column of features")
    features = np.empty((len(rows), len(kept)), np.float32)  # (N, D)
    for i, (line, cells) in enumerate(rows):
        for j, column in enumerate(kept):
            features[i, j] = _number(path, line, names[column], cells[column])
    targets = None if position is None else _targets(path, names[position], position, rows)
    return Table(features, targets, [names[j] for j in kept])


def guess_delimiter(text: str) -> str:
    """The tab, comma or semicolon that is most frequent in the first line with any text; the comma if there is none."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    return max(",\t;", key=first.count)


def looks_like_table(text: str, lines: int = 20) -> bool:
    """Whether the first lines have two or more columns, as many in each, and mostly numbers below the first line."""
    head = [line for line in text.splitlines()[: lines + 1] if line.strip()][:lines]
    if len(head) < 2:
        return False
    try:
        rows = list(csv.reader(head, delimiter=guess_delimiter(text)))
    except csv.Error:
        return False
    width = len(rows[0])
    return width >= 2 and all(len(row) == width and 2 * sum(map(_is_number, row)) >= width for row in rows[1:])


def _rows(path: str | os.PathLike[str], text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each row that is not blank; at least one."""
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise DataError(f"delimiter={delimiter!r}: expected one character such as ',' or '\\t'")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DataError(
            f"{str(path)!r}, line {reader.line_num}: {error}; expected cells apart by {delimiter!r}, quoted in pairs"
        ) from None
    if not rows:
        raise DataError(f"{str(path)!r} holds blank lines only: expected rows of numbers")
    return rows


def _position(path: str | os.PathLike[str], names: list[str], target: str | int) -> int:
    if isinstance(target, int):
        if -len(names) <= target < len(names):
            return target % len(names)
    elif names.count(target) == 1:
        return names.index(target)
    listed = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
    twice = "names more than one column" if names.count(target) > 1 else "is not a column"  # type: ignore[arg-type]
    raise DataError(f"target={target!r} {twice} of {str(path)!r}: expected a position from 0 to {len(names) - 1}"
                    f" or one of {listed}")  # fmt: skip


def _is_number(cell: str) -> bool:
    try:
        return "_" not in cell and math.isfinite(float(cell))  # Python reads 1_000 as a number; no table means it so
    except ValueError:
        return False


def _number(path: str | os.PathLike[str], line: int, column: str, cell: str) -> float:
    if _is_number(cell) and abs(float(cell)) <= LARGEST:
        return float(cell)
    shown = repr(cell) if cell.strip() else "an empty cell"
    raise DataError(
        f"{str(path)!r}, line {line}, column {column!r}: {shown}, expected a finite float32 number; "
        "mend or drop that row (header=True if it is the header, target=... if the column holds labels)"
    )


def _targets(path: str | os.PathLike[str], name: str, position: int, rows: list[tuple[int, list[str]]]) -> Any:
    """The target column (N,): int64, else float32, else str."""
    cells = [row[position].strip() for _, row in rows]
    for (line, _), cell in zip(rows, cells):
        if not cell:
            raise DataError(f"{str(path)!r}, line {line}, column {name!r}: empty, expected a target; drop that row")
    if not all(map(_is_number, cells)):
        return np.array(cells)
    values = [_number(path, line, name, cell) for (line, _), cell in zip(rows, cells)]
    whole = all(value.is_integer() and abs(value) < 2**53 for value in values)
    return np.array(values, np.int64 if whole else np.float32)
