"""Reports as a browser shows and prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
