from __future__ import annotations

import sys

import pytest

from minillm.data import DataError, python_docs_text, python_source_text, read_text


def test_docs_are_prose_of_some_length():
    text = python_docs_text()
    assert text == python_docs_text() and len(text) > 200_000
    assert 'The "assert" statement' in text


def test_a_python_without_its_docs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data", None)  # makes its import fail
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"comes without pydoc_data.*text file of your own"):
        python_docs_text()


def test_source_is_cut_at_the_length_asked_for():
    long, short = python_source_text(200_000), python_source_text(1_000)
    assert len(long) == 200_000 and len(short) == 1_000 and long.startswith(short)
    assert long == python_source_text(200_000)
    assert "def " in long and "import " in long
    assert len(python_source_text(None)) > len(long)
    with pytest.raises(DataError, match="max_chars=0"):
        python_source_text(0)


def test_a_python_without_its_source(monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="expected the standard library's source"):
        python_source_text()


@pytest.mark.parametrize("text", ["a", "two\r\nlines\n", "Zürich 北京 🙂", "\n"])
def test_text_comes_back_as_it_is(tmp_path, text):
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    assert read_text(path) == text
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # a byte-order mark is no part of the text
    assert read_text(str(path)) == text


MALFORMED = {
    "empty": (b"", "is empty"),
    "mark only": (b"\xef\xbb\xbf", "only a byte-order mark"),
    "latin-1": ("Zürich".encode("latin-1"), "byte 0xfc at offset 1"),
    "utf-16": ("text".encode("utf-16"), "byte 0x(ff|fe) at offset 0"),
    "cut in a character": ("abc🙂".encode()[:-1], "offset 3 .*unexpected end"),
    "surrogate": (b"ab\xed\xa0\x80", "offset 2"),
    "binary": (b"abc\0def", "NUL character at offset 3"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_text(tmp_path, name):
    content, message = MALFORMED[name]
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_text(path)
    assert str(path) in str(caught.value)


def test_not_a_file(tmp_path):
    with pytest.raises(DataError, match=r"cannot be opened.*check the path"):
        read_text(tmp_path / "absent")
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)
