"""No planted identity survives, what is kept is kept, and pixels stay as they were."""

from __future__ import annotations

import io
import json
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames

from dermseg.data.index import open_mask
from dermseg.dicom.burned_in import find_text
from dermseg.dicom.deidentify import deidentify, write_mapping
from dermseg.dicom.find import find_files
from dermseg.dicom.profile import parse_retain
from dermseg.dicom.pseudonyms import Pseudonyms, open_key
from dermseg.dicom.strip import strip_jpeg, strip_jpeg2000, strip_png, strip_rle
from dermseg.errors import ImageError, UsageError
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
KEY = Pseudonyms(bytes(range(32)))
KINDS = ("dermoscopic", "photographic", "capture", "multiframe")
ENCODINGS = ("explicit", "implicit", "deflated", "jpeg", "lossless", "jpeg2000", "rle")


def test_nothing_planted_survives(files: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    inputs, secrets, pixels = tmp_path / "in", [], []
    inputs.mkdir()
    for number in range(20):
        encoding = ENCODINGS[number % len(ENCODINGS)]
        ds = files.photograph(kind=KINDS[number % 4], encoding=encoding, frames=2 if number % 4 == 3 else 1)
        planted = files.plant(ds, rng)
        if encoding in ("jpeg", "lossless"):
            frames = [
                files.plant_in_jpeg(bytes(frame), planted[0])
                for frame in generate_frames(ds.PixelData, number_of_frames=ds.get("NumberOfFrames", 1))
            ]
            ds.PixelData = encapsulate(frames)
        data = files.to_bytes(ds)
        assert encoding == "deflated" or all(secret in data for secret in planted)
        (inputs / f"{planted[0].decode()}.dcm").write_bytes(data)
        secrets += planted
        pixels.append(load_image(data).pixels)
    out = tmp_path / "out"
    run = deidentify(find_files([inputs]), out, KEY)
    assert run.failed == 0 and len(list(out.rglob("*.dcm"))) == 20
    for path in out.rglob("*"):
        assert not any(secret in str(path).encode() for secret in secrets)
        if path.is_file():
            content = path.read_bytes()
            assert [secret for secret in secrets if secret in content] == []
    cleaned = [load_image(path).pixels for path in out.rglob("*.dcm")]
    assert all(any(np.array_equal(one, other) for other in cleaned) for one in pixels)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("Smith^John", ["Skin of Smith, John", "camera of JOHN", "1.0 smith"]),
        ("Müller-Lüdenscheidt^Änne^^Dr.", ["Haut von MÜLLER", "Cam Änne", "1.0 lüdenscheidt"]),
        ("van der Berg^O'Neill", ["seen by Berg", "O'Neill's", "mole of neill"]),
        ("O'Brien^Sean", ["camera of OBrien", "sobrien; seanobrien"]),
        ("Smith-Jones^A", ["smithjones 1.0", "ASmithJones"]),
        ("Vogt^Jo", ["user jovogt", "VogtJo 2"]),
        ("Xu^Li", ["arm of Xu Li", "Li, Xu", "li xu 2"]),
        ("Sato^Hanako=佐藤^花子=さとう^はなこ", ["佐藤さんの皮膚", "花子", "はなこ 1"]),
        ("王^伟", ["王伟的皮肤", "1.0 王伟"]),
        ("शर्मा^नरेन्द्र", ["नरेन्द्र की त्वचा", "शर्मा"]),  # vowels and conjuncts are marks, not letters
        ("Müller^Jörg", [unicodedata.normalize("NFD", "Haut von Müller"), "jo\u0308rg"]),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", ["ヤマダさんの皮膚"]),
    ],
)
def test_names_are_searched_in_what_stays(
    files: ModuleType, tmp_path: Path, name: str, texts: list[str]
) -> None:
    ds = files.photograph(OperatorsName=["Roe^Richard", name], PatientName="Doe^Jane")
    ds.SoftwareVersions = ["4.2 by Roe", *texts]
    ds.ManufacturerModelName = (
        "Derma der 2000, Dr. Annotation"  # neither particles nor titles nor parts of words
    )
    items = []
    for text in (*texts, "Skin of hand"):
        item = ds.__class__()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "39937001", "SCT", text
        items.append(item)
    ds.AnatomicRegionSequence = items
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(ds))
    run = deidentify(find_files([tmp_path / "a.dcm"]), tmp_path / "out", KEY)
    cleaned = dcmread(next((tmp_path / "out").rglob("*.dcm")))
    assert [item.CodeMeaning for item in cleaned.AnatomicRegionSequence] == ["REMOVED"] * len(texts) + [
        "Skin of hand"
    ]
    assert cleaned.SoftwareVersions == "REMOVED"
    assert cleaned.ManufacturerModelName == ds.ManufacturerModelName
    found = run.outcomes[0].done["found_again"]
    assert sorted(found) == ["CodeMeaning"] * len(texts) + ["SoftwareVersions"]


