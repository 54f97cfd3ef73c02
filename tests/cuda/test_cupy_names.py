"""Every function of CuPy that the source calls is there, and takes the keywords that it is given; no GPU is needed."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import kernels
import minillm
from minillm.testing import strict

cupy = pytest.importorskip("cupy")
ROOTS = [Path(package.__file__).parent for package in (minillm, kernels)]
UFUNC = {"out", "dtype", "casting"}
OTHER_DEVICES = {"testing", "simulator", "ladder", "vector"}  # folders whose xp is not CuPy, or that are compiled


def calls():
    """(file:line, name, keywords) of every call xp.name(...), array_module(x).name(...), xp.name of any kind."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            if OTHER_DEVICES & set(path.relative_to(root).parts) or path.name in ("cpu.py", "doctor.py"):
                continue
            tree = ast.parse(path.read_text())
            called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and is_module(node.value):
                    call = called.get(id(node))
                    keywords = {k.arg for k in call.keywords if k.arg} if call else set()
                    yield f"{path.relative_to(root.parent)}:{node.lineno}", node.attr, keywords


def is_module(node):
    if isinstance(node, ast.Name):
        return node.id in ("xp", "cupy")
    name = getattr(getattr(node, "func", None), "id", "")
    return isinstance(node, ast.Call) and name in ("array_module", "array_module_of")


def takes(function, keyword):
    if isinstance(function, cupy.ufunc):
        return keyword in UFUNC
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def test_cupy_has_what_is_called():
    found = list(calls())
    assert len(found) > 300
    missing = [(where, name) for where, name, _ in found if not hasattr(cupy, name) and name != "__name__"]
    assert not missing
    refused = [(w, f"{name}({k}=)") for w, name, keys in found for k in keys if not takes(getattr(cupy, name), k)]
    assert not refused


def test_the_stand_in_has_no_method_that_cupy_lacks():
    mine = {"_index", "_entry"}  # its own
    for name in vars(strict.StrictArray):
        if not name.startswith("__") and name not in {*mine, "_array", "_base"}:
            assert hasattr(cupy.ndarray, name), name


def test_settings_that_the_stand_in_refuses_are_those_that_cupy_lacks():
    for name in ("sum", "max", "min", "mean", "argsort", "sort", "any", "all"):
        for setting in strict._SETTINGS_LACKING:
            assert not takes(getattr(cupy, name), setting), (name, setting)


def test_the_check_can_fail():
    assert not takes(cupy.sum, "initial") and takes(cupy.sum, "keepdims")
    assert not takes(cupy.add, "where") and takes(cupy.add, "out")
    assert not hasattr(cupy, "errstate") and not hasattr(cupy, "vecdot")
