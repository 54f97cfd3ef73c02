"""Command-line flags: from a dataclass of settings, and with the nearest flag suggested for a misspelt one."""

from __future__ import annotations

import argparse
import re
import types
import typing
from dataclasses import fields
from typing import Any, NoReturn

from .errors import nearest


class Formatter(argparse.HelpFormatter):
    """Help that ends in the default, where there is one and the text does not say it itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        help, default = action.help or "", action.default
        if (
            not action.option_strings
            or default is False
            or default in (None, "", argparse.SUPPRESS)
            or "(default" in help
        ):
            return help
        return f"{help} (default: {','.join(map(str, default)) if isinstance(default, tuple) else '%(default)s'})"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence, with a suggestion. Flags cannot be abbreviated."""

    def __init__(self, *args: Any, **settings: Any):
        settings.setdefault("formatter_class", Formatter)
        settings["allow_abbrev"] = False
        super().__init__(*args, **settings)

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (.*)", message)
        if unknown:
            wrong = next((w for w in unknown[1].split() if w.startswith("-")), None)
            if wrong is not None:
                flag = wrong.split("=")[0]
                hint = nearest(flag, self._option_string_actions)
                message = f"there is no flag {flag}.{hint} `{self.prog} --help` lists them"
            else:
                message = f"did not expect {unknown[1]!r}; `{self.prog} --help` shows what it takes"
        if message.startswith("the following arguments are required"):
            message += f"; `{self.prog} --help` shows what to give"
        choice = re.match(r"argument (.*): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            options = [c.strip(" '") for c in choice[3].split(",")]
            message = f"{choice[1]}: {choice[2]!r} is none of {', '.join(options)}.{nearest(choice[2], options)}"
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but what a subcommand does not know is that subcommand's error: its flags are suggested."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            parser = getattr(parsed, "parser", self)
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """A flag for each field of a dataclass: its name, type, default and help text; in groups, where fields have one."""
    hints = typing.get_type_hints(settings)
    groups: dict[Any, Any] = {}
    for f in fields(settings):
        name, flag = f.metadata.get("group"), "--" + f.name.replace("_", "-")
        if name not in groups:
            groups[name] = parser.add_argument_group(name) if name else parser
        group = groups[name]
        if hints[f.name] is bool:
            off = flag.replace("--", "--no-", 1)
            group.add_argument(flag, off, action=Switch, nargs=0, default=f.default, help=_switched(f))
            continue
        group.add_argument(
            flag,
            action=Given,
            type=_reader(hints[f.name], f.metadata.get("least", 1)),
            default=f.default,
            choices=f.metadata.get("choices"),
            help=f.metadata["help"],
            metavar=None if f.metadata.get("choices") else f.metadata.get("word", _word(hints[f.name])),
        )


def read_settings(parsed: argparse.Namespace, settings: Any, given: Any = ()) -> Any:
    """The dataclass, from the flags that `add_settings` made; by its `of(values, given)` where it has one."""
    values = {f.name: getattr(parsed, f.name) for f in fields(settings)}
    return settings.of(values, given) if hasattr(settings, "of") else settings(**values)


class Given(argparse.Action):
    """Stores a value, and its name in the namespace's set `given`: what the user said, not what stands by default."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


class Switch(Given):
    """--flag and --no-flag."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, namespace, not str(option_string).startswith("--no-"), option_string)


def _switched(f: Any) -> str:
    return f"{f.metadata['help']} (default: {'on' if f.default else 'off'})"


def positive(value: str) -> int:
    """An integer of at least 1."""
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {value!r}")
    return number


def number(value: str) -> float:
    """A finite number of at least 0."""
    try:
        x = float(value)
    except ValueError:
        x = -1.0
    if not 0 <= x < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {value!r}")
    return x


def seed(value: str) -> int:
    """An integer from 0 to 2**64 - 1."""
    try:
        n = int(value)
    except ValueError:
        n = -1
    if not 0 <= n < 2**64:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2**64 - 1, got {value!r}")
    return n


def widths(value: str) -> tuple[int, ...]:
    """Comma-separated positive integers: "400" or "512,256"."""
    return tuple(positive(v.strip()) for v in value.split(","))


def _reader(hint: Any, least: int) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is tuple:
        return widths
    return {int: positive if least else _whole, float: number, str: str}[hint]


def _whole(value: str) -> int:
    """An integer of at least 0."""
    return 0 if value.strip() == "0" else positive(value)


def _word(hint: Any) -> str:
    text = str(hint)
    return "N,N,.." if "tuple" in text else "N" if "int" in text else "X" if "float" in text else "TEXT"