def test_files_with_one_uid_are_never_overwritten(files: ModuleType, tmp_path: Path) -> None:
    first = files.photograph()
    other = files.photograph(255 - files.lesion(), SOPInstanceUID=first.SOPInstanceUID)
    for name, ds in (("a", first), ("b", other), ("c", first)):
        (tmp_path / f"{name}.dcm").write_bytes(files.to_bytes(ds))
    run = deidentify(find_files([tmp_path]), tmp_path / "out", KEY)
    a, b, c = run.outcomes
    assert a.file == c.file and a.error is None and "written once" in c.warnings[0]
    assert b.file is None and b.error is not None and "same SOP Instance UID" in b.error
    (written,) = (tmp_path / "out").rglob("*.dcm")
    assert np.array_equal(load_image(written).pixels, files.lesion())


def test_a_file_that_cannot_be_read_is_left_out_with_the_reason(
    files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in ("IM1", "IM2"):
        (inputs / name).write_bytes(files.to_bytes(files.photograph()))
    path_open = Path.open

    def locked(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "IM1":
            raise PermissionError(13, "Permission denied")
        return path_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", locked)
    run = deidentify(find_files([inputs]), tmp_path / "out", KEY)
    assert len(run.outcomes) == 2 and run.failed == 1
    assert [outcome.error for outcome in run.outcomes if outcome.error] == [
        "cannot be opened: Permission denied"
    ]


@pytest.mark.parametrize("name", ["Doe_Jane.png", "O'Neill_Jane.png"])
def test_the_report_holds_no_name_of_a_file(files: ModuleType, tmp_path: Path, name: str) -> None:
    """zipfile puts that of a damaged one into its message."""
    out = io.BytesIO()
    Image.fromarray(files.lesion()).save(out, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, out.getvalue())
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"IDAT") + 50] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    run = deidentify(find_files([tmp_path / "a.zip"]), tmp_path / "out", KEY)
    assert run.failed == 1 and "Bad CRC-32" in str(run.outcomes[0].error)
    assert "Jane" not in (tmp_path / "out" / "deidentification.json").read_text()


def test_segmentations_go_along_with_their_photograph(
    files: ModuleType, validate: Callable[[Path], list[str]], tiny_bundle: Path, tmp_path: Path
) -> None:
    from highdicom.seg import segread

    from dermseg.apps.cli.main import main
    from dermseg.data.sources.importer import import_dataset

    (tmp_path / "a.dcm").write_bytes(files.to_bytes(files.photograph()))
    save = ["--model", str(tiny_bundle), "--save", "mask,dicom-seg,dicom-probability"]
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(tmp_path / "a.dcm"), "-o", str(tmp_path / "made"), *save])
    assert ended.value.code == 0
    out = tmp_path / "out"
    run = deidentify(find_files([tmp_path / "a.dcm", tmp_path / "made" / "dicom"]), out, KEY)
    assert [(o.error, o.warnings) for o in run.outcomes] == [(None, ())] * 3
    (row,) = import_dataset([out]).rows
    mask = np.asarray(Image.open(tmp_path / "made" / "masks" / "a_segmentation.png")) > 0
    assert np.array_equal(load_mask(open_mask(row)), mask)
    for path in out.rglob("*.dcm"):
        content = path.read_bytes()
        assert not any(secret in content for secret in (b"P-0815", b"Jane", b"20260102"))
        if dcmread(path).Modality == "SEG":
            described = segread(path).get_segment_description(1)
            assert described.segment_label == "Lesion"
            assert "network_sha256" in described.algorithm_identification.parameters
            assert validate(path) == []


