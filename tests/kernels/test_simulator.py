"""The CUDA simulator computes what a GPU would: indices, arguments, exchanges between lanes, tensor-core fragments."""

from __future__ import annotations

import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from simulated_sources import RIGHT

from kernels.gpu.launch import flatten
from kernels.simulator import NoCompiler, SimulatedModule, SimulatorError, build

pytestmark = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


@pytest.fixture(scope="module", params=[True, False], ids=["checked", "unchecked"])
def module(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("right") / "right.cu"
    path.write_text(RIGHT)
    return SimulatedModule(path, check=request.param)


def run(module, name, grid, block, *arguments, shared_mem=0, **how):
    module.get_function(name, **how)(grid, block, arguments, shared_mem=shared_mem)


def test_arguments_of_every_kind(module):
    settings = np.array([(5, 2.0, 1 << 40)], np.dtype([("n", "i4"), ("scale", "f4"), ("big", "u8")], align=True))
    x, out = np.arange(5, dtype=np.float32), np.zeros(11, np.float32)
    scalars = np.int32(-3), np.float32(0.5), np.uint64(1 << 40), np.float64(0.25), np.array(1.5, ml_dtypes.bfloat16)[()]
    run(module, "arguments", (1,), (32,), x, None, out, settings, *scalars)
    assert out.tolist() == [0, 2, 4, 6, 8, 1, -3, 0.5, 1, 0.25, 1.5]


@pytest.mark.parametrize("seed", range(3))
def test_blocks_and_threads_in_three_dimensions(module, seed):
    out = np.full((2 * 3 * 4, 2 * 3 * 5), -1, np.int32)
    run(module, "indices", (4, 3, 2), (5, 3, 2), out, seed=seed)
    assert (out == 1000 * np.arange(24)[:, None] + np.arange(30)).all()


@pytest.mark.parametrize("width", [32, 16, 4])
@pytest.mark.parametrize("argument", [0, 1, 3, 17])
def test_shuffles(module, argument, width):
    n = 64
    x, out = np.random.default_rng(0).integers(0, 999, n).astype(np.int32), np.zeros((5, n), np.int32)
    run(module, "shuffles", (1,), (n,), x, out, np.int32(argument), np.int32(width))
    lane = np.arange(n) % 32
    warp, first, within = np.arange(n) - lane, lane // width * width, lane % width
    xor = lane ^ argument
    came_from = [
        first + argument % width,
        np.where(xor // width <= lane // width, xor, lane),  # a lane of an earlier group is read, of a later one not
        np.where(within + argument < width, lane + argument, lane),
        np.where(within - argument >= 0, lane - argument, lane),
        np.where(lane < 16, 3, 20),
    ]
    for row, source in zip(out, came_from):
        np.testing.assert_array_equal(row, x[warp + source])


def test_votes(module):
    n = 64
    x, out = np.random.default_rng(1).integers(0, 5, n).astype(np.int32), np.zeros((8, n), np.uint32)
    run(module, "votes", (1,), (n,), x, out)
    lanes = 1 << np.arange(32, dtype=np.uint64)
    for w in range(2):
        part, got = x[32 * w : 32 * w + 32], out[:, 32 * w : 32 * w + 32]
        assert (got[0] == lanes[part != 0].sum()).all()
        assert (got[1] == (part == 3).any()).all() and (got[2] == 1).all()
        assert got[3].tolist() == [int(lanes[part == v].sum()) for v in part]
        assert (got[4] == part.sum()).all()
    assert (out[5] == (x == 3).any()).all() and (out[6] == 1).all() and (out[7] == (x == 3).sum()).all()


def test_conversions_of_16_bits(module):
    values, back, brain = np.zeros(65536, np.float32), np.zeros(65536, np.uint16), np.zeros(65536, np.uint16)
    run(module, "halves", (256,), (256,), values, back, brain)
    every = np.arange(65536).astype(np.uint16).view(np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(values, every.astype(np.float32))
        number = ~np.isnan(every)
        nudged = (values * np.float32(1.0009765625)).astype(np.float16)
        np.testing.assert_array_equal(back.view(np.float16)[number], nudged[number])
        nudged = (values * np.float32(1.01)).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(brain.view(ml_dtypes.bfloat16)[number], nudged[number])
    assert np.isnan(back.view(np.float16)[~number]).all() and np.isnan(brain.view(ml_dtypes.bfloat16)[~number]).all()


def test_fragments_of_ldmatrix(module):
    x, out = np.arange(256, dtype=np.uint16), np.zeros((2, 32, 4), np.uint32)
    run(module, "matrices", (1,), (32,), x, out)
    matrices, lane = x.reshape(4, 8, 8), np.arange(32)
    for m in range(4):
        for got, matrix in ((out[0, :, m], matrices[m]), (out[1, :, m], matrices[m].T)):
            np.testing.assert_array_equal(got & 0xFFFF, matrix[lane // 4, lane % 4 * 2])
            np.testing.assert_array_equal(got >> 16, matrix[lane // 4, lane % 4 * 2 + 1])


def test_product_on_tensor_cores(module):
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((16, 16)), rng.standard_normal((16, 8)), np.zeros((16, 8), np.float32)
    a, b = a.astype(np.float16), b.astype(np.float16)
    run(module, "product", (1,), (32,), a, b, c)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_asynchronous_copies_that_are_waited_for(module, late, seed):
    x, out = np.random.default_rng(0).standard_normal(512).astype(np.float32), np.zeros(256, np.float32)
    run(module, "copies", (1,), (64,), x, out, np.int32(0), np.int32(1), shared_mem=2048, late=late, seed=seed)
    np.testing.assert_array_equal(out.reshape(64, 4), x[256:].reshape(64, 4)[::-1])


def test_a_late_copy_is_nan_until_it_is_waited_for(tmp_path):
    path = tmp_path / "right.cu"
    path.write_text(RIGHT)
    module = SimulatedModule(path, check=False)
    x, out = np.ones(512, np.float32), np.zeros(256, np.float32)
    run(module, "copies", (1,), (64,), x, out, np.int32(1), np.int32(1), shared_mem=2048, late=1)
    assert np.isnan(out).all()  # the wait is off by one group
    run(module, "copies", (1,), (64,), x, out, np.int32(1), np.int32(1), shared_mem=2048, late=0)
    assert (out == 1).all()  # it would pass where copies are fast
    run(module, "copies", (1,), (64,), x, out, np.int32(0), np.int32(0), shared_mem=2048, late=1)
    assert np.isnan(out).any()  # waited for, but by others


def test_threads_that_have_returned_are_not_waited_for(module):
    for seed in range(3):
        out = np.zeros(64, np.float32)
        run(module, "leave_early", (1,), (64,), out, seed=seed)
        assert out[:40].tolist() == [0 if t % 2 else (t ^ 2) + 100 * (62 - t % 24) for t in range(40)]


def test_atomics(module):
    total, most, count, floats = (np.zeros(1, t) for t in (np.int32, np.int32, np.int32, np.float32))
    run(module, "atomics", (3,), (64,), total, most, count, floats)
    assert (total[0], most[0], count[0], floats[0]) == (3 * 64 * 63 // 2, 263, 7, 192)


def test_wrong_launches_are_refused(module):
    out = np.zeros((24, 30), np.int32)
    with pytest.raises(ValueError, match="no kernel 'index' in this source; it has arguments, indices"):
        module.get_function("index")
    with pytest.raises(ValueError, match="contiguous"):
        run(module, "indices", (1,), (1,), out.T)
    with pytest.raises(SimulatorError, match="1 to 1024 threads, not 1025"):
        run(module, "indices", (1,), (1025,), out)
    with pytest.raises(SimulatorError, match="233472 bytes of shared memory; a block of this GPU has at most 227 KB"):
        run(module, "indices", (1,), (1,), out, shared_mem=228 << 10)
    small = SimulatedModule('extern "C" __global__ void k() {}', arch="sm_86").get_function("k")
    small((1,), (1,), (), shared_mem=99 << 10)
    with pytest.raises(SimulatorError, match="at most 99 KB"):
        small((1,), (1,), (), shared_mem=100 << 10)


def test_a_source_that_does_not_compile_says_where(tmp_path):
    path = tmp_path / "broken.cu"
    path.write_text('#include "common.cuh"\nextern "C" __global__ void k(float* x) {\n    x[0] = nothing;\n}\n')
    with pytest.raises(SimulatorError, match=r"broken.cu:3.*nothing"):
        SimulatedModule(path)


def test_macros_and_architecture():
    source = """extern "C" __global__ void k(int* x) { x[0] = N; x[1] = __CUDA_ARCH__; }"""
    out = np.zeros(2, np.int32)
    SimulatedModule(source, {"N": 3}, arch="sm_80").get_function("k")((1,), (1,), (out,))
    assert out.tolist() == [3, 800]


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NoCompiler, match="neither g\\+\\+ nor clang\\+\\+: install one"):
        build.compiler()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(NoCompiler, match="runs on Linux"):
        build.compiler()


def test_two_processes_may_compile_at_once(tmp_path, monkeypatch):
    """Both build the same library in the same, empty cache."""
    program = (
        "import numpy as np; from kernels.simulator import SimulatedModule; x = np.zeros(1, np.int32)\n"
        "SimulatedModule('extern \"C\" __global__ void k(int* x) { x[0] = 5; }').get_function('k')((1,), (1,), (x,))\n"
        "assert x[0] == 5"
    )
    shutil.copy(build.runtime_path(), tmp_path)  # it takes seconds to build
    monkeypatch.setenv("KERNELS_SIMULATOR_CACHE", str(tmp_path))
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [p.wait() for p in processes] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 2  # the runtime and one kernel, nothing left over


def test_flattening_keeps_lines(tmp_path):
    path = tmp_path / "right.cu"
    path.write_text(RIGHT)
    assert '#line 3 "right.cu"' in flatten(path)
