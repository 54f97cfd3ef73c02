"""The cache on disk: stale when any source changes, content without a folder, quick the second time, and it says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kernels
from kernels import numba_setup

ROOT = Path(kernels.__file__).parents[1]
USER = """
from ..numba_setup import njit
from .helper import FACTOR

@njit
def scaled(x):
    return x * FACTOR
"""


@pytest.fixture
def package(tmp_path):
    """A copy of numba_setup.py as a package of its own, `kernels`, with a function in a folder below."""
    folder = tmp_path / "kernels" / "mine"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "kernels" / "numba_setup.py", tmp_path / "kernels")
    (tmp_path / "kernels" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text("FACTOR = 2\n")
    (folder / "user.py").write_text(USER)
    return tmp_path


def run(package, **environment):
    code = "from kernels.mine.user import scaled; print(scaled(3), sum(scaled.stats.cache_hits.values()))"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_CACHE", "KERNELS_"))}
    environment = {**inherited, **environment}
    result = subprocess.run([sys.executable, "-c", code], cwd=package, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split(), result.stderr


def test_second_process_loads_and_first_one_says_that_it_compiles(package):
    (answer, hits), said = run(package)
    assert (answer, hits) == ("6", "0")
    assert said.count("compiling for this CPU") == 1
    assert run(package) == (["6", "1"], "")


def test_an_edit_of_an_imported_file_is_noticed(package):
    run(package)
    (package / "kernels" / "mine" / "helper.py").write_text("FACTOR = 5\n")
    assert run(package)[0] == ["15", "0"]


def test_the_width_of_vectors_counts(package):
    run(package)
    assert run(package, KERNELS_SIMD_LANES="4")[0] == ["6", "0"]


def test_no_folder_to_write_in(package):
    """A file where each cache folder would be: the code is compiled anew each time, and works."""
    (package / "kernels" / "mine" / "__pycache__").write_text("not a folder")
    (package / "home").write_text("not a folder")
    home = str(package / "home")
    environment = {"HOME": home, "XDG_CACHE_HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        assert run(package, **environment)[0] == ["6", "0"]


def test_the_user_folder_where_the_package_cannot_be_written(package):
    (package / "kernels" / "mine" / "__pycache__").write_text("not a folder")
    environment = {"XDG_CACHE_HOME": str(package / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert run(package, **environment)[0] == ["6", "0"]
    assert run(package, **environment)[0] == ["6", "1"]


def test_quiet(package):
    assert run(package, KERNELS_QUIET="1")[1] == ""


def test_sources_follow_imports_but_not_the_package_itself():
    found = {str(path.relative_to(ROOT)) for path in numba_setup._sources(ROOT / "kernels/vector/tile.py")}
    assert {"kernels/vector/tile.py", "kernels/vector/emit.py", "kernels/vector/cpu.py"} <= found
    assert "kernels/__init__.py" not in found
