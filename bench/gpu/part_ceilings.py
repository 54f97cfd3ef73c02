"""What this GPU can do: copying, and a product of bfloat16 matrices. Every share of a limit is a share of these.

The best of what is at hand counts: a ceiling that one library misses is still there.
"""

from __future__ import annotations

from typing import Any

from .lab import Lab, Row
from .parts import Cases, beside_torch
from .timing import Work, rows

TITLE = "ceilings"


def cases(lab: Lab) -> Cases:
    yield "copy", lambda: _copy(lab)
    yield "product", lambda: _product(lab)


def _copy(lab: Lab) -> list[Row]:
    """1 GiB there and 1 GiB back: bytes read plus bytes written."""
    n = lab.pick(1 << 28, 1 << 10)
    x = lab.normal(n, dtype="float32")
    y = lab.xp.empty_like(x)

    def memcpy() -> None:
        y.data.copy_from_device_async(x.data, x.nbytes, lab.xp.cuda.get_current_stream())

    def elementwise() -> None:
        lab.xp.add(x, 1.0, out=y)

    works = {"minillm": Work([elementwise])} | ({} if lab.dry else {"memcpy": Work([memcpy])})
    if lab.torch is not None:
        a, b = lab.tensor(x), lab.tensor(y)
        works["torch"] = Work([lambda: b.copy_(a)], "torch")
    return rows(lab, "ceilings", "copy", works, bytes=2.0 * x.nbytes)


def _product(lab: Lab) -> list[Row]:
    import kernels

    n = lab.pick(8192, 16)
    case = f"product {n}x{n}x{n} bfloat16"

    def ours(a: Any, b: Any) -> Any:
        return kernels.matmul(a, b, impl="cuda")

    def torchs(torch: Any) -> Any:
        return torch.matmul

    def inputs(i: int) -> tuple:
        return lab.normal(n, n, seed=2 * i), lab.normal(n, n, seed=2 * i + 1)

    return beside_torch(lab, "ceilings", case, inputs, ours, {"torch": torchs}, flops=2.0 * n**3, seconds=0.5)


def limits(rows_: list[Row]) -> dict[str, float]:
    """{"copy": bytes/s, "product": FLOP/s} from the rows of this part."""
    found: dict[str, float] = {}
    for row in rows_:
        if row["suite"] == "ceilings" and row["median_s"] and row["equal"]:
            kind = "copy" if row["case"] == "copy" else "product"
            found[kind] = max(found.get(kind, 0.0), (row["bytes"] or row["flops"]) / row["median_s"])
    return found
