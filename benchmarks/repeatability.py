"""How far measurements of one lesion differ between photographs: what a change must exceed to mean anything.

Real photographs are "taken again" by computer: 0.85 to 1.18 times the distance, any turn, other light,
colours and noise, the lesion up to 4 % off the middle; the scale is known exactly. In half of them the lesion
has grown by 10 % or 30 % of its area (the picture is stretched around its centre, fading out to the skin).
What is compared is what the model measures in the first and in the second. Lesions that reach the edge of
either picture, or fill more than 35 % of the first, are left out. Pressure, angle, focus and another camera
are not in it: real photographs differ more.

    DERMSEG_RUNS=... python benchmarks/repeatability.py [--limit N]

Reads the calibration images of ``$DERMSEG_RUNS/index/isic.csv`` and ``ham.csv``, which ``make_model.py``
makes; writes ``results/repeatability.json`` and the table in ``docs/measuring.md``.
"""

from __future__ import annotations

import argparse
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from common import RESULTS, ROOT, describe, indexes, runs_folder, save, write_section
from dermseg.data.index import open_image, read_index
from dermseg.images.load import load_image
from dermseg.inference.predictor import Model, load_model
from dermseg.measure.geometry import Reading, measure_mask

Pixels = NDArray[np.uint8]
GROWTHS = (1.0, 1.1, 1.3)  # of the area
MEASURES = ("area_mm2", "feret_max_mm", "equivalent_diameter_mm", "perimeter_mm")


def retake(pixels: Pixels, rng: np.random.Generator) -> tuple[Pixels, float]:
    """Another photograph of what is in this one, and how many of its pixels one of these has become."""
    height, width = pixels.shape[:2]
    scale = float(rng.uniform(0.85, 1.18))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-180, 180), scale)
    matrix[:, 2] += rng.uniform(-0.04, 0.04, 2) * min(height, width)
    moved = cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT) / 255.0
    lit = moved ** rng.uniform(0.85, 1.18) * rng.uniform(0.95, 1.05, 3) * rng.uniform(0.9, 1.08)
    return np.clip(255 * lit + rng.normal(0, 2, lit.shape), 0, 255).astype(np.uint8), scale


def grow(pixels: Pixels, center: tuple[float, float], radius: float, factor: float) -> Pixels:
    """Stretch everything within ``radius`` of ``center`` to ``factor`` times its area; far skin stays."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float32)
    dx, dy = x - center[0], y - center[1]
    before = np.linspace(0, 4 * radius, 4000)
    stretch = np.interp(before / radius, [1.1, 2.4], [factor**0.5, 1])
    distance = np.hypot(dx, dy) + 1e-6
    share = np.where(
        distance < 4 * radius, np.interp(distance, before * stretch, before) / distance, 1
    ).astype(np.float32)
    return cv2.remap(
        pixels,
        center[0] + dx * share,
        center[1] + dy * share,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


def read(model: Model, pixels: Pixels, scale: float) -> tuple[Reading, bool]:
    """Measurements in a unit that both photographs share, and whether the verdict is ``accept``."""
    result = model.segment(np.ascontiguousarray(pixels))
    accepted = result.verdict is not None and result.verdict.level == "accept"
    return measure_mask(result.mask, (1 / scale, 1 / scale)), accepted


def summarize(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Quantiles of the relative change of each measure."""
    found: dict[str, Any] = {"pairs": len(pairs)}
    for name in MEASURES:
        change = np.array([pair[name] for pair in pairs]) - 1
        found[name] = {
            "median": round(float(np.median(change)), 4),
            "p05": round(float(np.quantile(change, 0.05)), 4),
            "p95": round(float(np.quantile(change, 0.95)), 4),
            "p90_absolute": round(float(np.quantile(np.abs(change), 0.9)), 4),
        }
    return found


def main() -> None:
    """Measure, and write the result and its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=int, help="only so many images of each data set")
    args = parser.parse_args()
    places = indexes(runs_folder(), "isic", "ham")
    model, rng = load_model(), np.random.default_rng(7)
    pairs: list[dict[str, Any]] = []
    for place in places:
        rows = [row for row in read_index(place) if row.split == "calib"][: args.limit]
        for row in rows:
            pixels = load_image(open_image(row)).pixels
            first, sure = read(model, pixels, 1.0)
            if first.centroid is None or first.touches_border or first.area_fraction > 0.35:
                continue
            for growth in GROWTHS:
                grown = grow(pixels, first.centroid, first.feret_max_px / 2, growth)
                second, sure_too = read(model, *retake(grown, rng))
                if not second.touches_border and second.area_px:
                    ratios = {m: getattr(second, m) / getattr(first, m) for m in MEASURES}
                    pairs.append({"growth": growth, "accepted": sure and sure_too, **ratios})
    groups = {
        which: {
            f"{growth:g}": summarize([p for p in pairs if p["growth"] == growth and (p["accepted"] or every)])
            for growth in GROWTHS
        }
        for which, every in (("accepted", False), ("all", True))
    }
    save(
        {**describe(), "model": f"{model.card.name} {model.card.version}", **groups},
        RESULTS / "repeatability.json",
    )
    write_section(ROOT / "docs" / "measuring.md", "repeatability", table(groups))


def table(groups: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| the lesion | verdicts | pairs | area: median (5 % to 95 %) | 9 of 10 areas within "
        "| 9 of 10 largest diameters within |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for growth in GROWTHS:
        for which, words in (("accepted", "both accept"), ("all", "any")):
            found = groups[which][f"{growth:g}"]
            area, diameter = found["area_mm2"], found["feret_max_mm"]
            grown = "is the same" if growth == 1 else f"has grown by {100 * (growth - 1):.0f} %"
            within = [f"{100 * one['p90_absolute']:.1f} %" if growth == 1 else "" for one in (area, diameter)]
            lines.append(
                f"| {grown} | {words} | {found['pairs']} "
                f"| {100 * area['median']:+.1f} % ({100 * area['p05']:+.1f} to {100 * area['p95']:+.1f} %) "
                f"| {' | '.join(within)} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
