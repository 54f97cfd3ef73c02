"""Muon: its updates are orthogonal, equal to an independent reference and to PyTorch's, and learn where SGD is slow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
import minillm
from minillm import nn, optim
from minillm.models import GPT
from minillm.optim.muon import orthogonal

rng = np.random.default_rng(0)


def parameter(*shape, dtype=np.float32):
    return nn.Parameter(rng.normal(size=shape).astype(dtype))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 40), st.integers(0, 99))
def test_singular_values_come_near_1(n, rows, more, seed):
    x = np.random.default_rng(seed).normal(size=(n, rows, rows + more))
    s = np.linalg.svd(x, compute_uv=False)
    made = np.linalg.svd(orthogonal(x), compute_uv=False)
    near = s > 0.05 * np.linalg.norm(s, axis=-1, keepdims=True)  # five steps take a value of 0.01 to about 0.4
    assert ((made[near] > 0.65) & (made[near] < 1.25)).all()


def test_the_directions_stay():
    x = rng.normal(size=(1, 8, 20))
    u, _, v = np.linalg.svd(x[0], full_matrices=False)
    np.testing.assert_allclose(orthogonal(x, steps=12)[0], u @ v, atol=0.35)
    turned = u.T @ orthogonal(x)[0] @ v.T  # diagonal: a polynomial of x has its singular vectors
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-10)
    assert not orthogonal(np.zeros((1, 3, 4))).any()


def plain(w, grads, lr, momentum, nesterov, weight_decay, steps=5):
    """Muon for one matrix in float64, as its formula."""
    w, buf = w.astype(np.float64), np.zeros(w.shape)
    for g in grads:
        buf = momentum * buf + (1 - momentum) * g
        u = (1 - momentum) * g + momentum * buf if nesterov else buf
        wide = u if u.shape[0] <= u.shape[1] else u.T
        x = wide / (np.linalg.norm(wide) + 1e-7)
        for _ in range(steps):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        u = x if u.shape[0] <= u.shape[1] else x.T
        w = w * (1 - lr * weight_decay) - lr * max(1, w.shape[0] / w.shape[1]) ** 0.5 * u
    return w


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (4, 4), (1, 6), (6, 1)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matches_the_formula(shape, nesterov):
    p = parameter(*shape, dtype=np.float64)
    start, grads = p.numpy().copy(), rng.normal(size=(3, *shape))
    muon = optim.Muon([p], lr=0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.5)
    for g in grads:
        p.grad = minillm.tensor(g)
        muon.step()
    np.testing.assert_allclose(p.numpy(), plain(start, grads, 0.1, 0.8, nesterov, 0.5), rtol=1e-9, atol=1e-12)


def test_sections_are_matrices_of_their_own():
    whole = parameter(12, 4, dtype=np.float64)
    parts = [nn.Parameter(w.copy()) for w in np.split(whole.numpy(), [4, 6])]
    g = rng.normal(size=(12, 4))
    whole.grad = minillm.tensor(g)
    for p, piece in zip(parts, np.split(g, [4, 6])):
        p.grad = minillm.tensor(piece)
    optim.Muon([{"params": [whole], "sections": (4, 2, 6)}], lr=0.1).step()
    optim.Muon(parts, lr=0.1).step()
    np.testing.assert_allclose(whole.numpy(), np.concatenate([p.numpy() for p in parts]), rtol=1e-9)


def test_state_goes_on_with_the_same_bits():
    def run(p, muon, steps):
        for s in steps:
            p.grad = minillm.tensor(np.random.default_rng(s).normal(size=p.shape).astype(np.float32))
            muon.step()

    a = parameter(6, 9)
    b = nn.Parameter(a.numpy().copy())
    first = optim.Muon([a])
    run(a, first, range(4))
    second = optim.Muon([b])
    run(b, second, range(2))
    c = nn.Parameter(b.numpy().copy())
    third = optim.Muon([c])
    third.load_state_dict(second.state_dict())
    run(c, third, range(2, 4))
    np.testing.assert_array_equal(a.numpy(), c.numpy())


def test_beats_sgd_where_directions_differ_in_size():
    """|W A - B|^2 with singular values of A from 1 to 0.01: the gradient hardly sees the small ones."""
    u, _, v = np.linalg.svd(rng.normal(size=(10, 10)))
    a = minillm.tensor((u * np.geomspace(1, 0.01, 10)) @ v)
    target = rng.normal(size=(10, 10))

    def left(make):
        w = nn.Parameter(np.zeros((10, 10)))
        optimizer = make([w])
        for step in range(200):
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("name", group["lr"]) * (1 - step / 200)  # the base rate, kept as a name
            optimizer.zero_grad()
            error = (w @ a - minillm.tensor(target) @ a).square().sum()
            error.backward()
            optimizer.step()
        return np.abs(w.numpy() - target).mean()

    best_sgd = min(left(lambda p, lr=lr: optim.SGD(p, lr=lr, momentum=0.95)) for lr in (0.1, 0.03, 0.01))
    assert left(lambda p: optim.Muon(p, lr=0.1)) < 0.7 * best_sgd


def test_what_it_refuses():
    with pytest.raises(ValueError, match="vectors, embeddings"):
        optim.Muon([parameter(3)])
    with pytest.raises(ValueError, match="add up"):
        optim.Muon([{"params": [parameter(3, 3)], "sections": (1, 1)}])
    with pytest.raises(ValueError, match="add up"):
        optim.Muon([{"params": [parameter(3, 3)], "sections": (3, 0)}])
    p = parameter(3, 3)
    muon, p.grad = optim.Muon([p]), minillm.tensor(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="has grad"):
        muon.step()
    with pytest.raises(ValueError, match="ns_steps"):
        optim.Muon([parameter(3, 3)], ns_steps=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 3e4])
def test_float16_iterates_in_float32(scale):
    x = (scale * rng.uniform(-1, 1, size=(1, 8, 12))).astype(np.float16)
    made = orthogonal(x, bf16=False)
    assert made.dtype == np.float16
    np.testing.assert_allclose(made, orthogonal(x.astype(np.float64)), atol=0.001)


@pytest.mark.skipif(not kernels.has_bf16(), reason="needs a CPU that multiplies bfloat16 numbers")
def test_products_in_bfloat16_are_as_good():
    x = rng.normal(size=(3, 32, 64)).astype(np.float32)
    made = orthogonal(x, bf16=True)
    np.testing.assert_allclose(made, orthogonal(x.astype(np.float64)), atol=0.05)
    s = np.linalg.svd(made, compute_uv=False)
    assert s.min() > 0.6 and s.max() < 1.3


def test_matrices_of_one_shape_go_together_and_each_gets_its_own_step():
    shapes = [(4, 6), (6, 4), (4, 6), (4, 4), (0, 4)]
    together = [parameter(*shape) for shape in shapes]
    alone = [nn.Parameter(p.numpy().copy()) for p in together]
    for p, q in zip(together, alone):
        p.grad = minillm.tensor(rng.normal(size=p.shape).astype(np.float32))
        q.grad = minillm.tensor(p.grad.numpy().copy())
    optim.Muon(together).step()
    for p, q in zip(together, alone):
        optim.Muon([q]).step()
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_close_to_pytorch(shape):
    """PyTorch iterates in bfloat16: two digits of updates of about 0.02."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    ours = parameter(*shape)
    theirs = torch.nn.Parameter(torch.tensor(ours.numpy().copy()))
    a, b = optim.Muon([ours], lr=0.1, weight_decay=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        g = rng.normal(size=shape).astype(np.float32)
        ours.grad, theirs.grad = minillm.tensor(g), torch.tensor(g)
        a.step()
        b.step()
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=0.005)


