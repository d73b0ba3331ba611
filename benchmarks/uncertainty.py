"""Every figure about uncertainty, with intervals, on the test splits: one look, one line each in the log.

    python benchmarks/uncertainty.py [--model BUNDLE] [--runs DIR]

``--split val --limit 20`` tries it out without looking at the test splits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, ROOT, describe, indexes, one_line, runs_folder, save
from dermseg.data.index import read_index
from dermseg.evaluation.looks import collect
from dermseg.evaluation.output import append_test_log, check_test_log
from dermseg.evaluation.trust import Judged, judge, summarise
from dermseg.inference.predictor import load_model
from dermseg.uncertainty.opinions import has_mc_dropout, load_mc_session

INDEXES = {"ISIC 2018": "isic.csv", "HAM10000": "ham.csv", "PH2": "ph2.csv"}
# figure, what it must reach, and whether that is a floor or a ceiling
TARGETS: dict[str, list[tuple[str, float, str]]] = {
    "ISIC 2018": [
        ("pearson", 0.65, ">="),
        ("auroc_failure", 0.85, ">="),
        ("gain_refusing_10_percent", 0.015, ">="),
        ("band_ece.after", 0.10, "<="),
    ],
    "HAM10000": [
        ("pearson", 0.80, ">="),
        ("gain_refusing_10_percent", 0.015, ">="),
        ("band_ece.after", 0.05, "<="),
    ],
}
MARGIN_TARGETS = [
    ("margins.missed_outside", 0.13, "<="),
    ("margins.wrong_inside", 0.13, "<="),
    ("margins.outer_area", 1.8, "<="),
]
SHOWN = [
    "dice",
    "pearson",
    "auroc_failure",
    "gain_refusing_10_percent",
    "mean_absolute_error",
    "interval_coverage",
    "failures_flagged",
    "share_flagged",
    "band_ece.before",
    "band_ece.after",
    "margins.missed_outside",
    "margins.wrong_inside",
    "margins.outer_area",
    "margins.inner_area",
    "pixel_error_auroc.single_pass_entropy",
    "pixel_error_auroc.mc_entropy",
    "pixel_error_auroc.mc_std",
    "pixel_error_auroc.mc_mutual_information",
    "pixel_error_auroc.mc_minus_single_pass_entropy",
]
PROTOCOL = (
    "First mask of each image, at its own size; 95 % intervals: BCa bootstrap over patients, lesions or "
    "groups of near-duplicates. pearson: predicted against true Dice. auroc_failure: predicted Dice "
    "against Jaccard below 0.65. gain_refusing_10_percent: mean Dice without the tenth of the images "
    "with the lowest predicted Dice, minus that of all. band_ece: pixels within 2 % of the diagonal of "
    "the reference's outline, 15 bins, each image weighing the same, before and after temperature "
    "scaling. margins: level 0.10; mean share of the lesion outside the outer line, mean share of the "
    "inner region that is not lesion, medians of the areas of both regions in areas of the outline; "
    "worst: the stratum with the largest mean. pixel_error_auroc: entropy of one pass, and of 20 passes "
    "of Monte-Carlo dropout, against wrong pixels on the network's grid."
)


def pick(block: dict[str, Any], path: str) -> dict[str, Any] | None:
    """``pick(block, "a.b")`` is ``block["a"]["b"]``, or None."""
    found: Any = block
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def acceptance(blocks: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with what was measured, and whether the measured value meets it."""
    found = []
    for name, block in blocks.items():
        for path, bound, way in (*TARGETS.get(name, []), *(MARGIN_TARGETS if name in TARGETS else [])):
            figure = pick(block, path)
            if figure is None or figure["value"] is None:
                continue
            met = figure["value"] >= bound if way == ">=" else figure["value"] <= bound
            measured = {"value": figure["value"], "ci95": figure["ci95"]}
            found.append({"data": name, "figure": path, "target": f"{way} {bound}", **measured, "met": met})
    return found


def table(blocks: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: a row for each figure, a column for each data set."""
    targets = {(t["data"], t["figure"]): t for t in acceptance(blocks)}
    rows = ["| | " + " | ".join(f"{name} (n={b['n']})" for name, b in blocks.items()) + " |"]
    rows.append("|---" * (len(blocks) + 1) + "|")
    for path in SHOWN:
        cells = []
        for name, block in blocks.items():
            figure = pick(block, path)
            if not figure or figure["value"] is None:
                cells.append("")
                continue
            text = f"{figure['value']:.3f}"
            if figure["ci95"]:
                text += f" ({figure['ci95'][0]:.3f} to {figure['ci95'][1]:.3f})"
            if target := targets.get((name, path)):
                text += f" {'met' if target['met'] else 'NOT MET'}: {target['target']}"
            cells.append(text)
        rows.append(f"| {path.replace('_', ' ').replace('.', ', ')} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def log(judged: list[Judged], file: Path, index: Path, split: str, sha256: str) -> None:
    """One line on this look."""
    jaccard = np.array([j.jaccard for j in judged])
    summary: dict[str, Any] = {
        "n": len(judged),
        "dice": {"mean": float(np.mean([j.dice for j in judged]))},
        "jaccard": {"mean": float(jaccard.mean())},
        "threshold_jaccard": {"mean": float(np.where(jaccard >= 0.65, jaccard, 0.0).mean())},
        "failed_below_065": float((jaccard < 0.65).mean()),
    }
    command = ["python", "benchmarks/uncertainty.py", *sys.argv[1:]]
    append_test_log(file, summary, command=command, model_sha256=sha256, index=index, split=split)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default")
    parser.add_argument("--runs", type=Path, default=runs_folder(), help="folder that holds index/")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="only so many images of each data set")
    parser.add_argument("--output", type=Path, default=RESULTS / "uncertainty.json")
    parser.add_argument("--log-test", type=Path, default=ROOT / "benchmarks" / "test-evaluations.csv")
    args = parser.parse_args()
    indexes(args.runs, *(Path(file).stem for file in INDEXES.values()))
    model = load_model(args.model)
    session = load_mc_session(model.bundle) if has_mc_dropout(model.bundle) else None
    check_test_log(args.log_test)
    blocks: dict[str, dict[str, Any]] = {}
    for name, file in INDEXES.items():
        index = args.runs / "index" / file
        rows = [row for row in read_index(index) if row.split == args.split][: args.limit]
        if not rows:
            continue
        print(f"{name}: {len(rows)} images", file=sys.stderr, flush=True)
        judged = judge(model, collect(model, rows, session=session))
        if args.split == "test":
            log(judged, args.log_test, index, args.split, model.sha256)
        (blocks[name],) = summarise(judged).values()
    result = describe() | {
        "model": {"name": model.card.name, "version": model.card.version, "sha256": model.sha256},
        "split": args.split,
        "protocol": PROTOCOL,
        "acceptance": acceptance(blocks),
        "figures": blocks,
    }
    save(result, args.output)
    print(table(blocks))
    print(f"\n{model.card.name} {model.card.version}, split {args.split}; {one_line(result)}")


if __name__ == "__main__":
    main()
