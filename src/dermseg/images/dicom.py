"""DICOM photographs: what is in the file (this module) and its pixels (``dicom_pixels``).

pydicom parses, because DICOM's many dialects are its trade; what it cannot be trusted with is done before it
is called: a deflated file is unpacked up to a limit, a file of endless small elements is refused, and sizes
are checked before anything is decoded. Sources: DICOM PS3.3 C.7.6.3 (Image Pixel), C.7.6.16.2.1 (Pixel
Measures), PS3.5 A.5 (Deflated), PS3.10 7.1 (file meta information), edition 2026c.

Needs the extra ``[dicom]``; without it ``read_dataset`` says which command installs it.
"""

from __future__ import annotations

import functools
import io
import warnings
import zlib
from datetime import date
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dermseg.errors import ImageError
from dermseg.images.headers import Header, dicom_error

if TYPE_CHECKING:
    from pydicom import Dataset

MANUFACTURER = "dermseg"  # of the objects that dermseg writes
# Segmentation and, since edition 2024d, Label Map Segmentation, whose values are numbers of segments.
SEGMENTATIONS = frozenset(("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"))
_DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
# A photograph has some hundred elements at the top level; a million empty ones would take minutes to read.
MAX_ELEMENTS = 10_000
MAX_READS = 200_000  # for those that pydicom counts for nobody: of a command set, inside of sequences
MAX_INFLATED = 320 << 20  # 100 megapixels in colour, and a header
_PIECE = 1 << 24


def dicom_installed() -> bool:
    """Whether the extra that reads DICOM is here."""
    return find_spec("pydicom") is not None


class _Counted(io.BytesIO):
    """A file in memory that is read in so many pieces at most."""

    left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ImageError("the DICOM file has too many elements")
        return super().read(size)


@functools.cache
def _prepare_pydicom() -> None:
    """Read leniently and without remarks on stderr: what is odd about a file is said in its own row."""
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def read_dataset(data: bytes) -> Dataset:
    """Parse a DICOM file; its pixels stay packed.

    Raises
    ------
    ImageError
        No DICOM, damaged, too many elements, or the extra is not installed.
    """
    if not dicom_installed():
        raise dicom_error()
    _prepare_pydicom()
    from pydicom.filereader import read_partial

    count = 0

    def too_many(tag: Any, vr: str | None, length: int) -> bool:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS:
            raise ImageError(f"the DICOM file has more than {MAX_ELEMENTS:,} elements")
        return False

    try:
        dataset: Dataset = read_partial(_Counted(_inflate(data)), too_many, force=data[128:132] != b"DICM")
        known = len(dataset)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("not enough memory for this DICOM file") from error
    except Exception as error:  # pydicom raises many types on damaged files, RecursionError among them
        raise ImageError(f"the DICOM file is damaged: {_reason(error)}") from error
    if not known:  # also of a file that is cut off in coded pixels: pydicom gives back nothing of it
        raise ImageError(
            "the DICOM file ends early or holds nothing", hint="copy it again from where it came"
        )
    return dataset


def _inflate(data: bytes) -> bytes:
    """Undo the deflated transfer syntax, up to a limit: 1 GiB may hide in 1 MB.

    It is measured in pieces first, so that what is too large is never in memory.
    """
    if data[132:140] != b"\x02\0\0\0UL\x04\0":  # group length, the first element of every proper file
        return data
    end = 144 + int.from_bytes(data[140:144], "little")
    meta = data[:end]
    if meta.find(_DEFLATED.encode()) < 0:
        return data
    engine, packed, size = zlib.decompressobj(-zlib.MAX_WBITS), data[end:], 0
    while piece := engine.decompress(packed, _PIECE):
        size += len(piece)
        if size > MAX_INFLATED:
            raise ImageError(f"the deflated DICOM file has more than {MAX_INFLATED:,} bytes")
        packed = engine.unconsumed_tail
    plain = _EXPLICIT_LITTLE.encode().ljust(len(_DEFLATED), b"\0")
    whole = zlib.decompressobj(-zlib.MAX_WBITS)  # unlike zlib.decompress, no error where the file was cut off
    return meta.replace(_DEFLATED.encode(), plain) + whole.decompress(data[end:])


