"""LoRA: fine-tune a model through small matrices added to its weights, which themselves stay as they are.

    y = x (W + alpha/r B A)^T            W (out, in) frozen;  A (r, in), B (out, r) trained, r small

    start      B = 0, so the model is at first the one it was;  A from U(-1/sqrt(in), 1/sqrt(in)), as the authors' code
    gradient   dB = alpha/r dW A^T,  dA = alpha/r B^T dW,  with dW the gradient that W would have
    merge      W <- W + alpha/r B A: the fine-tuned model costs nothing more to run

Trained numbers: r (in + out) instead of in * out. For a GPT of width 768 and r = 8, 2 % of an attention's weights; the
optimizer's state is that much smaller, and an adapter is a file of megabytes beside one base model.

    lora = LoRA(model, rank=8)
    optimizer = optim.AdamW(lora.parameters(), lr=1e-3)
    ...                                               train as ever: forward passes see W + alpha/r B A
    lora.merge()

How: the weight stays under its name in its module, and reading `module.weight` gives the sum. So it works for a Linear,
for the packed in_proj_weight of attention (rows of Wq, Wk, Wv), and for an embedding alike, and names in state_dict()
stay; A and B come beside them, as "blocks.0.attention.in_proj_weight_lora.A". The sum is formed in every forward pass:
merge before generating text.

Source: Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from .. import functional as F
from ..device import to_device
from ..dtypes import is_floating
from ..nn.linear import uniform_parameter
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..recording import no_grad

ATTENTION = ("in_proj_weight", "out_proj.weight")  # what the paper adapts
SUFFIX = "_lora"


class Adapter(Module):
    """alpha/r B A, shape (out, in): what is added to a weight. A (r, in), B (out, r)."""

    def __init__(self, weight: Parameter, rank: int, alpha: float):
        out_features, in_features = weight.shape
        self.rank, self.scaling, self.merged = rank, alpha / rank, False
        self.A = uniform_parameter((rank, in_features), 1 / math.sqrt(in_features))
        self.B = Parameter(np.zeros((out_features, rank), np.float32))
        self.to(device=weight.device, dtype=weight.dtype)

    def forward(self) -> Any:
        return F.matmul(self.B, self.A) * self.scaling

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scaling={self.scaling:g}"


class LoRA:
    """The adapters of a model: makes them, merges them, takes them away. Only A and B require a gradient from then on.

    targets  which weights: names or their ends, with * for anything: "in_proj_weight", "blocks.*.mlp.0.weight"
    rank     r of each                   alpha  the scale of what they add is alpha / rank

    ValueError for a target that is no matrix of the model, and for a model that has adapters already.
    """

    def __init__(self, model: Module, targets: str | Iterable[str] = ATTENTION, rank: int = 8, alpha: float = 16.0):
        if rank < 1 or not 0 < alpha < math.inf:
            raise ValueError(f"LoRA: expected rank >= 1 and alpha > 0; got {rank} and {alpha}")
        if any(isinstance(m, Adapter) for m in model.modules()):
            raise ValueError(f"LoRA: this {type(model).__name__} has adapters already: remove() those first")
        self.model, self.rank, self.alpha = model, int(rank), float(alpha)
        weights = _matrices(model)
        names = chosen([targets] if isinstance(targets, str) else list(targets), list(weights))
        self.adapters = {name: Adapter(weights[name], self.rank, self.alpha) for name in names}
        self._weights = {name: weights[name] for name in names}
        self._frozen = [(p, p.requires_grad) for p in model.parameters()]
        self._bases: dict[str, Any] = {}  # copies of the weights, while merged
        self._classes: list[tuple[Module, type]] = []
        model.requires_grad_(False)
        by_weight = {id(weights[name]): self.adapters[name] for name in names}
        for module in list(model.modules()):
            own = [n for n, p in module._own(Parameter) if id(p) in by_weight]
            if own:
                self._classes.append((module, type(module)))
                for n in own:
                    setattr(module, n + SUFFIX, by_weight[id(vars(module)[n])])
                module.__class__ = _reading_sums(type(module), own)

    def parameters(self) -> Iterator[Parameter]:
        """A and B of every adapter: what the optimizer is given."""
        return (p for adapter in self.adapters.values() for p in adapter.parameters())

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    @no_grad()
    def merge(self) -> None:
        """Write W + alpha/r B A into the weights, for the speed of a model without adapters: the same outputs, to the
        bit. The weights that were are kept for `unmerge`. Nothing happens if they are merged."""
        self._check_there("merge")
        for name, adapter in self.adapters.items():
            if not adapter.merged:
                weight = self._weights[name]
                self._bases[name] = weight.data.copy()
                weight.copy_((weight + adapter()).data)
                adapter.merged = True

    @no_grad()
    def unmerge(self) -> None:
        """The weights as they were before `merge`, to the bit, and the adapters beside them again."""
        self._check_there("unmerge")
        for name, base in self._bases.items():
            self._weights[name].copy_(to_device(base, self._weights[name].device).astype(self._weights[name].dtype))
            self.adapters[name].merged = False
        self._bases = {}

    def remove(self) -> None:
        """Take the adapters away: the base model again, or the merged one after `merge`. Other weights are trained
        again as before. This object is at its end then."""
        self._check_there("remove")
        for module, cls in self._classes:
            module.__class__ = cls
            for n in [n for n, value in vars(module).items() if isinstance(value, Adapter)]:
                delattr(module, n)
        for p, trained in self._frozen:
            p.requires_grad = trained
        self._classes, self._bases = [], {}

    def _check_there(self, method: str) -> None:
        if not self._classes:
            raise RuntimeError(f"LoRA.{method}: the adapters were removed from the model; make a new LoRA(model)")


def chosen(targets: list[str], names: list[str]) -> list[str]:
    """Those of `names` that a target stands for, in their order; ValueError for a target that stands for none."""
    if not targets:
        raise ValueError("LoRA: targets is empty; name at least one weight")
    fits = {t: [n for n in names if fnmatchcase(n, t) or fnmatchcase(n, f"*.{t}")] for t in targets}
    fits.update({t: [t] for t in targets if t in names})  # a whole name is no other's end
    for target, found in fits.items():
        if not found:
            kinds = sorted({".".join(n.split(".")[-2:]) for n in names})
            raise ValueError(f"LoRA: no matrix of the model is called {target!r}; there are {', '.join(kinds)}")
    wanted = {n for found in fits.values() for n in found}
    return [n for n in names if n in wanted]


def _matrices(model: Module) -> dict[str, Parameter]:
    return {n: p for n, p in model.named_parameters() if p.ndim == 2 and is_floating(p.dtype)}


def _reading_sums(cls: type, names: list[str]) -> type:
    """A class like `cls` whose attributes `names` read as weight + adapter; the weight itself stays in vars(module)."""

    def reader(name: str) -> property:
        def get(module: Any) -> Any:
            weight, adapter = vars(module)[name], vars(module)[name + SUFFIX]
            return weight if adapter.merged else weight + adapter()

        def put(module: Any, value: Any) -> None:
            vars(module)[name] = value

        return property(get, put)

    return type(cls.__name__, (cls,), {"__module__": cls.__module__, **{n: reader(n) for n in names}})
