"""What the simulator finds in wrong kernels: each small bug is caught, and the message says who did what, where."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from simulated_sources import RIGHT, WRONG

from kernels import gpu
from kernels.simulator import SimulatedModule, SimulatorError

pytestmark = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
SEEDS = range(4)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong") / "wrong.cu"
    path.write_text(WRONG)
    return {check: SimulatedModule(path, check=check) for check in (True, False)}


def arrays(n=64):
    return np.random.default_rng(0).standard_normal(n).astype(np.float32), np.zeros(n, np.float32)


def line_of(name):
    """Where the comment `// name` stands."""
    (number,) = [i for i, line in enumerate(WRONG.splitlines(), 1) if line.rstrip().endswith(f"// {name}")]
    return f"wrong.cu:{number}"


def message(modules, name, *arguments, grid=1, block=64, shared_mem=0, check=True, **how):
    with pytest.raises(SimulatorError) as caught:
        modules[check].get_function(name, **how)((grid,), (block,), arguments, shared_mem=shared_mem)
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    return text


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "block"), [("no_barrier", 64), ("no_second_barrier", 64), ("no_syncwarp", 32)])
def test_a_missing_barrier_is_a_race_on_every_seed(modules, name, block, seed):
    text = message(modules, name, *arrays(), block=block, seed=seed)
    assert "static shared memory s + " in text and line_of(name) in text
    assert ("race: thread" in text and "with no barrier in between" in text) or "uninitialised" in text
    assert ("race: thread" in text) >= (name != "no_syncwarp")


@pytest.mark.parametrize(
    ("name", "block"),
    [("reads_then_writes", 2), ("reads_then_writes", 33), ("reads_then_writes", 64), ("warp_reads_then_writes", 64)],
)
def test_the_writer_may_be_the_last_reader(modules, name, block):
    for seed in range(12):
        text = message(modules, name, *arrays(), block=block, seed=seed)
        assert "race: thread" in text and line_of(name) in text


@pytest.mark.parametrize("name", ["no_barrier", "no_second_barrier"])
def test_a_missing_barrier_gives_wrong_numbers_on_some_seed(modules, name):
    x, out = arrays()
    run = [modules[False].get_function(name, seed=seed) for seed in range(8)]
    wrong = 0
    for f in run:
        f((1,), (64,), (x, out))
        right = x[::-1] if name == "no_barrier" else x[::-1] + (x[::-1] + 1)
        wrong += not np.array_equal(out, right)
    assert wrong


@pytest.mark.parametrize("check", [True, False])
def test_divergent_collectives(modules, check):
    text = message(modules, "divergent", np.zeros(32, np.float32), block=32, check=check)
    assert "divergent collective: some threads are at __" in text and line_of("divergent") in text


@pytest.mark.parametrize("check", [True, False])
def test_a_deadlock_says_who_waits_where(modules, check):
    text = message(modules, "deadlock", np.zeros(64, np.float32), check=check)
    line = int(line_of("deadlock").partition(":")[2])
    assert "deadlock in block (0, 0, 0): 17 threads wait at __syncwarp at" in text and line_of("deadlock") in text
    assert f"; 47 threads wait at __syncthreads at wrong.cu:{line + 1}; none has returned" in text


@pytest.mark.parametrize("seed", SEEDS)
def test_out_of_bounds(modules, seed):
    x, out = arrays()
    text = message(modules, "reads_past_the_end", x, out, seed=seed)
    assert f"thread 63 reads 4 bytes of argument 0, at byte 256 of 256 at {line_of('reads_past_the_end')}" in text
    assert "argument 0: float32 (64,)" in text
    around = np.zeros(65, np.float32)
    text = message(modules, "writes_before_the_beginning", x, around[1:], seed=seed)
    assert "thread 0 writes 4 bytes of argument 1, 4 bytes before its beginning" in text
    text = message(modules, "reads_past_the_end", np.zeros(128, np.float32)[:64], out, seed=seed)
    assert "at byte 256 of 256" in text  # a view: what lies behind it is not the kernel's, though it is memory
    assert around[0] == 0  # it was not written


def test_a_null_pointer(modules):
    text = message(modules, "null_pointer", None, arrays()[1], block=1)
    assert "thread 0 reads 4 bytes at a null pointer" in text
    text = message(modules, "null_pointer", None, arrays()[1], check=False)  # a signal that is caught
    assert "outside of memory" in text and "wrong.cu:" in text
    modules[False].get_function("null_pointer")((1,), (64,), arrays())  # and the next launch runs


def test_more_shared_memory_than_was_asked_for(modules):
    text = message(modules, "dynamic_overflow", *arrays(), shared_mem=252)
    assert "thread 63 writes 4 bytes of dynamic shared memory at 252 (the launch asked for 252 bytes)" in text
    assert line_of("dynamic_overflow") in text
    modules[True].get_function("dynamic_overflow")((1,), (64,), arrays(), shared_mem=256)


@pytest.mark.parametrize("seed", SEEDS)
def test_shared_memory_that_nothing_has_written(modules, seed):
    text = message(modules, "uninitialised", *arrays(), seed=seed)
    assert "uninitialised: thread 5 reads static shared memory s + 20" in text and line_of("uninitialised") in text
    x, out = arrays()
    modules[False].get_function("uninitialised")((1,), (64,), (x, out))
    assert np.isnan(out[5])  # without checks it is NaN


@pytest.mark.parametrize("seed", SEEDS)
def test_shared_memory_is_new_in_each_block(modules, seed):
    text = message(modules, "keeps_shared", *arrays(128), grid=2, seed=seed)
    assert "uninitialised" in text and line_of("keeps_shared") in text and "[block (1, 0, 0)" in text


def test_past_the_end_of_static_shared_memory():
    source = """extern "C" __global__ void k(float* x) {
    __shared__ float s[64];
    s[threadIdx.x + 1] = 0;
    __syncthreads();
    x[threadIdx.x] = s[threadIdx.x + 1];
}"""
    run = SimulatedModule(source, check=True).get_function("k")
    with pytest.raises(
        SimulatorError, match="thread 63 writes 4 bytes beside the kernel's static shared .* kernel.cu:3"
    ):
        run((1,), (64,), (np.zeros(64, np.float32),))


def test_new_arrays_that_nothing_has_written(modules):
    x, _ = arrays()
    with gpu.numpy_on("simulator"):
        fresh, halves, like = np.empty(64, np.float32), np.empty(64, np.float16), np.empty_like(x[::2])
    assert np.isnan(fresh).all() and np.isnan(halves).all() and np.isnan(like).all()
    text = message(modules, "reads_fresh", x, fresh)
    assert "reads argument 1 + " in text and "nothing has written" in text and line_of("reads_fresh") in text
    fresh[:] = 0
    modules[True].get_function("reads_fresh")((1,), (64,), (x, fresh))
    np.testing.assert_array_equal(fresh, x)
    with gpu.numpy_on("simulator", check=False):
        assert np.empty.__module__ == "numpy"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["not_atomic", "not_atomic_in_shared", "atomic_and_plain"])
def test_a_reduction_without_atomics(modules, name, seed):
    text = message(modules, name, *arrays(), seed=seed)
    assert "race: thread" in text and line_of(name) in text


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["blocks_collide", "blocks_read_each_other", "blocks_read_then_one_writes"])
def test_blocks_of_a_launch_are_not_ordered(modules, name, seed):
    text = message(modules, name, *arrays(), grid=4, seed=seed)
    assert "nothing orders blocks of one launch" in text and line_of(name) in text
    assert "which block (" in text


def test_a_fence_and_an_atomic_order_blocks(modules):
    x, out = arrays(4)
    for fence in (1, 0):
        arguments = x, np.zeros(4, np.float32), np.zeros(1, np.int32), out, np.int32(fence)
        if fence:
            modules[True].get_function("last_block")((4,), (32,), arguments)
            np.testing.assert_allclose(out[0], x.sum(), rtol=1e-6)
        else:
            text = message(modules, "last_block", *arguments, grid=4, block=32)
            assert "nothing orders blocks" in text and line_of("last_block") in text


class Hidden:
    """A struct argument with a pointer in it."""

    def __init__(self, array, arrays=()):
        self.array, self.arrays = None, arrays
        self.value = np.array([(array.ctypes.data,)], [("pointer", np.uint64)])

    def kernel_argument(self, simulated):
        return self.value


def test_pointers_in_structs():
    source = 'struct S { float* p; }; extern "C" __global__ void k(S s, int i) { s.p[i] = 1; }'
    run = SimulatedModule(source, check=True).get_function("k")
    x = np.zeros(4, np.float32)
    run((1,), (1,), (Hidden(x, [x]), np.int32(3)))
    assert x.tolist() == [0, 0, 0, 1]
    with pytest.raises(SimulatorError, match="argument 0, at byte 16 of 16"):
        run((1,), (1,), (Hidden(x, [x]), np.int32(4)))
    with pytest.raises(SimulatorError, match="in none of the launch's arrays"):
        run((1,), (1,), (Hidden(x), np.int32(0)))


def test_misaligned(modules):
    text = message(modules, "misaligned", np.zeros(80, np.float32), arrays()[1])
    assert "misaligned: thread" in text and "not at a multiple of 16" in text
    assert line_of("misaligned") in text


def test_arrays_that_are_read_only(modules):
    x, out = arrays()
    x.flags.writeable = False
    assert "read-only: thread" in message(modules, "read_only", x, out)


def test_halves_of_a_word_are_two_numbers(modules):
    x, out = arrays(128)
    text = message(modules, "shared_half", x, out)
    assert "race" in text or "uninitialised" in text
    run = modules[False].get_function("shared_half", seed=1)
    run((2,), (64,), (x, out))  # the second block has its barrier: were it alone it would pass
    np.testing.assert_allclose(out[64:], x[:64].reshape(-1, 2)[:, ::-1].reshape(-1), rtol=1e-2)


def test_a_shuffle_from_a_lane_that_is_not_there(modules):
    assert "reads lane 20, which does not take part" in message(modules, "wrong_lane", arrays()[1], block=16)


def test_assertions_of_kernels(modules):
    assert "assertion failed: threadIdx.x < 3" in message(modules, "fails_an_assertion", arrays()[1])


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize(("keep", "barrier"), [(1, 1), (0, 0)])
def test_copies_that_are_not_waited_for(tmp_path, keep, barrier, late):
    """A wait that is off by one group, and a wait without a barrier: found also where the copies happen at once."""
    path = tmp_path / "right.cu"
    path.write_text(RIGHT)
    run = SimulatedModule(path, check=True).get_function("copies", late=late)
    x, out = np.ones(512, np.float32), np.zeros(256, np.float32)
    with pytest.raises(SimulatorError, match=r"(uninitialised|race).*dynamic shared memory \+ \d+ at right.cu:\d+"):
        run((1,), (64,), (x, out, np.int32(keep), np.int32(barrier)), shared_mem=2048)
