"""Dice against milliseconds of networks trained alike from little: the table of docs/training.md.

    dermseg suite run configs/suite/small-networks.yaml -o "$DERMSEG_RUNS/suite-small-networks"
    python benchmarks/small_networks.py ["$DERMSEG_RUNS/suite-small-networks"]

Dice from that suite and, for the larger networks, from the runs of ``data-fractions-small.yaml`` with all of
the data, which were trained in the same way (``results/data-fractions-small.csv``). Milliseconds of one
image in ONNX Runtime on one thread, measured here in turns; weights do not change them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from common import RESULTS, ROOT, describe, one_line, runs_folder, save, write_section
from data_fractions import NAME, ahead, read, short
from dermseg.experiments.suite import load_suite
from dermseg.export.onnx import to_onnx
from dermseg.inference.session import OrtSession
from dermseg.models import build_model, without_pretrained

SUITES = ("small-networks", NAME)
SIZE = 128
ROUNDS, CALLS = 8, 25  # many in a row: the first ones after another network find its weights in no cache


def networks() -> dict[str, OrtSession]:
    """Each network of the two suites at ``SIZE``, by the name that it has there."""
    found = {}
    for suite in SUITES:
        for name, settings in load_suite(ROOT / "configs" / "suite" / f"{suite}.yaml").axes["model"].items():
            if settings.get("training.image_size", SIZE) == SIZE:
                torch.manual_seed(0)
                options = without_pretrained(settings.get("model.options", {}))
                network = build_model(settings["model.architecture"], **options).eval()
                found[name] = OrtSession(to_onnx(network, SIZE), threads=1)
    return found


def milliseconds(sessions: dict[str, OrtSession]) -> dict[str, float]:
    """Of one image, the median of calls in turns."""
    x = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE), np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            for _ in range(CALLS):
                begin = time.perf_counter()
                session(x)
                times[name].append(1000 * (time.perf_counter() - begin))
    return {name: round(median(values), 2) for name, values in times.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown, the quickest network first."""
    lines = ["| network | parameters | one image | Dice | Jaccard |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row['model']} | {row['parameters'] / 1e6:.2f} M | {row['ms']:.1f} ms | {row['dice']:.3f} | "
        f"{row['jaccard']:.3f} |"
        for row in sorted(rows, key=lambda row: float(row["ms"]))
    ]
    return "\n".join(lines)


def lead(tests: list[dict[str, str]]) -> str:
    """By how much ``mobile_unet`` is ahead of each network of its suite on the same images."""
    parts = []
    for row in tests:
        if row["b"] == "mobile_unet":
            by, low, high = ahead(row)
            p = short(row["p_holm"])
            parts.append(f"{by:.1f} ahead of {row['a']} ({low:.1f} to {high:.1f}; {p})")
    return (
        f"`mobile_unet` is {', '.join(parts)}: points of Dice on the same images, 95 % interval of the mean, "
        "p of Wilcoxon's test after Holm."
    )


def main() -> None:
    """Measure, write the JSON and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", type=Path, nargs="?", default=runs_folder() / "suite-small-networks")
    args = parser.parse_args()
    ms = milliseconds(networks())
    trained = [*read(args.suite / "results.csv"), *read(RESULTS / f"{NAME}.csv")]
    rows = [
        {
            "model": row["model"],
            "parameters": int(row["parameters"]),
            "ms": ms[row["model"]],
            "dice": float(row["dice"]),
            "jaccard": float(row["jaccard"]),
            "images": int(row["n"]),
        }
        for row in trained
        if row["data"] == "100 %" and row["model"] in ms
    ]
    tests = read(args.suite / "tests.csv")
    result = {**describe(), "size": SIZE, "rows": rows, "tests": tests}
    save(result, RESULTS / "small_networks.json")
    text = f"{table(rows)}\n\n{lead(tests)}\n\n{one_line(result)}"
    write_section(ROOT / "docs" / "training.md", "small", text)
    print(text)


if __name__ == "__main__":
    main()
