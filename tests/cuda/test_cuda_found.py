"""A GPU that cannot be used: one sentence that says what is missing and what to do. With a cupy that is made up."""

from __future__ import annotations

import sys

import fake_cupy
import numpy as np
import pytest

import minillm
from minillm import doctor
from minillm.cli import main
from minillm.cuda import find_cupy, free_memory, memory, side_stream, synchronize
from minillm.device import device_of, is_available, to_device
from minillm.errors import DeviceError, OutOfMemory

INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
V100 = {"name": b"Tesla V100", "major": 7, "minor": 0, "totalGlobalMem": 16 << 30}
CASES = {  # settings of the made-up driver -> what the sentence says
    "no driver": ({"driver": 0, "error": INSUFFICIENT}, "no NVIDIA driver answers; install the driver"),
    "older driver": (
        {"driver": 12040, "runtime": 13020, "error": INSUFFICIENT},
        "driver is made for CUDA 12.4 and the installed CuPy for CUDA 13.2; update the driver.*uninstall cupy-cuda13x.*"
        r"\[cuda12\]",
    ),
    "no device": ({"error": "cudaErrorNoDevice: no CUDA-capable device is detected"}, "reports no GPU.*CUDA_VISIBLE"),
    "none counted": ({"devices": 0}, "reports no GPU"),
    "another error": ({"error": "cudaErrorUnknown: unknown error"}, "does not answer .cudaErrorUnknown"),
    "too old": ({"properties": V100}, r"Tesla V100 is of compute capability 7\.0, and the oldest.* 7\.5 .*leave --dev"),
    "no NVRTC": ({"nvrtc": ""}, r"no NVRTC, the compiler of its kernels.*\[cuda13\]"),
}


def one_sentence(text):
    return "\n" not in text and len(text) < 400


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_said(case, monkeypatch):
    settings, says = CASES[case]
    with fake_cupy.installed(monkeypatch, **settings):
        with pytest.raises(DeviceError, match=says) as found:
            to_device(np.zeros(1), "cuda")
        assert one_sentence(str(found.value)) and str(found.value).startswith('device "cuda": ')
        assert not is_available("cuda")
        with pytest.raises(DeviceError, match=says):
            minillm.zeros(3, device="cuda")


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"needs CuPy, which is not installed.*\[cuda13\]") as found:
        find_cupy()
    assert one_sentence(str(found.value))
    facts = {f.what: f for f in doctor.examine()}
    assert "needs CuPy" in facts["GPU"].advice and "[cuda13]" in facts["NVRTC"].advice


def test_a_cupy_that_does_not_load(monkeypatch):
    with fake_cupy.installed(monkeypatch) as cupy:
        del cupy.cuda

        def broken(name):
            raise ImportError(f"libcudart.so.13: cannot open shared object file\nmore about {name}")

        cupy.__getattr__ = broken
        with pytest.raises(DeviceError, match=r"does not load \(libcudart.so.13: cannot open.*Install it again") as e:
            find_cupy()
        assert one_sentence(str(e.value))


