"""The marker `on_cuda`: where CUDA kernels of a test run, on a simulated GPU or on a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernels import gpu
from kernels.dispatch import _cuda_found
from kernels.simulator import compiler


@pytest.fixture(autouse=True)
def _numpy_on_cuda(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test with the marker on_cuda hands NumPy arrays to CUDA kernels: the simulator's, or a real device's."""
    marker = request.node.get_closest_marker("on_cuda")
    if marker is None:
        yield
        return
    if marker.args[0] == "simulator":
        compiler()
    if marker.args[0] == "device" and not _cuda_found():
        pytest.skip("no GPU: CuPy is not installed, or finds no device")
    with gpu.numpy_on(marker.args[0]):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """A test body in float64 does not apply to CUDA kernels, which the dispatcher says with a TypeError."""
    try:
        return (yield)
    except TypeError as error:
        if pyfuncitem.get_closest_marker("on_cuda") and "of float64" in str(error) and "'cuda' needs" in str(error):
            pytest.skip("CUDA kernels compute in float32")
        raise
