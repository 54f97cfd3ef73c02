"""What a language model is trained on: windows of a long text, and a part of the text held back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.errors import DataError


def train_validation_split(ids: Any, fraction: float = 0.9) -> tuple[Any, Any]:
    """ids (T,) cut in two: the first floor(fraction T) to train, the rest, which follows them, to validate. Views.

    >>> import numpy as np
    >>> [part.tolist() for part in train_validation_split(np.arange(5), 0.6)]
    [[0, 1, 2], [3, 4]]
    """
    if not 0 < fraction < 1:
        raise DataError(f"fraction={fraction}: expected a number between 0 and 1, the part to train on")
    cut = int(fraction * len(ids))
    if cut in (0, len(ids)):
        raise DataError(
            f"{len(ids)} ids with fraction={fraction} leave one part empty: expected at least one id in each; "
            "give a longer text"
        )
    return ids[:cut], ids[cut:]


def sample_windows(ids: Any, batch: int, context: int, rng: Any) -> tuple[Any, Any]:
    """`batch` windows of ids (T,), each from a random place: x, y int64 (batch, context), y one step after x.

    rng: a NumPy Generator or anything with `integers(low, high, shape)`. Every place is as likely, with repetition.
    DataError if T < context + 1.
    """
    if batch < 1 or context < 1:
        raise DataError(f"batch={batch}, context={context}: expected 1 or more of each")
    if len(ids) < context + 1:
        raise DataError(
            f"{len(ids)} ids are too few for a context of {context}: expected at least {context + 1}, "
            "for the last target; give a longer text or a shorter context"
        )
    starts = rng.integers(0, len(ids) - context, (batch,))
    windows = ids[starts[:, None] + np.arange(context + 1)].astype(np.int64)  # (batch, context + 1)
    return windows[:, :-1], windows[:, 1:]
