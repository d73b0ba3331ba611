"""``dermseg measure`` as its users run it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dermseg.apps.cli import counter, measure
from dermseg.apps.cli.measure import COLUMNS, parse_spacing
from dermseg.errors import UsageError
from dermseg.images.roles import tell_apart
from dermseg.images.sources import ImageSource


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    square = np.zeros((120, 160), np.uint8)
    square[10:110, 20:120] = 255
    cv2.imwrite(str(folder / "square.png"), square)
    cv2.imwrite(str(folder / "empty.png"), np.zeros((50, 50), np.uint8))
    return folder


Run = Callable[..., tuple[int, str, str]]


def test_without_a_scale_there_are_no_millimetres(masks: Path, run: Run) -> None:
    code, out, _ = run("measure", str(masks), "--json")
    report = json.loads(out)
    empty, square = report["readings"]
    assert (code, report["masks"], report["failed"]) == (0, 2, 0)
    assert square["area_px"] == 10_000 and square["feret_min_px"] == 100
    assert square["perimeter_px"] == pytest.approx(400, rel=0.01)
    assert all(square[name] is None for name in COLUMNS if name.endswith(("_mm", "_mm2")))
    assert (empty["status"], empty["area_px"], empty["circularity"]) == ("no_lesion", 0, None)


def test_a_table_with_millimetres(masks: Path, tmp_path: Path, run: Run) -> None:
    table = tmp_path / "new" / "readings.csv"
    code, out, err = run("measure", str(masks / "square.png"), "--spacing-mm", "0.1,0.05", "-o", str(table))
    assert (code, out) == (0, "") and "1 of 1" in err
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert float(row["area_mm2"]) == pytest.approx(50.0)
    assert float(row["feret_min_mm"]) == pytest.approx(5.0)
    assert float(row["perimeter_mm"]) == pytest.approx(30.0, rel=0.01)
    assert row["touches_border"] == "false"


def test_a_stdout_that_cannot_encode_a_name(masks: Path) -> None:
    """As redirected output on Windows; the table comes, with that name escaped."""
    (masks / "square.png").rename(masks / "größe日.png")
    done = subprocess.run(
        [sys.executable, "-m", "dermseg", "measure", str(masks)],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert [row["file"] for row in csv.DictReader(done.stdout.decode("cp1252").splitlines())] == [
        "empty.png",
        "größe\\u65e5.png",
    ]


def test_one_bad_mask_is_one_failed_row(masks: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "_LINE_EVERY_S", 0.0)
    (masks / "torn.png").write_bytes((masks / "square.png").read_bytes()[:60])
    code, out, err = run("measure", str(masks))
    rows = {row["file"]: row for row in csv.DictReader(io.StringIO(out))}
    assert code == 1 and "torn.png" in err
    assert "measuring: 1 of 3 images" in err and "measuring: 3" not in err
    assert rows["torn.png"]["status"] == "failed" and rows["torn.png"]["message"]
    assert rows["square.png"]["status"] == "ok"


def label_map() -> np.ndarray:
    labels = np.zeros((120, 160), np.uint8)
    labels[10:60, 20:120] = 1
    labels[80:110, 90:130] = 2
    return labels


def run_folder(tmp_path: Path) -> Path:
    """As ``dermseg segment --lesions all`` leaves it."""
    out = tmp_path / "out"
    for kind in ("masks", "labels", "overlays"):
        (out / kind).mkdir(parents=True)
    (out / "journal.jsonl").write_text("")
    labels = label_map()
    cv2.imwrite(str(out / "labels" / "a_labels.png"), labels)
    cv2.imwrite(str(out / "labels" / "none_labels.png"), np.zeros_like(labels))
    cv2.imwrite(str(out / "masks" / "a_segmentation.png"), (labels > 0) * np.uint8(255))
    return out


@pytest.mark.parametrize("table", [True, False])
def test_interrupted_it_keeps_what_is_measured(
    masks: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, table: bool
) -> None:
    read, seen = measure._read, []

    def stopped(source: ImageSource) -> tuple:
        if seen:
            raise KeyboardInterrupt
        seen.append(source.name)
        return read(source)

    monkeypatch.setattr(measure, "_read", stopped)
    code, out, err = run("measure", masks, *(["-o", tmp_path / "out.csv"] if table else []))
    assert code == 130 and "holds the first 1 of" in err
    text = (tmp_path / "out.csv").read_text() if table else out
    assert [row["file"] for row in csv.DictReader(io.StringIO(text))] == seen


def test_each_lesion_of_a_run_is_a_row(tmp_path: Path, run: Run) -> None:
    out = run_folder(tmp_path)
    code, text, _ = run("measure", str(out), "--spacing-mm", "0.1", "--json")
    report = json.loads(text)
    first, second, none = report["readings"]
    assert (code, report["masks"], report["failed"]) == (0, 2, 0)
    assert [(row["file"], row["lesion"], row["area_px"]) for row in (first, second)] == [
        ("a_labels.png", 1, 5000),
        ("a_labels.png", 2, 1200),
    ]
    assert second["area_mm2"] == pytest.approx(12) and second["feret_max_mm"] == pytest.approx(5)
    assert (second["bbox_x"], second["components"], first["touches_border"]) == (90, 1, False)
    assert (none["lesion"], none["status"]) == (None, "no_lesion")
    _, text, _ = run("measure", str(out / "masks"), "--json")
    (together,) = json.loads(text)["readings"]
    assert (together["lesion"], together["area_px"], together["components"]) == (None, 6200, 2)


def test_label_maps_of_others(tmp_path: Path, run: Run) -> None:
    palette = Image.fromarray(label_map()).convert("P")
    palette.putpalette([255, 255, 255, 0, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "palette_labels.png")
    Image.fromarray(label_map().astype(np.uint16)).save(tmp_path / "deep_labels.tif")
    Image.fromarray(label_map() * np.uint16(300)).save(tmp_path / "large_labels.png")
    Image.fromarray(label_map()).convert("RGB").save(tmp_path / "rgb_labels.png")
    Image.fromarray(label_map()).save(tmp_path / "unnamed.png")
    code, text, err = run("measure", str(tmp_path), "--json")
    rows = json.loads(text)["readings"]
    assert code == 1
    for name in ("palette_labels.png", "deep_labels.tif"):
        assert [row["area_px"] for row in rows if row["file"] == name] == [5000, 1200]
    failed = {row["file"]: row["message"] for row in rows if row["status"] == "failed"}
    assert set(failed) == {"large_labels.png", "rgb_labels.png", "unnamed.png"}
    assert "0 to 600" in failed["large_labels.png"] and "_labels" in failed["unnamed.png"]
    assert "one channel" in err


def test_a_run_without_masks_is_said(tmp_path: Path, run: Run) -> None:
    out = run_folder(tmp_path)
    shutil.rmtree(out / "masks")
    shutil.rmtree(out / "labels")
    code, _, err = run("measure", str(out))
    assert code == 2 and "wrote no masks" in err


def test_one_spacing_for_images_of_several_sizes_is_remarked(masks: Path, run: Run) -> None:
    assert "one spacing for images of 2 sizes" in run("measure", str(masks), "--spacing-mm", "0.1")[2]
    assert run("measure", str(masks))[2] == ""
    assert run("measure", str(masks / "square.png"), "--spacing-mm", "1")[2] == ""


def test_how_a_grey_mask_was_read_is_said(tmp_path: Path, run: Run) -> None:
    soft = cv2.GaussianBlur((label_map() == 1) * np.uint8(255), (0, 0), 1)
    cv2.imwrite(str(tmp_path / "soft.png"), soft)
    _, text, _ = run("measure", str(tmp_path / "soft.png"), "--json")
    assert "from 128 up taken as lesion" in json.loads(text)["readings"][0]["message"]


def photographs(folder: Path) -> Path:
    """Of ``label_map``: two lesions of different darkness."""
    folder.mkdir()
    grey = np.uint8([210, 60, 130])[label_map()]
    cv2.imwrite(str(folder / "a.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    cv2.imwrite(str(folder / "none.png"), np.full((120, 160, 3), 210, np.uint8))
    return folder


def test_colours_of_each_lesion_of_a_run(tmp_path: Path, run: Run) -> None:
    out, photos = run_folder(tmp_path), photographs(tmp_path / "photos")
    code, text, _ = run("measure", str(out), "--images", str(photos), "--json")
    first, second, none = json.loads(text)["readings"]
    assert code == 0 and none["contrast"] is None and none["message"] is None
    assert first["contrast"] > 1.5 * second["contrast"] > 20
    assert first["skin_l"] == pytest.approx(second["skin_l"], abs=0.5)
    assert first["lesion_l"] + first["contrast"] == pytest.approx(first["skin_l"], abs=0.1)
    _, text, _ = run("measure", str(out / "masks"), "--images", str(photos), "--json")
    assert json.loads(text)["readings"][0]["colour_spread"] > 5  # both together
    shutil.copytree(photos, out, dirs_exist_ok=True)  # as of ``segment photos/*.png -o photos``
    code, text, _ = run("measure", str(out), "--images", str(out), "--json")
    assert code == 0 and json.loads(text)["readings"][0]["contrast"] == first["contrast"]


def test_photographs_that_are_missing_broken_or_of_another_size_cost_the_colours_alone(
    tmp_path: Path, run: Run
) -> None:
    out, photos = run_folder(tmp_path), photographs(tmp_path / "photos")
    table = tmp_path / "readings.csv"
    for spoil, reason in [
        (lambda: (photos / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n torn"), "photograph a.png"),
        (lambda: cv2.imwrite(str(photos / "a.png"), np.zeros((60, 80, 3), np.uint8)), "80 x 60"),
        ((photos / "a.png").unlink, "no photograph of this name"),
    ]:
        spoil()
        code, _, err = run("measure", str(out), "--images", str(photos), "-o", str(table))
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert code == 1 and reason in err and "1 of them without colours" in err
        assert [row["status"] for row in rows] == ["ok", "ok", "no_lesion"]
        assert reason in rows[0]["message"] and rows[0]["area_px"] == "5000" and rows[0]["contrast"] == ""
    code, _, err = run("measure", str(out), "--images", str(out))
    assert code == 2 and "no photograph in what was named" in err and "results of an earlier run" in err
    assert run("measure", str(out), "--images", str(tmp_path / "nowhere"))[0] == 2
    again = photographs(tmp_path / "again")
    readers = [shutil.copytree(out / "masks", tmp_path / name) for name in ("one", "two")]
    code, _, err = run("measure", *map(str, readers), "--images", str(again), "-o", str(table))
    assert code == 1 and "1 of them without colours" in err and "folder by folder" in err


@pytest.mark.parametrize(
    "text", ["0", "-1", "a", "", "1,2,3", "nan", "inf", "0.1,", "1e300", "1e-300", "0.1,1e4"]
)
def test_a_wrong_spacing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="spacing-mm"):
        parse_spacing(text)


def test_label_maps_beside_photographs_are_no_photographs(tmp_path: Path) -> None:
    names = ["a.jpg", "a_labels.png", "b_labels.png"]
    roles = tell_apart([ImageSource(name, tmp_path / name) for name in names])
    assert [source.name for source in roles.photographs] == ["a.jpg", "b_labels.png"]
