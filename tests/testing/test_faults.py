"""The checker is tested by failing: every kind of wrong rule, in ops of every kind, must be caught."""

from __future__ import annotations

import numpy as np
import pytest

from minillm import functional as F
from minillm.testing import KINDS, GradcheckError, gradcheck, planted, run_table
from minillm.testing.faults import ops_with_rules

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


# op with the rule, function, inputs: two inputs of one shape where "swapped" has to show
OPS = {
    "mul": (F.mul, [normal(2, 3), normal(2, 3)]),
    "div": (F.div, [normal(2, 3), normal(2, 3) + 3]),
    "exp": (F.exp, [normal(2, 3)]),
    "sum": (lambda x: F.sum(F.square(x), 1), [normal(2, 3)]),
    "matmul": (F.matmul, [normal(3, 3), normal(3, 3)]),
    "softmax": (F.softmax, [normal(3, 4)]),
    "log_softmax": (F.log_softmax, [normal(3, 4)]),
    "permute": (lambda x: F.permute(x, (1, 0)) ** 2, [normal(3, 4)]),
    "getitem": (lambda x: x[[0, 2, 2]] ** 2, [normal(3, 4)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, 4, w, b), [normal(3, 4), normal(4), normal(4)]),
    "cumsum": (lambda x: F.cumsum(x, 0) ** 2, [normal(3, 4)]),
    "maximum": (F.maximum, [normal(2, 3), normal(2, 3)]),
    "gelu": (F.gelu, [normal(2, 3)]),
}
TWO_INPUTS = ("mul", "div", "matmul", "maximum")
FIRST = [k for k in KINDS if k not in ("detached", "swapped")]


@pytest.mark.parametrize("op", OPS)
def test_right_rules_pass(op):
    function, inputs = OPS[op]
    assert gradcheck(function, inputs).ok
    assert gradcheck(function, inputs, order=2).ok


NOT_LAST = (
    "permute",
    "getitem",
    "cumsum",
)  # the gradient that comes in there is the walk's own array: a write harms nobody


@pytest.mark.parametrize(("op", "kind"), [(o, k) for o in OPS for k in FIRST if not (k == "mutate" and o in NOT_LAST)])
def test_every_fault_is_caught(op, kind):
    function, inputs = OPS[op]
    with planted(op, kind):
        report = gradcheck(function, inputs, raise_exception=False)
    assert not report, f"{kind} in {op} was not noticed:\n{report}"
    assert gradcheck(function, inputs), "the rule must be back"


@pytest.mark.parametrize("op", TWO_INPUTS)
def test_swapped_arguments_are_caught_and_named(op):
    function, inputs = OPS[op]
    with planted(op, "swapped"):
        report = gradcheck(function, inputs, raise_exception=False)
    assert not report and any("swapped" in c for c in report.causes)


@pytest.mark.parametrize("op", ["mul", "exp", "softmax", "matmul", "layer_norm", "log_softmax", "gelu", "div"])
def test_a_rule_cut_off_from_the_graph_is_right_once_and_wrong_twice(op):
    function, inputs = OPS[op]
    with planted(op, "detached"):
        assert gradcheck(function, inputs)
        assert not gradcheck(function, inputs, order=2, raise_exception=False)
    assert gradcheck(function, inputs, order=2)


@pytest.mark.parametrize("op", ["layer_norm", "gelu", "reparameterize"])
@pytest.mark.parametrize("kind", ["sign", "factor2", "drop"])
def test_faults_in_a_composite_show_in_second_derivatives(op, kind):
    function, inputs = {**OPS, "reparameterize": (F.reparameterize, [normal(2, 3)] * 3)}[op]
    target = ops_with_rules()[op]
    if target.composite is None:
        pytest.skip(f"{op} has no composite")
    rule = target.rule
    with planted(op, kind):
        target.rule = rule  # only the twin is wrong
        assert gradcheck(function, inputs)
        assert not gradcheck(function, inputs, order=2, raise_exception=False)


CAUSES = {
    "sign": "sign is flipped", "factor2": "twice too large", "drop": "zero everywhere", "element": "only 1 of",
    "reversed": "reversed", "transposed": "transposed", "scale": "12 times too large",
    "constant": "does not multiply by the incoming",
}  # fmt: skip


@pytest.mark.parametrize("kind", CAUSES)
def test_the_report_guesses_the_cause(kind):
    with planted("tanh", kind):
        report = gradcheck(F.tanh, [normal(3, 4)], raise_exception=False)
    assert any(CAUSES[kind] in c for c in report.causes), report


def test_large_inputs_one_element_wrong_is_caught_and_found():
    x = normal(64, 64)
    with planted("exp", "element"):
        report = gradcheck(lambda t: F.exp(t).sum(0), [x], raise_exception=False)
    assert not report and report.inputs[0].how == "along random directions"
    assert report.inputs[0].index == (63, 63)


def test_the_rule_returns_after_an_error_too():
    with pytest.raises(GradcheckError, match="sign is flipped"), planted("exp", "sign"):
        gradcheck(F.exp, [normal(2)])
    assert gradcheck(F.exp, [normal(2)])


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="Did you mean 'softmax'"), planted("sofmax"):
        pass
    with pytest.raises(ValueError, match="Did you mean 'sign'"), planted("softmax", "sing"):
        pass


def test_the_table_fails_when_a_fault_is_planted():
    good = run_table(["softmax"], orders=(1,))
    assert good and all(row.ok for row in good)
    seen = []
    bad = run_table(["softmax"], orders=(1,), plant="softmax:factor2", progress=seen.append)
    assert seen == bad and len(bad) == len(good)
    assert not bad[0].ok and "twice too large" in str(bad[0].report)
    with pytest.raises(ValueError, match="Did you mean 'softmax'"):
        run_table(["sofmax"])
