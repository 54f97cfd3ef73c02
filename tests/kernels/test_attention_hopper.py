"""Attention's rungs for Hopper (TMA, wgmma) in the simulator, against float64; and bugs planted in them are caught.

Every rung runs with asynchronous copies and products at their earliest and at their latest, in drawn orders of warps.
The last section repeats the cases on a real GPU (-m gpu).
"""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels import gpu, simulator
from kernels.attention import cuda_hopper, reference
from kernels.gpu.tensor_map import TensorMap
from kernels.simulator import SimulatorError

BF16, F16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
FORWARD = ("4", "5", "6")
ERROR = {BF16: 2e-3, F16: 2.5e-4}  # of a result, relative to its norm: sources and weights are rounded


def case(T, S, D, dtype, B=1, H=1, H_kv=1, seed=0):
    """dout, q, k, v."""
    r = np.random.default_rng(seed)
    shapes = ((B, H, T, D), (B, H, T, D), (B, H_kv, S, D), (B, H_kv, S, D))
    return [r.standard_normal(shape).astype(dtype) for shape in shapes]


def exact(arrays, **options):
    """out, lse, (dq, dk, dv) in float64."""
    dout, q, k, v = (x.astype(np.float64) for x in arrays)
    options = {"causal": False, "offset": 0, "window": None, "scale": q.shape[-1] ** -0.5, **options}
    with np.errstate(all="ignore"):
        out, lse = reference.attention_forward(q, k, v, None, **options)
        return out, lse, reference.attention_backward(dout, q, k, v, out, lse, None, **options)


def close(got, want, dtype, factor=1.0):
    got = got.astype(np.float64)
    assert got.shape == want.shape
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    finite = np.isfinite(want)
    off = np.linalg.norm((got - want)[finite]) / max(np.linalg.norm(want[finite]), 1e-3 * np.sqrt(want.size))
    assert off <= factor * ERROR[dtype], f"relative error {off:.2e}"


def check_forward(rung, arrays, truth, **options):
    dtype = arrays[0].dtype
    out, lse = cuda_hopper.attention_forward(*arrays[1:], rung=rung, **options)
    assert (out.dtype, lse.dtype) == (dtype, np.float32)
    close(out, truth[0], dtype, 1.2)
    np.testing.assert_array_equal(np.isneginf(lse), np.isneginf(truth[1]))
    finite = np.isfinite(truth[1])
    # rung 6: half of the largest error of its polynomial, 8e-5
    np.testing.assert_allclose(lse[finite], truth[1][finite], atol=8e-5 if rung == "6" else 4e-6, rtol=0)
    return out, lse


def check_backward(rung, arrays, truth, **options):
    dout, q, k, v = arrays
    dtype = q.dtype
    out, lse = truth[0].astype(dtype), truth[1].astype(np.float32)
    grads = cuda_hopper.attention_backward(dout, q, k, v, out, lse, rung=rung, **options)
    for got, want, x in zip(grads, truth[2], (q, k, v)):
        assert (got.dtype, got.shape) == (dtype, x.shape)
        close(got, want, dtype, 2)
    return grads


def check(rung, arrays, truth, **options):
    run = check_backward if cuda_hopper.RUNGS[rung].backward else check_forward
    return run(rung, arrays, truth, **options)


SECOND_LOOK = "return __any_sync(0xffffffffu, sum != 0);"  # cuda_exact.cuh: is something not finite?


@pytest.fixture(scope="module")
def strict_folder(tmp_path_factory):
    """The ladder, where a result that is not finite is an error.

    The kernels compute such a result again, and would so repair what the simulator's NaN are there to show: copies and
    products that are not waited for.
    """
    folder = tmp_path_factory.mktemp("ladder")
    for path in [*cuda_hopper.LADDER.glob("*.cuh"), *cuda_hopper.LADDER.glob("cuda_*.cu")]:
        text = path.read_text()
        assert (SECOND_LOOK in text) == (path.name == "cuda_exact.cuh")
        (folder / path.name).write_text(text.replace(SECOND_LOOK, "if (sum != 0) __trap(); return false;"))
    return folder


@pytest.fixture
def strict(strict_folder, monkeypatch):
    for name, rung in cuda_hopper.RUNGS.items():
        monkeypatch.setitem(cuda_hopper.RUNGS, name, rung._replace(source=strict_folder / rung.source.name))


