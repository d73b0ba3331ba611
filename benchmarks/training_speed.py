"""Whether the device ever waits: images/s of training over images/s of the same step on a batch in memory.

The step is the real one (forward, loss, backward, clipping, optimizer, moving average), fed by the real
loader from a cache of synthetic images. Both are timed in turns, so that the drift of a shared machine falls
on both. The goal is a ratio of 0.95 on a GPU and 0.9 on two CPU cores. On a GPU the table also says which
share of the card's bf16 peak the network reaches; the peak is that of a product of two large matrices.

    python benchmarks/training_speed.py [--config configs/unet.yaml ...] [--quick]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from common import RESULTS, ROOT, describe, one_line, save
from dermseg.data.index import IndexRow, write_index
from dermseg.data.synthetic import synthesize
from dermseg.images.masks import save_mask
from dermseg.training.config import RunConfig, load_config
from dermseg.training.loop import Trainer

_SETTLE = 3  # steps before the clock starts: the loader has filled its queue by then
_MATRIX = 8192


def write_data(folder: Path, n: int, side: int) -> Path:
    """Synthetic images, masks and their index, all for training but one; returns the index."""
    import cv2

    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(n + 1):
        image, mask, _ = synthesize(i, (side, side))
        cv2.imwrite(str(folder / f"images/{i}.png"), image[..., ::-1])
        save_mask(mask, folder / f"masks/{i}.png")
        rows.append(
            IndexRow(
                image_id=str(i),
                image=f"images/{i}.png",
                masks=(f"masks/{i}.png",),
                dataset="synthetic",
                split="train" if i < n else "val",
                width=side,
                height=side,
                root=folder,
            )
        )
    write_index(rows, folder / "index.csv")
    return folder / "index.csv"


def make_trainer(config: RunConfig, folder: Path, index: Path, steps: int, batch: int | None) -> Trainer:
    """A trainer of this configuration on the synthetic images, without its phases."""
    batch = batch or config.training.batch_size
    # no epoch ends while the clock runs
    source = {"index": str(index), "per_epoch": 100 * batch * (steps + _SETTLE)}
    raw = config.model_dump()
    raw["data"] |= {
        "train": [source],
        "val": [{"index": str(index), "split": "val"}],
        "cache_dir": str(folder / "cache"),
    }
    raw["training"] |= {"phases": [], "batch_size": batch}
    if "pretrained" in raw["model"]["options"]:
        raw["model"]["options"]["pretrained"] = False  # other weights take the same time
    run = Path(tempfile.mkdtemp(dir=folder))
    trainer = Trainer(RunConfig.model_validate(raw), run, quiet=True)
    trainer.model.train()
    return trainer


def one_step(trainer: Trainer, batch: tuple[Tensor, Tensor]) -> None:
    """What the loop does with a batch."""
    trainer.step([batch])
    if trainer.average:
        trainer.average.update(1000)


def timed(trainer: Trainer, batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> float:
    """Images/s over some steps."""
    images = 0
    for _ in range(_SETTLE):
        one_step(trainer, next(batches))
    _wait(trainer)
    start = time.perf_counter()
    for _ in range(steps):
        batch = next(batches)
        images += len(batch[0])
        one_step(trainer, batch)
    _wait(trainer)
    return images / (time.perf_counter() - start)


def _wait(trainer: Trainer) -> None:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)


def measure(trainer: Trainer, steps: int, rounds: int) -> dict[str, Any]:
    """Images/s from memory and from the loader, in turns; the median of the ratios of neighbours."""
    first = next(iter(trainer.batches(0)))
    stored = (first[0].to(trainer.device), first[1].to(trainer.device))
    memory, loader = [], []
    for lap in range(rounds):
        memory.append(timed(trainer, _repeat(stored), steps))
        loader.append(timed(trainer, iter(trainer.batches(lap)), steps))
    ratios = [a / b for a, b in zip(loader, memory, strict=True)]
    return {
        "architecture": trainer.config.model.architecture,
        "image_size": trainer.config.training.image_size,
        "batch_size": trainer.config.training.batch_size,
        "precision": str(trainer.step.autocast_dtype or torch.float32).removeprefix("torch."),
        "loader_threads": trainer.workers,
        "images_per_second_memory": round(median(memory), 2),
        "images_per_second_training": round(median(loader), 2),
        "ratio": round(median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "gflop_per_image": round(_flop(trainer, stored) / len(stored[0]) / 1e9, 1),
    }


def _repeat(batch: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield batch


def _flop(trainer: Trainer, batch: tuple[Tensor, Tensor]) -> int:
    """Floating-point operations of one step."""
    # the way back is counted as twice the way there: torch counts that of grouped convolutions as if dense
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trainer.model(trainer.step.normalize(batch[0][:1]))
    return 3 * int(counter.get_total_flops()) * len(batch[0])


def bf16_peak(device: torch.device) -> float:
    """Operations per second of a large matrix product."""
    a, b = (torch.randn(_MATRIX, _MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(50):
        a @ b
    torch.cuda.synchronize(device)
    return 50 * 2 * _MATRIX**3 / (time.perf_counter() - start)


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=Path, nargs="+", help="default: default-start.yaml, on a GPU unet.yaml too"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in dermseg train")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None, help="per round; default 100 on a GPU, else 8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of two steps: a check, not a figure")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "training_speed.json")
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    # two CPU cores take five seconds for an image of the full U-Net
    names = ("default-start", "unet") if cuda else ("default-start",)
    configs = args.config or [ROOT / "configs" / f"{name}.yaml" for name in names]
    steps, rounds = args.steps or (100 if cuda else 8), args.rounds
    if args.quick:
        steps, rounds = 2, 1
    goal = 0.95 if cuda else 0.9
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = write_data(folder / "data", 8 if args.quick else 64, 256)
        for path in configs:
            config = load_config(path, args.set)
            trainer = make_trainer(config, folder, index, steps, args.batch_size)
            results[path.stem] = measure(trainer, steps, rounds)
            print(f"{path.stem}: {results[path.stem]}", file=sys.stderr, flush=True)
    peak = bf16_peak(torch.device("cuda")) if cuda else None
    for entry in results.values():
        per_second = entry["gflop_per_image"] * 1e9 * entry["images_per_second_training"]
        entry["share_of_bf16_peak"] = None if peak is None else round(per_second / peak, 3)
    about = describe()
    device = torch.cuda.get_device_name(0) if cuda else "cpu"
    reached = all(entry["ratio"] >= goal for entry in results.values())
    save(
        {
            **about,
            "device": device,
            "goal": goal,
            "reached": reached,
            "bf16_peak_tflops": None if peak is None else round(peak / 1e12, 1),
            "configs": results,
        },
        args.output,
    )
    print("| configuration | px | batch | precision | images/s in memory | images/s in training | ratio "
          "| of the bf16 peak |")  # fmt: skip
    print("|---|---:|---:|---|---:|---:|---:|---:|")
    for key, e in results.items():
        share = "-" if e["share_of_bf16_peak"] is None else f"{100 * e['share_of_bf16_peak']:.0f} %"
        print(
            f"| {key} | {e['image_size']} | {e['batch_size']} | {e['precision']} "
            f"| {e['images_per_second_memory']:.1f} | {e['images_per_second_training']:.1f} "
            f"| {e['ratio']:.3f} | {share} |"
        )
    print(f"\n{device}; {one_line(about)}")


if __name__ == "__main__":
    main()