def test_the_same_key_keeps_patients_and_studies_together(files: ModuleType, tmp_path: Path) -> None:
    first, second = files.photograph(), files.photograph()
    second.StudyInstanceUID = first.StudyInstanceUID
    second.SourceImageSequence = [first.__class__()]
    second.SourceImageSequence[0].ReferencedSOPInstanceUID = first.SOPInstanceUID
    second.SourceImageSequence[0].ReferencedSOPClassUID = first.SOPClassUID
    for name, ds in (("a", first), ("b", second)):
        (tmp_path / f"{name}.dcm").write_bytes(files.to_bytes(ds))
    deidentify(find_files([tmp_path / "a.dcm"]), tmp_path / "1", KEY)
    run = deidentify(find_files([tmp_path / "b.dcm"]), tmp_path / "2", KEY)
    (a,), (b,) = (
        (dcmread(next((tmp_path / n).rglob("*.dcm"))) for n in "1"),
        (dcmread(next((tmp_path / n).rglob("*.dcm"))) for n in "2"),
    )
    assert a.PatientID == b.PatientID == b.PatientName != first.PatientID
    assert a.StudyInstanceUID == b.StudyInstanceUID != first.StudyInstanceUID
    assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
    assert a.SOPClassUID == first.SOPClassUID and a.PatientIdentityRemoved == "YES"
    deidentify(find_files([tmp_path / "a.dcm"]), tmp_path / "3", Pseudonyms(b"another key of bytes"))
    assert dcmread(next((tmp_path / "3").rglob("*.dcm"))).PatientID != a.PatientID
    write_mapping(run, tmp_path / "who.csv")
    assert stat.S_IMODE((tmp_path / "who.csv").stat().st_mode) == 0o600
    assert "P-0815" in (tmp_path / "who.csv").read_text()
    assert "P-0815" not in (tmp_path / "2" / "deidentification.json").read_text()


@pytest.mark.parametrize(
    ("retain", "kept"),
    [
        ("", set()),
        ("uids", {"SOPInstanceUID", "StudyInstanceUID"}),
        ("device", {"DeviceSerialNumber", "UDISequence"}),
        ("institution", {"InstitutionName"}),
        ("patient", {"PatientSex", "PatientAge"}),
        ("dates", {"StudyDate", "ContentDate", "AcquisitionDateTime", "TimezoneOffsetFromUTC"}),
        ("shifted-dates", {"TimezoneOffsetFromUTC"}),
    ],
)
def test_options_retain_what_they_name(
    files: ModuleType, tmp_path: Path, retain: str, kept: set[str]
) -> None:
    device = Dataset()
    device.UniqueDeviceIdentifier = "(01)00389701000128(21)77"
    values: dict[str, Any] = {
        "DeviceSerialNumber": "SN 44",
        "UDISequence": [device],
        "InstitutionName": "St. Elsewhere",
        "PatientAge": "055Y",
        "TimezoneOffsetFromUTC": "+0100",
    }
    ds = files.photograph(**values)
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(ds))
    deidentify(find_files([tmp_path / "a.dcm"]), tmp_path / "out", KEY, parse_retain(retain))
    cleaned = dcmread(next((tmp_path / "out").rglob("*.dcm")))
    watched = {
        "SOPInstanceUID", "StudyInstanceUID", "PatientSex", "StudyDate", "ContentDate", "AcquisitionDateTime",
        "PatientBirthDate", *values,
    }  # fmt: skip
    assert {name for name in watched if cleaned.get(name) == ds[name].value} == kept
    codes = {item.CodeValue for item in cleaned.DeidentificationMethodCodeSequence}
    assert len(codes) == 1 + bool(retain)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("uid", ["../../../evil", "1.2/../../../evil", "/evil", "Meier.Jane", "1.2.3 Meier"])
