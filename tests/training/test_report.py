"""What a training leaves for people to read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dermseg.evaluation.output import FIGURE, METRICS_FILE, PAGE, PER_IMAGE
from dermseg.evaluation.table import read_per_image
from dermseg.experiments.validation import VALIDATION

Run = Callable[..., tuple[int, str, str]]


def test_a_run_ends_with_each_validation_image_and_a_page(
    tiny_config: tuple[Path, dict[str, Any]], tmp_path: Path, run: Run
) -> None:
    file, _ = tiny_config
    code, _, err = run("train", file, "-o", tmp_path / "run", "--mirror", tmp_path / "drive")
    found = tmp_path / "run" / VALIDATION
    assert code == 0 and str(found) in err
    assert err.index("the network is trained") < err.index("a page to read")  # it may take minutes
    rows = list(csv.DictReader((found / PER_IMAGE).read_text().splitlines()))
    summary = json.loads((found / METRICS_FILE).read_text())
    assert len(rows) == summary["n"] == 4 and "checkpoint was chosen" in summary["protocol"]["text"]
    assert summary["dice"]["mean"] == pytest.approx(sum(float(row["dice"]) for row in rows) / 4)
    page = (found / PAGE).read_text()
    assert "Worst images" in page and summary["model"]["architecture"] in page
    assert (found / FIGURE).is_file()
    assert (tmp_path / "drive" / "run" / VALIDATION / PAGE).read_text() == page
    assert read_per_image(found / PER_IMAGE).n == 4  # as compare and the dashboard read it


def test_a_mirror_that_is_gone_takes_no_report_with_it(
    tiny_config: tuple[Path, dict[str, Any]], tmp_path: Path, run: Run
) -> None:
    (tmp_path / "file").write_text("no drive")
    code, _, err = run("train", tiny_config[0], "-o", tmp_path / "run", "--mirror", tmp_path / "file")
    assert code == 0 and (tmp_path / "run" / VALIDATION / PAGE).is_file()
    assert f"a page to read: {tmp_path / 'run' / VALIDATION}" in err
    assert "not in the mirror" in err and "no report" not in err


def test_a_run_whose_images_are_gone_is_trained_all_the_same(
    tiny_config: tuple[Path, dict[str, Any]], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OSError("no such drive")

    monkeypatch.setattr("dermseg.experiments.validation.select_rows", gone)
    code, _, err = run("train", tiny_config[0], "-o", tmp_path / "run")
    assert code == 0 and "no report of the validation images: no such drive" in err
    assert (tmp_path / "run" / "best.safetensors").is_file()
