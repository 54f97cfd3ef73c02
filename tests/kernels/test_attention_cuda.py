"""The attention ladder on CUDA, run by the simulator: each rung against float64, in every mode; and planted bugs.

Bounds. Tensor cores take their operands in 16 bits, so that a rung must round P (and dS) before the second product, and
its results at the end. That much, and not more: `plain` below is the formula in float64 with just these roundings, and
a rung's error may be twice as large, in the mean and at worst. A bound such as 2e-2 would hide real faults: in bfloat16
`plain` is wrong by some 4e-3 at worst and 2e-4 in the mean.

The same float32 tests as for all implementations are in test_attention.py. The compiler's view of the sources is in
test_cuda_compile.py.
"""

# ruff: noqa: C408 - dict(T=5, causal=True) reads as the call that it becomes
from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from kernels import gpu, simulator
from kernels.attention import attention_backward, attention_forward, cuda, cuda_ampere, reference
from kernels.gpu.launch import flatten

BF16, F16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
NAMES = ("out", "lse", "dq", "dk", "dv")
OPTIONS = ("causal", "offset", "window", "scale")


def on(seed=0, late=1, arch="sm_80"):
    return gpu.numpy_on("simulator", seed=seed, late=late, arch=arch)


def inputs(D, dtype, T=64, S=None, H=1, heads_kv=None, B=1, seed=0):
    """dout, q, k, v."""
    rng = np.random.default_rng(seed)
    kv = (B, heads_kv or H, T if S is None else S, D)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((B, H, T, D), (B, H, T, D), kv, kv)]


def run(forward, backward, dout, q, k, v, **options):
    """[out, lse, dq, dk, dv] with these rungs."""
    with cuda.use_rungs(forward, backward):
        out, lse = attention_forward(q, k, v, impl="cuda", **options)
        return [out, lse, *attention_backward(dout, q, k, v, out, lse, impl="cuda", **options)]


def exact_and_plain(dout, q, k, v, out, lse, causal=False, offset=0, window=None, scale=None):
    """[out, lse, dq, dk, dv] in float64; and the same with P, dS and the results rounded to q's dtype.

    The gradients are those of the rung's own out and lse.
    """
    dtype, D = q.dtype, q.shape[-1]
    scale = D**-0.5 if scale is None else scale
    options = dict(causal=causal, offset=offset, window=window, scale=scale)
    dout, q, k, v, out, lse = (x.astype(np.float64) for x in (dout, q, k, v, out, lse))
    exact = [*reference.attention_forward(q, k, v, None, **options)]
    exact += reference.attention_backward(dout, q, k, v, out, lse, None, **options)

    def rounded(x):
        return x.astype(dtype).astype(np.float64)

    group = q.shape[1] // k.shape[1]
    K, V = np.repeat(k, group, 1), np.repeat(v, group, 1)
    i, j = np.arange(q.shape[2])[:, None], np.arange(k.shape[2])
    seen = np.ones((q.shape[2], k.shape[2]), bool)
    if causal:
        seen &= j <= i + offset
    if window is not None:
        seen &= j > i + offset - window
    s = np.where(seen, scale * (q @ K.swapaxes(2, 3)), -np.inf)
    top = s.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    p = np.exp(s - top)  # rounded before it is divided by its sum, as the rungs do
    total = p.sum(-1, keepdims=True)
    results = [rounded(rounded(p) @ V / np.where(total, total, 1)), exact[1]]
    p = np.where(seen, np.exp(s - np.where(np.isfinite(lse), lse, 0)[..., None]), 0)
    ds = rounded(p * (dout @ V.swapaxes(2, 3) - (dout * out).sum(-1, keepdims=True)))

    def grouped(x):
        return x.reshape(*k.shape[:2], group, *k.shape[2:]).sum(2)

    grads = (ds @ K * scale, grouped(ds.swapaxes(2, 3) @ q) * scale, grouped(rounded(p).swapaxes(2, 3) @ dout))
    return exact, results + [rounded(x) for x in grads]


