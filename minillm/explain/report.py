"""A report as one HTML file that needs nothing else: no network, no script, no fonts, pictures inside the page.

    report = Report("Four small models", "trained on this machine")
    report.section("Autoencoder", "64 pixels through 8 numbers and back.")
    report.metrics([Metric("Test error", 0.9, "MSE", baseline=2.1, baseline_name="PCA")])
    report.figure(loss_curves(history), "Loss while training.", alt="Both losses fall from 4 to 0.9.")
    report.write("report.html")

Everything that is passed in is text and is escaped; there is no way to pass HTML.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minillm.explain.embed import image_tag
from minillm.explain.markup import cell_text, escape, is_number
from minillm.explain.metric import Metric, card

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#1f6fb5"/>'
    '<path d="M3 3v10h10M5 5q1 6 7 6" fill="none" stroke="#fff" stroke-width="1.6"/></svg>'
)


def _pre(text: Any, kind: str) -> str:
    # HTML drops one line end right after <pre>: give it one to drop, so that the text keeps its own
    return f'<pre class="{kind}">\n{escape(text)}</pre>'


class Report:
    """A page with a title, a table of contents and sections, filled from top to bottom. See the module's example.

    Blocks added before the first `section` stand between the title and the table of contents' sections.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._sections: list[tuple[str, str, list[str]]] = []  # (anchor, title, blocks)
        self._opening: list[str] = []

    def _add(self, block: str) -> None:
        (self._sections[-1][2] if self._sections else self._opening).append(block)

    def section(self, title: str, lead: str = "") -> None:
        """Start a section; `lead` is a sentence or two below its heading."""
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        taken = {anchor for anchor, _, _ in self._sections}
        anchor, count = slug, 2
        while anchor in taken:
            anchor, count = f"{slug}-{count}", count + 1
        self._sections.append((anchor, title, []))
        if lead:
            self._add(f'<p class="lead">{escape(lead)}</p>')

    def text(self, text: str) -> None:
        """Plain paragraphs, separated by blank lines."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self._add(f"<p>{escape(paragraph)}</p>")

    def figure(self, fig: Any, caption: str, alt: str, raster: bool | None = None) -> None:
        """A matplotlib Figure. `alt` says in words what it shows. raster: True PNG, False SVG, None by contents."""
        if not alt.strip():
            raise ValueError("figure: alt is empty; say in a sentence what the picture shows")
        self._add(
            f'<figure><div class="picture">{image_tag(fig, alt, raster)}</div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def table(self, rows: Iterable[Sequence[Any]], header: Sequence[str], caption: str = "") -> None:
        """Rows of text or numbers under `header`; columns that hold only numbers are aligned right."""
        rows = [list(row) for row in rows]
        for i, row in enumerate(rows):
            if len(row) != len(header):
                raise ValueError(f"table: row {i} has {len(row)} cells, the header has {len(header)}")
        numeric = [bool(rows) and all(is_number(row[j]) for row in rows) for j in range(len(header))]
        kinds = [' class="number"' if n else "" for n in numeric]
        head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(header, kinds))
        body = "".join(
            "<tr>"
            + "".join(f"<td{kind}>{escape(cell_text(value))}</td>" for value, kind in zip(row, kinds))
            + "</tr>\n"
            for row in rows
        )
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._add(
            f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'
        )

    def metrics(self, metrics: Iterable[Metric]) -> None:
        """A card per metric: the model's figure, its baseline and its floor, and which of them won."""
        metrics = list(metrics)
        if metrics:
            self._add('<ul class="metrics">\n' + "\n".join(card(metric) for metric in metrics) + "\n</ul>")

    def samples(self, samples: Iterable[tuple[str, str]]) -> None:
        """(label, text) pairs, such as what a language model wrote after each stage of training, as it stands."""
        items = [
            f'<figure class="sample"><figcaption>{escape(label)}</figcaption>{_pre(text, "text")}</figure>'
            for label, text in samples
        ]
        self._add(f'<div class="samples">\n{"".join(items)}\n</div>')

    def code(self, text: str, fold: str = "") -> None:
        """Code or a command, as it stands. fold: a title; the code is then hidden until the title is clicked."""
        block = _pre(text, "code")
        self._add(f"<details><summary>{escape(fold)}</summary>{block}</details>" if fold else block)

    def html(self) -> str:
        """The page as one string."""
        style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
        icon = base64.b64encode(_ICON.encode("ascii")).decode("ascii")
        links = "".join(f'<li><a href="#{a}">{escape(t)}</a></li>\n' for a, t, _ in self._sections)
        contents = f'<nav aria-label="Contents"><ol>\n{links}</ol></nav>\n' if len(self._sections) > 1 else ""
        sections = "\n".join(
            f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n' + "\n".join(blocks) + "\n</section>"
            for anchor, title, blocks in self._sections
        )
        opening = "\n".join(self._opening)
        subtitle = f'<p class="subtitle">{escape(self.subtitle)}</p>\n' if self.subtitle else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{escape(self.title)}</title>\n"
            f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n<style>\n{style}</style>\n</head>\n'
            f"<body>\n<header>\n<h1>{escape(self.title)}</h1>\n{subtitle}</header>\n"
            f'<div class="page{"" if contents else " single"}">\n{contents}<main>\n{opening}\n{sections}\n</main>\n'
            "</div>\n<footer><p>Made by minillm. This file is complete: it loads nothing from the network.</p></footer>"
            "\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to `path`, creating its folder; a reader sees the old file or the new one, never a half."""
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"Report.write: {path} is a folder; give the name of a file, e.g. report.html")
        page = self.html().encode("utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(page)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path
