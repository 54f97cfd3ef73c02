"""Where does Python wait for the GPU? Each wait leaves the GPU without work until Python has written the next.

    with minillm.cuda.count_syncs() as syncs:
        train_step()
    print(syncs)            # 2 waits for the GPU: 1 item at train.py:31, 1 bool at model.py:12

Counted are the ways from a CuPy array to Python: get, item, float, int, bool, complex, tolist, tobytes, asnumpy. They
are wrapped while the block runs, so counting costs nothing elsewhere. Not seen: `synchronize()`, which says what it
does, and copies to the GPU.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from .found import find_cupy

METHODS = ("get", "item", "tolist", "tobytes", "__float__", "__int__", "__bool__", "__complex__")
LIBRARIES = ("cupy", "cupyx", "cupy_backends", "contextlib")


class Syncs:
    """`count` waits, and their `places`: a Counter of "what at file:line", with the line of the first caller that is
    not CuPy's."""

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self.places.total()

    def __str__(self) -> str:
        listed = ", ".join(f"{n} {place}" for place, n in self.places.most_common())
        return f"{self.count} wait{'' if self.count == 1 else 's'} for the GPU" + (f": {listed}" if listed else "")

    __repr__ = __str__


@contextmanager
def count_syncs(cupy: Any = None) -> Iterator[Syncs]:
    """A block in which waits for the GPU are counted. cupy: the module whose arrays are watched, if not CuPy."""
    cupy = find_cupy() if cupy is None else cupy
    syncs, inside = Syncs(), False

    def counted(function: Callable, name: str) -> Callable:
        @wraps(function)
        def call(*args: Any, **settings: Any) -> Any:
            nonlocal inside
            if inside:  # item() asks get(): one wait
                return function(*args, **settings)
            syncs.places[f"{name.strip('_')} at {_caller()}"] += 1
            inside = True
            try:
                return function(*args, **settings)
            finally:
                inside = False

        return call

    array = cupy.ndarray
    own = {name: vars(array)[name] for name in METHODS if name in vars(array)}  # the others are inherited
    asnumpy = cupy.asnumpy
    try:
        for name in METHODS:
            if hasattr(array, name):
                setattr(array, name, counted(getattr(array, name), name))
        cupy.asnumpy = counted(asnumpy, "asnumpy")
        yield syncs
    finally:
        cupy.asnumpy = asnumpy
        for name in METHODS:
            if name in own:
                setattr(array, name, own[name])
            elif name in vars(array):
                delattr(array, name)


def _caller() -> str:
    """file:line of the nearest frame that belongs neither to CuPy nor to this file."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module != __name__ and module.split(".")[0] not in LIBRARIES:
            break
        frame = frame.f_back
    folder, _, file = frame.f_code.co_filename.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{file}:{frame.f_lineno}"
