"""Groups of images on a page: a row per group, with its interval drawn and small groups named only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dermseg.report import svg
from dermseg.report.page import Section, decimal, ends, note, percent, spanning_table
from dermseg.words import counted

TITLE = "Groups of images"
QUESTION = "Is it as good for small lesions, low contrast, dark skin, old people? "
FEW = 20
"""Patients or lesions below which the bootstrap's interval is too narrow: of skewed Dice it held the mean in
48, 75 and 87 of 100 draws of 2, 5 and 10 instead of 95, the t-interval in 92, 84 and 89."""
WARNING = "With so many groups some stick out by chance: a reason to look, not a proof."


def strata_section(summary: Mapping[str, Any]) -> Section:
    """Dice, its interval, failures and distance of every group, from ``metrics.json``."""
    strata, whole = summary["strata"], summary["dice"]["mean"]
    shown = [group["dice"] for stratum in strata for group in stratum["groups"] if not group["refused"]]
    if not shown:
        return Section(TITLE, note(f"None is large enough for figures. {refusal(strata)}") if strata else "")
    low = min(end for dice in shown for end in (dice["mean"], *(best_interval(dice) or ())))
    axis = svg.Axis("Dice", max(0.0, low - 0.02), 1.0)
    parts = []
    for stratum in strata:
        rows = [_row(group, axis, whole) for group in stratum["groups"] if not group["refused"]]
        words = left_out(stratum)
        if stratum["name"] == "skin_tone" and summary["skin_tone"]:
            words = f"{words} {tone_words(summary['skin_tone'])}".strip()
        parts.append((stratum["title"], rows, words))
    head = [
        "",
        "images",
        "Dice",
        "95 % interval",
        f"{decimal(axis.low, 2)} to 1",
        "failed",
        "HD95 / diagonal",
    ]
    return Section(
        TITLE,
        note(
            f"{QUESTION}{refusal(strata)} The picture shows Dice with its interval; the upright line is the "
            f"mean of all images. {WARNING}"
        )
        + spanning_table(head, parts),
    )


def refusal(strata: Sequence[Mapping[str, Any]]) -> str:
    """The rule for small groups, as a sentence."""
    return f"Groups of fewer than {strata[0]['minimum']} independent images are named and get no figures."


def best_interval(figures: Mapping[str, Any]) -> Sequence[float] | None:
    """The BCa interval over patients or lesions; of fewer than ``FEW``, or without SciPy, the t-interval."""
    bca: Sequence[float] | None = figures["bca95"]
    t: Sequence[float] | None = figures["ci95_clustered"]
    return t if bca is None or figures["clusters"] < FEW else bca


def _row(group: Mapping[str, Any], axis: svg.Axis, whole: float) -> list[str]:
    dice, distance = group["dice"], group.get("hd95_diagonal")
    interval = best_interval(dice)
    words = f"{group['name']}: Dice {decimal(dice['mean'], 3)}, {ends(interval, 3)}"
    return [
        escape(group["name"]),
        count(group),
        decimal(dice["mean"], 3),
        ends(interval, 3),
        svg.interval_bar(dice["mean"], interval, axis, words, mark=whole),
        percent(group["failed"]["mean"]),
        decimal(distance["mean"] if distance else None, 3),
    ]


def count(group: Mapping[str, Any]) -> str:
    """Number of images of a group, and of independent ones where that is another number."""
    n, independent = group["n"], group["independent"]
    return f"{n:,}" if n == independent else f"{n:,} ({independent:,} independent)"


def left_out(stratum: Mapping[str, Any]) -> str:
    """The groups that are too small, and how many images belong to none, in words."""
    small = [f"{group['name']} ({count(group)})" for group in stratum["groups"] if group["refused"]]
    parts = [f"Too small for figures: {', '.join(small)}."] if small else []
    if stratum["unknown"]:
        parts.append(f"Not known of {counted(stratum['unknown'], 'image', sep=',')}.")
    return " ".join(parts)


def tone_words(skin_tone: Mapping[str, Any]) -> str:
    """How often the skin tone could not be estimated, and why."""
    reasons = sorted(skin_tone["reasons"].items(), key=lambda item: -item[1])
    why = "; ".join(f"{reason}: {n}" for reason, n in reasons)
    return (
        "Skin tone is the individual typology angle of clean skin around the lesion as the photograph shows "
        "it; without a colour chart it sorts images and says nothing certain about a person. It could not be "
        f"estimated in {skin_tone['failed']} of {skin_tone['n']} images "
        f"({percent(skin_tone['failure_rate'])})" + (f": {why}." if why else ".")
    )
