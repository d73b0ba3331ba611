"""What the input gate of a bundle lets through: real test images, close-ups, and pictures of other things.

    python benchmarks/gate.py [--bundle DIR] [--pictures DIR] [--sheets DIR] [--limit N]

Writes ``benchmarks/results/gate.json``: for every set the verdicts with their reasons, the area under the ROC
curve of strangeness (real dermoscopic test images against pictures) with 95 % intervals, and what the gate
costs. ``--pictures`` is the folder of wallpapers that ``gate_pictures.py`` describes; ``--sheets`` gets
contact sheets of the images that were rejected or put up for review. No outline is compared with a reference.

``--split val --limit 10 --output FILE`` tries it out without looking at the test splits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import gate_pictures
from common import RESULTS, describe, indexes, runs_folder, save
from dermseg.data.closeups import close_up
from dermseg.data.index import open_image, open_mask, read_index
from dermseg.data.synthetic import synthesize
from dermseg.evaluation.statistics import wilson_interval
from dermseg.images.find import find_images
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.images.roles import tell_apart
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.result import Result
from dermseg.quality.verdict import LEVELS

Pixels = NDArray[np.uint8]
REAL = ("ISIC 2018", "HAM10000")  # what the pictures are told from
PICTURES = ("photographs", "pages", "textures")
TILE, COLUMNS = 150, 10
RESAMPLES = 2000
PROTOCOL = (
    "Strangeness (squared Mahalanobis distance of the network's pooled features) of real dermoscopic "
    "images against that of photographs, pages and textures, none used for fitting; AUROC with a "
    "bootstrap interval over both sets. Verdicts: shares of the images with Wilson intervals."
)


@dataclass
class Judged:
    """What the gate said about a set."""

    strangeness: list[float] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    tiles: list[Pixels] = field(default_factory=list)


def index_images(path: Path, split: str, limit: int | None) -> Iterator[tuple[str, Pixels]]:
    """Pixels of the images of a split, as the gate meets them."""
    rows = [row for row in read_index(path) if row.split == split]
    step = 1 if limit is None else max(1, -(-len(rows) // limit))
    for row in rows[::step]:
        yield row.image_id, load_image(open_image(row), min_side=512).pixels


def native_images(path: Path, limit: int | None) -> Iterator[tuple[str, Pixels]]:
    """Images of a zip, at the resolution of the archive."""
    images = tell_apart(find_images([path])).photographs
    for source in [image for image in images if "mask" not in image.name][:limit]:
        yield source.name, load_image(source, min_side=512).pixels


def close_ups(path: Path, split: str, limit: int | None) -> Iterator[tuple[str, Pixels]]:
    """Close-ups made from the images of a split."""
    rng = np.random.default_rng(9_000_000)
    rows = [row for row in read_index(path) if row.split == split]
    for row in rows[:limit]:
        image = load_image(open_image(row)).pixels
        yield row.image_id, close_up(rng, image, load_mask(open_mask(row)))


def judge(model: Model, images: Iterable[tuple[str, Pixels]]) -> Judged:
    """Send images through the model and keep what the gate says."""
    assert model.gate is not None
    out = Judged()
    for name, pixels in images:
        maps, features = model.look(model.prepare(pixels)[None])
        assert features is not None
        result = model.judge(model.finish(maps[0], pixels.shape[:2]), model.gate_view(pixels), features[0])
        out.strangeness.append(float(model.gate.familiar.strangeness(features)[0]))
        out.results.append(result)
        out.names.append(name)
        out.tiles.append(tile(pixels, result))
    return out


def together(parts: Iterable[Judged]) -> Judged:
    """Several sets as one, without their pictures."""
    out = Judged()
    for part in parts:
        out.strangeness += part.strangeness
        out.results += part.results
        out.names += part.names
    return out


def tile(pixels: Pixels, result: Result) -> Pixels:
    """A small square with the image and its outline."""
    scale = TILE / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:TILE, :TILE]
    mask = cv2.resize(result.mask.view(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(small, lines, -1, (0, 255, 0), 1)
    out = np.full((TILE + 14, TILE, 3), 255, np.uint8)
    out[: small.shape[0], : small.shape[1]] = small
    checks = (
        [finding.check for finding in result.verdict.findings if finding.level != "accept"]
        if result.verdict
        else []
    )
    cv2.putText(out, " ".join(checks)[:26], (1, TILE + 10), cv2.FONT_HERSHEY_PLAIN, 0.7, (0, 0, 0))
    return out


def summarise(judged: Judged) -> dict[str, Any]:
    """Shares of the verdicts with Wilson intervals, and how often each check spoke, by level."""
    n = len(judged.results)
    verdicts = [result.verdict for result in judged.results if result.verdict is not None]
    summary: dict[str, Any] = {"n": n}
    for level in LEVELS:
        hits = sum(verdict.level == level for verdict in verdicts)
        summary[level] = {
            "share": round(hits / n, 4),
            "ci95": [round(v, 4) for v in wilson_interval(hits, n)],
        }
    for level in LEVELS[::-1]:
        spoke = Counter(f.check for verdict in verdicts for f in verdict.findings if f.level == level)
        summary[f"{level}_reasons"] = dict(spoke.most_common())
    summary["strangeness"] = {
        str(q): round(float(np.quantile(judged.strangeness, q)), 3) for q in (0.05, 0.5, 0.95, 1.0)
    }
    summary["rejected"] = [
        name for name, verdict in zip(judged.names, verdicts, strict=True) if verdict.level == "reject"
    ][:40]
    return summary


def auroc(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Chance that one of ``high`` is above one of ``low``; ties count half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / 2 / len(low))


def separation(low: list[float], high: list[float]) -> dict[str, Any]:
    """The area under the ROC curve with a bootstrap interval over both sets."""
    rng = np.random.default_rng(0)
    a, b = np.array(low), np.array(high)
    drawn = [auroc(rng.choice(a, len(a)), rng.choice(b, len(b))) for _ in range(RESAMPLES)]
    return {
        "real": len(a),
        "pictures": len(b),
        "auroc": round(auroc(a, b), 5),
        "ci95": [round(float(v), 5) for v in np.quantile(drawn, (0.025, 0.975))],
    }


def cost(model: Model, rounds: int = 30) -> dict[str, float]:
    """Median CPU milliseconds of the gate on one image, by the size of what was decoded; one thread."""
    assert model.gate is not None
    found = {}
    for side in (256, 1072):
        pixels, _, _ = synthesize(1, (side * 3 // 4, side))
        maps, features = model.look(model.prepare(pixels)[None])
        result = model.finish(maps[0], pixels.shape[:2])
        times = []
        for _ in range(rounds):
            start = time.process_time()
            model.judge(result, model.gate_view(pixels), None if features is None else features[0])
            times.append(1000 * (time.process_time() - start))
        found[f"{side}_px_ms"] = round(statistics.median(times), 3)
    return found


def write_sheet(judged: Judged, level: str, path: Path) -> None:
    """Contact sheet of the images with this verdict; nothing where there is none."""
    tiles = [
        t
        for t, r in zip(judged.tiles, judged.results, strict=True)
        if r.verdict is not None and r.verdict.level == level
    ][: COLUMNS * 12]
    if not tiles:
        return
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.vstack(rows)[..., ::-1])[1].tobytes())


def main() -> None:
    """Judge every set and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--runs", type=Path, default=runs_folder())
    parser.add_argument("--data", type=Path, default=os.environ.get("DERMSEG_DATA"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="images of each set")
    parser.add_argument("--output", type=Path, default=RESULTS / "gate.json")
    args = parser.parse_args()
    indexes(args.runs, "isic", "ham", "ph2", "crop512")
    model = load_model(args.bundle, threads=1)
    cv2.setNumThreads(1)
    index = args.runs / "index"
    sets: dict[str, Iterable[tuple[str, Pixels]]] = {
        "ISIC 2018": index_images(index / "isic.csv", args.split, args.limit),
        "HAM10000": index_images(index / "ham.csv", args.split, args.limit),
        "PH2": index_images(index / "ph2.csv", args.split, args.limit),
        "ISIC crops 512 px": index_images(index / "crop512.csv", args.split, args.limit),
        "close-ups made from ISIC 2018": close_ups(index / "isic.csv", args.split, args.limit),
        **{name: _limited(made, args.limit) for name, made in _pictures(args.pictures).items()},
    }
    if args.data is not None:
        sets["ISIC native"] = native_images(Path(args.data) / "ISIC_native_resolution.zip", args.limit)
    judged: dict[str, Judged] = {}
    for name, images in sets.items():
        found = judge(model, images)
        if not found.results:  # PH2 has a test split only
            continue
        judged[name] = found
        summary = summarise(judged[name])
        print(
            f"{name}: n {summary['n']}, " + ", ".join(f"{k} {summary[k]['share']:.1%}" for k in LEVELS),
            flush=True,
        )
        if args.sheets:
            for level in LEVELS[1:]:
                write_sheet(judged[name], level, args.sheets / f"{name.replace(' ', '-')}-{level}.png")
    real = [value for name in REAL for value in judged[name].strangeness]
    pictures = [value for name in PICTURES for value in judged[name].strangeness]
    apart = separation(real, pictures)
    both = summarise(together(judged[name] for name in REAL))
    result = {
        **describe(),
        "split": args.split,
        "protocol": PROTOCOL,
        "acceptance": [
            {"figure": "separation.all.auroc", "target": ">= 0.97", "met": apart["auroc"] >= 0.97},
            {"figure": "pictures", "target": ">= 200", "met": apart["pictures"] >= 200},
            {"figure": "real_rejected", "target": "<= 0.03", "met": both["reject"]["share"] <= 0.03},
        ],
        "model": {"name": model.card.name, "version": model.card.version, "sha256": model.sha256},
        "separation": {
            "all": apart,
            **{name: separation(judged[name].strangeness, pictures) for name in REAL},
        },
        "sets": {name: summarise(found) for name, found in judged.items()},
        "real_rejected": both["reject"],
        "pictures_rejected": summarise(together(judged[name] for name in PICTURES)),
        "cost": cost(model),
    }
    save(result, args.output)
    print(result["separation"]["all"], result["cost"])


def _pictures(folder: Path | None) -> dict[str, Iterable[tuple[str, Pixels]]]:
    made = (gate_pictures.photographs(folder), gate_pictures.pages(), gate_pictures.textures())
    return {
        name: ((picture, pixels) for _, picture, pixels in source)
        for name, source in zip(PICTURES, made, strict=True)
    }


def _limited(images: Iterable[tuple[str, Pixels]], limit: int | None) -> Iterator[tuple[str, Pixels]]:
    for i, item in enumerate(images):
        if limit is not None and i >= limit:
            return
        yield item


if __name__ == "__main__":
    main()