def test_what_is_no_uid_is_not_retained(files: ModuleType, tmp_path: Path, uid: str) -> None:
    ds = files.photograph()
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = ds.StudyInstanceUID = uid
    series = str(ds.SeriesInstanceUID)
    inside, out = tmp_path / "a.dcm", tmp_path / "b" / "out"
    inside.write_bytes(files.to_bytes(ds))
    run = deidentify(find_files([inside]), out, KEY, parse_retain("uids"))
    assert run.failed == 0
    (written,) = tmp_path.joinpath("b").rglob("*.dcm")
    assert written.parent.parent == out and not list(tmp_path.rglob("*evil*"))
    cleaned = dcmread(written)
    assert cleaned.SOPInstanceUID == KEY.uid(uid) and cleaned.StudyInstanceUID == KEY.uid(uid)
    assert cleaned.SeriesInstanceUID == series  # which is one
    assert uid.encode() not in written.read_bytes() and uid not in (out / "deidentification.json").read_text()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("retain", ["dates", "shifted-dates"])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyTime", "101112 Jane"),
        ("ContentDate", "20260102Doe"),
        ("ContentDate", "Doe^Jane"),
        ("AcquisitionDateTime", "20260102101113 Doe"),
    ],
)
def test_words_in_the_place_of_a_date_are_not_retained(
    files: ModuleType, tmp_path: Path, retain: str, keyword: str, value: str
) -> None:
    ds = files.photograph(**{keyword: value})
    ds.StudyDate, ds.SeriesTime, ds.AcquisitionDate = "20260102", "101112.123456", "2026.01.02"
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(ds))
    deidentify(find_files([tmp_path / "a.dcm"]), tmp_path / "out", KEY, parse_retain(retain))
    (written,) = tmp_path.joinpath("out").rglob("*.dcm")
    assert not any(word in written.read_bytes() for word in (b"Doe", b"Jane"))
    cleaned = dcmread(written)
    assert not cleaned[keyword].value and cleaned.StudyDate and cleaned.SeriesTime == "101112.123456"
    if retain == "dates":
        assert cleaned.AcquisitionDate == "2026.01.02"


def test_shifted_dates_keep_their_distances(files: ModuleType, tmp_path: Path) -> None:
    for name, day in (("a", "20250228"), ("b", "20260301")):
        ds = files.photograph(
            StudyDate=day, SOPInstanceUID=f"1.2.{name == 'a'}".replace("True", "3").replace("False", "4")
        )
        ds.AcquisitionDateTime = "202511"  # a month cannot be moved by days
        (tmp_path / f"{name}.dcm").write_bytes(files.to_bytes(ds))
    deidentify(find_files([tmp_path]), tmp_path / "out", KEY, parse_retain("shifted-dates"))
    cleaned = [dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    days = sorted(ds.StudyDate for ds in cleaned)
    assert not any("AcquisitionDateTime" in ds for ds in cleaned)
    from datetime import datetime

    first, second = (datetime.strptime(day, "%Y%m%d") for day in days)
    assert (second - first).days == 366 and days[0] != "20250228"


def test_cleaning_adds_no_error_of_its_own(
    files: ModuleType, validate: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "a.dcm"
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], bytes(range(256))
    table.ModalityLUTType = "US"
    values = {
        "FrameOfReferenceUID": "1.2.3.4",
        "PositionReferenceIndicator": "",
        "ModalityLUTSequence": [table],
    }
    for kind in KINDS[:3]:
        colours = "MONOCHROME2" if kind == "capture" else "RGB"
        path.write_bytes(files.to_bytes(files.photograph(kind=kind, colours=colours, **values)))
        before = set(validate(path))
        deidentify(find_files([path]), tmp_path / kind, KEY)
        assert set(validate(next((tmp_path / kind).rglob("*.dcm")))) <= before


def test_reports_and_documents_are_left_out(files: ModuleType, tmp_path: Path) -> None:
    ds = files.photograph()
    del ds.PixelData
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(ds))
    (tmp_path / "b.dcm").write_bytes(files.to_bytes(files.photograph())[:700])
    run = deidentify(find_files([tmp_path]), tmp_path / "out", KEY)
    assert run.failed == 2 and not list((tmp_path / "out").rglob("*.dcm"))


def test_what_a_picture_lacks_is_named(files: ModuleType, tmp_path: Path) -> None:
    for keyword in ("SOPInstanceUID", "Rows", "PixelData"):
        ds = files.photograph()
        ds[keyword].value = None
        ds.save_as(tmp_path / f"{keyword}.dcm")
    run = deidentify(find_files([tmp_path]), tmp_path / "out", KEY)
    reasons = {outcome.error for outcome in run.outcomes}
    assert reasons == {f"the DICOM file has no {name}" for name in ("SOPInstanceUID", "Rows", "PixelData")}


