"""What the table of cases does not show: dropout's statistics, embedding's padding row, settings that cannot be."""

import numpy as np
import pytest

from minillm import Tensor, checkpoint, manual_seed, nn, ones, randn


def test_dropout_keeps_the_expectation_and_its_gradient_has_the_same_mask():
    manual_seed(0)
    x = ones(200, 200, requires_grad=True)
    y = nn.Dropout(0.25)(x)
    dropped = y.numpy() == 0
    n, p = dropped.size, 0.25
    assert abs(dropped.mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    np.testing.assert_allclose(y.numpy()[~dropped], 1 / 0.75, rtol=1e-6)
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), y.numpy())
    assert not np.array_equal(nn.Dropout(0.25)(x).numpy(), y.numpy())
    with pytest.raises(ValueError, match=r"0 <= p <= 1; got 1\.5"):
        nn.Dropout(1.5)


def test_the_padding_row_starts_at_zero_and_stays():
    table = nn.Embedding(4, 3, padding_idx=1)
    out = table(np.array([[1, 0], [1, 1]]))
    assert not out.numpy()[1].any()
    (out + 1).sum().backward()
    assert not table.weight.grad.numpy()[1].any()
    assert (table.weight.grad.numpy()[0] == 1).all()
    with pytest.raises(ValueError, match="outside the 4 rows"):
        nn.Embedding(4, 3, padding_idx=4)


class Twice(nn.ReLU):
    """Not the activation that its parent is."""

    def forward(self, x):
        return 2 * x


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), Twice()], ids=lambda m: repr(m)
)
def test_sequential_gives_what_its_modules_give_one_by_one(activation):
    manual_seed(0)
    first, last = nn.Linear(5, 7), nn.Linear(7, 3)
    model = nn.Sequential(nn.Linear(4, 5), first, activation, nn.Linear(7, 7), activation, last, activation)
    x = randn(6, 4)
    y = x
    for module in model:
        y = module(y)
    out = model(x)
    np.testing.assert_allclose(out.numpy(), y.numpy(), rtol=1e-5, atol=1e-6)
    c = randn(6, 3)
    (out * c).sum().backward()
    got = first.weight.grad
    model.zero_grad()
    (y * c).sum().backward()
    np.testing.assert_allclose(got.numpy(), first.weight.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_an_activation_whose_setting_changes():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.GELU())
    x = ones(1, 2)
    model[0].weight.data[...] = 1
    exact = model(x).numpy()
    model[1].approximate = "tanh"
    assert (model(x).numpy() != exact).all() and np.allclose(model(x).numpy(), exact, atol=1e-3)


def test_settings_of_losses_are_checked_when_they_are_made():
    with pytest.raises(ValueError, match="reduction is one of none, mean, sum; got 'average'"):
        nn.MSELoss("average")
    with pytest.raises(ValueError, match="got 'batchmean'"):
        nn.L1Loss("batchmean")
    assert nn.KLDivLoss("batchmean").reduction == "batchmean"


def test_the_weights_of_a_loss_move_with_it_and_are_not_trained():
    loss = nn.CrossEntropyLoss(weight=np.array([1.0, 2.0], np.float32))
    assert list(loss.parameters()) == []
    assert list(loss.state_dict()) == ["weight"]
    assert loss.double().weight.dtype == np.float64
    value = loss(Tensor(np.zeros((2, 2))), np.array([0, 1]))
    assert value.item() == pytest.approx(np.log(2))


def test_identity_ignores_its_settings_and_flatten_its_batch():
    x = randn(2, 3, 4)
    assert nn.Identity(54, key=1)(x) is x
    assert nn.Flatten()(x).shape == (2, 12)
    assert nn.Flatten(0)(x).shape == (24,)


def test_a_checkpointed_block_has_the_same_gradients_bit_by_bit():
    block = nn.TransformerBlock(8, 2, dropout=0.2)
    x = randn(2, 5, 8)
    gradients = []
    for run in (block, lambda t: checkpoint(block, t)):
        manual_seed(1)
        block.zero_grad()
        t = Tensor(x.data, requires_grad=True)
        (run(t) * x).sum().backward()
        gradients.append([p.grad.numpy() for p in (t, *block.parameters())])
    assert all(np.array_equal(a, b) for a, b in zip(*gradients))
