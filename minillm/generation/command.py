"""`minillm generate`: continue texts with a trained model, one or a batch, word for word as they come."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..flags import number, positive, seed

if TYPE_CHECKING:
    from .loading import Writer
    from .sampling import Sampling

MODEL = "the run directory of `minillm train gpt`, or the folder of a model in Hugging Face's format"


def add_generate(commands: Any, make: Callable[..., Any]) -> None:
    """The parser of `minillm generate`; make(commands, name, run, help) is cli.py's."""
    parser = make(commands, "generate", run_generate, "continue a text with a trained language model")
    parser.add_argument("folder", metavar="RUN", help=MODEL)
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="the text to continue; several: a batch; -: standard input (default: none, the model begins by itself)",
    )
    parser.add_argument("--tokens", type=positive, default=300, metavar="N", help="the most tokens to add to a text")
    parser.add_argument("--samples", type=positive, default=1, metavar="N", help="texts for each prompt")
    add_sampling(parser)
    parser.add_argument(
        "--beams", type=positive, default=None, metavar="N", help="search the likeliest text with N beams; no sampling"
    )
    parser.add_argument(
        "--length-penalty", type=number, default=0.0, metavar="X", help="with --beams: 0 none; 1 or more: longer texts"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object, or a list of them for several texts")


def add_sampling(parser: argparse.ArgumentParser, stop: str = "none") -> None:
    """What `generate` and `chat` share."""
    parser.add_argument("--temperature", type=number, metavar="X", help="0: always the likeliest token (default: 0.8)")
    parser.add_argument("--top-k", type=positive, metavar="K", help="choose among the K likeliest tokens only")
    parser.add_argument("--top-p", type=share, metavar="P", help="among the likeliest that together have probability P")
    parser.add_argument("--min-p", type=share, metavar="P", help="among those at least P times as likely as the first")
    parser.add_argument(
        "--repetition-penalty", type=above_0, metavar="X", help="above 1: tokens of the text so far become less likely"
    )
    parser.add_argument(
        "--stop", type=text, action="append", metavar="TEXT", help=f"end before this; several: any (default: {stop})"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="the same seed gives the same text")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")


def run_generate(parsed: argparse.Namespace) -> int:
    """`minillm generate`; the exit code."""
    from .text import generate_text

    prompts = _prompts(parsed)
    _check_beams(parsed)
    writer = open_writer(parsed)
    ids = [encoded(writer, p) if p else writer.first for p in prompts]
    if parsed.beams:
        return _search(parsed, writer, prompts, ids)
    page = _Page(prompts, parsed.json)
    with plain_errors(lambda: page.begun):
        texts = generate_text(
            writer.model, writer.tokenizer, ids, sampling(parsed), max_new_tokens=parsed.tokens,
            stop=parsed.stop or (), stop_tokens=writer.end, seed=parsed.seed, on_text=page.add,
        )  # fmt: skip
    page.close()
    if parsed.json:
        _print_json([{"prompt": p, "text": t} for p, t in zip(prompts, texts)])
    return 0


def _search(parsed: argparse.Namespace, writer: Writer, prompts: list[str], ids: list[Any]) -> int:
    from .beam import beam_search
    from .stream import TextStream

    page, found = _Page(prompts, parsed.json), []
    for i, start in enumerate(ids):
        with plain_errors():
            best = beam_search(
                writer.model, start, max_new_tokens=parsed.tokens, beams=parsed.beams,
                length_penalty=parsed.length_penalty, stop=writer.end,
                vocab_size=getattr(writer.tokenizer, "vocab_size", None),
            )[0]  # fmt: skip
        stream = TextStream(writer.tokenizer, start, parsed.stop or ())
        new = [t for t in best.ids[len(start) :].tolist() if t not in writer.end]
        answer = "".join(map(stream.push, new)) + stream.finish()
        page.add(i, answer)
        scores = {"log_probability": best.log_probability, "score": best.score}
        found.append({"prompt": prompts[i], "text": answer, **scores})
    page.close()
    if parsed.json:
        _print_json(found)
    return 0


class _Page:
    """Texts on the terminal, prompts first: the first one as it comes, the others after it."""

    def __init__(self, prompts: list[str], silent: bool):
        self.prompts, self.silent, self.begun = prompts, silent, False
        self.waiting = [""] * len(prompts)

    def add(self, i: int, piece: str) -> None:
        if i == 0 and not self.silent:
            head = "" if self.begun else self._head(0)
            self.begun = True
            write(head + piece)
        else:
            self.waiting[i] += piece

    def close(self) -> None:
        if self.silent:
            return
        if not self.begun:  # not one piece came
            write(self._head(0))
        write("\n")
        for i in range(1, len(self.prompts)):
            write(self._head(i) + self.waiting[i] + "\n")

    def _head(self, i: int) -> str:
        count = len(self.prompts)
        return (f"--- {i + 1} of {count}\n" if count > 1 else "") + self.prompts[i]


def _prompts(parsed: argparse.Namespace) -> list[str]:
    from ..cli import UsageError

    given = parsed.prompt or [""]
    if given.count("-") > 1:
        raise UsageError("--prompt - reads all of standard input; give it once")
    if "-" in given:
        try:
            given = [sys.stdin.read() if p == "-" else p for p in given]
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not {error.encoding} text: {error.reason}") from error
    return [p for p in given for _ in range(parsed.samples)]


def _check_beams(parsed: argparse.Namespace) -> None:
    from ..cli import UsageError

    names = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"]
    sampled = [f"--{n.replace('_', '-')}" for n in names if getattr(parsed, n) is not None]
    if parsed.beams and (sampled or parsed.samples > 1):
        raise UsageError(f"--beams searches, it does not sample: leave out {', '.join(sampled) or '--samples'}")
    if parsed.length_penalty and not parsed.beams:
        raise UsageError("--length-penalty is for --beams: give both or neither")


def _print_json(answers: list[dict[str, Any]]) -> None:
    print(json.dumps(answers[0] if len(answers) == 1 else answers))


# ------------------------------------------------------------------------------------------ shared with chat


def open_writer(parsed: argparse.Namespace) -> Writer:
    """The model of parsed.folder on the device that was asked for."""
    from ..cli import _device
    from .loading import load_writer

    device = _device(parsed.device)
    with plain_errors():
        writer = load_writer(parsed.folder)
    writer.model.to(device)
    return writer


def sampling(parsed: argparse.Namespace) -> Sampling:
    """The flags of `add_sampling`."""
    from .sampling import Sampling

    t, r = parsed.temperature, parsed.repetition_penalty
    return Sampling(0.8 if t is None else t, parsed.top_k, parsed.top_p, parsed.min_p, 1.0 if r is None else r)


def encoded(writer: Writer, prompt: str, begin: bool = True) -> np.ndarray:
    """The ids of a prompt; UsageError for one that the model cannot read. begin: with the token, if the tokenizer has
    one, that every text begins with."""
    from ..cli import UsageError
    from ..text import SubwordTokenizer

    if any("\ud800" <= c <= "\udfff" for c in prompt):  # what Python makes of other bytes on a command line
        raise UsageError("the prompt is not UTF-8 text")
    unknown = unknown_characters(writer, prompt)
    if unknown:
        raise UsageError(f"the model never saw {', '.join(map(repr, unknown))}: write the prompt without")
    if begin and isinstance(writer.tokenizer, SubwordTokenizer):
        ids = writer.tokenizer.encode(prompt, add_special_tokens=True)
        return ids[:-1] if len(ids) > 1 and ids[-1] in writer.end else ids  # some end it, too
    return np.asarray(writer.tokenizer.encode(prompt), np.int64)


def unknown_characters(writer: Writer, prompt: str) -> list[str]:
    """Those of the prompt that a tokenizer of characters lacks."""
    vocabulary = getattr(writer.tokenizer, "vocabulary", None)
    return sorted(set(prompt) - set(vocabulary)) if isinstance(vocabulary, str) else []


@contextmanager
def plain_errors(writing: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A plain ValueError becomes the command's one sentence; where a line was being written Ctrl-C ends it first."""
    from ..cli import UsageError

    try:
        yield
    except KeyboardInterrupt:
        if writing():
            write("\n")
        raise
    except ValueError as error:
        if type(error) is ValueError:
            raise UsageError(str(error).removeprefix("generate: ")) from error
        raise


def write(piece: str) -> None:
    """On standard output, at once."""
    sys.stdout.write(piece)
    sys.stdout.flush()


def share(value: str) -> float:
    """A number above 0 and at most 1."""
    x = number(value) if _is_number(value) else 0.0
    if not 0 < x <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, got {value!r}")
    return x


def above_0(value: str) -> float:
    """A finite number above 0."""
    x = number(value)
    if x == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {value!r}")
    return x


def text(value: str) -> str:
    r"""A text that is not empty, in which \n is a line end, \t a tab and \\ a backslash."""
    if not value:
        raise argparse.ArgumentTypeError("expected a text, got ''")
    return unescaped(value)


def unescaped(value: str) -> str:
    r"""\n, \t and \\ as the characters that they stand for."""
    return re.sub(r"\\([nt\\])", lambda m: {"n": "\n", "t": "\t", "\\": "\\"}[m[1]], value)


def _is_number(value: str) -> bool:
    try:
        return 0 <= float(value) < float("inf")
    except ValueError:
        return False
