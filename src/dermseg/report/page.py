"""A self-contained HTML page of sections: tables, plots and pictures, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from dermseg.images.overlay import encode_jpeg
from dermseg.version import __version__

DASH = "\u2013"
MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it; ``html`` is trusted, the title is text."""

    title: str
    html: str


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The page as text; sections without content are left out."""
    shown = [section for section in sections if section.html]
    values = {
        "VERSION": escape(__version__),
        "TITLE": escape(title),
        "LEAD": escape(lead),
        "CONTENTS": "".join(
            f'<li><a href="#s{i}">{escape(section.title)}</a></li>' for i, section in enumerate(shown)
        ),
    }
    page = (resources.files("dermseg.report") / "page.html").read_text("utf-8")
    for key, text in values.items():
        page = page.replace(f"@@{key}@@", text)
    body = "\n".join(
        f'<section id="s{i}"><h2>{escape(section.title)}</h2>\n{section.html}</section>'
        for i, section in enumerate(shown)
    )
    # Last, so that nothing inside the body is taken for a placeholder.
    return page.replace("@@BODY@@", body)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    words: Sequence[int] = (),
) -> str:
    """A table of cells that are HTML already.

    ``words`` are the numbers of columns that hold text.
    """

    kinds = [" class=words" if i in words else "" for i in range(len(head))]
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    title = f"<caption>{_across(caption)}</caption>" if caption else ""
    return _scrolling(f"<table>{title}{_head(head, kinds)}<tbody>{body}</tbody></table>", caption)


def _head(titles: Sequence[str], kinds: Sequence[str] = ()) -> str:
    """The row of column titles; a column without one has a cell that is no heading."""
    kinds = kinds or [""] * len(titles)
    cells = (
        f'<th scope="col"{kind}>{title}</th>' if title else "<td></td>"
        for title, kind in zip(titles, kinds, strict=True)
    )
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _scrolling(table: str, name: str = "") -> str:
    """A table that may be wider than the screen; whoever has no mouse comes to it by the keyboard."""
    label = escape(name or "table")
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">{table}</div>\n'


def _across(text: str) -> str:
    """Words over a whole table: no wider than the screen, which a table may be."""
    return f'<span class="across">{escape(text)}</span>'


def spanning_table(head: Sequence[str], parts: Sequence[tuple[str, Sequence[Sequence[str]], str]]) -> str:
    """One table of several parts, so that their columns line up.

    Each part is ``(title, rows, remark)``; cells are HTML already, titles and remarks are text.
    """

    def across(kind: str, text: str) -> str:
        return f'<tr class="{kind}"><td colspan="{len(head)}">{_across(text)}</td></tr>' if text else ""

    bodies = "".join(
        f"<tbody>{across('title', title)}"
        + "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        + f"{across('remark', remark)}</tbody>"
        for title, rows, remark in parts
    )
    return _scrolling(f'<table class="spanning">{_head(head)}{bodies}</table>')


def not_scored(failures: Sequence[Mapping[str, str]]) -> str:
    """The images that are in no figure, and why, as ``Failure.to_dict`` gives them; empty without any."""
    if not failures:
        return ""
    rows = [
        [named(f["image_id"]), named(f["dataset"]), f'<div class="remark">{escape(f["reason"])}</div>']
        for f in failures
    ]
    return table(["image", "data set", "why"], rows, words=(1, 2)) + note("These are in no figure.")


def named(text: str) -> str:
    """What people or their files are called, in a table's cell: a long one takes lines, not more room."""
    return f'<div class="name">{escape(text)}</div>'


def note(text: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{escape(text)}</p>\n'


def cards(values: Sequence[tuple[str, str, str]]) -> str:
    """Figures to be seen first: ``(name, figure, interval)`` each, all text."""
    items = (
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(figure)}</b><span>{escape(interval)}</span></dd></div>"
        for name, figure, interval in values
    )
    return f'<dl class="cards">{"".join(items)}</dl>\n'


def plots(*figures: tuple[str, str], small: bool = False) -> str:
    """Plots side by side: ``(svg, caption)`` each; the caption is text."""
    parts = (f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in figures)
    return f'<div class="plots{" small" if small else ""}">{"".join(parts)}</div>\n'


def picture(image: NDArray[np.uint8], title: str, caption: str) -> str:
    """An image inside the page: uint8 ``(H, W, 3)`` RGB."""
    data = base64.b64encode(encode_jpeg(image, 85)).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" '
        f'width="{image.shape[1]}" height="{image.shape[0]}" alt="{escape(title)}: {escape(caption)}">'
        f"<figcaption>{escape(title)}<br>{escape(caption)}</figcaption></figure>"
    )


def decimal(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where it is unknown."""
    return DASH if value is None else f"{value:z.{digits}f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share in per cent, with one decimal."""
    return f"{100 * share:.1f} %"


def ends(interval: Sequence[float] | None, digits: int = 4) -> str:
    """Both ends of an interval, or a dash."""
    if interval is None:
        return DASH
    return f"{decimal(interval[0], digits)} to {decimal(interval[1], digits)}"