BUILDS = [  # what the ordinary run compiles: each rung with both head dims, both dtypes in two of them
    ("4", BF16, 64), ("4", F16, 128), ("5", F16, 64), ("5", BF16, 128), ("6", BF16, 64), ("6", BF16, 128),
    ("4b", BF16, 64), ("4b", F16, 128),
]  # fmt: skip
OTHERS = [(r, t, d) for r in cuda_hopper.RUNGS for t in (BF16, F16) for d in (64, 128) if (r, t, d) not in BUILDS]
builds = pytest.mark.parametrize(
    "rung, dtype, D",
    [*BUILDS, *(pytest.param(*b, marks=pytest.mark.slow) for b in OTHERS)],
    ids=lambda x: x if isinstance(x, str) else str(x),
)
MASKS = {  # T, S, heads, options
    "full, grouped heads": (70, 150, {"B": 2, "H": 2, "H_kv": 1}, {}),
    "causal, several tiles": (270, 270, {}, {"causal": True}),
    "causal, cached keys": (9, 301, {"H": 2, "H_kv": 2}, {"causal": True, "offset": 292}),
    "rows that see nothing": (210, 150, {}, {"causal": True, "offset": -100}),
    "window": (200, 333, {}, {"window": 40, "offset": 60, "scale": 0.3}),
    "window behind the keys": (200, 70, {}, {"causal": True, "window": 9, "offset": 40}),
    "one query, one key": (1, 1, {}, {}),
    "nothing seen at all": (65, 65, {}, {"causal": True, "offset": -1000}),
}


@pytest.mark.usefixtures("strict")
@builds
def test_masks_and_ragged_lengths(rung, dtype, D):
    for number, (T, S, heads, options) in enumerate(MASKS.values()):
        arrays = case(T, S, D, dtype, **heads)
        with gpu.numpy_on("simulator", seed=number):
            check(rung, arrays, exact(arrays, **options), **options)


@pytest.mark.usefixtures("strict")
@builds
def test_every_mode_and_order_gives_the_same_bits(rung, dtype, D):
    """Six tiles: every stage is used three times. dq, which blocks add to as they come, may differ in its last bits."""
    arrays = case(100, 700, D, dtype)
    options = {"causal": True, "offset": 580}
    truth = exact(arrays, **options)
    seen = set()
    for late in range(4):
        for seed in range(3):
            with gpu.numpy_on("simulator", seed=seed, late=late):
                results = check(rung, arrays, truth, **options)
            seen.add(b"".join(x.tobytes() for x in (results[1:] if rung == "4b" else results)))
    assert len(seen) == 1


@pytest.mark.parametrize("rung, D", [("4", 64), ("5", 128), ("4b", 64)])
def test_what_is_not_seen_has_no_part(rung, D):
    """NaN and infinity in masked keys and queries stay there; where they are seen, they show."""
    dout, q, k, v = arrays = case(150, 200, D, BF16, H=2)
    options = {"causal": True, "offset": 20, "window": 60}
    k[0, 0, 150] = v[0, 0, 155] = q[0, 1, 60] = dout[0, 0, 30] = np.nan
    v[0, 0, 150, 3] = np.inf
    k[0, 0, 199] = v[0, 0, 199] = np.nan  # nobody sees this one
    truth = exact(arrays, **options)
    assert 0 < np.isnan(truth[0]).sum() < truth[0].size / 2
    with gpu.numpy_on("simulator"):
        check(rung, arrays, truth, **options)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("rung", ["5", "6"])
def test_the_schedule_covers_every_tile_for_any_grid(rung):
    D, dtype = (64, F16) if rung == "5" else (64, BF16)
    arrays = case(200, 60, D, dtype, B=2, H=2, H_kv=1)
    truth = exact(arrays, causal=True)
    for grid in (1, 2, 5, 8, 100):
        with gpu.numpy_on("simulator", seed=grid):
            check(rung, arrays, truth, causal=True, grid=grid)


@pytest.mark.usefixtures("strict")
def test_wide_tiles_of_full_attention():
    arrays = case(70, 900, 128, BF16)
    truth = exact(arrays)
    for seed in range(3):
        for late in (0, 3):
            with gpu.numpy_on("simulator", seed=seed, late=late):
                check("5", arrays, truth)


