from __future__ import annotations

import dataclasses
import doctest
import gzip
import importlib
import struct
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillm.data import DataError, Dataset, list_datasets, load

IMAGES = struct.pack(">4I", 0x803, 2, 2, 3) + bytes(range(12))
LABELS = struct.pack(">2I", 0x801, 2) + bytes([1, 0])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(IMAGES)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(LABELS))
    (tmp_path / "iris").write_text("length,width,species\n5,3,versicolor\n7,3,setosa\n")
    (tmp_path / "story.txt").write_text("Once, upon a time\nthere was, a king.\n")
    return tmp_path


@pytest.mark.parametrize(
    "source, kind, name",
    [
        (None, None, "digits"),
        (None, "images", "digits"),
        (None, "text", "docs"),
        ("digits", None, "digits"),
        ("digits", "images", "digits"),
        ("docs", None, "docs"),
        ("source", "text", "source"),
    ],
)
def test_embedded_sets(source, kind, name):
    data = load(source, kind)
    assert data.name == name
    if name == "digits":
        assert data.inputs.shape == (1437, 64) and data.labels.shape == (1437,) and data.image_shape == (8, 8)
    else:
        assert isinstance(data.inputs, str) and data.labels is None and data.image_shape is None


def test_parts_of_the_digits():
    assert [len(load("digits", split=split).inputs) for split in ("train", "test", "all")] == [1437, 360, 1797]


def test_kinds_are_found_by_content(folder):
    for given_path in (folder, folder / "train-images-idx3-ubyte", str(folder / "train-labels-idx1-ubyte.gz")):
        data = load(given_path)
        assert data.kind == "images" and data.image_shape == (2, 3) and data.labels.tolist() == [1, 0]
        assert data.inputs.shape == (2, 6) and data.inputs.dtype == np.float32
    table = load(folder / "iris", target="species")
    assert table.kind == "table" and table.inputs.tolist() == [[5, 3], [7, 3]]
    assert table.classes == ("setosa", "versicolor") and table.labels.tolist() == [1, 0]
    assert table.labels.dtype == np.int64 and table.columns == ("length", "width")
    assert load(folder / "story.txt").kind == "text"
    assert load(folder / "iris", "text").inputs.startswith("length,")  # a kind that is given is not argued with
    assert load(folder / "iris", "text").name == "iris"


def test_a_suffix_makes_a_table_even_of_one_that_is_broken(folder):
    (folder / "broken.csv").write_text("1,2\n3\n")
    with pytest.raises(DataError, match="line 2: 1 columns, expected 2"):
        load(folder / "broken.csv")


def test_a_name_goes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").write_text("my own")
    assert load("docs").inputs != "my own"
    assert load("./docs").inputs == load(tmp_path / "docs").inputs == "my own"


def test_wrong_calls(folder):
    wrong = {
        "kind='image'": {"kind": "image"},
        "no table is embedded": {"kind": "table"},
        "embedded set of images, not text": {"source": "digits", "kind": "text"},
        "split='half'": {"source": "digits", "split": "half"},
        "is text, which has no parts": {"source": "docs", "split": "test"},
        "is table, which has no parts": {"source": folder / "iris", "split": "test"},
        "only a table has a target": {"source": "digits", "target": "species"},
        "cannot be opened .*expected 'digits', 'docs', 'source'": {"source": "mnst"},
        "no file with the images of the test part": {"source": folder, "split": "test"},
        "magic number": {"source": folder / "story.txt", "kind": "images"},
        "not UTF-8|NUL": {"source": folder / "train-images-idx3-ubyte", "kind": "text"},
        "is a folder": {"source": folder, "kind": "text"},
    }
    for message, arguments in wrong.items():
        with pytest.raises(DataError, match=message):
            load(**arguments)
            pytest.fail(f"took {arguments}")


def test_a_dataset_is_frozen():
    data = load("digits")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_the_list_names_what_load_takes():
    listings = list_datasets()
    assert [entry.name for entry in listings] == ["digits", "docs", "source"]
    for entry in listings:
        data = load(entry.name)
        assert isinstance(data, Dataset) and data.kind == entry.kind and data.licence == entry.licence
        assert all(getattr(entry, field.name) for field in dataclasses.fields(entry))
    assert listings[0].size == "1,797 images, 8 x 8" and "10.24432/C50P49" in listings[0].source


def test_the_list_of_a_python_without_its_docs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert [entry.size == "not available" for entry in list_datasets()] == [False, True, False]


def _damaged(draw_from: bytes) -> st.SearchStrategy[bytes]:
    """A good file cut, with bytes replaced, or with something at its end."""
    return st.builds(
        lambda cut, place, value, tail: (draw_from[:place] + value + draw_from[place + 1 :])[:cut] + tail,
        st.integers(0, len(draw_from)),
        st.integers(0, len(draw_from)),
        st.binary(max_size=2),
        st.binary(max_size=3),
    )


FILES = [IMAGES, LABELS, gzip.compress(IMAGES), b"a,b\n1,2\n3,4\n", b'a\tb\n1\t"2"\n', "Zürich\r\n".encode()]


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "table.csv", "file"])
@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=60), *map(_damaged, FILES)),
    kind=st.sampled_from([None, "images", "text", "table"]),
)
@example(content=b"", kind=None)
@example(content=b"\x1f\x8b", kind=None)
@example(content=b'1,2\n"', kind="table")
@example(content=b"\xef\xbb\xbf", kind="table")
def test_any_bytes_give_data_or_a_data_error(tmp_path_factory, name, content, kind):
    folder = tmp_path_factory.getbasetemp() / "any-bytes"
    folder.mkdir(exist_ok=True)
    (folder / "train-labels-idx1-ubyte").write_bytes(LABELS)
    path = folder / name
    path.write_bytes(content)
    try:
        data = load(path, kind)
    except DataError as error:
        assert len(str(error)) > 20
    else:
        assert len(data.inputs) > 0


@pytest.mark.parametrize("name", ["digits", "load", "loader"])
def test_examples_in_the_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"minillm.data.{name}"))
    assert result.attempted > 0 and result.failed == 0
