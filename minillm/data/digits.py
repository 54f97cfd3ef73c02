"""Handwritten digits, 1,797 grey images of 8 x 8 pixels, inside the package: the data set that needs no download.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998),
doi 10.24432/C50P49, CC BY 4.0. NOTICE.md beside this file says what was taken.
"""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError, read_bytes

ARCHIVE = Path(__file__).with_name("digits.npz")
SHA256 = "af104d81e7cd419be5f343d23c6ca2e4e4ff847b06636260802df8e903c6183f"


def load_digits(split: str = "train", seed: int = 0) -> tuple[Any, Any]:
    """Images float32 (N, 64) in [0, 1] and labels int64 (N,), in the order of the original file.

    split: "train" (1,437 images), "test" (360) or "all" (1,797). The split is stratified: sorted by class and, within
    a class, at random by `seed`; every fifth image is for testing. One seed gives the same split in every version of
    Python and NumPy. The 13 writers are not kept apart, so a test score says little about the hand of a new one.

    >>> images, labels = load_digits("test")
    >>> images.shape, images.dtype.name, labels.dtype.name
    ((360, 64), 'float32', 'int64')
    """
    if split not in ("train", "test", "all"):
        raise DataError(f"split={split!r}: expected 'train', 'test' or 'all'")
    pixels, labels = _read(ARCHIVE)
    images = pixels.astype(np.float32) / 16  # (1797, 64)
    labels = labels.astype(np.int64)  # (1797,)
    if split == "all":
        return images, labels
    in_test = _test_mask(labels, seed)
    chosen = in_test if split == "test" else ~in_test
    return images[chosen], labels[chosen]


def _test_mask(labels: Any, seed: int) -> Any:
    """True for the images of the test part, bool (N,): every fifth after sorting by (label, random number)."""
    rng = random.Random(seed)  # Python promises the same random() from one seed for ever; NumPy promises no such thing
    shuffle = [rng.random() for _ in labels]
    by_class = np.lexsort((shuffle, labels))
    in_test = np.zeros(len(labels), bool)
    in_test[by_class[::5]] = True
    return in_test


def _read(path: Path) -> tuple[Any, Any]:
    """Pixels uint8 (1797, 64), 0 to 16, and labels uint8 (1797,), after a check that the file is the one released."""
    expected = "the package's own copy of the digits; install minillm again"
    content = read_bytes(path, expected)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f"{str(path)!r} ({len(content):,} bytes) is damaged or another file: expected {expected}")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return archive["images"], archive["labels"]
