"""Results as DICOM objects: valid by an independent validator, and the same when they are read back."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from highdicom.seg import segread
from highdicom.sr import srread
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from dermseg.dicom.deidentify import deidentify
from dermseg.dicom.find import find_files
from dermseg.dicom.identity import Origin, derive_uid
from dermseg.dicom.pseudonyms import Pseudonyms
from dermseg.dicom.to_png import write_pngs
from dermseg.dicom.write import to_bytes, write_objects
from dermseg.errors import ImageError
from dermseg.evaluation.score import read_mask
from dermseg.images.decode import decode
from dermseg.images.dicom import read_dataset
from dermseg.images.load import load_image, open_header
from dermseg.images.masks import load_mask
from dermseg.images.sources import as_source
from dermseg.inference.options import describe_model
from dermseg.inference.outputs import DICOM_KINDS
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.result import Result
from dermseg.quality.verdict import Finding, make_verdict
from dermseg.uncertainty.predicted_dice import Judgement

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
OPTIONS = {"threshold": None, "lesions": "largest", "tta": False}


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return load_model(tiny_bundle)


def write(
    model: Model, files: ModuleType, ds: Dataset, **options: Any
) -> tuple[Origin, Result, dict[str, Dataset]]:
    data = files.to_bytes(ds)
    result = model.segment(data, **options)
    origin = Origin(
        read_dataset(data), describe_model(model), OPTIONS | options, datetime(2026, 1, 2, 3, 4, 5)
    )
    return origin, result, write_objects(origin, result, DICOM_KINDS, overlay=files.lesion())


@pytest.mark.parametrize("kind", ["dermoscopic", "photographic", "capture", "multiframe"])
@pytest.mark.parametrize("spacing", [None, (0.02, 0.03)])
def test_objects_are_valid_and_read_back(
    model: Model,
    files: ModuleType,
    validate: Callable[[Path], list[str]],
    tmp_path: Path,
    kind: str,
    spacing: tuple[float, float] | None,
) -> None:
    ds = files.photograph(kind=kind, spacing=spacing, frames=2 if kind == "multiframe" else 1)
    origin, result, made = write(model, files, ds)
    assert result.status == "ok" and 0 < result.mask.sum() < result.mask.size
    for name, dataset in made.items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(to_bytes(dataset))
        assert validate(path) == []
        back = dcmread(path)
        for shared in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDate"):
            assert back[shared].value == ds[shared].value
        assert back.SeriesInstanceUID != ds.SeriesInstanceUID
    seg = segread(tmp_path / "dicom-seg.dcm")
    assert np.array_equal(seg.pixel_array > 0, result.mask)
    found = seg.get_pixels_by_source_instance([origin.image_uid], combine_segments=False)
    assert np.array_equal(found[0, ..., 0] > 0, result.mask)
    assert np.array_equal(load_mask(tmp_path / "dicom-seg.dcm"), result.mask)
    described = seg.get_segment_description(1)
    assert described.segment_label == "Lesion"
    assert described.segmented_property_type == codes.SCT.SkinLesion
    assert described.tracking_uid == origin.tracking_uid(1)
    algorithm = described.algorithm_identification
    assert (algorithm.name, algorithm.version) == (model.card.name, model.card.version)
    assert model.sha256 in algorithm.parameters["network_sha256"]
    (procedure,) = [
        item.ConceptCodeSequence[0].CodeValue
        for item in made["dicom-sr"].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Procedure reported"
    ]
    assert (procedure == codes.SCT.DermoscopicPhotography.value) == (kind == "dermoscopic")
    assert list(write_objects(origin, result, ["dicom-seg"])) == ["dicom-seg"]
    probability = segread(tmp_path / "dicom-probability.dcm")
    assert np.array_equal(probability.pixel_array, np.rint(result.probability * 255))
    header = open_header(tmp_path / "dicom-probability.dcm")
    assert np.array_equal(np.asarray(decode(header)), probability.pixel_array)
    with pytest.raises(ImageError, match="outline on it, not a photograph"):
        load_image(tmp_path / "dicom-sc.dcm")  # it would be segmented, or trained on
    capture = load_image(tmp_path / "dicom-sc.dcm", allow_drawn_on=True)
    sources = find_files([tmp_path / "dicom-sc.dcm"])
    assert write_pngs(sources, tmp_path / "png")[0].error is None
    assert deidentify(sources, tmp_path / "clean", Pseudonyms(bytes(32))).failed == 0
    assert np.abs(capture.pixels.astype(int) - files.lesion()).mean() < 4


@pytest.mark.parametrize(("kind", "frames"), [("dermoscopic", 1), ("multiframe", 1), ("multiframe", 2)])
def test_a_frame_is_named_only_of_several(
    model: Model,
    files: ModuleType,
    validate: Callable[[Path], list[str]],
    tmp_path: Path,
    kind: str,
    frames: int,
) -> None:
    """Cameras write a Number of Frames of 1 into objects of one picture."""
    ds = files.photograph(kind=kind, frames=frames, NumberOfFrames=frames)
    for name, dataset in write(model, files, ds)[2].items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(to_bytes(dataset))
        assert validate(path) == []
        named = [element.value for element in dataset.iterall() if element.keyword == "ReferencedFrameNumber"]
        assert named.count(1) == (frames > 1) + (name == "dicom-sr"), name  # the report's other: the segment
        classes = {item.ReferencedSOPClassUID for item in _references(dataset, ds.SOPInstanceUID)}
        assert classes == {ds.SOPClassUID}


def _references(dataset: Dataset, uid: str) -> list[Dataset]:
    items = [item for element in dataset.iterall() if element.VR == "SQ" for item in element.value]
    return [item for item in items if item.get("ReferencedSOPInstanceUID") == uid]


@pytest.mark.parametrize("spacing", [None, (0.02, 0.03)])
def test_the_report_measures_in_mm_only_where_it_can(
    model: Model, files: ModuleType, spacing: tuple[float, float] | None
) -> None:
    origin, result, made = write(model, files, files.photograph(spacing=spacing))
    report = srread(BytesIO(to_bytes(made["dicom-sr"])))
    (group,) = report.content.get_planar_roi_measurement_groups()
    assert group.tracking_uid == origin.tracking_uid(1)
    segment = group.referenced_segmentation_frame[0].ReferencedSOPSequence[0]
    assert segment.ReferencedSOPInstanceUID == origin.uid("dicom-seg")
    (area,) = group.get_measurements(codes.SCT.Area)
    expected = result.area_px * (0.0006 if spacing else 1)
    assert area.value == pytest.approx(expected, rel=1e-5)
    assert (area.unit == codes.UCUM.SquareMillimeter) == (spacing is not None)
    units = {measurement.unit.value for measurement in group.get_measurements()}
    assert ("mm" in units) == (spacing is not None)
    assert report.VerificationFlag == "UNVERIFIED"


PLACE = {"FrameOfReferenceUID": "1.2.3.4", "ImagePositionPatient": [1, 2, 0.1], "PixelSpacing": [0.05, 0.08]}
UPRIGHT = [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("values", "thickness"),
    [
        ({"ImageOrientationPatient": UPRIGHT}, 0.05),
        ({"ImageOrientationPatient": UPRIGHT, "SliceThickness": 2}, 2),
        ({"ImageOrientationPatient": UPRIGHT, "PixelSpacing": None}, None),
        ({"ImageOrientationPatient": [1, 1, 0, 0, 0, 0]}, None),
        ({"ImageOrientationPatient": UPRIGHT, "ImagePositionPatient": [1, 2]}, None),
    ],
)
def test_a_place_in_the_patient_is_carried_over_where_it_is_whole(
    model: Model,
    files: ModuleType,
    validate: Callable[[Path], list[str]],
    tmp_path: Path,
    values: dict[str, Any],
    thickness: float | None,
) -> None:
    ds = files.photograph(**(PLACE | values))
    _, result, made = write(model, files, ds)
    for name, dataset in made.items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(to_bytes(dataset))
        assert validate(path) == []
    seg = segread(tmp_path / "dicom-seg.dcm")
    assert np.array_equal(seg.pixel_array > 0, result.mask)
    assert seg.get("FrameOfReferenceUID") == (PLACE["FrameOfReferenceUID"] if thickness else None)
    if thickness:
        (place,) = (group.PlanePositionSequence[0] for group in seg.PerFrameFunctionalGroupsSequence)
        assert place.ImagePositionPatient == PLACE["ImagePositionPatient"]
        shared = seg.SharedFunctionalGroupsSequence[0]
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == UPRIGHT
        assert shared.PixelMeasuresSequence[0].SliceThickness == thickness


@pytest.mark.parametrize(
    ("level", "needs_review", "answer"),
    [
        (None, None, None),
        (None, True, codes.SCT.Yes),
        (None, False, codes.SCT.No),
        ("accept", False, codes.SCT.No),
        ("review", False, codes.SCT.Yes),
        ("reject", False, codes.SCT.Yes),
    ],
)
def test_the_report_says_what_the_gate_says(
    model: Model,
    files: ModuleType,
    validate: Callable[[Path], list[str]],
    tmp_path: Path,
    level: Any,
    needs_review: bool | None,
    answer: Any,
) -> None:
    ds = files.photograph()
    origin, result, _ = write(model, files, ds)
    findings = [Finding("hair", "accept", 0.1, 0.1)] + ([Finding("blur", level, 9.0, 5.0)] if level else [])
    judgement = None if needs_review is None else Judgement(0.9, 0.8, 1.0, needs_review)
    result = replace(result, judgement=judgement, verdict=make_verdict(findings) if level else None)
    blank = replace(result, status="no_lesion", mask=np.zeros_like(result.mask))
    for one in (result, blank):
        made = write_objects(origin, one, ["dicom-sr"])["dicom-sr"]
        (tmp_path / "sr.dcm").write_bytes(to_bytes(made))
        assert validate(tmp_path / "sr.dcm") == []
        content = srread(tmp_path / "sr.dcm").content
        (group,) = content.get_planar_roi_measurement_groups() or content.get_image_measurement_groups()
        found = [e.value for e in group.get_qualitative_evaluations() if e.name.value == "REVIEW"]
        assert found == ([] if answer is None else [answer])
        texts = [item for item in group[0].ContentSequence if item.ValueType == "TEXT"]
        said = [(t.ConceptNameCodeSequence[0].CodeValue, t.TextValue) for t in texts]
        expected = [("REASON", finding.text) for finding in make_verdict(findings).findings]
        said = [pair for pair in said if pair[0] in ("VERDICT", "REASON")]
        assert said == ([("VERDICT", level), *expected] if level else [])


def test_several_lesions_and_none(
    model: Model, files: ModuleType, validate: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    pixels = np.full((95, 121, 3), 220, np.uint8)  # 7 bits over: the second frame ends in a byte more
    blank = write(model, files, files.photograph(pixels))
    pixels[10:40, 10:40] = 30
    pixels[60:75, 80:100] = 30
    several = write(model, files, files.photograph(pixels), lesions="all")
    for number, (_, _, made) in enumerate((blank, several)):
        for name, dataset in made.items():
            path = tmp_path / f"{number}{name}.dcm"
            path.write_bytes(to_bytes(dataset))
            assert validate(path) == []
    seg = segread(tmp_path / "1dicom-seg.dcm")
    assert np.array_equal(load_mask(tmp_path / "1dicom-seg.dcm"), several[1].mask)
    for number, (_, result, _) in enumerate((blank, several)):
        to_score = as_source(tmp_path / f"{number}dicom-seg.dcm")
        assert np.array_equal(read_mask(to_score)[0], result.mask)
    labels = several[1].labels
    assert labels is not None and seg.number_of_segments == 2
    assert np.array_equal(np.argmax(seg.pixel_array, 0) + 1, np.where(labels == 2, 2, 1))
    report = srread(tmp_path / "1dicom-sr.dcm")
    areas = [
        g.get_measurements(codes.SCT.Area)[0].value
        for g in report.content.get_planar_roi_measurement_groups()
    ]
    assert areas == [float((labels == 1).sum()), float((labels == 2).sum())]
    assert not segread(tmp_path / "0dicom-seg.dcm").pixel_array.any()
    (group,) = srread(tmp_path / "0dicom-sr.dcm").content.get_image_measurement_groups()
    (evaluation,) = group.get_qualitative_evaluations(codes.SCT.SkinLesion)
    assert evaluation.value == codes.SCT.Absent


def test_the_same_causes_give_the_same_bytes(model: Model, files: ModuleType) -> None:
    ds = files.photograph(kind="capture", encoding="jpeg")
    first, second = write(model, files, ds)[2], write(model, files, ds)[2]
    assert {k: to_bytes(v) for k, v in first.items()} == {k: to_bytes(v) for k, v in second.items()}
    other = write(model, files, ds, threshold=0.4)[2]
    assert first["dicom-seg"].SOPInstanceUID != other["dicom-seg"].SOPInstanceUID
    assert (
        first["dicom-seg"].SegmentSequence[0].TrackingUID == other["dicom-seg"].SegmentSequence[0].TrackingUID
    )
    assert len(derive_uid("x")) <= 64


def test_another_version_never_reuses_a_uid(
    model: Model, files: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may write another result, which an archive would take for a copy of the one that it has."""
    ds = files.photograph()
    first = write(model, files, ds)[2]
    monkeypatch.setattr("dermseg.dicom.identity.__version__", "0.0.0")
    for kind, made in write(model, files, ds)[2].items():
        assert made.SOPInstanceUID != first[kind].SOPInstanceUID
        assert made.SeriesInstanceUID != first[kind].SeriesInstanceUID
        if kind == "dicom-seg":  # the lesion is the same one
            assert made.SegmentSequence[0].TrackingUID == first[kind].SegmentSequence[0].TrackingUID


