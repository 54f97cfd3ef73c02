from __future__ import annotations

import doctest
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tokenizers")

from minillm.data import DataError
from minillm.text import ByteTokenizer, CharTokenizer, SubwordTokenizer, bpe, tokenizer_from_dict

TEXT = "the cat sat on the mat; the cats' mats sat there.\n\tThen they're gone, 1234 of them.\r\n\n" * 20
SPECIAL = "<|endoftext|>"


@pytest.fixture(scope="module")
def trained() -> SubwordTokenizer:
    return SubwordTokenizer.train(TEXT, 280, [SPECIAL])


def test_the_example():
    assert doctest.testmod(bpe).failed == 0


texts = st.text(st.characters(exclude_categories=["Cs"]))
lines = st.text(st.sampled_from(list("ab'. \n\r\t\x1c\x85\u3000é😀")))


@given(st.one_of(texts, lines))
def test_every_text_comes_back(trained, text):
    ids = trained.encode(text)
    assert ids.dtype == np.int64 and ids.ndim == 1 and len(ids) <= len(text.encode())
    assert trained.decode(ids) == text


@pytest.mark.parametrize("text", [
    "👩🏽‍🚀 naïve 日本語", "\0\x7f\x80\uffff\U0010ffff", "", " ", "a\r\nb\n\n  c", "e\u0301 é \ufb01",
])  # fmt: skip
def test_texts_that_were_never_seen(trained, text):
    assert trained.decode(trained.encode(text)) == text


def test_pairs_are_merged_most_frequent_first():
    assert SubwordTokenizer.train("aab" * 9, 256).encode("aab").tolist() != [256]
    tokenizer = SubwordTokenizer.train("xyz xyz xy xy xy", 258)
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("xyz")]
    assert pieces == ["xy", "z"] and tokenizer.vocab_size == 258
    assert len(tokenizer.encode("xy xy")) < 5


def test_training_shortens_the_text(trained):
    assert trained.vocab_size == 280
    assert len(trained.encode(TEXT)) < len(TEXT.encode()) / 2


def test_training_is_repeatable(trained):
    assert SubwordTokenizer.train(TEXT, 280, [SPECIAL]).to_json() == trained.to_json()


def test_no_more_tokens_than_the_text_has_pairs():
    tokenizer = SubwordTokenizer.train("abc", 10**15)  # nor any memory for them
    assert 256 < tokenizer.vocab_size <= 259


def test_special_tokens(trained):
    assert trained.token_id(SPECIAL) == 0 and trained.token_id("no such token") is None
    assert trained.encode(f"a{SPECIAL}b").tolist().count(0) == 1
    assert trained.decode([0]) == SPECIAL


@given(st.one_of(texts, lines))
def test_long_texts_are_encoded_in_parts(trained, text):
    whole = trained._tokenizer.encode(text).ids
    size, bpe.PART = bpe.PART, 3
    try:
        assert trained.encode(text).tolist() == whole
        if "\n" not in text:
            assert list(bpe._parts(text)) == [text]
    finally:
        bpe.PART = size


def test_parts_are_cut_where_a_line_ends_behind_a_word():
    text = "word word\n\n  word \n" * 20_000
    parts = list(bpe._parts(text))
    assert len(parts) > 4 and "".join(parts) == text
    assert all(p.startswith("\n") for p in parts[1:])


def test_only_tokenizers_that_allow_it_are_cut(trained):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    assert trained._cuts
    described = json.loads(trained.to_json())
    described["added_tokens"][0]["rstrip"] = True  # would take the line end, too
    assert not SubwordTokenizer.from_json(json.dumps(described))._cuts
    other = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    other.pre_tokenizer = pre_tokenizers.Metaspace()
    assert not SubwordTokenizer(other)._cuts
    other.pre_tokenizer, other.normalizer = pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()
    assert not SubwordTokenizer(other)._cuts


