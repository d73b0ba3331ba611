"""``dermseg data import`` takes DICOM folders, with segmentations or images as masks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from dermseg.data.coco import write_coco
from dermseg.data.index import open_image, open_mask
from dermseg.data.labelme import Annotation, mask_to_shapes, write_labelme
from dermseg.data.sources.importer import import_dataset
from dermseg.data.sources.tables import read_metadata
from dermseg.dicom.identity import Origin
from dermseg.dicom.write import to_bytes, write_objects
from dermseg.images.dicom import read_dataset
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask, save_mask
from dermseg.inference.options import describe_model
from dermseg.inference.predictor import load_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def test_photographs_segmentations_and_png_masks(
    files: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    model = load_model(tiny_bundle)
    expected = {}
    for name, pixels in (("IM1", files.lesion()), ("b.dcm", cv2.flip(files.lesion(100, 140), 1))):
        data = files.to_bytes(files.photograph(pixels, PatientID=f"of {name}"))
        (tmp_path / name).write_bytes(data)
        result = model.segment(data)
        origin = Origin(read_dataset(data), describe_model(model), {}, datetime(2026, 1, 1))
        made = write_objects(origin, result, ["dicom-seg", "dicom-probability", "dicom-sr"])
        if name == "IM1":
            for number, dataset in enumerate(made.values()):
                (tmp_path / f"r{number}.dcm").write_bytes(to_bytes(dataset))
        else:
            save_mask(result.mask, tmp_path / "b_segmentation.png")
        expected[name.removesuffix(".dcm")] = result.mask
    (tmp_path / "c.dcm").write_bytes(files.to_bytes(files.photograph()))
    lone = files.to_bytes(files.photograph())
    (tmp_path / "d.dcm").write_bytes(lone)
    origin = Origin(read_dataset(lone), describe_model(model), {}, datetime(2026, 1, 1))
    made = write_objects(origin, model.segment(lone), ["dicom-probability"])
    (tmp_path / "e.dcm").write_bytes(to_bytes(made["dicom-probability"]))
    (tmp_path / "notes").write_text("no image")
    imported = import_dataset([tmp_path])
    assert imported.kind == "dicom"
    assert {row.image_id: row.subject for row in imported.rows} == {"IM1": "of IM1", "b": "of b.dcm"}
    for row in imported.rows:
        assert np.array_equal(load_mask(open_mask(row)), expected[row.image_id])
        assert load_image(open_image(row)).info.format == "DICOM"
        assert (row.height, row.width) == expected[row.image_id].shape
    # "r1", the probability beside the outline of IM1, is passed over in silence.
    reasons = {(Path(item.file).stem, item.reason) for item in imported.rejected}
    assert reasons == {
        ("c", "no mask for this image"),
        ("d", "no mask for this image"),
        ("e", "a FRACTIONAL segmentation is a probability, no mask, and no BINARY one is beside it"),
        ("r2", "a Comprehensive SR holds no picture"),
    }


def test_outlines_that_people_drew_on_dicom_photographs(files: ModuleType, tmp_path: Path) -> None:
    """As ``dermseg desktop`` writes them, also where the photograph was converted to PNG beside."""
    mask = np.zeros((96, 128), np.bool_)
    mask[20:60, 30:90] = True
    photographs = tmp_path / "photos"
    photographs.mkdir()
    photograph = files.to_bytes(files.photograph(PatientID="P7"))
    (photographs / "a.dcm").write_bytes(photograph)
    cv2.imwrite(str(photographs / "a.png"), files.lesion())
    shapes = tuple(mask_to_shapes(mask, "lesion"))
    annotation = write_labelme(Annotation("a.dcm", 128, 96, shapes))
    coco = write_coco([("a.dcm", 128, 96, [mask])], ["lesion"])
    for kind, content in (("labelme", annotation), ("coco", coco)):
        (photographs / "a.json").write_bytes(content)
        (row,) = import_dataset([photographs], kind=kind, folder=tmp_path / kind).rows
        assert Path(row.image).name == "a.dcm" and row.subject.endswith("P7")
        assert np.array_equal(load_mask(open_mask(row)), mask)


@pytest.mark.parametrize("kind", ["labelme", "coco", "dicom"])
def test_a_patient_who_is_not_known_is_none(files: ModuleType, tmp_path: Path, kind: str) -> None:
    """Else all photographs without a patient would be of one, in one split."""
    mask = np.zeros((96, 128), np.bool_)
    mask[20:60, 30:90] = True
    for name, patient in (("a", "UNKNOWN"), ("b", " n/a "), ("c", "P7")):
        photograph = files.photograph(files.lesion(96, 128), PatientID=patient)
        (tmp_path / f"{name}.dcm").write_bytes(files.to_bytes(photograph))
        annotation = Annotation(f"{name}.dcm", 128, 96, tuple(mask_to_shapes(mask, "lesion")))
        if kind == "labelme":
            (tmp_path / f"{name}.json").write_bytes(write_labelme(annotation))
        if kind == "dicom":
            save_mask(mask, tmp_path / f"{name}_segmentation.png")
    if kind == "coco":
        drawn = [(f"{name}.dcm", 128, 96, [mask]) for name in "abc"]
        (tmp_path / "all.json").write_bytes(write_coco(drawn, ["lesion"]))
    imported = import_dataset([tmp_path], kind=kind, folder=tmp_path / "store")
    assert [row.subject for row in imported.rows] == ["", "", "P7"], imported.rejected


def test_a_table_without_patients_takes_none_away(files: ModuleType, tmp_path: Path) -> None:
    """A table of lesions hid the patients of the headers, whose photographs were torn apart by a split."""
    mask = np.zeros((96, 128), np.bool_)
    mask[20:60, 30:90] = True
    for name in "abc":
        photograph = files.photograph(files.lesion(96, 128), PatientID="P7")
        (tmp_path / f"{name}.dcm").write_bytes(files.to_bytes(photograph))
        save_mask(mask, tmp_path / f"{name}_segmentation.png")
    table = tmp_path / "lesions.csv"
    table.write_text("image,lesion,patient\na.dcm,L1,\nb.dcm,L2,P8\n")
    rows = import_dataset([tmp_path], metadata=read_metadata(table)).rows
    assert [(row.subject, row.lesion) for row in rows] == [("P7", "L1"), ("P8", "L2"), ("P7", "")]


@pytest.mark.parametrize(("frames", "taken"), [(1, True), (2, False), ([1, 2], False)])
def test_an_outline_of_another_frame_is_not_laid_on_the_first(
    files: ModuleType, tiny_bundle: Path, tmp_path: Path, frames: int | list[int], taken: bool
) -> None:
    model = load_model(tiny_bundle)
    photograph = files.photograph(kind="multiframe", frames=2)
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(photograph))
    result = model.segment(tmp_path / "a.dcm")
    origin = Origin(photograph, describe_model(model), {}, datetime(2026, 1, 1))
    made = write_objects(origin, result, ["dicom-seg"])["dicom-seg"]
    for element in made.iterall():
        if element.keyword == "ReferencedFrameNumber":
            element.value = frames
    (tmp_path / "s.dcm").write_bytes(to_bytes(made))
    imported = import_dataset([tmp_path])
    assert len(imported.rows) == taken
    reasons = [item.reason for item in imported.rejected if Path(item.file).name == "s.dcm"]
    assert reasons == (
        [] if taken else ["the segmentation is about frame 2 of its photograph, of which the first is read"]
    )
