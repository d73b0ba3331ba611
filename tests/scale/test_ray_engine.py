"""The program on Ray, where it is installed; ``tests/system/test_ray.py`` also kills workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dermseg.data.sources.synthetic import write_synthetic

pytest.importorskip("ray", reason="needs ray (make test-system)")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [ray]")


def segment(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "segment", *map(str, arguments)]
    return subprocess.run(
        [*command, "--save", "mask", "--json"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_ray_gives_what_the_local_engine_gives(tiny_bundle: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path, 20, seed=5, size=(90, 120))
    images, bundle = tmp_path / "images", tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    local = segment(images, "-o", tmp_path / "local", "--model", bundle)
    assert local.returncode == 0, local.stderr
    ray = ("--engine", "ray", "--workers", 2)
    done = segment(images, "-o", tmp_path / "ray", "--model", bundle, *ray)
    assert done.returncode == 0, done.stderr
    said = [json.loads(run.stdout) for run in (done, local)]
    assert said[0]["images"] == 20
    for count in ("images", "ok", "no_lesion", "failed", "review", "reject", "processed", "interrupted"):
        assert said[0][count] == said[1][count], count
    masks = [
        {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}
        for out in (tmp_path / "ray" / "masks", tmp_path / "local" / "masks")
    ]
    assert masks[0] == masks[1] and len(masks[0]) == 20
    table = parquet.read_table(tmp_path / "ray" / "results.parquet")
    assert table["file"].to_pylist() == sorted(table["file"].to_pylist()) and table.num_rows == 20

    (images / "one-more.png").write_bytes(next(images.glob("*")).read_bytes())
    other = segment(images, "-o", tmp_path / "ray", "--model", bundle, *ray, "--resume")
    assert other.returncode == 2 and "the list of images is another" in other.stderr

    shutil.rmtree(bundle)
    gone = segment(images, "-o", tmp_path / "gone", "--model", bundle, *ray)
    assert gone.returncode == 2 and "there is no bundle" in gone.stderr


def test_a_log_of_json_lines_is_nothing_else(tiny_bundle: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path, 2, seed=5, size=(90, 120))
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    job = (tmp_path / "images", "-o", tmp_path / "out", "--model", tiny_bundle, "--engine", "ray")
    none = segment(*job, "--tta", RAY_ADDRESS="auto")
    assert none.returncode == 1 and "no Ray at auto" in none.stderr
    done = segment(*job, "--workers", 1, "--log-json")  # other options: nothing was done before
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["start", "part", "end"]
    again = segment(*job, "--workers", 1, "--resume")
    assert "1 failed:\n  broken.jpg: " in again.stderr and "log level" not in again.stderr
