"""Losses at the ends of their range, with rows that do not count, and with arguments that do not fit."""

import numpy as np
import pytest

from minillm import functional as F
from minillm import tensor

PAIRS = ["mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy", "kl_div"]
PAIRS += ["binary_cross_entropy_with_logits"]


def _param(values, dtype=np.float64):
    return tensor(np.array(values, dtype), requires_grad=True)


# ------------------------------------------------------------------------------------- cross-entropy


def test_closed_forms():
    assert np.isclose(F.cross_entropy(np.zeros((2, 8)), np.array([3, 5])), np.log(8))
    assert np.isclose(F.cross_entropy(np.array([0.0, 0.0]), np.array(1)), np.log(2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_ten_thousand(dtype):
    x = _param([[1e4, 0, -1e4], [1e4, 0, -1e4]], dtype)
    loss = F.cross_entropy(x, np.array([0, 1]))
    loss.backward()
    assert loss.item() == 5000 and loss.dtype == x.grad.dtype == dtype
    np.testing.assert_allclose(x.grad.data, [[0, 0, 0], [0.5, -0.5, 0]], atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_might_as_well_not_be_there(smoothing, weighted):
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((6, 4)), np.array([1, -100, 3, 0, -100, 2])
    settings = {"label_smoothing": smoothing, "weight": rng.random(4) + 0.5 if weighted else None}
    kept = target != -100
    x[1] = np.nan  # nor does it matter what they hold
    whole, part = _param(x), _param(x[kept])
    a, b = F.cross_entropy(whole, target, **settings), F.cross_entropy(part, target[kept], **settings)
    a.backward()
    b.backward()
    np.testing.assert_allclose(a.item(), b.item(), rtol=1e-12)
    np.testing.assert_allclose(whole.grad.data[kept], part.grad.data, rtol=1e-12)
    assert not whole.grad.data[~kept].any()
    rows = F.cross_entropy(x, target, reduction="none", **settings)
    assert rows.shape == (6,) and not rows[~kept].any() and rows[kept].all()


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("weight", [None, np.ones(3)])
@pytest.mark.parametrize("shape", [(4,), (0,)])
def test_if_no_row_counts_the_loss_is_zero(name, weight, shape):
    x = _param(np.ones((*shape, 3)))
    loss = getattr(F, name)(x, np.full(shape, -100), weight=weight)
    loss.backward()
    assert loss.item() == 0 and not x.grad.data.any()


def test_the_weighted_mean_divides_by_the_weights():
    x, weight = np.zeros((3, 2)), np.array([1.0, 3.0])
    assert np.isclose(F.cross_entropy(x, np.array([0, 1, 1]), weight=weight), np.log(2))


def test_a_class_masked_with_minus_infinity():
    x = _param([[0.0, -np.inf, 0.0]])
    for create_graph in (False, True):
        x.grad = None
        loss = F.cross_entropy(x, np.array([0]))
        loss.backward(create_graph=create_graph)
        assert np.isclose(loss.item(), np.log(2))
        np.testing.assert_allclose(x.grad.data, [[-0.5, 0, 0.5]])


def test_class_ids_and_their_one_hot_probabilities_agree():
    rng = np.random.default_rng(0)
    x, ids = rng.standard_normal((3, 5, 2)), rng.integers(0, 5, (3, 2))
    target = np.moveaxis(np.eye(5)[ids], -1, 1)
    for settings in ({}, {"label_smoothing": 0.2}, {"reduction": "none"}, {"reduction": "sum"}):
        by_id = F.cross_entropy(x, ids, **settings)
        np.testing.assert_allclose(F.cross_entropy(x, target, **settings), by_id, rtol=1e-12)


@pytest.mark.parametrize("ids_dtype", [np.int32, np.uint8, np.int64])
def test_every_integer_dtype_is_a_target(ids_dtype):
    x = _param([[0.0, 1.0], [2.0, 0.0]], np.float32)
    loss = F.cross_entropy(x, tensor(np.array([1, 0], ids_dtype)))
    loss.backward()
    assert loss.dtype == np.float32


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_wrong_targets_are_named(name):
    x, loss = tensor(np.zeros((2, 3))), getattr(F, name)
    for bad in (3, -1, 10**10):
        with pytest.raises(IndexError, match=rf"target {bad} "):
            loss(x, np.array([0, bad]))
    with pytest.raises(ValueError, match=r"must be \(2,\)"):
        loss(x, np.array([[0], [1]]))
    with pytest.raises((TypeError, ValueError), match="integer"):
        loss(x, np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="each class"):
        loss(x, np.array([0, 1]), weight=np.ones(2))
    with pytest.raises(ValueError, match="constant"):
        loss(x, np.array([0, 1]), weight=_param(np.ones(3)))


@pytest.mark.parametrize("target", [np.array([0]), np.array([[0.5, 0.5]])])
@pytest.mark.parametrize("smoothing", [-0.1, 1.1])
def test_label_smoothing_is_a_share(target, smoothing):
    with pytest.raises(ValueError, match="label_smoothing"):
        F.cross_entropy(np.zeros((1, 2)), target, label_smoothing=smoothing)


# -------------------------------------------------------------------------------- binary cross-entropy


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_of_saturated_probabilities(dtype):
    p, y = _param([0.0, 1.0, 0.0, 1.0], dtype), _param([0.0, 1.0, 1.0, 0.0], dtype)
    loss = F.binary_cross_entropy(p, y, reduction="none")
    assert loss.tolist() == [0, 0, 100, 100] and loss.dtype == dtype
    loss.sum().backward()
    np.testing.assert_allclose(p.grad.data, [0, 0, -1e12, 1e12])  # steep, but numbers
    np.testing.assert_allclose(y.grad.data, [100, -100, 100, -100])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pos_weight", [None, [3.0]])
def test_binary_cross_entropy_of_logits_of_a_thousand(dtype, pos_weight):
    x, y = _param([1000, 1000, -1000, -1000], dtype), np.array([1, 0, 1, 0], dtype)
    w = 1 if pos_weight is None else 3
    settings = {} if pos_weight is None else {"pos_weight": np.array(pos_weight, dtype)}
    loss = F.binary_cross_entropy_with_logits(x, y, reduction="none", **settings)
    assert loss.tolist() == [0, 1000, 1000 * w, 0] and loss.dtype == dtype
    loss.sum().backward()
    assert x.grad.tolist() == [0, 1, -w, 0] and x.grad.dtype == dtype


def test_the_two_binary_cross_entropies_agree():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3)), rng.random((4, 3))
    a, b = F.binary_cross_entropy_with_logits(x, y), F.binary_cross_entropy(1 / (1 + np.exp(-x)), y)
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_small_losses_keep_their_digits():
    x = np.array([-20.0], np.float32)
    np.testing.assert_allclose(F.binary_cross_entropy_with_logits(x, x * 0), np.exp(-20.0), rtol=1e-6)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_probabilities_outside_their_range(bad):
    with pytest.raises(ValueError, match="binary_cross_entropy_with_logits"):
        F.binary_cross_entropy(_param([0.5, bad]), np.array([0.0, 1.0]))


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_factors_do_not_enlarge_the_loss(name):
    x = _param(np.zeros((3, 1)))
    with pytest.raises(ValueError, match=rf"{name} of shape \(1, 4\)"):
        F.binary_cross_entropy_with_logits(x, x.data, **{name: np.ones((1, 4))})
    with pytest.raises(ValueError, match="constant"):
        F.binary_cross_entropy_with_logits(x, x.data, **{name: _param(np.ones((3, 1)))})


# ------------------------------------------------------------------------------------ all the others


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_where_the_target_is_zero(log_target):
    log_q = _param([[np.log(0.5), np.log(0.5)]])
    target = _param([[0.0, -np.inf]] if log_target else [[1.0, 0.0]])
    loss = F.kl_div(log_q, target, reduction="batchmean", log_target=log_target)
    loss.backward()
    assert np.isclose(loss.item(), np.log(2))
    np.testing.assert_allclose(log_q.grad.data, [[-1, 0]])
    assert np.isfinite(target.grad.data).all() and target.grad.data[0, 1] == 0


def test_l1_and_huber_where_the_difference_is_zero():
    for name in ("l1_loss", "huber_loss", "smooth_l1_loss"):
        x = _param([1.0, 2.0])
        getattr(F, name)(x, np.array([1.0, 2.0])).backward()
        assert x.grad.tolist() == [0, 0]


def test_huber_meets_its_line_smoothly():
    x = _param([0.5, 0.5 + 1e-9, 100.0, -100.0])
    loss = F.huber_loss(x, np.zeros(4), reduction="none", delta=0.5)
    loss.sum().backward()
    np.testing.assert_allclose(loss.data, [0.125, 0.125, 49.875, 49.875])
    np.testing.assert_allclose(x.grad.data, [0.5, 0.5, 0.5, -0.5])
    with pytest.raises(ValueError, match="delta"):
        F.huber_loss(x, np.zeros(4), delta=0)


@pytest.mark.parametrize("name", [*PAIRS, "cross_entropy", "nll_loss"])
def test_float32_means_of_many_values(name):
    rng = np.random.default_rng(0)
    if name in ("cross_entropy", "nll_loss"):
        x, y = -rng.random((65_536, 2)).astype(np.float32), rng.integers(0, 2, 65_536)
    else:
        x, y = (rng.uniform(0.05, 0.95, 65_536).astype(np.float32) for _ in range(2))
    wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in (x, y)]
    exact = float(getattr(F, name)(*wide, reduction="sum"))
    loss = getattr(F, name)(tensor(x), y, reduction="sum")
    assert loss.dtype == np.float32
    assert abs(loss.item() - exact) < 1e-6 * abs(exact)
    assert abs(getattr(F, name)(tensor(x), y, reduction="mean").item() - exact / 65_536) < 1e-6 * abs(exact) / 65_536


