"""The report page: complete in itself, valid, escaped, readable without pictures, written all or nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import explain_samples
import pytest

from minillm.explain import Metric, Report, image_grid, loss_curves

HOSTILE = (
    "</title></pre><script>alert(1)</script> \"double\" 'single' & <img src=x onerror=alert(2)> \x00\x1b[31m \ud800"
)
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed in the order of opening."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []  # (enclosing tag, text)
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> while {self.open[-3:]} are open"
        self.open.pop()

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))

    def text_of(self, tag: str) -> list[str]:
        return [text for inside, text in self.text if inside == tag]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return explain_samples.full_report().html()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def small_report(extra: str = "") -> Report:
    report = Report("A title" + extra)
    report.section("One" + extra, "Lead." + extra)
    report.text("Text." + extra)
    return report


def test_page_is_complete_in_itself(html, page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value[:60]!r}>"
    assert not page.all("script")
    assert not page.all("iframe")
    style = "".join(page.text_of("style"))
    assert "url(" not in style
    assert "@import" not in style
    assert "@font-face" not in style
    assert page.all("link")[0]["rel"] == "icon"


def test_page_is_valid_and_accessible(html, page):
    assert html.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("meta")[0] == {"charset": "utf-8"}
    assert page.text_of("title") == ["Four small models"]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    pictures = page.all("img")
    assert len(pictures) == len(explain_samples.all_figures())
    assert all(picture["alt"] for picture in pictures)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert links == ["#" + i for i in ids], "the contents list every section, in order"
    assert all(attributes.get("scope") == "col" for attributes in page.all("th"))


def test_page_is_small(html):
    assert len(html.encode()) < 3_000_000


def test_both_picture_formats_are_used(html):
    assert "data:image/svg+xml;base64," in html
    assert "data:image/png;base64," in html


def test_hostile_text_stays_text(monkeypatch):
    one = {"loss": explain_samples.all_figures()["loss"]}
    monkeypatch.setattr(explain_samples, "all_figures", lambda: one)
    plain = Page(explain_samples.full_report().html())
    html = explain_samples.full_report(hostile=HOSTILE).html()
    hostile = Page(html)
    # The same elements, with the one extra metric card, and no attribute that the text brought along
    extra = len(hostile.all("li")) - len(plain.all("li"))
    assert extra == 1
    for tag in ("script", "img", "pre", "title", "section", "table", "td", "a", "figure", "details"):
        assert len(hostile.all(tag)) == len(plain.all(tag)), tag
    assert not any(name.startswith("on") for _, attributes in hostile.tags for name in attributes)
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    assert hostile.text_of("title") == ["Four small models" + shown]
    assert hostile.all("img")[0]["alt"] == " ".join(("loss" + shown).split())
    places = ["h1", "h2", "td", "th", "caption", "figcaption", "pre", "summary", "dt", "a"]
    missing = [tag for tag in places if not any(shown in text for text in hostile.text_of(tag))]
    assert missing == []
    html.encode("utf-8")


def test_whitespace_of_samples_is_kept():
    report = Report("Samples")
    text = "\n\n  two blank lines first,\ttab & <tag>\n\n"
    report.samples([("step 1", text)])
    page = html_pre(report)
    assert page == [text]
    report = Report("Code")
    report.code(text, fold="Show")
    assert html_pre(report) == [text]


def html_pre(report: Report) -> list[str]:
    # A browser drops the first line end inside <pre>; html.parser does not
    texts = Page(report.html()).text_of("pre")
    assert all(text.startswith("\n") for text in texts)
    return [text[1:] for text in texts]


def test_paragraphs_are_split_at_blank_lines():
    report = Report("T")
    report.text("one\nstill one\n\n  \ntwo")
    assert Page(report.html()).text_of("p")[:2] == ["one\nstill one", "two"]


def test_write_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "report.html"
    assert small_report().write(path) == path
    first = path.read_text(encoding="utf-8")
    assert small_report(" changed").write(str(path)) == path
    second = path.read_text(encoding="utf-8")
    assert first != second
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]

    def full_disk(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space left"):
        small_report(" broken").write(path)
    assert path.read_text(encoding="utf-8") == second
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_write_to_a_folder_says_so(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        small_report().write(tmp_path)


def test_the_same_report_gives_the_same_bytes():
    pages = []
    for _ in range(2):
        report = small_report()
        report.figure(loss_curves(explain_samples.history(), {"guess": 4.1}), "caption", "alt")
        report.figure(image_grid(explain_samples.glyphs(9)[0]), "caption", "alt")
        pages.append(report.html())
    assert pages[0] == pages[1]


def test_figure_without_alt_is_refused():
    with pytest.raises(ValueError, match="alt is empty"):
        Report("T").figure(None, "caption", "  ")


def test_table_rows_must_fit_the_header():
    with pytest.raises(ValueError, match="row 1 has 1 cells, the header has 2"):
        Report("T").table([[1, 2], [1]], ["a", "b"])


def test_table_aligns_numbers_only():
    report = Report("T")
    report.table([["a", 1234.5, True], ["b", None, False]], ["name", "value", "done"])
    page = Page(report.html())
    assert [cell.get("class") for cell in page.all("td")] == [None, "number", None] * 2
    assert page.text_of("td") == ["a", "1,234", "True", "b", "–", "False"]


@pytest.mark.parametrize(
    ("metric", "outcome", "verdict"),
    [
        (Metric("m", 1.0, "nats", 3.0, "guess", 0.5, "entropy"), "better",
         "Better than guess by 2 nats; 80 % of the way to entropy."),
        (Metric("m", 4.0, "nats", 3.0, "guess", 0.5, "entropy"), "worse", "Worse than guess by 1 nats."),
        (Metric("m", 90.0, "%", 50.0, "guess", 100.0, "all", "higher"), "better",
         "Better than guess by 40 points; 80 % of the way to all."),
        (Metric("m", 40.0, "%", 50.0, "guess", better="higher"), "worse", "Worse than guess by 10 points."),
        (Metric("m", 3.0, baseline=3.0, baseline_name="guess"), "same", "No better than guess."),
        (Metric("m", 0.4, floor=0.5, floor_name="entropy"), "none",
         "Past entropy: that floor is only an estimate, or the evaluation is wrong."),
        (Metric("m", float("nan"), baseline=3.0), "broken", "Not a finite number: the run diverged."),
        (Metric("m", 1.0), "none", ""),
    ],
)  # fmt: skip
def test_metric_says_who_won(metric, outcome, verdict):
    assert (metric.outcome, metric.verdict) == (outcome, verdict)
    report = Report("T")
    report.metrics([metric])
    page = Page(report.html())
    assert {"class": f"metric {outcome}"} in page.all("li")
    assert verdict in "".join(page.text_of("p"))


def test_metric_bars_are_drawn_from_zero():
    report = Report("T")
    report.metrics([Metric("m", -1.0, baseline=3.0, floor=-2.0)])
    bars = re.findall(r"margin-left:([\d.]+)%;width:([\d.]+)%", report.html())
    assert bars == [("20.00", "20.00"), ("40.00", "60.00"), ("0.00", "40.00")]


def test_metric_direction_is_checked():
    with pytest.raises(ValueError, match="expected 'lower' or 'higher'"):
        Metric("m", 1.0, better="smaller")


def test_chromium_shows_the_page_without_complaint(tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    figures = explain_samples.all_figures()
    report = small_report(HOSTILE)
    report.metrics(explain_samples.metrics())
    report.figure(figures["loss"], "caption", "alt")
    report.figure(figures["weights"], "caption", "alt")
    path = report.write(tmp_path / "report.html")
    shot = tmp_path / "page.png"
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        "--v=0", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,2000", f"--screenshot={shot}",
        path.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
