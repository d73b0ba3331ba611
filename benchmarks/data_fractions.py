"""The tables of the data-fraction suite in README and docs/experiments.md, from the folder of the suite.

    dermseg suite run configs/suite/data-fractions-small.yaml -o "$DERMSEG_RUNS/suite-small"
    python benchmarks/data_fractions.py ["$DERMSEG_RUNS/suite-small"]

Copies the suite's ``results.csv`` and ``tests.csv`` to ``benchmarks/results``. What has not been run is said.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

from common import RESULTS, ROOT, write_section

NAME = "data-fractions-small"
# What student projects report, Dice and IoU of U-Net and UNet++: ISIC 2018, full widths, 256 px, 20 epochs,
# random splits of their own.
REPORTED = {
    "10 %": ("0.755 / 0.650", "0.729 / 0.612"),
    "25 %": ("0.802 / 0.712", "0.804 / 0.712"),
    "50 %": ("0.838 / 0.758", "0.841 / 0.762"),
    "100 %": ("0.859 / 0.782", "0.861 / 0.783"),
}
IMAGES = {"10 %": 163, "25 %": 407, "50 %": 814, "100 %": 1628}
MODELS = ("pretrained encoder", "U-Net / 4", "UNet++ / 4")


def table(rows: list[dict[str, str]]) -> str:
    """Dice and Jaccard of each model and share as Markdown."""
    found = {
        (row["model"], row["data"]): f"{float(row['dice']):.3f} / {float(row['jaccard']):.3f}" for row in rows
    }
    heads = [*MODELS, "projects, U-Net", "projects, UNet++"]
    lines = [f"| training images | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for share, reported in REPORTED.items():
        cells = [found.get((model, share), "not run") for model in MODELS]
        lines.append(f"| {share} ({IMAGES[share]:,}) | {' | '.join([*cells, *reported])} |")
    return "\n".join(lines)


def lead(tests: list[dict[str, str]]) -> str:
    """By how much the pretrained encoder is ahead of the U-Net, on the same images."""
    parts = []
    for row in tests:
        if (row["a"], row["b"]) == ("U-Net / 4", "pretrained encoder"):
            points = [-100 * float(row[key]) for key in ("difference", "high", "low")]
            parts.append(f"{points[0]:.1f} ({points[1]:.1f} to {points[2]:.1f}) with {row['where']}")
    return (
        "The pretrained encoder is ahead of the U-Net by so many points of Dice on the same images "
        f"(95 % interval): {', '.join(parts)} of the data."
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    home = os.environ.get("DERMSEG_RUNS", Path.home() / "dermseg-runs")
    parser.add_argument("suite", type=Path, nargs="?", default=Path(home) / "suite-small")
    suite: Path = parser.parse_args().suite
    for source, target in (("results.csv", f"{NAME}.csv"), ("tests.csv", f"{NAME}-tests.csv")):
        (RESULTS / target).write_bytes((suite / source).read_bytes())
    text = table(read(suite / "results.csv"))
    write_section(ROOT / "README.md", "fractions", text)
    page = ROOT / "docs" / "experiments.md"
    write_section(page, "fractions", f"{text}\n\n{lead(read(suite / 'tests.csv'))}")
    print(text)


if __name__ == "__main__":
    main()
