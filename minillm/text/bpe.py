"""Subword tokenizers: byte-pair encoding, and whatever else a tokenizer.json describes.

Byte-pair encoding starts from the 256 bytes and again and again makes one new token of the pair of neighbours that is
most frequent in the training text (Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019, GPT-2). So
frequent words become single tokens, and no text is unknown: what was never seen is spelt in bytes.

The work is done by the library `tokenizers`, in Hugging Face's file format; here it gets the interface of the other
tokenizers, and its errors.

    >>> tokenizer = SubwordTokenizer.train("low lower lowest slow slower " * 9, 262)
    >>> [tokenizer.decode([i]) for i in tokenizer.encode("slowest")]
    ['s', 'lowe', 'st']
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.errors import DataError, existing_file, read_bytes
from .characters import ByteTokenizer, CharTokenizer, _check_saved, _checked

LARGEST = 1 << 28  # bytes of a tokenizer.json
PART = 1 << 16  # characters that go to the library at once: for each it needs some 100 bytes
_CUT = re.compile(r"\S(?=\n)")  # no token of a byte-level tokenizer goes on behind it


class SubwordTokenizer:
    """A tokenizer of the library `tokenizers`: SubwordTokenizer.train(text, vocab_size), or from_file of one.

    vocab_size  one more than its highest id
    DataError for a file that is not one, for ids that it does not have, and where the library is not installed.
    """

    def __init__(self, tokenizer: Any):
        tokenizer.no_truncation()  # a file may ask for it: text would be lost without a word
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.vocab_size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if self.vocab_size < 1:
            raise DataError("a tokenizer without any token: expected a vocabulary")
        self._cuts = _may_be_cut(json.loads(tokenizer.to_str()))

    @classmethod
    def train(cls, text: str, vocab_size: int, special_tokens: Sequence[str] = ()) -> SubwordTokenizer:
        """Byte-level byte-pair encoding, as GPT-2's, learnt from `text`; it has fewer tokens where no pair is left.

        special_tokens  "<|endoftext|>", say: a token each, with the first ids, wherever they stand in a text
        """
        least = 256 + len(special_tokens)
        if isinstance(vocab_size, bool) or not hasattr(vocab_size, "__index__") or vocab_size < least:
            raise DataError(
                f"vocab_size={vocab_size!r}: expected a whole number of at least {least}: the bytes"
                + (" and the special tokens" if special_tokens else "")
            )
        if not text:
            raise DataError("an empty text has no pairs to train a tokenizer on: expected at least one character")
        if odd := [t for t in special_tokens if not t or t.split() != [t]]:
            raise DataError(f"special token {odd[0]!r}: expected text without spaces or line ends")
        size = len(_utf8(text))
        lib = _library()
        tokenizer = lib.Tokenizer(lib.models.BPE())
        _byte_level(lib, tokenizer)
        trainer = lib.trainers.BpeTrainer(
            vocab_size=min(vocab_size, least + size),  # each merge takes a place at least; memory is set aside for all
            special_tokens=list(special_tokens),
            initial_alphabet=lib.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((text[i : i + PART] for i in range(0, len(text), PART)), trainer)
        return cls(tokenizer)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SubwordTokenizer:
        """Read a tokenizer.json of any kind that the library knows: GPT-2's, Llama's ..."""
        if (size := existing_file(path, "a tokenizer.json").stat().st_size) > LARGEST:
            raise DataError(f"{str(path)!r} has {size:,} bytes: expected a tokenizer.json, {LARGEST:,} at most")
        data = read_bytes(path, "a tokenizer.json")
        try:
            return cls.from_json(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise DataError(f"{str(path)!r} is not UTF-8 text: expected a tokenizer.json") from None
        except DataError as error:
            raise DataError(f"{str(path)!r}: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> SubwordTokenizer:
        """From the content of a tokenizer.json."""
        lib = _library()
        return cls(_guarded(lambda: lib.Tokenizer.from_str(text), "not a tokenizer.json that `tokenizers` reads"))

    def to_json(self) -> str:
        """The content of its tokenizer.json."""
        return self._tokenizer.to_str()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a tokenizer.json, which Hugging Face's libraries read as well."""
        Path(path).write_text(self.to_json(), "utf-8")

    def token_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, "<|endoftext|>" for one; None if there is none."""
        return self._tokenizer.token_to_id(token)

    def encode(self, text: str, add_special_tokens: bool = False) -> Any:
        """Ids int64 (T,). add_special_tokens: with those that the tokenizer puts around a text, Llama's first one."""
        _utf8(text)
        parts = _parts(text) if self._cuts else [text]
        ids = [_guarded(partial(self._ids, p, add_special_tokens), "no token for a part of the text") for p in parts]
        return np.concatenate(ids)

    def _ids(self, part: str, special: bool) -> Any:
        return np.array(self._tokenizer.encode(part, add_special_tokens=special).ids, np.int64)

    def decode(self, ids: Any) -> str:
        """The text of integer ids (T,); bytes that are no UTF-8 give U+FFFD, special tokens their names."""
        ids = _checked(ids, self.vocab_size).tolist()
        return _guarded(lambda: self._tokenizer.decode(ids, skip_special_tokens=False), "these ids have no text")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs, in types that JSON has."""
        return {"type": "subword", "json": self.to_json()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> SubwordTokenizer:
        _check_saved(saved, "subword", json=str)
        return cls.from_json(saved["json"])


def to_subword(tokenizer: Any) -> SubwordTokenizer:
    """The same tokenizer in the form that tokenizer.json has: of one for characters or bytes, with the same ids.

    Characters that it does not know: "error" stays an error; "skip" has no counterpart there, and becomes one.
    """
    if isinstance(tokenizer, SubwordTokenizer):
        return tokenizer
    lib = _library()
    if isinstance(tokenizer, ByteTokenizer):
        letters = _byte_letters(lib)
        new = lib.Tokenizer(lib.models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
        _byte_level(lib, new)
    elif isinstance(tokenizer, CharTokenizer):
        _utf8(tokenizer.vocabulary)
        new = lib.Tokenizer(lib.models.WordLevel(vocab={c: i for i, c in enumerate(tokenizer.vocabulary)}))
        new.pre_tokenizer = lib.pre_tokenizers.Split(lib.Regex(r"[\s\S]"), behavior="isolated")
        new.decoder = lib.decoders.Fuse()
    else:
        raise DataError(f"{type(tokenizer).__name__} has no tokenizer.json: expected one of minillm.text's tokenizers")
    return SubwordTokenizer(new)


def _byte_level(lib: Any, tokenizer: Any) -> None:
    """Text to bytes, each shown as a letter, cut into words as GPT-2's; and back."""
    tokenizer.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = lib.decoders.ByteLevel()


