"""What augmentation costs: milliseconds of one thread per image.

The joint transform of image and mask from a 256 px cache to the training size, whole and without its drawn
artefacts. Whether a training step ever waits for it is measured by ``training_speed.py``.

    python benchmarks/augmentation.py [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from common import RESULTS, describe, one_line, save
from dermseg.data.augment import Augmentation
from dermseg.data.cache import Cache, build_cache
from dermseg.data.index import read_index
from training_speed import write_data

SIZES = (128, 192, 256)
CACHE_SIZE = 256
_NO_ARTEFACTS = {"hair": 0.0, "vignette": 0.0, "ruler": 0.0, "bubbles": 0.0, "blur": 0.0}


def cost_per_image(cache: Cache, augmentation: Augmentation, size: int, n: int) -> float:
    """Milliseconds of one thread per image, median of five passes over ``n`` images."""
    passes = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    for lap in range(5):
        start = time.perf_counter()
        for i in range(n):
            k = i % len(cache)
            augmentation(np.random.default_rng([lap, i]), cache.images[k], cache.masks[k], size)
        passes.append(1000 * (time.perf_counter() - start) / n)
    cv2.setNumThreads(threads)
    return median(passes)


def measure(folder: Path, images: int) -> dict[str, Any]:
    """Everything this benchmark reports, as plain values."""
    began = time.perf_counter()
    index = write_data(folder / "data", images, CACHE_SIZE)
    cache = build_cache(read_index(index), CACHE_SIZE, folder / "cache")
    plain = Augmentation(**_NO_ARTEFACTS)  # type: ignore[arg-type]
    return {
        **describe(),
        "sizes": {
            str(size): {
                "milliseconds_per_image": round(cost_per_image(cache, Augmentation(), size, images), 3),
                "milliseconds_without_artefacts_and_blur": round(
                    cost_per_image(cache, plain, size, images), 3
                ),
            }
            for size in SIZES
        },
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| px | ms per image | ms without artefacts and blur |", "|---:|---:|---:|"]
    for size, e in result["sizes"].items():
        lines.append(
            f"| {size} | {e['milliseconds_per_image']:.2f} "
            f"| {e['milliseconds_without_artefacts_and_blur']:.2f} |"
        )
    return "\n".join([*lines, "", one_line(result)])


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 images: a check, not a figure")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "augmentation.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), 8 if args.quick else 48)
    save(result, args.output)
    print(table(result))


if __name__ == "__main__":
    main()
