"""Settings that have to stand before NumPy is imported."""

import os
import signal

import pytest

# The products in these tests are small. OpenBLAS's threads would only spin against Numba's (and against other
# programs).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)



def _skip_without_compiler(error):
    """What needs a C++ compiler (the CUDA simulator) or NVRTC is skipped where there is none: `NoCompiler` says so."""
    if type(error).__name__ == "NoCompiler":  # not imported here: it would import NumPy
        pytest.skip(str(error))
    raise error


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    try:
        return (yield)
    except RuntimeError as error:
        _skip_without_compiler(error)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    try:
        return (yield)
    except RuntimeError as error:
        _skip_without_compiler(error)
