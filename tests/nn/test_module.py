"""Module: what it finds, saves, loads, moves; what it says when something is wrong."""

import copy

import numpy as np
import pytest

from minillm import GraphError, Tensor, nn, randn, tensor


class Tied(nn.Module):
    def __init__(self):
        self.table = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("count", np.array(7))
        self.register_buffer("scratch", np.zeros(2, np.float32), persistent=False)

    def forward(self, ids):
        return self.head(self.table(ids))


def small():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2)))


def snapshot(model):
    return {k: v.copy() for k, v in model.state_dict().items()}


# ------------------------------------------------------------------------------------------- finding things


def test_names_are_dotted_paths_in_order():
    model = small()
    names = ["0.weight", "0.bias", "2.0.weight", "2.0.bias"]
    assert [n for n, _ in model.named_parameters()] == names
    assert [n for n, _ in model.named_modules()] == ["", "0", "1", "2", "2.0"]
    assert [type(m).__name__ for m in model.children()] == ["Linear", "ReLU", "Sequential"]
    assert model.num_parameters() == sum(p.numel() for p in model.parameters()) == 26


def test_a_tied_parameter_counts_once_and_is_saved_once():
    model = Tied()
    assert [n for n, _ in model.named_parameters()] == ["table.weight"]
    assert [n for n, _ in model.named_parameters(remove_duplicate=False)] == ["table.weight", "head.weight"]
    assert model.num_parameters() == 15
    assert list(model.state_dict()) == ["table.weight", "count"]
    model(np.array([1, 2])).sum().backward()
    assert model.table.weight.grad is model.head.weight.grad


def test_a_missing_attribute_is_an_error_that_names_the_nearest():
    layer = nn.Linear(2, 2)
    with pytest.raises(AttributeError, match=r"Linear has no attribute 'wieght'\. Did you mean 'weight'\?"):
        _ = layer.wieght
    assert not hasattr(layer, "nothing_like_it")


def test_a_list_of_modules_is_refused_and_a_module_list_found():
    class Model(nn.Module):
        def __init__(self, container):
            self.layers = container([nn.Linear(2, 2), nn.Linear(2, 2)])

    with pytest.raises(TypeError, match="use ModuleList"):
        Model(list)
    assert Model(nn.ModuleList).num_parameters() == 12
    assert Model(tuple).num_parameters() == 0


def test_a_parameter_is_not_silently_replaced_by_a_tensor():
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"Linear\.weight is a Parameter"):
        layer.weight = layer.weight * 2
    layer.weight = nn.Parameter(np.ones((2, 2), np.float32))
    layer.bias = None
    assert layer(tensor([1.0, 2.0])).tolist() == [3.0, 3.0]


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="ModuleList has no forward"):
        nn.ModuleList([nn.ReLU()])(tensor([1.0]))


def test_parameters_can_be_trained_in_place_whatever_array_they_are_made_of():
    frozen = np.ones((2, 3), np.float32)
    frozen.flags.writeable = False
    for data in (frozen, np.ones((3, 2), np.float32).T, np.array(2.0)):
        p = nn.Parameter(data)
        assert p.data.flags.c_contiguous
        assert p.data.flags.writeable
        assert p.shape == data.shape
        assert p.dtype == data.dtype
    own = np.ones(3)
    assert nn.Parameter(own).data is own
    with pytest.raises(TypeError, match="only floating"):
        nn.Parameter([1, 2])


# --------------------------------------------------------------------------------------------- containers


def test_sequential_is_indexed_sliced_and_iterated():
    model = small()
    assert len(model) == 3
    assert model[-1] is model[2] is list(model)[2]
    assert model[:2][0] is model[0]
    assert len(model[1:]) == 2
    with pytest.raises(IndexError, match="index 3 of a Sequential of 3"):
        model[3]
    model[1] = nn.Tanh()
    assert isinstance(model[1], nn.Tanh)
    assert [n for n, _ in model.named_modules()][2] == "1"
    x = randn(5, 3)
    assert np.array_equal(model(x).numpy(), model[2](model[1](model[0](x))).numpy())
    with pytest.raises(TypeError, match="as arguments, not as a list"):
        nn.Sequential([nn.ReLU()])


def test_one_module_twice_in_a_sequence_runs_twice():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, layer)
    x = randn(1, 2)
    assert np.array_equal(model(x).numpy(), layer(layer(x)).numpy())
    assert model.num_parameters() == 6


