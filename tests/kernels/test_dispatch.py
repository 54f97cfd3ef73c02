"""Which implementation runs; that the package stands alone; that the references run on any array library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import arrays, dispatch

FOLDER = Path(kernels.__file__).parent
KERNELS = (
    "adamw", "cross_entropy", "dropout", "embedding", "gelu", "layernorm", "reparameterize", "rotary", "silu",
)  # fmt: skip


def chosen(impl, x):
    return dispatch.implementation("gelu", impl, x).__name__.rsplit(".", 1)[1]


def test_available_lists_every_kernel_with_its_implementations():
    table = kernels.available()
    assert {*KERNELS, "attention"} <= set(table)
    assert all(name in table[kernel] for kernel in KERNELS for name in ("reference", "cpu"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numba_runs_numpy_arrays(dtype):
    assert chosen(None, np.ones(2, dtype)) == "cpu"
    assert chosen("reference", np.ones(2, dtype)) == "reference"


def test_a_dtype_that_only_the_reference_knows():
    x = np.ones(2, np.float16)
    assert chosen(None, x) == "reference"
    assert kernels.gelu_forward(x).dtype == np.float16
    with kernels.use("cpu"):
        assert chosen(None, x) == "reference"  # a default gives way
    with pytest.raises(TypeError, match=r"impl='cpu' needs NumPy arrays of float32 or float64, .* of float16"):
        kernels.gelu_forward(x, impl="cpu")  # a request does not


def test_use_holds_inside_its_block_only():
    x = np.ones(2, np.float32)
    with kernels.use("reference"):
        assert chosen(None, x) == "reference"
        assert chosen("cpu", x) == "cpu"
        with kernels.use(None):
            assert chosen(None, x) == "cpu"
        assert chosen(None, x) == "reference"
    assert chosen(None, x) == "cpu"
    with pytest.raises(KeyError), kernels.use("reference"):
        raise KeyError
    assert chosen(None, x) == "cpu"


def test_set_default_holds_until_changed():
    x = np.ones(2, np.float32)
    try:
        kernels.set_default("reference")
        assert chosen(None, x) == "reference"
        kernels.set_default("cuda")  # does not fit a NumPy array
        assert chosen(None, x) == "cpu"
    finally:
        kernels.set_default(None)
    assert chosen(None, x) == "cpu"


def test_unknown_implementations_are_errors():
    for call in (
        lambda: kernels.gelu_forward(np.ones(2), impl="fast"),
        lambda: kernels.set_default("fast"),
        lambda: kernels.use("fast").__enter__(),
    ):
        with pytest.raises(ValueError, match="no kernel implementation 'fast': choose one of reference, cpu, cuda"):
            call()


def test_the_cuda_implementation_refuses_numpy_arrays():
    with pytest.raises((TypeError, ValueError), match=r"has no 'cuda' implementation|needs CuPy arrays of float32"):
        kernels.gelu_forward(np.ones(2, np.float32), impl="cuda")


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_implementations_have_the_same_functions(kernel):
    public = [name for name in kernels.__all__ if name.startswith(kernel)]
    assert public
    for impl in ("reference", "cpu"):
        module = dispatch.implementation(kernel, impl, np.ones(1, np.float32))
        assert all(callable(getattr(module, name)) for name in public)


def imports(path):
    """Names that a source file imports; relative ones as the absolute names they resolve to."""
    package = ["kernels", *path.relative_to(FOLDER).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= len(package), f"{path}: a relative import leaves the package"
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *(node.module or "").split(".")])


def test_nothing_in_the_package_imports_minillm():
    sources = sorted(FOLDER.rglob("*.py"))
    assert len(sources) > 20
    for path in sources:
        assert not [name for name in imports(path) if name.split(".")[0] == "minillm"], path


def test_references_are_written_for_any_array_library():
    for kernel in KERNELS:
        path = FOLDER / kernel / "reference.py"
        assert not {"numpy", "numba", "cupy"} & {name.split(".")[0] for name in imports(path)}, path


def test_importing_the_package_compiles_nothing():
    code = "import sys, kernels; print(sorted({'numba', 'cupy', 'torch', 'minillm', 'scipy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parent)
    assert out.stdout.strip() == "[]"


class DeviceArray:
    """An array that, as one on a GPU does, refuses to become a NumPy array or to meet one."""

    __array_ufunc__ = None

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, *args, **kwargs):
        raise TypeError("a device array does not turn into a NumPy array by itself")

    def __getattr__(self, name):  # shape, dtype, sum, astype, ...
        return _on_device(getattr(self.values, name))

    def __setitem__(self, index, value):
        self.values[_inside(index)] = _inside(value)


def _inside(x):
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array met a device array")
    if isinstance(x, tuple):
        return tuple(map(_inside, x))
    return x.values if isinstance(x, DeviceArray) else x


def _on_device(x):
    if isinstance(x, np.ndarray | np.generic):
        return DeviceArray(x)
    if callable(x) and not isinstance(x, type):
        return lambda *a, **kw: _on_device(x(*map(_inside, a), **{k: _inside(v) for k, v in kw.items()}))
    return x


class DeviceModule:
    __name__ = "device"

    def __getattr__(self, name):
        return _on_device(getattr(np, name))


def _method(name):
    return lambda self, *other: _on_device(getattr(self.values, name))(*other)


for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor", "rshift"):
    setattr(DeviceArray, f"__{_name}__", _method(f"__{_name}__"))
    setattr(DeviceArray, f"__r{_name}__", _method(f"__r{_name}__"))
for _name in ("neg", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne", "getitem", "bool", "int", "float"):
    setattr(DeviceArray, f"__{_name}__", _method(f"__{_name}__"))


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setitem(arrays._MODULES, DeviceArray, DeviceModule())
    return DeviceArray


def test_the_stand_in_is_strict(device):
    with pytest.raises(TypeError):
        np.exp(device(np.ones(2)))
    with pytest.raises(TypeError):
        device(np.ones(2)) + np.ones(2)
    assert isinstance(device(np.ones(2)).sum(), DeviceArray)


def _calls():
    rng = np.random.default_rng(0)
    x, y, z, w = (rng.normal(size=(5, 7)).astype(np.float32) for _ in range(4))
    row, column = rng.uniform(1, 2, 7).astype(np.float32), rng.uniform(1, 2, 5).astype(np.float32)
    targets = np.array([0, 6, -100, 3, 2])
    return {
        "layernorm_forward": (lambda *a: kernels.layernorm_forward(*a), (x, row, row)),
        "layernorm_backward": (lambda *a: kernels.layernorm_backward(*a), (y, x, row, column, column)),
        "gelu_forward": (lambda a: kernels.gelu_forward(a), (x,)),
        "gelu_backward": (lambda *a: kernels.gelu_backward(*a, "tanh"), (y, x)),
        "erf": (lambda a: kernels.erf(a), (x,)),
        "cross_entropy_forward": (
            lambda z, t, w: kernels.cross_entropy_forward(z, t, weight=w, label_smoothing=0.1), (x, targets, row)
        ),
        "cross_entropy_backward": (
            lambda d, z, t, s: kernels.cross_entropy_backward(d, z, t, s), (column, x, targets, column)
        ),
        "cross_entropy_with_grad": (
            lambda z, t, f, w: kernels.cross_entropy_with_grad(z, t, f, weight=w, label_smoothing=0.1),
            (x, targets, column, row),
        ),
        "linear_cross_entropy": (
            lambda a, w, t, f: kernels.linear_cross_entropy(a, w, t, f, label_smoothing=0.1, softcap=5.0, z_loss=0.1),
            (x, np.concatenate([y, z]), targets, column),
        ),
        "softmax_forward": (lambda a: kernels.softmax_forward(a), (x,)),
        "softmax_backward": (lambda *a: kernels.softmax_backward(*a), (y, x)),
        "log_softmax_forward": (lambda a: kernels.log_softmax_forward(a), (x,)),
        "log_softmax_backward": (lambda *a: kernels.log_softmax_backward(*a), (y, x)),
        "rmsnorm_forward": (lambda a, w, r: kernels.rmsnorm_forward(a, w, 1e-5, residual=r), (x, row, y)),
        "rmsnorm_backward": (
            lambda d, a, w, s, r: kernels.rmsnorm_backward(d, a, w, s, dresidual=r, dweight=w), (y, x, row, column, z)
        ),
        "reparameterize_forward": (lambda *a: kernels.reparameterize_forward(*a), (x, y, z)),
        "reparameterize_backward": (lambda *a: kernels.reparameterize_backward(*a), (w, column, x, y, z)),
        "silu_forward": (kernels.silu_forward, (x,)),
        "silu_backward": (kernels.silu_backward, (y, x)),
        "swiglu_backward": (kernels.swiglu_backward, (y, x, z)),
        "dropout_forward": (lambda a: kernels.dropout_forward(a, 0.3, 1, 2), (x,)),
        "bce_forward": (lambda *a: kernels.bce_forward(*a, rows=True), (x, y)),
        "bce_backward": (kernels.bce_backward, (column, x, y)),
        "rotary_forward": (kernels.rotary_forward, (x[:, None, None, :6], y[:1, :3], z[:1, :3])),
        "embedding_forward": (lambda i, a: kernels.embedding_forward(i, a), (np.array([2, 0, 2]), x)),
        "adamw_flat": (
            lambda *a: kernels.adamw_flat(*a, lr=0.1, step=1, weight_decay=[(1, 3, 0.1)]) or a, (row, -row, row, row)
        ),
        "adamw_step": (lambda *a: kernels.adamw_step(*a, lr=0.1, step=1) or a, (x, y, z, abs(w))),
    }  # fmt: skip


@pytest.mark.parametrize("name", _calls())
def test_references_run_on_another_array_library(device, name):
    call, arguments = _calls()[name]
    got = call(*(device(a.copy()) for a in arguments))
    with kernels.use("reference"):
        expected = call(*(a.copy() for a in arguments))
    if not isinstance(got, tuple):
        got, expected = (got,), (expected,)
    for g, e in zip(got, expected, strict=True):
        assert isinstance(g, DeviceArray)
        assert g.dtype == e.dtype
        np.testing.assert_array_equal(g.values, e)


def test_arrays_of_two_libraries_do_not_mix(device):
    x = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match="logvar belongs to device but mean to numpy"):
        kernels.reparameterize_forward(x, device(x), x)
    with pytest.raises(TypeError, match="targets belong to device but logits to numpy"):
        kernels.cross_entropy_forward(x, device(np.array([0, 1])))


def test_an_out_of_range_target_is_named_on_a_device_too(device):
    with pytest.raises(IndexError, match="target 9 in row 1"):
        kernels.cross_entropy_forward(device(np.ones((2, 3), np.float32)), device(np.array([0, 9])))
