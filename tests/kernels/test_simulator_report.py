"""What the simulator counts, its trace, and `python -m kernels.simulator`."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from simulated_sources import CONFLICTS, RIGHT

import kernels
from kernels import gpu
from kernels.simulator import SimulatedModule, SimulatorError, record, report, trace
from kernels.simulator.__main__ import main

pytestmark = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


@pytest.fixture(scope="module")
def conflicts(tmp_path_factory):
    path = tmp_path_factory.mktemp("conflicts") / "conflicts.cu"
    path.write_text(CONFLICTS)
    return SimulatedModule(path, check=True)


def right(tmp_path, name, check=True, **how):
    path = tmp_path / "right.cu"
    path.write_text(RIGHT)
    return SimulatedModule(path, check=check).get_function(name, **how)


@pytest.mark.parametrize(("stride", "extra"), [(1, 0), (2, 1), (3, 0), (8, 7), (32, 31), (0, 0)])
def test_bank_conflicts(conflicts, stride, extra):
    x, out = np.arange(1024, dtype=np.float32), np.zeros(128, np.float32)
    conflicts.get_function("strides")((1,), (32,), (x, out, np.int32(stride)), shared_mem=4096)
    (line,) = [n for n in report().lines if n.memory == "shared" and n.kind == "load"]
    assert (line.conflicts, line.requests, line.bytes) == (extra, 1, 128)
    assert report().bank_conflicts == extra
    assert line.place.startswith("conflicts.cu:")


def test_wide_accesses_are_one_request_and_have_no_conflicts(conflicts):
    x, out = np.arange(1024, dtype=np.float32), np.zeros(128, np.float32)
    conflicts.get_function("wide")((1,), (32,), (x, out, np.int32(0)), shared_mem=4096)
    (load,) = [n for n in report().lines if n.memory == "shared" and n.kind == "load"]
    assert (load.size, load.conflicts, load.requests) == (16, 0, 1)
    np.testing.assert_array_equal(out, x[:128])


@pytest.mark.parametrize(("stride", "extra"), [(1, 0), (2, 2), (16, 30)])
def test_conflicts_of_pairs(conflicts, stride, extra):
    """8 bytes a lane: half a warp after the other."""
    x, out = np.arange(1024, dtype=np.float32), np.zeros(128, np.float32)
    conflicts.get_function("pairs")((1,), (32,), (x, out, np.int32(stride)), shared_mem=4096)
    (line,) = [n for n in report().lines if n.memory == "shared" and n.kind == "load"]
    assert (line.size, line.conflicts) == (8, extra)


def test_conflicts_of_ldmatrix(tmp_path):
    a, b, c = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16), np.zeros((16, 8), np.float32)
    right(tmp_path, "product", check=False)((1,), (32,), (a, b, c))
    # rows of 32 bytes: 8 of them lie in 4 groups of banks, twice each; rows of 16 bytes lie in all
    assert report().bank_conflicts == 4
    assert report().instructions == {"ldmatrix": 2, "mma": 1, "cp_async": 0, "wgmma": 0, "tma": 0}


def test_bytes_of_global_memory(tmp_path):
    x, out = np.zeros(512, np.float32), np.zeros(256, np.float32)
    right(tmp_path, "copies")((1,), (64,), (x, out, np.int32(0), np.int32(1)), shared_mem=2048)
    last = report()
    assert last.read == {0: 2048, 1: 0} and last.written == {0: 0, 1: 1024}
    assert (last.bytes_read, last.bytes_written, last.instructions["cp_async"]) == (2048, 1024, 128)
    assert last.waits["__syncthreads"] == 1
    assert (last.kernel, last.grid, last.block, last.shared_bytes) == ("copies", (1, 1, 1), (64, 1, 1), 2048)
    text = str(last)
    assert "2,048 bytes" in text and "right.cu:" in text and "global store" in text


def test_sectors_of_global_memory():
    x, y = np.arange(1000, dtype=np.float32), np.zeros(32, np.float32)
    source = 'extern "C" __global__ void k(const float* x, float* y, int n) { y[threadIdx.x] = x[n * threadIdx.x]; }'
    module = SimulatedModule(source, check=True)
    for stride, sectors in ((1, 4), (2, 8), (8, 32), (31, 32)):
        module.get_function("k")((1,), (32,), (x, y, np.int32(stride)))
        load, store = report().lines
        assert (load.kind, load.sectors, store.kind, store.sectors) == ("load", sectors, "store", 4)
        assert load.efficiency == 128 / (32 * sectors)


def test_one_report_for_each_launch():
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    with gpu.numpy_on("simulator"), record() as reports:
        out = kernels.softmax_forward(x, impl="cuda")
        kernels.softmax_backward(x, out, impl="cuda")
    assert len(reports) >= 2
    assert reports[0].read[0] == x.nbytes and reports[0].bytes_written == x.nbytes  # each number once
    assert not any(r.bank_conflicts for r in reports)


def test_a_failed_launch_has_a_report_too():
    source = 'extern "C" __global__ void k(float* x) { __syncthreads(); x[threadIdx.x + 1] = 0; }'
    module = SimulatedModule(source, check=True)
    with pytest.raises(SimulatorError):
        module.get_function("k")((1,), (32,), (np.zeros(32, np.float32),))
    assert report().waits["__syncthreads"] == 1


def test_trace_shows_fragments(tmp_path):
    a, b = np.arange(256, dtype=np.float16).reshape(16, 16), np.eye(16, 8, dtype=np.float16)
    c = np.zeros((16, 8), np.float32)
    run = right(tmp_path, "product")
    with trace("f16") as texts:
        run((1,), (32,), (a, b, c))
    (text,) = texts
    assert "ldmatrix.x4 at right.cu:" in text and "ldmatrix.x4.trans at right.cu:" in text
    assert "  240.00 241.00 242.00" in text.partition("mma.m16n8k16")[2]  # the last row of A
    assert "lane 0 reads 2 bytes: argument 0 + 0 bytes: 0\n" in text
    assert "__syncwarp" in text and "bank conflicts: 4" in text
    with trace("f16", steps=3) as texts:
        run((1,), (32,), (a, b, c))
    assert texts[0].count("load at") + texts[0].count("store at") == 3  # steps
    run((1,), (32,), (a, b, c))
    assert len(texts) == 1  # no trace any more


def test_trace_shows_copies(tmp_path):
    x, out = np.zeros(512, np.float32), np.zeros(256, np.float32)
    run = right(tmp_path, "copies")
    with trace() as texts:
        run((1,), (64,), (x, out, np.int32(0), np.int32(1)), shared_mem=2048)
    assert "lane 0 closes a group of 1 copies of 16 bytes, global to shared memory: -> 0\n" in texts[0]
    assert "2 groups of lane 0 are now under way" in texts[0]
    assert "at most 0 of its 2 groups are under way: 2 arrive now" in texts[0]
    assert "lane 0 has come to a barrier of the whole block" in texts[0]


@pytest.mark.parametrize("name", ["softmax", "layernorm", "gelu"])
def test_command_checks_a_kernel(name, capsys):
    assert main([name, "--seed", "2"]) == 0
    out = capsys.readouterr().out
    assert "agrees with the reference" in out and f"{name}_forward" in out and "global memory read" in out


def test_command_shows_a_rung(capsys):
    assert main(["attention", "--rung", "2", "--trace", "--steps", "12", "--length", "16"]) == 0
    out = capsys.readouterr().out
    assert "mma.m16n8k16: D (16 x 8) = A (16 x 16) B (16 x 8) + C" in out and "cp.async.commit_group at cuda_2" in out
    assert "agrees with the reference" in out


def test_command_runs_a_file_of_ones_own(tmp_path, capsys):
    path = tmp_path / "mine.cu"
    path.write_text("""extern "C" __global__ void twice(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}
""")
    assert main([str(path), "--grid", "2", "--args", "float[50] float[50] int=50"]) == 0
    assert "twice ran without an error" in capsys.readouterr().out
    assert main([str(path), "--grid", "2", "--args", "float[50] float[50] int=51"]) == 1
    assert "thread 18 reads 4 bytes of argument 0, at byte 200 of 200 at mine.cu:3" in capsys.readouterr().err
    assert main([str(path), "--args", "double"]) == 2
    assert "--args: expected" in capsys.readouterr().err
    assert main(["not_there.cu"]) == 2


def test_command_explains_itself(capsys, monkeypatch):
    assert main([]) == 0
    assert "kernels: adamw, attention" in capsys.readouterr().out
    assert main(["sofmax"]) == 2
    assert "no kernel 'sofmax' to simulate; there are adamw, attention" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["softmax"]) == 1
    assert "neither g++ nor clang++" in capsys.readouterr().err