@pytest.mark.usefixtures("strict")
def test_scores_that_grow_from_tile_to_tile():
    """The lazy correction: the largest score moves by less, by more, and by far more than it tolerates."""
    dout, q, k, v = arrays = case(40, 640, 64, BF16)
    q[...] = 1
    steps = np.array([0, 0.5, 0.9, 2, 1]).repeat(128)  # times 64 channels * scale
    k[0, 0] = (k[0, 0] * 0.05 + steps[:, None]).astype(BF16)
    with gpu.numpy_on("simulator"):
        check("6", arrays, exact(arrays))


@pytest.mark.usefixtures("strict")
def test_any_strides():
    dout, q, k, v = arrays = case(30, 20, 64, BF16, H=2)
    q = np.array(q.swapaxes(1, 2)).swapaxes(1, 2)
    odd = np.empty(k.nbytes + 2, np.uint8)[2:].view(BF16).reshape(k.shape)  # not at a multiple of 16 bytes
    odd[...] = k
    with gpu.numpy_on("simulator"):
        k = np.repeat(k, 2, axis=1)[:, ::2]
        check("4", (dout, q, odd, v), exact(arrays))


def test_the_public_functions_come_here():
    """On a Hopper GPU, with what these kernels can do; else another rung runs."""
    dout, q, k, v = arrays = case(40, 50, 64, BF16)
    truth = exact(arrays, causal=True, offset=10)
    for arch, expected in (("sm_90a", True), ("sm_80", False)):
        with gpu.numpy_on("simulator", arch=arch):
            out, lse = kernels.attention_forward(q, k, v, causal=True, offset=10, impl="cuda")
            assert (simulator.counters["wgmma"] > 0) == expected
            grads = kernels.attention_backward(dout, q, k, v, out, lse, causal=True, offset=10, impl="cuda")
        for got, want in zip((out, *grads), (truth[0], *truth[2])):
            close(got, want, BF16, 3)


def test_supports():
    q = np.zeros((1, 2, 3, 64), BF16)
    with gpu.numpy_on("simulator"):
        assert cuda_hopper.supports(q, q, q)
        assert not cuda_hopper.supports(*[q.astype(np.float32)] * 3)
        assert not cuda_hopper.supports(*[q[..., :32]] * 3)
        assert not cuda_hopper.supports(q, q, q, np.zeros((1, 1, 3, 3)))
        assert not cuda_hopper.supports(q, q, q, scale=-1.0)
        assert not cuda_hopper.supports(q, q, q, dropout=(0.5, 0, 0))
    with gpu.numpy_on("simulator", arch="sm_100"):
        assert not cuda_hopper.supports(q, q, q)


def test_tensor_maps_refuse_what_tma_cannot_do():
    x = np.zeros((2, 8, 64), BF16)
    for array, box, swizzle, words in [
        (x[0], (8, 64), 128, "3 or 4 dimensions"),
        (x[:, ::2], (1, 4, 64), 128, "contiguous"),
        (x, (1, 8, 128), 128, "at most"),
        (x, (1, 300, 64), 128, "1 to 256"),
        (x, (1, 8, 64), 64, "swizzle is"),
        (x.reshape(2, 128, 4), (1, 8, 4), 0, "16 bytes"),
        (x.astype(np.int32), (1, 8, 32), 128, "int32"),
    ]:
        with pytest.raises((ValueError, TypeError), match=words):
            TensorMap(array, box, swizzle)


# ---- TMA and wgmma by themselves ------------------------------------------------------------------------------------

PRODUCT = """
#include "hopper.cuh"
// D (64 x 64) = A B, each operand from shared memory: as it is, or transposed. Boxes of a tensor with four dimensions.
extern "C" __global__ void product(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
                                   const __grid_constant__ TensorMap d_map) {
    DYN_SMEM(memory);
    const u32 a = shared_address(memory), b = a + 8192, d = b + 8192, full = d + 16384;
    if (threadIdx.x == 0) { mbarrier_init(full, 1); mbarrier_init_fence(); }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect(full, 2 * 8192);
        tma_load(a, &a_map, full, 0, 0, 1, 2);
        tma_load(b, &b_map, full, 0, 0, 1, 2);
    }
    mbarrier_wait(full, 0);
    float x[32];
    wgmma_fence();
    for (int c = 0; c < 4; c++)
        wgmma_ss<TYPE, A_T, B_T>(x, descriptor(a + c * (A_T ? 2048 : 32)), descriptor(b + c * (B_T ? 2048 : 32)),
                                 c > 0);
    wgmma_commit();
    wgmma_wait<0>();
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    for (int c = 0; c < 8; c++)
        for (int h = 0; h < 2; h++)
            shared_store(swizzled_address(d + c / 4 * 8192, row + 8 * h, (c % 4 * 8 + threadIdx.x % 4 * 2) * 4),
                         make_float2(x[4 * c + 2 * h], x[4 * c + 2 * h + 1]));
    fence_async_proxy();
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int c = 0; c < 2; c++) tma_reduce_add(&d_map, d + c * 8192, 32 * c, -4, 0);
        bulk_commit();
        bulk_wait<0>();
    }
}
"""


