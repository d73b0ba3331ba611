"""What the benchmarks share: the machine and versions behind a figure, and where results go."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dermseg import __version__
from dermseg.inference.machine import cpu_name
from dermseg.inference.threads import available_cpus

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATA_PAGE = "see 'The data of the bundled models' in CONTRIBUTING.md"
_PACKAGES = ("torch", "onnxruntime", "numpy", "opencv-python-headless", "pillow")


def dermseg(*arguments: object) -> dict[str, Any]:
    """Run one command of ``dermseg``, show it, and return its JSON."""
    words = [str(a) for a in arguments]
    print("$ dermseg", *words, flush=True)
    command = [sys.executable, "-m", "dermseg.apps.cli.main", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def runs_folder() -> Path:
    """Where indexes and runs lie: ``$DERMSEG_RUNS``, else ``~/dermseg-runs`` as for ``make_model.py``."""
    return Path(os.environ.get("DERMSEG_RUNS") or Path.home() / "dermseg-runs")


def data_folder() -> Path:
    """The folder of the data sets, ``$DERMSEG_DATA``; a program that needs it ends without."""
    if not os.environ.get("DERMSEG_DATA"):
        raise SystemExit(f"error: DERMSEG_DATA must name the folder with the data sets ({DATA_PAGE})")
    return Path(os.environ["DERMSEG_DATA"])


def indexes(runs: Path, *names: str) -> list[Path]:
    """``RUNS/index/NAME.csv`` of each name; a program that needs one which is not there ends."""
    paths = [runs / "index" / f"{name}.csv" for name in names]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise SystemExit(
            f"error: no such index: {', '.join(missing)}\n  try: 'make model' makes them first of all "
            f"({DATA_PAGE}); DERMSEG_RUNS names the folder above index/"
        )
    return paths


def describe() -> dict[str, Any]:
    """Date, machine and versions; every result starts with these."""
    return {
        "schema_version": 1,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpu": cpu_name(),
            "threads": available_cpus(),
            "system": f"{platform.system()} {platform.machine()}",
            "vectors": vectors(),
            "bf16_in_hardware": "bf16" in vectors(),
        },
        "versions": {
            "dermseg": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def vectors() -> str:
    """The widest vector instructions, which "AMD EPYC" does not tell."""
    names = (
        ("AMX bf16", torch.cpu._is_amx_tile_supported()),
        ("AVX-512 with bf16", torch.cpu._is_avx512_bf16_supported()),
        ("AVX-512", torch.cpu._is_avx512_supported()),
        ("AVX2", torch.cpu._is_avx2_supported()),
    )
    return next((name for name, there in names if there), platform.machine())


def one_line(about: dict[str, Any]) -> str:
    """The content of `describe` as a line below a table."""
    machine = about["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    kind = f" ({machine['vectors']})" if "vectors" in machine else ""
    return f"{machine['cpu']}{kind}, {machine['threads']} threads; {versions}; {about['date']}"


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def save(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
