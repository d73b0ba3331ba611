"""``dermseg segment --engine ray`` on two local workers, one of which is killed midway.

The images are first segmented by the local engine, undisturbed. Then Ray does the same into another folder;
when a quarter of the parts is recorded, one worker process gets SIGKILL. The job must end by itself with
exit code 0, exactly one mask and one row for each image, the masks equal to those of the local engine byte
for byte, and nothing else in the folder. The same command with ``--resume`` must find nothing left to do.

Linux only (``/proc``). Writes ``results/ray_kill.json``.

    python benchmarks/ray_kill.py [--images 2000] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet

from common import RESULTS, describe, one_line, save
from dermseg.scale.parts import JOB, TABLE, part_size
from soak_batch import family, write_inputs

WORKER = b"PartWorker"  # in the title that Ray gives its worker processes


class Command:
    """``dermseg segment`` with masks only."""

    def __init__(self, images: Path, out: Path, *more: str) -> None:
        self.out = out
        self._command = [
            sys.executable,
            "-m",
            "dermseg.apps.cli.main",
            "segment",
            str(images),
            "-o",
            str(out),
        ]
        # where OpenVINO is installed the local engine may take it for many images, Ray does not by itself
        self._command += ["--save", "mask", "--runtime", "onnxruntime", "--json", *more]

    def start(self) -> subprocess.Popen[str]:
        """Begin."""
        return subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
        """Its summary; it must end well."""
        said, complaints = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"exit code {process.returncode}\n{complaints[-3000:]}")
        summary: dict[str, Any] = json.loads(said)
        return summary


def workers_of(pid: int) -> list[int]:
    """The Ray worker processes among all that a process started."""
    found = []
    for one in family(pid):
        try:
            if WORKER in Path(f"/proc/{one}/cmdline").read_bytes():
                found.append(one)
        except OSError:
            continue
    return found


def kill_one(process: subprocess.Popen[str], out: Path, after: int) -> dict[str, int]:
    """SIGKILL to a worker when so many parts are recorded."""
    while process.poll() is None:
        recorded = sum(1 for _ in (out / TABLE).glob("part-*.parquet"))
        if recorded >= after and (workers := workers_of(process.pid)):
            os.kill(workers[0], signal.SIGKILL)
            return {"parts_recorded": recorded, "workers_then": len(workers)}
        time.sleep(0.01)
    Command.finish(process)
    raise SystemExit("the job ended before a worker could be killed: take more images")


def masks_of(out: Path) -> dict[str, bytes]:
    """Every mask below a folder."""
    folder = out / "masks"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def experiment(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Both runs and what came of them."""
    images = folder / "images"
    different = write_inputs(images, count)
    local = Command(images, folder / "local")
    Command.finish(local.start())
    parts = -(-count // part_size(count))
    ray = Command(images, folder / "ray", "--engine", "ray", "--workers", str(workers), "--resume")
    begin = time.perf_counter()
    process = ray.start()
    killed = kill_one(process, ray.out, max(1, parts // 4))
    summary = Command.finish(process)
    seconds = time.perf_counter() - begin
    again = Command.finish(ray.start())
    names: list[str] = pyarrow.parquet.read_table(ray.out / TABLE, columns=["file"])["file"].to_pylist()
    found, expected = masks_of(ray.out), masks_of(local.out)
    known = {JOB, "run.json"}
    foreign = [
        path.relative_to(ray.out).as_posix()
        for path in ray.out.rglob("*")
        if path.is_file()
        and path.name not in known
        and not path.name.startswith("part-")
        and path.suffix != ".png"
    ]
    return {
        "images": count,
        "different_images": different,
        "workers": workers,
        "parts": parts,
        "killed": killed,
        "seconds": round(seconds, 1),
        "images_per_second": summary["images_per_second"],
        "counts": {key: summary[key] for key in ("images", "ok", "no_lesion", "failed", "unfinished")},
        "masks": len(found),
        "rows": len(names),
        "different_rows": len(set(names)),
        "identical_to_local_engine": found == expected,
        "foreign_files": foreign,
        "done_again": again["processed"],
    }


def main() -> None:
    """Run the experiment, write the JSON; exit code 1 where an image has not exactly one mask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "ray_kill.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {**describe(), **experiment(Path(folder), args.images, args.workers)}
    save(result, args.output)
    good = (
        result["masks"] == result["rows"] == result["different_rows"] == args.images
        and result["identical_to_local_engine"]
        and not result["foreign_files"]
        and result["done_again"] == 0
    )
    same = "as" if result["identical_to_local_engine"] else "NOT as"
    print(
        f"{args.images} images on {args.workers} Ray workers, one killed after "
        f"{result['killed']['parts_recorded']} of {result['parts']} parts: {result['masks']} masks, "
        f"{result['rows']} rows, masks {same} those of the local engine; "
        f"{result['done_again']} images done again by --resume\n{one_line(result)}"
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
