"""Text for HTML pages and for table cells."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from minillm.explain.style import format_value

_FORBIDDEN = {c: "\N{REPLACEMENT CHARACTER}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}


def plain(text: Any) -> str:
    """Text with unified line ends; control characters and lone surrogates, which HTML forbids, become U+FFFD."""
    text = str(text).replace("\r\n", "\n").replace("\r", "\n").translate(_FORBIDDEN)
    return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= c <= "\udfff" else c for c in text)


def escape(text: Any) -> str:
    """`plain(text)` with the markup characters escaped, quotes too, so that it can stand in an attribute.

    >>> escape('<b>"x" & y</b>')
    '&lt;b&gt;&quot;x&quot; &amp; y&lt;/b&gt;'
    """
    return html.escape(plain(text), quote=True)


def is_number(value: Any) -> bool:
    """Whether a table cell counts as a number, NumPy's scalars included and booleans not; None is a missing number."""
    return value is None or (isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool))


def cell_text(value: Any) -> str:
    """A table cell: None as a dash, numbers with four digits, anything else as it is."""
    if value is None:
        return "–"
    return format_value(value) if is_number(value) else str(value)
