"""Which measures of shape and colour hold: between the model and people, and between two photographs.

Three comparisons, each as the intraclass correlation ICC(1,1) (Shrout and Fleiss 1979, doi
10.1037/0033-2909.86.2.420): 1 where both readings of every lesion agree, 0 where they differ as much as those
of different lesions.

- model and person: outlines of the test images of ISIC 2018 and HAM10000, the same photograph;
- two photographs: the first two of each lesion of HAM10000's test split, outlines of the model. Distance,
  turn, light and camera differ;
- the 20 images of PH2, for which experts have said whether the lesion is symmetric (0), asymmetric about one
  axis (1) or two (2): rank correlation. They looked at colours and structures too.

Lesions that reach the edge of an image are left out.

    DERMSEG_RUNS=... python benchmarks/readings.py [--limit N]

Reads ``$DERMSEG_RUNS/index/isic.csv``, ``ham.csv`` and ``ph2.csv``, which ``make_model.py`` makes, and the
table of PH2 below ``$DERMSEG_DATA``; writes ``results/readings.json`` and the table in ``docs/measuring.md``.
"""

from __future__ import annotations

import argparse
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f, spearmanr

from common import (
    RESULTS,
    ROOT,
    data_folder,
    describe,
    indexes,
    one_line,
    runs_folder,
    save,
    write_section,
)
from dermseg.data.index import IndexRow, open_image, open_mask, read_index
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.inference.predictor import Model, load_model
from dermseg.measure.colour import Colour, describe_colour
from dermseg.measure.geometry import measure_mask
from following import find_pairs

SHAPE = ("circularity", "solidity", "asymmetry", "asymmetry_across")
COLOURS = tuple(field.name for field in fields(Colour))
MEASURES = (*SHAPE, *COLOURS)
PH2_TABLE = "PH2Dataset_20.zip", "PH2Dataset/PH2_dataset.txt"
Values = dict[str, float | None]
Outlines = tuple[Values | None, Values | None]


