"""Memory of ``dermseg segment`` over 10,000 images: it must stay where the first 500 brought it.

The native ISIC images (without the data: drawn ones) are repeated under new names, each a file of its own,
and segmented in one run. Meanwhile the resident memory of the command and its worker processes is noted with
the number of images done. **Growth** is the median over the last tenth of the images against the median over
the images just after the first 500; it must stay under 5 %. The peaks before and after are recorded too.

Linux only (``/proc``). Writes ``results/soak_batch.json``.

    python benchmarks/soak_batch.py [--images 10000] [--warm 500]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS, describe, one_line, save
from dermseg.images.find import find_images
from startup import write_image
from throughput import NATIVE

LIMIT = 0.05
EVERY_S = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")
Sample = tuple[int, int]  # images done, resident bytes


def write_inputs(folder: Path, count: int) -> int:
    """``count`` files from as many different images as there are; how many those are."""
    originals = folder.parent / "originals"
    originals.mkdir()
    folder.mkdir()
    if os.environ.get("DERMSEG_DATA"):
        for i, source in enumerate(find_images([str(Path(os.environ["DERMSEG_DATA"]) / NATIVE)])):
            (originals / f"{i:03d}{Path(source.name).suffix}").write_bytes(source.read_bytes())
    else:
        write_image(originals / "000.jpg")
    paths = sorted(originals.iterdir())
    for i in range(count):
        path = paths[i % len(paths)]
        (folder / f"image_{i:06d}{path.suffix}").hardlink_to(path)
    return len(paths)


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended just now
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def resident(pid: int) -> int:
    """Resident bytes of a process and all that it started; 0 when it is gone."""
    total = 0
    for one in family(pid):
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE
        except OSError:
            continue
    return total


def run(images: Path, out: Path, model: str) -> list[Sample]:
    """One ``dermseg segment`` with its memory, from the first image to the end of the command."""
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "segment", str(images), "-o", str(out)]
    command += ["--model", model, "--save", "mask", "--log-json"]
    samples: list[Sample] = []
    done = 0
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None

        def watch() -> None:
            while process.poll() is None:
                if done:
                    samples.append((done, resident(process.pid)))
                time.sleep(EVERY_S)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        for line in process.stderr:
            said = [*said[-20:], line]
            if line.startswith("{") and json.loads(line)["event"] == "image":
                done += 1
                if done % 1000 == 0:
                    print(f"{done} images, {samples[-1][1] / 2**20:.0f} MiB", file=sys.stderr, flush=True)
        watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode}\n{''.join(said)}")
    return [sample for sample in samples if sample[1]]


def judge(samples: list[Sample], images: int, warm: int) -> dict[str, Any]:
    """Growth and peaks; at most 200 of the samples are kept for the curve."""
    first = [size for done, size in samples if done <= warm]
    base = [size for done, size in samples if warm < done <= 2 * warm]
    later = [size for done, size in samples if done > warm]
    last = [size for done, size in samples if done > 0.9 * images]
    if not (first and base and last):
        raise SystemExit("too few samples: more images, or fewer to warm up")
    growth = median(last) / median(base) - 1
    return {
        "growth": round(growth, 4),
        "limit": LIMIT,
        "median_mib": {
            "after_warm_up": round(median(base) / 2**20, 1),
            "at_the_end": round(median(last) / 2**20, 1),
        },
        "peak_mib": {"warm_up": round(max(first) / 2**20, 1), "later": round(max(later) / 2**20, 1)},
        "curve": [[done, round(size / 2**20, 1)] for done, size in samples[:: -(-len(samples) // 200)]],
    }


def main() -> None:
    """Run, write the JSON; exit code 1 where memory grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--warm", type=int, default=500, help="images after which memory may not grow")
    parser.add_argument("--model", default="default", help="name or path of a bundle")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "soak_batch.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        different = write_inputs(folder / "images", args.images)
        begin = time.perf_counter()
        samples = run(folder / "images", folder / "out", args.model)
        seconds = time.perf_counter() - begin
        rows = (folder / "out" / "results.csv").read_text(encoding="utf-8").count("\n") - 1
        masks = sum(1 for _ in (folder / "out" / "masks").rglob("*.png"))
        mask_bytes = sum(path.stat().st_size for path in (folder / "out" / "masks").rglob("*.png"))
        input_bytes = sum(path.stat().st_size for path in (folder / "images").iterdir())
        shutil.rmtree(folder / "out")
    result = {
        **describe(),
        "images": args.images,
        "different_images": different,
        "warm": args.warm,
        "seconds": round(seconds, 1),
        "images_per_second": round(args.images / seconds, 2),
        "rows": rows,
        "masks": masks,
        "bytes_per_image": {
            "input": round(input_bytes / args.images),
            "mask": round(mask_bytes / args.images),
        },
        **judge(samples, args.images, args.warm),
    }
    save(result, args.output)
    good = result["growth"] < LIMIT and rows == masks == args.images
    median_mib, peak = result["median_mib"], result["peak_mib"]
    print(
        f"{args.images} images, {rows} rows, {masks} masks, {seconds:.0f} s: memory "
        f"{median_mib['after_warm_up']:.0f} MiB after {args.warm}, {median_mib['at_the_end']:.0f} MiB "
        f"at the end ({100 * result['growth']:+.1f} %), peaks {peak['warm_up']:.0f} and "
        f"{peak['later']:.0f} MiB\n{one_line(result)}"
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
