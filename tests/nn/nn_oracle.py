"""Running a case of the table in minillm and in PyTorch: values, and gradients for the same random cotangents."""

from __future__ import annotations

import numpy as np

from minillm import Tensor


def both(torch, case, dtype):
    """([outputs], [gradients]) of minillm and of PyTorch, as float64 arrays; ours after a check of their dtype."""
    arrays = [x.astype(dtype) for x in case.inputs()]
    ours = [Tensor(x.copy(), requires_grad=True) for x in arrays]
    outputs = _listed(case.function(*ours))
    rng = np.random.default_rng(1)
    cotangents = [rng.standard_normal(o.shape).astype(dtype) for o in outputs]
    sum((o * c).sum() for o, c in zip(outputs, cotangents)).backward()
    assert all(t.dtype == dtype for t in outputs)
    assert all(t.grad.dtype == dtype for t in ours)
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    outputs_ = _listed(case.torch(torch, *theirs))
    sum((o * torch.tensor(c)).sum() for o, c in zip(outputs_, cotangents)).backward()
    return (
        ([o.numpy() for o in outputs], [t.grad.numpy() for t in ours]),
        ([o.detach().numpy() for o in outputs_], [t.grad.numpy() for t in theirs]),
    )


def _listed(out):
    return list(out) if isinstance(out, tuple) else [out]