# ----------------------------------------------------------------------------------------- groups, several


def test_muon_gets_the_matrices_inside():
    model = GPT(11, context=4, layers=2, heads=2, kv_heads=1, width=8, norm="rms", bias=False, qk_norm=True)
    groups, others = optim.muon_groups(model)
    names = {id(p): n for n, p in model.named_parameters()}
    inside = [names[id(p)] for g in groups for p in g["params"]]
    assert len(inside) == 2 * 4 and all(n.startswith("blocks") for n in inside)
    assert {tuple(g.get("sections") or ()) for g in groups} == {(8, 4, 4), ()}
    assert len(inside) + len(others) == len(list(model.parameters()))
    assert "token.weight" in {names[id(p)] for p in others}
    with pytest.raises(ValueError, match="no `blocks`"):
        optim.muon_groups(nn.Linear(2, 2))


def test_muon_splits_the_packed_weight_of_pytorch_s_attention_too():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.TransformerBlock(8, 2)])
    (packed,) = [g for g in optim.muon_groups(model)[0] if "sections" in g]
    assert packed["sections"] == (8, 8, 8) and packed["params"][0] is model.blocks[0].attention.in_proj_weight


def test_decay_is_for_matrices():
    model = GPT(11, context=4, layers=1, heads=2, width=8)
    matrices, vectors = optim.decay_groups(model, 0.3)
    assert matrices["weight_decay"] == 0.3 and vectors["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in matrices["params"]) and all(p.ndim == 1 for p in vectors["params"])
    assert sum(len(g["params"]) for g in (matrices, vectors)) == len(list(model.parameters()))


def test_several_clip_by_the_joint_norm():
    a, b = parameter(3, 4), parameter(5)
    twin_a, twin_b = nn.Parameter(a.numpy().copy()), nn.Parameter(b.numpy().copy())
    both = optim.Optimizers([optim.SGD([a], lr=0.1), optim.SGD([b], lr=0.2)])
    for p, q in ((a, twin_a), (b, twin_b)):
        p.grad = minillm.tensor(rng.normal(size=p.shape).astype(np.float32))
        q.grad = minillm.tensor(p.grad.numpy().copy())
    both.step(clip_norm=0.5)
    optim.clip_grad_norm_([twin_a, twin_b], 0.5)
    optim.SGD([{"params": [twin_a]}, {"params": [twin_b], "lr": 0.2}], lr=0.1).step()
    np.testing.assert_allclose(a.numpy(), twin_a.numpy(), rtol=1e-6)
    np.testing.assert_allclose(b.numpy(), twin_b.numpy(), rtol=1e-6)
    assert [g["lr"] for g in both.param_groups] == [0.1, 0.2]
    both.zero_grad()
    assert a.grad is None and b.grad is None


def test_several_save_and_load():
    a, b = parameter(3, 4), parameter(5)
    both = optim.Optimizers([optim.Muon([a]), optim.AdamW([b])])
    a.grad, b.grad = minillm.tensor(a.numpy().copy()), minillm.tensor(b.numpy().copy())
    both.step()
    c, d = nn.Parameter(a.numpy().copy()), nn.Parameter(b.numpy().copy())
    again = optim.Optimizers([optim.Muon([c]), optim.AdamW([d])])
    again.load_state_dict(both.state_dict())
    for p, q in ((a, c), (b, d)):
        q.grad = minillm.tensor(p.grad.numpy().copy())
    both.step()
    again.step()
    np.testing.assert_array_equal(a.numpy(), c.numpy())
    np.testing.assert_array_equal(b.numpy(), d.numpy())
    with pytest.raises(ValueError, match="given 2 optimizers"):
        optim.Optimizers([optim.SGD([c])]).load_state_dict(both.state_dict())
    with pytest.raises(ValueError, match="one alone"):
        again.load_state_dict(optim.Muon([c]).state_dict())


def test_a_state_that_does_not_fit_changes_nothing():
    a, b = parameter(3, 4), parameter(5)
    both = optim.Optimizers([optim.Muon([a]), optim.AdamW([b])])
    a.grad, b.grad = minillm.tensor(a.numpy().copy()), minillm.tensor(b.numpy().copy())
    both.step()
    before = both.state_dict()
    other = optim.Optimizers([optim.Muon([parameter(3, 4)], lr=0.5), optim.SGD([parameter(5)])])
    with pytest.raises(ValueError, match="another optimizer"):
        both.load_state_dict(other.state_dict())
    after = both.state_dict()
    assert [g["lr"] for g in both.param_groups] == [0.02, 1e-3]
    for old, new in zip(before["optimizers"], after["optimizers"]):
        for name, value in old["state"][0].items():
            np.testing.assert_array_equal(new["state"][0][name], value)


def test_several_refuse_a_parameter_of_two():
    a = parameter(3, 4)
    with pytest.raises(ValueError, match="in common"):
        optim.Optimizers([optim.SGD([a]), optim.Muon([a])])
    with pytest.raises(ValueError, match="empty"):
        optim.Optimizers([])
    with pytest.raises(TypeError, match="number 0"):
        optim.Optimizers([[a]])
