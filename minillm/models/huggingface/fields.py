"""JSON files that somebody else wrote: each value is looked at before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...data.errors import DataError, existing_file
from .errors import HubError

LARGEST = 64 * 2**20  # bytes of a JSON file


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; HubError where there is none."""
    check_file(path, "a JSON file")
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"it has {size:,} bytes, and may have {LARGEST:,}")
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # not there, not UTF-8, not JSON, too deep
        raise HubError(f"{path} is not readable JSON ({error})") from None
    if not isinstance(found, dict):
        raise HubError(f"{path} holds {_short(found)}: expected a JSON object, {{...}}")
    return found


def check_file(path: Path, expected: str) -> None:
    """HubError unless there is such a file: reading a folder fails, reading a pipe may wait for ever."""
    try:
        existing_file(path, expected)
    except DataError as error:
        raise HubError(str(error)) from None


class Fields:
    """The values of an object by name and kind; what is missing or null has its default. HubError for anything else."""

    def __init__(self, values: dict[str, Any], where: Any):
        self.values, self.where = values, where

    def get(self, name: str, default: Any = None) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None, least: int = 1, most: int = 2**40) -> Any:
        """A whole number; of a field without a default it is asked for."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least:,} to {most:,}", value)
        return value

    def number(self, name: str, default: float | None = None, above: float = 0.0, most: float = 1e12) -> Any:
        """A number between these two."""
        value = self.get(name, default)
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not plain or not above < value < most:
            raise self.wrong(name, f"a number above {above:g} and below {most:g}", value)
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def share(self, name: str, default: float) -> float:
        """A number from 0 to below 1."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise self.wrong(name, "a number from 0 to below 1", value)
        return float(value)

    def choice(self, name: str, default: str, choices: dict[str, Any]) -> Any:
        """What the table has for the field's text."""
        value = self.get(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, f"one of {', '.join(choices)}: no other is built here", value)
        return choices[value]

    def inner(self, name: str) -> Fields:
        """An object within; an empty one where there is none."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, "an object", value)
        return Fields(value, f"{self.where}, {name}")

    def only(self, name: str, default: Any, why: str) -> None:
        """The default, or HubError: other values make another model."""
        value = self.get(name, default)
        if isinstance(value, bool) != isinstance(default, bool) or value != default:
            raise self.wrong(name, f"{json.dumps(default)}: {why}", value)

    def wrong(self, name: str, expected: str, value: Any) -> HubError:
        given = "it is missing" if value is None else f"got {_short(value)}"
        return HubError(f"{self.where}: {name} must be {expected}; {given}")


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, float) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
