"""SIGKILL of ``dermseg train`` at random moments; ``--resume`` must end with the same weights, bit for bit.

A small U-Net is trained on synthetic images once without disturbance. Then runs of the same configuration
are killed again and again and resumed, until the wanted number of kills is reached and every run has come
to its end. Half of the moments are uniform over the life of the process (start, decoding of images, training,
the end); the other half come within milliseconds of a checkpoint, when files are being written. Every run
has a cache of its own, so that the decoding is interrupted too.

Compared with the undisturbed run: all of ``last.pt`` but its clock and the place of its cache (weights,
average, optimizer, generators, position), ``best.safetensors`` and ``metrics.jsonl``.

    python benchmarks/kill_resume_train.py [--kills 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import cv2
import torch
import yaml

from common import RESULTS, describe, save
from dermseg.data.index import IndexRow, write_index
from dermseg.data.synthetic import synthesize
from dermseg.images.masks import save_mask
from dermseg.training.checkpoint import BEST, LAST, load_state

SIDE, IMAGES = 64, 24  # a third of the images is for validation
TIMEOUT_S = 300.0  # for one process; a hang is a failure


def write_data(folder: Path) -> Path:
    """Synthetic images, masks and their index; returns the index."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(IMAGES):
        image, mask, _ = synthesize(i, (SIDE, SIDE))
        cv2.imwrite(str(folder / f"images/{i:02d}.png"), image[..., ::-1])
        save_mask(mask, folder / f"masks/{i:02d}.png")
        rows.append(
            IndexRow(
                image_id=f"{i:02d}",
                image=f"images/{i:02d}.png",
                masks=(f"masks/{i:02d}.png",),
                dataset="synthetic",
                split="val" if i % 3 == 2 else "train",
                width=SIDE,
                height=SIDE,
                root=folder,
            )
        )
    write_index(rows, folder / "index.csv")
    return folder / "index.csv"


def write_config(path: Path, index: Path, cache: Path) -> Path:
    """A real configuration with everything that carries state: phases, schedule, average, best checkpoint."""
    content = {
        "name": "kill-resume",
        "data": {
            "train": [{"index": str(index), "per_epoch": 12}],
            "val": [{"index": str(index), "split": "val"}],
            "cache_dir": str(cache),
            "cache_size": SIDE,
        },
        "model": {"architecture": "unet", "options": {"widths": [8, 16, 32]}},
        "training": {
            "epochs": 10,
            "phases": [{"epochs": 4, "image_size": 32, "batch_size": 4}],
            "image_size": 64,
            "batch_size": 2,
            "device": "cpu",
            "threads": 1,
            "checkpoint_every_steps": 2,
        },
    }
    path.write_text(yaml.safe_dump(content))
    return path


class Run:
    """One run folder, and the command that starts it or goes on with it."""

    def __init__(self, folder: Path, index: Path) -> None:
        self.folder = folder / "run"
        folder.mkdir()
        self.log = folder / "log.txt"
        self.config = write_config(folder / "config.yaml", index, folder / "cache")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the run where none has begun, else resume it, as a user would."""
        command = [sys.executable, "-m", "dermseg.apps.cli.main", "train"]
        if (self.folder / "config.yaml").exists():
            command += ["--resume", str(self.folder)]
        else:
            command += [str(self.config), "-o", str(self.folder)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)

    def phase(self) -> str:
        """How far the run has come, for the record of a kill."""
        if not (self.folder / "config.yaml").exists():
            return "before the run folder"
        if not (self.folder / LAST).exists():
            return "before the first checkpoint"
        return "after a checkpoint"

    def checkpoint_time(self) -> int:
        """When ``last.pt`` was replaced, 0 where there is none."""
        try:
            return (self.folder / LAST).stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def kill_at(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """SIGKILL after some seconds; False when the process ended by itself before."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def kill_near_checkpoint(process: subprocess.Popen[bytes], run: Run, nth: int, delay: float) -> bool:
    """SIGKILL some milliseconds after the ``nth`` new checkpoint; False when the process ended before."""
    last, seen, deadline = run.checkpoint_time(), 0, time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        now = run.checkpoint_time()
        if now != last:
            last, seen = now, seen + 1
            if seen == nth:
                return kill_at(process, delay)
        time.sleep(0.0005)
    return kill_at(process, 0.0)


