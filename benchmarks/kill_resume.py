"""SIGKILL of ``dermseg segment`` at random moments; ``--resume`` must end with the same files, byte for byte.

A batch of synthetic photographs in sub-folders, two of them damaged, is segmented once without disturbance.
Then the same command runs again and again with ``--resume``, killed each time after a random number of
further images (and within a random few milliseconds, so that decoding, network, writing and the final tables
are all hit), until the wanted number of kills is reached; a batch that comes to its end before is compared,
and a new one begins. Everything in the two output folders is compared; only the timing fields are left out:
``seconds`` in results.csv, ``timing`` in run.json, stage times of the journal, ``<time>`` in report.html.

    python benchmarks/kill_resume.py [--kills 20] [--images 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import cv2

from common import RESULTS, describe, save
from dermseg.data.synthetic import synthesize
from dermseg.inference.bundle import load_bundle

TIMEOUT_S = 600.0  # for one process; a hang is a failure


def write_images(folder: Path, count: int) -> None:
    """``count`` inputs of different sizes and formats; two are damaged."""
    for i in range(count):
        path = folder / f"visit{i // 50}" / f"photo_{i:03d}{('.jpg', '.png')[i % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image, _, _ = synthesize(i % 16, (300 + 40 * (i % 5), 420 + 30 * (i % 7)))
        cv2.imwrite(str(path), image[..., ::-1])
    for name, kept in (("visit0/photo_004.jpg", 0.5), ("visit1/photo_051.png", 0.0)):
        path = folder / name
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data))])


def fingerprint(out: Path) -> dict[str, str]:
    """Every file below ``out`` with the hash of its content, timing fields taken out."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name, data = path.relative_to(out).as_posix(), path.read_bytes()
        if name == "results.csv":
            rows = list(csv.reader(data.decode().splitlines()))
            at = rows[0].index("seconds")
            data = json.dumps([row[:at] + row[at + 1 :] for row in rows]).encode()
        elif name == "run.json":
            data = json.dumps({**json.loads(data), "timing": None}).encode()
        elif name == "report.html":
            data = re.sub(rb"<time>[^<]*</time>", b"<time></time>", data)
        elif name == "journal.jsonl":
            lines = [json.loads(line) for line in data.splitlines()]
            for line in lines[1:]:
                line["stages"], line["row"]["seconds"] = None, None
            data = json.dumps(lines).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


class Batch:
    """The command on one output folder."""

    def __init__(self, images: Path, out: Path, model: str) -> None:
        self.out = out
        self.log = out.with_suffix(".log")
        self._command = [sys.executable, "-m", "dermseg.apps.cli.main", "segment", str(images)]
        self._command += ["-o", str(out), "--model", model, "--resume", "--save", "mask,overlay,probability"]

    def start(self) -> subprocess.Popen[bytes]:
        """Start, or go on."""
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=log)

    def recorded(self) -> int:
        """Lines of the journal: images that are done, and the header."""
        try:
            return (self.out / "journal.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def finish(self) -> None:
        """Let it come to its end; the two damaged images make the exit code 1."""
        process = self.start()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.check(process)

    def check(self, process: subprocess.Popen[bytes]) -> None:
        """A process that ended by itself must have ended well."""
        if process.returncode != 1 or not (self.out / "report.html").exists():
            self.fail(process)

    def fail(self, process: subprocess.Popen[bytes]) -> NoReturn:
        """End the experiment with what the process said last."""
        said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise SystemExit(f"{self.out}: exit code {process.returncode}\n{said}")


def kill(batch: Batch, images: int, delay: float) -> bool:
    """SIGKILL when so many more images are recorded, and some time later; False when it ended before.

    With ``images`` 0 the process is killed ``delay`` after its start, imports included.
    """
    process = batch.start()
    before, deadline = batch.recorded(), time.monotonic() + TIMEOUT_S
    while images and process.poll() is None and batch.recorded() < before + images:
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            batch.fail(process)
        time.sleep(0.001)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    batch.check(process)
    return False


def experiment(kills: int, count: int, model: str, seed: int, folder: Path) -> dict[str, Any]:
    """Kill, resume, compare; the record as plain values."""
    rng = random.Random(seed)
    bundle = load_bundle(model)  # a copy: the experiment takes minutes, and the model must stay the same
    model = str(shutil.copytree(bundle.path, folder / "model"))
    write_images(folder / "images", count)
    whole = Batch(folder / "images", folder / "undisturbed", model)
    began = time.monotonic()
    whole.finish()
    life = time.monotonic() - began
    expected = fingerprint(whole.out)
    record: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    while len(record) < kills:
        batch = Batch(folder / "images", folder / f"killed-{len(compared)}", model)
        mine, step = 0, max(1, count // 10)
        while len(record) < kills:
            # One in four comes at any moment from the start on, the others amid the work.
            images = 0 if len(record) % 4 == 3 else rng.randint(1, 2 * step)
            delay = rng.uniform(0.0, life / 4) if images == 0 else rng.uniform(0.0, 0.1)
            if not kill(batch, images, delay):
                break
            mine += 1
            torn = not (batch.out / "journal.jsonl").exists() or not (
                (batch.out / "journal.jsonl").read_bytes().endswith(b"\n")
            )
            unfinished = sum(1 for _ in batch.out.rglob(".*.tmp"))
            record.append(
                {
                    "batch": len(compared),
                    "after_images": images,
                    "after_seconds": round(delay, 4),
                    "recorded": max(0, batch.recorded() - 1),
                    "unfinished_files": unfinished,
                    "torn_or_no_journal": torn,
                }
            )
            print(f"kill {len(record)}/{kills}: {record[-1]}", file=sys.stderr, flush=True)
        batch.finish()
        found = fingerprint(batch.out)
        names = sorted(expected.keys() | found.keys())
        differences = [name for name in names if expected.get(name) != found.get(name)]
        compared.append({"kills": mine, "files": len(found), "differences": differences})
        shutil.rmtree(batch.out)
    return {
        **describe(),
        "model": {"name": bundle.card.name, "version": bundle.card.version},
        "images": count,
        "kills": len(record),
        "batches": len(compared),
        "undisturbed_seconds": round(life, 2),
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "files": len(expected),
        "identical": not any(c["differences"] for c in compared),
        "compared": compared,
        "record": record,
    }


def main() -> None:
    """Run the experiment, write the JSON; exit code 1 when a batch differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="default", help="name or path of a bundle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "kill_resume_segment.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = experiment(args.kills, args.images, args.model, args.seed, Path(folder))
    save(result, args.output)
    verdict = "identical" if result["identical"] else "DIFFERENT"
    print(
        f"{result['kills']} kills in {result['batches']} batches of {result['images']} images: "
        f"{result['files']} files {verdict} to the undisturbed run, {result['seconds']:.0f} s"
    )
    sys.exit(0 if result["identical"] else 1)


if __name__ == "__main__":
    main()
