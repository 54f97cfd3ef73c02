"""Scaled dot-product attention, backward: dq, dk, dv from dout and what the forward pass kept. See attention.py.

The formula takes five products, 2.5 times the forward's two: the scores are computed again.
"""

from __future__ import annotations

from collections.abc import Iterator

import kernels

from ..case import Case, Options, plain
from ..rivals import jax_backward, torch_backward, with_inputs
from .attention import QUICK, SHAPE, SHAPES, by_head, heads, jax_attention, on_heads, pairs, takes_bf16, torch_attention

__all__ = ["SHAPE", "TITLE", "cases"]

TITLE = "attention backward, full and causal"


def cases(options: Options) -> Iterator[Case]:
    for B, H, T, D in options.pick(SHAPES, QUICK):
        q, k, v, dout = options.normal(4, B, H, T, D)
        for causal in (False, True):
            out, lse = kernels.attention_forward(q, k, v, causal=causal)
            case = Case(
                "attention_backward", f"backward ({B},{H},{T},{D}) {'causal' if causal else 'full'}",
                (dout, q, k, v, out, lse), "attention_backward", {"causal": causal}, backward=True,
                flops=10 * B * H * D * pairs(T, causal), bytes=8 * q.nbytes,
            )  # fmt: skip
            picks = heads(B * H, T)
            case.reference = on_heads(picks, kernels.attention_backward, causal=causal, impl="reference")
            case.select = lambda outputs, picks=picks: [by_head(o)[picks] for o in outputs]
            if takes_bf16(kernels.attention_backward):
                case.ours["minillm.bf16"] = plain(kernels.attention_backward, causal=causal, bf16=True)
            family = torch_backward(torch_attention(causal), bf16=True)
            if T <= 1024:
                family |= jax_backward(jax_attention(causal))
            case.rivals = with_inputs(lambda dout, q, k, v, out, lse: (dout, q, k, v), family)
            yield case
