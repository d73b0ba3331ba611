"""DICOM photographs come in like any other image, whatever their encoding."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
import zlib
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dermseg.errors import ImageError
from dermseg.images import dicom
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
RAMP = np.tile(np.linspace(0, 255, 128).round().astype(np.uint8)[:, None], (96, 1, 3))


@pytest.mark.parametrize("kind", ["photographic", "dermoscopic", "capture", "multiframe"])
@pytest.mark.parametrize(
    "encoding", ["explicit", "implicit", "deflated", "jpeg", "lossless", "jpeg2000", "rle"]
)
def test_kinds_and_encodings(files: ModuleType, kind: str, encoding: str) -> None:
    frames = 3 if kind == "multiframe" else 1
    ds = files.photograph(kind=kind, encoding=encoding, frames=frames, spacing=(0.02, 0.03))
    loaded = load_image(files.to_bytes(ds))
    difference = np.abs(loaded.pixels.astype(int) - files.lesion())
    assert difference.mean() < 2 if encoding == "jpeg" else not difference.any()
    assert (loaded.info.format, loaded.info.width, loaded.info.height) == ("DICOM", 128, 96)
    assert loaded.info.spacing_mm == (0.02, 0.03)
    assert loaded.info.notes == (("first of 3 pictures used",) if frames == 3 else ())


@pytest.mark.parametrize("encoding", ["explicit", "rle", "jpeg", "lossless"])
@pytest.mark.parametrize(
    ("colours", "note"),
    [
        ("MONOCHROME1", "MONOCHROME1"),
        ("MONOCHROME2", "grey turned"),
        ("PALETTE COLOR", "palette"),
        ("YBR_FULL", None),
        ("YBR_FULL_422", None),
    ],
)
def test_colours(files: ModuleType, colours: str, note: str | None, encoding: str) -> None:
    if ("PALETTE" in colours and encoding in ("jpeg", "lossless")) or (
        encoding != "jpeg" and "422" in colours
    ):
        pytest.skip("not allowed by PS3.5 8.2")
    loaded = load_image(files.to_bytes(files.photograph(colours=colours, encoding=encoding)))
    expected = files.lesion().astype(int)
    if not colours.startswith("YBR"):
        expected = expected[..., :1].repeat(3, axis=2)
    assert np.abs(loaded.pixels - expected).mean() < (3 if encoding == "jpeg" else 1)
    assert note is None or any(text.startswith(note) for text in loaded.info.notes)


def test_colours_that_are_not_read_are_not_taken_for_others(files: ModuleType) -> None:
    ds = files.photograph()
    ds.PhotometricInterpretation = "rgb"
    assert np.array_equal(load_image(files.to_bytes(ds)).pixels, files.lesion())
    for colours in ("HSV", "YBR_PARTIAL_422", "CMYK"):
        ds.PhotometricInterpretation = colours
        with pytest.raises(ImageError, match=f"the colour space {colours} is not read"):
            load_image(files.to_bytes(ds))


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("colours", ["MONOCHROME2", "RGB"])
def test_more_than_8_bits(files: ModuleType, bits: int, colours: str) -> None:
    loaded = load_image(files.to_bytes(files.photograph(colours=colours, bits=bits)))
    expected = files.lesion()[..., :1] if colours != "RGB" else files.lesion()
    assert np.abs(loaded.pixels.astype(int) - expected).max() <= 1
    assert loaded.info.bits == bits


def test_values_with_a_sign(files: ModuleType) -> None:
    ds = files.photograph(RAMP, colours="MONOCHROME2", bits=16)
    ds.PixelRepresentation = 1
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2").astype(np.int32) - 32768).astype("<i2").tobytes()
    assert np.abs(load_image(files.to_bytes(ds)).pixels.astype(int) - RAMP).max() <= 1


def test_window_is_applied(files: ModuleType) -> None:
    ds = files.photograph(colours="MONOCHROME2", bits=12, WindowCenter=2048, WindowWidth=2)
    assert set(np.unique(load_image(files.to_bytes(ds)).pixels)) <= {0, 255}


@pytest.mark.parametrize("slope", [1, 0.5])
@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_about_rescaled_values(files: ModuleType, slope: float, function: str) -> None:
    """Stretched and shifted by the modality transformation, with a window that goes along."""

    def show(**values: Any) -> NDArray[np.uint8]:
        ds = files.photograph(RAMP, colours="MONOCHROME2", bits=12, VOILUTFunction=function, **values)
        return load_image(files.to_bytes(ds)).pixels

    plain = show(WindowCenter=1500, WindowWidth=3000)
    rescale = {"RescaleSlope": slope, "RescaleIntercept": -1024}
    rescaled = show(WindowCenter=1500 * slope - 1024, WindowWidth=3000 * slope, **rescale)
    assert len(np.unique(plain)) > 50 and np.array_equal(plain, rescaled)
    assert np.abs(show(**rescale).astype(int) - RAMP).max() <= 1


def look_up_table(bits: int, entries: np.ndarray, first: int, *, packed: bool) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.add_new("LUTData", "OW", entries.astype("u1" if packed else "<u2").tobytes())
    return item


@pytest.mark.parametrize(("bits", "packed"), [(8, False), (8, True), (12, False), (16, False)])
@pytest.mark.parametrize("where", ["VOILUTSequence", "ModalityLUTSequence", "both"])
def test_a_table_has_its_own_depth(files: ModuleType, bits: int, packed: bool, where: str) -> None:
    entries = (np.arange(4096) * ((1 << bits) - 1) / 4095).round()
    table = look_up_table(bits, entries, 0, packed=packed)
    if where == "both":  # the second one takes what the first one gives, and inverts it
        second = look_up_table(8, np.arange(1 << bits)[::-1] >> (bits - 8), 0, packed=packed)
        values = {"ModalityLUTSequence": [table], "VOILUTSequence": [second]}
    else:
        values = {where: [table]}
    ds = files.photograph(RAMP, colours="MONOCHROME2", bits=12, **values)
    expected = RAMP.astype(int)
    if where == "both":
        expected = 255 - expected
    assert np.abs(load_image(files.to_bytes(ds)).pixels - expected).max() <= 1


def test_a_table_may_begin_below_zero_and_must_be_whole(files: ModuleType) -> None:
    values = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 1, "WindowWidth": 1}
    table = look_up_table(8, np.arange(4096) >> 4, -1024, packed=False)
    ds = files.photograph(RAMP, colours="MONOCHROME2", bits=12, VOILUTSequence=[table], **values)
    shown = load_image(files.to_bytes(ds)).pixels
    assert np.abs(shown - RAMP.astype(int)).max() <= 1
    table.LUTData = table.LUTData[:100]
    with pytest.raises(ImageError, match="VOILUTSequence has 100 entries"):
        load_image(files.to_bytes(ds))


def first_frame_group(spacing: list[float]) -> list[Dataset]:
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing, group.PixelMeasuresSequence = spacing, [measures]
    return [group]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"SharedFunctionalGroupsSequence": first_frame_group([0.1, 0.2])}, (0.1, 0.2)),
        ({"PerFrameFunctionalGroupsSequence": first_frame_group([0.1, 0.2])}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": [0.004, 0.004]}, None),  # of the sensor, not of the skin
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.3, 0.3]}, (0.1, 0.2)),
        ({"PixelSpacing": [0, 0.2]}, None),
        ({"PixelSpacing": None}, None),
        ({"NominalScannedPixelSpacing": [1, 1], "PixelAspectRatio": [1, 1]}, None),
    ],
)
def test_unknown_spacing_is_none(files: ModuleType, values: dict[str, Any], expected: object) -> None:
    assert load_image(files.to_bytes(files.photograph(**values))).info.spacing_mm == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, date(2026, 1, 2)),
        ({"AcquisitionDateTime": "20251231235959.5+0100"}, date(2025, 12, 31)),
        ({"AcquisitionDateTime": "202511", "ContentDate": "20251102"}, date(2025, 11, 2)),
        ({"AcquisitionDateTime": "", "ContentDate": "", "StudyDate": "20250203"}, date(2025, 2, 3)),
        ({"AcquisitionDateTime": "", "ContentDate": "unknown", "StudyDate": ""}, None),
        ({"LongitudinalTemporalInformationModified": "REMOVED", "ContentDate": "19000101"}, None),
        ({"LongitudinalTemporalInformationModified": "MODIFIED"}, date(2026, 1, 2)),
    ],
)
def test_the_day_it_was_taken(files: ModuleType, values: dict[str, Any], expected: date | None) -> None:
    """A month without a day is none."""
    assert load_image(files.to_bytes(files.photograph(**values))).info.taken == expected


def test_jpeg_is_decoded_small(files: ModuleType) -> None:
    large = files.lesion(960, 1280)
    loaded = load_image(files.to_bytes(files.photograph(large, encoding="jpeg")), min_side=200)
    assert loaded.pixels.shape == (240, 320, 3) and loaded.info.width == 1280


def test_without_preamble_or_with_a_tiff_in_it(files: ModuleType) -> None:
    data = files.to_bytes(files.photograph())
    assert np.array_equal(load_image(data[132:]).pixels, files.lesion())
    assert np.array_equal(load_image(b"II*\0" + data[4:]).pixels, files.lesion())


def test_bombs_are_refused_before_they_are_unpacked(
    files: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "MAX_INFLATED", 1 << 26)
    deflated = files.to_bytes(files.photograph(encoding="deflated"))
    end = 144 + int.from_bytes(deflated[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes((1 << 26) + 1)) + packer.flush()
    tracemalloc.start()
    with pytest.raises(ImageError, match="more than 67,108,864 bytes"):
        load_image(deflated[:end] + bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 26
    huge = files.photograph()
    huge.Rows = huge.Columns = 60_000
    with pytest.raises(ImageError, match=r"3,600\.0 megapixels"):
        load_image(files.to_bytes(huge))
    ds = files.photograph(encoding="jpeg2000")
    data = files.to_bytes(ds)
    at = data.index(b"\xff\x4f\xff\x51") + 8
    with pytest.raises(ImageError, match="two sizes"):
        load_image(data[:at] + struct.pack(">II", 60000, 60000) + data[at + 8 :])
    with pytest.raises(ImageError, match="elements"):
        load_image(data[:132] + struct.pack("<HH2sH", 8, 8, b"CS", 0) * 20_000)
    end = 144 + int.from_bytes(data[140:144], "little")
    sequence = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    nothing = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    for endless in (bytes(4_000_000), sequence + nothing * 500_000):  # a command set; items of a sequence
        with pytest.raises(ImageError, match="too many elements"):
            load_image(data[:end] + endless)


def test_what_is_no_photograph_says_what_it_is(files: ModuleType, tmp_path: Path) -> None:
    ds = files.photograph()
    del ds.PixelData
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    with pytest.raises(ImageError, match="Comprehensive SR and holds no picture"):
        load_image(files.to_bytes(ds))
    words = files.to_bytes(ds).replace(b"1.2.840.10008.5.1.4.1.1.88.33", b"Doe^Jane".ljust(29))
    with pytest.raises(ImageError, match="file of unknown kind"):  # it is logged beside a PACS
        load_image(words)
    path = tmp_path / "a.dcm"
    path.write_bytes(files.to_bytes(files.photograph())[:-3000])
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        load_image(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("encoding", ["jpeg", "jpeg2000", "rle"])
def test_a_file_that_was_cut_off_says_so(files: ModuleType, encoding: str) -> None:
    """Before: "holds nothing", of a file that lacks its last bytes."""
    with pytest.raises(ImageError, match="ends early") as error:
        load_image(files.to_bytes(files.photograph(encoding=encoding))[:-20])
    assert "copy it again" in str(error.value)


def test_dicom_as_mask(files: ModuleType) -> None:
    white = np.where(files.lesion() < 100, np.uint8(255), np.uint8(0))
    ds = files.photograph(white, kind="capture", colours="MONOCHROME2")
    assert np.array_equal(load_mask(files.to_bytes(ds)), white[..., 0] > 0)
    for colours in ("MONOCHROME2", "PALETTE COLOR"):  # a label map: 2 is the second lesion
        ds = files.photograph(white, kind="capture", colours="MONOCHROME2", SegmentationType="LABELMAP")
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
        labels = np.where(white[..., 0] > 0, 1 + (np.arange(128) > 64), 0)
        ds.PhotometricInterpretation, ds.PixelData = colours, labels.astype(np.uint8).tobytes()
        assert np.array_equal(load_mask(files.to_bytes(ds)), labels > 0)
        with pytest.raises(ImageError, match="Segmentation, not a photograph"):
            load_image(files.to_bytes(ds))


def test_without_the_extra_the_command_is_named(files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(files.to_bytes(files.photograph()))
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from dermseg.images import load_image; from dermseg.errors import ImageError\n"
        f"for source in ({str(path)!r}, open({str(path)!r}, 'rb').read()):\n"
        "    try: load_image(source)\n"
        "    except ImageError as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'pip install "dermseg[dicom]"\n' * 2