@pytest.mark.parametrize("a_transposed, b_transposed, dtype", [(0, 0, BF16), (1, 0, F16), (0, 1, F16), (1, 1, BF16)])
def test_products_and_boxes(tmp_path, a_transposed, b_transposed, dtype):
    source = tmp_path / "product.cu"
    source.write_text(PRODUCT)
    r = np.random.default_rng(0)
    a, b = (r.standard_normal((3, 2, 50, 64)).astype(dtype) for _ in range(2))  # 50 rows: the other 14 arrive as 0
    d = np.ones((1, 40, 64), np.float32)  # the box begins four rows above it and ends below it
    with gpu.numpy_on("simulator"):
        macros = {"TYPE": gpu.type_name(dtype), "A_T": a_transposed, "B_T": b_transposed}
        maps = (*(TensorMap(x, (1, 1, 64, 64)) for x in (a, b)), TensorMap(d, (1, 64, 32)))
        gpu.kernel(source, "product", a, **macros)((1,), (128,), maps, shared_mem=8192 * 4 + 64)
    A, B = (np.pad(x[2, 1].astype(np.float64), ((0, 14), (0, 0))) for x in (a, b))
    want = (A.T if a_transposed else A) @ (B if b_transposed else B.T)
    np.testing.assert_allclose(d[0], 1 + want[4:44], atol=1e-4)


# ---- planted bugs ---------------------------------------------------------------------------------------------------


class Bug(NamedTuple):
    """In a file (the rung's, unless it says another) `text`, wherever it stands between before and after, is replaced.

    The text is one or more statements, or an expression.
    """

    name: str
    text: str
    instead: str = ";"
    before: str = ""
    after: str = ""
    file: str = ""


K_READ = """wgmma_wait<0>();
        if (lane == 0) mbarrier_arrive(k_empty + b);
"""
V_READ = K_READ.replace("k_", "v_")
ADD = "wgmma_rs<TYPE, 1>(d, p[f], descriptor(b + f * 16 * 128, b_panel), true);"
COLUMNS = "descriptor(k + c / 4 * k_panel + c % 4 * 32)"
EXPECT = "mbarrier_arrive_expect(barrier, PANELS * panel);"
K_FULL = "mbarrier_wait(k_full + b, parity);"
COUNT = "mbarrier_init(v_empty + 8 * s, WARPS);"
O_LEAVES = """bulk_wait_read<0>();
            mbarrier_arrive(q_empty + 8 * warpgroup);
"""
TURN_OVER = "named_barrier_arrive(TURN + (warpgroup + 1) % CONSUMERS, 256);"
PV = "multiply_add(o, weights, v + turn % STAGES * KV_BYTES, KV_PANEL);"
DQ_DONE = """wgmma_wait<1>();
        if (lane == 0) mbarrier_arrive(empty + 8 * stage);"""
BOTH, MINE = "named_barrier_sync(BOTH, 256);", "named_barrier_sync(MINE + warpgroup, 128);"


def swapped(lines):
    first, second = lines.strip().split("\n")
    return f"{second}\n{first}"


