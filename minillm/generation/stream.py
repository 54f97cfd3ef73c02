"""Text as it comes: from one id after the other to pieces of text that can be shown at once.

A piece waits where showing it could be wrong:

- a token may end within a character: its bytes are not yet UTF-8, and decode to U+FFFD
- what a token says depends on those before it: subword tokenizers drop the space of a text's first word
- the end of the text may be the start of a stop string
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

INCOMPLETE = "\ufffd"  # what bytes that are not (yet) UTF-8 decode to
HELD = 3  # bytes of a character whose last byte is missing, at most
BEFORE = 8  # tokens of the prompt that are decoded again, so that the first new one has its space


class TextStream:
    """`push(id)` gives the text that is certain by now, perhaps none; `finish()` gives the rest.

    tokenizer  anything with decode(ids) -> str
    prompt     the ids that the text continues; they are not given again
    stop       strings that end the text: `stopped` is then the one that did, and no piece holds it or what follows. The
               one that is complete first counts; of those complete at once, the longest

    >>> from minillm.text import ByteTokenizer
    >>> stream = TextStream(ByteTokenizer(), stop=["END"])
    >>> [stream.push(byte) for byte in "hé Enough END no".encode()][:8]
    ['h', '', 'é', ' ', '', 'En', 'o', 'u']
    >>> stream.stopped
    'END'
    """

    def __init__(self, tokenizer: Any, prompt: Iterable[int] = (), stop: Iterable[str] = ()):
        self.tokenizer = tokenizer
        self.stops = [stop] if isinstance(stop, str) else list(stop)
        if "" in self.stops:
            raise ValueError("TextStream: a stop string is empty; every text holds it")
        self.stopped: str | None = None
        self._ids = self._tail([int(i) for i in prompt])  # from these on ids are decoded, so that their text has a past
        self._whole = len(self._ids)  # the first so many of them end with a character
        self._shown = len(_certain(self._decode(self._ids)))  # characters of their text that were given already
        self._waiting = ""  # certain, but perhaps the start of a stop string

    def push(self, token: int) -> str:
        """The text that `token` makes certain; "" after a stop string."""
        if self.stopped is not None:
            return ""
        self._ids.append(int(token))
        text, piece = self._decode(self._ids), ""
        if not text.endswith(INCOMPLETE):
            piece = text[self._shown :]
            if piece:
                self._ids = self._ids[self._whole :]  # what came with the last piece is past enough
                self._whole, self._shown = len(self._ids), len(self._decode(self._ids))
        elif len(self._ids) - self._whole > HELD:  # no character is that long: bytes that are no text
            certain = _certain(text)
            piece, self._shown = certain[self._shown :], max(self._shown, len(certain))
        return self._release(piece)

    def finish(self) -> str:
        """What was still held back; "" after a stop string."""
        if self.stopped is not None:
            return ""
        text = self._decode(self._ids)
        piece, self._shown = self._release(text[self._shown :]), len(text)
        rest, self._waiting = self._waiting, ""
        return piece + rest

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids) if ids else ""

    def _tail(self, ids: list[int]) -> list[int]:
        """The last few ids, from the beginning of a character on."""
        for count in range(BEFORE, BEFORE + HELD + 1):
            tail = ids[-count:]
            if not self._decode(tail).startswith(INCOMPLETE):
                return tail
        return ids[-BEFORE:]

    def _release(self, piece: str) -> str:
        text = self._waiting + piece
        found = [(at + len(s), at, s) for s in self.stops if (at := text.find(s)) >= 0]
        if found:
            _, at, self.stopped = min(found)
            self._waiting = ""
            return text[:at]
        waits = max((_overlap(text, s) for s in self.stops), default=0)
        self._waiting = text[len(text) - waits :]
        return text[: len(text) - waits]


def _certain(text: str) -> str:
    """text without what may still become another character at its end."""
    held = 0
    while held < min(HELD, len(text)) and text[len(text) - 1 - held] == INCOMPLETE:
        held += 1
    return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of text are the start of `stop`, the whole of it not counted."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
