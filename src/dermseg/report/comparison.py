"""``report.html`` of a comparison: who is better, by how much, on which images, and could it be chance?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from dermseg.evaluation.compare import LOWER_IS_BETTER, paired_values
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
    plots,
    render_page,
    spanning_table,
    table,
)
from dermseg.report.strata import best_interval, count, left_out, refusal

_MOST = 8  # images shown per direction


def render_comparison(evaluations: Mapping[str, Evaluation], summary: Mapping[str, Any]) -> str:
    """The page.

    Parameters
    ----------
    evaluations
        The per-image tables by name.
    summary
        What ``compare`` gives of them, with ``protocol``.
    """
    sections = [Section("Means", _means(summary))]
    for pair in summary["pairs"]:
        a, b = pair["a"], pair["b"]
        heading = "" if len(summary["pairs"]) == 1 else f": {a} and {b}"
        tables = evaluations[a], evaluations[b]
        sections += [
            Section(f"Difference{heading}", _difference(pair, summary)),
            Section(f"Image by image{heading}", _images(pair, *tables)),
            Section(f"Groups of images{heading}", _groups(pair)),
        ]
    sections.append(Section("Not scored", not_scored(summary["failures"])))
    sections.append(Section("What was compared", f"<p>{escape(summary['protocol']['text'])}</p>\n"))
    lead = " ".join(verdict(pair) for pair in summary["pairs"])
    return render_page(" against ".join(evaluations), lead, sections)


def verdict(pair: Mapping[str, Any]) -> str:
    """One sentence on the difference in Dice; none is claimed that one of the two intervals denies."""
    difference = pair["metrics"]["dice"]["difference"]
    if difference["clusters"] == 1:
        who = "One image says" if difference["n"] == 1 else "Images of a single patient or lesion say"
        return f"{who} nothing about {pair['a']} and {pair['b']}."
    interval = cautious_interval(difference)
    better, worse, by = pair["a"], pair["b"], difference["mean"]
    if by < 0:  # told from the side of the better one, so that figure and interval have one sign
        better, worse, by = worse, better, -by
        interval = interval and (-interval[1], -interval[0])
    around = "the same throughout, so no interval is known"
    if interval is not None:
        around = f"95 % interval of the difference {ends(interval)}"
    how = f"{decimal(by, 4)} ({around})"
    if interval is None or interval[0] <= 0 <= interval[1]:
        return f"No difference in mean Dice is shown between {better} and {worse}: {how}."
    return f"{better} is better than {worse} in Dice by {how}."


def cautious_interval(difference: Mapping[str, Any]) -> Sequence[float] | None:
    """The interval to quote beside a claim: of BCa and t the one that holds 0, if one does."""
    best = best_interval(difference)
    known = [i for i in (best, difference["ci95_clustered"], difference["bca95"]) if i is not None]
    return next((i for i in known if i[0] <= 0 <= i[1]), best)


def p_value(p: float | None) -> str:
    """A p-value as short as it makes sense."""
    if p is None:
        return decimal(None)
    return "below 0.0001" if p < 1e-4 else decimal(p, 4)


def _means(summary: Mapping[str, Any]) -> str:
    models = summary["models"]
    names = [name for name in NAMES if all(name in model for model in models)]
    rows = []
    for name in names:
        digits = 2 if name.endswith("_px") else 4
        values = [model[name] for model in models]
        means = [value["mean"] for value in values]
        best = min(means) if name in LOWER_IS_BETTER else max(means)
        cells = [
            f"{'<b>' if value['mean'] == best else ''}{decimal(value['mean'], digits)}"
            f"{'</b>' if value['mean'] == best else ''} <small>{ends(best_interval(value), digits)}</small>"
            for value in values
        ]
        rows.append([escape(NAMES[name]), *cells])
    head = ["mean over images", *(named(str(model["name"])) for model in models)]
    return table(head, rows) + note(
        f"{describe_intervals(summary)} The intervals of two models may overlap although their "
        "difference is plain: some images are hard for both, and the difference below takes that out."
    )


def _difference(pair: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    several = len(summary["pairs"]) > 1
    dice = pair["metrics"]["dice"]
    p = dice["wilcoxon_p_holm" if several else "wilcoxon_p"]
    html = cards(
        [
            (
                "difference in Dice",
                decimal(dice["difference"]["mean"]),
                ends(cautious_interval(dice["difference"])),
            ),
            (
                "Wilcoxon's p" + (", after Holm" if several else ""),
                p_value(p),
                f"n = {dice['difference']['n']}",
            ),
            (f"{pair['a']} better", f"{dice['a_better']:,}", "images"),
            (f"{pair['b']} better", f"{dice['b_better']:,}", f"images; {dice['equal']} equal"),
        ]
    )
    rows = []
    for name, found in pair["metrics"].items():
        digits = 2 if name.endswith("_px") else 4
        difference = found["difference"]
        row = [
            escape(NAMES[name]) + (" \u2193" if name in LOWER_IS_BETTER else ""),
            decimal(difference["mean"], digits),
            ends(difference["ci95_clustered"], digits),
            ends(difference["bca95"], digits),
            f"{found['a_better']} : {found['equal']} : {found['b_better']}",
            p_value(found["wilcoxon_p"]),
        ]
        rows.append([*row, p_value(found["wilcoxon_p_holm"])] if several else row)
    head = [
        named(f"{pair['a']} minus {pair['b']}"),
        "mean",
        "95 % interval (t)",
        "95 % interval (BCa)",
        "better : equal : worse",
        "Wilcoxon's p",
    ]
    remark = (
        "Paired over the same images. Wilcoxon's signed-rank test takes images as independent; the intervals "
        "know patients and lesions. \u2193: less is better."
    )
    if several:
        head.append("p after Holm")
        remark += " Holm's correction is over the pairs, for each metric."
    return html + table(head, rows) + note(remark)


def _images(pair: Mapping[str, Any], a: Evaluation, b: Evaluation) -> str:
    mine, theirs = a.by_image("dice"), b.by_image("dice")
    keys, differences = paired_values(a, b, "dice")
    xs, ys = [theirs[key] for key in keys], [mine[key] for key in keys]
    unit = (svg.Axis(f"Dice of {pair['b']}", 0.0, 1.0), svg.Axis(f"Dice of {pair['a']}", 0.0, 1.0))
    reach = max(0.05, float(np.quantile(np.abs(differences), 0.99)))
    axis = svg.Axis(f"Dice of {pair['a']} minus {pair['b']}", -reach, reach)
    figures = plots(
        (
            svg.scatter(xs, ys, *unit, "Dice of both", diagonal=True),
            f"One dot per image; above the line {pair['a']} is better.",
        ),
        (
            svg.histogram(differences.tolist(), axis, "Differences in Dice", bins=31, marks=[0.0]),
            "Differences in Dice; the outermost bars hold what lies beyond.",
        ),
    )
    order = np.argsort(differences, kind="stable")
    called = Counter(name for _, name in keys)
    titles = [name if called[name] == 1 else f"{dataset}/{name}" for dataset, name in keys]
    parts = []
    for name, chosen in ((pair["a"], order[::-1]), (pair["b"], order)):
        sign = 1 if name == pair["a"] else -1
        rows = [
            [named(titles[i]), decimal(ys[i], 3), decimal(xs[i], 3), decimal(float(differences[i]), 3)]
            for i in chosen[:_MOST]
            if sign * differences[i] > 0
        ]
        parts.append((f"{name} better", rows, "" if rows else "On no image."))
    head = ["", named(f"Dice of {pair['a']}"), named(f"Dice of {pair['b']}"), "difference"]
    return figures + "<h3>Where they differ most</h3>\n" + spanning_table(head, parts)


def _groups(pair: Mapping[str, Any]) -> str:
    strata: Sequence[Mapping[str, Any]] = pair["strata"]
    intervals = [
        end
        for stratum in strata
        for group in stratum["groups"]
        if not group["refused"]
        for end in best_interval(group["dice"]["difference"]) or ()
    ]
    if not intervals:
        return ""
    reach = max(0.01, *(abs(end) for end in intervals))
    axis = svg.Axis("difference", -reach, reach)
    parts = [
        (
            stratum["title"],
            [_group(group, axis) for group in stratum["groups"] if not group["refused"]],
            left_out(stratum),
        )
        for stratum in strata
    ]
    scale = f"{decimal(-reach, 2)} to {decimal(reach, 2)}"
    head = [
        "",
        "images",
        named(f"Dice, {pair['a']}"),
        named(f"Dice, {pair['b']}"),
        "difference",
        "95 % interval",
        scale,
    ]
    return note(f"{refusal(strata)} Nothing is corrected for the number of groups.") + spanning_table(
        head, parts
    )


def _group(group: Mapping[str, Any], axis: svg.Axis) -> list[str]:
    dice = group["dice"]
    difference = dice["difference"]
    interval = best_interval(difference)
    words = f"{group['name']}: {decimal(difference['mean'])}, {ends(interval)}"
    return [
        escape(group["name"]),
        count(group),
        decimal(dice["a"], 3),
        decimal(dice["b"], 3),
        decimal(difference["mean"]),
        ends(interval),
        svg.interval_bar(difference["mean"], interval, axis, words, mark=0.0),
    ]
