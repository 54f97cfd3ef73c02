from __future__ import annotations

import hashlib

import numpy as np
import pytest

from minillm.data import DataError, load_digits
from minillm.data import digits as module


def test_the_vendored_images_are_the_published_ones():
    images, labels = load_digits("all")
    assert images.shape == (1797, 64) and images.dtype == np.float32
    assert labels.shape == (1797,) and labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.min() == 0 and images.max() == 1
    assert (images * 16).sum(dtype=np.float64) == 561718  # the sum over the original text file
    first_row = [0, 0, 5, 13, 9, 1, 0, 0]  # the top of the first image, a zero
    assert (images[0, :8] * 16).tolist() == first_row and labels[:10].tolist() == list(range(10))


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_split_is_a_stratified_partition(seed):
    train, train_labels = load_digits("train", seed)
    test, test_labels = load_digits("test", seed)
    everything, _ = load_digits("all", seed)
    assert len(train) == len(train_labels) == 1437 and len(test) == len(test_labels) == 360
    rows = sorted(row.tobytes() for row in np.concatenate([train, test]))
    assert rows == sorted(row.tobytes() for row in everything)
    share = np.bincount(test_labels) / np.bincount(np.concatenate([train_labels, test_labels]))
    assert np.abs(share - 0.2).max() < 1 / 174  # to one image of the smallest class


def test_split_is_fixed_by_the_seed_alone():
    state = np.random.get_state()[1].copy()
    again, again_labels = load_digits("test")
    assert (np.random.get_state()[1] == state).all()
    assert again.tobytes() == load_digits("test")[0].tobytes()
    assert again.tobytes() != load_digits("test", seed=1)[0].tobytes()
    # the same in every version of Python and NumPy: the labels of the default split, as a fingerprint
    assert hashlib.sha256(bytes(again_labels.tolist())).hexdigest()[:16] == "e80d63a3bd5bf14b"


def test_unknown_split():
    with pytest.raises(DataError, match=r"split='valid'.*'train', 'test' or 'all'"):
        load_digits("valid")


@pytest.mark.parametrize("damage", ["absent", "folder", "empty", "cut", "longer", "flipped", "another archive"])
def test_a_damaged_archive_is_never_read(tmp_path, monkeypatch, damage):
    good = module.ARCHIVE.read_bytes()
    path = tmp_path / "digits.npz"
    monkeypatch.setattr(module, "ARCHIVE", path)
    path.write_bytes(good)
    assert len(load_digits("all")[0]) == 1797  # the copy as such is not the trouble
    if damage == "absent":
        path.unlink()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "another archive":
        np.savez_compressed(path, images=np.zeros((1797, 64), np.uint8), labels=np.zeros(1797, np.uint8))
    else:
        middle = len(good) // 2
        flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
        path.write_bytes({"empty": b"", "cut": good[:-1], "longer": good + b"\0", "flipped": flipped}[damage])
    with pytest.raises(DataError, match="install minillm again"):
        load_digits()
