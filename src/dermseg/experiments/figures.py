"""Pictures of a suite: Dice against the last axis, and the worst images of all models side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask, read_index
from dermseg.evaluation.statistics import mean_interval
from dermseg.evaluation.table import Key
from dermseg.experiments.outcomes import Outcome, by_value
from dermseg.experiments.predict import THRESHOLD, RunModel
from dermseg.files import atomic_write
from dermseg.images import load_image
from dermseg.images.masks import load_mask
from dermseg.images.overlay import draw_overlay, encode_jpeg
from dermseg.images.resize import stretch
from dermseg.inference.pictures import resize_mask
from dermseg.inference.postprocess import upsample
from dermseg.training.config import expand

_SIDE, _GAP, _WORST = 220, 4, 5


def curves(outcomes: Sequence[Outcome], path: Path) -> Path | None:
    """Dice with its 95 % interval against the variations of the last axis, one line for the others.

    Of several seeds it is the mean of each image over them, with its t-interval over images.
    None where the suite has one axis only, or one variation on the last.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tests = list(dict.fromkeys(o.test for o in outcomes))
    if not outcomes or len(outcomes[0].variations) < 2:
        return None
    ticks = sorted({o.variations[-1][1] for o in outcomes}, key=by_value)
    if len(ticks) < 2:
        return None
    figure, axes = plt.subplots(
        1, len(tests), figsize=(6 * len(tests), 4.5), squeeze=False, layout="constrained", sharey=True
    )
    for axis, test in zip(axes[0], tests, strict=True):
        lines: dict[str, dict[str, Outcome]] = defaultdict(dict)
        for o in outcomes:
            if o.test == test:
                lines[", ".join(v for _, v in o.variations[:-1])][o.variations[-1][1]] = o
        for number, (label, members) in enumerate(lines.items()):
            places = [tick for tick in ticks if tick in members]
            beside = 0.06 * (number - (len(lines) - 1) / 2)  # so that no interval hides another
            x = [ticks.index(tick) + beside for tick in places]
            means = [mean_interval(list(members[t].by_image().values())) for t in places]
            spread = [0.0 if m.low is None or m.high is None else (m.high - m.low) / 2 for m in means]
            axis.errorbar(x, [m.mean for m in means], yerr=spread, marker="o", capsize=3, label=label)
        axis.set_xticks(range(len(ticks)), ticks)
        axis.set(title=test, xlabel=outcomes[0].variations[-1][0], ylabel="Dice, mean over images")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def worst_images(outcomes: Sequence[Outcome], path: Path, *, indexes: Sequence[Path] = ()) -> Path | None:
    """The images on which all models together do worst: reference first, then each model's outline.

    With several seeds an image is chosen by the mean over them; outline and Dice are those of the first one.

    Parameters
    ----------
    indexes
        Where the images are looked up, beside the index of the evaluation and those of the run.
    """
    if not outcomes:
        return None
    test = outcomes[0].test
    shown = [o for o in outcomes if o.test == test][-6:]
    tables = [o.by_image() for o in shown]
    common = [key for key in tables[0] if all(key in t for t in tables)]
    keys = sorted(common, key=lambda key: float(np.mean([t[key] for t in tables])))[:_WORST]
    models = [RunModel(o.runs[0].parents[1]) for o in shown]
    drawn = [o.evaluations[0].by_image("dice") for o in shown]
    own = models[0].config.data
    known = [*shown[0].indexes, *indexes, *(expand(source.index) for source in (*own.train, *own.val))]
    rows = _rows_of(known, set(keys))
    grid = []
    for key in keys:
        row = rows.get(key)
        if row is None:
            continue
        pixels, reference = load_image(open_image(row)).pixels, load_mask(open_mask(row))
        line = [_panel(pixels, reference, ("reference",))]
        for model, outcome, table in zip(models, shown, drawn, strict=True):
            mask = upsample(model.probability(pixels), reference.shape) >= THRESHOLD
            seed = f", seed {model.config.seed}" if len(outcome.runs) > 1 else ""
            line.append(_panel(pixels, mask, (outcome.label[:26], f"Dice {table[key]:.2f}{seed}")))
        grid.append(np.concatenate(line, axis=1))
    if not grid:
        return None
    atomic_write(path, encode_jpeg(np.concatenate(grid, axis=0), 88))
    return path


def _rows_of(indexes: Sequence[Path], wanted: set[Key]) -> dict[Key, IndexRow]:
    """Rows of the images, from the first index that has each; an index that is gone has none."""
    found: dict[Key, IndexRow] = {}
    for index in dict.fromkeys(path for path in indexes if path.exists()):
        for row in read_index(index):
            if row.key in wanted:
                found.setdefault(row.key, row)
    return found


def _panel(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], legend: tuple[str, ...]) -> NDArray[np.uint8]:
    h, w = pixels.shape[:2]
    scale = _SIDE / max(h, w)
    height, width = max(1, round(h * scale)), max(1, round(w * scale))
    canvas = np.full((height + _GAP, _SIDE, 3), 245, np.uint8)
    canvas[:height, :width] = draw_overlay(
        stretch(pixels, height, width), resize_mask(mask, (height, width)), legend=legend
    )
    return canvas
