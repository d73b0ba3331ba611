"""Reports as a browser shows and prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermseg.inference.journal import Entry
from dermseg.inference.outputs import failed_row
from dermseg.report.html import write_report
from dermseg.report.page import Section, picture, render_page, table

_LONG = "a_name_without_a_place_to_break" * 6
_WIDEST = "Math.max(...[...document.querySelectorAll('td')].map(cell => cell.getBoundingClientRect().right))"


@pytest.fixture
def report(tmp_path: Path) -> str:
    name = f'<div class="name">{_LONG}</div>'
    remark = '<div class="remark">no scale: no millimetres, and the skin around shows too little</div>'
    row = [name, "2", "180", "+12.0 %", "+1.0 % to +24.0 %", "+6.0 %", "millimetres", "+1", remark]
    figures = picture(np.zeros((300, 300, 3), np.uint8), _LONG, "area")
    file = tmp_path / "report.html"
    sections = [Section("Changes", table([f"column {i}" for i in range(9)], [row], words=(6, 8)))]
    sections.append(Section("Photographs", f'<div class="gallery">{figures}</div>'))
    file.write_text(render_page("Lesions over time", "One.", sections), encoding="utf-8")
    return file.as_uri()


@pytest.mark.parametrize("width", [360, 1100])
def test_a_long_name_makes_no_page_wider_than_the_screen(browser: Any, report: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


def test_what_is_printed_has_all_columns(browser: Any, report: str) -> None:
    """On paper nobody scrolls: 718 pixels are what A4 shows."""
    page = browser.new_page(viewport={"width": 718, "height": 1000})
    page.goto(report)
    page.emulate_media(media="print")
    assert page.evaluate(_WIDEST) <= 718
    page.close()


def test_a_name_is_found_however_its_umlauts_are_written(browser: Any, tmp_path: Path) -> None:
    """On the disks of Macs they are two signs, and one on the keyboard."""
    entries = [Entry(failed_row(name, "cut off"), (), {}) for name in ("Fu\u0308\u00dfe.jpg", "Arm.jpg")]
    counts = {"images": 2, "ok": 0, "no_lesion": 0, "failed": 2}
    file = tmp_path / "report.html"
    write_report(file, lambda _: entries, counts=counts, about={}, finished="now")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.fill("#search", "f\u00fc\u00dfe")
    assert page.locator("td.file").all_inner_texts() == ["Fu\u0308\u00dfe.jpg"]
    page.close()
