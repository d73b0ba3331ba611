"""``report.html`` of an evaluation: one page that a person reads from top to bottom.

First the answer (how good, how often unusable), then what stands behind it: every figure with its intervals,
the spread over images, what the probabilities mean, who it works for, what bad photographs do to it, and the
images where it failed. Last, what was measured and how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from dermseg.evaluation.figure import Panel, draw_panel
from dermseg.evaluation.metrics import JACCARD_THRESHOLD
from dermseg.evaluation.output import describe_intervals
from dermseg.evaluation.table import Evaluation
from dermseg.report import svg
from dermseg.report.names import NAMES
from dermseg.report.page import (
    Section,
    cards,
    decimal,
    ends,
    named,
    not_scored,
    note,
    percent,
    picture,
    plots,
    render_page,
    table,
)
from dermseg.report.robustness import robustness_section
from dermseg.report.strata import best_interval, strata_section
from dermseg.words import counted


def render_evaluation(
    title: str, evaluation: Evaluation, summary: Mapping[str, Any], worst: Sequence[Panel] = ()
) -> str:
    """The page.

    Parameters
    ----------
    title
        What was evaluated on what.
    evaluation
        The per-image table.
    summary
        ``metrics.json``: `summarise`, ``protocol``, and ``model`` if there is one.
    worst
        Pictures of the worst images, worst first.
    """
    dice, failed = summary["dice"], summary["failed_below_065"]
    lead = (
        f"{_count(summary['n'], 'image')}: mean Dice {decimal(dice['mean'], 3)}; "
        f"{percent(failed)} of the outlines failed (Jaccard below 0.65)."
    )
    sections = [
        Section("At a glance", _glance(summary)),
        Section("All figures", _figures(evaluation, summary)),
        Section("Spread over images", _distributions(evaluation)),
        Section("Pixels", _confusion(summary["pooled"])),
        Section("Calibration", _calibration(summary["calibration"])),
        strata_section(summary),
        robustness_section(summary.get("robustness")),
        Section("Worst images", _worst(summary["worst"], worst)),
        Section("Not scored", not_scored(summary["failures"])),
        Section("What was measured", _method(summary)),
    ]
    return render_page(title, lead, sections)


def _count(n: int, what: str) -> str:
    return counted(n, what, sep=",")


def _glance(summary: Mapping[str, Any]) -> str:
    def card(name: str, words: str) -> tuple[str, str, str]:
        value = summary[name]
        return words, decimal(value["mean"], 3), ends(best_interval(value), 3)

    interval = summary["failed_below_065_ci95"]  # Wilson's: a bootstrap of equal values knows no spread
    failed = ends(None) if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"
    return cards(
        [
            card("dice", "Dice"),
            card("jaccard", "Jaccard"),
            card("threshold_jaccard", "thresholded Jaccard"),
            ("failed outlines", percent(summary["failed_below_065"]), failed),
            card("surface_dice", "surface Dice"),
        ]
    ) + note(
        "Under each mean its 95 % interval. Failed: Jaccard below 0.65, about where two people who draw the "
        "same lesion agree. Surface Dice: the share of the outline that is no further from the other one "
        "than 1 % of the image's diagonal."
    )


def _figures(evaluation: Evaluation, summary: Mapping[str, Any]) -> str:
    rows = []
    for name in evaluation.metrics:
        value = summary[name]
        digits = 2 if name.endswith("_px") else 4
        rows.append(
            [
                escape(NAMES[name]),
                decimal(value["mean"], digits),
                ends(value["ci95_clustered"], digits),
                ends(value["bca95"], digits),
                f"{value['n']:,}",
            ]
        )
    share = summary["failed_below_065_ci95"]
    rows.append(
        [
            escape(NAMES["failed"]),
            decimal(summary["failed_below_065"]),
            ends(share) if share is None else f"{ends(share)} (Wilson)",
            ends(summary["failed_below_065_bca95"]),
            f"{summary['n']:,}",
        ]
    )
    head = ["mean over images", "mean", "95 % interval (t)", "95 % interval (BCa)", "images"]
    return table(head, rows) + note(
        f"{describe_intervals(summary)} HD95: 95th percentile of the distances between the outlines; ASSD: "
        "their mean. Where an outline is missing, the distance is the image's diagonal."
    )


def _distributions(evaluation: Evaluation) -> str:
    share = ("dice", "jaccard", "boundary_iou", "surface_dice")
    figures = []
    for name in share:
        values = evaluation.values(name)
        if values.size:
            marks = [float(values.mean())] + ([JACCARD_THRESHOLD] if name == "jaccard" else [])
            axis = svg.Axis(NAMES[name], 0.0, 1.0)
            words = f"{NAMES[name]}: median {decimal(median(values.tolist()), 3)}"
            figures.append((svg.histogram(values.tolist(), axis, words, marks=marks), words))
    values = evaluation.values("hd95_diagonal")
    if values.size:
        axis = svg.Axis(NAMES["hd95_diagonal"], 0.0, 0.3)
        beyond = int((values > axis.high).sum())
        words = f"{NAMES['hd95_diagonal']}: median {decimal(median(values.tolist()), 3)}" + (
            f"; {_count(beyond, 'image')} beyond the right end" if beyond else ""
        )
        figures.append((svg.histogram(values.tolist(), axis, words, marks=[float(values.mean())]), words))
    areas = _areas(evaluation)
    if areas[0]:
        axis = svg.Axis("lesion, share of the image (reference)", 0.0, 1.0)
        dice = svg.Axis("Dice", 0.0, 1.0)
        words = "Dice against the size of the lesion, one dot per image"
        figures.append((svg.scatter(*areas, axis, dice, words), words))
    return plots(*figures) + note("Dashed: the mean, and for Jaccard also 0.65, below which an image failed.")


def _areas(evaluation: Evaluation) -> tuple[list[float], list[float]]:
    """Share of the image that the reference fills, and Dice, of each prediction."""
    pairs = [
        (score.counts.reference / score.counts.total, score.metrics["dice"]) for score in evaluation.scores
    ]
    return [area for area, _ in pairs], [dice for _, dice in pairs]


def _confusion(pooled: Mapping[str, Any]) -> str:
    c = pooled["confusion"]
    whole = sum(c.values())
    head = ["", "predicted lesion", "predicted skin", "all"]

    def cell(part: int, row: int) -> str:
        return f"<b>{part / row:.1%}</b><br><small>{part:,}</small>" if row else "0"

    lesion, skin = c["tp"] + c["fn"], c["fp"] + c["tn"]
    rows = [
        ["lesion in the reference", cell(c["tp"], lesion), cell(c["fn"], lesion), cell(lesion, whole)],
        ["skin in the reference", cell(c["fp"], skin), cell(c["tn"], skin), cell(skin, whole)],
    ]
    classes = [
        [name, *(decimal(pooled[name][key]) for key in ("iou", "dice", "precision", "recall"))]
        for name in ("lesion", "background")
    ]
    return (
        '<div class="beside">'
        + table(head, rows, caption="Confusion matrix over the pixels of all images")
        + table(["class", "IoU", "Dice", "precision", "recall"], classes, caption="What follows from it")
        + "</div>"
        + note(
            f"Mean IoU of both classes {decimal(pooled['mean_iou'])}, pixel accuracy "
            f"{decimal(pooled['pixel_accuracy'])}, mean pixel accuracy "
            f"{decimal(pooled['mean_pixel_accuracy'])}. Large images and large lesions dominate here: never "
            "compare a pooled figure with a mean over images."
        )
    )


def _calibration(reliability: Mapping[str, Any] | None) -> str:
    if reliability is None:
        return ""
    unit = svg.Axis("probability of lesion (mean of the bin)", 0.0, 1.0)
    names, lines, rows, weights = [], [], [], []
    for key, name in (("all", "all pixels"), ("band", "near the boundary")):
        part = reliability[key]
        if part is None:
            continue
        known = [(p, q) for p, q in zip(part["probability"], part["lesion"], strict=True) if p is not None]
        names.append(name)
        lines.append(svg.Series(name, [p for p, _ in known], [q for _, q in known]))
        weights.append(part["share"])
        rows.append(
            [name, decimal(part["ece"]), ends(part["ece_bca95"]), decimal(part["brier"]), f"{part['n']:,}"]
        )
    curve = svg.curves(lines, unit, svg.Axis("share that is lesion", 0.0, 1.0), "Reliability", diagonal=True)
    bins = svg.bars(weights[-1], svg.Axis("probability of lesion", 0.0, 1.0), f"share of pixels, {names[-1]}")
    head = ["pixels", "calibration error (ECE)", "95 % interval (BCa)", "Brier score", "images"]
    return (
        svg.legend(names)
        + plots(
            (
                curve,
                "Dashed: probabilities that mean what they say. Below it the model is too sure of lesion.",
            ),
            (bins, f"How many pixels have which probability ({names[-1]})."),
        )
        + table(head, rows, caption="Pooled over images, each weighing the same")
        + note(
            "Pixels in 15 bins of their probability, before post-processing. Near the boundary: within 2 % "
            "of the diagonal of the reference's outline, which is where the outline is decided."
        )
    )


def _worst(rows: Sequence[Mapping[str, Any]], panels: Sequence[Panel]) -> str:
    if panels:
        pictures = "".join(picture(draw_panel(panel, 320), panel.title, panel.caption) for panel in panels)
        key = '<p class="key"><i class="reference"></i>reference <i class="prediction"></i>prediction</p>\n'
        return key + f'<div class="gallery">{pictures}</div>\n'
    if not rows:
        return "<p>No image has a Jaccard index below 0.65.</p>"
    cells = [
        [
            named(str(row["image_id"])),
            decimal(row["jaccard"], 3),
            escape(str(row["what"])),
            escape(str(row["difficulty"])),
        ]
        for row in rows
    ]
    return table(["image", "Jaccard", "what is wrong", "what is known of it"], cells, words=(2, 3))


def _method(summary: Mapping[str, Any]) -> str:
    protocol, model = summary["protocol"], summary.get("model")
    facts = [("Protocol", protocol["text"])]
    if model and "sha256" in model:
        facts.append(
            ("Model", f"{model['name']} {model['version']}, {model['architecture']}, {model['variant']}")
        )
        facts.append(("Hash of the model", str(model["sha256"])))
    elif model:  # a run, which is no bundle yet
        facts.append(("Run", f"{model['name']}, {model['architecture']}, input {model['input']} px"))
    facts.append(
        ("Empty masks", "what there is nothing of cannot be wrong (0/0 is 1); a missed lesion scores 0")
    )
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
        + "</dl>\n"
        + note(
            "Formulas and sources: docs/evaluation.md. Each image's figures: per_image.csv beside this page."
        )
    )
