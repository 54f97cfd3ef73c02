"""Runs a small case of a CUDA kernel on the CPU, checks it against the reference, and shows what it does."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import gpu, use
from . import NoCompiler, SimulatedModule, SimulatorError, compiler, record, trace

TOLERANCE = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
EXAMPLES = """examples:
  python -m kernels.simulator softmax
  python -m kernels.simulator attention --rung 2 --trace --steps 20
  python -m kernels.simulator attention --rung 4 --backward-rung 4b --seed 3
  python -m kernels.simulator mine.cu --grid 4 --block 128 --args "float[512] float[512] int=512"
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.simulator", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("kernel", nargs="?", help="a kernel of this package (without one: a list), or a .cu file of your own")
    add("--trace", action="store_true", help="show step by step what one warp of the first block does")
    add("--warp", type=int, default=0, help="which warp --trace shows (default 0)")
    add("--steps", type=int, default=40, help="how many steps of each launch --trace shows (default 40)")
    add("--seed", type=int, default=0, help="draws the order in which blocks, warps and threads run")
    add("--late", type=int, default=3, choices=range(4), metavar="0-3",
        help="what happens as late as the waits allow: 1 copies, 2 wgmma, 3 both (default), 0 nothing")  # fmt: skip
    add("--arch", default="sm_90a", help="the GPU that is simulated, such as sm_80 (default sm_90a)")
    add("--dtype", choices=sorted(TOLERANCE), help="of the arrays (default float32; attention: bfloat16)")
    add("--no-check", dest="check", action="store_false", help="do not check memory accesses: faster, counts less")
    group = parser.add_argument_group("attention")
    group.add_argument("--rung", help="forward rung of the ladder, such as 2 (default: the best for --arch)")
    group.add_argument("--backward-rung", help="backward rung, such as 2b (default: forward pass only)")
    group.add_argument("--head-dim", type=int, default=64)
    group.add_argument("--length", type=int, default=48, help="of queries and keys")
    group.add_argument("--causal", action="store_true")
    group = parser.add_argument_group("a .cu file of your own")
    group.add_argument("--function", help="the kernel in the file (default: its first)")
    group.add_argument("--grid", type=int, nargs="+", default=[1], help="blocks: x [y [z]]")
    group.add_argument("--block", type=int, nargs="+", default=[32], help="threads of a block: x [y [z]]")
    group.add_argument("--shared", type=int, default=0, help="bytes of dynamic shared memory")
    group.add_argument(
        "--args",
        default="",
        help='the arguments: "float[512]" (drawn numbers), "int[9]" (zeros), "int=512", "float=0.5"; also int64',
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if the kernel ran and agrees with its reference, 1 if not, 2 if it was not understood."""
    options = _parser().parse_args(arguments)
    from .cases import CASES

    names = sorted([*CASES, "attention"])
    if options.kernel is None:
        print(_parser().format_help() + "\nkernels: " + ", ".join(names))
        return 0
    own = options.kernel.endswith(".cu")
    if own and not Path(options.kernel).exists():
        print(f"there is no file {options.kernel}", file=sys.stderr)
        return 2
    if not own and options.kernel not in names:
        print(
            f"no kernel {options.kernel!r} to simulate; there are {', '.join(names)}, or give a .cu file",
            file=sys.stderr,
        )
        return 2
    try:
        compiler()
        with record() as reports, trace("f16" if options.dtype == "float16" else "bf16", warp=options.warp,
                                        steps=options.steps if options.trace else 0) as traces:  # fmt: skip
            try:
                agrees = _own(options) if own else _compare(options)
            finally:
                for i, report in enumerate(reports):
                    if options.trace:
                        print(f"--- {report.kernel}: warp {options.warp} of block (0, 0, 0), {options.steps} steps ---")
                        print(traces[i])
                    print(report, end="\n\n")
    except (NoCompiler, SimulatorError, NotImplementedError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print(agrees)
    return int(agrees.startswith("WRONG"))


def _compare(options: argparse.Namespace) -> str:
    from .cases import CASES, attention

    is_attention = options.kernel == "attention"
    name = options.dtype or ("bfloat16" if is_attention else "float32")
    if is_attention:
        case = attention(options.rung, options.backward_rung, options.head_dim, options.length, options.causal)
    else:
        case = CASES[options.kernel]
    dtype = gpu.dtype_of(name)
    with use("reference"):
        want = case(lambda x: x.astype(dtype).astype(np.float64))
    with (
        gpu.numpy_on("simulator", seed=options.seed, late=options.late, check=options.check, arch=options.arch),
        use("cuda"),
    ):
        got = case(lambda x: x.astype(dtype))
    worst = 0.0
    for x, y in zip(got, want):
        if x is not None and y is not None:
            x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
            worst = max(worst, float((abs(x - y) / (1 + abs(y))).max(initial=0)) if np.isfinite(x).all() else np.inf)
    verdict = "agrees with" if worst <= TOLERANCE[name] else "WRONG: differs from"
    return f"{verdict} the reference in float64: largest error {worst:.1e} (relative to 1 + |value|), {name}"


def _own(options: argparse.Namespace) -> str:
    path = Path(options.kernel)
    values = [_argument(text, place) for place, text in enumerate(options.args.split())]
    module = SimulatedModule(path, arch=options.arch, check=options.check)
    name = options.function or module.names[0]
    run = module.get_function(name, seed=options.seed, late=options.late)
    run(tuple(options.grid), tuple(options.block), values, shared_mem=options.shared)
    lines = [f"{path.name}: {name} ran without an error; afterwards"]
    for i, x in enumerate(values):
        if isinstance(x, np.ndarray):
            lines.append(f"  argument {i}: {np.array2string(x, threshold=8, precision=4)}")
    return "\n".join(lines)


def _argument(text: str, place: int) -> Any:
    """`float[512]`: drawn numbers, others for each place; `int[9]`, `int64[9]`: zeros; `int=9`, `float=0.5`: values."""
    array, value = re.fullmatch(r"(float|int|int64)\[(\d+)\]", text), re.fullmatch(r"(float|int|int64)=(\S+)", text)
    kinds = {"float": np.float32, "int": np.int32, "int64": np.int64}
    if array:
        n, kind = int(array[2]), kinds[array[1]]
        return np.random.default_rng(place).standard_normal(n).astype(kind) if kind is np.float32 else np.zeros(n, kind)
    if value:
        try:
            return kinds[value[1]](value[2])
        except ValueError:
            pass
    raise ValueError(
        f'--args: expected "float[512]", "int[9]", "int64[9]", "int=512", "int64=512" or "float=0.5", got {text!r}'
    )


if __name__ == "__main__":
    sys.exit(main())