def read(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Values | None:
    """All measures of one outline; None where there is none or it reaches the edge."""
    reading = measure_mask(mask)
    if not reading.area_px or reading.touches_border:
        return None
    colour = describe_colour(pixels, mask)
    known = dict.fromkeys(COLOURS) if colour is None else colour.as_dict()
    return {name: getattr(reading, name) for name in SHAPE} | known


def both_outlines(model: Model, row: IndexRow) -> Outlines:
    """Measures of a person's outline and of the model's."""
    pixels = load_image(open_image(row)).pixels
    reference = load_mask(open_mask(row), size=pixels.shape[:2])
    return read(pixels, reference), read(pixels, model.segment(pixels).mask)


def agreement(pairs: Sequence[Outlines]) -> dict[str, Any]:
    """ICC(1,1) of each measure with its 95 % interval, and from where to where 90 % of the lesions lie."""
    whole = [(a, b) for a, b in pairs if a is not None and b is not None]
    found: dict[str, Any] = {"lesions": len(whole)}
    for name in MEASURES:
        values = np.array(
            [(a[name], b[name]) for a, b in whole if a[name] is not None and b[name] is not None], float
        )
        n = len(values)
        between = 2 * float(values.mean(axis=1).var(ddof=1))
        within = float(((values[:, 0] - values[:, 1]) ** 2).mean() / 2)
        ratio = between / within
        low, high = ratio / f.ppf(0.975, n - 1, n), ratio * f.ppf(0.975, n, n - 1)
        found[name] = {
            "icc": round((ratio - 1) / (ratio + 1), 3),
            "interval": [round((bound - 1) / (bound + 1), 3) for bound in (low, high)],
            "lesions": n,
            "p05": round(float(np.quantile(values, 0.05)), 3),
            "p95": round(float(np.quantile(values, 0.95)), 3),
        }
    return found


def experts(
    rows: Sequence[IndexRow], outlines: Sequence[tuple[Values | None, Values | None]]
) -> dict[str, Any]:
    """Rank correlation with what PH2's experts said, by people's outlines and the model's."""
    archive, member = PH2_TABLE
    with zipfile.ZipFile(data_folder() / archive) as opened:
        lines = opened.read(member).decode("latin-1").splitlines()
    said = {
        words[0]: int(words[2]) for words in map(str.split, lines) if words and words[0].startswith("IMD")
    }
    found: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    for side, which in ((0, "person"), (1, "model")):
        for name in ("asymmetry", "asymmetry_across", "colour_asymmetry"):
            values = [
                (said[row.image_id], outline[side][name])  # type: ignore[index]
                for row, outline in zip(rows, outlines, strict=True)
                if outline[side] is not None
            ]
            given, measured = np.array(values, float).T
            samples = [rng.integers(len(values), size=len(values)) for _ in range(2000)]
            ranks = [float(spearmanr(given[one], measured[one]).statistic) for one in samples]
            low, high = np.nanquantile(ranks, (0.025, 0.975))  # nan: all of one kind
            found[f"{name}, {which}"] = {
                "spearman": round(float(spearmanr(given, measured).statistic), 2),
                "interval": [round(float(low), 2), round(float(high), 2)],
                "images": len(values),
            }
    return found


def main() -> None:
    """Measure, and write the result and its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=int, help="only so many images of each; nothing is written")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of resamples in which all images have one value
    data_folder()  # read at the end, asked for now
    names = ("isic", "ham", "ph2")
    places, model = indexes(runs_folder(), *names), load_model()
    rows = {
        name: [row for row in read_index(place) if row.split == "test"][: args.limit]
        for name, place in zip(names, places, strict=True)
    }
    outlines = {name: [both_outlines(model, row) for row in found] for name, found in rows.items()}
    own = {row.image_id: pair[1] for row, pair in zip(rows["ham"], outlines["ham"], strict=True)}
    result = {
        **describe(),
        "model": f"{model.card.name} {model.card.version}",
        "isic": agreement(outlines["isic"]),
        "ham": agreement(outlines["ham"]),
        "photographs": agreement([(own[a.image_id], own[b.image_id]) for a, b in find_pairs(rows["ham"])]),
        "ph2": experts(rows["ph2"], outlines["ph2"]),
    }
    if args.limit is None:
        save(result, RESULTS / "readings.json")
        write_section(ROOT / "docs" / "measuring.md", "readings", table(result))
    print(table(result))


def table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| measure | 9 of 10 lesions | model and person, ISIC 2018 | model and person, HAM10000 "
        "| two photographs, HAM10000 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in MEASURES:
        cells = []
        for which in ("isic", "ham", "photographs"):
            one = result[which][name]
            cells.append(f"{one['icc']:.2f} ({one['interval'][0]:.2f} to {one['interval'][1]:.2f})")
        ham = result["ham"][name]
        digits = 2 if name in SHAPE else 0
        span = f"{ham['p05']:.{digits}f} to {ham['p95']:.{digits}f}"
        lines.append(f"| `{name}` | {span} | {' | '.join(cells)} |")
    counts = [result[which]["lesions"] for which in ("isic", "ham", "photographs")]
    lines += [
        "",
        "ICC(1,1) with 95 % intervals; test splits, lesions that do not reach the edge: "
        f"{counts[0]} and {counts[1]} images, {counts[2]} pairs of photographs. Model {result['model']}; "
        f"{one_line(dict(result))}.",
        "",
        "Rank correlation with what the experts of PH2 say of asymmetry: "
        + "; ".join(
            f"`{name.partition(',')[0]}` {one['spearman']:.2f} ({one['interval'][0]:.2f} to "
            f"{one['interval'][1]:.2f}, {one['images']} images)"
            for name, one in result["ph2"].items()
            if name.endswith("person")
        )
        + ", by people's outlines.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