# -------------------------------------------------------------------------------------------- state dicts


def test_state_dict_is_a_copy_and_loads_back_to_the_same_bits():
    model, other = small(), small()
    state = model.state_dict()
    assert other.load_state_dict(state) == ([], [])
    x = randn(4, 3)
    assert np.array_equal(model(x).numpy(), other(x).numpy())
    owners = [id(a.base if a.base is not None else a) for a in state.values()]
    assert len(set(owners)) == len(owners)
    for a in state.values():
        a[...] = 0
    assert model[0].weight.numpy().any()
    assert other[0].weight.numpy().any()


def test_loading_keeps_parameter_objects_and_their_memory():
    model = small()
    parameters = list(model.parameters())
    arrays = [p.data for p in parameters]
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    assert all(a is b for a, b in zip(parameters, model.parameters()))
    assert all(p.data is a for p, a in zip(parameters, arrays))


def test_nothing_is_loaded_unless_everything_fits():
    model = small()
    before = snapshot(model)
    state = {k: v + 1 for k, v in before.items()}
    state["0.wieght"] = state.pop("0.weight")
    state["2.0.weight"] = state["2.0.weight"].T
    state["2.0.bias"] = np.array([1, 2])
    with pytest.raises(ValueError) as error:
        model.load_state_dict(state)
    text = str(error.value)
    assert "0.weight: missing. Did you mean '0.wieght'?" in text
    assert "0.wieght: unexpected, there is no such name here. Did you mean '0.weight'?" in text
    assert "2.0.weight: given shape (4, 2), expected (2, 4) (is it transposed?)" in text
    assert "2.0.bias: given int64, expected float32" in text
    after = model.state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_not_strict_loads_what_is_there_and_reports_the_rest():
    model = small()
    report = model.load_state_dict({"0.bias": np.full(4, 9.0), "extra": np.zeros(1)}, strict=False)
    assert report.missing_keys == ["0.weight", "2.0.weight", "2.0.bias"]
    assert report.unexpected_keys == ["extra"]
    assert model[0].bias.tolist() == [9.0] * 4
    assert model[0].bias.dtype == np.float32
    with pytest.raises(ValueError, match=r"0\.bias: given shape \(3,\), expected \(4,\)"):
        model.load_state_dict({"0.bias": np.zeros(3)}, strict=False)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full(2, 1e300), "values that float32 cannot hold"),
        (np.ones(2, np.complex64), "given complex64, expected float32"),
        ([1.0, 2.0], "given list, expected an array or a Tensor"),
    ],
)
def test_values_that_a_parameter_cannot_hold_are_refused(value, message):
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=message):
        layer.load_state_dict({"weight": np.zeros((2, 2)), "bias": value})


def test_infinite_and_tensor_values_load_and_integer_buffers_must_fit():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": Tensor([[1.0, 2.0]]), "bias": np.array([np.inf])})
    assert layer.bias.tolist() == [np.inf]
    model = Tied()
    model.load_state_dict({"count": np.array(3, np.int32)}, strict=False)
    assert model.count.item() == 3
    assert model.count.dtype == np.int64


@pytest.mark.parametrize("name", ["table.weight", "head.weight"])
def test_a_tied_weight_loads_under_any_of_its_names(name):
    model = Tied()
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    model.load_state_dict({name: values, "count": np.array(1)})
    assert np.array_equal(model.head.weight.numpy(), values)
    model.load_state_dict({"table.weight": values, "head.weight": values, "count": np.array(1)})
    with pytest.raises(ValueError, match="one tied weight here"):
        model.load_state_dict({"table.weight": values, "head.weight": values + 1, "count": np.array(1)})


def test_a_graph_older_than_a_load_refuses_to_go_back():
    layer = nn.Linear(2, 2)
    loss = layer(randn(1, 2).requires_grad_()).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(GraphError, match="written in place"):
        loss.backward()


# ---------------------------------------------------------------------------------------- modes and moves


def test_train_and_eval_reach_every_module():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    x = randn(100)
    assert (model(x).numpy() == 0).any()
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert np.array_equal(model(x).numpy(), x.numpy())
    model.train()
    assert all(m.training for m in model.modules())