BUGS = {
    "4": [
        Bug("K released early", K_READ, swapped(K_READ)),
        Bug("V released early", V_READ, swapped(V_READ)),
        Bug("S not waited for", K_READ, K_READ.replace("<0>", "<1>")),
        Bug("O not waited for", V_READ, V_READ.replace("<0>", "<1>")),
        Bug("producer's parity", "mbarrier_wait(k_empty + b, parity ^ 1);", "mbarrier_wait(k_empty + b, parity);"),
        Bug(
            "producer waits for an old turn",
            "mbarrier_wait(v_empty + b, parity ^ 1);",
            "mbarrier_wait(v_empty + b, 1);",
        ),
        Bug("consumers' parity", K_FULL, "mbarrier_wait(k_full + b, 0);"),
        Bug("Q not waited for", "mbarrier_wait(q_full, 0);"),
        Bug("K not waited for", K_FULL),
        Bug("V not waited for", "mbarrier_wait(v_full + b, parity);", after="\n        wgmma_fence"),
        Bug("skipped tiles released unseen", "mbarrier_wait(v_full + b, parity);", after="  "),
        Bug("no fence before S", "wgmma_fence();", after="\n        multiply_scores"),
        Bug("no fence before O", "wgmma_fence();", after="\n        multiply_add"),
        Bug("bytes of one panel", EXPECT, "mbarrier_arrive_expect(barrier, panel);"),
        Bug("too many bytes", EXPECT, "mbarrier_arrive_expect(barrier, PANELS * panel + 16);"),
        Bug("one arrival missing", COUNT, "mbarrier_init(v_empty + 8 * s, WARPS + 1);"),
        Bug("one warpgroup's arrivals are enough", COUNT, "mbarrier_init(v_empty + 8 * s, 4);"),
        Bug("no fence of the barriers", "mbarrier_init_fence();"),
        Bug("no block barrier after init", "__syncthreads();"),
        Bug("no correction of O", "scale_rows(o, factor);"),
        Bug("step of columns", COLUMNS, COLUMNS.replace("32", "64"), file="cuda_hopper.cuh"),
        Bug("step of rows", ADD, ADD.replace("16 *", "8 *"), file="cuda_hopper.cuh"),
        Bug("panels too near", ADD, ADD.replace("b_panel", "b_panel / 2"), file="cuda_hopper.cuh"),
        Bug("not transposed", ADD, ADD.replace("1>", "0>"), file="cuda_hopper.cuh"),
        Bug("one key too many", "n_keys - 1", "n_keys", file="cuda_hopper.cuh", after=") - j"),
    ],
    "5": [
        Bug("S not waited for", "wgmma_wait<1>();", "wgmma_wait<2>();"),
        Bug("O not waited for", "wgmma_wait<0>();", after="\n                if (lane == 0) mbarrier_arrive(v_empty"),
        Bug("Q released before O has left", O_LEAVES, swapped(O_LEAVES)),
        Bug("no proxy fence before the store", "fence_async_proxy();"),
        Bug("no barrier before the store", MINE),
        Bug("no turn given", TURN_OVER),
        Bug("nobody has the first turn", "if (warpgroup == CONSUMERS - 1) named_barrier_arrive(TURN, 256);"),
        Bug("Q of the round before", "mbarrier_wait(q_full + 8 * warpgroup, round & 1);"),
        Bug("Q overwritten", "mbarrier_wait(q_empty + 8 * w, round & 1 ^ 1);"),
        Bug("V of the wrong stage", PV, PV.replace("turn", "(turn + 1)")),
        Bug("turn not counted", "turn++;", before="            ", after="\n        }"),
        Bug("work of another round", "(u64)round * gridDim.x + place", "(u64)round * gridDim.x + blockIdx.x * 0"),
    ],
    "4b": [
        Bug("no barrier for dS", BOTH, after="  "),
        Bug("one buffer for dS", "step % 2 * DS_BYTES", "0"),
        Bug("no proxy fence for dS", "fence_async_proxy();", after="\n        wgmma_fence"),
        Bug("no proxy fence for dQ", "fence_async_proxy();", after="\n        named"),
        Bug("no proxy fence for dK", "fence_async_proxy();", after="\n    named"),
        Bug("dQ overwritten before it has left", "if (thread == 0) bulk_wait_read<0>();"),
        Bug("no barrier before dQ is written", MINE, after="\n#pragma"),
        Bug("no barrier before dQ leaves", MINE, after="\n        if (thread"),
        Bug("Q released early", DQ_DONE, swapped(DQ_DONE)),
        Bug("dP not waited for", "wgmma_wait<0>();", after="\n        score_gradients"),
        Bug("S not waited for", "wgmma_wait<1>();", after="\n        probabilities"),
        Bug("dQ not waited for", "wgmma_wait<0>();", after="\n\n        if (thread"),
        Bug("dQ stored, not added", "tma_reduce_add", "tma_store"),
        Bug("bytes of lse not announced", "Q_BYTES + ROW_BYTES", "Q_BYTES", before="q_full + 8 * stage, "),
        Bug("dK written over K in use", BOTH, after="\n    if"),
        Bug("end not waited for", "bulk_wait<0>();"),
        Bug("first product of dQ adds", "c > 0", "true"),
        Bug("one query too many", "key - m.high - i", "key - m.high - i - 1"),
        Bug("padding takes part", "l == -INFINITY ? INFINITY : l * LOG2_E", "l * LOG2_E * 0.0f"),
    ],
}
CASES = {  # dtype, D, T, S, heads, options: every stage three times; warpgroups that see tiles 0, 1; 0, 1; 1, 2
    "4": [
        (BF16, 128, 100, 700, {}, {"causal": True, "offset": 640, "window": 660}),
        (BF16, 64, 192, 300, {"H": 4, "H_kv": 4}, {"causal": True, "offset": 109, "window": 100}),
    ],
    "5": [(BF16, 128, 250, 500, {"H": 2}, {"causal": True, "offset": 250})],
    "4b": [(BF16, 128, 300, 150, {}, {"causal": True, "offset": 10})],
}


