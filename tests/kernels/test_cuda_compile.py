"""Every CUDA kernel compiles for every GPU, with nothing spilled; and the checker finds what is planted.

No GPU is needed. `python -m kernels.gpu.nvrtc` prints the figures behind this.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from kernels.gpu import nvrtc
from kernels.gpu.launch import HEADERS


@pytest.fixture(scope="module")
def compiler():
    return nvrtc.version()


@pytest.fixture(scope="module")
def everything(compiler):
    """The ordinary run: [((variant, target), what came of it)]."""
    return list(nvrtc.compile_all(nvrtc.ordinary(nvrtc.variants())))


def check(results):
    wrong = []
    for _, done in results:
        wrong += [str(done)] if isinstance(done, nvrtc.CompileError) else nvrtc.violations(done)
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(900)  # 40 s on two cores that nobody else uses
def test_every_kernel_for_every_target(everything):
    assert {variant for (variant, _), _ in everything} == set(nvrtc.variants())
    check(everything)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_variant_for_every_target(compiler):
    variants = nvrtc.variants()
    done = set(nvrtc.ordinary(variants))
    check(nvrtc.compile_all(pair for pair in nvrtc.pairs(variants) if pair not in done))


def test_the_list_covers_every_source_file():
    """A .cu file without a line in some VARIANTS would be compiled by nobody."""
    listed = {variant.path for variant in nvrtc.variants()}
    assert listed >= {path.resolve() for path in nvrtc.KERNELS.glob("*/**/*.cu")}


# ---------------------------------------------------------------------------------------- planted violations

HEAD = '#include "common.cuh"\n'
PLAIN = HEAD + 'extern "C" __global__ void plain(float* x) { x[threadIdx.x] *= 2.0f; }\n'
SPILLS = (
    HEAD
    + """
extern "C" __global__ void __launch_bounds__(1024) spills(float* x, int n) {   // 64 registers a thread
    float a[96];
#pragma unroll
    for (int i = 0; i < 96; i++) a[i] = x[i * n + threadIdx.x];
    __syncthreads();
    for (int r = 0; r < n; r++)
#pragma unroll
        for (int i = 0; i < 96; i++) a[i] = a[i] * a[(i + 1) % 96] + x[r];
#pragma unroll
    for (int i = 0; i < 96; i++) x[i * n + threadIdx.x] = a[i];
}
"""
)
COMPUTED_INDEX = (
    HEAD
    + """
extern "C" __global__ void indexed(float* x, const int* at, int n) {   // registers cannot be numbered at run time
    float a[64];
#pragma unroll
    for (int i = 0; i < 64; i++) a[i] = 0;
    for (int i = 0; i < n; i++) a[at[i] % 64] += x[i];
    for (int i = 0; i < n; i++) x[i] = a[at[i + n] % 64];
}
"""
)
SHARED = (
    HEAD
    + """
extern "C" __global__ void much(float* x, int n) {
    __shared__ float s[SIZE / 4];
    for (int i = threadIdx.x; i < SIZE / 4; i += 32) s[i] = x[i];
    __syncthreads();
    x[threadIdx.x] = s[n];
}
"""
)
UNUSED = HEAD + 'extern "C" __global__ void careless(float* x) { int unused = 3; x[threadIdx.x] = 1.0f; }\n'
TENSOR_CORES = (
    '#include "ptx.cuh"\n'
    + """
