"""``dermseg measure`` as its users run it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.main import main
from dermseg.apps.cli.measure import COLUMNS, parse_spacing
from dermseg.errors import UsageError


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    square = np.zeros((120, 160), np.uint8)
    square[10:110, 20:120] = 255
    cv2.imwrite(str(folder / "square.png"), square)
    cv2.imwrite(str(folder / "empty.png"), np.zeros((50, 50), np.uint8))
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["measure", *args])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_without_a_scale_there_are_no_millimetres(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(masks), "--json")
    report = json.loads(out)
    empty, square = report["readings"]
    assert (code, report["masks"], report["failed"]) == (0, 2, 0)
    assert square["area_px"] == 10_000 and square["feret_min_px"] == 100
    assert square["perimeter_px"] == pytest.approx(400, rel=0.01)
    assert all(square[name] is None for name in COLUMNS if name.endswith(("_mm", "_mm2")))
    assert (empty["status"], empty["area_px"], empty["circularity"]) == ("no_lesion", 0, None)


def test_a_table_with_millimetres(masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "new" / "readings.csv"
    code, out, err = run(capsys, str(masks / "square.png"), "--spacing-mm", "0.1,0.05", "-o", str(table))
    assert (code, out) == (0, "") and "1 of 1" in err
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert float(row["area_mm2"]) == pytest.approx(50.0)
    assert float(row["feret_min_mm"]) == pytest.approx(5.0)
    assert float(row["perimeter_mm"]) == pytest.approx(30.0, rel=0.01)
    assert row["touches_border"] == "false"


def test_one_bad_mask_is_one_failed_row(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (masks / "torn.png").write_bytes((masks / "square.png").read_bytes()[:60])
    code, out, err = run(capsys, str(masks))
    rows = {row["file"]: row for row in csv.DictReader(io.StringIO(out))}
    assert code == 1 and "torn.png" in err
    assert rows["torn.png"]["status"] == "failed" and rows["torn.png"]["message"]
    assert rows["square.png"]["status"] == "ok"


@pytest.mark.parametrize("text", ["0", "-1", "a", "", "1,2,3", "nan", "inf", "0.1,"])
def test_a_wrong_spacing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="spacing-mm"):
        parse_spacing(text)