def test_patients_stay_as_they_stand_even_where_the_standard_is_broken(
    model: Model, files: ModuleType
) -> None:
    ds = files.photograph(PatientName="Müller^Jürgen=田中", ClinicalTrialSubjectID="007")
    ds["PatientID"]._value = "X" * 70
    ds["PatientBirthDate"]._value = "31.01.1970"
    names = ("PatientID", "PatientBirthDate", "PatientName", "ClinicalTrialSubjectID")
    values = {name: str(ds[name].value) for name in names}
    made = write(model, files, ds)[2]
    for dataset in made.values():
        back = read_dataset(to_bytes(dataset))
        assert {name: str(back[name].value) for name in values} == values
    # Letters that are none of the character set that the file names, as some cameras write them.
    data = files.to_bytes(files.photograph(PatientName="Mueller^Joerg", SpecificCharacterSet="ISO_IR 192"))
    name = "Müller^Jörg  ".encode("latin-1")
    image = read_dataset(data.replace(b"Mueller^Joerg", name))
    result = model.segment(data)
    origin = Origin(image, describe_model(model), OPTIONS, datetime(2026, 1, 2, 3, 4, 5))
    for dataset in write_objects(origin, result, DICOM_KINDS, overlay=files.lesion()).values():
        assert name in to_bytes(dataset)