def test_to_keeps_parameters_and_converts_floats_only():
    model = Tied()
    weight = model.table.weight
    model(np.array([1])).sum().backward()
    assert model.double() is model
    assert model.table.weight is model.head.weight is weight
    assert weight.dtype == weight.grad.dtype == model.scratch.dtype == np.float64
    assert model.count.dtype == np.int64
    model.zero_grad()
    out = model(np.array([1, 2]))
    assert out.dtype == np.float64
    out.sum().backward()
    assert weight.grad.dtype == np.float64
    data = weight.data
    assert model.to("cpu").table.weight.data is data
    with pytest.raises(TypeError, match="parameters are floating"):
        model.to(np.int64)


def test_zero_grad_and_freezing():
    model = small()
    model[0].requires_grad_(False)
    model(randn(2, 3)).sum().backward()
    assert model[0].weight.grad is None
    assert model[2][0].weight.grad is not None
    assert model.num_parameters(trainable_only=True) == 10
    model.zero_grad(set_to_none=False)
    assert not model[2][0].weight.grad.numpy().any()
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_apply_visits_children_first():
    seen = []
    small().apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Sequential"]


def test_a_deep_copy_is_independent_and_trains():
    model = small()
    model(randn(2, 3)).sum().backward()
    twin = copy.deepcopy(model)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(model.parameters(), twin.parameters()))
    assert all(a.grad is not None and b.grad is None for a, b in zip(model.parameters(), twin.parameters()))
    twin(randn(2, 3)).sum().backward()
    assert all(isinstance(b, nn.Parameter) and b.grad is not None for b in twin.parameters())
    twin[0].weight.data[...] = 0
    assert model[0].weight.numpy().any()
    tied = copy.deepcopy(Tied())
    assert tied.head.weight is tied.table.weight


def test_functional_call_uses_other_parameters_and_puts_the_own_ones_back():
    model = Tied()
    own = model.table.weight
    new = randn(5, 3, requires_grad=True)
    out = nn.functional_call(model, {"head.weight": new}, np.array([0, 1]))
    assert np.allclose(out.numpy(), new.numpy()[:2] @ new.numpy().T, atol=1e-5)
    out.sum().backward()
    assert new.grad is not None
    assert own.grad is None
    assert model.table.weight is model.head.weight is own
    with pytest.raises(KeyError, match=r"table\.wait.*Did you mean 'table.weight'"):
        nn.functional_call(model, {"table.wait": new}, np.array([0]))
    with pytest.raises(ValueError, match="shape"):
        nn.functional_call(model, {"table.weight": randn(3, 3)}, np.array([0]))


# ------------------------------------------------------------------------------------------------ printing


def test_repr_is_nested():
    assert repr(small()) == (
        "Sequential(\n"
        "  (0): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (1): ReLU()\n"
        "  (2): Sequential(\n"
        "    (0): Linear(in_features=4, out_features=2, bias=True)\n"
        "  )\n"
        ")"
    )


def test_every_layer_describes_itself():
    layers = (nn.LayerNorm(3), nn.Embedding(3, 2, padding_idx=0), nn.CrossEntropyLoss(), nn.MultiheadAttention(4, 2))
    for module in layers:
        text = repr(module)
        assert text.startswith(type(module).__name__ + "(")
        assert module.extra_repr() in text
        assert module.extra_repr()


def test_summary_counts_shows_shapes_and_changes_nothing():
    from minillm import get_rng_state

    model = nn.Sequential(nn.TransformerBlock(8, 2, dropout=0.1), nn.Linear(8, 3))
    model[0].attention.requires_grad_(False)
    state = get_rng_state()
    text = nn.summary(model, randn(2, 5, 8))
    assert get_rng_state() == (state[0], state[1] + 20)  # the example's own 80 numbers
    lines = text.splitlines()
    total = model.num_parameters()
    assert lines[-2].split() == ["total", f"{total:,}"]
    assert lines[-1].split() == ["trainable", f"{total - model[0].attention.num_parameters():,}"]
    rows = lines[2:-3]
    assert sum(int(row.split()[-1].replace(",", "")) for row in rows) == total
    assert any("MultiheadAttention" in row and "(2, 5, 8)" in row for row in rows)
    assert any("Dropout" in row and "x 2" in row for row in rows)
    assert all(m.training and "forward" not in vars(m) for m in model.modules())


def test_summary_puts_everything_back_after_an_error():
    model = small()
    with pytest.raises(ValueError):
        nn.summary(model, randn(2, 5))
    assert all(m.training and "forward" not in vars(m) for m in model.modules())
