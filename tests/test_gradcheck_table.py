"""Every op that has a gradient, at every order that its row names; and that none is missing from the table."""

from __future__ import annotations

import numba
import pytest

import minillm
from minillm import functional as F
from minillm.testing.cases import all_cases, cases_for
from minillm.testing.faults import ops_with_rules
from minillm.testing.table import check_case

ROWS = [(case, order) for case in all_cases() for order in case.orders]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On arrays this small, starting threads takes longer than the work, and much longer on a busy machine."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.mark.parametrize(("case", "order"), ROWS, ids=[f"{c.name}-{o}" for c, o in ROWS])
def test_gradient(case, order):
    report = check_case(case, order)
    assert report.ok, str(report)


def public_functions():
    """What minillm.functional exports: {name: function}."""
    return {
        n: f
        for n, f in vars(F).items()
        if callable(f) and not n.startswith("_") and getattr(f, "__module__", "").startswith("minillm.ops")
    }


def constant(function):
    """Declared without a gradient, or an op that has no rule."""
    return hasattr(function, "vjp") and function.rule is None


NO_GRADIENT = {"allclose", "argsort", "one_hot"}  # written with ops, but the results are integers or bools


def test_every_function_with_a_gradient_is_in_the_table():
    named = {c.op for c in all_cases()}
    covered = {id(getattr(F, name)) for name in named if hasattr(F, name)}
    missing = [
        n for n, f in public_functions().items() if not constant(f) and n not in NO_GRADIENT and id(f) not in covered
    ]
    assert not missing, f"no case for {', '.join(missing)}: add a row in minillm/testing/cases"
    assert len(public_functions()) > 100


def test_functions_said_to_have_no_gradient_have_none():
    x = minillm.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    assert not F.argsort(x).requires_grad
    for name, f in public_functions().items():
        if constant(f):
            assert not name.endswith("_loss"), name


def test_every_rule_is_run_by_the_table(monkeypatch):
    """Not only the public names: the private ops under them, too."""
    ran = set()
    ops = {n: op for n, op in ops_with_rules().items() if op.rule.__module__.startswith("minillm.ops")}
    for name, op in ops.items():

        def watched(*args, _rule=op.rule, _name=name):
            ran.add(_name)
            return _rule(*args)

        monkeypatch.setattr(op, "rule", watched)
    for case in all_cases():
        xs = [minillm.tensor(x, dtype=x.dtype, requires_grad=True) for x in case.inputs()]
        outs = case.function(*xs)
        outs = [o for o in (outs if isinstance(outs, (tuple, list)) else [outs]) if o.requires_grad]
        sums = [o.sum() for o in outs]
        minillm.gradients(
            sums, xs, retain_graph=True, allow_unused=True
        )  # an op with a composite runs its rule only here
        first = minillm.gradients(sums, xs, create_graph=2 in case.orders, allow_unused=True)
        second = [(g * g).sum() for g in first if g is not None and g.requires_grad]
        if second:
            minillm.gradients(second, xs, allow_unused=True)
    missing = sorted(set(ops) - ran)
    assert not missing, f"no case runs the gradient rule of {', '.join(missing)}"


def test_names_are_unique_and_unknown_ones_are_refused():
    names = [c.name for c in all_cases()]
    twice = {n for n in names if names.count(n) > 1}
    assert not twice, f"two rows of one name: {sorted(twice)}"
    assert len(cases_for(["softmax"])) > 1 and len(cases_for(["softmax[dim=0]"])) == 1
    with pytest.raises(ValueError, match="Did you mean 'softmax'"):
        cases_for(["softmaxx"])
