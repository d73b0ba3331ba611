"""Peak memory, images/s and final Dice with and without autocast, channels_last and compile, in one table.

One configuration is trained from the same seed once per combination, each in a process of its own, so that a
peak is that of one training. Images/s leave out the first two epochs, in which libraries choose their kernels
and ``torch.compile`` compiles.

    DERMSEG_RUNS=... python benchmarks/training_memory.py [--config configs/unet.yaml] [--set KEY=VALUE ...]
    python benchmarks/training_memory.py --synthetic --epochs 3 --set model.options.widths=[8,16,32]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from common import RESULTS, ROOT, describe, one_line, save
from training_speed import write_data

COMBINATIONS: dict[str, dict[str, Any]] = {
    "fp32": {"autocast": "off", "channels_last": False, "compile": False},
    "fp32, channels_last": {"autocast": "off", "channels_last": True, "compile": False},
    "bf16": {"autocast": "bf16", "channels_last": False, "compile": False},
    "bf16, channels_last": {"autocast": "bf16", "channels_last": True, "compile": False},
    "fp16, channels_last": {"autocast": "fp16", "channels_last": True, "compile": False},
    "bf16, channels_last, compile": {"autocast": "bf16", "channels_last": True, "compile": True},
}

# the child: trains, then says what only the process itself knows
_CHILD = """
import json, resource, sys
from pathlib import Path
import cv2, torch
from dermseg.training.config import load_config
from dermseg.training.loop import Trainer
from dermseg.training.run import train
cv2.setNumThreads(1)
config = load_config(Path(sys.argv[1]), json.loads(sys.argv[3]))
marks = []
validate = Trainer._validate
def marked(self):
    validate(self)
    marks.append((self.progress.step * self.config.training.batch_size, self.progress.seconds))
Trainer._validate = marked
progress = train(config, Path(sys.argv[2]), quiet=True)
(images, seconds), (images0, seconds0) = marks[-1], marks[min(1, len(marks) - 2)]
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else held
print(json.dumps({"best_dice": progress.best_dice, "peak_gb": peak / 1e9,
                  "images_per_second": (images - images0) / (seconds - seconds0)}))
"""


def run(config: Path, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Train in a process of its own; its figures, or its last line where it failed."""
    command = [sys.executable, "-c", _CHILD, str(config), str(folder), json.dumps(overrides)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return {"failed": (result.stderr.strip().splitlines() or ["no message"])[-1]}
    return {key: round(value, 4) for key, value in json.loads(result.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Train every combination, write the JSON, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "unet.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in dermseg train")
    parser.add_argument("--epochs", type=int, default=6, help="at least 3")
    parser.add_argument("--only", nargs="+", choices=list(COMBINATIONS), default=list(COMBINATIONS))
    parser.add_argument(
        "--synthetic", action="store_true", help="60 drawn images instead of the config's data"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "training_memory.json")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # the same epochs for all, validated each time
        common = [f"training.epochs={args.epochs}", "training.phases=[]", "training.validate_every=1"]
        if args.synthetic:
            index = write_data(folder / "data", 60, 256)
            common += [
                f"data.train=[{{index: {index}}}]",
                f"data.val=[{{index: {index}, split: val}}]",
                f"data.cache_dir={folder / 'cache'}",
            ]
        for i, label in enumerate(args.only):
            settings = [f"training.{key}={json.dumps(value)}" for key, value in COMBINATIONS[label].items()]
            results[label] = run(args.config, [*common, *args.set, *settings], folder / f"run{i}")
            print(f"{label}: {results[label]}", file=sys.stderr, flush=True)
    about = describe()
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    save(
        {**about, "device": device, "config": args.config.stem, "epochs": args.epochs, "set": args.set,
         "combinations": results},
        args.output,
    )  # fmt: skip
    print("| precision and layout | peak GB | images/s | best val Dice |")
    print("|---|---:|---:|---:|")
    for label, e in results.items():
        if "failed" in e:
            print(f"| {label} | - | - | {e['failed']} |")
        else:
            print(f"| {label} | {e['peak_gb']:.2f} | {e['images_per_second']:.1f} | {e['best_dice']:.4f} |")
    print(f"\n{args.config.stem}, {args.epochs} epochs, {device}; {one_line(about)}")


if __name__ == "__main__":
    main()
