"""Reports as a browser shows and prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermseg.images.overlay import encode_jpeg
from dermseg.inference.journal import Entry
from dermseg.inference.outputs import Row, failed_row
from dermseg.report.html import write_report
from dermseg.report.page import (
    Section,
    cards,
    named,
    not_scored,
    picture,
    plots,
    render_page,
    spanning_table,
    table,
)
from dermseg.report.svg import Axis, interval_bar, scatter

_LONG = "a_name_without_a_place_to_break" * 6
_WIDEST = "Math.max(...[...document.querySelectorAll('td')].map(cell => cell.getBoundingClientRect().right))"

_CUT = "[...document.querySelectorAll('td')].filter(c => c.scrollWidth > c.clientWidth).map(c => c.innerText)"


@pytest.fixture
def report(tmp_path: Path) -> str:
    remark = '<div class="remark">no scale: no millimetres, and the skin around shows too little</div>'
    row = [named(_LONG), "2", "180", "+12.0 %", "-28.0 % to +102.1 %", "+6.0 %", "millimetres", "+1", remark]
    usual = [named("HAM_0003308"), *row[1:]]
    figures = picture(np.zeros((300, 300, 3), np.uint8), _LONG, "area")
    file = tmp_path / "report.html"
    sections = [Section("Changes", table([f"column {i}" for i in range(9)], [row, usual], words=(6, 8)))]
    sections.append(Section("Photographs", f'<div class="gallery">{figures}</div>'))
    plot = scatter([0.5], [0.5], Axis("x", 0, 1), Axis("y", 0, 1), "x and y")
    sections.append(
        Section("Plots", plots((plot, "x and y")) + '<p class="key"><i class="reference"></i></p>')
    )
    two = spanning_table(["", named(_LONG)], [(_LONG, [[named(_LONG), "0.9"]], "")])
    failed = not_scored([{"image_id": _LONG, "dataset": _LONG, "reason": f"{_LONG}.png: damaged"}])
    sections.append(Section("Groups", cards([(_LONG, "1", "")]) + two + failed))
    file.write_text(render_page("Lesions over time", f"{_LONG}: one.", sections), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def batch(tmp_path: Path) -> str:
    """The report of a batch: an image of each kind."""
    remark = "several lesions: take one image of each, or keep them apart; out of focus: retake"
    links = {"mask": "masks/x.png", "overlay": "overlays/x.jpg", "probability": "p.png", "labels": "l.png"}
    found = {"width": 4000, "height": 3000, "area_fraction": 0.25, **links}
    rows = [
        Row(f"{_LONG}.jpg", "ok", confidence=0.5, verdict="review", message=remark, **found),
        Row("cat.jpg", "ok", confidence=0.2, verdict="reject", message=remark, **found),
        Row("a.jpg", "ok", confidence=0.9, verdict="accept", **found),
        Row("ISIC_0012204.jpg", "no_lesion", confidence=0.0, verdict="accept", **found),
        failed_row("broken.jpg", "the file is truncated"),
    ]
    counts = {"images": 5, "ok": 3, "no_lesion": 1, "failed": 1, "review": 1, "reject": 1}
    file = tmp_path / "batch.html"
    entries = [Entry(row, (), {}) for row in rows]
    write_report(file, lambda _: entries, counts=counts, about={"Model": "m"}, finished="now")
    return file.as_uri()


@pytest.mark.parametrize("width", [320, 390, 768, 1000, 1101, 1280, 1600])
def test_a_batch_is_read_without_scrolling_to_the_side(browser: Any, batch: str, width: int) -> None:
    """On phones and enlarged pages status and remarks stood beyond the edge of the screen."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(batch)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(_WIDEST) <= width
    assert page.evaluate(_CUT) == [], "the last digits of sizes stood beyond the edge of phones"
    remark = page.locator("td.message", has_text="several lesions").first
    assert remark.is_visible()
    least = {1101: 180, 1280: 200, 1600: 250}.get(width, 0)  # a narrow column makes rows of a whole screen
    assert remark.bounding_box()["width"] >= least
    page.close()


