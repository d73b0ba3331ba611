"""What bad photographs do to a model, on a page: a small curve per corruption, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from dermseg.report import svg
from dermseg.report.page import Section, cards, decimal, ends, note, plots, table
from dermseg.report.strata import best_interval

TITLE = "Bad photographs"


def robustness_section(robustness: Mapping[str, Any] | None) -> Section:
    """The section, from ``robustness`` of ``metrics.json``; empty if it was not asked for."""
    if robustness is None:
        return Section(TITLE, "")
    clean = robustness["clean"]["mean"]
    lowest = min(value for c in robustness["corruptions"] for value in c["severities"])
    y = svg.Axis("Dice", max(0.0, min(0.6, round(lowest - 0.05, 1))), 1.0)
    severity = svg.Axis("severity", 0.0, 5.0)
    figures, rows = [], []
    for c in sorted(robustness["corruptions"], key=lambda c: c["dice"]["mean"]):
        name = c["name"].replace("_", " ")
        line = svg.Series(name, [0, 1, 2, 3, 4, 5], [clean, *c["severities"]])
        figures.append((svg.curves([line], severity, y, name, small=True), name))
        rows.append(
            [
                escape(name),
                *(decimal(value, 3) for value in c["severities"]),
                decimal(c["dice"]["mean"], 3),
                decimal(c["loss"]["mean"], 3),
                ends(best_interval(c["loss"]), 3),
            ]
        )

    def card(key: str, words: str) -> tuple[str, str, str]:
        value = robustness[key]
        return words, decimal(value["mean"], 3), ends(best_interval(value), 3)

    head = ["corruption", "1", "2", "3", "4", "5", "mean Dice", "loss", "95 % interval of the loss"]
    html = (
        cards(
            [
                card("mean_corruption_error", "mean corruption error"),
                card("clean", "Dice on the clean images"),
                card("loss", "loss of Dice, on average"),
            ]
        )
        + note(
            f"Each of {robustness['n']:,} images was spoilt in {len(rows)} ways, at five severities each. "
            "Mean corruption error: 1 minus Dice, averaged over severities, corruptions and images. Worst "
            "first; severity 0 is the image as it is."
        )
        + plots(*figures, small=True)
        + table(head, rows, caption="Dice by severity")
    )
    return Section(TITLE, html)
