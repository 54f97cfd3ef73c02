"""Parameters, gradients and state side by side: nothing of it shows, and one update does for all of them."""

import copy
import gc
import weakref

import numpy as np
import pytest

import kernels
from minillm import GraphError, Tensor, checkpoint, nn, no_grad, optim, tensor
from minillm import functional as F
from minillm.optim.flat import whole_grads

OPTIMIZERS = [
    (optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (optim.SGD, {}),
    (optim.Adam, {"weight_decay": 0.1}),
    (optim.AdamW, {}),
    (optim.RMSprop, {"momentum": 0.5, "centered": True}),
]
IDS = [f"{cls.__name__}-{i}" for i, (cls, _) in enumerate(OPTIMIZERS)]


def network(seed=0, dtype=np.float32):
    """Layers of odd sizes, one of them never used, one tied."""
    rng = np.random.default_rng(seed)
    model = nn.Module()
    model.first = nn.Linear(5, 7)
    model.unused = nn.Linear(3, 2)
    model.scale = nn.Parameter(np.ones((), np.float32))
    model.last = nn.Linear(7, 7)
    for p in model.parameters():
        p.data[...] = rng.standard_normal(p.shape)
    return model.to(dtype)


def loss_of(model, step):
    x = tensor(np.random.default_rng(step).standard_normal((4, 5))).to(model.first.weight.dtype)
    h = model.first(x).tanh() * model.scale
    return (model.last(model.last(h)) ** 2).mean()  # last is used twice


def held(optimizer, model):
    """How the parameters are updated: the number of calls of update(), and how many elements each has."""
    sizes = []
    inner = optimizer.update_scaled

    def watch(param, *args):
        sizes.append(param.size)
        return inner(param, *args)

    optimizer.update_scaled = watch
    return sizes


def alone(cls, model, **settings):
    """The same optimizer without flat arrays."""
    plain = type(cls.__name__, (cls,), {"elementwise": False})
    return plain(model.parameters(), lr=0.05, **settings)


@pytest.mark.parametrize(("cls", "settings"), OPTIMIZERS, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_same_bits_as_one_by_one(cls, settings, dtype):
    ours, theirs = network(dtype=dtype), network(dtype=dtype)
    a, b = cls(ours.parameters(), lr=0.05, **settings), alone(cls, theirs, **settings)
    sizes = held(a, ours)
    with np.errstate(all="ignore" if dtype == np.float16 else "warn"):
        for step in range(5):
            for model, optimizer in ((ours, a), (theirs, b)):
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert np.array_equal(p.data, q.data, equal_nan=True) and (p.grad is None) == (q.grad is None)
        assert p.grad is None or np.array_equal(p.grad.data, q.grad.data)
    assert len(sizes) == 10  # two runs a step: before and behind the layer that has no gradient
    assert a.state_dict().keys() == b.state_dict().keys()
    for i, values in b.state_dict()["state"].items():
        mine = a.state_dict()["state"][i]
        assert mine.keys() == values.keys()
        assert all(np.array_equal(mine[k], values[k]) for k in values)


def test_parameters_and_gradients_lie_side_by_side():
    model = network()
    optimizer = optim.AdamW(model.parameters())
    loss_of(model, 0).backward()
    (flat,) = optimizer._flats[0]
    for i, p in enumerate(flat.params):
        assert np.shares_memory(p.data, flat.data) and p.data.flags.carray and p.data.ctypes.data % 16 == 0
        assert p.grad is None or (np.shares_memory(p.grad.data, flat.grad) and flat.has_grad(i))
    (row,) = whole_grads(list(model.parameters()))
    assert row is flat.grad
    norms = [np.square(p.grad.data.astype(np.float64)).sum() for p in model.parameters() if p.grad is not None]
    np.testing.assert_allclose(np.square(row.astype(np.float64)).sum(), sum(norms), rtol=1e-12)


def test_a_gradient_that_is_kept_stays_what_it_was():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    kept = []
    for step in range(3):
        if step == 1:
            optimizer.zero_grad()
        else:
            model.zero_grad()
        loss_of(model, step).backward()
        kept.append([(p.grad, p.grad.data.copy(), p.grad.data[..., :1]) for p in model.first.parameters()])
        optimizer.step()
    for grads in kept:
        for grad, copied, part in grads:
            assert np.array_equal(grad.data, copied) and np.array_equal(part, copied[..., :1])


def test_backward_adds_up_and_zeros_can_stay():
    ours, theirs = network(), network()
    optimizer = optim.SGD(ours.parameters())
    for _ in range(2):
        loss_of(ours, 0).backward()
        loss_of(ours, 1).backward()
        (loss_of(theirs, 0)).backward()
        (loss_of(theirs, 1)).backward()
        for p, q in zip(ours.parameters(), theirs.parameters()):
            assert (p.grad is None) == (q.grad is None)
            assert p.grad is None or np.array_equal(p.grad.data, q.grad.data)
        views = [None if p.grad is None else p.grad.data for p in ours.parameters()]
        optimizer.zero_grad(set_to_none=False)
        theirs.zero_grad(set_to_none=False)
        assert all(p.grad is None or (p.grad.data is v and not v.any()) for p, v in zip(ours.parameters(), views))


@pytest.mark.parametrize("change", ["data", "grad", "grad array", "one grad", "frozen", "dtype", "another optimizer"])
def test_what_was_replaced_takes_its_steps_alone(change):
    """Against an optimizer without flat arrays that gets the same treatment."""
    models = [network(), network()]
    optimizers = [optim.AdamW(models[0].parameters(), lr=0.05), alone(optim.AdamW, models[1])]
    others = []
    for step in range(4):
        for model, optimizer in zip(models, optimizers):
            if step == 2 and change == "dtype":
                model.first.to(np.float64)
                optimizer.state = {p: v for p, v in optimizer.state.items() if p.dtype == np.float32}
            if step == 1 and change == "data":
                model.first.bias.data = model.first.bias.data * 2
            if step in (1, 2) and change == "frozen":
                model.first.weight.requires_grad = step == 2
            if step == 2 and change == "another optimizer":
                others.append(optim.SGD(model.parameters(), lr=0.1))
            optimizer.zero_grad()
            if change == "dtype" and step >= 2:
                (model.first(tensor(np.ones((2, 5)))) ** 2).sum().backward()
            else:
                loss_of(model, step).backward()
            if change == "grad":
                model.first.bias.grad = Tensor(np.ones(7, np.float32))
            if change == "grad array":
                model.first.weight.grad.data = model.first.weight.grad.data * 3
            if change == "one grad" and step % 2:
                model.first.weight.grad = None
                loss_of(model, 7).backward()
            for o in [optimizer, *others[models.index(model) : models.index(model) + 1]] if others else [optimizer]:
                o.step()
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters()):
        np.testing.assert_array_equal(p.data, q.data, err_msg=name)


def test_an_array_that_someone_else_holds_stays_theirs():
    rng = np.random.default_rng(0)
    mine = rng.standard_normal((3, 2)).astype(np.float32)
    part = rng.standard_normal((4, 2)).astype(np.float32)
    params = [nn.Parameter(mine), nn.Parameter(part[1:3]), nn.Parameter(np.ones(5)), nn.Parameter(np.ones(4))]
    alias = params[2].detach()
    row = params[3].data[1:]
    optimizer = optim.SGD(params, lr=1.0)
    assert optimizer._flats == [[]]
    for p in params:
        (p * 2).sum().backward()
    optimizer.step()
    for array, p in ((mine, params[0]), (part[1:3], params[1]), (alias.data, params[2]), (row, params[3])):
        assert np.shares_memory(array, p.data)
    assert (alias.numpy() == -1).all() and (row == -1).all()


def test_a_reshaped_array_can_move_and_a_second_optimizer_takes_over():
    params = [nn.Parameter(np.arange(6.0).reshape(2, 3)), nn.Parameter(np.arange(4.0).reshape(4, 1))]
    first = optim.SGD(params, lr=0.5)
    second = optim.SGD(params, lr=0.5)
    assert [len(flat.params) for flats in (*first._flats, *second._flats) for flat in flats] == [2, 2]
    for optimizer in (first, second, first):
        optimizer.zero_grad()
        (sum(p.sum() for p in params)).backward()
        optimizer.step()
    assert np.array_equal(params[0].data, np.arange(6.0).reshape(2, 3) - 1.5)
    assert np.array_equal(params[1].data, np.arange(4.0).reshape(4, 1) - 1.5)


def test_an_alias_of_a_moved_array_keeps_it_in_place():
    params = [nn.Parameter(np.ones((2, 3))), nn.Parameter(np.ones((4, 1)))]
    first = optim.SGD(params, lr=0.5)
    alias = params[0].data.T
    second = optim.SGD(params, lr=0.5)
    (params[0].sum() + params[1].sum()).backward()
    second.step()
    assert (alias == 0.5).all() and len(first._flats[0]) == 1 and not second._flats[0]


def test_a_write_to_one_parameter_is_no_write_to_the_others():
    model = network()
    optimizer = optim.SGD(model.parameters())
    out = (model.first.weight * model.first.weight).sum()
    with no_grad():
        model.last.weight.zero_()
    out.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(GraphError, match="written in place"):
        out.backward()


def test_state_moves_in_and_out():
    ours, theirs = network(), network()
    a = optim.AdamW(ours.parameters(), lr=0.05)
    for step in range(2):
        a.zero_grad()
        loss_of(ours, step).backward()
        a.step()
    theirs.load_state_dict(ours.state_dict())
    b = optim.AdamW(theirs.parameters(), lr=0.05)
    saved = copy.deepcopy(a.state_dict())
    b.load_state_dict(a.state_dict())
    sizes = held(b, theirs)
    for step in range(2, 4):
        for model, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            optimizer.step()
    assert len(sizes) == 4  # still two runs a step
    assert all(np.array_equal(p.data, q.data) for p, q in zip(ours.parameters(), theirs.parameters()))
    assert all(np.any(saved["state"][0][k] != a.state_dict()["state"][0][k]) for k in ("exp_avg", "exp_avg_sq"))


def test_groups_have_rows_of_their_own():
    model = network()
    optimizer = optim.AdamW([{"params": list(model.first.parameters())}], lr=0.1)
    optimizer.add_param_group({"params": list(model.last.parameters()), "lr": 0.0})
    before = model.last.weight.numpy().copy()
    loss_of(model, 0).backward()
    sizes = held(optimizer, model)
    optimizer.step()
    assert len(sizes) == 2 and np.array_equal(model.last.weight.numpy(), before)
    assert len(whole_grads([*model.first.parameters(), *model.last.parameters()])) == 2
    assert len(whole_grads(list(model.first.parameters())[:1])) == 1


@pytest.mark.parametrize("limit", [0.01, 1e9])
@pytest.mark.parametrize("cls", [optim.SGD, optim.AdamW])
def test_clipping_inside_the_step(cls, limit):
    ours, theirs = network(dtype=np.float64), network(dtype=np.float64)
    a, b = cls(ours.parameters(), lr=0.05), cls(theirs.parameters(), lr=0.05)
    loss_of(ours, 0).backward()
    loss_of(theirs, 0).backward()
    grads = [None if p.grad is None else p.grad.data.copy() for p in ours.parameters()]
    a.step(clip_norm=limit)
    optim.clip_grad_norm_(theirs.parameters(), limit)
    b.step()
    for p, q, g in zip(ours.parameters(), theirs.parameters(), grads):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-12)
        assert g is None or np.array_equal(p.grad.data, g)


