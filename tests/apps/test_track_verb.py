"""``dermseg track`` as its users run it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dermseg import files
from dermseg.apps.cli.track import CHANGE_COLUMNS, READING_COLUMNS
from dermseg.errors import DermsegError
from dermseg.inference import following
from dermseg.inference.following import Followed, Photograph
from dermseg.inference.predictor import Model

Run = Callable[..., tuple[int, str, str]]
SIDE = 320


def draw(path: Path, radius: float, skin: int = 1) -> Path:
    """A dark disc on patterned skin."""
    rng = np.random.default_rng(skin)
    spots = sum(cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), s) * s for s in (1.2, 2.5, 5.0))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    grey = np.where(np.hypot(x, y) < radius, 60 + 10 * spots, 200 + 10 * spots)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.clip(grey, 0, 255).astype(np.uint8))
    return path


def read(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.read_text())))


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """Two lesions: one grows by 44 % in area, one has a photograph that cannot be read."""
    for name, radius, skin in (("a1", 40, 1), ("a2", 44, 1), ("a3", 48, 1), ("b1", 50, 2), ("b3", 50, 2)):
        draw(tmp_path / "shots" / f"{name}.png", radius, skin)
    (tmp_path / "shots" / "b2.png").write_bytes(b"no image")
    rows = [
        "image,lesion,date",
        "shots/a3.png,arm,2026-07-01",
        "shots/a1.png,arm,2026-01-01",
        "shots/a2.png,arm,2026-04-01",
        "shots/b1.png,<back>,2026-01-01",
        "shots/b2.png,<back>,2026-02-01",
        "shots/b3.png,<back>,2026-03-01",
        "shots/b3.png,alone,2026-03-01",
    ]
    path = tmp_path / "visits.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_table_of_lesions(visits: Path, tmp_path: Path, tiny_bundle: Path, run: Run) -> None:
    out = tmp_path / "out"
    code, stdout, err = run("track", visits, "--model", tiny_bundle, "-o", out)
    assert (code, stdout) == (1, "")  # a photograph failed, the rest is done
    assert (
        "shots/b2.png" in err and "5 of 6 photographs" in err and "lesions with a single photograph: 1" in err
    )
    changes = read(out / "changes.csv")
    assert tuple(changes[0]) == CHANGE_COLUMNS
    assert [row["file"] for row in changes] == ["shots/a2.png", "shots/a3.png", "shots/b3.png"]
    assert [row["days"] for row in changes] == ["90", "181", "59"]
    grown = [float(row["area_change"]) for row in changes]
    assert grown == pytest.approx([0.21, 0.44, 0.0], abs=0.05)
    assert {row["scale_from"] for row in changes} == {"skin"}
    readings = read(out / "readings.csv")
    assert tuple(readings[0]) == READING_COLUMNS
    assert [row["status"] for row in readings] == ["ok", "ok", "ok", "ok", "failed", "ok"]
    assert readings[0]["taken"] == "2026-01-01" and readings[0]["area_mm2"] == ""
    assert all(float(row["contrast"]) > 10 for row in readings if row["status"] == "ok")
    page = (out / "report.html").read_text()
    assert "2 lesions in 6 photographs" in page and "&lt;back&gt;" in page and "<back>" not in page
    assert '<div class="name">&lt;back&gt;</div>' in page  # a long name breaks instead of hiding the figures
    assert "Area over time" in page and page.count("<img") == 5
    again, _, err = run("track", visits, "--model", tiny_bundle, "-o", out)
    assert again == 2 and "--overwrite" in err


def test_one_spacing_for_photographs_of_several_sizes_is_remarked(
    tmp_path: Path, tiny_bundle: Path, run: Run
) -> None:
    """One of them was made smaller: by the spacing the lesion has shrunk to a quarter."""
    first, second = draw(tmp_path / "1.png", 40), draw(tmp_path / "2.png", 40)
    cv2.imwrite(str(second), cv2.resize(cv2.imread(str(second)), None, fx=0.5, fy=0.5))
    _, _, err = run("track", first, second, "--model", tiny_bundle, "--spacing-mm", "0.1")
    assert "one spacing for photographs of 2 sizes in pixels" in err


def test_photographs_of_one_lesion_in_the_order_given(tmp_path: Path, tiny_bundle: Path, run: Run) -> None:
    first, second = draw(tmp_path / "z" / "mole.png", 40), draw(tmp_path / "a" / "mole.png", 44)
    code, out, err = run("track", first, second, "--model", tiny_bundle, "--spacing-mm", "0.1", "--json")
    found = json.loads(out)
    assert "one spacing" not in err
    assert code == 0 and (found["lesions"], found["photographs"], found["failed"]) == (1, 2, 0)
    (change,) = found["changes"]
    assert change["area_change"] == pytest.approx(0.21, abs=0.04) and change["scale_from"] == "spacing"
    assert change["first_file"] == str(first) and change["file"] == str(second)
    assert change["exceeds"] is None and change["overlap"] > 0.9
    assert found["readings"][0]["area_mm2"] == pytest.approx(np.pi * 4**2, rel=0.03)
    code, out, _ = run("track", tmp_path / "z", tmp_path / "a", "--model", tiny_bundle)
    (row,) = csv.DictReader(io.StringIO(out))
    assert code == 0 and row["scale_from"] == "skin"


def test_masks_beside_photographs_that_a_shell_names_are_none(
    tmp_path: Path, tiny_bundle: Path, run: Run
) -> None:
    """``dermseg track visits/*`` followed the masks as if they were photographs of other days."""
    for name, radius in (("1", 40), ("2", 44)):
        draw(tmp_path / f"{name}.png", radius)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}_mask.png"), cv2.circle(mask, (160, 160), radius, 255, -1))
    named = sorted(tmp_path.glob("*.png"))
    code, out, err = run("track", *named, "--model", tiny_bundle)
    (row,) = csv.DictReader(io.StringIO(out))
    assert code == 0 and (row["first_file"], row["file"]) == (str(named[0]), str(named[2]))
    assert "2 files are left out: masks of other inputs, by name" in err


@pytest.mark.parametrize("others", [[], ["visits.csv"]])
def test_one_photograph_is_no_course(tmp_path: Path, tiny_bundle: Path, run: Run, others: list[str]) -> None:
    photograph = draw(tmp_path / "a.png", 40)
    (tmp_path / "visits.csv").write_text("image,lesion\na.png,x\n")
    code, out, err = run("track", photograph, *(tmp_path / o for o in others), "--model", tiny_bundle)
    assert (code, out) == (2, "") and ("nothing beside it" if others else "two photographs") in err
    code, _, err = run("track", tmp_path / "visits.csv", "--model", tiny_bundle)
    assert code == 2 and "no lesion has two photographs" in err


def test_what_is_not_compared_is_said(tmp_path: Path, tiny_bundle: Path, run: Run) -> None:
    nothing, one, two = (draw(tmp_path / f"{radius}.png", radius) for radius in (0, 40, 41))
    code, out, err = run("track", nothing, one, two, "--model", tiny_bundle)
    assert code == 0 and f"not compared: {nothing}: no lesion was found" in err
    (change,) = csv.DictReader(io.StringIO(out))
    assert change["first_file"] == str(one) and change["file"] == str(two)


@pytest.mark.parametrize("name", ["report.html", "readings.csv", "changes.csv"])
def test_results_of_another_verb_are_not_replaced(
    visits: Path, tmp_path: Path, tiny_bundle: Path, run: Run, name: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("of dermseg score, say")
    code, _, err = run("track", visits, "--model", tiny_bundle, "-o", tmp_path / "out")
    assert code == 2 and name in err and "--overwrite" in err
    assert [file.name for file in (tmp_path / "out").iterdir()] == [name]


def test_a_disk_without_room_for_the_pictures_has_the_tables(
    visits: Path, tmp_path: Path, tiny_bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.atomic_write

    def full(path: Path, data: bytes) -> None:
        if path.name == "report.html":
            raise DermsegError("cannot be written: No space left on device", file=path)
        write(path, data)

    monkeypatch.setattr(files, "atomic_write", full)
    code, _, err = run("track", visits, "--model", tiny_bundle, "-o", tmp_path / "out")
    assert code == 1 and "report.html: cannot be written" in err
    assert len(read(tmp_path / "out" / "changes.csv")) == 3 and len(read(tmp_path / "out/readings.csv")) == 6


@pytest.mark.parametrize("folder", [True, False])
def test_interrupted_it_keeps_what_is_finished(
    visits: Path, tmp_path: Path, tiny_bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    follow, at = following.follow, ["<back>"]

    def stopped(model: Model, group: Sequence[Photograph], **more: Any) -> Followed:
        if group[0].lesion in at:
            raise KeyboardInterrupt
        return follow(model, group, **more)

    monkeypatch.setattr(following, "follow", stopped)
    where = ["-o", tmp_path / "out"] if folder else []
    code, out, err = run("track", visits, "--model", tiny_bundle, *where)
    assert code == 130 and "Stopped" in err
    table = (tmp_path / "out" / "changes.csv").read_text() if folder else out
    assert [row["lesion"] for row in csv.DictReader(io.StringIO(table))] == ["arm", "arm"]
    at.append("arm")  # before anything is finished: what was there stays
    code, _, err = run("track", visits, "--model", tiny_bundle, *where, "--overwrite")
    assert code == 130 and "No lesion was finished." in err
    assert not folder or (tmp_path / "out" / "changes.csv").read_text() == table


def test_no_name_of_a_file_is_a_formula(
    tmp_path: Path, tiny_bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = draw(tmp_path / "=1+1.png", 40), draw(tmp_path / "b.png", 40)
    monkeypatch.chdir(tmp_path)
    _, out, _ = run("track", first.name, second.name, "--model", tiny_bundle)
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["first_file"], row["file"]) == ("./=1+1.png", "b.png")
