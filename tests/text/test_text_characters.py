from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data import DataError
from minillm.text import ByteTokenizer, CharTokenizer, characters, tokenizer_from_dict


@given(st.text(min_size=1))
def test_characters_round_trip(text):
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    assert tokenizer.decode(ids) == text
    alphabet = sorted(set(text))  # an encoding that shares nothing with the one under test
    assert tokenizer.vocab_size == len(alphabet) and ids.tolist() == [alphabet.index(c) for c in text]


@given(st.text())
def test_bytes_round_trip(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64 and ids.tolist() == list(text.encode())
    assert tokenizer.decode(ids) == text


@given(st.text(min_size=1), st.sampled_from(["error", "skip"]))
def test_saved_through_json(text, unknown):
    for tokenizer in (CharTokenizer.train(text, unknown), ByteTokenizer()):
        again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert type(again) is type(tokenizer) and again.to_dict() == tokenizer.to_dict()
        assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_lone_surrogates_are_characters_too():
    text = "a\ud800b"  # Python can hold it, UTF-8 cannot
    assert CharTokenizer.train(text).decode(CharTokenizer.train(text).encode(text)) == text


@pytest.mark.parametrize("text, message", [
    ("abd", r"'d' \(U\+0064\) at position 2"),
    ("aébc", r"'é' \(U\+00E9\) at position 1"),
    ("\n", r"'\\n' \(U\+000A\) at position 0"),
    ("a🙂", r"'🙂' \(U\+1F642\) at position 1"),
])  # fmt: skip
def test_an_unknown_character_is_named(text, message):
    with pytest.raises(DataError, match=message):
        CharTokenizer.train("abc").encode(text)


@given(st.text())
def test_unknown_characters_skipped(text):
    tokenizer = CharTokenizer.train("abc", unknown="skip")
    assert tokenizer.decode(tokenizer.encode(text)) == "".join(c for c in text if c in "abc")


def test_bytes_that_are_no_utf8_are_shown_as_such():
    assert ByteTokenizer().decode([0x61, 0xFF, 0x62]) == "a\ufffdb"


@pytest.mark.parametrize("tokenizer", [CharTokenizer.train("abc"), ByteTokenizer()])
def test_ids_outside_the_vocabulary(tokenizer):
    size = tokenizer.vocab_size
    assert tokenizer.decode([]) == "" == tokenizer.decode(tokenizer.encode(""))
    for ids, message in (([0, -1], "id -1"), ([size], f"id {size}"), ([0.5], "float64"), ([[0]], r"\(1, 1\)")):
        with pytest.raises(DataError, match=message):
            tokenizer.decode(ids)


def test_wrong_tokenizers():
    for message, make in {
        "empty text": lambda: CharTokenizer.train(""),
        "unknown='drop'": lambda: CharTokenizer("ab", "drop"),
        "'ba': expected one or more": lambda: CharTokenizer("ba"),
        "'aa'": lambda: CharTokenizer("aa"),
        "vocabulary ''": lambda: CharTokenizer(""),
        "type 'characters'": lambda: tokenizer_from_dict({"type": "words"}),
        "saved tokenizer \\[\\]": lambda: tokenizer_from_dict([]),
        "vocabulary=3": lambda: tokenizer_from_dict({"type": "characters", "vocabulary": 3, "unknown": "skip"}),
        "unknown=None": lambda: tokenizer_from_dict({"type": "characters", "vocabulary": "ab"}),
    }.items():
        with pytest.raises(DataError, match=message):
            make()


def test_examples_in_the_docstrings():
    result = doctest.testmod(characters)
    assert result.attempted > 0 and result.failed == 0