@pytest.mark.parametrize("case", CASES)
def test_the_command_says_so_and_stops(case, monkeypatch, capsys, tmp_path):
    settings, _ = CASES[case]
    with fake_cupy.installed(monkeypatch, **settings):
        assert main(["train", "vae", "--device", "cuda", "--quiet", "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith('minillm train vae: device "cuda": ') and one_sentence(said)
        assert not (tmp_path / "run").exists()


def test_a_gpu_that_works(monkeypatch):
    with fake_cupy.installed(monkeypatch) as cupy:
        assert find_cupy() is cupy and is_available("cuda")
        x = to_device(np.arange(3.0), "cuda")
        assert isinstance(x, cupy.ndarray) and device_of(x) in ("cuda", "strict")
        assert find_cupy().cuda.runtime.getDeviceCount() == 1


def test_precision_of_a_training_is_what_the_gpu_multiplies(monkeypatch):
    from minillm.recipes.base import Common
    from minillm.recipes.gpt_model import precision_of
    from minillm.recipes.gpt_settings import Settings

    turing = {"name": b"Tesla T4", "major": 7, "minor": 5, "totalGlobalMem": 16 << 30}
    for properties, expected in ((fake_cupy.H200, "bfloat16"), (turing, "float32")):
        with fake_cupy.installed(monkeypatch, properties=properties):
            common = Common(None, 0, "cuda", False)
            assert precision_of(Settings(precision="auto"), common) == expected
            assert precision_of(Settings(precision="bf16"), common) == "bfloat16"
            assert precision_of(Settings(precision="float32"), common) == "float32"


def test_another_gpu_is_chosen_outside():
    with pytest.raises(DeviceError, match=r"cuda:3.*CUDA_VISIBLE_DEVICES=3"):
        minillm.zeros(3, device="cuda:3")


# --------------------------------------------------------------------------------------------------- doctor


def test_doctor_describes_the_gpu(monkeypatch):
    with fake_cupy.installed(monkeypatch, driver=13000):
        facts = {f.what: f for f in doctor.examine()}
    gpu = facts["GPU"].found
    for part in ("NVIDIA H200", "sm_90", "CuPy 14.2.0 for CUDA 13.2", "driver for CUDA 13.0", "100.0 GiB used"):
        assert part in gpu, gpu
    assert facts["GPU"].ok and facts["NVRTC"].found.startswith("13.0")


def test_doctor_says_what_to_install(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with fake_cupy.installed(monkeypatch, nvrtc="", driver=0, error=INSUFFICIENT):
        facts = {f.what: f for f in doctor.examine()}
    assert "no NVIDIA driver answers" in facts["GPU"].advice and facts["GPU"].ok  # a CPU is enough
    assert not facts["NVRTC"].ok and "[cuda13]" in facts["NVRTC"].advice
    assert "apt install g++" in facts["C++ compiler"].advice


# --------------------------------------------------------------------------------------------------- memory


def test_figures_of_the_memory(monkeypatch):
    with fake_cupy.installed(monkeypatch) as cupy:
        have = memory()
        assert have == (100 << 30, 119 << 30, 20 << 30, 139 << 30)
        assert str(have) == ("100.0 GiB used by arrays, 119.0 GiB held by the pool, 20.0 GiB free of 139.0 GiB")
        free_memory()
        assert cupy.get_default_memory_pool().freed == 1


def full(*_, **__):
    raise fake_cupy.OutOfMemoryError(3 << 30, 119 << 30)


ASKED = (
    r"the GPU's memory is full: 3\.0 GiB more were asked for \(100\.0 GiB used by arrays.*of 139\.0 GiB\); lower the"
)


def test_memory_that_runs_out_in_an_op(monkeypatch):
    x = minillm.ones(3)
    with fake_cupy.installed(monkeypatch):
        monkeypatch.setattr(np, "exp", full)
        with pytest.raises(OutOfMemory, match=r"exp: " + ASKED) as found:
            minillm.exp(x)
    assert isinstance(found.value, MemoryError) and isinstance(found.value.__cause__, fake_cupy.OutOfMemoryError)


def test_memory_that_runs_out_in_the_backward_pass(monkeypatch):
    from minillm.engine import op

    @op
    def broken(x):
        return x * 2

    broken.vjp(lambda dout: full())
    with fake_cupy.installed(monkeypatch), pytest.raises(OutOfMemory, match=ASKED):
        broken(minillm.ones(3).requires_grad_()).sum().backward()


def test_main_memory_that_runs_out_is_left_alone():
    from minillm.engine import op

    @op
    def broken(x):
        return x * 2

    @broken.vjp
    def _(dout):
        raise MemoryError("the machine's")

    with pytest.raises(MemoryError, match="^the machine's$"):
        broken(minillm.ones(3).requires_grad_()).sum().backward()


def test_the_command_says_what_to_change(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("minillm.optim.adam.Adam.update_scaled", full)  # raw CuPy errors come from optimizers
    with fake_cupy.installed(monkeypatch):
        assert main(["train", "vae", "--device", "cpu", "--epochs", "1", "--quiet", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("minillm train vae: the GPU's memory is full: 3.0 GiB more were asked for")
    assert "lower the batch size" in said


# -------------------------------------------------------------------------------------------------- streams


def test_work_on_a_side_stream_is_ordered_on_the_gpu(monkeypatch):
    with fake_cupy.installed(monkeypatch) as cupy:
        log = cupy.cuda.Stream.log
        with side_stream() as stream:
            assert cupy.cuda.get_current_stream() is stream
            log.append("work")
        assert log == ["main records", "side waits for main", "work", "side records", "main waits for side"]
        synchronize()
        assert log[-1] == "synchronize"
