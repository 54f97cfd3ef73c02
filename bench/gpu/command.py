"""The command line of `python -m bench gpu`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import PARTS
from . import __doc__ as package_doc

MINUTES = 7.6


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m bench gpu", description="Measures everything on one GPU, in under 8 minutes.",
        epilog=(package_doc or "").partition("\n")[2].strip(), formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results.json and report.md go")
    p.add_argument("--device", choices=("gpu", "simulator"), default="gpu", help="simulator: a dry run on a CPU")
    p.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART",
                   help=f"of {', '.join(PARTS)}; default: all")  # fmt: skip
    p.add_argument("--only", default="", metavar="PATTERN", help="cases whose name contains this, or matches with * ?")
    p.add_argument("--candidate", action="append", default=[], metavar="MODULE:FUNCTION[=KERNEL]",
                   help="your kernel beside ours, in the parts memory and attention")  # fmt: skip
    p.add_argument("--minutes", type=float, default=MINUTES, help=f"for all parts together; default: {MINUTES}")
    return p


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.device == "gpu":
        from .lab import NoDevice, find_gpu

        try:
            find_gpu()
        except NoDevice as error:
            print(f"python -m bench gpu: {error}; --device simulator runs the script without a GPU", file=sys.stderr)
            return 2
    from ..runner import CommandError, load_candidate
    from .report import markdown
    from .run import Run

    try:
        for spec in arguments.candidate:
            load_candidate(spec)
    except CommandError as error:
        print(f"python -m bench gpu: {error}", file=sys.stderr)
        return 2
    start = time.monotonic()
    names = [name for name in PARTS if name in arguments.parts]
    run = Run(
        arguments.device, arguments.out, arguments.minutes * 60, arguments.only, arguments.candidate, say=_say
    )
    run.write()  # a folder that cannot be written is an error now and not in eight minutes
    run.parts(names)
    print(markdown({"machine": run.machine, "rows": run.rows, "notes": run.notes}))
    print(
        f"{len(run.rows)} rows in {time.monotonic() - start:.0f} s; results.json and report.md are in {arguments.out}"
    )
    return 1 if any(row["suite"] == "correct" and not row["equal"] for row in run.rows) else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
