"""What a simulation found: Dice against labelled images, and how many labels a strategy saves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import write_table
from dermseg.evaluation.statistics import mean_interval, paired_difference
from dermseg.experiments.simulate import START, Cell
from dermseg.files import atomic_write

CONTROL = "random"
_RESAMPLES = 2000
_COLOURS = {  # told apart by people who do not see all colours (Okabe and Ito 2008)
    "random": "#000000",
    "uncertainty": "#d55e00",
    "disagreement": "#cc79a7",
    "diversity": "#0072b2",
    "mixed": "#009e73",
}


def summarize(cells: Sequence[Cell], sizes: Sequence[int], strategies: Sequence[str]) -> dict[str, Any]:
    """Figures of a simulation, for ``simulate.json``.

    For each strategy and number of labelled images: the mean Dice over seeds with its t-interval, and the
    difference from ``random``, paired by seed. ``labels_share`` is how many labels the strategy needs for
    the Dice that random has with all of its own, as a share of those (linear between the sizes, from a curve
    of the mean that never falls; the interval is of bootstrap samples of the seeds). It is null where that
    Dice is not reached.
    """
    tables = {s: dice_table(cells, s, sizes) for s in strategies}
    control = tables.get(CONTROL)
    found: dict[str, Any] = {}
    for strategy, table in tables.items():
        rows = []
        for place, size in enumerate(sizes):
            row: dict[str, Any] = {"labelled": size, **mean_interval(table[:, place]).to_dict()}
            if control is not None and strategy != CONTROL:
                row["minus_random"] = paired_difference(
                    table[:, place].tolist(), control[:, place].tolist()
                ).to_dict()
            rows.append(row)
        found[strategy] = {"dice": rows}
        if control is not None and strategy != CONTROL:
            found[strategy]["labels_share"] = _share_with_interval(table, control, sizes)
    return {"sizes": list(sizes), "seeds": len({cell.seed for cell in cells}), "strategies": found}


def dice_table(cells: Sequence[Cell], strategy: str, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Dice of a strategy, ``float64 (seeds, sizes)``; the start is that of all."""
    by_place = {(c.seed, c.strategy, c.labelled): c.dice for c in cells}
    seeds = sorted({cell.seed for cell in cells})
    return np.array(
        [[by_place[seed, START if n == sizes[0] else strategy, n] for n in sizes] for seed in seeds]
    )


def labels_needed(sizes: Sequence[int], dice: NDArray[np.float64], target: float) -> float | None:
    """Labels at which a curve ``(sizes,)`` reaches a Dice, linear between; None where it does not."""
    rising = np.maximum.accumulate(dice)
    place = int(np.searchsorted(rising, target))
    if place == len(rising):
        return None
    if place == 0:
        return float(sizes[0])
    low, high = rising[place - 1], rising[place]
    return float(sizes[place - 1] + (target - low) / (high - low) * (sizes[place] - sizes[place - 1]))


def _share_with_interval(
    table: NDArray[np.float64], control: NDArray[np.float64], sizes: Sequence[int]
) -> dict[str, Any]:
    def share(picks: NDArray[np.intp]) -> float:
        own = labels_needed(sizes, table[picks].mean(0), float(control[picks].mean(0)[-1]))
        return np.inf if own is None else own / sizes[-1]

    seeds = len(table)
    value = share(np.arange(seeds))
    interval = None
    if seeds > 1:
        rng = np.random.default_rng(2018)
        drawn = [share(rng.integers(0, seeds, seeds)) for _ in range(_RESAMPLES)]
        ends = np.quantile(drawn, [0.025, 0.975], method="nearest")
        interval = [_finite(float(end)) for end in ends]
    return {"share": _finite(value), "bootstrap95": interval}


def _finite(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def write_cells(cells: Sequence[Cell], strategies: Sequence[str], path: Path) -> None:
    """One row per training; the start stands under every strategy."""
    rows = [
        (strategy, cell.seed, cell.labelled, f"{cell.dice:.6f}", cell.seconds)
        for strategy in strategies
        for cell in sorted(cells, key=lambda c: (c.seed, c.labelled))
        if cell.strategy in (START, strategy)
    ]
    write_table(path, ("strategy", "seed", "labelled", "dice", "seconds"), rows)


def draw(summary: dict[str, Any], folder: Path) -> list[Path]:
    """``simulate.png`` and ``simulate.svg``: a line with its 95 % interval for each strategy."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for strategy, found in summary["strategies"].items():
        rows = found["dice"]
        x = [row["labelled"] for row in rows]
        colour = _COLOURS.get(strategy)
        axes.plot(
            x,
            [row["mean"] for row in rows],
            "o--" if strategy == CONTROL else "o-",
            color=colour,
            ms=4,
            label=strategy,
        )
        if rows[0]["ci95"] is not None:
            low, high = zip(*(row["ci95"] for row in rows), strict=True)
            axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
    axes.set(
        xlabel="labelled images", ylabel="Dice on test images", xscale="log", xticks=list(summary["sizes"])
    )
    axes.set_xticks([], minor=True)
    axes.set_xticklabels([str(n) for n in summary["sizes"]])
    axes.set_title(f"mean of {summary['seeds']} seeds, 95 % t-interval", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    written = []
    with rc_context({"svg.hashsalt": "dermseg"}):
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=140, metadata={"Date": None} if kind == "svg" else None)
            written.append(folder / f"simulate.{kind}")
            atomic_write(written[-1], buffer.getvalue())
    return written
