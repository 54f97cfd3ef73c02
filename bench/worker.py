"""`python -m bench.worker LIBRARY`: the process in which a rival runs. Started by remote.py, which says why.

It reads a JSON object a line from stdin and answers each with one on stdout, {"result": ...} or {"error": text}. The
first says what the command line chose; the others name a case, an implementation and a method of prepared.py. Cases
come from the same generators as in the main process, and in the same order: inputs are the same numbers on both sides,
and only outputs travel, as .npy files in a folder.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any


def main(library: str) -> None:
    importlib.import_module(library)  # before the kernels: they set GOMP_SPINCOUNT, which OpenMP reads when it loads
    warnings.filterwarnings("ignore", module=r"torch\._dynamo")  # it cannot trace some calls
    import kernels  # noqa: F401
    from minillm.memory import keep_freed_memory

    from .suites import load

    keep_freed_memory()  # as in the main process: page faults of fresh results are nobody's kernel

    os.environ.pop("GOMP_SPINCOUNT", None)  # what torch.compile makes may load an OpenMP of its own
    serve(load)


def serve(load: Callable[[str], Any]) -> None:
    """Until stdin ends. load(suite) has `cases(options)`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    from .desk import Desk

    desk = Desk(load, json.loads(sys.stdin.readline()))
    _answer(out, {"result": None})
    for line in sys.stdin:
        try:
            answer = {"result": desk.ask(**json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        _answer(out, answer)


def _answer(out: IO[str], answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
