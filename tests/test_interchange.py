"""Arrays of other libraries and tensors are the same memory: DLPack and NumPy's __array__."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minillm
from minillm import Tensor, from_dlpack

DTYPES = [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]


def aligned(shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    """Numbers 0, 1, ... that begin at a multiple of 64 bytes: others JAX copies."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.zeros(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    array = buffer[start : start + size].view(dtype).reshape(shape)
    array[...] = np.arange(array.size).reshape(shape)
    return array


arrays = hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))


@given(arrays, st.data())
def test_numpy_both_ways_without_a_copy(a, data):
    a = a.transpose(data.draw(st.permutations(range(a.ndim))))  # any strides
    x = from_dlpack(a)
    b = np.from_dlpack(x)
    for c in (x.data, b, np.asarray(x), np.array(x, copy=False)):
        assert c.dtype == a.dtype and c.shape == a.shape
        assert a.size < 2 or c.strides == a.strides
        assert a.size == 0 or np.shares_memory(c, a)
        np.testing.assert_array_equal(c, a)


def test_writes_are_seen_on_the_other_side():
    a = np.zeros(3, np.float32)
    x = from_dlpack(a)
    x[1] = 5
    a[2] = 7
    assert a.tolist() == x.tolist() == np.from_dlpack(x).tolist() == [0, 5, 7]


def test_array_copies_only_when_it_must_or_is_asked_to():
    x = minillm.tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(x), x.data) and not np.shares_memory(np.array(x), x.data)
    assert np.asarray(x, np.float64).dtype == np.float64 and np.asarray(x, np.float32) is not None
    assert np.shares_memory(np.asarray(x, np.float32), x.data)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, np.float64, copy=False)


def test_no_gradient_goes_along():
    p = minillm.nn.Parameter([1.0, 2.0])
    q = from_dlpack(p)
    assert type(q) is Tensor and not q.requires_grad and np.shares_memory(q.data, p.data)


def test_read_only_memory_stays_so():
    a = np.arange(3.0)
    a.flags.writeable = False
    x = from_dlpack(a)
    assert x.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1


@pytest.mark.parametrize("given", [[1.0, 2.0], 3, None, "text"])
def test_what_has_no_memory_to_share(given):
    with pytest.raises(TypeError, match=r"expected an array with __dlpack__.*tensor\(values\)"):
        from_dlpack(given)


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="complex64"):
        from_dlpack(np.zeros(2, np.complex64))


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_both_ways_without_a_copy(dtype):
    torch = pytest.importorskip("torch")
    x = Tensor(np.arange(6).reshape(2, 3).astype(dtype))
    for y in (x, x.T, x[:, 1:]):
        t = torch.from_dlpack(y)
        assert t.data_ptr() == y.data.ctypes.data and t.tolist() == y.tolist()
        back = from_dlpack(t)
        assert back.dtype == dtype and np.shares_memory(back.data, x.data) and back.tolist() == y.tolist()
    torch.from_dlpack(x)[0, 1] = 0
    assert x[0, 1].item() == 0


@pytest.mark.oracle
def test_torch_tensors_that_cannot_be_shared():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="require gradient"):
        from_dlpack(torch.zeros(2, requires_grad=True))
    with pytest.raises(TypeError, match="bfloat16 cannot be shared"):
        from_dlpack(torch.zeros(2, dtype=torch.bfloat16))


@pytest.mark.oracle
def test_jax_both_ways_without_a_copy():
    jax = pytest.importorskip("jax")
    x = Tensor(aligned((3, 16)))
    j = jax.numpy.from_dlpack(x)
    assert j.unsafe_buffer_pointer() == x.data.ctypes.data
    np.testing.assert_array_equal(np.asarray(j), x.numpy())
    back = from_dlpack(j)
    assert back.data.ctypes.data == j.unsafe_buffer_pointer() and not back.data.flags.writeable
    assert (back * 2).tolist() == (2 * j).tolist()


@pytest.mark.gpu
def test_cupy_both_ways_without_a_copy():
    cupy = pytest.importorskip("cupy")
    a = cupy.arange(6, dtype=cupy.float32)
    x = from_dlpack(a)
    assert x.device == "cuda" and x.data.data.ptr == a.data.ptr
    assert cupy.from_dlpack(x).data.ptr == a.data.ptr
