"""Optimizers against torch.optim, their state, their groups, their errors."""

import json

import numpy as np
import pytest

from minillm import GraphError, manual_seed, nn, optim, randn

SETTINGS = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    ("SGD", {"weight_decay": 0.2}),
    ("Adam", {}),
    ("Adam", {"betas": (0.7, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.3}),
    ("AdamW", {"weight_decay": 0.0}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True, "alpha": 0.8, "momentum": 0.5, "weight_decay": 0.1}),
]
SHAPES = [(4, 3), (3,), (), (2, 0)]
IDS = [f"{name}-{i}" for i, (name, _) in enumerate(SETTINGS)]


def parameters(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [nn.Parameter(np.asarray(rng.standard_normal(s), dtype)) for s in SHAPES]


def set_gradients(params, step, like=None):
    """Gradients that depend on step and parameter: no fixed point, no pattern."""
    rng = np.random.default_rng(100 + step)
    for p in params:
        g = np.asarray(rng.standard_normal(tuple(p.shape)) + 0.3)
        p.grad = like.tensor(g) if like else type(p)(g.astype(p.dtype)).detach()


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=IDS)
def test_twenty_steps_are_those_of_pytorch(name, settings):
    torch = pytest.importorskip("torch")
    ours = parameters()
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy().copy())) for p in ours]
    a = getattr(optim, name)(ours, lr=0.03, **settings)
    b = getattr(torch.optim, name)(theirs, lr=0.03, **settings)
    before = [p.numpy().copy() for p in ours]
    for step in range(20):
        set_gradients(ours, step)
        set_gradients(theirs, step, like=torch)
        a.step()
        b.step()
    for p, q, start in zip(ours, theirs, before):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-10, atol=0)
        assert p.numel() == 0 or abs(p.numpy() - start).min() > 1e-6


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_defaults_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    ours = getattr(optim, name)(parameters()).param_groups[0]
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert {k: v for k, v in ours.items() if k != "params"} == {k: theirs[k] for k in ours if k != "params"}


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_parameter_groups_have_their_own_settings(name):
    torch = pytest.importorskip("torch")
    ours = parameters()
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy().copy())) for p in ours]

    def groups(p):
        return [{"params": p[:1], "lr": 0.1}, {"params": p[1:], "weight_decay": 0.5}]

    a = getattr(optim, name)(groups(ours), lr=0.01, weight_decay=0.1)
    b = getattr(torch.optim, name)(groups(theirs), lr=0.01, weight_decay=0.1)
    assert [(g["lr"], g["weight_decay"]) for g in a.param_groups] == [(0.1, 0.1), (0.01, 0.5)]
    for step in range(10):
        set_gradients(ours, step)
        set_gradients(theirs, step, like=torch)
        if step % 2:
            ours[1].grad = theirs[1].grad = None
        if step == 5:  # what a schedule does
            a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = 0.02
        a.step()
        b.step()
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=IDS)
def test_float32_stays_float32_and_close_to_float64(name, settings):
    narrow, wide = parameters(dtype=np.float32), parameters()
    optimizers = [getattr(optim, name)(p, lr=0.03, **settings) for p in (narrow, wide)]
    for step in range(5):
        for params, optimizer in zip((narrow, wide), optimizers):
            set_gradients(params, step)
            optimizer.step()
    for p, q in zip(narrow, wide):
        assert p.dtype == np.float32
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-4, atol=1e-5)
    for values in optimizers[0].state.values():
        assert all(not hasattr(v, "dtype") or v.dtype == np.float32 for v in values.values())


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=IDS)
def test_a_restored_optimizer_goes_on_bit_by_bit(name, settings):
    def train(params, optimizer, steps):
        for step in steps:
            set_gradients(params, step)
            optimizer.step()

    straight = parameters()
    train(straight, getattr(optim, name)(straight, lr=0.03, **settings), range(10))
    first = parameters()
    optimizer = getattr(optim, name)(first, lr=0.03, **settings)
    train(first, optimizer, range(4))
    saved = optimizer.state_dict()
    values = [p.numpy().copy() for p in first]
    train(first, optimizer, range(4, 6))  # must not reach into what was saved
    second = [nn.Parameter(v) for v in values]
    restored = getattr(optim, name)(second, lr=99.0)
    restored.load_state_dict(saved)
    train(second, restored, range(4, 10))
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(straight, second))


def test_a_state_dict_is_arrays_numbers_and_indices():
    params = parameters()
    optimizer = optim.AdamW([{"params": params[:2], "name": "decayed"}, {"params": params[2:], "weight_decay": 0.0}])
    params[1].grad = params[1].detach()
    optimizer.step()
    state = optimizer.state_dict()
    assert [g["params"] for g in state["param_groups"]] == [[0, 1], [2, 3]]
    assert list(state["state"]) == [1]
    assert state["state"][1]["step"] == 1
    assert isinstance(state["state"][1]["exp_avg"], np.ndarray)
    groups = json.loads(json.dumps(state["param_groups"]))  # betas become a list, and come back
    arrays = {"1": state["state"][1]}
    fresh = optim.AdamW([{"params": params[:2]}, {"params": params[2:]}])
    fresh.load_state_dict({"state": arrays, "param_groups": groups})
    assert fresh.param_groups[1]["weight_decay"] == 0.0
    assert fresh.param_groups[0]["betas"] == (0.9, 0.999)
    assert np.array_equal(fresh.state[params[1]]["exp_avg"], optimizer.state[params[1]]["exp_avg"])


