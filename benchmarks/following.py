"""How well a lesion is followed from one photograph to the next, on real photographs of the same lesions.

HAM10000 holds several photographs of many lesions, with another distance, turn, light or camera; that the
lesion has the same size in all of them is an assumption, and what has changed in truth counts as an error.
One pair of each lesion of the test split, no millimetres: the scale comes from the skin around the lesion.
Then the lesion of the second photograph is enlarged by computer, the skin beyond its rim staying where it is,
or darkened, and at last each photograph is compared with one of another lesion.

    DERMSEG_RUNS=... python benchmarks/following.py [--model NAME] [--limit N]
    DERMSEG_RUNS=... python benchmarks/following.py --fit BUNDLE

Reads ``$DERMSEG_RUNS/index/ham.csv``, which ``make_model.py`` makes. The first writes
``results/following.json`` and the table in ``docs/measuring.md``; the second fits the limits of a bundle on
``calib`` and ``val``.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from common import RESULTS, ROOT, describe, indexes, one_line, runs_folder, save, write_section
from dermseg.data.index import IndexRow, open_image, read_index
from dermseg.export.fit_repeatability import fit_bundle_repeatability
from dermseg.images.load import load_image
from dermseg.images.overlay import encode_png
from dermseg.images.sources import as_source
from dermseg.inference.following import Photograph, Visit, compare, look
from dermseg.inference.predictor import Model, load_model
from dermseg.measure.align import align

GROWTHS = (1.2, 1.5)  # of the area
DARKER = (5, 10)  # by so much L*
_RIM = 1.35  # radii of the lesion beyond which nothing is moved


def grow(
    pixels: NDArray[np.uint8], center: tuple[float, float], radius: float, factor: float
) -> NDArray[np.uint8]:
    """Stretch what is within ``radius`` of ``center`` to ``factor`` times its area; its rim gives way."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float32)
    dx, dy = x - center[0], y - center[1]
    before = np.linspace(0, 4 * radius, 4000)
    after = before * np.interp(before / radius, [1.0, _RIM], [factor**0.5, 1])
    distance = np.hypot(dx, dy) + 1e-6
    share = np.where(distance < 4 * radius, np.interp(distance, after, before) / distance, 1)
    dx, dy = dx * share.astype(np.float32), dy * share.astype(np.float32)
    moved = cv2.remap(pixels, center[0] + dx, center[1] + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8)


def find_pairs(rows: list[IndexRow]) -> list[tuple[IndexRow, IndexRow]]:
    """The first two photographs of each lesion that has two."""
    lesions: dict[str, list[IndexRow]] = {}
    for row in rows:
        if row.lesion:
            lesions.setdefault(row.lesion, []).append(row)
    return [(group[0], group[1]) for group in lesions.values() if len(group) > 1]


def enlarged(model: Model, visit: Visit, factor: float, folder: Path) -> Visit:
    """The visit as it would be with a larger lesion."""
    assert visit.reading is not None and visit.reading.centroid is not None
    pixels = load_image(visit.photograph.image).pixels
    grown = grow(pixels, visit.reading.centroid, visit.reading.feret_max_px / 2, factor)
    file = folder / "grown.png"
    file.write_bytes(encode_png(grown))
    return look(model, replace(visit.photograph, image=as_source(file)))


def darkened(model: Model, visit: Visit, by: float, folder: Path) -> Visit:
    """The visit as it would be with a darker lesion; its rim fades as before."""
    assert visit.lesion is not None
    pixels = load_image(visit.photograph.image).pixels
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    height, width = lab.shape[:2]
    share = cv2.resize(visit.lesion.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    lab[..., 0] = np.maximum(0, lab[..., 0] - by * cv2.GaussianBlur(share, (0, 0), 0.01 * width))
    dark = 255 * np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1)
    file = folder / "dark.png"
    file.write_bytes(encode_png(np.rint(dark).astype(np.uint8)))
    return look(model, replace(visit.photograph, image=as_source(file)))


