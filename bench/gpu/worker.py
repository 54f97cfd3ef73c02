"""`python -m bench.gpu.worker PART DEVICE`: the process in which a part runs; run.py starts it and reads its lines.

From stdin one JSON object: {"limits": {...}, "skip": how many cases are done, "only": pattern, "candidates": [...]}. To
stdout a JSON object a line: {"machine": facts}, {"cases": names}, then for each case {"start": name}, {"row": row} ...,
{"end": name}. After an error from which the GPU does not recover the process ends with status BROKEN, and the next case
gets a new one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import json
import os
import subprocess
import sys
import traceback
from typing import Any

import numpy as np

from .lab import Lab
from .parts import load

BROKEN = 4


def main(part: str, device: str) -> int:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(**message: Any) -> None:
        out.write(json.dumps(message, default=_plain) + "\n")
        out.flush()

    asked = json.loads(sys.stdin.readline())
    lab = Lab.simulator() if device == "simulator" else Lab.gpu()
    lab.limits, lab.candidates = asked.get("limits", {}), asked.get("candidates", [])
    tell(machine=facts(lab))
    module = load(part)
    cases = [c for c in module.cases(lab) if wanted(c[0], asked.get("only", ""))]
    tell(cases=[name for name, _ in cases])
    for name, run in cases[asked.get("skip", 0) :]:
        tell(start=name)
        broken = False
        try:
            with lab.on():
                for row in run():
                    tell(row=row)
        except Exception as error:
            traceback.print_exc()
            tell(row=lab.failed(part, name, error))
            broken = not _works(lab)
        del run
        tell(end=name)
        if broken:
            return BROKEN
        _free(lab)
    return 0


def wanted(name: str, pattern: str) -> bool:
    return not pattern or pattern in name or fnmatch.fnmatch(name, pattern)


def _works(lab: Lab) -> bool:
    """False after an illegal address and the like: nothing works in this process from then on."""
    if lab.dry:
        return True
    try:
        lab.xp.cuda.Device().synchronize()
        return float(lab.xp.ones(1, np.float32).sum()) == 1.0
    except Exception:
        return False


def _free(lab: Lab) -> None:
    gc.collect()
    if lab.dry:
        return
    lab.xp.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules and lab.torch is not None:
        lab.torch.cuda.empty_cache()


def _plain(x: Any) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    return str(x)


def facts(lab: Lab) -> dict[str, Any]:
    """Of the machine, for results.json."""
    found: dict[str, Any] = {"gpu": lab.name, "arch": lab.arch, "l2_bytes": lab.l2, "dry": lab.dry}
    if not lab.dry:
        runtime = lab.xp.cuda.runtime
        found |= {"cupy": lab.xp.__version__, "driver": runtime.driverGetVersion(), "cuda": runtime.runtimeGetVersion()}
        query = "--query-gpu=driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(["nvidia-smi", query, "--format=csv"], capture_output=True, text=True, timeout=10)
            found["nvidia_smi"] = done.stdout.strip().splitlines()
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