def test_a_state_that_does_not_fit_changes_nothing():
    params = parameters()
    optimizer = optim.Adam(params, lr=0.5)
    set_gradients(params, 0)
    optimizer.step()
    state = optimizer.state_dict()
    other = optim.Adam(params[:2])
    with pytest.raises(ValueError, match=r"given groups of \[4\] parameters, this optimizer has \[2\]"):
        other.load_state_dict(state)
    state["state"][0]["exp_avg"] = np.zeros((3, 4))
    state["param_groups"][0]["lr"] = 0.1
    kept = optimizer.state[params[0]]["exp_avg"]
    with pytest.raises(ValueError, match=r"'exp_avg' of parameter 0 has shape \(3, 4\), the parameter \(4, 3\)"):
        optimizer.load_state_dict(state)
    assert optimizer.state[params[0]]["exp_avg"] is kept
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_what_cannot_be_optimized_is_refused():
    p = nn.Parameter([1.0])
    with pytest.raises(ValueError, match="no parameters to optimize"):
        optim.SGD([])
    with pytest.raises(ValueError, match="given twice"):
        optim.SGD([p, p])
    with pytest.raises(ValueError, match="given twice"):
        optim.SGD([{"params": [p]}, {"params": p}])
    with pytest.raises(ValueError, match="made by an op"):
        optim.SGD([p * 2])
    with pytest.raises(TypeError, match="one Parameter"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="pass parameters"):
        optim.SGD(nn.Linear(2, 2).named_parameters())
    with pytest.raises(ValueError, match=r"no setting 'weight_deacy'.*Did you mean 'weight_decay'"):
        optim.SGD([{"params": [p], "weight_deacy": 1}])
    with pytest.raises(ValueError, match="group 1 has no parameters"):
        optim.SGD([{"params": [p]}, {"params": []}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD(p, lr=-1), "lr must be 0 or more; got -1"),
        (lambda p: optim.SGD(p, nesterov=True), "momentum > 0"),
        (lambda p: optim.AdamW(p, betas=(0.9, 1.0)), "0 <= beta < 1"),
        (lambda p: optim.RMSprop(p, alpha=2), "0 <= alpha <= 1"),
        (lambda p: optim.Adam([{"params": p, "eps": -1}]), "eps must be 0 or more"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make(parameters())


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_a_step_skips_what_has_no_gradient_and_a_frozen_parameter(name):
    params = parameters()
    params[0].requires_grad = False
    before = [p.numpy().copy() for p in params]
    params[1].grad = params[1].detach().clone()
    gradient = params[1].grad.numpy().copy()
    optimizer = getattr(optim, name)(params, lr=0.1, weight_decay=0.1)
    optimizer.step()
    assert [np.array_equal(p.numpy(), b) for p, b in zip(params, before)] == [True, False, True, True]
    assert len(optimizer.state) <= 1
    assert np.array_equal(params[1].grad.numpy(), gradient)  # the gradient is read only


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_a_graph_older_than_the_step_refuses_to_go_back(name):
    layer = nn.Linear(2, 2)
    x = randn(1, 2, requires_grad=True)
    optimizer = getattr(optim, name)(layer.parameters())
    loss = layer(x).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(GraphError, match="written in place"):
        loss.backward()


def test_zero_grad():
    params = parameters()
    optimizer = optim.SGD(params)
    set_gradients(params, 0)
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.numpy().any() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


def test_a_wrong_gradient_shape_is_an_error():
    p = nn.Parameter([1.0, 2.0])
    p.grad = randn(1)
    for optimizer in (optim.SGD([p]), optim.Adam([p])):
        with pytest.raises(ValueError, match=r"shape \(2,\) has grad \(1,\)"):
            optimizer.step()


@pytest.mark.parametrize(("name", "settings"), [("SGD", {"lr": 0.3, "momentum": 0.9}), ("AdamW", {"lr": 0.02})])
def test_a_small_network_learns_xor(name, settings):
    manual_seed(0)
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    target = np.array([0, 1, 1, 0])
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer, loss = getattr(optim, name)(model.parameters(), **settings), nn.CrossEntropyLoss()
    for _ in range(120):
        optimizer.zero_grad()
        value = loss(model(nn.Parameter(x, requires_grad=False)), target)
        value.backward()
        optimizer.step()
    assert value.item() < 0.1  # log 2 = 0.69 is guessing
    assert "group 0: 4 parameters" in repr(optimizer)


def test_the_state_of_another_optimizer_is_refused():
    def parameter():
        p = nn.Parameter(np.ones(3, np.float32))
        p.grad = randn(3)
        return p

    sgd, adam = optim.SGD([parameter()], lr=0.1, momentum=0.9), optim.Adam([parameter()], lr=0.1)
    sgd.step()
    with pytest.raises(ValueError, match="another optimizer"):
        adam.load_state_dict(sgd.state_dict())
    adam.step()
