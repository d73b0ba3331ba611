"""Lay out trained networks for a release: bundle, checkpoint and card of each, and the hashes of all files.

    python benchmarks/release.py RUNS... -o RELEASE [--licence TEXT]

Takes every run at or below the given folders (of a suite, or of ``dermseg train``), and of the runs of one
architecture the one with the best Dice on its validation images; test images decide nothing. RELEASE gets

    <name>.zip             the bundle, for 'dermseg segment --model <name>.zip'
    <name>.safetensors     the weights, to start from with model.init_from
    <name>.yaml            network and recipe of the run, without its data
    <name>.md              the card
    SHA256SUMS             for 'sha256sum -c'

A network whose files are there is not exported again; delete its zip to do so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from dermseg.evaluation.output import METRICS_FILE
from dermseg.experiments.run import find_runs
from dermseg.export.write import add_metrics
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import Metric
from dermseg.report.model_card import render_model_card
from dermseg.training.checkpoint import BEST, CONFIG, LAST, load_state
from dermseg.training.config import RunConfig, load_config
from make_model import NOTE
from model_card import metric

LICENCE = "CC-BY-NC-4.0 (weights; the training data are for non-commercial use)"
SUMS = "SHA256SUMS"


def name_of(config: RunConfig) -> str:
    """Architecture and what tells it from others of its kind, as a file name."""
    options: dict[str, Any] = config.model.options
    words = [config.model.architecture.replace(".", "-"), str(options.get("encoder", "")).replace(":", "-")]
    if widths := options.get("widths"):
        words.append("-".join(map(str, (widths[0], widths[-1]))))
    return "-".join(word.replace("_", "-") for word in words if word)


def best_runs(folders: list[Path]) -> dict[str, Path]:
    """Name -> the run of that kind with the best validation Dice."""
    best: dict[str, tuple[float, Path]] = {}
    for folder in folders:
        for run in find_runs(folder):
            progress = json.loads(load_state(run / LAST)["progress"])
            dice = progress["best_dice"]
            name = name_of(load_config(run / CONFIG))
            if dice is not None and (name not in best or dice > best[name][0]):
                best[name] = dice, run
    return {name: run for name, (_, run) in sorted(best.items())}


def reached(run: Path) -> list[Metric]:
    """What 'dermseg suite' measured of the run, with its protocol; empty where it was not evaluated."""
    found = sorted((run / "evaluation").glob(f"*/{METRICS_FILE}"))
    read = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in found}
    return [metric(name, values["protocol"]["split"], values) for name, values in read.items()]


def lay_out(name: str, run: Path, output: Path, licence: str) -> None:
    """Export one run and put its files beside each other."""
    with tempfile.TemporaryDirectory(dir=output) as work:
        bundle = Path(work) / name
        words = ["export", str(run), "-o", str(bundle), "--name", name, "--licence", licence, "--json"]
        words += ["--note", NOTE]
        subprocess.run(
            [sys.executable, "-m", "dermseg.apps.cli.main", *words], stdout=subprocess.DEVNULL, check=True
        )
        card = add_metrics(bundle, load_bundle(bundle).card, reached(run))
        page = render_model_card(card)
        packed = Path(work) / "bundle.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # weights do not shrink
            for file in sorted(bundle.iterdir()):
                archive.write(file, file.name)
        shutil.copyfile(run / BEST, output / f"{name}.safetensors")
        recipe = load_config(run / CONFIG).model_dump(mode="json", exclude={"data"})
        (output / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        (output / f"{name}.md").write_text(page, encoding="utf-8")
        packed.replace(output / f"{name}.zip")  # last: what has a zip is whole


def write_sums(output: Path) -> None:
    """The hashes of all files, in the form that ``sha256sum -c`` reads."""
    files = sorted(file for file in output.iterdir() if file.is_file() and file.name != SUMS)
    lines = []
    for file in files:
        with file.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {file.name}\n")
    (output / SUMS).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Export what has not been exported, and write the hashes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--licence", default=LICENCE)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, run in best_runs(args.runs).items():
        print(f"{name}: {run}", flush=True)
        if not (args.output / f"{name}.zip").exists():
            lay_out(name, run, args.output, args.licence)
    write_sums(args.output)
    print((args.output / SUMS).read_text("utf-8"), end="")


if __name__ == "__main__":
    main()
