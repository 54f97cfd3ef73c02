"""Tokenizers that need no merges: one id for each character, or one for each byte of UTF-8.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.vocabulary, tokenizer.encode("hole").tolist()
    ('ehlo', [1, 3, 2, 0])
    >>> tokenizer.decode([1, 3, 2, 0])
    'hole'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.errors import DataError

if TYPE_CHECKING:
    from .bpe import SubwordTokenizer

UNKNOWN = ("error", "skip")


class CharTokenizer:
    """Id k is the k-th character, in code point order, of the text it was trained on.

    vocabulary: the characters, sorted and each once. unknown: what `encode` does with any other character, "error"
    (a DataError that names it) or "skip". Decoding what was encoded gives the text again.
    """

    def __init__(self, vocabulary: str, unknown: str = "error"):
        codes = _code_points(vocabulary)
        if len(codes) == 0 or (codes[1:] <= codes[:-1]).any():
            raise DataError(
                f"vocabulary {vocabulary[:40]!r}: expected one or more characters, sorted, each once; "
                "CharTokenizer.train(text) makes it from a text"
            )
        if unknown not in UNKNOWN:
            raise DataError(f"unknown={unknown!r}: expected 'error' or 'skip'")
        self.vocabulary = vocabulary
        self.unknown = unknown
        self._codes = codes  # (V,) ascending: the id of a character is its place in here

    @classmethod
    def train(cls, text: str, unknown: str = "error") -> CharTokenizer:
        """The tokenizer whose vocabulary is the characters of `text`."""
        if not text:
            raise DataError("an empty text has no characters to train a tokenizer on: expected at least one")
        return cls("".join(sorted(set(text))), unknown)

    @property
    def vocab_size(self) -> int:
        return len(self._codes)

    def encode(self, text: str) -> Any:
        """Ids int64 (T,), one for each character of `text` (fewer where unknown="skip" left some out)."""
        codes = _code_points(text)  # (T,)
        ids = np.searchsorted(self._codes, codes).clip(max=self.vocab_size - 1)
        known = self._codes[ids] == codes
        if self.unknown == "error" and not known.all():
            place = int(np.argmin(known))
            raise DataError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}) at position {place} is not among the "
                f"{self.vocab_size} of the vocabulary: expected only characters of the training text; "
                "leave it out, or make the tokenizer with unknown='skip'"
            )
        return ids[known].astype(np.int64)

    def decode(self, ids: Any) -> str:
        """The text of integer ids (T,), each from 0 to vocab_size - 1."""
        codes = self._codes[_checked(ids, self.vocab_size)]
        return codes.tobytes().decode("utf-32-le", "surrogatepass")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs, in types that JSON has."""
        return {"type": "characters", "vocabulary": self.vocabulary, "unknown": self.unknown}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> CharTokenizer:
        _check_saved(saved, "characters", vocabulary=str, unknown=str)
        return cls(saved["vocabulary"], saved["unknown"])


class ByteTokenizer:
    """Id k is the byte k of the text in UTF-8: 256 ids, nothing to train, no character unknown."""

    vocab_size = 256

    def encode(self, text: str) -> Any:
        """Ids int64 (T,), one for each byte."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)

    def decode(self, ids: Any) -> str:
        """The text of integer ids (T,), each from 0 to 255; bytes that are no UTF-8 give U+FFFD."""
        return _checked(ids, 256).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs, in types that JSON has."""
        return {"type": "bytes"}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> ByteTokenizer:
        _check_saved(saved, "bytes")
        return cls()


def tokenizer_from_dict(saved: dict[str, Any]) -> CharTokenizer | ByteTokenizer | SubwordTokenizer:
    """The tokenizer that `to_dict` described."""
    kind = saved.get("type") if isinstance(saved, dict) else None
    if kind == "subword":
        from .bpe import SubwordTokenizer

        return SubwordTokenizer.from_dict(saved)
    return ByteTokenizer.from_dict(saved) if kind == "bytes" else CharTokenizer.from_dict(saved)


def _code_points(text: str) -> Any:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _checked(ids: Any, vocab_size: int) -> Any:
    """ids as an integer array (T,), each in the vocabulary: NumPy alone would read -1 as the last."""
    ids = np.asarray(ids)
    if ids.size == 0:
        return np.zeros(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(f"ids {ids.dtype} {ids.shape}: expected integers of shape (T,)")
    if ids.min() < 0 or ids.max() >= vocab_size:
        wrong = ids[(ids < 0) | (ids >= vocab_size)][0]
        raise DataError(f"id {wrong}: expected 0 to {vocab_size - 1}, the vocabulary of this tokenizer")
    return ids


def _check_saved(saved: Any, kind: str, **fields: type) -> None:
    if not isinstance(saved, dict) or saved.get("type") != kind:
        raise DataError(f"saved tokenizer {str(saved)[:60]}: expected a dict with type {kind!r}, as to_dict makes it")
    for name, wanted in fields.items():
        if not isinstance(saved.get(name), wanted):
            raise DataError(f"saved tokenizer has {name}={saved.get(name)!r}: expected a {wanted.__name__}")
