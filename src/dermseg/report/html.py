"""``report.html``: one self-contained page with a thumbnail and the values of every image of a batch.

Decisions
---------
- Thumbnails (about 5 kB each) are inside the page as inert text, one ``<script type="text/plain">`` per
  image, and become an ``<img>`` only while their row is shown: 10,000 images are some 70 MB on disk and
  10 MB of the program's memory.
- The table and its program come before the thumbnails, and these in the order in which the table is first
  shown (least confident first): the first page stands while the browser still reads the rest.
- The page cannot reach the network: its Content-Security-Policy allows inline data only.
- File names and messages reach the page as JSON with ``<`` escaped and are shown as text nodes.
- The page is written piece by piece beside its place and then moved, so memory stays flat and a
  half-written report is never seen. What differs between two equal runs stands in ``<time>``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from dermseg.files import atomic_open
from dermseg.inference.journal import Entry
from dermseg.version import __version__
from dermseg.words import counted

# What the page's table needs of a row; the rest is in results.csv.
_FIELDS = (
    "file", "status", "message", "width", "height", "area_fraction", "confidence",
    "touches_border", "verdict", "lesions", "mask", "overlay", "probability", "labels",
)  # fmt: skip
_EXPECTED_DICE = (
    "Confidence is how well the outline is expected to agree with a person's: their Dice, from 0 (no "
    "overlap) to 1 (the same)."
)
_CONTRAST = "Confidence runs from 0 to 1 and says how sharply the model separates lesion from skin."
Reader = Callable[[Sequence[str] | None], Iterable[Entry]]


def write_report(
    path: Path,
    read: Reader,
    *,
    counts: Mapping[str, int],
    about: Mapping[str, str],
    finished: str,
) -> None:
    """Write the report of a batch.

    Parameters
    ----------
    path
        Where ``report.html`` goes; links in it are relative to its folder.
    read
        Gives the finished images, in input order for None, else in the order of the names. Called twice,
        so that no more than a row of each image is ever held.
    counts
        ``images``, ``ok``, ``no_lesion`` and ``failed``, for the sentence at the top; ``review`` and
        ``reject`` where they are known.
    about
        What the page says about the run (model, options), label to text.
    finished
        When the run ended, in words.

    Raises
    ------
    DermsegError
        The page cannot be written.
    """
    values = {
        "VERSION": escape(__version__),
        "LEAD": escape(_lead(counts)),
        "ABOUT": "".join(
            f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>" for label, text in about.items()
        )
        + f"<div><dt>Finished</dt><dd><time>{escape(finished)}</time></dd></div>",
    }
    template = (resources.files("dermseg.report") / "report.html").read_text("utf-8")
    for key, text in values.items():
        template = template.replace(f"@@{key}@@", text)
    rows, places, pictured = [], {}, []
    meaning = _CONTRAST
    for index, entry in enumerate(read(None)):
        row = entry.row.as_dict()
        if row["predicted_dice"] is not None:
            meaning = _EXPECTED_DICE
        rows.append({key: row[key] for key in _FIELDS if row[key] is not None})
        if entry.thumbnail:
            rows[-1]["picture"] = True
            places[entry.row.file] = index
            pictured.append((1.0 if entry.row.confidence is None else entry.row.confidence, index))
    order = [rows[index]["file"] for _, index in sorted(pictured)]
    head, tail = template.replace("@@CONFIDENCE@@", meaning).split("@@ROWS@@")
    program, end = tail.split("@@THUMBNAILS@@")
    with atomic_open(path) as file:
        file.write(head.encode() + _json(rows).encode() + program.encode())
        for entry in read(order) if order else ():
            number = places[entry.row.file]
            text = f'<script type="text/plain" id="t{number}">{entry.thumbnail}</script>\n'
            file.write(text.encode())
        file.write(end.encode())


def _json(data: Any) -> str:
    """JSON that cannot end or open an element, whatever a file is called (ASCII, so no encoding trap)."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _lead(counts: Mapping[str, int]) -> str:
    """The sentence a reader wants first: how many, and what needs a look."""
    parts = [f"lesion found in {counts['ok']:,}"]
    if counts["no_lesion"]:
        parts.append(f"none found in {counts['no_lesion']:,}")
    if counts["failed"]:
        parts.append(f"{counts['failed']:,} failed")
    named = {"review": "to review", "reject": "rejected"}  # by the input gate, where the model has one
    parts += [f"{counts[key]:,} {words}" for key, words in named.items() if counts.get(key)]
    return f"{counted(counts['images'], 'image', sep=',')}: {', '.join(parts)}."