def test_ordinary_images_lose_their_metadata(files: ModuleType, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x9003], exif[0x013B] = 6, "1999:01:02 03:04:05", "Zorvath"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    image = Image.fromarray(files.lesion())
    originals = {}
    for name, options in {
        "Zorvath.jpg": {"exif": exif, "comment": b"Zorvath", "progressive": True},
        "Zorvath.png": {"exif": exif},
        "Zorvath.tif": {"description": "Zorvath"},
        "Zorvath.webp": {"exif": exif, "lossless": True, "xmp": b"Zorvath"},
    }.items():
        image.save(tmp_path / name, **options)
        originals[name] = load_image(tmp_path / name).pixels
    run = deidentify(find_files([tmp_path]), tmp_path / "out", KEY)
    assert run.failed == 0
    for outcome, source in zip(run.outcomes, find_files([tmp_path], exclude=tmp_path / "out"), strict=True):
        assert outcome.file is not None
        path = tmp_path / "out" / outcome.file
        assert np.array_equal(load_image(path).pixels, originals[source.name])
        data = path.read_bytes()
        assert b"Zorvath" not in data and b"1999" not in data
        with Image.open(path) as opened:
            left = dict(opened.getexif())
        assert left in ({}, {0x0112: 6})


def test_stripping_is_exact(files: ModuleType) -> None:
    out = io.BytesIO()
    Image.fromarray(files.lesion()).save(out, "JPEG", progressive=True, quality=90)
    plain, parts = strip_jpeg(files.plant_in_jpeg(out.getvalue(), b"secret"))
    assert parts == 4 and plain == strip_jpeg(out.getvalue())[0]
    assert np.array_equal(load_image(plain).pixels, load_image(out.getvalue()).pixels)
    with pytest.raises(ImageError):
        strip_jpeg(out.getvalue()[:-2])
    out = io.BytesIO()
    Image.fromarray(files.lesion()).save(out, "JPEG2000", comment=b"secret")
    assert b"secret" in out.getvalue() and b"secret" not in strip_jpeg2000(out.getvalue())[0]
    stream = strip_jpeg2000(out.getvalue())[0]
    tile = stream.index(b"\xff\x90")
    comment = b"\xff\x64\x00\x0a\x00\x01secret"
    length = int.from_bytes(stream[tile + 6 : tile + 10], "big") + len(comment)
    hidden = stream[: tile + 6] + length.to_bytes(4, "big") + stream[tile + 10 : tile + 12] + comment
    for data in (hidden + stream[tile + 12 :], stream + b"secret\xff\xd9"):
        with pytest.raises(ImageError, match="tiles"):
            strip_jpeg2000(data)
    for junk in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0"):
        for strip in (strip_jpeg, strip_jpeg2000, strip_png):
            with pytest.raises(ImageError):
                strip(junk)


def test_nothing_hides_beside_the_runs_of_rle(files: ModuleType, tmp_path: Path) -> None:
    """In the unused part of the header, between segments and behind the last one."""
    pixels = files.lesion(97, 131)
    ds = files.photograph(pixels, encoding="rle")
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    size = pixels.shape[0] * pixels.shape[1]
    assert strip_rle(frame, size) == (frame, 0)
    count, *starts = struct.unpack_from("<4L", frame)
    moved = [starts[0] + 6, starts[1] + 12, starts[2] + 12]
    hidden = struct.pack("<4L", count, *moved) + b"secret".ljust(48, b"\0") + b"secret"
    hidden += frame[starts[0] : starts[1]] + b"secret" + frame[starts[1] :] + b"secret"
    ds.PixelData = encapsulate([hidden])
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(ds))
    assert np.array_equal(load_image(tmp_path / "a.dcm").pixels, pixels)
    run = deidentify(find_files([tmp_path / "a.dcm"]), tmp_path / "out", KEY)
    assert run.outcomes[0].done["inside_pixels"] == 4
    (written,) = tmp_path.joinpath("out").rglob("*.dcm")
    assert b"secret" not in written.read_bytes() and np.array_equal(load_image(written).pixels, pixels)
    for damaged in (b"", frame[:64], frame[:-500], bytes(64) + frame[64:], b"\xff" + frame[1:]):
        with pytest.raises(ImageError, match="RLE"):
            strip_rle(damaged, size)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_an_overlay_in_spare_bits_is_not_passed_on(files: ModuleType, tmp_path: Path, bits: int) -> None:
    ds = files.photograph(colours="MONOCHROME2", bits=bits)
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(ds))
    assert deidentify(find_files([tmp_path / "a.dcm"]), tmp_path / "out", KEY).failed == 0
    if bits < 16:
        words = np.frombuffer(ds.PixelData, "<u2").copy()
        words[:50] |= 1 << 15
        ds.PixelData = words.tobytes()
        (tmp_path / "b.dcm").write_bytes(files.to_bytes(ds))
        run = deidentify(find_files([tmp_path / "b.dcm"]), tmp_path / "out2", KEY)
        assert run.outcomes[0].error is not None and "overlays" in run.outcomes[0].error