def test_a_norm_that_is_nan_makes_the_step_nan():
    p, q = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(2))
    optimizer = optim.SGD([p, q], lr=1.0)
    p.grad = Tensor(np.array([1.0, np.nan, 0.0]))
    q.grad = Tensor(np.ones(2))
    optimizer.step(clip_norm=1.0)
    assert np.isnan(p.data).all() and np.isnan(q.data).all()


def test_hooks_see_a_gradient_of_their_own():
    model = network()
    optimizer = optim.SGD(model.parameters())
    seen = []
    model.first.weight.register_hook(seen.append)
    loss_of(model, 0).backward()
    assert np.array_equal(seen[0].data, model.first.weight.grad.data)
    assert not np.shares_memory(seen[0].data, model.first.weight.grad.data)
    del optimizer


def test_an_optimizer_that_is_dropped_is_gone():
    model = network()
    optimizer = optim.AdamW(model.parameters())
    loss_of(model, 0).backward()
    flat = weakref.ref(optimizer._flats[0][0])
    gc.disable()
    try:
        del optimizer
        assert flat() is None
    finally:
        gc.enable()
    model.zero_grad()
    loss_of(model, 0).backward()
    assert model.first.weight.grad is not None


def test_a_rule_may_add_straight_into_the_place_of_the_gradient():
    """Its array becomes .grad without a copy, once: after that, and for two uses, gradients are added up."""
    from minillm import op

    offered = []

    @op
    def double(x):
        return 2 * x

    @double.vjp
    def _(dout, into=None):
        offered.append(into)
        if into and into[0] is not None:
            into[0][...] += 2 * dout
            return into[0]
        return 2 * dout

    x, y = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(2))
    optimizer = optim.SGD([x, y])
    double(x).sum().backward()
    assert x.grad.data is offered[0][0] and (x.grad.data == 2).all()
    double(x).sum().backward()
    assert offered[1][0] is None and (x.grad.data == 4).all()
    optimizer.zero_grad()
    (double(x) + double(x)).sum().backward()
    assert offered[2][0] is not None and offered[3][0] is None and (x.grad.data == 4).all()
    optimizer.zero_grad()
    (x.sum() + double(x).sum()).backward()
    assert (x.grad.data == 3).all()


