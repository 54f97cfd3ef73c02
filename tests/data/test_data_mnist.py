from __future__ import annotations

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from minillm.data import DataError, load_mnist
from minillm.data.mnist import read_idx

IMAGES = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4) * 11  # 3 images of 2 x 4
LABELS = np.array([7, 0, 9], np.uint8)


def idx(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """The idx file of a uint8 array; `shape` lets the header lie."""
    shape = array.shape if shape is None else shape
    return struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """The train part plain, the test part (the same, reversed) gzipped."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[::-1])))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[::-1])))
    return tmp_path


def test_a_folder_with_both_parts(folder):
    for split, step in (("train", 1), ("test", -1), (None, 1)):
        images, labels = load_mnist(folder, split)
        assert images.dtype == np.float32 and labels.dtype == np.int64
        np.testing.assert_array_equal(images, IMAGES[::step].reshape(3, 8) / np.float32(255))
        assert labels.tolist() == LABELS[::step].tolist()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_one_file_finds_its_partner(folder, name):
    assert load_mnist(folder / name)[1].tolist() == LABELS.tolist()
    assert load_mnist(str(folder / name), "train")[1].tolist() == LABELS.tolist()
    with pytest.raises(DataError, match="not of the test part by its name"):
        load_mnist(folder / name, "test")


def test_a_gzipped_file_finds_its_partner(folder):
    assert load_mnist(folder / "t10k-labels-idx1-ubyte.gz")[1].tolist() == LABELS[::-1].tolist()


def test_names_with_a_dot_and_partners_of_which_one_is_gzipped(tmp_path):
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    for given in (tmp_path, tmp_path / "train-images.idx3-ubyte", tmp_path / "train-labels.idx1-ubyte.gz"):
        assert load_mnist(given)[1].tolist() == LABELS.tolist()


def test_gzip_is_known_by_content_not_by_name(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(LABELS))
    assert load_mnist(tmp_path)[0].shape == (3, 8)


@pytest.mark.parametrize("what, content", [("images", idx(IMAGES)), ("labels", idx(LABELS))])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_truncation_at_every_byte(tmp_path, what, content, pack):
    packed = pack(content)
    file = tmp_path / "file"
    for length in range(len(packed)):
        file.write_bytes(packed[:length])
        with pytest.raises(DataError):
            read_idx(file, what)
            pytest.fail(f"read a file cut at {length} of {len(packed)} bytes")
    file.write_bytes(packed)
    assert len(read_idx(file, what)) == 3


@pytest.mark.parametrize("what, content, header", [("images", idx(IMAGES), 16), ("labels", idx(LABELS), 8)])
def test_every_flipped_bit_of_the_header(tmp_path, what, content, header):
    file = tmp_path / "file"
    for bit in range(8 * header):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(flipped)
        with pytest.raises(DataError):
            read_idx(file, what)
            pytest.fail(f"read a file with bit {bit} of its header flipped")


def test_every_flipped_bit_of_a_gzip_file(tmp_path):
    """Noticed, but for what says nothing of the content: gzip's own header, and the bits that fill up the last byte."""
    packed = gzip.compress(idx(IMAGES))
    file = tmp_path / "file"
    noticed = 0
    for bit in range(8 * len(packed)):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(flipped)
        try:
            array = read_idx(file, "images")
        except DataError:
            noticed += 1
        else:
            assert bit < 80 or bit // 8 == len(packed) - 9
            np.testing.assert_array_equal(array, IMAGES)
    assert noticed >= 8 * (len(packed) - 11)


MALFORMED = {
    "empty": (b"", "ends after 0 bytes"),
    "text": (b"hello, this is no idx file", "begins with magic number 1751477356: expected 2051"),
    "labels in place of images": (idx(LABELS), "2049, which means labels: expected 2051"),
    "floats": (b"\0\0\x0d\x03" + idx(IMAGES)[4:], "magic number 3331: expected 2051"),
    "no images": (idx(IMAGES[:0]), "declares 0 x 2 x 4 images: expected at least one"),
    "no pixels": (idx(IMAGES[:, :0]), "declares 3 x 0 x 4 images"),
    "one byte more": (idx(IMAGES) + b"\0", "24 bytes of images and holds more"),
    "one byte less": (idx(IMAGES)[:-1], "24 bytes of images and holds 23"),
    "one more declared": (idx(IMAGES, (4, 2, 4)), "4 x 2 x 4 = 32 bytes of images and holds 24"),
    "gzip of nothing": (gzip.compress(b""), "ends after 0 bytes"),
    "gzip with wrong sum": (gzip.compress(idx(IMAGES))[:-8] + bytes(8), "corrupted or cut short"),
    "gzip and garbage": (gzip.compress(idx(IMAGES)) + b"garbage", "corrupted or cut short"),
    "gzip of gzip": (gzip.compress(gzip.compress(idx(IMAGES))), "begins with magic number 529205"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_images(folder, name):
    content, message = MALFORMED[name]
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    for given in (folder, folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"):
        with pytest.raises(DataError, match=message) as caught:
            load_mnist(given)
        assert "train-images-idx3-ubyte" in str(caught.value)


@pytest.mark.parametrize("shape", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (2**31, 1, 1), (65536, 65536, 1)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_huge_declared_size_is_not_allocated(tmp_path, shape, pack):
    file = tmp_path / "file"
    file.write_bytes(pack(idx(IMAGES, shape)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="holds 24"):
            read_idx(file, "images")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_counts_that_do_not_match(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    with pytest.raises(DataError, match=r"holds 3 images and .* 2 labels"):
        load_mnist(folder)


def test_missing_files(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"no file with the labels of the test part.*expected 't10k-labels-idx1-ubyte'"):
        load_mnist(folder, "test")
    with pytest.raises(DataError, match=r"no file with the labels that belong to 't10k-images-idx3-ubyte\.gz'"):
        load_mnist(folder / "t10k-images-idx3-ubyte.gz")
    (folder / "t10k-labels-idx1-ubyte").mkdir()  # a folder where the file should be
    with pytest.raises(DataError, match="no file with the labels"):
        load_mnist(folder, "test")
    (folder / "some-file").write_bytes(idx(IMAGES))
    with pytest.raises(DataError, match="holds neither 'images' nor 'labels'"):
        load_mnist(folder / "some-file")
    for absent in (folder / "absent", "a\0b", "x" * 5000):
        with pytest.raises(DataError, match="cannot be opened"):
            load_mnist(absent)
    with pytest.raises(DataError, match="split='valid'"):
        load_mnist(folder, "valid")
