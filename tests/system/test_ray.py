"""A job on Ray, through the installed program: a killed worker, taking it up again, an object store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "segment", *map(str, arguments)]
    return subprocess.Popen(
        [*command, "--engine", "ray", "--workers", "2", "--save", "mask", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
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


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """An S3 server on this machine with an empty bucket; the environment that leads to it."""
    pytest.importorskip("moto", reason="needs moto (make test-system)")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs (make test-system)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        script = "import fsspec; fsspec.filesystem('s3').mkdir('clinic')"
        subprocess.run([sys.executable, "-c", script], env={**os.environ, **environment}, check=True)
        assert s3fs
        yield environment
    finally:
        server.terminate()
        server.wait()


def test_from_bucket_to_bucket(images: Path, tmp_path: Path, bucket: dict[str, str]) -> None:
    script = (
        "import fsspec, sys; s3 = fsspec.filesystem('s3'); s3.put(sys.argv[1], 'clinic/in', recursive=True)\n"
        "names = sorted(s3.ls('clinic/in'))\n"
        "s3.pipe('clinic/list.csv', ('image\\n' + '\\n'.join('s3://' + n for n in names)).encode())"
    )
    environment = {**os.environ, **bucket}
    subprocess.run([sys.executable, "-c", script, f"{images}/"], env=environment, check=True)
    summary = end(start("s3://clinic/list.csv", "-o", "s3://clinic/out", **bucket))
    assert (summary["images"], summary["failed"]) == (COUNT, 1)
    fetch = "import fsspec, sys; fsspec.filesystem('s3').get('clinic/out', sys.argv[1], recursive=True)"
    subprocess.run([sys.executable, "-c", fetch, str(tmp_path / "out")], env=environment, check=True)
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == COUNT - 1
    table = parquet.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert all(row["location"].startswith("s3://clinic/in/") for row in table) and len(table) == COUNT
