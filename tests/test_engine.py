"""The engine: graph shapes, accumulation, aliasing, freed and overwritten arrays, hooks, checkpoints, dtypes."""

from __future__ import annotations

import gc
import math
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm import functional as F
from minillm import nn, optim, tensor
from minillm.errors import DeviceError, GraphError
from minillm.testing import strict
from minillm.testing.faults import ops_with_rules

strict.install()
RNG = np.random.default_rng(0)


def leaf(*shape, dtype=np.float64):
    return minillm.Tensor(np.asarray(RNG.standard_normal(shape)).astype(dtype), requires_grad=True)


def close(a, b, tolerance=1e-12):
    a, b = (x.numpy() if isinstance(x, minillm.Tensor) else np.asarray(x) for x in (a, b))
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture
def rule_calls(monkeypatch):
    """How often the rule of an op ran: count("add")()."""

    def count(name):
        op, calls = ops_with_rules()[name], [0]
        rule = op.rule

        def counting(*args):
            calls[0] += 1
            return rule(*args)

        monkeypatch.setattr(op, "rule", counting)
        return lambda: calls[0]

    return count


# ----------------------------------------------------------------------------------------------- graph shape


@pytest.mark.parametrize("depth", [10_000, 100_000])
def test_deep_chains(depth):
    x = leaf()
    y = x
    for _ in range(depth):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    del y  # and freeing the chain does not recurse into the ground either
    gc.collect()


def test_each_node_is_walked_once_although_there_are_2_to_the_40_paths(rule_calls):
    calls = rule_calls("add")
    x = leaf()
    y = x
    for _ in range(40):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**40
    assert calls() == 40


def test_a_consumer_made_before_another_path_is_waited_for(rule_calls):
    calls = rule_calls("exp")
    x = leaf(3)
    early = F.exp(x)
    late = early
    for _ in range(5):
        late = F.sin(late)
    (early * late + late).sum().backward()
    e = np.exp(x.data)
    f = lambda v: v * (s5 := _sins(v)) + s5  # noqa: E731
    close(x.grad, (f(e + 1e-6) - f(e - 1e-6)) / 2e-6 * e, 1e-7)
    assert calls() == 1


def _sins(v):
    for _ in range(5):
        v = np.sin(v)
    return v


def test_unused_outputs_and_branches():
    x = leaf(4)
    F.exp(x)  # a branch that leads nowhere
    first, _ = F.split(x, [1, 3])
    first.sum().backward()
    close(x.grad, [1, 0, 0, 0])
    values, indices = F.max(x.detach().requires_grad_(), 0)
    assert values.requires_grad and not indices.requires_grad


def test_several_outputs_of_one_op_meet_in_one_rule(rule_calls):
    calls = rule_calls("reparameterize")
    m, v, e = leaf(2, 3), leaf(2, 3), leaf(2, 3)
    z, kl = F.reparameterize(m, v, e)
    ((z * z).sum() + kl.sum()).backward()
    assert calls() == 1
    close(m.grad, 2 * z.data + m.data)


# --------------------------------------------------------------------------------------------- accumulation


def test_the_same_tensor_in_several_arguments():
    x = leaf(3, 3)
    (x * x + F.matmul(x, x)).sum().backward()
    ones = np.ones((3, 3))
    close(x.grad, 2 * x.data + ones @ x.data.T + x.data.T @ ones)
    q = leaf(1, 1, 4, 2)
    F.scaled_dot_product_attention(q, q, q).sum().backward()
    parts = [minillm.tensor(q.data, requires_grad=True) for _ in range(3)]
    F.scaled_dot_product_attention(*parts).sum().backward()
    close(q.grad, sum(p.grad.data for p in parts))


def test_tied_weights_and_two_backwards_add_up():
    w = leaf(3, 3)
    x = minillm.Tensor(RNG.standard_normal((2, 3)))
    F.matmul(F.matmul(x, w), w.T).sum().backward()
    once = w.grad.data.copy()
    F.matmul(F.matmul(x, w), w.T).sum().backward()
    close(w.grad, 2 * once)


