"""``report.html``: one self-contained page with a thumbnail and the values of every image of a batch.

Decisions
---------
- Thumbnails (about 4 kB each) are inside the page as inert text, one ``<script type="text/plain">`` per
  image, and become an ``<img>`` only while their row is shown: the page of 10,000 images is large but
  opens at once, because nothing is parsed or decoded but the 50 rows in view.
- The page cannot reach the network: its Content-Security-Policy allows inline data only.
- File names and messages reach the page as JSON with ``<`` escaped and are shown as text nodes.
- The page is written piece by piece beside its place and then moved, so memory stays flat and a
  half-written report is never seen. What differs between two equal runs stands in ``<time>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from dermseg import __version__
from dermseg.inference.journal import Entry

# What the page's table needs of a row; the rest is in results.csv.
_FIELDS = (
    "file", "status", "message", "width", "height", "area_fraction", "confidence",
    "touches_border", "lesions", "mask", "overlay", "probability", "labels",
)  # fmt: skip


def write_report(
    path: Path,
    entries: Iterable[Entry],
    *,
    counts: Mapping[str, int],
    about: Mapping[str, str],
    finished: str,
    title: str = "Skin lesion segmentation",
) -> None:
    """Write the report of a batch.

    Parameters
    ----------
    path
        Where ``report.html`` goes; links in it are relative to its folder.
    entries
        The finished images in input order, read once.
    counts
        ``images``, ``ok``, ``no_lesion`` and ``failed``, for the sentence at the top.
    about
        What the page says about the run (model, options), label to text.
    finished
        When the run ended, in words.
    """
    values = {
        "VERSION": escape(__version__),
        "TITLE": escape(title),
        "LEAD": escape(_lead(counts)),
        "ABOUT": "".join(
            f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>" for label, text in about.items()
        )
        + f"<div><dt>Finished</dt><dd><time>{escape(finished)}</time></dd></div>",
    }
    head, tail = (resources.files("dermseg.report") / "report.html").read_text("utf-8").split("@@DATA@@")
    for key, text in values.items():
        head = head.replace(f"@@{key}@@", text)
    rows: list[dict[str, Any]] = []
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(head.encode())
        for index, entry in enumerate(entries):
            row = entry.row.as_dict()
            rows.append({key: row[key] for key in _FIELDS if row[key] is not None})
            if entry.thumbnail:
                file.write(f'<script type="text/plain" id="t{index}">{entry.thumbnail}</script>\n'.encode())
        file.write(f'<script type="application/json" id="rows">{_json(rows)}</script>'.encode())
        file.write(tail.encode())
    temporary.replace(path)


def _json(data: Any) -> str:
    """JSON that cannot end or open an element, whatever a file is called (ASCII, so no encoding trap)."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _lead(counts: Mapping[str, int]) -> str:
    """The sentence a reader wants first: how many, and what needs a look."""
    images = counts["images"]
    parts = [f"lesion found in {counts['ok']:,}"]
    if counts["no_lesion"]:
        parts.append(f"none found in {counts['no_lesion']:,}")
    if counts["failed"]:
        parts.append(f"{counts['failed']:,} failed")
    return f"{images:,} image{'' if images == 1 else 's'}: {', '.join(parts)}."