def test_checkpoints_and_gradients_that_can_be_differentiated():
    ours, theirs = network(), network()
    optimizer = optim.SGD(ours.parameters(), lr=0.1)
    for model in (ours, theirs):
        x = tensor(np.ones((2, 5), np.float32))
        checkpoint(lambda t, model=model: model.first(t).tanh(), x).sum().backward()
        ((model.first.weight * model.first.weight).sum() * model.scale).backward(create_graph=True)
        (model.first.weight.grad * model.first.weight.grad).sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or np.array_equal(p.grad.data, q.grad.data)
    optimizer.step()


def test_reference_kernels_do_as_well():
    ours, theirs = network(), network()
    with kernels.use("reference"):
        for model in (ours, theirs):
            optimizer = optim.AdamW(model.parameters(), 0.05) if model is ours else alone(optim.AdamW, model)
            loss_of(model, 0).backward()
            optimizer.step()
    assert all(np.array_equal(p.data, q.data) for p, q in zip(ours.parameters(), theirs.parameters()))


def test_a_tied_weight_is_added_up_in_its_place():
    table, other = nn.Parameter(np.ones((4, 3))), nn.Parameter(np.ones(2))
    optimizer = optim.SGD([table, other])
    h = F.embedding(tensor([[0, 2, 2]]), table)
    (F.linear(h, table).sum() + other.sum()).backward()
    (flat,) = optimizer._flats[0]
    assert flat.has_grad(0) and flat.has_grad(1) and len(flat.runs({})) == 1
    np.testing.assert_array_equal(table.grad.data, 3 + 4 * np.array([1, 0, 2, 0])[:, None] * np.ones(3))
