"""Pieces of text: whole characters, no stop string and nothing that may become one, and together the whole text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.generation import TextStream
from minillm.text import ByteTokenizer, CharTokenizer


class Pieces:
    """Id k stands for the k-th piece, of any length: tokens with any borders."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


class Words:
    """As SentencePiece: each token begins with a space, which the first of a text loses."""

    def __init__(self, words):
        self.words = list(words)

    def decode(self, ids):
        return "".join(" " + self.words[i] for i in ids)[1:]


def pieces_of(tokenizer, ids, prompt=(), stop=()) -> list[str]:
    stream = TextStream(tokenizer, prompt, stop)
    return [*(stream.push(i) for i in ids), stream.finish()]


def reference(text: str, stops: list[str]) -> str:
    """text up to the stop string that is complete first, the longest of those complete at once."""
    for end in range(1, len(text) + 1):
        begins = [end - len(s) for s in stops if text[:end].endswith(s)]
        if begins:
            return text[: min(begins)]
    return text


# ---------------------------------------------------------------------------------------------- characters


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30))
def test_bytes_come_as_whole_characters(text):
    pieces = pieces_of(ByteTokenizer(), ByteTokenizer().encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_lose_nothing(ids):
    assert "".join(pieces_of(ByteTokenizer(), ids)) == ByteTokenizer().decode(ids)


def test_a_character_waits_for_its_last_byte():
    pieces = pieces_of(ByteTokenizer(), ByteTokenizer().encode("a€😀b"))
    assert pieces == ["a", "", "", "€", "", "", "", "😀", "b", ""]


def test_an_unfinished_character_at_the_end_is_shown_as_what_it_is():
    stream = TextStream(ByteTokenizer())
    assert stream.push(0xE2) == "" and stream.finish() == "\ufffd"


def test_characters_come_at_once():
    tokenizer = CharTokenizer.train("héllo")
    assert pieces_of(tokenizer, tokenizer.encode("héllo")) == ["h", "é", "l", "l", "o", ""]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=20))
def test_spaces_between_words(ids, prompt):
    """After a prompt the first word keeps its space; without one it has none."""
    words = Words(["to", "be", "or", "not"])
    whole = words.decode([*prompt, *ids])
    assert "".join(pieces_of(words, ids, prompt)) == whole[len(words.decode(prompt)) :]


def test_few_tokens_are_decoded_again():
    class Counting(ByteTokenizer):
        most = 0

        def decode(self, ids):
            self.most = max(self.most, len(ids))
            return super().decode(ids)

    tokenizer = Counting()
    pieces_of(tokenizer, ByteTokenizer().encode("€uro " * 200), range(200))
    assert tokenizer.most <= 16


@pytest.mark.parametrize("normal", [True, False], ids=["byte level", "byte fallback"])
def test_subword_tokenizers(normal):
    """A BPE on bytes, and one that falls back to bytes for characters it lacks."""
    tokenizers = pytest.importorskip("tokenizers")
    if normal:
        t = tokenizers.Tokenizer(tokenizers.models.BPE())
        t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        t.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
        t.train_from_iterator(["the théâtre and the 中文 theatre"] * 5, trainer)
    else:
        vocab = {piece: 256 + i for i, piece in enumerate(["▁", "t", "h", "e", "th", "▁th"])}
        vocab |= {f"<0x{b:02X}>": b for b in range(256)}
        merges = [("t", "h"), ("▁", "th")]
        t = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges, byte_fallback=True))
        t.normalizer = tokenizers.normalizers.Replace(" ", "▁")
        d = tokenizers.decoders
        t.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse()])
    text = "the théâtre — 中文 😀 the end"
    ids = t.encode(text).ids
    assert t.decode(ids) == text
    pieces = pieces_of(t, ids)
    assert "".join(pieces) == text and not any("\ufffd" in p for p in pieces)
    assert sum(bool(p) for p in pieces) > 8  # and they came bit by bit


# -------------------------------------------------------------------------------------------- stop strings


def test_a_stop_string_across_tokens():
    t = Pieces(["Hello", " wor", "ld", "\nUs", "er:", " more"])
    stream = TextStream(t, stop=["\nUser:"])
    assert [stream.push(i) for i in range(6)] == ["Hello", " wor", "ld", "", "", ""]
    assert stream.stopped == "\nUser:" and stream.finish() == ""


def test_what_only_looked_like_a_stop_string_is_shown():
    t = Pieces(["a\nUs", "e", "d:", "\nU"])
    stream = TextStream(t, stop=["\nUser:"])
    assert [stream.push(i) for i in range(4)] == ["a", "", "\nUsed:", ""]
    assert stream.stopped is None and stream.finish() == "\nU"


def test_a_stop_string_within_a_token():
    stream = TextStream(Pieces(["one STOP two"]), stop="STOP")
    assert stream.push(0) == "one " and stream.stopped == "STOP"


def test_a_stop_string_that_overlaps_itself():
    assert "".join(pieces_of(Pieces("aaabab"), range(6), stop=["aabab"])) == "a"


cuts = st.lists(st.text("ab\n", max_size=4), max_size=12)


@settings(max_examples=300, deadline=None)
@given(cuts, st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_stop_strings_whatever_the_borders(pieces, stops):
    stream = TextStream(Pieces(pieces), stop=stops)
    shown = ""
    for i in range(len(pieces)):
        shown += stream.push(i)
        so_far = "".join(pieces[: i + 1])
        assert reference(so_far, stops).startswith(shown)  # nothing was shown too early
    shown += stream.finish()
    whole = "".join(pieces)
    assert shown == reference(whole, stops)
    assert (stream.stopped is not None) == (reference(whole, stops) != whole)


def test_a_stop_string_of_many_bytes():
    ids = ByteTokenizer().encode("ja 😀 nein")
    stream = TextStream(ByteTokenizer(), stop="😀")
    assert "".join(stream.push(i) for i in ids) == "ja " and stream.stopped == "😀"


def test_the_prompt_is_not_searched():
    t = Pieces(["END", "x", "EN", "D"])
    assert pieces_of(t, [1, 1], prompt=[0], stop=["END"]) == ["x", "x", ""]
    assert pieces_of(t, [3, 1], prompt=[2], stop=["END"]) == ["D", "x", ""]


def test_an_empty_stop_string():
    with pytest.raises(ValueError, match="empty"):
        TextStream(ByteTokenizer(), stop=["a", ""])


def test_numpy_ids():
    assert TextStream(ByteTokenizer(), np.array([65])).push(np.int64(66)) == "B"