def _byte_letters(lib: Any) -> list[str]:
    """The letter that stands for each byte: GPT-2's table, Latin-1 where that can be seen, else from U+0100 on."""
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    hidden = itertools.count(256)
    letters = [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]
    assert sorted(letters) == sorted(lib.pre_tokenizers.ByteLevel.alphabet())
    return letters


def _may_be_cut(described: dict[str, Any]) -> bool:
    """Whether text may be cut where a line ends behind a word, and its parts encoded one after the other."""
    cutter = described.get("pre_tokenizer") or {}
    return (
        described.get("normalizer") is None
        and cutter.get("type") == "ByteLevel"
        and cutter.get("use_regex", True)
        and not cutter.get("add_prefix_space")
        and (described.get("post_processor") or {}).get("type", "ByteLevel") == "ByteLevel"
        and not any(
            t.get("lstrip") or t.get("rstrip") or t["content"].split() != [t["content"]]
            for t in described.get("added_tokens") or []
        )
    )


def _parts(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PART:
        cut = _CUT.search(text, start + PART)
        if cut is None:
            break
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:]


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {text[error.start]!r} at position {error.start} is half of a surrogate pair, which UTF-8 does "
            "not have: expected text; leave it out"
        ) from None


def _guarded(call: Any, problem: str) -> Any:
    """call(), the library's errors as DataError; a panic of its Rust code is no Exception."""
    try:
        return call()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{problem} ({str(error).strip()[:200] or type(error).__name__})") from None


def _library() -> Any:
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: F401
    except ImportError:
        raise DataError(
            'subword tokenizers need the library tokenizers, which is not installed: pip install "minillm[text]" '
            '(in the project folder: pip install -e ".[text]")'
        ) from None
    return tokenizers
