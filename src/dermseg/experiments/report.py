"""What a suite found as files to read: tables, paired tests, curves."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermseg.errors import DermsegError
from dermseg.experiments.figures import curves, worst_images
from dermseg.experiments.outcomes import collect, merge_folds, not_scored, paired_tests
from dermseg.files import atomic_write

# Columns of the tables and pictures in words.
_NAMES = {
    "test": "data set",
    "n": "images",
    "not_scored": "images not scored",
    "without_mask": "images without a mask",
    "image_id": "image",
    "dataset": "source",
    "reason": "why",
    "dice": "Dice",
    "jaccard": "Jaccard",
    "pooled_mean_iou": "mean IoU, pooled",
    "dice_sd_images": "SD of Dice over images",
    "dice_sd_seeds": "SD of Dice over seeds",
    "train_minutes": "training, minutes",
    "p_holm": "p after Holm",
}
_CAPTIONS = {
    "curves.png": "Dice, mean over images and seeds; bars are 95 % intervals (t) over images",
    "worst.jpg": "The images on which all do worst: the reference, then each with its Dice",
}


def write_report(output: Path, name: str, indexes: Sequence[Path] = ()) -> list[Path]:
    """Write results.csv, tests.csv, report.md, report.html and the curves; returns what was written.

    Parameters
    ----------
    indexes
        Of the data sets that were evaluated on, for pictures; where absent, those that the folders name.
    """
    outcomes = collect(output)
    whole, remarks = merge_folds(outcomes)
    rows = [o.row() for o in [*outcomes, *(o for o in whole if o not in outcomes)]]
    tests = paired_tests(whole)
    worst = None
    try:
        worst = worst_images(outcomes, output / "worst.jpg", indexes=indexes)
    except DermsegError as error:  # the images or the weights are gone: no figure of the tables needs them
        remarks.append(f"No pictures of the worst images: {error}")
    drawn = (curves(outcomes, output / "curves.png"), worst)
    pictures = {path.name: path for path in drawn if path is not None}
    protocols = [*sorted({o.protocol for o in outcomes}), *remarks]
    tables = [("Results", rows)]
    if tests:  # a single network is compared with none
        tables.append(("Paired differences in Dice, a minus b, with 95 % intervals", tests))
    if failures := not_scored(outcomes):
        tables.append(("Images that could not be scored: they are in no figure", failures))
    written = []
    for file, text in (
        ("results.csv", _csv(rows)),
        ("tests.csv", _csv(tests)),
        ("report.md", _markdown(name, protocols, tables, list(pictures))),
        ("report.html", _html(name, protocols, tables, list(pictures))),
    ):
        atomic_write(output / file, text.encode())
        written.append(output / file)
    return [*written, *pictures.values()]


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _shown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns that tell a reader something: not the empty ones, nor the one data set of all rows."""
    told = {"test"} if len({row.get("test") for row in rows}) == 1 else set()
    return [c for c in _columns(rows) if c not in told and any(row.get(c) is not None for row in rows)]


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if column == "train_minutes":
            return f"{value:.1f}"
        return f"{value:.2g}" if column.startswith("p") and 0 < value < 0.001 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _markdown(
    name: str, protocols: list[str], tables: list[tuple[str, list[dict[str, Any]]]], pictures: list[str]
) -> str:
    lines = [f"# {name}", "", *(f"- {text}" for text in protocols)]
    for title, rows in tables:
        columns = _shown(rows)
        names = [_NAMES.get(c, c) for c in columns]
        lines += ["", f"## {title}", "", "| " + " | ".join(names) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(_cell(c, row.get(c)) for c in columns) + " |" for row in rows]
    for picture in pictures:
        lines += ["", f"{_CAPTIONS[picture]}:", "", f"![{_CAPTIONS[picture]}]({picture})"]
    return "\n".join([*lines, ""])


_STYLE = (
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1b2430;--line:#d8dfe7;--panel:#f3f6f9}"
    "@media (prefers-color-scheme:dark){:root{--paper:#14181c;--ink:#e6eaee;--line:#333c45;--panel:#1d2329}}"
    "body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1300px;padding:0 16px;"
    "background:var(--paper);color:var(--ink);overflow-wrap:anywhere}"
    ".scroll{overflow-x:auto;overflow-wrap:normal}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}"
    "th,td{padding:4px 8px;white-space:nowrap;border-bottom:1px solid var(--line);text-align:left}"
    "th{background:var(--panel);white-space:normal;vertical-align:bottom}.n{text-align:right}"
    "figure{margin:28px 0}figcaption{margin-bottom:8px}img{max-width:100%}"
    "@media print{:root{--paper:#fff;--ink:#000}.scroll{overflow:visible}table{font-size:9px}"
    "th,td{padding:2px 4px;white-space:normal}tr,figure{break-inside:avoid}h2,figcaption{break-after:avoid}}"
)


def _html(
    name: str, protocols: list[str], tables: list[tuple[str, list[dict[str, Any]]]], pictures: list[str]
) -> str:
    escape = html.escape
    parts = [f"<h1>{escape(name)}</h1>", *(f"<p>{escape(text)}</p>" for text in protocols)]
    for title, rows in tables:
        columns = _shown(rows)
        side = {c: "" if any(isinstance(row.get(c), str) for row in rows) else " class=n" for c in columns}
        head = "".join(f'<th scope="col"{side[c]}>{escape(_NAMES.get(c, c))}</th>' for c in columns)
        body = "".join(
            "<tr>" + "".join(f"<td{side[c]}>{escape(_cell(c, row.get(c)))}</td>" for c in columns) + "</tr>"
            for row in rows
        )
        parts.append(
            f'<h2>{escape(title)}</h2><div class="scroll" tabindex="0" role="group" '
            f'aria-label="{escape(title)}"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    parts += [
        f'<figure><figcaption>{caption}</figcaption><img src="{escape(picture)}" alt="{caption}"></figure>'
        for picture, caption in ((picture, _CAPTIONS[picture]) for picture in pictures)
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )
