"""What Monte-Carlo dropout costs: N passes with the encoder run once, against N full passes of the network.

Both run in ONNX Runtime on the same number of threads (``taskset -c 0,1`` holds a process to two CPUs), in
turns, so that the drift of a shared machine falls on both alike. The full passes are calls with one image
each, and one call with the image N times; the faster counts.

    taskset -c 0,1 python benchmarks/mc_cost.py [--model BUNDLE] [--passes 20] [--rounds 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from common import RESULTS, describe, one_line, save
from dermseg.inference.predictor import load_model
from dermseg.inference.threads import available_cpus
from dermseg.uncertainty.mc_dropout import DEFAULT_PASSES, draw_masks
from dermseg.uncertainty.opinions import load_mc_session


def seconds(action: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print a line, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default")
    parser.add_argument("--passes", type=int, default=DEFAULT_PASSES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--output", type=Path, default=RESULTS / "mc_cost.json")
    args = parser.parse_args()
    model = load_model(args.model, threads=args.threads)
    session = load_mc_session(model.bundle, threads=args.threads)
    size, n = model.card.preprocessing, args.passes
    image = np.random.default_rng(0).normal(0, 1, (3, size.height, size.width)).astype(np.float32)
    many = np.repeat(image[None], n, axis=0)
    masks = draw_masks(session.channels, session.rate, n)
    # The same masks one by one: the batch must not change what a pass says.
    single = np.concatenate([session.with_masks(image, *(m[i : i + 1] for m in masks)) for i in range(n)])
    difference = float(np.abs(session.with_masks(image, *masks) - single).max())
    ways: dict[str, Callable[[], object]] = {
        "mc": lambda: session.repeat(image, n),
        "full_one_by_one": lambda: [model.session(image[None]) for _ in range(n)],
        "full_in_one_batch": lambda: model.session(many),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for action in ways.values():
        action()
    for _ in range(args.rounds):
        for name, action in ways.items():
            times[name].append(seconds(action))
    middle = {name: median(values) for name, values in times.items()}
    fastest = min(("full_one_by_one", "full_in_one_batch"), key=lambda name: middle[name])
    share = middle["mc"] / middle[fastest]
    draws = np.random.default_rng(0).integers(args.rounds, size=(2000, args.rounds))  # rounds belong together
    rounds = {name: np.median(np.array(times[name])[draws], axis=1) for name in ("mc", fastest)}
    interval = np.quantile(rounds["mc"] / rounds[fastest], (0.025, 0.975))
    result = describe() | {
        "model": {"name": model.card.name, "version": model.card.version, "sha256": model.sha256},
        "threads": args.threads,
        "passes": n,
        "median_ms": {name: round(1000 * value, 3) for name, value in middle.items()},
        "protocol": f"medians of {args.rounds} rounds, the ways in turns; share of the faster way of making "
        f"{n} full passes; interval: bootstrap over rounds",
        "share_of_full_passes": round(share, 4),
        "share_ci95": [round(float(v), 4) for v in interval],
        "acceptance": [{"figure": "share_of_full_passes", "target": "<= 0.25", "met": share <= 0.25}],
        "largest_logit_difference_to_single_passes": difference,
        "seconds": times,
    }
    save(result, args.output)
    print(f"{n} passes cost {100 * share:.1f} % of {n} full passes", result["median_ms"])
    print(one_line(result))


if __name__ == "__main__":
    main()
