"""User stories of `dermseg segment`: the program as people and scripts call it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.main import main


def dermseg(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as it is installed."""
    command = [sys.executable, "-m", "dermseg.apps.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def write_photo(path: Path, *, radius: int = 20, size: tuple[int, int] = (90, 120)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*size, 3), 210, np.uint8)
    cv2.circle(image, (size[1] // 2, size[0] // 2), radius, (20, 30, 40), -1)
    assert cv2.imwrite(str(path), image)


def test_a_zip_with_one_broken_file(tiny_bundle: Path, tmp_path: Path) -> None:
    """A zip from a colleague: backslashes, a path that wants out, a broken file; all but that is done."""
    write_photo(tmp_path / "photo.jpg")
    data = (tmp_path / "photo.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("visit\\one.jpg", "../../out.jpg", "two.jpg"):
            archive.writestr(name, data)
        archive.writestr("broken.jpg", data[: len(data) // 3])
        archive.writestr("notes.txt", "not an image")
    done = dermseg("segment", "in.zip", "-o", "res", "--model", tiny_bundle, "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["ok"], summary["failed"]) == (4, 3, 1)
    assert summary["outputs"] == "res" and summary["images_per_second"] > 0
    assert len(summary["model"]["sha256"]) == 64
    assert "broken.jpg: " in done.stderr and str(tmp_path) not in done.stderr
    assert "Traceback" not in done.stderr
    masks = sorted(p.relative_to(tmp_path / "res/masks").as_posix() for p in tmp_path.rglob("*_segm*.png"))
    assert masks == ["out_segmentation.png", "two_segmentation.png", "visit/one_segmentation.png"]
    with (tmp_path / "res/results.csv").open(newline="", encoding="utf-8") as file:
        assert {row["file"]: row["status"] for row in csv.DictReader(file)}["broken.jpg"] == "failed"
    report = (tmp_path / "res/report.html").read_text("utf-8")
    assert "4 images: lesion found in 3, 1 failed." in report
    assert not (tmp_path.parent / "out_segmentation.png").exists()


def test_json_logs_and_a_second_run(tiny_bundle: Path, tmp_path: Path) -> None:
    """A script: every line of the log is JSON; the folder is not overwritten by accident."""
    for name in ("a.png", "sub/b.png"):
        write_photo(tmp_path / "in" / name)
    arguments = ("segment", "in", "-o", "res", "--model", tiny_bundle)
    done = dermseg(*arguments, "--log-json", "--save", "mask", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["start", "image", "image", "end"]
    again = dermseg(*arguments, cwd=tmp_path)
    assert again.returncode == 2 and "--resume" in again.stderr and "--overwrite" in again.stderr
    assert dermseg(*arguments, "--resume", cwd=tmp_path).returncode == 2  # --save differs
    same = dermseg(*arguments, "--resume", "--save", "mask", "--json", cwd=tmp_path)
    assert same.returncode == 0 and json.loads(same.stdout)["processed"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jpg"], "does not exist"),
        (["in", "--save", "labelme"], "mask, overlay, probability"),
        (["in", "--threshold", "1.5"], "between 0 and 1"),
        (["in", "--lesions", "both"], "largest or all"),
        (["in", "--workers", "0"], "at least 1"),
        (["in", "--model", "nowhere"], "there is no bundle 'nowhere'"),
        (["in", "--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_wrong_usage_says_what_to_do(
    arguments: list[str],
    said: str,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "in/a.png")
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(tiny_bundle)]
    with pytest.raises(SystemExit) as ended:
        main(["segment", *arguments, "-o", "res"])
    assert said in capsys.readouterr().err
    assert ended.value.code == 2
    assert not (tmp_path / "res").exists()


def test_outputs_inside_the_inputs_are_not_inputs(tiny_bundle: Path, tmp_path: Path) -> None:
    write_photo(tmp_path / "in/a.png")
    arguments = ("segment", "in", "-o", "in/results", "--model", tiny_bundle, "--json")
    assert dermseg(*arguments, cwd=tmp_path).returncode == 0
    again = dermseg(*arguments, "--resume", cwd=tmp_path)
    assert again.returncode == 0 and json.loads(again.stdout)["images"] == 1
    assert dermseg("segment", "in", "-o", "in", "--model", tiny_bundle, cwd=tmp_path).returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX")
@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
def test_interrupted_and_resumed(number: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """Ctrl-C ends politely, a kill does not; --resume gives the same masks either way."""
    for index in range(60):
        write_photo(tmp_path / f"in/{index}.png", radius=10 + index, size=(600, 800))
    arguments = ("segment", "in", "--model", tiny_bundle, "--workers", "1", "-o")
    assert dermseg(*arguments, "whole", cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "dermseg.apps.cli.main", *map(str, arguments), "res"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    journal, limit = tmp_path / "res/journal.jsonl", time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 5) and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(getattr(signal, number))
    _, said = process.communicate(timeout=60)
    if number == "SIGINT":
        assert process.returncode == 130 and "--resume" in said
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "res/results.csv").exists()
    done = dermseg(*arguments, "res", "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["processed"] < 60
    files = {p.relative_to(tmp_path / "whole"): p for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path / "res") for p in (tmp_path / "res").rglob("*") if p.is_file()} == set(
        files
    )
    for relative, path in files.items():
        if path.suffix in (".png", ".jpg"):
            assert (tmp_path / "res" / relative).read_bytes() == path.read_bytes(), relative