def finish(run: Run) -> None:
    """Let the run come to its end."""
    process = run.start()
    if kill_at(process, TIMEOUT_S) or process.returncode:
        fail(run, process)


def fail(run: Run, process: subprocess.Popen[bytes]) -> NoReturn:
    """End the experiment with what the process said last."""
    said = run.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise SystemExit(f"{run.folder}: exit code {process.returncode} without being killed\n{said}")


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two finished runs."""
    found = []
    states = [load_state(folder / LAST) for folder in (a, b)]
    for state in states:
        progress = json.loads(state.pop("progress"))
        del progress["seconds"]
        state["progress"] = progress
        config = json.loads(state.pop("config"))
        del config["data"]["cache_dir"]  # each run has its own
        state["config"] = config
    found += [f"{LAST}: {key}" for key in states[0] if not same(states[0][key], states[1].get(key))]
    found += [n for n in (BEST, "metrics.jsonl") if (a / n).read_bytes() != (b / n).read_bytes()]
    return found


def same(a: Any, b: Any) -> bool:
    """Equality of nested values; tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def leftovers(folder: Path) -> int:
    """Temporary files in the run folder after its end."""
    return sum(path.name.endswith(".tmp") for path in folder.rglob("*"))


def experiment(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill, resume, compare; the record as plain values."""
    began = time.monotonic()
    rng = random.Random(seed)
    index = write_data(folder / "data")
    whole = Run(folder / "undisturbed", index)
    start = time.monotonic()
    finish(whole)
    life = time.monotonic() - start

    record: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    while len(record) < kills:
        run = Run(folder / f"killed-{len(compared)}", index)
        mine = 0
        while len(record) < kills:
            process = run.start()
            if len(record) % 2:
                moment: dict[str, Any] = {"checkpoint": rng.randint(1, 8), "delay_s": rng.uniform(0, 0.03)}
                killed = kill_near_checkpoint(process, run, moment["checkpoint"], moment["delay_s"])
            else:
                moment = {"after_s": rng.uniform(0, life)}
                killed = kill_at(process, moment["after_s"])
            if not killed:
                if process.returncode:
                    fail(run, process)
                break
            mine += 1
            record.append({"run": len(compared), "when": run.phase(), **moment})
            print(f"kill {len(record)}/{kills}: {moment}, {run.phase()}", file=sys.stderr, flush=True)
        finish(run)
        compared.append(
            {
                "kills": mine,
                "differences": differences(whole.folder, run.folder),
                "temporary_files_left": leftovers(run.folder),
            }
        )
    return {
        **describe(),
        "kills": len(record),
        "runs": len(compared),
        "kills_by_phase": dict(Counter(kill["when"] for kill in record)),
        "undisturbed_seconds": round(life, 2),
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "steps": json.loads(load_state(whole.folder / LAST)["progress"])["step"],
        "identical": not any(c["differences"] for c in compared),
        "compared": compared,
        "record": [
            {key: round(value, 4) if isinstance(value, float) else value for key, value in kill.items()}
            for kill in record
        ],
    }


def main() -> None:
    """Run the experiment, write the JSON; exit code 1 when a run differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "kill_resume_train.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = experiment(args.kills, args.seed, Path(folder))
    save(result, args.output)
    verdict = "identical" if result["identical"] else "DIFFERENT"
    print(
        f"{result['kills']} kills in {result['runs']} runs of {result['steps']} steps "
        f"({result['kills_by_phase']}): weights {verdict} to the undisturbed run, {result['seconds']:.0f} s"
    )
    sys.exit(0 if result["identical"] else 1)


if __name__ == "__main__":
    main()
