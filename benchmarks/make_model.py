"""Rebuild the bundled model from data to card: import, train, export, fit its trust, evaluate, model card.

Every step is a ``dermseg`` command that can be run by hand; a step whose result is there is not repeated,
so the command may be interrupted and run again. Test splits are only looked at in the last step, and each
look is one line in ``benchmarks/test-evaluations.csv``.

    python benchmarks/make_model.py --data DIR [--runs DIR] [--config configs/default.yaml]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from dermseg.data.index import read_index, write_index
from dermseg.export.fit_gate import fit_bundle_gate
from dermseg.export.write import add_metrics
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import Metric
from dermseg.report.model_card import render_model_card
from fit_gate import INDEXES as GATE_INDEXES

ROOT = Path(__file__).resolve().parents[1]
TEST_LOG = ROOT / "benchmarks" / "test-evaluations.csv"
LICENCE = "CC-BY-NC-4.0 (weights; the training data are for non-commercial use)"
SUMMARY = "EfficientNet-Lite0 U-Net for the outline of one skin lesion, trained on ISIC 2018 and HAM10000"


def dermseg(*arguments: object) -> dict[str, object]:
    """Run one command, show it, and return its JSON."""
    words = [str(a) for a in arguments]
    print("$ dermseg", *words, flush=True)
    command = [sys.executable, "-m", "dermseg.apps.cli.main", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def import_data(data: Path, index: Path) -> None:
    """The indexes of the four data sets, with the splits of ``splits.csv``."""
    index.mkdir(parents=True, exist_ok=True)
    meta = data / "isic2018_metadata.csv"
    splits = ("--splits", data / "splits.csv")
    official = (
        data / "ISIC2018_Task1-2_Training_Input.zip",
        data / "ISIC2018_Task1_Training_GroundTruth.zip",
    )
    ham = (data / "HAM10000_images.zip", data / "HAM10000_segmentations_lesion_tschandl.zip")
    crop = data / "ISIC2018_crop512.zip"
    # crop512 shows the same photographs: it takes its splits from isic.csv, so that two views never part
    views = (crop, "--name", "isic2018_crop512", "--metadata", meta, "--splits", index / "isic.csv")
    wanted: dict[str, tuple[object, ...]] = {
        "isic": ("isic2018", *official, "--metadata", meta, *splits, "--exclude-leaks"),
        "ham": ("ham10000", *ham, "--metadata", data / "HAM10000_metadata.csv", *splits, "--exclude-leaks"),
        "crop512": ("folder", *views),
        "ph2": ("ph2", data / "PH2Dataset_20.zip", "--split", "test"),
    }
    for name, arguments in wanted.items():
        if not (index / f"{name}.csv").exists():
            dermseg("data", "import", *arguments, "-o", index / f"{name}.csv")
    if not (index / "isic-consensus.csv").exists():
        consensus_rows(index / "isic.csv", meta, index / "isic-consensus.csv")


def consensus_rows(isic: Path, metadata: Path, out: Path) -> None:
    """Index of the training images whose mask is the consensus of several tools, T2 among them.

    They are 11 % of the training images and 37 % of the validation images: the recipe shows them more often.
    """
    with metadata.open(encoding="utf-8", newline="") as file:
        tools = {row["isic_id"]: set(re.findall(r"T\d", row["annotations"])) for row in csv.DictReader(file)}
    rows = [row for row in read_index(isic) if row.split == "train"]
    chosen = [row for row in rows if "T2" in (t := tools.get(row.image_id, set())) and len(t) > 1]
    write_index(chosen, out)


def main() -> None:
    """Run every step that has not been done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    home = Path.home() / "dermseg-runs"
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("DERMSEG_DATA"), help="folder of the data"
    )
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("DERMSEG_RUNS", home)))
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "default.yaml")
    parser.add_argument("--run", type=Path, help="run folder; default RUNS/<name of the config>")
    parser.add_argument("--bundle", type=Path, default=ROOT / "src" / "dermseg" / "bundles" / "default")
    parser.add_argument("--name", default="default")
    parser.add_argument("--version", default="1")
    parser.add_argument("--summary", default=SUMMARY)
    parser.add_argument("--note", action="append", default=[], help="for the card: what a reader should know")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for dermseg train")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or DERMSEG_DATA must name the folder with the data sets")
    os.environ["DERMSEG_RUNS"] = str(args.runs)
    index = args.runs / "index"
    import_data(args.data, index)

    run = args.run or args.runs / f"run-{args.config.stem}"
    if (run / "config.yaml").exists():
        dermseg("train", "--resume", run)
    else:
        overrides = [word for item in args.set for word in ("--set", item)]
        dermseg("train", args.config, "-o", run, *overrides)

    words = ("--name", args.name, "--version", args.version, "--licence", LICENCE, "--summary", args.summary)
    notes = [word for note in args.note for word in ("--note", note)]
    dermseg("export", run, "-o", args.bundle, *words, *notes)
    fitted_on = [word for name in ("isic", "ham") for word in ("--data", index / f"{name}.csv")]
    dermseg("uncertainty", "fit", args.bundle, *fitted_on)
    fit_bundle_gate(args.bundle, [index / f"{name}.csv" for name in GATE_INDEXES], report=print)

    synthetic = args.runs / "synthetic-200"
    if not (synthetic / "index.csv").exists():
        dermseg("data", "synth", "-n", 200, "--seed", 1_000_000, "-o", synthetic)
    tests = {
        "ISIC 2018": (index / "isic.csv", "test"),
        "HAM10000": (index / "ham.csv", "test"),
        "PH2": (index / "ph2.csv", "test"),
        "synthetic": (synthetic / "index.csv", "all"),
    }
    metrics = []
    for name, (path, split) in tests.items():
        out = run / "evaluation" / path.stem
        words = ("--data", path, "--split", split, "--model", args.bundle, "-o", out, "--overwrite")
        result = dermseg("evaluate", *words, "--log-test", TEST_LOG)
        keep = ("n", "dice", "jaccard", "threshold_jaccard", "sensitivity", "specificity", "failed_below_065")
        protocol = result["protocol"]
        assert isinstance(protocol, dict)
        metrics.append(
            Metric.model_validate(
                {
                    "dataset": name,
                    "split": split,
                    "protocol": protocol["text"],
                    **{k: result[k] for k in keep},
                }
            )
        )
    card = add_metrics(args.bundle, load_bundle(args.bundle).card, metrics)
    if args.name == "default":
        (ROOT / "MODEL_CARD.md").write_text(render_model_card(card), encoding="utf-8")
    for metric in metrics:
        print(f"{metric.dataset}: n {metric.n}, Dice {metric.dice}")


if __name__ == "__main__":
    main()
