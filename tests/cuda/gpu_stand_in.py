"""`kernels_on_strict(monkeypatch)`: the device "strict" as a GPU for which every kernel exists, so that ops call them.

What runs there is the reference, under the name of `kernels.<kernel>.cuda`.
"""

from __future__ import annotations

import importlib
import types

from kernels import dispatch
from minillm.cuda import count_syncs
from minillm.testing import strict

REFERENCES = ("reference.py", "targets.py", "erf.py")  # what they wait for, a CUDA kernel does not


def kernels_on_strict(monkeypatch):
    strict.install()
    choose, made = dispatch._choose, {}

    def stand_in(kernel, impl, x):
        stored = x.dtype.name in ("float32", "float16", "bfloat16")
        if not isinstance(x, strict.StrictArray) or impl is not None or not stored or kernel == "random":
            return choose(kernel, impl, x)
        if kernel not in made:
            made[kernel] = types.ModuleType(f"kernels.{kernel}.cuda")
            made[kernel].__dict__.update(vars(importlib.import_module(f"kernels.{kernel}.reference")))
            made[kernel].__name__ = f"kernels.{kernel}.cuda"
        return made[kernel]

    monkeypatch.setattr(dispatch, "_choose", stand_in)
    monkeypatch.setattr(dispatch, "_chosen", {})
    return made


def watched():
    """count_syncs of strict arrays."""
    return count_syncs(types.SimpleNamespace(ndarray=strict.StrictArray, asnumpy=lambda a: a.get()))


def hidden(syncs):
    """The waits, but those inside the references."""
    return {place: n for place, n in syncs.places.items() if not any(f"/{name}:" in place for name in REFERENCES)}
