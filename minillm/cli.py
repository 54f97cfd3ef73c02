"""The `minillm` command.

Exit codes: 0 done, 1 a check failed, 2 wrong input (one sentence on stderr), 130 Ctrl-C, 141 nobody reads the output.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__
from .flags import Given, Parser, add_settings, read_settings, seed


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal whose encoding lacks a character shows a question mark
    try:
        parsed = _parser(list(sys.argv[1:] if argv is None else argv)).parse_args(argv)
        return _run(parsed)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _run(parsed: argparse.Namespace) -> int:
    if not hasattr(parsed, "run"):
        parsed.parser.print_help()
        return 0
    import numpy as np

    from .data import DataError
    from .errors import DeviceError, OutOfMemory, gpu_is_full
    from .training import NonFiniteLoss, RunError

    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is said in a sentence
            code = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `minillm data | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (DataError, RunError, DeviceError, NonFiniteLoss, UsageError, OSError) as error:  # OSError: a full disk, say
        print(f"minillm {parsed.command}: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        full = gpu_is_full(error) or error  # an op's is a sentence already; an optimizer's comes as CuPy's
        main_memory = f"not enough memory ({str(full) or 'a file too long?'})"
        said = str(full).splitlines()[0] if isinstance(full, OutOfMemory) else main_memory
        print(f"minillm {parsed.command}: {said}", file=sys.stderr)
        return 2


class UsageError(ValueError):
    """Flags that do not go together, or a value that the model refuses."""


def _parser(argv: list[str]) -> Parser:
    parser = Parser(prog="minillm", description="A deep-learning stack small enough to read. Start with: minillm demo")
    parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    parser.set_defaults(parser=parser, command="")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    demo = _command(
        commands, "demo", _demo, "train four small models on the embedded data and write one page about them"
    )
    demo.add_argument("--quick", action="store_true", help="a few seconds a model: to see that it works, not how well")
    _common(demo, "minillm-demo")

    train = _command(commands, "train", None, "train one model on embedded data or on yours")
    from .recipes import NAMES, recipe

    models = train.add_subparsers(metavar="MODEL", title="models", required=True)
    asked = next((a for a in argv[1:] if not a.startswith("-")), None) if argv[:1] == ["train"] else None
    for name in NAMES:
        model = _command(models, name, _train, f"train the {name}", command=f"train {name}", model=name)
        if name == asked:  # only then: a recipe imports the models
            add_settings(model, recipe(name).Settings)
            model.set_defaults(settings=recipe(name).Settings)
        what = (
            "a UTF-8 text file, 'docs' or 'source'"
            if name == "gpt"
            else "an MNIST folder, a CSV or TSV file, or 'digits'"
        )
        model.add_argument("--data", metavar="PATH", help=f"{what} (default: embedded data)")
        _common(model, f"runs/{name}")
        if name == "gpt":
            model.usage = "%(prog)s [--preset NAME] [--data PATH] [--out DIR] [any flag below]\n"
            model.usage += f"       {model.prog} --resume RUN [--steps N] [--minutes X]"
            model.add_argument(
                "--resume", metavar="RUN", help="go on with that run and its settings; --steps and --minutes may change"
            )

    from .generation.chat import add_chat
    from .generation.command import add_generate

    add_generate(commands, _command)
    add_chat(commands, _command)

    check = _command(commands, "gradcheck", _gradcheck, "compare gradients with finite differences")
    check.add_argument("ops", nargs="*", metavar="OP", help="the ops, layers, losses, models or kernels to check")
    check.add_argument("--all", action="store_true", help="check everything")
    check.add_argument("--order", type=int, choices=(1, 2), default=None, help="only first or only second derivatives")
    check.add_argument("--plant", metavar="OP[:KIND]", help="break this op's gradient first: the check has to fail")
    check.add_argument("--json", action="store_true", help="print a JSON object")

    data = _command(commands, "data", _data, "list the embedded data sets")
    data.add_argument("--json", action="store_true", help="print a JSON object")
    doctor = _command(commands, "doctor", _doctor, "what this machine has, and what to install for what is missing")
    doctor.add_argument("--json", action="store_true", help="print a JSON object")
    return parser


def _command(commands: Any, name: str, run: Any, help: str, **defaults: Any) -> Parser:
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.set_defaults(parser=parser, **({"command": name} | defaults), **({"run": run} if run else {}))
    return parser


def _common(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("--out", action=Given, default=out, metavar="DIR", help="the run directory")
    parser.add_argument(
        "--seed", action=Given, type=seed, default=0, metavar="N", help="of initial weights, shuffling and sampling"
    )
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="auto: the GPU if CuPy finds one"
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=("auto", "reference", "cpu", "cuda"),
        help="which implementation of the kernels",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _device(name: str) -> str:
    from .device import is_available, to_device

    if name == "auto":
        return "cuda" if is_available("cuda") else "cpu"
    import numpy as np

    to_device(np.zeros(1, np.float32), name)  # a device that is not there should be said first
    return name


def _prepare(parsed: argparse.Namespace) -> Any:
    import kernels

    from .recipes.base import Common

    device = _device(parsed.device)
    if parsed.kernels == "cuda" and device != "cuda":
        raise UsageError("--kernels cuda runs on GPU arrays: it needs --device cuda")
    if parsed.kernels == "cpu" and device != "cpu":
        raise UsageError("--kernels cpu runs on NumPy arrays: it needs --device cpu")
    kernels.set_default(None if parsed.kernels == "auto" else parsed.kernels)
    return Common(getattr(parsed, "data", None), parsed.seed, device, not parsed.quiet)


def _compile_ahead(parsed: argparse.Namespace, common: Any) -> None:
    """Kernels for the CPU on all cores, the first time; a line says so."""
    import kernels

    if common.device == "cpu" and parsed.kernels in ("auto", "cpu"):
        kernels.prepare(say=lambda line: print(line, file=sys.stderr) if common.progress else None)


def _demo(parsed: argparse.Namespace) -> int:
    from .demo import run_demo

    common = _prepare(parsed)
    if common.progress:
        print("Training four small models.", file=sys.stderr)
    _compile_ahead(parsed, common)
    outcomes, page, seconds = run_demo(parsed.out, parsed.quick, common)
    _finish(parsed, outcomes, page, seconds)
    return 130 if any(o.history.interrupted for o in outcomes) else 0


def _train(parsed: argparse.Namespace) -> int:
    import time

    from .demo import add_section, save
    from .explain import Report
    from .recipes import recipe
    from .training import Run

    started = time.perf_counter()
    common, settings = _settings(parsed, _prepare(parsed))
    folder = Run(common.out).folder
    _refuse_other_model(folder, parsed.model)
    if parsed.model in ("attention", "gpt"):  # the others need few kernels, compiled in the time this takes
        _compile_ahead(parsed, common)
    try:
        outcome = recipe(parsed.model).train(settings, common)
    except ValueError as error:  # a setting that the model refuses, in its own words
        if type(error) is ValueError:
            raise UsageError(str(error)) from error
        raise
    save(outcome, folder, common, settings)
    report = Report(f"minillm {outcome.title.lower()}", f"minillm train {outcome.name}")
    add_section(report, outcome)
    _finish(parsed, [outcome], report.write(folder / "report.html"), time.perf_counter() - started)
    return 130 if outcome.history.interrupted else 0


def _settings(parsed: argparse.Namespace, common: Any) -> tuple[Any, Any]:
    """(common, settings) of `minillm train`: from the flags, or from the run that goes on."""
    from dataclasses import replace

    from .recipes import recipe

    given = {name: getattr(parsed, name) for name in getattr(parsed, "given", ())}
    if getattr(parsed, "resume", None) is not None:
        settings, common = recipe(parsed.model).go_on(parsed.resume, given, common)
        return common, settings
    try:
        settings = read_settings(parsed, parsed.settings, given)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return replace(common, out=parsed.out), settings


def _refuse_other_model(folder: Any, model: str) -> None:
    """A second run of the same model may replace the first; another model would only mix the two."""
    from .training import RunError, read_config

    try:
        there = read_config(folder)["model"]
    except RunError:  # nothing readable there: nothing to lose
        return
    if there != model:
        raise UsageError(f"{folder} holds a run of {there!r}; give {model!r} another --out")


def _finish(parsed: argparse.Namespace, outcomes: list, page: Any, seconds: float) -> None:
    """The closing table, or the same as JSON."""
    from .training import to_json

    if parsed.json:
        print(to_json({"report": str(page), "seconds": seconds, "results": [o.results() for o in outcomes]}, indent=2))
        return
    from rich.console import Console

    from .explain import metric_rows, terminal_table
    from .explain.summary import METRIC_HEADER

    console = Console()
    for outcome in outcomes:
        console.print(terminal_table(metric_rows(outcome.metrics), METRIC_HEADER, outcome.title))
    stopped = [o for o in outcomes if o.history.interrupted]
    if stopped:
        last = stopped[-1]
        console.print(
            f"Stopped by Ctrl-C: the {last.title.lower()} trained for {last.history.last('step') or 0} steps."
        )
    console.print(f"{seconds:.0f} seconds. Open this page: {page}", soft_wrap=True, highlight=False)


def _gradcheck(parsed: argparse.Namespace) -> int:
    from .testing import table
    from .training import to_json

    if not parsed.ops and not parsed.all:
        raise UsageError("name some ops (minillm gradcheck softmax matmul), or --all")
    try:
        rows = table.run_table(
            None if parsed.all else parsed.ops,
            orders=(1, 2) if parsed.order is None else (parsed.order,),
            plant=parsed.plant,
            progress=None if parsed.json else _show_row,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    failed = [r for r in rows if not r.ok]
    if parsed.json:
        print(to_json({"checks": len(rows), "failed": len(failed), "rows": [_row_dict(r) for r in rows]}, indent=2))
    else:
        for r in failed:
            print(f"\n{r.name}, order {r.order}:\n{r.report}")
        print(f"{len(rows)} checks, {len(failed)} failed")
    return 1 if failed or not rows else 0


def _show_row(row: Any) -> None:
    mark = "ok  " if row.ok else "FAIL"
    print(f"{mark} {row.name}, order {row.order}: worst relative error {row.worst_error:.1e}", flush=True)


def _row_dict(row: Any) -> dict[str, Any]:
    return {
        "name": row.name,
        "order": row.order,
        "ok": row.ok,
        "worst_error": row.worst_error,
        "report": None if row.ok else str(row.report),
    }


def _data(parsed: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .data import list_datasets

    listings = list_datasets()
    if parsed.json:
        print(json.dumps([asdict(d) for d in listings], indent=2))
        return 0
    for d in listings:
        print(f"{d.name:<7} {d.kind}: {d.what}; {d.size}")
        print(f"{'':<7} {d.licence}, {d.source}\n")
    print("Your own: --data PATH takes an MNIST folder (idx files, gzipped or not), a CSV or TSV file, or a text file.")
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    from .doctor import examine, render

    facts = examine()
    print(json.dumps([f._asdict() for f in facts], indent=2) if parsed.json else render(facts))
    return 0