def test_burned_in_text_is_warned_of(files: ModuleType, tmp_path: Path) -> None:
    import cv2

    pixels = files.lesion(480, 640)
    assert find_text(pixels) == []
    cv2.putText(pixels, "DOE JANE 1970-01-31", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
    ((x, y, width, _),) = [box for box in find_text(pixels) if box[2] > 100]
    assert x < 40 and y < 40 and width > 200
    (tmp_path / "a.dcm").write_bytes(files.to_bytes(files.photograph(pixels, BurnedInAnnotation="YES")))
    run = deidentify(find_files([tmp_path]), tmp_path / "out", KEY)
    warnings = " ".join(run.outcomes[0].warnings)
    assert "burned into" in warnings and "looks like text" in warnings


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    key = open_key(path)
    assert open_key(path) == key and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_key(None) != open_key(None)
    path.write_text("short")
    with pytest.raises(UsageError, match="does not hold a key"):
        open_key(path)
    with pytest.raises(UsageError, match="unknown value gps"):
        parse_retain("uids,gps")


def test_the_command(files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dermseg.apps.cli.main import main

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "IM0001").write_bytes(files.to_bytes(files.photograph()))
    out = tmp_path / "out"
    command = ["dicom", "deidentify", str(tmp_path / "in"), "-o", str(out), "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--key", str(tmp_path / "key")])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == 0
    with pytest.raises(SystemExit) as ended:
        main([*command, "--key", str(out / "key")])
    assert ended.value.code == 2
    (tmp_path / "there.csv").write_text("precious")
    for mapping in ("there.csv", "none/map.csv"):  # is said before anything is written
        refused = ["dicom", "deidentify", str(tmp_path / "in"), "-o", str(tmp_path / "other")]
        with pytest.raises(SystemExit) as ended:
            main([*refused, "--mapping", str(tmp_path / mapping)])
        assert ended.value.code == 2 and mapping in capsys.readouterr().err
        assert not (tmp_path / "other").exists()
    assert (tmp_path / "there.csv").read_text() == "precious"
    with pytest.raises(SystemExit) as ended:
        main([*refused, "--mapping", str(tmp_path / "map.csv")])
    assert ended.value.code == 0 and "P-0815" in (tmp_path / "map.csv").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["dicom", "to-png", str(tmp_path / "in"), "-o", str(tmp_path / "png")])
    assert ended.value.code == 0
    assert np.array_equal(load_image(tmp_path / "png" / "IM0001.png").pixels, files.lesion())


def test_interrupted_it_says_what_is_written(
    files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dermseg.apps.cli import counter
    from dermseg.apps.cli.main import main
    from dermseg.dicom import deidentify as room

    (tmp_path / "in").mkdir()
    for number in range(3):
        image = files.photograph()
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        (tmp_path / "in" / f"IM{number}").write_bytes(files.to_bytes(image))
    clean = room._one

    def stopped(number: int, *rest: Any) -> Any:
        if number == 3:
            raise KeyboardInterrupt
        return clean(number, *rest)

    monkeypatch.setattr(room, "_one", stopped)
    monkeypatch.setattr(counter, "_LINE_EVERY_S", 0.0)
    out, names = tmp_path / "out", tmp_path / "map.csv"
    with pytest.raises(SystemExit) as ended:
        main(["dicom", "deidentify", str(tmp_path / "in"), "-o", str(out), "--mapping", str(names)])
    said = capsys.readouterr().err
    assert ended.value.code == 130 and "cleaning: 1 of 3" in said and "Stopped: 1 more" in said
    report = json.loads((out / "deidentification.json").read_text())
    assert report["interrupted"] and report["files"] == 2 == len([*out.rglob("*.dcm")])
    assert names.read_text().count("P-0815") == 2
