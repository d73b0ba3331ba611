"""What 20 corrected images are worth: an ISIC-only model, fine-tuned on HAM10000, scored on HAM10000's test.

1. A network is trained on the train split of ISIC alone, as ``make model DATA=isic`` does
   (``--from RUN`` takes another one).
2. For each seed, 20 images of HAM10000's train split are drawn and the network is fine-tuned on them with
   ``configs/finetune.yaml``, the recipe of ``dermseg train --from``. No image chooses the checkpoint: the
   last weights count.
3. All are scored on HAM10000's test split at the masks' own size, threshold 0.5, no post-processing. The
   difference in Dice is paired by image: first the mean over seeds of each image, then its mean with the
   clustered interval (images of one lesion are one draw).

    DERMSEG_RUNS=... python benchmarks/finetune.py [--from RUN] [--images 20] [--seeds 5] [--limit N]

DERMSEG_RUNS names the folder of the indexes, which ``make_model.py`` makes. The training of 1 took 36
minutes, most of them on one core; a fine-tuning takes 1 to 2. Writes ``results/finetune.json``;
stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, ROOT, describe, indexes, one_line, runs_folder, save
from dermseg.data.index import IndexRow, read_index, write_index
from dermseg.evaluation.evaluate import select_split
from dermseg.evaluation.intervals import estimate
from dermseg.experiments.predict import RunModel
from dermseg.training.checkpoint import CONFIG
from dermseg.training.config import RunConfig, load_config
from dermseg.training.run import train
from dermseg.training.start import load_run

# Indexes of ISIC 2018 images: all, two selections, and the same photographs cut to squares (make_model.py).
ISIC = {"isic", "isic-slr", "isic-consensus", "crop512"}


def isic_model(runs: Path) -> Path:
    """The run folder of the network that has seen ISIC only; trained, or trained on, where it is not done."""
    run = runs / "run-isic"
    train(load_config(ROOT / "configs" / "isic.yaml"), run, resume=(run / CONFIG).exists())
    return run


def fine_tune(start: Path, rows: list[IndexRow], seed: int, folder: Path) -> tuple[Path, float]:
    """The run folder of a fine-tuning on ``rows``, and its seconds."""
    run = folder / "run"
    if (run / "done").exists():
        return run, float((run / "done").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.csv"
    write_index([replace(r, split="train").rebased(folder) for r in rows], index)
    config: RunConfig = load_run(
        ROOT / "configs" / "finetune.yaml",
        str(start),
        [
            f"seed={seed}",
            f"data.train.0.index={index}",
            f"data.val.0.index={index}",
            "data.val.0.split=train",
            f"data.cache_dir={folder / 'cache'}",
        ],
    )
    training = config.training.model_copy(update={"validate_every": config.training.epochs})
    begin = time.monotonic()
    train(config.model_copy(update={"training": training}), run, resume=(run / CONFIG).exists())
    seconds = time.monotonic() - begin
    (run / "done").write_text(f"{seconds:.1f}")
    return run, seconds


def scores(run: Path, rows: list[IndexRow]) -> dict[str, float]:
    """Dice of each image."""
    return {name: value for (_, name), value in RunModel(run).evaluate(rows).by_image("dice").items()}


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="start", type=Path, help="run folder of an ISIC-only model")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="only the first so many test images, to try it out")
    parser.add_argument("--work", type=Path, help="folder for runs; default $DERMSEG_RUNS/finetune")
    parser.add_argument("--output", type=Path, default=RESULTS / "finetune.json")
    args = parser.parse_args()
    runs = runs_folder()
    (ham,) = indexes(runs, "ham")
    work = args.work or runs / "finetune"
    start = args.start or isic_model(runs)
    seen = {Path(source.index).stem for source in load_config(start / CONFIG).data.train}
    if seen - ISIC:
        raise SystemExit(f"{start} has seen more than ISIC: {', '.join(sorted(seen - ISIC))}")
    index = read_index(ham)
    pool, _ = select_split(index, "train")
    test = select_split(index, "test")[0][: args.limit]
    before = scores(start, test)
    tuned, seconds = [], []
    for seed in range(args.seeds):
        picks = np.random.default_rng([20, seed]).permutation(len(pool))[: args.images]
        run, took = fine_tune(start, [pool[i] for i in picks], seed, work / f"ham{args.images}-{seed}")
        tuned.append(scores(run, test))
        seconds.append(took)
        print(f"seed {seed}: Dice {np.mean(list(tuned[-1].values())):.4f} in {took:.0f} s", flush=True)
    ids = list(before)
    groups = {row.image_id: row.group or row.image_id for row in test}
    clusters = [groups[i] for i in ids]
    first = np.array([before[i] for i in ids])
    mean = np.mean([[t[i] for i in ids] for t in tuned], axis=0)
    result: dict[str, Any] = {
        **describe(),
        "protocol": f"ISIC-only network, fine-tuned on {args.images} images of HAM10000 train; HAM10000 "
        "test, masks' own size, threshold 0.5, no post-processing; difference paired by image, mean over "
        "seeds",
        "images": args.images,
        "test_images": len(ids),
        "before": estimate(first, clusters).to_dict(),
        "after": estimate(mean, clusters).to_dict(),
        "difference": estimate(mean - first, clusters).to_dict(),
        "each_seed": [
            {
                "seed": seed,
                "dice": float(np.mean(list(t.values()))),
                "difference": estimate([t[i] - before[i] for i in ids], clusters).to_dict(),
                "seconds": took,
            }
            for seed, (t, took) in enumerate(zip(tuned, seconds, strict=True))
        ],
    }
    save(result, args.output)
    difference = result["difference"]
    print(
        f"Dice {result['before']['mean']:.4f} -> {result['after']['mean']:.4f}, "
        f"difference {difference['mean']:+.4f} {difference['ci95_clustered']}"
    )
    print(one_line(result))


if __name__ == "__main__":
    main()
