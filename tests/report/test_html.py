"""The report is one closed file in which nothing that a file is called can do harm."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dermseg.inference.journal import Entry
from dermseg.inference.outputs import Row, failed_row
from dermseg.report.html import write_report

EVIL = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>.jpg"


class Elements(HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self._script: str | bool | None = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = dict(attrs).get("id") if tag == "script" else False

    def handle_data(self, data: str) -> None:
        if self._script is not False:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


@pytest.fixture
def page(tmp_path: Path) -> tuple[str, Elements]:
    row = Row(EVIL, "ok", width=40, height=30, confidence=0.5, area_fraction=0.1, mask="masks/x.png")
    entries = [Entry(row, (), {}, "QUJD"), Entry(failed_row("b.jpg", "no\nimage"), (), {})]
    counts = {"images": 2, "ok": 1, "no_lesion": 0, "failed": 1}

    def read(order: Sequence[str] | None) -> list[Entry]:
        return [entry for entry in entries if order is None or entry.row.file in order]

    write_report(tmp_path / "report.html", read, counts=counts, about={"Inputs": EVIL}, finished="<now>")
    text = (tmp_path / "report.html").read_text("utf-8")
    elements = Elements()
    elements.feed(text)
    return text, elements


@pytest.mark.parametrize(("expected", "words"), [(None, "how sharply"), (0.9, "their Dice")])
def test_the_page_says_what_its_confidence_is(tmp_path: Path, expected: float | None, words: str) -> None:
    row = Row("a.jpg", "ok", width=40, height=30, confidence=0.9, area_fraction=0.1, predicted_dice=expected)
    path = tmp_path / "report.html"
    counts = {"images": 1, "ok": 1, "no_lesion": 0, "failed": 0, "review": 1, "reject": 0}
    write_report(path, lambda _: [Entry(row, (), {})], counts=counts, about={}, finished="now")
    assert words in path.read_text("utf-8") and "@@" not in path.read_text("utf-8")
    assert "1 image: lesion found in 1, 1 to review." in path.read_text("utf-8")


def test_names_stay_text(page: tuple[str, Elements]) -> None:
    text, elements = page
    assert "<script>alert" not in text and "<img src=x" not in text
    assert [tag for tag, _ in elements.tags].count("script") == 3  # one thumbnail, the rows, the program
    rows = json.loads(elements.scripts["rows"])
    assert [row["file"] for row in rows] == [EVIL, "b.jpg"]
    assert rows[1] == {"file": "b.jpg", "status": "failed", "message": "no image"}
    assert rows[0]["picture"]
    assert elements.scripts["t0"].strip() == "QUJD"


def test_nothing_is_fetched(page: tuple[str, Elements]) -> None:
    text, elements = page
    for tag, attributes in elements.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    program = elements.scripts[None]
    assert not re.search(r"https?:|fetch\(|XMLHttp|innerHTML|import\(", program)
    policy = next(a["content"] for t, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")
    assert "@@" not in text
