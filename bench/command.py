"""The command line."""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from . import __doc__ as package_doc
from . import environment
from .suites import NAMES

EPILOG = (package_doc or "").partition("\n")[2].strip()


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m bench",
        description="Is it right, how fast is it, and how far from the machine's limit?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: all of {', '.join(NAMES)}; `ladder NAME`; "
                   "`gpu --out DIR`: on a GPU (gpu --help)")  # fmt: skip
    p.add_argument("--list", action="store_true", help="say what each suite measures, and stop")
    p.add_argument("--quick", action="store_true", help="few shapes, short repeats: a minute or two")
    p.add_argument("--only", default="", metavar="PATTERN", help="cases whose name contains this, or matches with * ?")
    p.add_argument("--shapes", nargs="+", default=[], metavar="AxBxC", help="other shapes for the suites named")
    p.add_argument("--threads", type=int, default=None, metavar="N", help="default: all usable cores")
    p.add_argument("--rivals", default="all", metavar="A,B", help="numpy,torch,torch.compile,torch.bf16,jax")
    p.add_argument("--candidate", action="append", default=[], metavar="MODULE:FUNCTION[=KERNEL]", help="yours")
    p.add_argument("--cold", action="store_true", help="empty the caches before every repeat")
    p.add_argument("--seconds", type=float, default=None, help="of measured calls per implementation and case")
    p.add_argument("--repeats", type=int, default=None, help="rounds of blocks (timing.py); at least 2")
    p.add_argument("--json", type=Path, default=None, metavar="FILE", help='write {"machine": ..., "rows": [...]}')
    p.add_argument("--plot", type=Path, default=None, metavar="DIR", help="draw roofline, ratios and ladders as PNG")
    p.add_argument("--compare", type=Path, default=None, metavar="OLD.json", help="what changed beyond noise")
    return p


def main(argv: list[str]) -> int:
    if argv[:1] == ["gpu"]:
        from .gpu.command import main as gpu

        return gpu(argv[1:])
    p = parser()
    arguments = p.parse_args(argv)
    cores = environment.usable_cores()
    threads = cores if arguments.threads is None else arguments.threads
    if not 1 <= threads <= cores:
        p.error(f"--threads {threads}: this process may use 1 to {cores} cores")
    environment.prepare(threads, argv)
    from .case import CommandError  # NumPy comes with it

    try:
        return _main(arguments, threads)
    except CommandError as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        return 2


def _suites(words: list[str]) -> tuple[list[str], list[str]]:
    """The suites, and the words that are none: names of ladders."""
    from .case import CommandError

    chosen = [w for w in words if w in NAMES]
    others = [w for w in words if w not in NAMES]
    if others and "ladder" not in chosen:
        raise CommandError(f"no suite {others[0]!r}; there are {', '.join(NAMES)}")
    return chosen or list(NAMES), others


def _shapes(texts: list[str], suites: list[str]) -> list[tuple[int, ...]]:
    from .case import CommandError
    from .suites import load

    shapes = [tuple(int(n) for n in re.findall(r"\d+", text)) for text in texts]
    for text, shape in zip(texts, shapes):
        for suite in suites:
            wanted = load(suite).SHAPE
            if len(shape) != len(wanted) or 0 in shape:
                needs = "x".join(wanted) if wanted else "no shapes"
                raise CommandError(f"--shapes {text}: suite {suite} takes {needs}")
    return shapes


def _rivals(text: str, quick: bool = False) -> frozenset[str]:
    """Those asked for and installed; --quick without a choice leaves out what takes half a minute to compile."""
    from . import rivals
    from .case import CommandError

    there = rivals.installed()
    if text == "all":
        return there - {"torch.compile"} if quick else there
    asked = {name for name in text.split(",") if name and name != "none"}
    if unknown := asked - set(rivals.NAMES):
        raise CommandError(f"--rivals: no {sorted(unknown)[0]!r}; there are {', '.join(rivals.NAMES)}, none, all")
    return frozenset(asked & there)