def test_a_file_that_truncates_or_pads_does_not(trained):
    described = json.loads(trained.to_json())
    described["truncation"] = {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    described["padding"] = {
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": SPECIAL,
    }  # fmt: skip
    assert (
        SubwordTokenizer.from_json(json.dumps(described)).encode("the cat sat").tolist()
        == trained.encode("the cat sat").tolist()
    )


def test_saved_and_read(trained, tmp_path):
    trained.save(tmp_path / "tokenizer.json")
    again = SubwordTokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.to_json() == trained.to_json() and again.encode(TEXT).tolist() == trained.encode(TEXT).tolist()


def test_saved_through_json(trained):
    again = tokenizer_from_dict(json.loads(json.dumps(trained.to_dict())))
    assert isinstance(again, SubwordTokenizer) and again.to_dict() == trained.to_dict()
    assert again.encode("the mat").tolist() == trained.encode("the mat").tolist()


def test_special_tokens_around_a_text_only_when_asked():
    from tokenizers import Tokenizer, models, processors

    inner = Tokenizer(models.WordLevel(vocab={"<s>": 0, "a": 1}))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = SubwordTokenizer(inner)
    assert tokenizer.encode("a").tolist() == [1]
    assert tokenizer.encode("a", add_special_tokens=True).tolist() == [0, 1]


# ------------------------------------------------------------------- other tokenizers as tokenizer.json


@given(texts)
def test_bytes_as_a_subword_tokenizer(text):
    new = bpe.to_subword(ByteTokenizer())
    assert new.vocab_size == 256
    assert new.encode(text).tolist() == list(text.encode()) and new.decode(list(text.encode())) == text


@given(texts.filter(bool))
def test_characters_as_a_subword_tokenizer(text):
    old = CharTokenizer.train(text)
    new = SubwordTokenizer.from_json(bpe.to_subword(old).to_json())
    assert new.vocab_size == old.vocab_size
    assert new.encode(text).tolist() == old.encode(text).tolist() and new.decode(new.encode(text)) == text


@pytest.mark.parametrize("text", ["a\n\n\nb", "\r\r\n\u2028\u2029  ", "e\u0301e\u0301 👩🏽\u200d🚀"])
def test_characters_that_patterns_like_to_skip_or_join(text):
    old = CharTokenizer.train(text)
    new = bpe.to_subword(old)
    assert new.encode(text).tolist() == old.encode(text).tolist() and new.decode(new.encode(text)) == text


def test_unknown_characters_stay_an_error():
    with pytest.raises(DataError, match="no token for a part"):
        bpe.to_subword(CharTokenizer("ab")).encode("abc")
    with pytest.raises(DataError, match="tokenizer.json"):
        bpe.to_subword(object())


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("size", [255, 0, -1, 2.5, "300", True, None])
def test_vocabularies_that_cannot_be(size):
    with pytest.raises((DataError, TypeError), match="256|'<' not supported"):
        SubwordTokenizer.train("text", size)


def test_training_needs_text_and_room_for_the_special_tokens():
    with pytest.raises(DataError, match="empty text"):
        SubwordTokenizer.train("", 300)
    with pytest.raises(DataError, match="at least 257"):
        SubwordTokenizer.train("text", 256, [SPECIAL])
    for token in ("", "two words", "line\n"):
        with pytest.raises(DataError, match="without spaces"):
            SubwordTokenizer.train("text", 300, [token])


def test_half_a_surrogate_pair_is_no_text(trained):
    for use in (trained.encode, lambda text: SubwordTokenizer.train(text, 300)):
        with pytest.raises(DataError, match="at position 2 is half of a surrogate pair"):
            use("ab\ud800")


@pytest.mark.parametrize("ids", [[-1], [280], [1.5], [[1]]])
def test_ids_outside_the_vocabulary(trained, ids):
    with pytest.raises(DataError, match="expected"):
        trained.decode(ids)


@pytest.mark.parametrize("content", [
    b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"model": {"type": "BPE"}}',
    b'{"version":"1.0","model":{"type":"WordLevel","vocab":{},"unk_token":"?"}}',
    b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}',
    b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":[["x","y"]]}}',
    b'{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":99999999999},"unk_token":"a"}}',
])  # fmt: skip
def test_files_that_are_no_tokenizer(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match="tokenizer"):
        SubwordTokenizer.from_file(tmp_path / "tokenizer.json")


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="expected a tokenizer.json"):
        SubwordTokenizer.from_file(tmp_path)
    with pytest.raises(DataError, match="expected a tokenizer.json"):
        SubwordTokenizer.from_file(tmp_path / "none.json")


@pytest.mark.parametrize("content", [{}, {"json": 3}, {"json": "{"}])
def test_a_damaged_dictionary(content):
    with pytest.raises(DataError):
        tokenizer_from_dict({"type": "subword", **content})


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for use in (lambda: SubwordTokenizer.train("text", 300), lambda: bpe.to_subword(ByteTokenizer())):
        with pytest.raises(DataError, match=r'pip install "minillm\[text\]"'):
            use()
