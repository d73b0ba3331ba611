"""A job on Ray, through the installed program: a killed worker, taking it up again, URLs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dermseg.data.sources.synthetic import write_synthetic

pytest.importorskip("ray", reason="needs ray (make test-system)")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [ray]")

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds Ray's workers in /proc")
COUNT = 60


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photographs, and one that is none."""
    folder = tmp_path_factory.mktemp("ray")
    write_synthetic(folder, COUNT - 1, seed=3, size=(120, 160))
    (folder / "images" / "broken.jpg").write_bytes(b"no image")
    return folder / "images"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "segment", *map(str, arguments)]
    return subprocess.Popen(
        [*command, "--engine", "ray", "--workers", "2", "--save", "mask", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> dict[str, int]:
    said, complaints = process.communicate(timeout=300)
    assert process.returncode == 1, complaints  # one image is broken
    summary: dict[str, int] = json.loads(said)
    return summary


def workers_of(pid: int) -> list[int]:
    """Ray's worker processes below a process."""
    children: dict[int, list[int]] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_text(errors="replace")
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return [one for one in found if "PartWorker" in titles.get(one, "")]


def test_a_killed_worker_loses_nothing(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(images, "-o", out)
    while not list((out / "results.parquet").glob("part-*.parquet")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    for worker in workers_of(process.pid)[:1]:
        os.kill(worker, signal.SIGKILL)
    summary = end(process)
    assert (summary["images"], summary["failed"], summary["unfinished"]) == (COUNT, 1, 0)
    names = parquet.read_table(out / "results.parquet")["file"].to_pylist()
    assert len(names) == len(set(names)) == COUNT
    assert len(list((out / "masks").rglob("*.png"))) == COUNT - 1
    assert not list(out.rglob("*.tmp"))
    parts = {path.name: path.stat().st_mtime_ns for path in (out / "results.parquet").iterdir()}
    again = end(start(images, "-o", out, "--resume"))
    assert 0 < again["processed"] <= 16  # only the part with the broken image is tried again
    changed = [p for p in (out / "results.parquet").iterdir() if p.stat().st_mtime_ns != parts[p.name]]
    assert len(changed) == 1


def test_from_url_to_url(images: Path, tmp_path: Path) -> None:
    """``file://`` goes through fsspec as ``s3://`` and ``gs://`` do."""
    listed = "".join(f"file://{path}\n" for path in sorted(images.iterdir()))
    (tmp_path / "list.csv").write_text(f"image\n{listed}")
    summary = end(start(f"file://{tmp_path}/list.csv", "-o", f"file://{tmp_path}/out"))
    assert (summary["images"], summary["failed"]) == (COUNT, 1)
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == COUNT - 1
    table = parquet.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert len(table) == COUNT and all(row["location"] == f"file://{images}/{row['file']}" for row in table)