@pytest.mark.parametrize("name", PAIRS)
def test_integer_and_bool_targets_keep_the_inputs_dtype(name):
    for target in (np.array([0, 1]), np.array([False, True]), tensor(np.array([0, 1]))):
        x = _param([0.25, 0.5], np.float32)
        loss = getattr(F, name)(x, target, reduction="sum")
        loss.backward()
        assert loss.dtype == x.grad.dtype == np.float32
        plain = getattr(F, name)(x.data, target.data if hasattr(target, "node") else target, reduction="none")
        assert plain.dtype == np.float32


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_broadcasts(name):
    with pytest.raises(ValueError, match=r"input has shape \(3, 1\) but target \(3,\)"):
        getattr(F, name)(tensor(np.full((3, 1), 0.5)), np.full(3, 0.5))


@pytest.mark.parametrize("name", [*PAIRS, "cross_entropy", "nll_loss"])
def test_a_wrong_reduction_gets_the_nearest_right_one(name):
    target = np.array([0]) if name in ("cross_entropy", "nll_loss") else np.full((1, 2), 0.5)
    with pytest.raises(ValueError, match="Did you mean 'mean'"):
        getattr(F, name)(tensor(np.full((1, 2), 0.5)), target, reduction="meen")


@pytest.mark.parametrize("name", PAIRS)
def test_a_list_is_not_an_array(name):
    with pytest.raises(TypeError, match="target must be a tensor or an array"):
        getattr(F, name)(tensor([0.5]), [0.5])


@pytest.mark.parametrize("name", PAIRS)
def test_a_target_that_learns(name):
    x, y = _param([[0.2, 0.6]]), _param([[0.4, 0.3]])
    getattr(F, name)(x, y).backward()
    assert np.isfinite(y.grad.data).all() and y.grad.data.all()


@pytest.mark.oracle
def test_saturated_gradients_are_pytorchs():
    torch = pytest.importorskip("torch")
    p, y = [0.0, 1.0, 0.0, 1.0, 0.3, 1e-14], [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    a, b = _param(p), torch.tensor(p, dtype=torch.float64, requires_grad=True)
    F.binary_cross_entropy(a, np.array(y)).backward()
    torch.nn.functional.binary_cross_entropy(b, torch.tensor(y, dtype=torch.float64)).backward()
    np.testing.assert_allclose(a.grad.data, b.grad.numpy(), rtol=1e-7)  # its 1e-12 is a float32
