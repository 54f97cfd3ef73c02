"""Each fused op and its readable twin are the same function: values here, gradients too, in float64."""

import numpy as np
import pytest

from minillm import tensor
from minillm.ops.attention import _scaled_dot_product_attention, attention_composite
from minillm.ops.classification import _cross_entropy, _reduced, cross_entropy_composite
from minillm.ops.gaussian import reparameterize, reparameterize_composite
from minillm.ops.linalg import _linear
from minillm.ops.linear_cross_entropy import _linear_cross_entropy
from minillm.ops.loss import _bce_of_elements, _bce_of_rows
from minillm.ops.norm import add_layer_norm, add_rms_norm, layer_norm, layer_norm_composite, rms_norm
from minillm.ops.self_attention import _self_attention

rng = np.random.default_rng(0)
IDS = np.array([1, -100, 3, 0])
MASK = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 1]], bool)


def _n(*shape):
    return rng.standard_normal(shape)


CONSTANT = np.linspace(0, 1, 12).reshape(3, 4)  # takes no gradient
TWINS = {
    "layer_norm": (layer_norm, layer_norm_composite, (_n(3, 2, 4), (2, 4), _n(2, 4), _n(2, 4), 1e-3)),
    "reparameterize": (reparameterize, reparameterize_composite, (_n(3, 4), _n(3, 4), _n(3, 4))),
    "attention": (
        _scaled_dot_product_attention,
        attention_composite,
        (_n(2, 4, 4, 5), _n(2, 2, 3, 5), _n(2, 2, 3, 5), MASK, True, 1, 2, 0.3, None),
    ),
    **{
        op.__name__ + label: (op, op.composite, args)
        for op, label, args in [
            (rms_norm, "", (_n(3, 2, 4), (2, 4), _n(2, 4), 1e-3)),
            (add_layer_norm, "", (_n(3, 4), _n(3, 4), 4, _n(4), _n(4), 1e-3)),
            (add_rms_norm, "", (_n(3, 4), _n(3, 4), 4, _n(4), 1e-3)),
            (_linear, ", gelu", (_n(2, 3, 4), _n(5, 4), _n(5), "gelu")),
            (_linear, ", relu", (_n(3, 4), _n(5, 4), None, "relu")),
            (_self_attention, "", (_n(2, 4, 24), 4, 2, MASK[:, [0, 1, 2, 0]], True, 1, 2, 0.3, None)),
            (_self_attention, ", dropout", (_n(2, 4, 24), 4, 2, None, False, 0, None, None, (0.4, 3, 5))),
            (_reduced, ", mean", (_n(4, 4), IDS, -100, 0.3, np.arange(1.0, 5), "mean", True)),
            (_linear_cross_entropy, "", (_n(4, 3), _n(4, 3), IDS, -100, 0.3, 2.0, 0.1, "mean", True)),
            (_bce_of_elements, "", (_n(3, 4), CONSTANT)),
            (_bce_of_rows, "", (_n(3, 4), CONSTANT)),
        ]
    },
    "cross_entropy": (_cross_entropy, cross_entropy_composite, (_n(4, 4), IDS, -100, 0.3, _n(4) ** 2)),
    "cross_entropy, plain": (_cross_entropy, cross_entropy_composite, (_n(4, 4), IDS, -100, 0.0, None)),
}


def _run(function, args):
    """Outputs, and gradients of the matrices among the inputs (class weights are constants); uneven cotangents."""
    learned = [isinstance(a, np.ndarray) and a.dtype == float and a.ndim > 1 and a is not CONSTANT for a in args]
    args = [tensor(a, requires_grad=True) if on else a for a, on in zip(args, learned)]
    outs = function(*args)
    outs = outs if isinstance(outs, tuple) else (outs,)
    draw = np.random.default_rng(5)
    total = sum((o * tensor(draw.standard_normal(o.shape))).sum() for o in outs)
    total.backward()
    return [o.data for o in outs], [a.grad.data for a, on in zip(args, learned) if on]


@pytest.mark.parametrize("name", TWINS)
def test_op_and_composite_are_one_function(name):
    fused, composite, args = TWINS[name]
    for ours, twins in zip(_run(fused, args), _run(composite, args)):
        assert len(ours) == len(twins) > 0
        for a, b in zip(ours, twins):
            assert a.any()
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_rms_norm_against_its_formula():
    x, w, c = _n(3, 5), _n(5), _n(3, 5)
    tx, tw = tensor(x, requires_grad=True), tensor(w, requires_grad=True)
    out = rms_norm(tx, 5, tw, 0.1)
    out.backward(tensor(c))
    r = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + 0.1)
    np.testing.assert_allclose(out.data, x * r * w)
    np.testing.assert_allclose(tw.grad.data, (c * x * r).sum(axis=0))
    np.testing.assert_allclose(tx.grad.data, r * c * w - x * r**3 * (c * w * x).mean(axis=1, keepdims=True))
