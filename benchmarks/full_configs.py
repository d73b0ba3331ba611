"""Every full configuration on real images: 20 steps of the optimizer, killed after 10 and resumed.

Each of ``configs/{unet,unetpp,attention-unet,transunet,mobile-unet,default}.yaml`` trains at its full width,
image size and precision on its own data, cut to what 20 steps need. ``dermseg train`` is killed (SIGKILL)
when its checkpoint of step 10 is there, and goes on with ``--resume``. Recorded: losses, seconds per step,
peak memory, and that the resumed run came to step 20 with a loss that is finite.

    DERMSEG_RUNS=... python benchmarks/full_configs.py [--only unet ...] [--batch-size 2]

Without ``--batch-size`` the batch is the configuration's own on a GPU and 2 on a CPU, where 20 steps of the
large ones take minutes. DERMSEG_RUNS names the folder of the indexes, which ``make_model.py`` makes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from common import RESULTS, ROOT, describe, one_line, save
from dermseg.training.checkpoint import CONFIG, LAST, load_state
from dermseg.training.config import RunConfig, load_config

NAMES = ("unet", "unetpp", "attention-unet", "transunet", "mobile-unet", "default")
STEPS, KILL_AT = 20, 10
VAL_IMAGES = 4


def overrides(config: RunConfig, batch: int | None) -> list[str]:
    """The configuration's own training, cut to two epochs of half the steps on a few images."""
    batch = batch or config.training.batch_size
    each = -(-KILL_AT * batch // len(config.data.train))
    words = [
        "training.epochs=2",
        "training.phases=[]",
        f"training.batch_size={batch}",
        "training.checkpoint_every_steps=5",
        "training.early_stopping_patience=99",
    ]
    for i in range(len(config.data.train)):
        words += [f"data.train.{i}.per_epoch={each}", f"data.train.{i}.limit={max(each, 8)}"]
    words += [f"data.val.{i}.limit={VAL_IMAGES}" for i in range(len(config.data.val))]
    return [part for word in words for part in ("--set", word)]


class Watch:
    """Runs ``dermseg train`` and keeps its peak memory; a context manager over the process."""

    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "dermseg.apps.cli.main", "train", *map(str, arguments)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self.peak_gb = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())

    def look(self) -> None:
        """Read the peak so far, where the system says it (Linux)."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            kilobytes = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
        except (OSError, StopIteration):
            return
        self.peak_gb = max(self.peak_gb, kilobytes * 1024 / 1e9)

    def wait(self) -> int:
        """Until it ends."""
        while self.process.poll() is None:
            self.look()
            time.sleep(0.2)
        self._reader.join(5)
        return self.process.returncode


def progress_of(run: Path) -> dict[str, Any]:
    """Where the last checkpoint stands, step 0 where there is none."""
    if not (run / LAST).exists():
        return {"step": 0, "seconds": 0.0}
    found: dict[str, Any] = json.loads(load_state(run / LAST)["progress"])
    return found


def run_config(name: str, batch: int | None, folder: Path) -> dict[str, Any]:
    """Train, kill, resume; what was seen."""
    path = ROOT / "configs" / f"{name}.yaml"
    config, run = load_config(path), folder / name
    first = Watch(path, "-o", run, "--set", f"data.cache_dir={folder / 'cache'}", *overrides(config, batch))
    while first.process.poll() is None and progress_of(run)["step"] < KILL_AT:
        first.look()
        time.sleep(0.5)
    killed_at = progress_of(run)["step"]
    first.process.kill()
    first.wait()
    if killed_at < KILL_AT:
        raise SystemExit(f"{name}: ended before step {KILL_AT}\n" + "\n".join(first.said[-5:]))
    second = Watch("--resume", run)
    if second.wait():
        raise SystemExit(f"{name}: the resumed run failed\n" + "\n".join(second.said[-5:]))
    end = progress_of(run)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [round(e["train_loss"], 4) for e in events if e["event"] == "val"]
    used = load_config(run / CONFIG)
    return {
        "architecture": used.model.architecture,
        "image_size": used.training.image_size,
        "batch_size": used.training.batch_size,
        "killed_at_step": killed_at,
        "steps": end["step"],
        "mean_loss_of_epochs": losses,
        "seconds_per_step": round(end["seconds"] / end["step"], 3),
        "peak_gb": round(max(first.peak_gb, second.peak_gb), 2),
        "passed": end["step"] >= STEPS and all(map(math.isfinite, losses)),
    }


def main() -> None:
    """Run the configurations, write the JSON, print the table; exit code 1 when one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "full_configs.json")
    args = parser.parse_args()
    batch = args.batch_size or (None if torch.cuda.is_available() else 2)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            results[name] = run_config(name, batch, Path(folder))
            print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    passed = all(entry["passed"] for entry in results.values())
    about = describe()
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    save({**about, "device": device, "passed": passed, "configs": results}, args.output)
    print("| configuration | batch | steps | loss, first and second epoch | s per step | peak GB | resumed |")
    print("|---|---:|---:|---|---:|---:|---|")
    for name, e in results.items():
        losses = ", ".join(f"{loss:.3f}" for loss in e["mean_loss_of_epochs"])
        print(
            f"| {name} | {e['batch_size']} | {e['steps']} | {losses} | {e['seconds_per_step']:.2f} "
            f"| {e['peak_gb']:.2f} | {'yes' if e['passed'] else 'NO'} |"
        )
    print(f"\n{device}; {one_line(about)}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