def probe_dicom(data: bytes) -> Header:
    """Read the header of a DICOM file that holds a picture.

    Raises
    ------
    ImageError
        No DICOM, damaged, no picture in it (a report, say), or a video.
    """
    dataset = read_dataset(data)
    try:
        return _header(dataset, data)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"the DICOM header is damaged: {_reason(error)}") from error


def _header(dataset: Dataset, data: bytes) -> Header:
    kind = class_name(dataset)
    if "PixelData" not in dataset:
        raise ImageError(f"the DICOM file is a {kind} and holds no picture")
    syntax = transfer_syntax(dataset)
    if syntax.startswith("1.2.840.10008.1.2.4.10"):  # .100 to .108: MPEG-2, MPEG-4 and HEVC
        raise ImageError("the DICOM file holds a video", hint="store single frames as photographs")
    missing = [name for name in ("Rows", "Columns") if name not in dataset]
    if missing:
        raise ImageError(f"the DICOM header is damaged: it has no {' and no '.join(missing)}")
    notes: list[str] = []
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    colours = photometric(dataset)
    if colours == "MONOCHROME1":
        notes.append("MONOCHROME1: light and dark exchanged")
    elif colours == "PALETTE COLOR":
        notes.append("palette turned into RGB")
    spacing = spacing_of(dataset)
    return Header(
        "DICOM",
        int(dataset.Columns),
        int(dataset.Rows),
        int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 8),
        data,
        frames=frames,
        notes=tuple(notes),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        spacing_mm=spacing,
        taken=taken_on(dataset),
        mask_only=dataset.get("SOPClassUID") in SEGMENTATIONS,
        drawn_on=dataset.get("Manufacturer") == MANUFACTURER
        and "OVERLAY" in (dataset.get("ImageType") or ()),
    )


def class_name(dataset: Dataset) -> str:
    """What kind of object it is, in words (``Dermoscopic Photography Image``)."""
    from pydicom.uid import UID

    uid = UID(str(dataset.get("SOPClassUID") or ""))
    name = uid.name if uid.is_valid else "file of unknown kind"  # no words: they are logged
    return name.removesuffix(" Storage")


def transfer_syntax(dataset: Dataset) -> str:
    """The transfer syntax UID; Implicit VR Little Endian, DICOM's default, where the file names none."""
    meta = getattr(dataset, "file_meta", None)
    named = None if meta is None else meta.get("TransferSyntaxUID")
    if named:
        return str(named)
    implicit, little = dataset.original_encoding
    if implicit:
        return "1.2.840.10008.1.2"
    return _EXPLICIT_LITTLE if little else "1.2.840.10008.1.2.2"


def photometric(dataset: Dataset) -> str:
    """Photometric Interpretation (0028,0004), as the standard writes it."""
    return str(dataset.get("PhotometricInterpretation") or "").strip().upper()


def spacing_of(dataset: Dataset) -> tuple[float, float] | None:
    """Millimetres between pixel centres (row, column); None unless the file is calibrated.

    Pixel Spacing (0028,0030), in a multi-frame file that of its first frame. Pixel Aspect Ratio and Nominal
    Scanned Pixel Spacing say nothing about skin, nor does Imager Pixel Spacing (0018,1164): it is measured at
    the detector and never adjusted for magnification (PS3.3 10.7), the pitch of a camera's sensor.
    """
    for place in (dataset, *_measures(dataset)):
        try:
            row, column = (float(value) for value in place.get("PixelSpacing"))
        except (TypeError, ValueError):  # absent, empty, one value, or no numbers
            continue
        if all(1e-6 <= value < 100 for value in (row, column)):  # not for NaN
            return row, column
    return None


def taken_on(dataset: Dataset) -> date | None:
    """The day on which the picture was taken; that of the study where nothing is closer to it.

    None where de-identification has removed the dates (PS3.3 C.7.1.1): what stands there then is no date.
    """
    if str(dataset.get("LongitudinalTemporalInformationModified") or "") == "REMOVED":
        return None
    for name in ("AcquisitionDateTime", "AcquisitionDate", "ContentDate", "StudyDate"):
        try:
            return date.fromisoformat(str(dataset.get(name))[:8])
        except ValueError:  # absent, empty, or no date
            continue
    return None


def _measures(dataset: Dataset) -> list[Any]:
    found = []
    for group in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        items = dataset.get(group) or []
        measures = items[0].get("PixelMeasuresSequence") if len(items) else None
        if measures:
            found.append(measures[0])
    return found


def _reason(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
