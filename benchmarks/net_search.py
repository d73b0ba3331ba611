"""Search the small network for the machine: screen by speed, train a few finalists, draw the front.

1. ``screen``: images/s of many variants of ``encoder_unet`` with random weights, which do not change speed,
   in turns and several times over, as ``dermseg segment`` runs them (one call per CPU, one thread each).
2. ``train``: the finalists below, all with one short recipe: the data of ``configs/default-start.yaml``,
   three epochs at 128 px, one at the candidate's own size. Finished runs are kept, interrupted ones resumed.
3. ``plot``: Dice on val (mean of ISIC 2018 and HAM10000) against images/s. Test splits are not touched.

    python benchmarks/net_search.py screen|train|plot
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from common import RESULTS, ROOT, dermseg, describe, save
from dermseg.export.onnx import to_onnx
from dermseg.inference.session import OrtSession
from dermseg.inference.threads import available_cpus
from dermseg.models import build_model, count_parameters
from dermseg.training.checkpoint import CONFIG


@dataclass(frozen=True)
class Candidate:
    """One network at one input size."""

    size: int
    options: dict[str, Any] = field(default_factory=dict)
    finalist: bool = False


LITE1 = {"encoder": "efficientnet_lite1"}
DENSE2 = {"decoder_widths": [128, 96, 64, 32, 16], "separable_strides": 0}
DENSE4 = {"decoder_widths": [128, 96, 64, 32], "separable_strides": 0}
SLIM4 = {"decoder_widths": [96, 64, 48, 32], "separable_strides": 16}
SLIM8 = {"decoder_widths": [128, 96, 64], "separable_strides": 8}
CANDIDATES: dict[str, Candidate] = {
    "stride 2, dense, 256": Candidate(256, DENSE2, finalist=True),
    "stride 4, dense, 256": Candidate(256, DENSE4),
    "stride 4, 256": Candidate(256, finalist=True),
    "stride 4, slim, 256": Candidate(256, SLIM4),
    "stride 8, 256": Candidate(256, SLIM8),
    "stride 4, Lite1, 256": Candidate(256, LITE1),
    "stride 4, 320": Candidate(320),
    "stride 4, 384": Candidate(384, finalist=True),
    "stride 4, 224": Candidate(224),
    "stride 4, 192": Candidate(192, finalist=True),
    "stride 4, slim, 192": Candidate(192, SLIM4, finalist=True),
    "stride 4, slim, 160": Candidate(160, SLIM4, finalist=True),
}
# What others report, for the plot: student projects on ISIC 2018 at 256 px (a random split, their machine).
REPORTED = {"student projects, as reported (random split, T4)": (22.0, (0.85, 0.87))}
SCREEN, SEARCH = RESULTS / "net_screen.json", RESULTS / "net_search.json"


def screen(rounds: int) -> None:
    """Images/s of every candidate; the best and the median round."""
    cpus = available_cpus()
    pool = ThreadPoolExecutor(cpus)
    sessions, inputs, parameters = {}, {}, {}
    for name, candidate in CANDIDATES.items():
        model = build_model("encoder_unet", **candidate.options)
        parameters[name] = count_parameters(model)
        sessions[name] = OrtSession(to_onnx(model, candidate.size), 1)
        side = candidate.size
        inputs[name] = np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32)
    rates: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for _ in range(rounds + 1):
        for name, session in sessions.items():

            def work(_: int, session: OrtSession = session, x: Any = inputs[name]) -> None:
                for _ in range(4):
                    session(x)

            begin = time.perf_counter()
            list(pool.map(work, range(cpus)))
            rates[name].append(4 * cpus / (time.perf_counter() - begin))
    rows = [
        {
            "name": name,
            "size": candidate.size,
            "options": candidate.options,
            "parameters": parameters[name],
            "images_per_second": round(median(rates[name][1:]), 2),
            "best": round(max(rates[name][1:]), 2),
        }
        for name, candidate in CANDIDATES.items()
    ]
    save({**describe(), "rounds": rounds, "candidates": rows}, SCREEN)
    for row in sorted(rows, key=lambda row: str(row["name"])):
        print(f"{row['name']:24s} {row['images_per_second']:7.1f} images/s  {row['parameters']:,} parameters")


def train(runs: Path) -> None:
    """Train and evaluate the finalists; a result that is there is not repeated."""
    results = json.loads(SEARCH.read_text())["finalists"] if SEARCH.exists() else []
    for name, candidate in CANDIDATES.items():
        if not candidate.finalist or any(row["name"] == name for row in results):
            continue
        run = runs / "search" / name.replace(", ", "-").replace(" ", "")
        begin = time.perf_counter()
        if (run / CONFIG).exists():
            dermseg("train", "--resume", run)
        else:
            dermseg("train", ROOT / "configs" / "default-start.yaml", "-o", run, *overrides(candidate))
        minutes = (time.perf_counter() - begin) / 60
        bundle = run / "bundle"
        if not bundle.exists():
            dermseg("export", run, "-o", bundle, "--name", run.name)
        dice = {}
        for data in ("isic", "ham"):
            out = dermseg(
                "evaluate", "--data", runs / "index" / f"{data}.csv", "--split", "val", "--model", bundle
            )
            dice[data] = out["dice"]
        results.append({"name": name, "size": candidate.size, "minutes": round(minutes, 1), "val": dice})
        save({**describe(), "finalists": results}, SEARCH)


def overrides(candidate: Candidate) -> list[str]:
    """The short recipe as ``--set`` options."""
    values: dict[str, Any] = {
        "training.epochs": 4,
        "training.phases": [{"epochs": 3, "image_size": 128, "batch_size": 32}],
        "training.image_size": candidate.size,
        "data.cache_size": max(256, candidate.size),
        "training.ema_decay": 0.99,
        **{f"model.options.{key}": value for key, value in candidate.options.items()},
    }
    return [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def plot(path: Path) -> None:
    """Dice on val against images/s."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rates = {row["name"]: row["images_per_second"] for row in json.loads(SCREEN.read_text())["candidates"]}
    finalists = json.loads(SEARCH.read_text())["finalists"]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    points = []
    for row in finalists:
        means = [row["val"][data]["mean"] for data in ("isic", "ham")]
        points.append((rates[row["name"]], float(np.mean(means)), row["name"]))
    for rate, dice, name in points:
        front = not any(r > rate and d > dice for r, d, _ in points)
        axes.plot(rate, dice, "o", color="#1f6fb2" if front else "#9aa7b4", ms=8)
        axes.annotate(name, (rate, dice), textcoords="offset points", xytext=(8, 4), fontsize=9)
    for name, (rate, (low, high)) in REPORTED.items():
        axes.plot([rate, rate], [low, high], "-", color="#b23a1f", lw=3)
        axes.annotate(name, (rate, high), textcoords="offset points", xytext=(6, 4), fontsize=9)
    axes.set(
        xscale="log", xlabel="images/s, network only", ylabel="Dice on val, mean of ISIC 2018 and HAM10000"
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    print(path)


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("screen", "train", "plot"))
    parser.add_argument("--rounds", type=int, default=20)
    home = Path.home() / "dermseg-runs"
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("DERMSEG_RUNS", home)))
    args = parser.parse_args()
    if args.step == "screen":
        screen(args.rounds)
    elif args.step == "train":
        os.environ["DERMSEG_RUNS"] = str(args.runs)
        train(args.runs)
    else:
        plot(ROOT / "docs" / "images" / "network-front.png")


if __name__ == "__main__":
    main()