def test_odd_values_beside_the_patient_keep_no_result_back(
    model: Model, files: ModuleType, validate: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    ds = files.photograph(encoding="jpeg", colours="YBR_FULL_422")
    ds.LossyImageCompressionRatio, ds.Laterality = "1234", "R"
    data, ratio = files.to_bytes(ds), b"\x28\x00\x12\x21DS\x04\x00"
    assert data.count(ratio + b"1234") == 1  # with its tag: new UIDs have these digits too, now and then
    data = data.replace(ratio + b"1234", ratio + b"20:1")
    at = data.index(b"\x20\x00\x60\x00CS\x02\x00R ")
    data = data[: at + 8] + b"r " + data[at + 10 :]
    origin = Origin(read_dataset(data), describe_model(model), OPTIONS, datetime(2026, 1, 2, 3, 4, 5))
    made = write_objects(origin, model.segment(data), DICOM_KINDS, overlay=files.lesion())
    assert made["dicom-seg"].LossyImageCompressionRatio == 1 and made["dicom-sc"].Laterality == "R"
    for dataset in made.values():
        (tmp_path / "made.dcm").write_bytes(to_bytes(dataset))
        assert validate(tmp_path / "made.dcm") == []


def test_times_are_those_of_the_photographs_clock(model: Model, files: ModuleType) -> None:
    ds = files.photograph(TimezoneOffsetFromUTC="-1130")
    _, _, made = write(model, files, ds)
    here = datetime(2026, 1, 2, 3, 4, 5).astimezone(UTC)
    for kind, dataset in made.items():
        dates = {"ContentDate": "ContentTime", "InstanceCreationDate": "InstanceCreationTime"}
        dates |= {"DateOfSecondaryCapture": "TimeOfSecondaryCapture"} if kind == "dicom-sc" else {}
        for day, time in dates.items():
            text = f"{dataset[day].value}{dataset[time].value}{dataset.TimezoneOffsetFromUTC}"
            assert datetime.strptime(text, "%Y%m%d%H%M%S%z") == here, (kind, day)


def test_an_image_without_identity_is_refused(model: Model, files: ModuleType) -> None:
    ds = files.photograph()
    ds.StudyInstanceUID = ""
    with pytest.raises(ImageError, match="has no StudyInstanceUID"):
        write(model, files, ds)


def test_a_calibrated_segmentation_is_measured_in_millimetres(
    model: Model, files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dermseg.apps.cli.main import main

    for name, spacing in (("plain", None), ("scaled", (0.02, 0.03))):
        made = write(model, files, files.photograph(spacing=spacing))[2]
        (tmp_path / f"{name}.dcm").write_bytes(to_bytes(made["dicom-seg"]))
    with pytest.raises(SystemExit):
        main(["measure", str(tmp_path), "--json"])
    plain, scaled = json.loads(capsys.readouterr().out)["readings"]
    assert plain["area_mm2"] is None and scaled["spacing_column_mm"] == 0.03
    assert scaled["area_mm2"] == pytest.approx(scaled["area_px"] * 0.02 * 0.03, rel=1e-3)
    for given, remark in (("0.02,0.03", None), ("0.05", "the file says 0.02 and 0.03 mm")):
        with pytest.raises(SystemExit):
            main(["measure", str(tmp_path / "scaled.dcm"), "--spacing-mm", given, "--json"])
        out, err = capsys.readouterr()
        (row,) = json.loads(out)["readings"]
        if remark is None:
            assert (row["message"], err) == (None, "")
        else:
            assert remark in row["message"] and remark in err and row["spacing_row_mm"] == 0.05


def test_save_writes_them_beside_the_masks(
    tiny_bundle: Path, files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dermseg.apps.cli.main import main

    inputs = tmp_path / "in" / "sub"
    inputs.mkdir(parents=True)
    (inputs / "a.dcm").write_bytes(files.to_bytes(files.photograph()))
    (inputs / "c.dcm").write_bytes(files.to_bytes(files.photograph(StudyInstanceUID="")))
    from PIL import Image

    Image.fromarray(files.lesion()).save(inputs / "b.png")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *["segment", str(tmp_path / "in"), "-o", str(out), "--model", str(tiny_bundle)],
                *["--save", "mask,dicom-sr,dicom-sc"],
            ]
        )
    assert ended.value.code == 0, capsys.readouterr().err
    written = sorted(path.name for path in (out / "dicom" / "sub").iterdir())
    assert written == ["a_sc.dcm", "a_seg.dcm", "a_sr.dcm"]
    with (out / "results.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert rows["sub/b.png"]["message"] == "not DICOM, so there are no DICOM results"
    # Where no object can be made the mask is there all the same.
    assert rows["sub/c.dcm"]["status"] == "ok" and "StudyInstanceUID" in rows["sub/c.dcm"]["message"]
    assert load_mask(out / rows["sub/c.dcm"]["mask"]).any()
    assert np.array_equal(
        load_mask(out / "dicom" / "sub" / "a_seg.dcm"),
        load_mask(out / "masks" / "sub" / "a_segmentation.png"),
    )