_CONTRAST = """colours => { const light = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0.05);
  const [a, b] = colours.map(light); return Math.max(a, b) / Math.min(a, b); }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_has_a_meaning_stands_out(browser: Any, batch: str, tmp_path: Path, scheme: str) -> None:
    """WCAG 1.4.11 asks for 3:1: the frame of the search field and the line of the mean had 1.4."""
    file = tmp_path / "report.html"
    bar = interval_bar(0.01, (0.0, 0.02), Axis("difference", -0.05, 0.05), "0.01", mark=0.0)
    file.write_text(render_page("x", "", [Section("Groups", bar)]), encoding="utf-8")
    page = browser.new_page(color_scheme=scheme)
    for address, what, colour in (
        (batch, "#search", "borderTopColor"),
        (file.as_uri(), "svg line", "stroke"),
    ):
        page.goto(address)
        found = page.locator(what).first.evaluate(
            "(e, colour) => [getComputedStyle(e)[colour], getComputedStyle(document.body).backgroundColor]",
            colour,
        )
        assert page.evaluate(_CONTRAST, found) >= 3
    page.close()


def test_the_tools_leave_room_on_a_low_screen(browser: Any, batch: str) -> None:
    """1280 x 1024 at 400 %: what stays at the top would fill all of it."""
    page = browser.new_page(viewport={"width": 320, "height": 256})
    page.goto(batch)
    page.evaluate("scrollTo(0, 1000)")
    assert page.locator(".tools").bounding_box()["y"] < -200
    page.close()


def test_a_batch_is_sorted_by_the_status_that_is_shown(browser: Any, batch: str) -> None:
    page = browser.new_page()
    page.goto(batch)
    page.get_by_role("button", name="Status").click()
    cells = page.locator("tbody td:nth-child(3)").all_inner_texts()
    assert [" ".join(cell.split()) for cell in cells] == [
        "failed",
        "lesion found",
        "lesion found to review",
        "no lesion found",
        "rejected",
    ]
    page.close()


def test_back_from_an_overlay_one_is_where_one_was(browser: Any, batch: str, tmp_path: Path) -> None:
    """Of hundreds to review each look at an overlay led back to the first page of all."""
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays/x.jpg").write_bytes(encode_jpeg(np.zeros((30, 40, 3), np.uint8)))
    page = browser.new_page()
    page.goto(batch)
    page.get_by_label("Rows").select_option("100")
    page.get_by_label("File name").fill("CAT")
    page.get_by_role("button", name="rejected 1").click()
    page.get_by_role("button", name="Status").click()
    page.get_by_role("link", name="overlay").click()
    page.wait_for_url("**/x.jpg")
    page.go_back()
    assert page.locator("tbody tr").count() == 1
    assert page.locator(".filters [aria-pressed=true]").inner_text() == "rejected 1"
    assert page.locator("th[aria-sort]").inner_text().startswith("Status")
    assert page.get_by_label("File name").input_value() == "cat"
    page.keyboard.press("Escape")
    assert page.locator("tbody tr").count() == 5
    assert page.get_by_label("Rows").input_value() == "100"
    page.close()


@pytest.mark.parametrize("width", [320, 360, 1100])
def test_a_long_name_makes_no_page_wider_than_the_screen(browser: Any, report: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("th:empty").count() == 0
    tables = page.evaluate("[...document.querySelectorAll('table')].map(table => table.offsetWidth)")
    assert max(tables[1:]) <= 1180, "nor a table, whose figures would be beyond its edge"
    page.keyboard.press("Tab")  # the four links to the sections, then the tables
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "scroll", "keys can move a wide table"
    page.close()


def test_titles_and_remarks_of_a_wide_table_are_read_without_scrolling(browser: Any, tmp_path: Path) -> None:
    """On phones they were as wide as the table: their ends stood beyond the edge."""
    remark = "Too small for figures: brown (7), dark (1). Not known of 20 images. " * 3
    head = [f"a column's title {i}" for i in range(9)]
    wide = spanning_table(
        head, [("Contrast of lesion to skin (tenths of the images)", [["1.00"] * 9], remark)]
    )
    wide += table(head, [["1.00"] * 9], caption="Confusion matrix over the pixels of all images")
    file = tmp_path / "report.html"
    file.write_text(render_page("x", "", [Section("Groups", wide)]), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(file.as_uri())
    assert page.evaluate("document.querySelector('table').offsetWidth") > 390
    for there in (0, 300):
        page.evaluate(f"document.querySelectorAll('.scroll').forEach(box => box.scrollLeft = {there})")
        for words in ("Contrast of", "Too small", "Confusion matrix"):
            ends = page.evaluate(
                """words => { const range = document.createRange();
                range.selectNodeContents([...document.querySelectorAll('caption, caption *, td, td *')]
                    .filter(e => e.textContent.startsWith(words)).at(-1));
                const box = range.getBoundingClientRect(); return [box.left, box.right]; }""",
                words,
            )
            assert ends[0] >= 0 and ends[1] <= 390, (words, there, ends)
    page.close()


@pytest.mark.parametrize(("media", "width"), [("screen", 1180), ("print", 718)])
def test_a_comparison_shows_all_columns(browser: Any, tmp_path: Path, media: str, width: int) -> None:
    """Each name in its head took the room of the first column: differences stood beyond the edge."""
    head = [
        "",
        "images",
        named("Dice, a"),
        named("Dice, b"),
        "difference",
        "95 % interval",
        "\u22120.05 to 0.05",
    ]
    bar = interval_bar(0.01, (0.0, 0.02), Axis("difference", -0.05, 0.05), "0.01", mark=0.0)
    row = ["quarter with the lowest contrast", "1,234", "0.900", "0.890", "0.0100", "0.0000 to 0.0200", bar]
    differ = spanning_table(
        ["", named("Dice of a"), named("Dice of b"), "difference"],
        [("a better", [[named("ISIC_0012345"), "0.900", "0.100", "0.800"]], "")],
    )
    file = tmp_path / "report.html"
    groups = spanning_table(head, [("contrast", [row], "")])
    file.write_text(render_page("a against b", "", [Section("x", differ + groups)]), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(file.as_uri())
    page.emulate_media(media=media)
    assert page.evaluate(_WIDEST) <= width
    page.close()


def test_what_is_printed_has_all_columns(browser: Any, report: str, batch: str) -> None:
    """On paper nobody scrolls: 718 pixels are what A4 shows."""
    page = browser.new_page(viewport={"width": 718, "height": 1000})
    for address, usual in ((batch, "ISIC_0012204.jpg"), (report, "HAM_0003308")):
        page.goto(address)
        page.emulate_media(media="print")
        assert page.evaluate(_WIDEST) <= 718
        lines = page.get_by_text(usual).first.evaluate(
            "e => { const range = document.createRange(); range.selectNode(e.firstChild); "
            "return range.getClientRects().length; }"
        )
        assert lines == 1, "a name of the usual length is not broken"
    key = "getComputedStyle(document.querySelector('.key i')).printColorAdjust"
    assert page.evaluate(key) == "exact", "browsers leave backgrounds out, and with them the legend's colours"
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