extern "C" __global__ void attention_forward(const bf16* x, float* out) {
    __shared__ __align__(16) bf16 tile[32 * 8];
    cp_async16(shared_address(tile + 8 * threadIdx.x), x + 8 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    u32 a[4];
    float d[4] = {};
    ldmatrix_x4(a, shared_address(tile + 8 * threadIdx.x));
#ifndef WITHOUT_PRODUCT
    mma_m16n8k16<bf16>(d, a, a[0], a[1]);
#endif
    for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = d[i] + a[i];
}
"""
)
WGMMA = (
    HEAD
    + """
extern "C" __global__ void attention_forward(float* x, u64 a, u64 b) {
    float d[4] = {};
#ifndef SERIAL
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
#ifdef SERIAL
    d[0] += 1.0f;              // touched while the product is under way: the assembler has to wait after each
#endif
    asm volatile("wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;" ::: "memory");
    for (int i = 0; i < 4; i++) x[4 * threadIdx.x + i] = d[i];
}
"""
)


@pytest.fixture
def compiled(compiler, tmp_path):
    def compile(source, arch="sm_80", name="k.cu", dynamic_shared=0, **defines):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return nvrtc.compile(path, arch, dynamic_shared, **defines)

    return compile


@pytest.mark.parametrize("arch", nvrtc.TARGETS)
def test_a_plain_kernel_violates_nothing(arch, compiled):
    done = compiled(PLAIN, arch)
    assert nvrtc.violations(done) == []
    assert list(done.kernels) == ["plain"] and done.cubin[:4] == b"\x7fELF"
    kernel = done.kernels["plain"]
    assert 0 < kernel.registers < 32
    assert (kernel.spills, kernel.stack, kernel.shared, kernel.instructions) == (0, 0, 0, {})


@pytest.mark.parametrize("arch", ["sm_75", "sm_90a", "sm_120"])
def test_finds_spills(arch, compiled, monkeypatch):
    done = compiled(SPILLS, arch)
    kernel = done.kernels["spills"]
    assert kernel.spill_stores > 0 and kernel.spill_loads > 0
    assert kernel.instructions["LDL"] > 0 and kernel.instructions["STL"] > 0
    (text,) = nvrtc.violations(done)
    assert f"spills {kernel.spills} bytes" in text and arch in text
    for allowed, count in ((kernel.spills, 0), (kernel.spills - 1, 1)):
        monkeypatch.setattr(nvrtc, "ALLOWED_SPILLS", [("k.cu:spills", r"sm_.*", allowed, "for this test")])
        assert len(nvrtc.violations(done)) == count


@pytest.mark.parametrize("arch", ["sm_75", "sm_90a", "sm_120"])
def test_finds_local_memory_that_is_no_spill(arch, compiled):
    done = compiled(COMPUTED_INDEX, arch)
    assert done.kernels["indexed"].spills == 0
    (text,) = nvrtc.violations(done)
    assert "local memory" in text and "stack of 256 bytes" in text


def test_finds_too_much_shared_memory(compiled):
    assert nvrtc.violations(compiled(SHARED, SIZE=48 << 10)) == []
    # The assembler itself refuses more than 48 KB that is static; launches may add dynamic memory to it.
    with pytest.raises(nvrtc.CompileError, match="too much shared data"):
        compiled(SHARED, SIZE=(48 << 10) + 4)
    for arch, limit in nvrtc.SHARED.items():
        assert nvrtc.violations(compiled(SHARED, arch, SIZE=1 << 10, dynamic_shared=limit - 1024)) == []
        (text,) = nvrtc.violations(compiled(SHARED, arch, SIZE=1 << 10, dynamic_shared=limit - 1023))
        assert f"{limit + 1} bytes of shared memory" in text


def test_finds_warnings(compiled):
    (text,) = nvrtc.violations(compiled(UNUSED))
    assert "unused" in text and "warning" in text


def test_finds_waits_that_the_assembler_put_between_wgmma(compiled):
    assert nvrtc.violations(compiled(WGMMA, "sm_90a")) == []
    texts = nvrtc.violations(compiled(WGMMA, "sm_90a", SERIAL=1))
    assert any("C7517" in text and "warpgroup.wait is injected" in text for text in texts)


@pytest.mark.parametrize("arch", nvrtc.TARGETS[1:])
def test_sees_the_instructions_of_the_tensor_cores(arch, compiled):
    """The numbers in OPCODES hold for every target, and each is there because of its own line in the source."""
    rung = {"name": "attention/ladder/cuda_2_tensor_cores.cu"}
    done = compiled(TENSOR_CORES, arch, **rung)
    assert done.kernels["attention_forward"].instructions == {"HMMA": 1, "LDSM": 1, "LDGSTS": 1}
    assert nvrtc.violations(done) == []
    (text,) = nvrtc.violations(compiled(TENSOR_CORES, arch, WITHOUT_PRODUCT=1, **rung))
    assert text.endswith("attention_forward has no HMMA in its code")


def test_sees_wgmma(compiled):
    done = compiled(WGMMA, "sm_90a", "attention/ladder/cuda_4_wgmma.cu")
    assert done.kernels["attention_forward"].instructions == {"HGMMA": 1}
    (text,) = nvrtc.violations(done)
    assert text.endswith("has no UTMALDG in its code")
    empty = HEAD + 'extern "C" __global__ void attention_backward(float* x) { x[0] = 1.0f; }\n'
    texts = nvrtc.violations(compiled(empty, "sm_90a", "attention/ladder/cuda_4b_wgmma.cu"))
    assert [text.partition(" has ")[2] for text in texts] == ["no HGMMA in its code", "no UTMALDG in its code"]


def test_every_expectation_is_asked_of_some_kernel(everything):
    """A kernel that is renamed must not slip out of EXPECTED."""
    names = [f"{v.path.as_posix()}:{kernel}" for (v, _), done in everything for kernel in getattr(done, "kernels", ())]
    assert all(any(re.search(pattern, name) for name in names) for pattern, _, _ in nvrtc.EXPECTED)


def test_a_source_that_does_not_compile_gives_the_log(compiled):
    with pytest.raises(nvrtc.CompileError, match=r'k\.cu\(2\).*"missing" is undefined'):
        compiled(HEAD + 'extern "C" __global__ void k(float* x) { x[0] = missing; }\n')


def test_without_nvrtc_the_message_says_what_to_install(monkeypatch, capsys):
    def missing():
        raise nvrtc.NoCompiler("CuPy finds no NVRTC")

    monkeypatch.setattr(nvrtc, "_nvrtc", missing)
    monkeypatch.setattr(nvrtc, "variants", lambda: [nvrtc.Variant(nvrtc.KERNELS / "k.cu", (), "sm_75")])
    assert nvrtc.main([]) == 2
    assert "CuPy finds no NVRTC" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ lists and the table


def variant(path, lowest, **defines):
    return nvrtc.Variant(nvrtc.KERNELS / path, tuple(defines.items()), lowest)


def test_targets_of_a_variant():
    assert [arch for arch in nvrtc.TARGETS if nvrtc.runs_on(arch, "sm_86")] == list(nvrtc.TARGETS[2:])
    assert [arch for arch in nvrtc.TARGETS if nvrtc.runs_on(arch, "sm_90a")] == ["sm_90a"]
    assert nvrtc.pairs([variant("a.cu", "sm_100")]) == [
        (variant("a.cu", "sm_100"), "sm_100"),
        (variant("a.cu", "sm_100"), "sm_120"),
    ]


def test_the_ordinary_run_has_every_file_for_every_target_and_every_variant():
    a = [variant("a.cu", "sm_75", TYPE=t) for t in ("float", "bf16")] + [variant("a.cu", "sm_80", TYPE="f16")]
    b = [variant("b.cu", "sm_90a", N=n) for n in (1, 2)]
    chosen = nvrtc.ordinary([*a, *b])
    assert len(chosen) == len(set(chosen)) == len(nvrtc.TARGETS) + 2
    assert {v for v, _ in chosen} == {*a, *b}
    assert {arch for v, arch in chosen if v in a} == set(nvrtc.TARGETS)
    assert all(nvrtc.runs_on(arch, v.lowest) for v, arch in chosen)


def test_the_command_prints_a_table_and_fails_on_violations(compiler, tmp_path, monkeypatch, capsys):
    (tmp_path / "good.cu").write_text(PLAIN)
    (tmp_path / "bad.cu").write_text(SPILLS)
    listed = [nvrtc.Variant(tmp_path / name, (("COUNT", 3),), "sm_80") for name in ("good.cu", "bad.cu")]
    monkeypatch.setattr(nvrtc, "variants", lambda: listed)
    assert nvrtc.main(["good", "--arch", "sm_80", "--json", f"{tmp_path}/out.json"]) == 0
    out = capsys.readouterr().out
    assert "good.cu  plain" in out and "COUNT=3" in out and "0 violations" in out and "bad" not in out
    assert (tmp_path / "out.json").exists()
    assert nvrtc.main(["--arch", "sm_90a"]) == 1
    out, err = capsys.readouterr()
    assert "2 compilations, 2 kernels, 1 violations" in out and "spills" in err
    assert nvrtc.main(["nothing"]) == 1


def test_a_file_of_ones_own(compiler, tmp_path, capsys):
    path = tmp_path / "mine.cu"
    path.write_text('#include "common.cuh"\nextern "C" __global__ void twice(TYPE* x) { x[0] = TYPE{}; }\n')
    assert nvrtc.main([str(path), "-D", "TYPE=bf16", "--arch", "sm_80"]) == 0
    assert "twice" in capsys.readouterr().out
    assert nvrtc.main([str(path), "--arch", "sm_80"]) == 1  # TYPE is not known
    assert "mine.cu" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("path", sorted({v.path for v in nvrtc.variants()}), ids=lambda path: path.stem)
def test_nvcc_compiles_it_alone(path, tmp_path):
    hopper = any(v.lowest == "sm_90a" for v in nvrtc.variants() if v.path == path)
    target = "arch=compute_90a,code=sm_90a" if hopper else "arch=compute_80,code=sm_80"
    command = ["nvcc", "-I", str(HEADERS), "-std=c++17", "-gencode", target, "-c", str(path), "-o", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
