"""The classic U-Net of Ronneberger et al. on the default model's data, beside the default model.

    DERMSEG_RUNS=... DERMSEG_DATA=... python benchmarks/peer.py [--run RUN]

1. ``configs/unet-same-budget.yaml`` is trained; stopped, the same command goes on.
2. It is exported like any run: its threshold is chosen on validation images.
3. Both are scored on each test set of the model card, at the masks' own size, and compared image by image.

Writes ``results/peer.json`` and README's table: means, and the paired difference with its interval. A look at
a test split is a line in ``benchmarks/test-evaluations.csv``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from common import (
    RESULTS,
    ROOT,
    data_folder,
    dermseg,
    describe,
    indexes,
    one_line,
    runs_folder,
    save,
    write_section,
)
from dermseg.inference.bundle import load_bundle
from dermseg.training.checkpoint import CONFIG
from model_card import BUNDLE, evaluated, kept_under, test_sets

PEER = ROOT / "configs" / "unet-same-budget.yaml"
METRICS = ("dice", "jaccard", "threshold_jaccard")


def beside(bundle: Path, run: Path, data: Path, runs: Path) -> list[dict[str, Any]]:
    """For each test set: both models' means and their paired difference."""
    rows, kept = [], kept_under(load_bundle(BUNDLE).card, runs)
    for test in test_sets(data, runs):
        peer, default = run / "test" / test.index.stem, kept / test.index.stem
        evaluated(peer, bundle, test.index, test.split)
        evaluated(default, BUNDLE, test.index, test.split)
        found = dermseg("compare", default, peer)
        (pair,) = found["pairs"]
        metrics = {key: pair["metrics"][key] for key in METRICS}
        rows.append({"name": test.name, "n": found["n"], "metrics": metrics})
    return rows


def readme_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| test images | Dice, default | Dice, U-Net | difference | Jaccard, default | Jaccard, U-Net |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for row in rows:
        dice, jaccard = row["metrics"]["dice"], row["metrics"]["jaccard"]
        low, high = dice["difference"]["ci95_clustered"]
        lines.append(
            f"| {row['name']}, {row['n']} images | {dice['a']:.3f} | {dice['b']:.3f} "
            f"| {dice['difference']['mean']:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"| {jaccard['a']:.3f} | {jaccard['b']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="run folder; default $DERMSEG_RUNS/run-unet-budget")
    args = parser.parse_args()
    runs, data = runs_folder(), data_folder()
    indexes(runs, "isic", "isic-consensus", "crop512", "ham", "ph2")
    os.environ["DERMSEG_RUNS"] = str(runs)  # which the configuration reads
    run: Path = args.run or runs / "run-unet-budget"
    dermseg("train", *(("--resume", run) if (run / CONFIG).exists() else (PEER, "-o", run)))
    bundle = run / "bundle"
    if not bundle.exists():
        dermseg("export", run, "-o", bundle, "--name", "unet")
    rows = beside(bundle, run, data, runs)
    for row in rows:
        dice = row["metrics"]["dice"]
        low, high = dice["difference"]["ci95_clustered"]
        print(
            f"{row['name']}: Dice {dice['a']:.3f} against {dice['b']:.3f}, "
            f"difference {dice['difference']['mean']:+.3f} ({low:+.3f} to {high:+.3f})"
        )
    result = {**describe(), "config": PEER.name, "sets": rows}
    save(result, RESULTS / "peer.json")
    write_section(ROOT / "README.md", "peer", readme_table(rows))
    print(one_line(result))


if __name__ == "__main__":
    main()
