"""A table of a model's layers: what each returns and how many parameters it has."""

from __future__ import annotations

from typing import Any

from .. import random
from ..recording import no_grad
from .module import Module
from .parameter import Parameter


def summary(model: Module, *example_inputs: Any) -> str:
    """Layers, output shapes and parameter counts, as text; the model runs once on the inputs, in evaluation mode.

    A layer's own parameters are counted in its line, tied ones where they come first. "x 2": the layer ran twice, the
    shape is that of the last run. Nothing about the model or the random numbers is changed.

    >>> from minillm import nn, zeros
    >>> print(summary(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), zeros(5, 4)))
    layer        output  parameters
    -------------------------------
    Sequential   (5, 2)           0
      0  Linear  (5, 8)          40
      1  ReLU    (5, 8)           0
      2  Linear  (5, 2)          18
    -------------------------------
    total                        58
    """
    modules = list(model.named_modules())
    outputs = _run(model, example_inputs)
    rows: list[tuple[str, str, str]] = []
    counted: set[int] = set()
    for name, module in modules:
        own = {id(p): p.numel() for _, p in module._own(Parameter) if id(p) not in counted}
        counted.update(own)
        shapes = outputs.get(id(module), [])
        depth, last = name.count(".") + bool(name), name.rpartition(".")[2]
        label = "  " * depth + f"{last}  {type(module).__name__}" if name else type(module).__name__
        times = f"  x {len(shapes)}" if len(shapes) > 1 else ""
        rows.append((label, shapes[-1] + times if shapes else "not run", f"{sum(own.values()):,}"))
    total, trainable = model.num_parameters(), model.num_parameters(trainable_only=True)
    totals = [("total", "", f"{total:,}")] + ([("trainable", "", f"{trainable:,}")] if trainable != total else [])
    return aligned(("layer", "output", "parameters"), rows, totals, left=2)


def _run(model: Module, inputs: tuple) -> dict[int, list[str]]:
    """{id of a module: the shape of each of its outputs, as text}."""
    outputs: dict[int, list[str]] = {}
    modules = list(model.modules())
    modes, state = [m.training for m in modules], random.get_rng_state()

    def watch(module: Module) -> None:
        forward = module.forward

        def watched(*args: Any, **settings: Any) -> Any:
            out = forward(*args, **settings)
            outputs.setdefault(id(module), []).append(_shapes(out))
            return out

        vars(module)["forward"] = watched

    for module in modules:
        watch(module)
    try:
        model.eval()
        with no_grad():
            model(*inputs)
    finally:
        random.set_rng_state(state)
        for module, mode in zip(modules, modes):
            del vars(module)["forward"]
            module.training = mode
    return outputs


def _shapes(out: Any) -> str:
    if isinstance(out, (tuple, list)):
        return ", ".join(_shapes(o) for o in out if o is not None)
    if isinstance(out, dict):
        return ", ".join(f"{k} {_shapes(o)}" for k, o in out.items())
    return str(tuple(out.shape)) if hasattr(out, "shape") else type(out).__name__


def aligned(header: tuple, rows: list[tuple], totals: list[tuple], left: int = 1) -> str:
    """Rows of text between two rules, and the totals below: the first `left` columns to the left, others right."""
    widths = [max(len(row[i]) for row in [header, *rows, *totals]) for i in range(len(header))]

    def line(row: tuple) -> str:
        return "  ".join([f"{c:<{w}}" if i < left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths))])

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(header), rule, *map(line, rows), rule, *map(line, totals)])
