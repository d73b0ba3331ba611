"""Sections of MODEL_CARD.md that come from evaluations: robustness, groups of images, failures.

Each takes the ``metrics.json`` of ``dermseg evaluate`` as it was written, so that no figure is typed by hand.
The failures are named and drawn as outlines: the licences of the data do not let their photographs travel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermseg.report.page import decimal, ends, percent
from dermseg.report.strata import WARNING, best_interval, count, left_out, refusal, tone_words

CARD_STRATA = ("contrast", "skin_tone", "size", "touches_border", "annotation_style")
"""Groups that the card shows, where an evaluation has them."""

_ARCHIVE = "https://api.isic-archive.com/images"


def evaluation_sections(
    evaluations: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, str] | None = None
) -> str:
    """Every section, as Markdown.

    Parameters
    ----------
    evaluations
        Name of the data set -> the object of its ``metrics.json``. Robustness is shown where it is there.
    pictures
        Name of the data set -> address of a drawing of its worst images, relative to the card, as
        ``report.outlines`` makes it.
    """
    spoilt = {name: found["robustness"] for name, found in evaluations.items() if "robustness" in found}
    parts = ["## Robustness", robustness_table(spoilt)] if spoilt else []
    for name, found in evaluations.items():
        if groups := strata_table(found):
            parts += [f"## Groups of images: {name}", groups]
    failed = {name: found["worst"] for name, found in evaluations.items() if found["worst"]}
    if failed:
        parts += ["## Failures", failure_list(failed)]
        parts += [
            f"![Outlines of the worst images of {name}]({address})"
            for name, address in (pictures or {}).items()
        ]
    return "\n\n".join(parts)


def robustness_table(spoilt: Mapping[str, Mapping[str, Any]]) -> str:
    """Loss of Dice by corruption for each data set, and the one figure per data set."""
    head = ["corruption", *(f"{name}: Dice at severity 1, 3, 5" for name in spoilt)]
    head += [f"{name}: loss" for name in spoilt]
    rows = [["none", *(_short(found["clean"]) for found in spoilt.values()), *("" for _ in spoilt)]]
    for several in zip(*(found["corruptions"] for found in spoilt.values()), strict=True):
        curves = [", ".join(decimal(c["severities"][i], 3) for i in (0, 2, 4)) for c in several]
        rows.append([several[0]["name"].replace("_", " "), *curves, *(_short(c["loss"]) for c in several)])
    errors = "; ".join(
        f"**{name}: mean corruption error {_short(found['mean_corruption_error'])}**, {found['n']:,} images"
        for name, found in spoilt.items()
    )
    return (
        f"{errors}. Mean corruption error: 1 minus Dice, averaged over {len(rows) - 1} corruptions at five "
        "severities. Loss: Dice of the clean images minus that of the spoilt ones. In brackets 95 % "
        f"intervals.{_protocols(spoilt)}\n\n" + markdown_table(head, rows)
    )


def strata_table(evaluation: Mapping[str, Any]) -> str:
    """Dice and failures of each group; empty if the evaluation has none of the strata."""
    strata = [stratum for name in CARD_STRATA for stratum in evaluation["strata"] if stratum["name"] == name]
    if not strata:
        return ""
    parts = [f"{refusal(strata)} In brackets 95 % intervals. {WARNING}"]
    for stratum in strata:
        rows = [
            [group["name"], count(group), _short(group["dice"]), percent(group["failed"]["mean"])]
            for group in stratum["groups"]
            if not group["refused"]
        ]
        remarks = [left_out(stratum)]
        if stratum["name"] == "skin_tone" and evaluation["skin_tone"]:
            remarks.append(tone_words(evaluation["skin_tone"]))
        table = [markdown_table([stratum["title"], "images", "Dice", "failed"], rows)] if rows else []
        title = [] if rows else [f"{stratum['title']}:"]
        parts += [*title, *table, *(remark for remark in remarks if remark)]
    return "\n\n".join(parts)


def failure_list(worst: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The worst images of each data set in words; names of the ISIC archive lead to the photograph."""
    rows = [
        [
            name,
            _link(str(row["image_id"])),
            decimal(row["dice"], 3),
            decimal(row["jaccard"], 3),
            decimal(row["confidence"], 2),
            str(row["what"]),
            str(row["difficulty"]),
        ]
        for name, images in worst.items()
        for row in images
    ]
    head = ["data", "image", "Dice", "Jaccard", "confidence", "what is wrong", "what is known of it"]
    return (
        "The worst images of each data set, among those with a Jaccard index below 0.65.\n\n"
        + markdown_table(head, rows)
    )


def _protocols(spoilt: Mapping[str, Mapping[str, Any]]) -> str:
    known = [f" {name}: {found['protocol']}." for name, found in spoilt.items() if "protocol" in found]
    return "".join(known)


def _short(figures: Mapping[str, Any]) -> str:
    interval = best_interval(figures)
    around = "" if interval is None else f" ({ends(interval, 3)})"
    return f"{decimal(figures['mean'], 3)}{around}"


def _link(image_id: str) -> str:
    return f"[{image_id}]({_ARCHIVE}/{image_id}/)" if image_id.startswith("ISIC_") else image_id


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
