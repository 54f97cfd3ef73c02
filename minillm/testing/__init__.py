"""Proof that numerical code is right: a gradient checker, kernel conformance, a strict device, planted faults.

gradcheck(function, inputs)            gradients of a function of Tensors, of any order
check_vjp(forward, vjp, inputs)        the same for plain functions on arrays, without the engine
check_kernel(candidate, reference, inputs)
                                       a fast implementation against a plain one: values, layouts, repeatability
taylor_slope(f, df)                    2 for a right derivative, 1 for a wrong one
guarded(x)                             a copy of an array beside forbidden memory: a read too far is stopped
strict.install()                       the device "strict": refuses on the CPU what CuPy refuses on a GPU
planted("softmax", "sign")             a wrong rule on purpose: does your test notice?
run_table(names)                       gradcheck of every op that minillm has
"""

from .check import check_vjp, random_cotangent
from .conformance import ConformanceError, ConformanceReport, check_kernel
from .faults import KINDS, planted
from .gradcheck import gradcheck
from .guard import guarded, guarded_allocations
from .numeric import taylor_slope
from .report import GradcheckError, GradcheckReport, InputReport
from .table import Row, run_table

__all__ = [
    "KINDS", "ConformanceError", "ConformanceReport", "GradcheckError", "GradcheckReport", "InputReport", "Row",
    "check_kernel", "check_vjp", "gradcheck", "guarded", "guarded_allocations", "planted", "random_cotangent",
    "run_table", "taylor_slope",
]  # fmt: skip
