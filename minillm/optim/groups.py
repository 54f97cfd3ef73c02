"""Which parameters an optimizer treats how: decay for matrices only, and Muon for the matrices inside."""

from __future__ import annotations

from typing import Any

from ..nn.module import Module


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices with weight decay, biases and norms (of fewer than two dims) without.

    A bias or the scale of a norm has no need to be small; decay would only fight what it learned. Source: Brown et al.
    2020, GPT-3, arXiv:2005.14165, appendix B, and nanoGPT's configure_optimizers.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay, "name": "matrices"},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "name": "vectors"},
    ]
    return [group for group in groups if group["params"]]


def muon_groups(model: Module) -> tuple[list[dict[str, Any]], list[Any]]:
    """(groups for Muon, the other parameters) of a model with `blocks`: their matrices, attention's Wq, Wk and Wv each
    by itself; embeddings, head, norms and biases are the others. ValueError for a model without blocks."""
    if not isinstance(getattr(model, "blocks", None), Module):
        raise ValueError(f"muon_groups: {type(model).__name__} has no `blocks` to take matrices from: give a GPT")
    sectioned: dict[tuple[int, ...], list[Any]] = {}
    whole, inside = [], set()
    for module in model.blocks.modules():  # type: ignore[union-attr,operator]
        for name, p in module.named_parameters():
            if "." in name or p.ndim != 2 or not p.requires_grad:  # its own only
                continue
            inside.add(id(p))
            packed = name == "in_proj_weight"  # rows of Wq, Wk, Wv: thirds, or as the module says
            sections = getattr(module, "sections", [p.shape[0] // 3] * 3) if packed else None
            sectioned.setdefault(tuple(sections), []).append(p) if sections else whole.append(p)
    groups: list[dict[str, Any]] = [{"params": ps, "sections": sections} for sections, ps in sectioned.items()]
    groups += [{"params": whole}] if whole else []
    return groups, [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
