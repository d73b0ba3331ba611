"""What augmentation costs, and whether a training step ever waits for data.

Per image: the joint transform of image and mask from a 256 px cache to the training size, in one thread,
whole and without its drawn artefacts. Per step: images/s of the real training step (forward, backward,
optimizer) fed by the real loader, over the same step on a batch that is already in memory; 1 means that data
cost nothing. On a machine with two cores the loader's work comes out of the network's time. Both are timed in
turns, so that the drift of a shared machine falls on both.

    python benchmarks/augmentation.py [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from common import RESULTS, describe, one_line, save
from dermseg.data.augment import Augmentation
from dermseg.data.cache import Cache
from dermseg.data.index import IndexRow, write_index
from dermseg.data.synthetic import synthesize
from dermseg.images.masks import save_mask
from dermseg.inference.threads import available_cpus
from dermseg.training.batches import Batches
from dermseg.training.config import RunConfig
from dermseg.training.loop import Trainer

SIZES = {128: 32, 192: 16, 256: 16}  # image size: batch size, as in configs/default.yaml
CACHE_SIZE = 256
GOAL = 0.9
_SETTLE = 2  # steps before the clock starts: the loader has filled its queue by then
_NO_ARTEFACTS = {"hair": 0.0, "vignette": 0.0, "ruler": 0.0, "bubbles": 0.0, "blur": 0.0}


def write_data(folder: Path, n: int) -> Path:
    """Synthetic images, masks and their index, all for training but one; returns the index."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(n + 1):
        image, mask, _ = synthesize(i, (CACHE_SIZE, CACHE_SIZE))
        cv2.imwrite(str(folder / f"images/{i}.png"), image[..., ::-1])
        save_mask(mask, folder / f"masks/{i}.png")
        rows.append(
            IndexRow(
                image_id=str(i),
                image=f"images/{i}.png",
                masks=(f"masks/{i}.png",),
                dataset="synthetic",
                split="train" if i < n else "val",
                width=CACHE_SIZE,
                height=CACHE_SIZE,
                root=folder,
            )
        )
    write_index(rows, folder / "index.csv")
    return folder / "index.csv"


def make_trainer(folder: Path, index: Path) -> Trainer:
    """The trainer of the default network; ImageNet weights would not change its speed."""
    source = {"index": str(index)}
    config = RunConfig.model_validate(
        {
            "data": {
                "train": [source],
                "val": [{**source, "split": "val"}],
                "cache_dir": str(folder / "cache"),
                "cache_size": CACHE_SIZE,
            },
            "model": {"options": {"encoder": "efficientnet_lite0", "pretrained": False}},
            "training": {"device": "cpu", "threads": available_cpus()},
        }
    )
    (folder / "run").mkdir()
    trainer = Trainer(config, folder / "run", quiet=True)
    trainer.model.train()
    return trainer


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


def endless(trainer: Trainer, size: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the real loader, epoch after epoch, with what ``dermseg train`` would give it."""
    # more images per epoch than are timed, so that no epoch ends while the clock runs
    sources = [type(source)(source.cache, per_epoch=1000 * batch) for source in trainer.train_sources]
    return iter(
        Batches(
            sources,
            trainer.augmentation,
            seed=0,
            epoch=0,
            image_size=size,
            batch_size=batch,
            workers=trainer.config.data.decode_workers,
        )
    )


def step_rates(trainer: Trainer, size: int, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """Images/s from memory and from the loader, in turns; the median of the ratios of neighbours."""
    stored = next(endless(trainer, size, batch))
    memory, loader = [], []
    for _ in range(rounds):
        trainer._step(*stored)
        start = time.perf_counter()
        for _ in range(steps):
            trainer._step(*stored)
        memory.append(steps * batch / (time.perf_counter() - start))

        batches = endless(trainer, size, batch)
        for _ in range(_SETTLE):
            trainer._step(*next(batches))
        start = time.perf_counter()
        for _ in range(steps):
            trainer._step(*next(batches))
        loader.append(steps * batch / (time.perf_counter() - start))
        del batches
    return {
        "batch": batch,
        "images_per_second_memory": round(median(memory), 3),
        "images_per_second_loader": round(median(loader), 3),
        "ratio": round(median(a / b for a, b in zip(loader, memory, strict=True)), 4),
        "ratios": [round(a / b, 4) for a, b in zip(loader, memory, strict=True)],
    }


def measure(folder: Path, *, images: int, steps: int, rounds: int) -> dict[str, Any]:
    """Everything this benchmark reports, as plain values."""
    began = time.perf_counter()
    trainer = make_trainer(folder, write_data(folder / "data", images))
    cache = trainer.train_sources[0].cache
    sizes = {}
    for size, batch in SIZES.items():
        whole = cost_per_image(cache, trainer.augmentation, size, images)
        plain = cost_per_image(cache, Augmentation(**_NO_ARTEFACTS), size, images)  # type: ignore[arg-type]
        sizes[str(size)] = {
            "milliseconds_per_image": round(whole, 3),
            "milliseconds_without_artefacts_and_blur": round(plain, 3),
            **step_rates(trainer, size, batch, steps, rounds),
        }
    return {
        **describe(),
        "seconds": round(time.perf_counter() - began, 1),
        "network": "encoder_unet, efficientnet_lite0",
        "loader_workers": trainer.config.data.decode_workers,
        "goal": GOAL,
        "sizes": sizes,
        "reached": all(entry["ratio"] >= GOAL for entry in sizes.values()),
    }


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| px | batch | augmentation, ms per image (without artefacts) | images/s, batch in memory "
        "| images/s, loader | ratio |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for size, e in result["sizes"].items():
        lines.append(
            f"| {size} | {e['batch']} | {e['milliseconds_per_image']:.2f} "
            f"({e['milliseconds_without_artefacts_and_blur']:.2f}) | {e['images_per_second_memory']:.1f} "
            f"| {e['images_per_second_loader']:.1f} | {e['ratio']:.3f} |"
        )
    return "\n".join([*lines, "", f"{result['network']}; {one_line(result)}"])


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=8, help="steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of two steps: a check, not a figure")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "augmentation.json")
    args = parser.parse_args()
    size = {"images": 8, "steps": 2, "rounds": 1} if args.quick else {}
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), **{"images": 48, "steps": args.steps, "rounds": args.rounds, **size})
    save(result, args.output)
    print(table(result))


if __name__ == "__main__":
    main()
