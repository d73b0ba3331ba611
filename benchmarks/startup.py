"""What one image costs from the shell: ``dermseg segment one.jpg`` beside its bare libraries.

Two commands in turns, each a new process every time:

- ``python -c "import numpy, cv2, onnxruntime"``, which no program on these libraries can undercut;
- ``dermseg segment IMAGE -o OUT``: from the shell to mask, overlay, table and report.

Both find compiled bytecode, as after any second start (``pip`` compiles what it installs); it is kept in a
folder of the benchmark, so that neither profits from what ran before. CPU seconds stand beside wall time: on
a busy machine they are what can be trusted.

    python benchmarks/startup.py [--image FILE] [--rounds 10]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2

from common import RESULTS, ROOT, describe, one_line, save, write_section
from dermseg.data.synthetic import synthesize
from dermseg.images.find import find_images
from throughput import NATIVE

RESULT = RESULTS / "startup.json"
PAGE = ROOT / "docs" / "performance.md"
LIBRARIES = "import numpy, cv2, onnxruntime"
PROGRAM = "from dermseg.apps.cli.main import run; run()"  # what the installed script does
LIMIT = 3.0


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command; it must end well."""
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - begin, os.times()
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def measure(image: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Both commands, ``rounds`` times in turns; medians and their ratios."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    segment = [sys.executable, "-c", PROGRAM, "segment", str(image), "-o", str(folder / "out"), "--overwrite"]
    commands = {"libraries": [sys.executable, "-c", LIBRARIES], "segment": segment}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            taken = run(command, environment)
            if number:  # the first round compiles
                times[name].append(taken)
    walls = {name: median(wall for wall, _ in taken) for name, taken in times.items()}
    cpus = {name: median(cpu for _, cpu in taken) for name, taken in times.items()}
    return {
        "rounds": rounds,
        "wall_seconds": {name: round(value, 3) for name, value in walls.items()},
        "cpu_seconds": {name: round(value, 3) for name, value in cpus.items()},
        "ratio": round(walls["segment"] / walls["libraries"], 2),
        "cpu_ratio": round(cpus["segment"] / cpus["libraries"], 2),
        "limit": LIMIT,
    }


def write_image(path: Path) -> None:
    """A native ISIC photograph where the data is at hand, else a drawn one."""
    if os.environ.get("DERMSEG_DATA"):
        sources = find_images([str(Path(os.environ["DERMSEG_DATA"]) / NATIVE)])
        path.write_bytes(sources[0].read_bytes())
    else:
        cv2.imwrite(str(path), synthesize(0, (768, 1024))[0][..., ::-1])


def tell(result: dict[str, Any]) -> str:
    """The figures in words."""
    wall, cpu = result["wall_seconds"], result["cpu_seconds"]
    return (
        f"`dermseg segment` on one photograph takes {result['ratio']:.2f} times as long as "
        f"`python -c '{LIBRARIES}'` (limit {LIMIT:g}): {wall['segment']:.2f} s and "
        f"{wall['libraries']:.2f} s, of CPU time {cpu['segment']:.2f} s and {cpu['libraries']:.2f} s. "
        "New processes, compiled bytecode, "
        f"median of {result['rounds']} in turns; {one_line(result)}."
    )


def main() -> None:
    """Measure, write the JSON, print the ratio; exit code 1 where it is above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, help="default: a native ISIC image below $DERMSEG_DATA")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = args.image or Path(folder, "one.jpg")
        if args.image is None:
            write_image(image)
        result = {**describe(), **measure(image, Path(folder), args.rounds)}
    save(result, args.output)
    text = tell(result)
    print(text)
    if args.output == RESULT:
        write_section(PAGE, "startup", text)
    sys.exit(0 if result["ratio"] <= LIMIT else 1)


if __name__ == "__main__":
    main()
