"""Search the small network for the machine: screen by speed, train a few finalists, draw the front.

1. ``screen``: images/s of many variants of ``encoder_unet`` with random weights, which do not change speed,
   in turns and several times over, as ``dermseg segment`` runs them (one call per CPU, one thread each).
2. ``train``: the finalists below, all with one short recipe: the data of ``configs/default-start.yaml``,
   three epochs at 128 px, one at the candidate's own size. Finished runs are kept, interrupted ones resumed.
3. ``sizes``: the bundled networks, and the classic U-Net of ``peer.py`` where it has been trained, at several
   input sizes: Dice on val and images/s.
4. ``plot``: Dice on val (mean of ISIC 2018 and HAM10000) against images/s, of what the steps have found, and
   the table of the finalists.

Test splits are not touched.

    python benchmarks/net_search.py screen|train|sizes|plot
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from common import RESULTS, ROOT, dermseg, describe, indexes, one_line, runs_folder, save, write_section
from dermseg.data.index import read_index
from dermseg.evaluation.looks import collect, outline
from dermseg.evaluation.metrics import dice
from dermseg.export.onnx import to_onnx
from dermseg.inference.bundle import load_bundle
from dermseg.inference.predictor import Model
from dermseg.inference.session import OrtSession, Session
from dermseg.inference.threads import available_cpus
from dermseg.models import build_model, count_parameters
from dermseg.training.checkpoint import CONFIG


@dataclass(frozen=True)
class Candidate:
    """One network at one input size."""

    size: int
    options: dict[str, Any] = field(default_factory=dict)
    finalist: bool = False


LITE1, LITE2 = {"encoder": "efficientnet_lite1"}, {"encoder": "efficientnet_lite2"}
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
    "stride 4, Lite2, 192": Candidate(192, LITE2, finalist=True),
    "stride 4, 320": Candidate(320),
    "stride 4, 384": Candidate(384),
    "stride 4, 224": Candidate(224),
    "stride 4, 192": Candidate(192, finalist=True),
    "stride 4, slim, 192": Candidate(192, SLIM4, finalist=True),
    "stride 8, 192": Candidate(192, SLIM8, finalist=True),
    "stride 4, slim, 160": Candidate(160, SLIM4),
}
# What others report, for the plot: student projects on ISIC 2018 at 256 px (a random split, their machine).
REPORTED = {"student projects, as reported (random split, T4)": (22.0, (0.85, 0.87))}
SCREEN, SEARCH = RESULTS / "net_screen.json", RESULTS / "net_search.json"
TRAINED = RESULTS / "net_sizes.json"
SIZES = (96, 128, 160, 192, 224, 256, 320, 384)
COLOURS = {"accurate": "#b0542a", "default": "#1f6fb2", "fast": "#2c8a4b", "classic U-Net": "#6b4fa0"}


def screen(rounds: int) -> None:
    """Images/s of every candidate; the best and the median round."""
    sessions: dict[Any, tuple[OrtSession, int]] = {}
    parameters = {}
    for name, candidate in CANDIDATES.items():
        model = build_model("encoder_unet", **candidate.options)
        parameters[name] = count_parameters(model)
        sessions[name] = OrtSession(to_onnx(model, candidate.size), 1), candidate.size
    rates = network_rates(sessions, rounds)
    rows = [
        {
            "name": name,
            "size": candidate.size,
            "options": candidate.options,
            "parameters": parameters[name],
            **rates[name],
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
        if (run / CONFIG).exists():
            dermseg("train", "--resume", run)
        else:
            dermseg("train", ROOT / "configs" / "default-start.yaml", "-o", run, *overrides(candidate))
        bundle = run / "bundle"
        if not bundle.exists():
            dermseg("export", run, "-o", bundle, "--name", run.name)
        dice = {}
        for data in ("isic", "ham"):
            out = dermseg(
                "evaluate", "--data", runs / "index" / f"{data}.csv", "--split", "val", "--model", bundle
            )
            dice[data] = out["dice"]
        results.append({"name": name, "size": candidate.size, "val": dice})
        save({**describe(), "finalists": results}, SEARCH)


def sizes(runs: Path, rounds: int) -> None:
    """Dice on val and images/s of networks that are trained, at the sizes of ``SIZES``."""
    bundles = {name: load_bundle(name) for name in ("accurate", "default", "fast")}
    peer = runs / "run-unet-budget" / "bundle"
    if peer.exists():
        bundles["classic U-Net"] = load_bundle(peer)
    data = {
        name: [row for row in read_index(runs / "index" / f"{name}.csv") if row.split == "val"]
        for name in ("isic", "ham")
    }
    rows: list[dict[str, Any]] = []
    sessions: dict[Any, tuple[Session, int]] = {}
    for name, bundle in bundles.items():
        own, session = bundle.card.preprocessing.height, Model(bundle, threads=1).session
        for side in sorted({*SIZES, own}) if name in ("default", "fast") else [own]:
            at = bundle.card.preprocessing.model_copy(update={"height": side, "width": side})
            model = Model(replace(bundle, card=bundle.card.model_copy(update={"preprocessing": at})))
            post = model.card.postprocessing
            val = {
                key: float(np.mean([dice(outline(look, post).counts) for look in collect(model, images)]))
                for key, images in data.items()
            }
            sessions[name, side] = session, side
            rows.append({"name": name, "size": side, "own_size": side == own, "val": val})
            print(f"{name:14s} {side} px  ISIC {val['isic']:.4f}  HAM10000 {val['ham']:.4f}")
    rates = network_rates(sessions, rounds)
    rows = [{**row, **rates[row["name"], row["size"]]} for row in rows]
    save({**describe(), "rounds": rounds, "networks": rows}, TRAINED)


def network_rates(sessions: Mapping[Any, tuple[Session, int]], rounds: int) -> dict[Any, dict[str, float]]:
    """Images/s of networks and their input sizes, in turns: median and best round.

    As ``dermseg segment`` runs them: one call per CPU, one thread each.
    """
    cpus = available_cpus()
    inputs = {
        side: np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32)
        for _, side in sessions.values()
    }
    found: dict[Any, list[float]] = {key: [] for key in sessions}
    with ThreadPoolExecutor(cpus) as pool:
        for _ in range(rounds + 1):
            for key, (session, side) in sessions.items():

                def work(_: int, session: Session = session, x: Any = inputs[side]) -> None:
                    for _ in range(4):
                        session(x)

                begin = time.perf_counter()
                list(pool.map(work, range(cpus)))
                found[key].append(4 * cpus / (time.perf_counter() - begin))
    return {
        key: {"images_per_second": round(median(rates[1:]), 2), "best": round(max(rates[1:]), 2)}
        for key, rates in found.items()
    }


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

    figure, axes = plt.subplots(figsize=(10, 4.8), layout="constrained")
    networks = json.loads(TRAINED.read_text())["networks"]
    for name, colour in COLOURS.items():
        points = [row for row in networks if row["name"] == name]
        if points:
            rates = [row["images_per_second"] for row in points]
            means = [_mean(row["val"]) for row in points]
            axes.plot(rates, means, "o-", color=colour, ms=4, label=f"{name}, at input px")
        for row in points:
            at = (row["images_per_second"], _mean(row["val"]))
            place = (0, 8) if name == "default" else (0, -16)  # the curves lie close together
            axes.annotate(
                f"{row['size']}",
                at,
                textcoords="offset points",
                xytext=place,
                ha="center",
                fontsize=8,
                color=colour,
            ).set_clip_on(True)
            if row["own_size"]:
                axes.plot(*at, "o", color=colour, ms=10)
    if SEARCH.exists():
        screened = {row["name"]: row for row in json.loads(SCREEN.read_text())["candidates"]}
        for letter, row in zip("ABCDEF", json.loads(SEARCH.read_text())["finalists"], strict=False):
            rate = screened[row["name"]]["images_per_second"]
            mean = _mean({key: value["mean"] for key, value in row["val"].items()})
            # the points lie too close together for names beside them
            axes.plot(
                rate,
                mean,
                ls="",
                marker=f"$\\mathrm{{{letter}}}$",
                ms=8,
                color="#30363d",
                label=f"{row['name']}, short recipe",
            )
    for name, (rate, (low, high)) in REPORTED.items():
        axes.plot([rate, rate], [low, high], "-", color="#b23a1f", lw=3, label=name)
    axes.set(
        xscale="log", xlabel="images/s, network only", ylabel="Dice on val, mean of ISIC 2018 and HAM10000"
    )
    axes.set_xlim(9, 1000)
    axes.set_ylim(0.84, 0.92)
    ticks = [10, 20, 50, 100, 200, 500, 1000]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    print(path)


def table() -> str:
    """The finalists as Markdown, fastest last."""
    search, screened = json.loads(SEARCH.read_text()), json.loads(SCREEN.read_text())
    rates = {row["name"]: row for row in screened["candidates"]}
    lines = [
        "| network | px | parameters | images/s | ISIC 2018 | HAM10000 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(search["finalists"], key=lambda row: float(rates[row["name"]]["images_per_second"])):
        known = rates[row["name"]]
        cells = [
            row["name"].rpartition(", ")[0],
            str(row["size"]),
            f"{known['parameters'] / 1e6:.2f} M",
            f"{known['images_per_second']:.0f}",
            *(f"{row['val'][key]['mean']:.3f}" for key in ("isic", "ham")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", one_line(screened)])


def _mean(val: dict[str, float]) -> float:
    return float(np.mean([val["isic"], val["ham"]]))


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("screen", "train", "sizes", "plot"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=runs_folder())
    args = parser.parse_args()
    if args.step in ("train", "sizes"):
        indexes(args.runs, "isic", "ham")
    if args.step == "screen":
        screen(args.rounds)
    elif args.step == "train":
        os.environ["DERMSEG_RUNS"] = str(args.runs)
        train(args.runs)
    elif args.step == "sizes":
        sizes(args.runs, args.rounds)
    else:
        plot(ROOT / "docs" / "images" / "network-front.png")
        if SEARCH.exists():
            write_section(ROOT / "docs" / "performance.md", "search", table())


if __name__ == "__main__":
    main()