def errors(results, dout, q, k, v, **options):
    """What is wrong with the results: sentences."""
    exact, plain = exact_and_plain(dout, q, k, v, *results[:2], **options)
    eps, wrong = float(ml_dtypes.finfo(q.dtype).eps), []
    for name, x, want, low in zip(NAMES, results, exact, plain):
        if x.dtype != (np.float32 if name == "lse" else q.dtype) or x.shape != want.shape:
            wrong.append(f"{name}: {x.dtype} {x.shape}")
        if not np.array_equal(x == -np.inf, want == -np.inf):
            wrong.append(f"{name}: -inf elsewhere")
        x, want, low = (np.where(want == -np.inf, 0, y).astype(np.float64) for y in (x, want, low))
        got, usual = np.abs(x - want), np.abs(low - want)
        # lse: nothing of it is rounded to 16 bits. Others: float32 where terms cancel, and where `plain` is lucky
        if name == "lse":
            floor = 2e-6 * max(1, np.abs(want).max())
        else:
            factor = {"dq": np.abs(k).max(), "dk": np.abs(q).max()}.get(name, 1)
            floor = max(4e-6 * max(1, float(factor)), eps / 8 * np.abs(want).mean())
        if not (got.max() <= 2 * usual.max() + 4 * floor and got.mean() <= 2 * usual.mean() + floor):
            wrong.append(f"{name}: error {got.mean():.2e} (at worst {got.max():.2e}), plain {usual.mean():.2e}")
    return wrong


# Every rung, on the shapes that its tiles do not like -------------------------------------------------------------

CASES = {
    "1": dict(T=1),
    "63, causal": dict(T=63, causal=True),
    "64": dict(T=64),
    "65": dict(T=65, H=2),
    "130, causal": dict(T=130, causal=True),
    "decode": dict(T=1, S=97, H=4, heads_kv=2, causal=True, offset=96),
    "cache": dict(T=5, S=200, causal=True, offset=195),
    "T < S": dict(T=65, S=130),
    "T > S": dict(T=130, S=63, causal=True),
    "rows that see nothing": dict(T=70, causal=True, offset=-7),
    "nobody sees anything": dict(T=10, causal=True, offset=-20),
    "window": dict(T=130, window=33),
    "window, causal, offset": dict(T=64, S=150, causal=True, offset=70, window=20),
    "grouped, batch": dict(B=2, T=33, H=4, heads_kv=2, causal=True),
    "one kv head, scale": dict(T=65, S=64, H=3, heads_kv=1, scale=0.3),
}
PAIRS = [("1", "1"), ("2", "2b"), ("3", "2b_deterministic")]
FEW = {  # the arrays, and of which GPU: its shared memory decides how large the tiles of 2b are
    "bf16-64-sm_80": (BF16, 64, "sm_80"),
    "f16-128-sm_86": (F16, 128, "sm_86"),
}
ALL = {
    f"{t}-{d}-{a}": (x, d, a) for t, x in (("bf16", BF16), ("f16", F16)) for d in (64, 128) for a in ("sm_80", "sm_86")
}


def split(case):
    return {n: x for n, x in case.items() if n not in OPTIONS}, {n: x for n, x in case.items() if n in OPTIONS}


