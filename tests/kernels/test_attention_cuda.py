"""attention.cu without a GPU: it compiles for every target with nothing spilled, and its barriers are all needed.

That it computes the right thing is in test_attention.py: there the same source runs on the CPU, and with
-m gpu on a GPU.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernels.attention import cuda, reference

KERNELS = ("attention_forward", "attention_backward_q", "attention_backward_kv")


ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")
TARGETS = [(arch, 64) for arch in ARCHS] + [("sm_75", 256), ("sm_80", 1), ("sm_80", 111), ("sm_90a", 256)]


@pytest.mark.parametrize("arch, head_dim", TARGETS)
def test_compiles_for_every_target(arch, head_dim):
    pytest.importorskip("cupy", reason="cupy is not installed (extra cuda13)")
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"CuPy finds no NVRTC library (package nvidia-cuda-nvrtc): {error}")
    program = nvrtc.createProgram(cuda.SOURCE.read_text(), "attention.cu", (), ())
    defines = [f"-D{name}={n}" for name, n in cuda.defines(head_dim).items()]
    try:
        nvrtc.compileProgram(program, (f"-arch={arch}", "--std=c++17", "--ptxas-options=-v", *defines))
    except nvrtc.NVRTCError as error:
        pytest.fail(f"{error}\n{nvrtc.getProgramLog(program)}")
    log = nvrtc.getProgramLog(program)
    assert len(nvrtc.getCUBIN(program)) > 1000
    nvrtc.destroyProgram(program)
    assert sorted(re.findall(r"entry function '(\w+)'", log)) == sorted(KERNELS)
    assert re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log) == [("0", "0")] * 3
    assert "warning" not in log.lower(), log
    shared = [int(n) for n in re.findall(r"(\d+) bytes smem", log)]
    assert len(shared) == 3 and max(shared) <= 48 << 10  # more would have to be asked for at launch


def simulate(compile, monkeypatch, source, arrays, order=0, **options):
    """Results of cuda.py with `source` in place of attention.cu, run on the CPU."""
    dout, q, k, v = arrays
    module = compile(source, order=order, **cuda.defines(q.shape[3]))
    monkeypatch.setattr(cuda, "_kernel", lambda name, head_dim: module.get_function(name))
    out, lse = cuda.attention_forward(q, k, v, None, **options)
    return [out, lse, *cuda.attention_backward(dout, q, k, v, out, lse, None, **options)]


def arrays_and_results(causal):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, 2, 70, 20)).astype(np.float32) for _ in range(4)]
    options = {"causal": causal, "offset": 0, "window": None, "scale": 0.3}
    dout, q, k, v = (x.astype(np.float64) for x in arrays)
    out, lse = reference.attention_forward(q, k, v, None, **options)
    return arrays, options, [out, lse, *reference.attention_backward(dout, q, k, v, out, lse, None, **options)]


def near(results, want):
    return all(np.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(results, want))


def test_the_order_of_the_threads_does_not_matter(cuda_on_cpu, monkeypatch):
    arrays, options, want = arrays_and_results(causal=True)
    source = cuda.SOURCE.read_text()
    first, second = (simulate(cuda_on_cpu, monkeypatch, source, arrays, order, **options) for order in (0, 1))
    assert near(first, want)
    assert all(np.array_equal(x, y) for x, y in zip(first, second))


@pytest.mark.parametrize("barrier", range(4))
def test_every_barrier_is_needed(barrier, cuda_on_cpu, monkeypatch):
    """Taken away, each one gives a wrong result in some order of the threads: so the simulation would notice."""
    source = cuda.SOURCE.read_text()
    calls = [m.span() for m in re.finditer(r"^\s*__sync(threads|warp)\(\);", source, re.MULTILINE)]
    assert len(calls) == 4
    start, stop = calls[barrier]
    arrays, options, want = arrays_and_results(causal=False)
    orders = (simulate(cuda_on_cpu, monkeypatch, source[:start] + source[stop:], arrays, n, **options) for n in (0, 1))
    assert not all(near(results, want) for results in orders)
