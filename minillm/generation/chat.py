"""`minillm chat`: each line of standard input continues the conversation, and the model goes on from there.

    conversation = line, after, answer, between, before, line, after, answer ...

The model sees the last `context` tokens of it. A plain language model has no notion of an answer: it continues the
text, and a stop string says where its turn ends.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ..flags import positive
from .command import (
    MODEL,
    add_sampling,
    encoded,
    open_writer,
    plain_errors,
    sampling,
    unescaped,
    unknown_characters,
    write,
)

if TYPE_CHECKING:
    from .loading import Writer

BLANK_LINE = "\n\n"


def add_chat(commands: Any, make: Callable[..., Any]) -> None:
    """The parser of `minillm chat`; make(commands, name, run, help) is cli.py's."""
    parser = make(commands, "chat", run_chat, "write with a trained language model in turns; Ctrl-D ends it")
    parser.add_argument("folder", metavar="RUN", help=MODEL)
    parser.add_argument("--tokens", type=positive, default=200, metavar="N", help="the most tokens of an answer")
    add_sampling(parser, stop="a blank line")
    for flag, default, where in (
        ("--before", "", "before each of your lines, for instance 'User: '"),
        ("--after", r"\n", "after each of your lines"),
        ("--between", r"\n\n", "between an answer and your next line"),
    ):
        parser.add_argument(
            flag, type=unescaped, default=default, metavar="TEXT", help=f"what stands {where}{_default(default)}"
        )
    parser.add_argument("--json", action="store_true", help="print each answer as a JSON object on a line")


def _default(text: str) -> str:
    return f" (default: {text})" if text else ""


def run_chat(parsed: argparse.Namespace) -> int:
    """`minillm chat`; the exit code. An empty line lets the model go on where it stopped."""
    from ..cli import UsageError

    writer, settings = open_writer(parsed), sampling(parsed)
    stops = parsed.stop or [BLANK_LINE]
    before, after, between = (_known(writer, t) for t in (parsed.before, parsed.after, parsed.between))
    conversation = np.zeros(0, np.int64)
    for line in _lines():
        if line:
            try:
                turn = (between if conversation.size else "") + before + line + after
                conversation = np.append(conversation, encoded(writer, turn, begin=not conversation.size))
            except UsageError as error:  # the conversation goes on
                print(f"minillm chat: {error}", file=sys.stderr)
                continue
        if not conversation.size:
            continue
        show = (lambda piece: None) if parsed.json else write
        with plain_errors(lambda: not parsed.json):
            ids, answer = _answer(writer, conversation, settings, stops, parsed, show)
        print(json.dumps({"prompt": line, "text": answer}) if parsed.json else "", flush=True)
        conversation = np.append(conversation, ids)
    return 0


def _answer(
    writer: Writer, start: np.ndarray, settings: Any, stops: list[str], parsed: argparse.Namespace, show: Any
) -> tuple[np.ndarray, str]:
    """Ids and text of the model's turn, without what ended it."""
    from .generate import generate
    from .stream import TextStream

    stream, pieces = TextStream(writer.tokenizer, start, stops), list[str]()

    def add(piece: str) -> None:
        pieces.append(piece)
        show(piece)

    def on_token(_: int, token: int) -> bool:
        if token not in writer.end:
            add(stream.push(token))
        return stream.stopped is not None

    (ids,) = generate(
        writer.model, [start], settings, max_new_tokens=parsed.tokens, stop=writer.end, seed=parsed.seed,
        on_token=on_token, vocab_size=getattr(writer.tokenizer, "vocab_size", None),
    )  # fmt: skip
    add(stream.finish())
    new, answer = ids[len(start) :], "".join(pieces)
    if stream.stopped is not None:
        new = np.asarray(writer.tokenizer.encode(answer) if answer else [], np.int64)
    elif new.size and int(new[-1]) in writer.end:
        new = new[:-1]
    return new, answer


def _known(writer: Writer, text: str) -> str:
    """text without the characters that the model never saw: a text in one line has no line ends."""
    unknown = unknown_characters(writer, text)
    return "".join(c for c in text if c not in unknown)


def _lines() -> Iterator[str]:
    """Lines of standard input without their ends; on a terminal with a mark before each, and what it has to edit."""
    from ..cli import UsageError

    terminal = sys.stdin.isatty()
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  # input() then knows the arrow keys
        print("Each line continues the text; an empty one lets the model go on. Ctrl-D ends it.", file=sys.stderr)
    while True:
        try:
            line = input("> ") if terminal else sys.stdin.readline()
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            write("\n")
            raise
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not {error.encoding} text: {error.reason}") from error
        if not line and not terminal:
            return
        yield line.rstrip("\r\n")