def choice(text, bugs):
    """C++ that does what the text does or, if it acts, a bug."""
    statements = text.rstrip().endswith(";")
    for number, instead in bugs:
        if statements:
            text = f"if (planted({number})) {{ {instead} }} else {{ {text} }}"
        else:
            text = f"(planted({number}) ? {instead} : {text})"
    return text


def plant(original, rung, folder):
    """The source of a rung with all of its bugs in it; $PLANTED is the number of the one that acts."""
    files = {path.name: path.read_text() for path in original.parent.glob("*.cuh")} | {"": original.read_text()}
    places = {}  # (file, start, stop) -> bugs
    for number, bug in enumerate(BUGS[rung], 1):
        start = files[bug.file].find(bug.before + bug.text + bug.after)
        assert start >= 0, f"{bug.name}: its place is not there any more"
        while start >= 0:
            first = start + len(bug.before)
            places.setdefault((bug.file, first, first + len(bug.text)), []).append((number, bug.instead))
            start = files[bug.file].find(bug.before + bug.text + bug.after, start + 1)
    for (file, start, stop), bugs in sorted(places.items(), reverse=True):
        files[file] = files[file][:start] + choice(files[file][start:stop], bugs) + files[file][stop:]
    prelude = """
extern "C" char* getenv(const char*);
extern "C" int atoi(const char*);
static int planted(int bug) { return atoi(getenv("PLANTED")) == bug; }
"""
    for name, text in files.items():
        (folder / (name or original.name)).write_text(text if name else prelude + text)
    return folder / original.name


@pytest.mark.parametrize("rung", list(BUGS))
@pytest.mark.usefixtures("strict")
def test_planted_bugs_are_caught(rung, tmp_path, monkeypatch):
    healthy = cuda_hopper.RUNGS[rung]
    monkeypatch.setitem(cuda_hopper.RUNGS, rung, healthy._replace(source=plant(healthy.source, rung, tmp_path)))
    cases = []
    for dtype, D, T, S, heads, options in CASES[rung]:
        arrays = case(T, S, D, dtype, **heads)
        cases.append((arrays, exact(arrays, **options), options))

    def caught(number, seeds):
        monkeypatch.setenv("PLANTED", str(number))
        for arrays, truth, options in cases:
            for seed in range(seeds):
                try:
                    with gpu.numpy_on("simulator", seed=seed):
                        check(rung, arrays, truth, **options)
                except (AssertionError, SimulatorError):
                    return True
        return False

    assert not caught(0, 3), "something is wrong without a bug"
    missed = [bug.name for number, bug in enumerate(BUGS[rung], 1) if not caught(number, 15)]  # most at once
    assert not missed


# ---- on a GPU -------------------------------------------------------------------------------------------------------


def hopper_gpu():
    try:
        with gpu.numpy_on("device"):
            return gpu.compute_capability(np.zeros(1, np.float32)) == (9, 0)
    except Exception:  # no CuPy, no driver, no device
        return False


@pytest.mark.gpu
@pytest.mark.parametrize("D", [64, 128])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
@pytest.mark.parametrize("rung", list(cuda_hopper.RUNGS))
def test_on_a_gpu(rung, dtype, D):
    if not hopper_gpu():
        pytest.skip("needs a Hopper GPU")
    large = (1000, 1500, {"B": 2, "H": 4, "H_kv": 2}, {"causal": True, "offset": 500})
    for T, S, heads, options in [*MASKS.values(), large]:
        arrays = case(T, S, D, dtype, **heads)
        with gpu.numpy_on("device"):
            check(rung, arrays, exact(arrays, **options), **options)