@pytest.mark.parametrize(
    "pair, kind",
    [(PAIRS[0], "f16-64-sm_80"), *((pair, kind) for pair in PAIRS[1:] for kind in FEW)],
    ids=lambda x: x if isinstance(x, str) else "-".join(x),
)
def test_conforms(pair, kind):
    dtype, D, arch = ALL[kind]
    wrong = []
    for n, (name, case) in enumerate(CASES.items()):
        shape, options = split(case)
        arrays = inputs(D, dtype, **shape)
        with on(seed=n % 3, late=n % 2, arch=arch):
            wrong += [f"{name}: {text}" for text in errors(run(*pair, *arrays, **options), *arrays, **options)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_conforms_in_every_variant_and_mode(pair, kind, seed):
    dtype, D, arch = ALL[kind]
    wrong = []
    for late in (0, 1) if pair[0] != "1" else (0,):  # nothing here is later than cp.async, and rung 1 has no copies
        for name, case in CASES.items():
            shape, options = split(case)
            arrays = inputs(D, dtype, **shape, seed=seed)
            with on(seed, late, arch):
                wrong += [f"{name}: {text}" for text in errors(run(*pair, *arrays, **options), *arrays, **options)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.gpu
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("kind", ["bf16-64-sm_80", "bf16-128-sm_80", "f16-64-sm_80", "f16-128-sm_80"])
def test_conforms_on_a_gpu(pair, kind):
    dtype, D, _ = ALL[kind]
    wrong = []
    for name, case in {**CASES, "long": dict(T=1025, H=2, causal=True), "long, full": dict(T=500, S=1100)}.items():
        shape, options = split(case)
        arrays = inputs(D, dtype, **shape)
        with gpu.numpy_on("device"):
            if pair[0] != "1" and gpu.compute_capability(arrays[0]) < (8, 0):
                pytest.skip("tensor cores for bfloat16 came with sm_80")
            wrong += [f"{name}: {text}" for text in errors(run(*pair, *arrays, **options), *arrays, **options)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_no_order_of_warps_and_no_time_of_arrival_changes_a_bit(pair):
    """But for dq of 2b, whose atomics come in any order."""
    arrays = inputs(64, BF16, T=130 if pair[0] != "1" else 40, H=2, heads_kv=1)
    first = None
    for seed in range(3):
        for late in range(4):
            with on(seed, late):
                results = run(*pair, *arrays, causal=True)
            first = first or results
            for name, x, y in zip(NAMES, results, first):
                if name != "dq" or pair[1] != "2b":
                    assert x.tobytes() == y.tobytes(), f"{name}, seed {seed}, late {late}"
    assert not errors(results, *arrays, causal=True)


@pytest.mark.parametrize("kind", FEW)
def test_no_bank_conflicts(kind, monkeypatch):
    """The swizzle: every read by ldmatrix takes one pass. (And without it they would be counted: below.)"""
    dtype, D, arch = FEW[kind]
    launches, load = [], cuda_ampere._kernel

    def counted(*arguments, **macros):
        kernel = load(*arguments, **macros)

        def launch(*arguments, **options):
            kernel(*arguments, **options)
            launches.append(dict(simulator.counters))

        return launch

    monkeypatch.setattr(cuda_ampere, "_kernel", counted)
    arrays = inputs(D, dtype, T=70)
    with on(arch=arch):
        for pair in PAIRS[1:]:
            run(*pair, *arrays)
    assert len(launches) == 1 + 3 + 1 + 3
    assert sum(x["ldmatrix"] > 0 for x in launches) == 5 and not any(x["bank_conflicts"] for x in launches)


# What is masked stays out, what is large stays finite --------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_masked_keys_leak_nothing(pair, poison):
    dout, q, k, v = inputs(64, BF16, T=70, S=90)
    for options, dead in (
        (dict(causal=True), np.arange(90) >= 70),  # in one tile with keys that are seen, and with queries that see them
        (dict(causal=True), np.arange(90) == 40),
        (dict(window=5, offset=20), np.arange(90) < 18),
    ):
        blind = np.zeros(70, bool)  # queries that see a dead key
        for i in range(70):
            low, high = (0, i) if "causal" in options else (i + 16, 89)
            blind[i] = dead[low : high + 1].any()
        results = []
        for value in (0, poison):
            poisoned = [np.where(dead[:, None], np.array(value, BF16), x) for x in (k, v)]
            with on():
                # dout 0 where it would carry what is seen into the gradients of other keys
                results.append(run(*pair, np.where(blind[:, None], np.array(0, BF16), dout), q, *poisoned, **options))
        for name, x, y in zip(NAMES[:3], *results):
            assert np.array_equal(x[:, :, ~blind], y[:, :, ~blind]), name
            assert np.isfinite(y[:, :, ~blind].astype(np.float32)).all(), name
        assert not blind.any() or np.isnan(poison) <= np.isnan(results[1][0][:, :, blind].astype(np.float32)).all()
        if not blind.any():
            assert all(np.array_equal(x, y) for x, y in zip(results[0][3:], results[1][3:]))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_queries_that_do_not_see_a_key_leak_nothing_into_its_gradient(pair):
    dout, q, k, v = inputs(64, BF16, T=70)
    q[:, :, :5], dout[:, :, :5] = np.nan, np.nan  # with causal these see keys 0..4 alone
    with on():
        dk, dv = run(*pair, dout, q, k, v, causal=True)[3:]
    for x in (dk.astype(np.float32), dv.astype(np.float32)):
        assert np.isnan(x[:, :, :5]).all() and np.isfinite(x[:, :, 5:]).all()


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_large_scores(pair):
    """Rising: each tile has a new largest score. Scores of 1e9 are 64 apart: then a softmax is 0 and 1."""
    for size in (30.0, 1e4, 1e9):
        for order in (1, -1):
            dout, q, k, v = inputs(64, BF16, T=20, S=150)
            q[..., 0], q[..., 1:] = 1, q[..., 1:] * 0.01
            k[..., 0] = np.linspace(-size, size, 150)[::order]
            with on():
                results = run(*pair, dout, q, k, v, scale=1.0)
            assert all(np.isfinite(x.astype(np.float32)).all() for x in results)
            if size < 1e9:  # there float32 rounds lse by 32
                assert not errors(results, dout, q, k, v, scale=1.0), (size, order)
            else:
                assert np.array_equal(results[0], np.broadcast_to(v[:, :, -1 if order == 1 else 0, None], q.shape))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_odd_layouts(pair):
    """Strided, and contiguous at an address that is no multiple of 16."""
    arrays = inputs(64, BF16, T=40, H=2)
    with on():
        want = run(*pair, *arrays, causal=True)
        turned = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in arrays]
        shifted = []
        for x in arrays:
            room = np.zeros(x.size + 1, BF16)
            shifted.append(room[1:].reshape(x.shape))
            shifted[-1][...] = x
        for views in (turned, shifted):
            for name, x, y in zip(NAMES, want, run(*pair, *views, causal=True)):
                if name == "dq" and pair[1] == "2b":
                    assert np.allclose(x.astype(np.float32), y.astype(np.float32), atol=0.02)
                else:
                    assert np.array_equal(x, y), name


# Which rung runs ---------------------------------------------------------------------------------------------------


def chosen(q, k, **options):
    options = cuda.Options(
        **{**dict(bias=None, causal=False, offset=0, window=None, scale=1.0, dropout=None), **options}
    )
    names = {id(rung): name for name, rung in cuda.RUNGS.items()}
    return [names[id(cuda.choose(what, None, q, k, k, options))] for what in ("forward", "backward")]


def test_the_best_rung_that_can():
    half, single, narrow = (np.zeros((1, 1, 2, d), t) for d, t in ((64, BF16), (64, np.float32), (80, BF16)))
    for arch in ("sm_80", "sm_86", "sm_89", "sm_100", "sm_120"):
        with on(arch=arch):
            assert chosen(half, half) == ["3", "2b"]
    with on(arch="sm_75"):
        assert chosen(half, half) == ["1", "1"]
    with on(arch="sm_90a"):
        assert chosen(half, half)[0][0] in "456" and chosen(half, half)[1] == "4b"
        for q, options in (
            (single, {}), (narrow, {}), (half, dict(scale=-1.0)), (half, dict(scale=0.0)),
            (half, dict(dropout=(0.1, 0, 0))), (half, dict(bias=np.zeros((1, 1, 1, 1), BF16))),
        ):  # fmt: skip
            assert chosen(q, q, **options) == ["1", "1"]


def test_a_rung_that_was_asked_for_and_cannot_is_an_error():
    _, q, k, v = inputs(64, BF16, T=4)
    single = [x.astype(np.float32) for x in (q, k, v)]
    with on():
        with pytest.raises(ValueError, match="no forward rung '2b'; there are 1, 2, 3"):
            cuda.use_rungs("2b").__enter__()
        with cuda.use_rungs("2"), pytest.raises(NotImplementedError, match="rung 2 cannot.*not float32"):
            attention_forward(*single, impl="cuda")
        with cuda.use_rungs("3"), pytest.raises(NotImplementedError, match="neither bias"):
            attention_forward(q, k, v, bias=np.ones((4, 4), bool), impl="cuda")
        with cuda.use_rungs("4"), pytest.raises(NotImplementedError, match="Hopper"):
            attention_forward(q, k, v, impl="cuda")
        options = dict(causal=True, offset=0, window=None, scale=1.0)
        with pytest.raises(NotImplementedError, match="rung 2 cannot"):
            cuda.attention_forward(*single, None, **options, rung="2")
        assert cuda.attention_forward(q, k, v, None, **options, rung="2")[0].dtype == BF16
    with on(arch="sm_75"), cuda.use_rungs("3"), pytest.raises(NotImplementedError, match="8.0 or later"):
        attention_forward(q, k, v, impl="cuda")


def test_bf16_of_float32_arrays_runs_on_tensor_cores():
    arrays = [x.astype(np.float32) for x in inputs(64, BF16, T=40)]  # numbers that bfloat16 has
    with on():
        out, lse = attention_forward(*arrays[1:], causal=True, bf16=True, impl="cuda")
        assert simulator.counters["mma"] > 0
        grads = attention_backward(*arrays, out, lse, causal=True, bf16=True, impl="cuda")
    assert all(x.dtype == np.float32 for x in (out, lse, *grads))
    halves = [x.astype(BF16) for x in (out, *grads)]
    assert not errors([halves[0], lse, *halves[1:]], *(x.astype(BF16) for x in arrays), causal=True)


# Planted bugs: each is found by what the tests above look at -------------------------------------------------------

RUNG_2, RUNG_2B, RUNG_3 = "FORWARD_2", "BACKWARD_2B", "FORWARD_3"
BUGS = {  # the source, what is replaced (a pattern that occurs once), what by
    "2: no barrier before the values are loaded": (RUNG_2, r"__syncthreads\(\);(?= +// the keys are here)", ""),
    "2: no barrier before the keys are loaded": (RUNG_2, r"__syncthreads\(\);(?= +// the values are here)", ""),
    "2: waits for all groups but one": (
        RUNG_2,
        r"cp_async_wait<0>\(\);(?=\s+__syncthreads\(\); +// the val)",
        "cp_async_wait<1>();",
    ),
    "2: one key too many": (RUNG_2, r"j >= S \|\|", "j > S ||"),
    "2: the tile past the end is not masked": (RUNG_2, r"j0 \+ KEYS > n\.S \|\| ", ""),
    "2: causal sees one key too many": (RUNG_2, r"j <= i \+ m\.high;", "j <= i + m.high + 1;"),
    "2: sums are not rescaled": (RUNG_2, r"total\[h\] \* shrink", "total[h]"),
    "3: no barrier before a stage is loaded again": (RUNG_3, r"__syncthreads\(\);(?= +// this tile is here)", ""),
    "3: q overwritten while it is read": (RUNG_3, r"__syncthreads\(\);(?= +// all have read it)", ""),
    "3: does not wait for the tile": (
        RUNG_3,
        r"cp_async_wait<0>\(\);(?=\s+__syncthreads\(\); +// this)",
        "cp_async_wait<1>();",
    ),
    "3: both stages in one place": (RUNG_3, r"base \+ tile % 2 \* STAGE;", "base;"),
    "2b: dS read before it is there": (RUNG_2B, r"__syncthreads\(\);(?= +// dS of all)", ""),
    "2b: a stage overwritten while it is read": (RUNG_2B, r"__syncthreads\(\);(?= +// the tile is here; nobody)", ""),
    "2: reads a row past the end": (RUNG_2, r"first \+ r < n;", "first + r <= n;"),
    "2: writes a row past the end": (RUNG_2, r"if \(i >= n\.T\) continue;", "if (i > n.T) continue;"),
    "3: out read by lanes that do not wait for others": (
        RUNG_3,
        r"__syncwarp\(\);(?=\n#pragma unroll\n    for \(int e)",
        "",
    ),
    "2b: the last queries are left out": (RUNG_2B, r"- first \+ QUERIES - 1\) / QUERIES", "- first) / QUERIES"),
    "2b: a sum over blocks that is not atomic": (
        RUNG_2B,
        r"atomicAdd\(to \+ 8 \* c \+ e, (scale \* sum\[c\]\[2 \* h \+ e\])\);",
        r"to[8 * c + e] += \1;",
    ),
}


def plant(bug, monkeypatch, tmp_path):
    source, pattern, by = bug
    path = getattr(cuda_ampere, source)
    text, count = re.subn(pattern, by, flatten(path))
    assert count == 1, f"{pattern} stands {count} times in {path.name}"
    (tmp_path / path.name).write_text(text)
    monkeypatch.setattr(cuda_ampere, source, tmp_path / path.name)


def found(pair):
    """What the checks say of these rungs."""
    cases = [(dict(T=140, S=137, H=2), dict(causal=True, offset=3)), (dict(T=66, S=70), {})]
    for seed in range(3):
        for shape, options in cases:
            arrays = inputs(64, BF16, **shape)
            with on(seed, late=1):
                try:
                    wrong = errors(run(*pair, *arrays, **options), *arrays, **options)
                except simulator.SimulatorError as error:
                    wrong = [str(error)]
            if wrong:
                return wrong
    return []


def test_nothing_is_found_where_nothing_is_planted():
    assert found(("2", "2b")) == found(("3", "2b")) == []


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name, monkeypatch, tmp_path):
    plant(BUGS[name], monkeypatch, tmp_path)
    assert found({"3": ("3", "2b")}.get(name.split(":")[0], ("2", "2b")))


def test_a_tile_without_swizzle_is_right_but_slow(monkeypatch, tmp_path):
    plant((RUNG_2, r"chunk \^ \(CHUNKS >= 8 \? row % 8 : row / 2 % 4\)", "chunk"), monkeypatch, tmp_path)
    arrays = inputs(64, BF16, T=70)
    with on(), cuda.use_rungs("2"):
        out, lse = attention_forward(*arrays[1:], impl="cuda")
    assert simulator.counters["bank_conflicts"] == 7 * 4 * simulator.counters["ldmatrix"]  # 8 passes for each matrix
    with on(), cuda.use_rungs("2"):
        monkeypatch.undo()
        want = attention_forward(*arrays[1:], impl="cuda")
    assert np.array_equal(out, want[0]) and np.array_equal(lse, want[1])