def _main(arguments: argparse.Namespace, threads: int) -> int:
    from . import remote
    from .case import CommandError, Options
    from .suites import load

    suites, names = _suites(arguments.suites)
    if arguments.list:
        for name in suites:
            print(f"{name:19} {load(name).TITLE}" + (f"  [{'x'.join(s)}]" if (s := load(name).SHAPE) else ""))
        return 0
    old = None
    if arguments.compare is not None:
        try:
            old = json.loads(arguments.compare.read_text())
        except (OSError, ValueError) as error:
            raise CommandError(f"--compare {arguments.compare}: {error}") from error
    options = Options(
        quick=arguments.quick, threads=threads, shapes=_shapes(arguments.shapes, suites),
        rivals=_rivals(arguments.rivals, arguments.quick), only=arguments.only, names=names,
    )  # fmt: skip
    with remote.workers(options, arguments.cold) as workers:
        return _measure(arguments, options, suites, old, workers)


def _measure(arguments: argparse.Namespace, options: Any, suites: list[str], old: Any, workers: Any) -> int:
    from minillm.memory import keep_freed_memory

    from . import compare, limits, machine, report, targets, timing
    from .flush import flusher
    from .runner import Session, load_candidate, run_case
    from .suites import load
    from .suites.limits import sizes

    keep_freed_memory()  # as a training run does: page faults of fresh results are nobody's kernel
    started = time.perf_counter()
    seconds = arguments.seconds or (0.15 if options.quick else 0.4)
    budget = timing.Budget(seconds, max(2, arguments.repeats or (3 if options.quick else 5)), arguments.cold)
    session = Session(options, budget, {}, list(map(load_candidate, arguments.candidate)))
    session.flush, session.workers = flusher() if arguments.cold else None, workers
    printer = report.Printer()
    printer.say("measuring the limits of this machine")
    for n in {1, options.threads}:
        session.limits[n] = limits.measure(n, sizes(options), ("copy", "read"), repeats=3)
    facts = machine.describe(options.threads)
    printer.machine(facts, session.limits[options.threads])
    for name in suites:
        module, before = load(name), len(session.rows)
        with printer.suite(name, module.TITLE) as step:
            if hasattr(module, "rows"):
                module.rows(session)
            else:
                for case in module.cases(options):
                    if _wanted(case.name, options.only):
                        step(case.name)
                        run_case(case, session)
        printer.rows(session.rows[before:])
        _write(arguments.json, _result(facts, session))  # what a long run has so far
    for candidate in session.candidates:
        if not candidate.joined:
            session.note(f"{candidate.name} joined no case: none that ran is of kernels.{candidate.kernel}")
    loads = sorted(row["load"] for row in session.rows if row["load"] is not None)
    if loads and loads[len(loads) // 2] > 0.1:
        session.note(f"others kept {loads[len(loads) // 2]:.0%} of the cores busy: repeat this run when they have gone")
    for note in session.notes:
        printer.note(note)
    result = _result(facts, session)
    _write(arguments.json, result)
    if old is not None:
        printer.changes(compare.changes(old.get("rows", []), session.rows))
    if arguments.plot is not None:
        from . import plots

        for path in plots.draw(result, arguments.plot):
            printer.say(f"drew {path}")
    printer.targets(targets.evaluate(session.rows))
    printer.say(f"{len(session.rows)} rows in {time.perf_counter() - started:.0f} s")
    return 1 if session.failed else 0


def _result(facts: dict[str, Any], session: Any) -> dict[str, Any]:
    """What --json writes."""
    from .machine import load_average

    limits = {str(n): vars(m) for n, m in session.limits.items()}
    machine = facts | {"load_average_after": load_average(), "limits": limits}
    return {"machine": machine, "rows": session.rows, "notes": session.notes}


def _write(path: Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1))


def _wanted(name: str, pattern: str) -> bool:
    return not pattern or pattern in name or fnmatch.fnmatch(name, pattern)
