"""Names whose umlauts are two signs, as on the disks of Macs, belong to those that were typed."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.data.sources.importer import import_dataset
from dermseg.data.sources.tables import read_metadata, read_splits
from dermseg.data.visits import read_visits
from dermseg.evaluation.metadata import attach
from dermseg.evaluation.metadata import read_metadata as read_facts
from dermseg.evaluation.score import score_folders
from dermseg.images.find import find_images
from dermseg.images.roles import tell_apart
from dermseg.labeling.editor.files import list_images, read_second

TYPED = "Fuß ü"
ON_DISK = unicodedata.normalize("NFD", TYPED)


def png(seed: int, *, mask: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    if mask:
        pixels = np.zeros((40, 50), np.uint8)
        pixels[10:30, 10:30] = 255
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "Fotos für mich"  # a folder that has its own form
    folder.mkdir()
    (folder / f"{ON_DISK}.png").write_bytes(png(1))
    if os.listdir(folder) != [f"{ON_DISK}.png"]:  # noqa: PTH208
        pytest.skip("this file system has one form for both")
    return folder


def test_masks_and_tables_find_their_images(photographs: Path, tmp_path: Path) -> None:
    masks = tmp_path / "drawn"
    masks.mkdir()
    (masks / f"{TYPED}_mask.png").write_bytes(png(1, mask=True))
    table = tmp_path / "people.csv"
    table.write_text(f"image_id,patient_id,dx,split\n{TYPED},P1,nv,test\n", encoding="utf-8")
    result = import_dataset(
        [photographs], masks=[masks], metadata=read_metadata(table), splits=read_splits(table), kind="folder"
    )
    (row,) = result.rows
    assert (row.image_id, row.subject, row.split) == (TYPED, "P1", "test")
    assert (photographs / f"{ON_DISK}.png").samefile(row.root / row.image)
    found = tmp_path / "found"
    found.mkdir()
    (found / f"{ON_DISK}.png").write_bytes(png(1, mask=True))
    scored = score_folders(found, masks)
    assert attach(scored, read_facts(table)).scores[0].facts["diagnosis"] == "nevus"
    (photographs / f"{TYPED}_mask.png").write_bytes(png(1, mask=True))
    roles = tell_apart(find_images([photographs]))
    assert [len(roles.photographs), len(roles.masks)] == [1, 1]


def test_outlines_of_labelme_find_their_image(photographs: Path) -> None:
    points = [[5.0, 5.0], [30.0, 5.0], [30.0, 30.0]]
    shape = {"label": "lesion", "points": points, "shape_type": "polygon", "group_id": None, "flags": {}}
    content = {"shapes": [shape], "imagePath": f"{TYPED}.png", "imageHeight": 40, "imageWidth": 50}
    (photographs / "other.json").write_text(json.dumps(content), encoding="utf-8")
    assert len(import_dataset([photographs], kind="labelme", folder=photographs.parent / "made").rows) == 1


def test_a_second_reader_has_typed_the_name(photographs: Path, tmp_path: Path) -> None:
    content = {"shapes": [], "imagePath": f"{TYPED}.png", "imageHeight": 40, "imageWidth": 50}
    (tmp_path / f"{TYPED}.json").write_text(json.dumps(content), encoding="utf-8")
    (entry,) = list_images([photographs])
    assert read_second(entry, tmp_path) is not None


def test_a_table_of_visits_finds_its_photographs(photographs: Path) -> None:
    (photographs / "visits.csv").write_text(f"image\n{TYPED}.png\n", encoding="utf-8")
    (((visit,),), _) = read_visits(photographs / "visits.csv")
    assert visit.image.path.is_file()