@given(st.lists(st.sampled_from(["square", "double", "shift", "fan", "join"]), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_random_graphs_against_the_chain_rule_forwards(steps):
    """A stack machine of dual numbers: (value, derivative) pushed forward must equal what comes back."""
    x = tensor(0.7, dtype=np.float64, requires_grad=True)
    stack, duals = [x], [(0.7, 1.0)]
    for s in steps:
        t, (v, d) = stack[-1], duals[-1]
        if s == "square":
            stack[-1], duals[-1] = F.sin(t) * t, (math.sin(v) * v, d * (math.cos(v) * v + math.sin(v)))
        elif s == "double":
            stack[-1], duals[-1] = t + t, (2 * v, 2 * d)
        elif s == "shift":
            stack[-1], duals[-1] = F.tanh(t) - 1, (math.tanh(v) - 1, d * (1 - math.tanh(v) ** 2))
        elif s == "fan":
            stack.append(t)
            duals.append((v, d))
        elif len(stack) > 1:
            u, (w, e) = stack.pop(), duals.pop()
            (t, (v, d)) = (stack[-1], duals[-1])
            stack[-1], duals[-1] = t * u, (v * w, v * e + w * d)
    stack[-1].backward()
    assert x.grad.item() == pytest.approx(duals[-1][1], rel=1e-10, abs=1e-12)


# ----------------------------------------------------------------------------------- aliasing, repeatability


def graph_of_sums():
    x, y = leaf(3), leaf(3)
    z = x + y
    w = z + z.reshape(3)
    return x, y, z, w


@pytest.mark.parametrize("create_graph", [False, True])
def test_no_two_gradients_share_memory(create_graph):
    x, y, z, w = graph_of_sums()
    z.retain_grad()
    w.retain_grad()
    seed = minillm.ones(3, dtype=np.float64)
    w.backward(seed, create_graph=create_graph)
    arrays = {n: t.grad.data for n, t in {"x": x, "y": y, "z": z, "w": w}.items()}
    arrays |= {"seed": seed.data, "x data": x.data}
    names = list(arrays)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not np.shares_memory(arrays[a], arrays[b]), f"{a} and {b}"
    with minillm.no_grad():
        x.grad.zero_()
    close(y.grad, [2, 2, 2])


def test_a_broadcast_view_is_not_a_gradient():
    x = leaf(3, 4)
    x.sum().backward()
    assert all(x.grad.data.strides) and x.grad.data.flags.writeable
    x.grad.data[0, 0] = 5
    assert (x.grad.data != 1).sum() == 1


def test_the_gradient_of_a_leaf_that_is_the_output_is_not_the_seed():
    x, seed = leaf(3), tensor([1.0, 2.0, 3.0], dtype=np.float64)
    x.backward(seed)
    assert not np.shares_memory(x.grad.data, seed.data)
    close(x.grad, seed)


def test_functional_gradients_do_not_share_either():
    x, y = leaf(3), leaf(3)
    for create_graph in (False, True):
        a, b = minillm.gradients((x + y).sum(), [x, y], create_graph=create_graph)
        assert not np.shares_memory(a.data, b.data)


def test_inputs_and_cotangents_stay_as_they_are():
    x, seed = leaf(2, 3), minillm.Tensor(RNG.standard_normal((2, 3)))
    before = x.data.tobytes(), seed.data.tobytes()
    out = F.softmax(x * 2 + x, -1)
    kept = out.data.tobytes()
    out.backward(seed, retain_graph=True)
    out.backward(seed)
    assert (x.data.tobytes(), seed.data.tobytes()) == before and out.data.tobytes() == kept


def test_backward_twice_is_the_same_bits():
    minillm.manual_seed(0)
    model = nn.Sequential(nn.Linear(17, 33), nn.LayerNorm(33), nn.GELU(), nn.Dropout(0.3), nn.Linear(33, 5))
    loss = F.cross_entropy(model(minillm.randn(64, 17)), minillm.randint(0, 5, (64,)))
    runs = []
    for _ in range(2):
        model.zero_grad()
        loss.backward(retain_graph=True)
        runs.append([p.grad.data.tobytes() for p in model.parameters()])
    assert runs[0] == runs[1]


# -------------------------------------------------------------------------------------- freed, overwritten


def test_a_second_backward_names_the_op():
    x = leaf(3)
    y = F.exp(x).sum()
    y.backward()
    with pytest.raises(GraphError, match=r"(sum|exp).*retain_graph=True"):
        y.backward()
    y = F.exp(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    close(x.grad, 3 * np.exp(x.data))


def test_saved_arrays_are_freed_by_backward():
    x = leaf(3)
    y = F.exp(x)
    z = (y * 2).sum()
    kept = weakref.ref(y.data)
    del y
    assert kept() is not None
    z.backward()
    assert kept() is None


def test_a_graph_that_is_dropped_frees_its_arrays_at_once():
    x = leaf(3)
    y = F.exp(x)
    kept = weakref.ref(y.data)
    gc.disable()
    try:
        del y
        assert kept() is None  # no reference cycles
    finally:
        gc.enable()


WRITES = {
    "mul_": lambda x: x.mul_(2), "add_": lambda x: x.add_(1), "zero_": lambda x: x.zero_(),
    "copy_": lambda x: x.copy_(3.0),
    "setitem": lambda x: x.__setitem__(0, 5.0), "fill_": lambda x: x.fill_(2.0),
    "a view": lambda x: minillm.Tensor(x.data[1:]).mul_(2),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_a_write_to_a_saved_array_is_an_error_that_says_what_to_do(name):
    x = leaf(3)
    y = (x * x).sum()
    with minillm.no_grad():
        WRITES[name](x)
    with pytest.raises(GraphError, match=r"(?s)mul saved its 'x'.*float64 \(3,\).*written in place.*clone\(\)"):
        y.backward()


def test_a_write_to_a_saved_output_or_one_of_many_inputs_is_an_error():
    x = leaf(3)
    y = F.exp(x)
    with minillm.no_grad():
        y.add_(1)
    with pytest.raises(GraphError, match="exp saved its 'out'"):
        y.sum().backward()
    constant = minillm.ones(3, dtype=np.float64)
    y = x * constant
    constant.add_(1)
    with pytest.raises(GraphError, match="written in place"):
        y.sum().backward()


def test_an_optimizer_step_between_forward_and_backward_is_an_error():
    w = nn.Parameter(np.ones(3, np.float32))
    for make in (lambda p: optim.SGD(p, lr=0.1), lambda p: optim.AdamW(p, lr=0.1)):
        w.grad = minillm.ones(3)
        loss = (w * w).sum()
        make([w]).step()
        with pytest.raises(GraphError, match="mul saved its"):
            loss.backward()


def test_writes_that_harm_nobody_are_fine():
    x = leaf(3)
    with minillm.no_grad():
        x.mul_(2)  # before
    y = (x + 1).sum()  # add saves nothing
    with minillm.no_grad():
        x.mul_(2)
    y.backward()
    z = (x * x).sum()
    z.backward()
    with minillm.no_grad():
        x.mul_(2)  # after
    close(x.grad, 1 + x.data)


def test_recording_in_place_writes_is_refused():
    x = leaf(3)
    for write in (lambda: x.mul_(2), lambda: x.__setitem__(0, 1.0)):
        with pytest.raises(GraphError, match="in-place write"):
            write()
    with pytest.raises(GraphError, match="would not reach value"):
        minillm.ones(3, dtype=np.float64)[0] = x[0]
    y = x * 2
    y += 1  # a new tensor, under the old name
    y.sum().backward()
    close(x.grad, [2, 2, 2])


def test_a_raw_write_is_seen_by_detect_anomaly():
    x = leaf(3)
    with minillm.detect_anomaly():
        y = (x * x).sum()
        x.data[0] = 7
        with pytest.raises(GraphError, match="mul saved its 'x'"):
            y.backward()
        many = F.cat([x, F.exp(x)]) * 2
        many.sum().backward()


# --------------------------------------------------------------------------------------------------- errors


def test_two_devices_in_one_op():
    x = minillm.ones(2, 3)
    for call in (lambda: x + x.to("strict"), lambda: F.matmul(x.to("strict"), x.T), lambda: F.cat([x, x.to("strict")])):
        with pytest.raises(DeviceError, match=r"(?s)different devices \(cpu, strict\).*float32 .* on .*\.to\("):
            call()
    with pytest.raises(DeviceError, match="gradient is on cpu"):
        x.to("strict").requires_grad_().backward(x)
    with pytest.raises(DeviceError, match="no device 'gpu'"):
        minillm.zeros(2, device="gpu")


def test_shapes_that_do_not_fit():
    with pytest.raises(
        ValueError,
        match=r"(?s)add:.*x: float32 \(2, 3\) on cpu.*y: float32 \(2,\) on cpu.*aligns shapes from the right",
    ):
        minillm.ones(2, 3) + minillm.ones(2)
    with pytest.raises(ValueError, match=r"(?s)matmul.*\(2, 3\).*\(2, 3\)"):
        F.matmul(minillm.ones(2, 3), minillm.ones(2, 3))
    with pytest.raises(TypeError, match=r"no argument 'dimm'.*Did you mean 'dim'"):
        minillm.ones(2).sum(dimm=0)
    with pytest.raises(ValueError, match="not one element"):
        leaf(3).backward()
    with pytest.raises(ValueError, match=r"\(2,\), the output \(3,\)"):
        leaf(3).backward(minillm.ones(2))
    with pytest.raises(GraphError, match="does not depend on anything that requires grad"):
        minillm.ones(()).backward()


def test_no_gradient_for_integers():
    with pytest.raises(TypeError, match=r"only floating tensors.*x\.float\(\)"):
        tensor([1, 2], requires_grad=True)
    weight, ids = leaf(4, 2), tensor([1, 1])
    F.embedding(ids, weight).sum().backward()
    close(weight.grad, [[0, 0], [2, 2], [0, 0], [0, 0]])  # a repeated id adds up
    x = leaf(3)
    assert not (x > 0).requires_grad and not x.argmax().requires_grad


def test_a_custom_op_and_its_mistakes():
    @minillm.op
    def cube(x):
        return x * x * x

    x = leaf(3)
    with pytest.raises(GraphError, match=r"cube has no gradient rule.*@cube\.vjp"):
        cube(x)
    with minillm.no_grad():
        close(cube(x), x.data**3)

    @cube.vjp
    def _(dout, x):
        return 3 * x * x * dout

    cube(x).sum().backward()
    close(x.grad, 3 * x.data**2)
    second = minillm.grad(lambda t: minillm.grad(lambda s: cube(s).sum())(t).sum())(x)
    close(second, 6 * x.data)

    @minillm.op
    def total(x, y):
        return (x * y).sum()

    @total.vjp
    def _(dout, x, y):
        return dout * y, dout  # the second has the output's shape

    with pytest.raises(GraphError, match=r"rule of total returned shape \(\) for an input of shape \(3,\)"):
        total(leaf(3), leaf(3)).backward()

    @minillm.op(differentiable=False)
    def ceiling(x):
        return np.ceil(x)

    assert not ceiling(x).requires_grad


def test_extras_without_a_composite_have_no_second_derivative():
    @minillm.op
    def normalised(x):
        size = np.sqrt((x * x).sum(keepdims=True))
        return x / size, {"size": size}

    @normalised.vjp
    def _(dout, out, size):
        return (dout - out * (dout * out).sum(axis=0, keepdims=True)) / size

    x = leaf(3)
    normalised(x).sum().backward()
    assert np.isfinite(x.grad.data).all()
    with pytest.raises(GraphError, match=r"normalised has no second derivative here: its rule uses 'size'.*composite="):
        normalised(x).sum().backward(create_graph=True)


def test_a_rule_that_returns_a_saved_array_does_not_give_it_away():
    @minillm.op
    def dot(x, y):
        return (x * y).sum()

    @dot.vjp
    def _(dout, x, y):
        return y, x  # right for dout = 1, and the arrays of the inputs themselves

    x, y = leaf(3), leaf(3)
    dot(x, y).backward()
    assert not np.shares_memory(x.grad.data, y.data) and not np.shares_memory(y.grad.data, x.data)

    @minillm.op
    def gather(*tensors):
        return sum((t.sum() for t in tensors), np.float64(0))

    @gather.vjp
    def _(dout, tensors):
        return [np.ones_like(t) if i else tensors[1] for i, t in enumerate(tensors)]

    gather(x, y).backward()
    x.grad = None
    gather(x, y).backward()
    assert not np.shares_memory(x.grad.data, y.data)


# ---------------------------------------------------------------------------- hooks, detach, recording on and off


def test_hooks_see_and_change_gradients_and_can_be_removed():
    x = leaf(3)
    seen = []
    y = x * 2
    remove = y.register_hook(lambda g: seen.append(g.data.copy()))
    y.register_hook(lambda g: g * 10)
    (y + y).sum().backward()
    close(seen[0], [2, 2, 2])  # complete: both paths
    close(x.grad, [40, 40, 40])
    remove()
    x.grad = None
    (y * 1).sum()
    assert len(seen) == 1
    with pytest.raises(GraphError, match="register_hook"):
        minillm.ones(2).register_hook(print)


def test_hooks_on_leaves_scalars_and_under_create_graph():
    x = leaf()
    x.register_hook(lambda g: g * 3)
    (x * x).backward()
    assert x.grad.item() == pytest.approx(6 * x.item()) and isinstance(x.grad.data, np.ndarray)
    x.grad = None
    (x * x).backward(create_graph=True)
    x.grad.backward()
    assert x.grad is not None


def test_retain_grad():
    x = leaf(3)
    y = x * x
    y.retain_grad()
    (y * 3).sum().backward()
    close(y.grad, [3, 3, 3])
    plain = x + 1
    plain.sum().backward()
    assert plain.grad is None and plain.is_leaf is False and x.is_leaf


def test_detach_shares_memory_and_stops_gradients():
    x = leaf(3)
    d = x.detach()
    assert d.data is x.data and not d.requires_grad
    (x * d).sum().backward()
    close(x.grad, x.data)
    x.requires_grad = False
    assert not (x * 2).requires_grad
    with pytest.raises(GraphError, match=r"use x\.detach\(\)"):
        (leaf(2) * 2).requires_grad = False


def test_no_grad_as_block_decorator_and_per_thread():
    x = leaf(3)

    @minillm.no_grad()
    def silent(depth):
        return silent(depth - 1) if depth else x * 2

    assert not silent(3).requires_grad and minillm.is_grad_enabled()
    with minillm.no_grad():
        assert not (x * 2).requires_grad
        with minillm.enable_grad():
            assert (x * 2).requires_grad
        other = []
        thread = threading.Thread(target=lambda: other.append((x * 2).requires_grad))
        thread.start()
        thread.join()
        assert other == [True] and not minillm.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), minillm.no_grad():
        raise ZeroDivisionError
    assert minillm.is_grad_enabled()


def test_threads_build_and_walk_their_own_graphs():
    def work(k, results):
        x = tensor(np.full(4, float(k)), requires_grad=True)
        for _ in range(50):
            y = x
            for _ in range(20):
                y = y * 1.0 + x
            y.sum().backward()
        results[k] = x.grad.data.copy()

    results: dict = {}
    threads = [threading.Thread(target=work, args=(k, results)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all((results[k] == 50 * 21).all() for k in range(4))


# ------------------------------------------------------------------------------------------ higher derivatives


def test_create_graph_records_inside_no_grad_too():
    x = leaf(3)
    y = (x * x * x + F.exp(x) * x).sum()
    with minillm.no_grad():
        (g,) = minillm.gradients(y, [x], create_graph=True)
    (second,) = minillm.gradients(g.sum(), [x])
    close(second, 6 * x.data + np.exp(x.data) * (x.data + 2))


def test_orders_1_to_5_of_a_power():
    x = tensor(1.7, dtype=np.float64, requires_grad=True)
    y = x**5
    factor = 1.0
    for n in range(1, 6):
        (y,) = minillm.gradients(y, [x], create_graph=True)
        factor *= 6 - n
        assert y.item() == pytest.approx(factor * 1.7 ** (5 - n), rel=1e-13)


def test_create_graph_through_backward_adds_differentiable_gradients():
    x = leaf(3)
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    first = x.grad
    x.grad = None
    (first * first).sum().backward()
    close(x.grad, 2 * 3 * x.data**2 * 6 * x.data, 1e-10)


def test_second_derivatives_of_softmax_compositions():
    x, u, v = leaf(5), RNG.standard_normal(5), RNG.standard_normal(5)
    f = lambda t: (F.log(F.softmax(F.softmax(t, 0) * 3, 0)) * tensor(u, dtype=np.float64)).sum()  # noqa: E731
    product = minillm.hvp(f, x, tensor(v, dtype=np.float64))[1]
    h = 1e-5
    up, down = (minillm.grad(f)(minillm.Tensor(x.data + s * h * v)).data for s in (1, -1))
    close(product, (up - down) / (2 * h), 1e-8)


@pytest.mark.parametrize("name", ["layer_norm", "gelu", "scaled_dot_product_attention", "cross_entropy"])
def test_fused_ops_have_hessians_that_are_symmetric(name):
    functions = {
        "layer_norm": lambda t: (F.layer_norm(t, 4) ** 3).sum(), "gelu": lambda t: F.gelu(t).sum(),
        "scaled_dot_product_attention": lambda t: (F.scaled_dot_product_attention(t, t, t, is_causal=True) ** 2).sum(),
        "cross_entropy": lambda t: F.cross_entropy(t, tensor([1, 0])),
    }  # fmt: skip
    H = minillm.hessian(functions[name])(leaf(2, 4)).numpy().reshape(8, 8)
    close(H, H.T, 1e-10)
    assert np.abs(H).max() > 1e-3


# ---------------------------------------------------------------------------------------------- checkpoint


def model_and_input():
    minillm.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    return model, minillm.randn(5, 4, requires_grad=True)


def bits_of(run):
    minillm.manual_seed(7)
    model, x = model_and_input()
    minillm.manual_seed(7)
    out = run(model, x)
    (out * out).sum().backward()
    return [
        out.data.tobytes(),
        x.grad.data.tobytes(),
        *[p.grad.data.tobytes() for p in model.parameters()],
    ], minillm.get_rng_state()


def test_checkpoint_gives_the_same_bits_with_dropout_inside():
    plain = bits_of(lambda m, x: m(x))
    assert bits_of(lambda m, x: minillm.checkpoint(m, x)) == plain  # parameters come through the closure
    inner = lambda m, x: minillm.checkpoint(lambda t: minillm.checkpoint(m, t), x)  # noqa: E731
    assert bits_of(inner) == plain
    two = lambda m, x: minillm.checkpoint(m[4], minillm.checkpoint(lambda t: m[3](m[2](m[1](m[0](t)))), x))  # noqa: E731
    assert bits_of(two) == plain


def test_checkpoint_keeps_the_inputs_only():
    x = leaf(3)
    inside = []

    def function(t):
        y = F.exp(t)
        inside.append(weakref.ref(y.data))
        return y * y

    out = minillm.checkpoint(function, x)
    assert inside[0]() is None
    out.sum().backward()
    close(x.grad, 2 * np.exp(2 * x.data))
    assert len(inside) == 2


def test_derivatives_of_order_2_and_3_go_through_a_checkpoint():
    x = leaf(4)
    f = lambda t: (F.softmax(t, 0) ** 2).sum()  # noqa: E731
    close(minillm.hessian(lambda t: minillm.checkpoint(f, t))(x), minillm.hessian(f)(x))
    third = lambda g: minillm.jacobian(minillm.hessian(g))(x)  # noqa: E731
    close(third(lambda t: minillm.checkpoint(f, t)), third(f))


def test_checkpoint_corner_cases():
    x = leaf(3)
    minillm.checkpoint(lambda t: t, x).sum().backward()
    close(x.grad, [1, 1, 1])
    with minillm.no_grad():
        assert not minillm.checkpoint(F.exp, x).requires_grad
    constant = minillm.checkpoint(F.exp, minillm.ones(2))
    assert not constant.requires_grad
    with pytest.raises(TypeError, match="must return one Tensor"):
        minillm.checkpoint(lambda t: (t, t), x)
    out = minillm.checkpoint(lambda t: t * t, x)
    with minillm.no_grad():
        x.mul_(2)
    with pytest.raises(GraphError, match="written in place"):
        out.sum().backward()
    y = x * 2  # an input that is no leaf, used outside as well
    x.grad = None
    (minillm.checkpoint(lambda t: t * t, y) + y).sum().backward()
    close(x.grad, 2 * (2 * 2 * x.data + 1))


# ------------------------------------------------------------------------------------------------- anomaly mode


def test_anomaly_names_op_shapes_and_line():
    x = tensor([1.0, -1.0], requires_grad=True)
    with minillm.detect_anomaly(), pytest.raises(minillm.AnomalyError) as caught, np.errstate(invalid="ignore"):
        F.log(x)
    text = str(caught.value)
    assert "log made the first NaN" in text and "float32 (2,)" in text and "test_engine.py:" in text and "-1" in text
    line = int(text.split("test_engine.py:")[1].split(",")[0])
    with open(__file__) as file:
        assert "F.log(x)" in file.readlines()[line - 1]


def test_anomaly_names_the_rule_and_the_forward_line():
    x = tensor([0.0, 1.0], requires_grad=True)
    with minillm.detect_anomaly(), np.errstate(invalid="ignore", divide="ignore"):
        y = F.sqrt(x) * 0
        with pytest.raises(
            minillm.AnomalyError, match=r"gradient rule of sqrt made the first NaN.*'x'.*test_engine\.py:\d+"
        ):
            y.sum().backward()
    with (
        minillm.detect_anomaly(check_inf=True),
        np.errstate(divide="ignore"),
        pytest.raises(minillm.AnomalyError, match="infinity"),
    ):
        1 / x
    with minillm.detect_anomaly(), np.errstate(invalid="ignore"):
        F.exp(tensor([float("nan")]))  # came in, was not made here


# ----------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    "other",
    [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.arange(1, 4), tensor([1, 2, 3]), np.array(2.0)],
)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum", "where"])
def test_float32_stays_float32(name, other):
    x = tensor([1.0, 2.0, 3.0], requires_grad=True)
    f = (lambda a, b: F.where(x.detach() > 1, a, b)) if name == "where" else getattr(F, name)
    for out in (f(x, other), f(other, x)):
        assert out.dtype == np.float32
        x.grad = None
        out.sum().backward()
        assert x.grad.dtype == np.float32 and x.grad.shape == x.shape


def test_gradients_have_the_inputs_dtype():
    single, double = leaf(3, dtype=np.float32), leaf(3)
    (single * double).sum().backward()
    assert single.grad.dtype == np.float32 and double.grad.dtype == np.float64
    half = tensor([1.0, 2.0], dtype=np.float16, requires_grad=True)
    (half * half).sum().backward()
    assert half.grad.dtype == np.float16
    x = leaf(3, dtype=np.float32)
    x.double().sum().backward()
    assert x.grad.dtype == np.float32


@given(
    st.sampled_from(["()", "(1,)", "(0,)", "(2, 1)", "(2, 0, 3)"]), st.sampled_from([(0,), (1,), (2, 3), (2, 0, 3), ()])
)
@settings(max_examples=30, deadline=None)
def test_broadcasting_sums_back_to_the_operands_shape(a, b):
    a = eval(a)
    try:
        out = np.broadcast_shapes(a, b)
    except ValueError:
        return
    x, y = minillm.Tensor(np.full(a, 2.0), requires_grad=True), minillm.Tensor(np.full(b, 3.0), requires_grad=True)
    (x * y).backward(minillm.ones(out, dtype=np.float64))
    count = lambda s: np.prod(out) / np.prod(s) if np.prod(s) else 0  # noqa: E731
    close(x.grad, np.full(a, 3.0 * count(a)))
    close(y.grad, np.full(b, 2.0 * count(b)))


# ------------------------------------------------------------------------------- bugs that happened elsewhere


def test_pow_has_a_gradient_for_its_exponent_and_no_log_of_a_negative_base():
    x, n = tensor([2.0, -2.0], requires_grad=True), tensor(3.0, requires_grad=True)
    (x[:1] ** n).sum().backward()
    assert n.grad.item() == pytest.approx(8 * math.log(2), rel=1e-6)
    x.grad = None
    (x**2).sum().backward()
    close(x.grad, [4, -4])
    zero = tensor([0.0], requires_grad=True)
    (zero**2).sum().backward()
    (zero**0).sum().backward()
    close(zero.grad, [0])


def test_where_lets_no_nan_through_from_the_branch_not_taken():
    x = tensor([-1.0, 4.0], requires_grad=True)
    F.where(x > 0, F.log(F.where(x > 0, x, 1.0)), x).sum().backward()
    close(x.grad, [1, 0.25], 1e-6)
    x.grad = None
    nan = tensor([float("nan"), 1.0], requires_grad=True)
    (F.where(tensor([False, True]), nan, x) ** 2).sum().backward()
    close(x.grad, [-2, 0])
    close(nan.grad, [0, 2])


def test_repeated_indices_add_up_and_ties_share():
    x = leaf(3)
    x[[0, 0, 2]].sum().backward()
    close(x.grad, [2, 0, 1])
    tied = tensor([1.0, 3.0, 3.0], requires_grad=True)
    tied.amax().backward()
    close(tied.grad, [0, 0.5, 0.5])
    F.relu(zero := tensor([0.0], requires_grad=True)).backward()
    assert zero.grad.item() == 0
    F.norm(origin := minillm.zeros(3, requires_grad=True)).backward()
    close(origin.grad, [0, 0, 0])


def test_cancellation():
    x = tensor(np.arange(40000, 40016, dtype=np.float32))
    assert x.var().item() == pytest.approx(np.arange(16).var(ddof=1), rel=1e-5)
    many = minillm.full((65_536,), 0.1)
    assert many.mean().item() == pytest.approx(0.1, rel=1e-6)
