"""The tables of the data-fraction suite in README and docs/experiments.md, from the folder of the suite.

    dermseg suite run configs/suite/data-fractions-small.yaml -o "$DERMSEG_RUNS/suite-small"
    python benchmarks/data_fractions.py ["$DERMSEG_RUNS/suite-small"]
    dermseg suite run configs/suite/grouped-split-small.yaml -o "$DERMSEG_RUNS/suite-grouped"
    python benchmarks/data_fractions.py --grouped "$DERMSEG_RUNS/suite-grouped"
    dermseg suite run configs/suite/small-sample.yaml -o "$DERMSEG_RUNS/suite-small-sample"
    python benchmarks/data_fractions.py --small-sample "$DERMSEG_RUNS/suite-small-sample"
    dermseg suite run configs/suite/same-size.yaml -o "$DERMSEG_RUNS/suite-same-size"
    python benchmarks/data_fractions.py --same-size "$DERMSEG_RUNS/suite-same-size"

Copies the suite's ``results.csv`` and ``tests.csv`` to ``benchmarks/results``. What has not been run is said.
``--grouped`` puts its 100 % runs beside those on the split by patient, lesion and near-duplicates,
``--small-sample`` shows what 161 images give, ``--same-size`` what 10 % give where both networks see 256 px.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from common import RESULTS, ROOT, runs_folder, write_section

NAME, GROUPED, SAMPLE, SIZE = "data-fractions-small", "grouped-split-small", "small-sample", "same-size"
# What student projects report, Dice and IoU of U-Net and UNet++: ISIC 2018, full widths, 256 px, 20 epochs,
# random splits of their own.
REPORTED = {
    "10 %": ("0.755 / 0.650", "0.729 / 0.612"),
    "25 %": ("0.802 / 0.712", "0.804 / 0.712"),
    "50 %": ("0.838 / 0.758", "0.841 / 0.762"),
    "100 %": ("0.859 / 0.782", "0.861 / 0.783"),
}
IMAGES = {"10 %": 163, "25 %": 407, "50 %": 814, "100 %": 1628}
FULL = "pretrained encoder, 256 px"
MODELS = ("pretrained encoder", "U-Net / 4", "UNet++ / 4")


def table(rows: list[dict[str, str]]) -> str:
    """Dice and Jaccard of each model and share as Markdown."""
    found = {
        (row["model"], row["data"]): f"{float(row['dice']):.3f} / {float(row['jaccard']):.3f}" for row in rows
    }
    models = (FULL, *MODELS)
    heads = [*models, "projects, U-Net", "projects, UNet++"]
    lines = [f"| training images | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for share, reported in REPORTED.items():
        cells = [found.get((model, share), "not run") for model in models]
        lines.append(f"| {share} ({IMAGES[share]:,}) | {' | '.join([*cells, *reported])} |")
    return "\n".join(lines)


def ahead(row: dict[str, str]) -> tuple[float, ...]:
    """By how many points of Dice the second model of a paired test is ahead, and the ends of the interval."""
    return tuple(-100 * float(row[key]) for key in ("difference", "high", "low"))


def short(p: str) -> str:
    """A p-value as short as it makes sense."""
    value = float(p)
    return "< 0.0001" if value < 1e-4 else f"{value:.1g}" if value < 0.01 else f"{value:.2f}"


def lead(tests: list[dict[str, str]]) -> str:
    """By how much the pretrained encoder is ahead of the U-Net on the same images, and what the test says."""
    against = {m: [r for r in tests if (r["a"], r["b"]) == ("U-Net / 4", m)] for m in (MODELS[0], FULL)}

    def points(model: str) -> str:
        parts = []
        for row in against[model]:
            by, low, high = ahead(row)
            shown = f"{by:.1f} ({low:.1f} to {high:.1f}; {short(row['p'])}, {short(row['p_holm'])})"
            parts.append(f"{shown} with {row['where']}")
        return ", ".join(parts)

    text = (
        "The pretrained encoder is ahead of the U-Net by so many points of Dice on the same images (95 % "
        f"interval of the mean; p of Wilcoxon's test, and after Holm for all {len(tests)} pairs): "
        f"{points(MODELS[0])} of the data; at 256 px by {points(FULL)}."
    )
    silent = [row["where"] for row in against[MODELS[0]] if float(row["p_holm"]) >= 0.05]
    if silent:
        text += (
            f" With {', '.join(silent)} of the data the test shows no difference: the interval is of the "
            "mean, to which a few large gains add up, the test is of ranks."
        )
    return text


def beside(random: list[dict[str, str]], grouped: list[dict[str, str]]) -> str:
    """The runs on all training images, on both splits."""

    def cell(rows: list[dict[str, str]]) -> str:
        return f"{float(rows[0]['dice']):.3f} / {float(rows[0]['jaccard']):.3f}" if rows else "not run"

    lines = [
        "| 100 % of the training images | random split (349 test images) | grouped split (161) |",
        "|---|---:|---:|",
    ]
    for model in MODELS:
        whole = [row for row in random if (row["model"], row["data"]) == (model, "100 %")]
        lines.append(f"| {model} | {cell(whole)} | {cell([r for r in grouped if r['model'] == model])} |")
    return "\n".join(lines)


def sample(rows: list[dict[str, str]]) -> str:
    """The runs on 161 training images."""
    lines = ["| 161 training images | Dice | Jaccard | mean IoU, pooled |", "|---|---:|---:|---:|"]
    for model in MODELS:
        for row in (row for row in rows if row["model"] == model):
            figures = [float(row[key]) for key in ("dice", "jaccard", "pooled_mean_iou")]
            lines.append(f"| {model} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
    return "\n".join(lines)


def same_size(rows: list[dict[str, str]], tests: list[dict[str, str]]) -> str:
    """The runs at 256 px, and how far they are apart."""
    lines = ["| 10 % (163 images), 256 px | Dice | Jaccard |", "|---|---:|---:|"]
    lines += [f"| {row['model']} | {float(row['dice']):.3f} | {float(row['jaccard']):.3f} |" for row in rows]
    by, low, high = ahead(tests[0])
    difference = (
        f"Difference on the same images: {by:.1f} points of Dice ({low:.1f} to {high:.1f}; p of Wilcoxon's "
        f"test {short(tests[0]['p'])})."
    )
    return "\n".join([*lines, "", difference])


def keep(suite: Path, name: str) -> None:
    """Copy the tables of a suite to the results."""
    for source, target in (("results.csv", f"{name}.csv"), ("tests.csv", f"{name}-tests.csv")):
        (RESULTS / target).write_bytes((suite / source).read_bytes())


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", type=Path, nargs="?", default=runs_folder() / "suite-small")
    parser.add_argument("--grouped", type=Path, metavar="SUITE", help="the other table, from this folder")
    parser.add_argument("--small-sample", type=Path, metavar="SUITE", help="the third, from this folder")
    parser.add_argument("--same-size", type=Path, metavar="SUITE", help="the fourth, from this folder")
    args = parser.parse_args()
    page = ROOT / "docs" / "experiments.md"
    if args.grouped:
        keep(args.grouped, GROUPED)
        text = beside(read(RESULTS / f"{NAME}.csv"), read(RESULTS / f"{GROUPED}.csv"))
        write_section(page, "grouped", text)
        print(text)
        return
    if args.small_sample:
        keep(args.small_sample, SAMPLE)
        text = sample(read(RESULTS / f"{SAMPLE}.csv"))
        write_section(page, "small-sample", text)
        print(text)
        return
    if args.same_size:
        keep(args.same_size, SIZE)
        text = same_size(read(args.same_size / "results.csv"), read(args.same_size / "tests.csv"))
        write_section(page, "same-size", text)
        print(text)
        return
    suite: Path = args.suite
    keep(suite, NAME)
    text = table(read(suite / "results.csv"))
    write_section(ROOT / "README.md", "fractions", text)
    write_section(page, "fractions", f"{text}\n\n{lead(read(suite / 'tests.csv'))}")
    print(text)


if __name__ == "__main__":
    main()