def main() -> None:
    """Measure, and write the result and its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--limit", type=int, help="only so many lesions")
    parser.add_argument("--fit", type=Path, metavar="BUNDLE", help="fit the limits of a bundle instead")
    args = parser.parse_args()
    (index,) = indexes(runs_folder(), "ham")
    if args.fit is not None:
        fit_bundle_repeatability(args.fit, [index], report=print)
        return
    model = load_model(args.model)
    known = model.repeatability
    rows = [row for row in read_index(index) if row.split == "test"]
    outcomes: dict[float, list[dict[str, Any]]] = {factor: [] for factor in (1.0, *GROWTHS)}
    contrasts: dict[int, list[dict[str, Any]]] = {by: [] for by in (0, *DARKER)}
    seen: list[Visit] = []
    edge = unusable = 0
    with tempfile.TemporaryDirectory() as folder:
        for pair in find_pairs(rows)[: args.limit]:
            first, second = (look(model, Photograph(open_image(row), row.lesion)) for row in pair)
            if not (first.usable and second.usable):
                unusable += 1
                continue
            seen.append(first)
            for by, stands in contrasts.items():
                later = darkened(model, second, by, Path(folder)) if by else second
                if later.usable and (one := compare(first, later, (0, 1), known, None).contrast):
                    both = first.verdict == later.verdict == "accept"
                    stands.append({"change": one.change, "exceeds": one.exceeds, "accepted": both})
            assert first.reading is not None and second.reading is not None
            if first.reading.touches_border or second.reading.touches_border:
                edge += 1
                continue
            for factor, found in outcomes.items():
                later = second if factor == 1 else enlarged(model, second, factor, Path(folder))
                if not later.usable:
                    continue
                assert first.marks is not None and later.marks is not None
                change = compare(first, later, (0, 1), known, align(first.marks, later.marks)).change
                both = first.verdict == later.verdict == "accept"
                found.append({"area": change.area, "exceeds": change.exceeds, "accepted": both})
    strangers = [align(a.marks, b.marks) for a, b in pairwise(seen) if a.marks and b.marks]
    groups = {
        which: {
            f"{factor:g}": summarize([one for one in found if one["accepted"] or every])
            for factor, found in outcomes.items()
        }
        for which, every in (("accepted", False), ("all", True))
    }
    result = {
        **describe(),
        "model": f"{model.card.name} {model.card.version}",
        "limits": None if known is None else known.model_dump(include={"accepted", "others", "all"}),
        "lesions": {"edge": edge, "not_measured": unusable, "compared": len(outcomes[1.0])},
        **groups,
        "contrast": {
            which: {
                str(by): summarize_contrast([one for one in stands if one["accepted"] or every])
                for by, stands in contrasts.items()
            }
            for which, every in (("accepted", False), ("all", True))
        },
        "other_lesions": {"pairs": len(strangers), "aligned": sum(one is not None for one in strangers)},
    }
    if args.limit is None and args.model == "default":
        save(result, RESULTS / "following.json")
        write_section(ROOT / "docs" / "measuring.md", "following", table(result))
    print(table(result))


def summarize(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How many have a scale, how the areas differ, and how many differ by more than the limit."""
    areas = np.array([one["area"] for one in found if one["area"] is not None])
    return {"pairs": len(found), "with_scale": len(areas), **spread(areas), **beyond(found)}


def summarize_contrast(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How the contrasts differ, and how many by more than the limit."""
    return {"pairs": len(found), **spread(np.array([one["change"] for one in found])), **beyond(found)}


def spread(values: NDArray[np.float64]) -> dict[str, float]:
    """Median and the ends of nine tenths."""
    quantiles = (("median", 0.5), ("p05", 0.05), ("p95", 0.95))
    return {name: round(float(np.quantile(values, q)), 4) for name, q in quantiles}


def beyond(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How many differ by more than the limit, and their share of those with a limit, with Wilson's interval.

    The share of all pairs is smaller: where no scale is known, nothing is seen.
    """
    exceeds = [one["exceeds"] for one in found if one["exceeds"] is not None]
    if not exceeds:
        return {"beyond": 0, "exceeds": None, "exceeds_ci95": None}
    interval = binomtest(sum(exceeds), len(exceeds)).proportion_ci(method="wilson")
    return {
        "beyond": sum(exceeds),
        "exceeds": round(sum(exceeds) / len(exceeds), 4),
        "exceeds_ci95": [round(float(interval.low), 4), round(float(interval.high), 4)],
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "| the lesion | verdicts | pairs | with a scale | area: median (5 % to 95 %) "
        "| beyond the limit, of those with a scale (95 % interval) | of all pairs |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for factor in (1.0, *GROWTHS):
        for which, words in (("accepted", "both accept"), ("all", "any")):
            found = result[which][f"{factor:g}"]
            grown = "is the same" if factor == 1 else f"has grown by {100 * (factor - 1):.0f} %"
            low, high = found["exceeds_ci95"] or (0, 0)
            lines.append(
                f"| {grown} | {words} | {found['pairs']} | {found['with_scale']} "
                f"| {100 * found['median']:+.1f} % ({100 * found['p05']:+.1f} to "
                f"{100 * found['p95']:+.1f} %) "
                f"| {100 * (found['exceeds'] or 0):.0f} % ({100 * low:.0f} to {100 * high:.0f} %) "
                f"| {found['beyond']} ({100 * found['beyond'] / found['pairs']:.0f} %) |"
            )
    lines += [
        "",
        "| the lesion | verdicts | pairs | contrast, ΔE: median (5 % to 95 %) "
        "| beyond the limit (95 % interval) |",
        "|---|---|---:|---:|---:|",
    ]
    for by in (0, *DARKER):
        for which, words in (("accepted", "both accept"), ("all", "any")):
            found = result["contrast"][which][str(by)]
            low, high = found["exceeds_ci95"] or (0, 0)
            lines.append(
                f"| {f'is darker by {by} L*' if by else 'is the same'} | {words} | {found['pairs']} "
                f"| {found['median']:+.1f} ({found['p05']:+.1f} to {found['p95']:+.1f}) "
                f"| {100 * (found['exceeds'] or 0):.0f} % ({100 * low:.0f} to {100 * high:.0f} %) |"
            )
    others, lesions = result["other_lesions"], result["lesions"]
    lines += [
        "",
        f"HAM10000's test split at 256 px, one pair of each lesion; left out are {lesions['edge']} pairs in "
        f"which a lesion reaches the edge and {lesions['not_measured']} with a photograph that is rejected "
        f"or shows none. Of {others['pairs']} pairs of different lesions {others['aligned']} were laid on "
        f"each other. Model {result['model']}; {one_line(result)}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
