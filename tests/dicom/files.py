"""DICOM photographs made from pixels, in the kinds and encodings that cameras and archives produce."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID, generate_uid

KINDS = {
    "photographic": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "dermoscopic": "1.2.840.10008.5.1.4.1.1.77.1.7",
    "capture": "1.2.840.10008.5.1.4.1.1.7",
    "multiframe": "1.2.840.10008.5.1.4.1.1.7.4",
}
SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "lossless": "1.2.840.10008.1.2.4.70",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "rle": "1.2.840.10008.1.2.5",
}


def lesion(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Light skin with a dark disc: uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 4) ** 2
    ground = np.stack([210 + 0 * x, 170 + (x % 16), 150 + (y % 16)], -1)
    return np.where(inside[..., None], np.array([80, 50, 45]), ground).astype(np.uint8)


def photograph(
    pixels: NDArray[Any] | None = None,
    *,
    kind: str = "dermoscopic",
    encoding: str = "explicit",
    colours: str = "RGB",
    bits: int = 8,
    frames: int = 1,
    spacing: tuple[float, float] | None = None,
    **values: Any,
) -> Dataset:
    """A data set with its file meta information; `values` are further attributes by keyword.

    `pixels` are uint8 RGB; `colours` says how they are stored (grey is the first channel).
    """
    pixels = lesion() if pixels is None else pixels
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = KINDS[kind]
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.StudyDate, ds.StudyTime = "20260102", "101112"
    ds.ContentDate, ds.ContentTime = "20260102", "101113"
    ds.AcquisitionDateTime = "20260102101113"
    ds.AccessionNumber, ds.StudyID = "A77", "S1"
    ds.Modality = {"dermoscopic": "DMS", "photographic": "XC"}.get(kind, "OT")
    ds.Manufacturer = "Camera Works"
    ds.ReferringPhysicianName = "Referrer^Rita"
    ds.PatientName, ds.PatientID = "Doe^Jane", "P-0815"
    ds.PatientBirthDate, ds.PatientSex = "19700131", "F"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.PatientOrientation = ["L", "F"]
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    if kind in ("capture", "multiframe"):
        ds.ConversionType = "DI"
    if spacing is not None:
        ds.PixelSpacing = list(spacing)
    for name, value in values.items():
        setattr(ds, name, value)
    _store_pixels(ds, pixels, encoding, colours, bits, frames)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = UID(SYNTAXES[encoding])
    return ds


def _store_pixels(
    ds: Dataset, pixels: NDArray[Any], encoding: str, colours: str, bits: int, frames: int
) -> None:
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if colours.startswith(("MONO", "PALETTE")) else 3
    ds.PhotometricInterpretation = colours
    ds.PixelRepresentation = 0
    stored: NDArray[Any] = pixels
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
        if colours.startswith("YBR_FULL") and encoding not in ("jpeg", "jpeg2000"):
            stored = convert_color_space(pixels, "RGB", "YBR_FULL")
    else:
        stored = pixels[..., 0]
        if colours == "MONOCHROME1":
            stored = 255 - stored
        if colours == "PALETTE COLOR":  # the table holds the grey values the other way round
            stored = 255 - stored
            for channel in ("Red", "Green", "Blue"):
                setattr(ds, f"{channel}PaletteColorLookupTableDescriptor", [256, 0, 16])
                table = (255 - np.arange(256, dtype="<u2")) * 257
                setattr(ds, f"{channel}PaletteColorLookupTableData", table.astype("<u2").tobytes())
    if bits > 8:
        stored = (stored.astype(np.uint16) << (bits - 8)) | (stored >> (16 - bits)).astype(np.uint16)
    ds.BitsAllocated = 8 if bits == 8 else 16
    ds.BitsStored, ds.HighBit = bits, bits - 1
    if frames > 1 or ds.SOPClassUID == KINDS["multiframe"]:
        ds.NumberOfFrames = frames
    if encoding in ("jpeg", "lossless", "jpeg2000", "rle"):
        frame = _compressed(ds, stored, encoding, colours)
        ds.PixelData = encapsulate([frame] * frames)
        ds["PixelData"].VR = "OB"
    else:
        data = np.ascontiguousarray(stored).astype(f"<u{ds.BitsAllocated // 8}").tobytes() * frames
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB" if bits == 8 else "OW"


def _compressed(ds: Dataset, stored: NDArray[Any], encoding: str, colours: str) -> bytes:
    if encoding == "rle":
        return RLELosslessEncoder.encode(
            stored,
            rows=ds.Rows,
            columns=ds.Columns,
            samples_per_pixel=ds.SamplesPerPixel,
            planar_configuration=0,
            bits_allocated=ds.BitsAllocated,
            bits_stored=ds.BitsStored,
            pixel_representation=0,
            photometric_interpretation=colours,
            number_of_frames=1,
        )
    if encoding == "lossless":
        return lossless_jpeg(stored)
    out = io.BytesIO()
    image = Image.fromarray(stored)
    if encoding == "jpeg":
        image.save(out, "JPEG", quality=95, keep_rgb=colours == "RGB")
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = "10"
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    else:
        image.save(out, "JPEG2000", irreversible=False, no_jp2=True)
        if ds.SamplesPerPixel == 3:
            ds.PhotometricInterpretation = "YBR_RCT"
    return out.getvalue()


def lossless_jpeg(stored: NDArray[np.uint8]) -> bytes:
    """JPEG Lossless, first-order prediction, as scanners write it: no JFIF, components as they are."""
    values = stored.reshape(*stored.shape[:2], -1).astype(int)
    height, width, samples = values.shape
    before = np.full_like(values, 128)
    before[1:, 0], before[:, 1:] = values[:-1, 0], values[:, :-1]
    bits = "".join(
        f"{size:04b}" + (f"{step if step > 0 else step + (1 << size) - 1:0{size}b}" if size else "")
        for step in (values - before).ravel().tolist()
        for size in (abs(step).bit_length(),)
    )
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    numbers = range(1, samples + 1)
    frame = struct.pack(">BHHB", 8, height, width, samples) + b"".join(bytes([n, 0x11, 0]) for n in numbers)
    codes = bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)])  # nine codes of four bits: 0 to 8 bits follow
    scan = bytes([samples, *(byte for n in numbers for byte in (n, 0)), 1, 0, 0])
    segments = ((0xC3, frame), (0xC4, codes), (0xDA, scan))
    header = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments
    )
    return b"\xff\xd8" + header + coded + b"\xff\xd9"


def to_bytes(ds: Dataset, *, preamble: bool = True) -> bytes:
    """The data set as the bytes of a file."""
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue() if preamble else out.getvalue()[132:]


TEXTS = """
    StudyDescription SeriesDescription ImageComments PatientComments InstitutionName InstitutionAddress
    StationName DeviceSerialNumber OperatorsName PerformingPhysicianName ReferringPhysicianName PatientAddress
    PatientTelephoneNumbers OtherPatientIDs EthnicGroup Occupation AdditionalPatientHistory ProtocolName
    RequestedProcedureDescription DerivationDescription AcquisitionComments ImageID TextComments
    CountryOfResidence PatientReligiousPreference LensSerialNumber CameraOwnerName ContentCreatorName
    AcquisitionDeviceProcessingDescription ContentDescription Manufacturer SoftwareVersions
    UserContentLongLabel FrameComments
"""


def plant(ds: Dataset, rng: np.random.Generator) -> list[bytes]:
    """Write identity wherever it can stand; what must not be found in the cleaned file.

    Names, ids, addresses, dates, UIDs: in their own attributes, in private ones, in text that has nothing to
    do with them, in sequences of sequences, in the preamble, in padding, and inside coded frames.
    """
    tag = f"{rng.integers(1 << 40):010x}"
    name, patient_id = f"Zorvath{tag}", f"ID{tag}"
    day = f"{rng.integers(1930, 1999)}{rng.integers(1, 13):02d}{rng.integers(10, 28)}"
    uid = f"1.2.826.0.1.3680043.8.498.{rng.integers(1 << 60)}"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{name}^Ute=佐藤{tag}", patient_id, day
    ds.AccessionNumber, ds.StudyID = f"AC{tag}"[:16], f"ST{tag}"[:16]
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid + ".1", uid + ".2"
    ds.FrameOfReferenceUID = uid + ".3"
    for keyword in ("StudyDate", "SeriesDate", "ContentDate", "AcquisitionDate", "InstanceCreationDate"):
        setattr(ds, keyword, day)
    ds.AcquisitionDateTime = ds.InstanceCoercionDateTime = day + "101010"
    for keyword in rng.permutation(TEXTS.split())[: int(rng.integers(8, 35))]:
        setattr(ds, str(keyword), f"{name} {patient_id}"[:60])
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", f"seen by {name} {day}"
    inner = Dataset()
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = ds.SOPClassUID, uid + ".4"
    inner.PurposeOfReferenceCodeSequence = [code]
    inner.PatientName = f"{name}^Ute"
    ds.SourceImageSequence = [inner]
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = patient_id, "TEXT"
    other.IssuerOfPatientIDQualifiersSequence = [Dataset()]
    other.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID = name
    ds.OtherPatientIDsSequence = [other]
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepDescription = f"RP{tag}"[:16], name
    request.ReferencedStudySequence = [inner]
    ds.RequestAttributesSequence = [request]
    ds.AnatomicRegionSequence = [code]
    equipment = Dataset()
    equipment.InstitutionName, equipment.ContributionDateTime = name, day + "111111"
    equipment.PurposeOfReferenceCodeSequence = [code]
    ds.ContributingEquipmentSequence = [equipment]
    block = ds.private_block(0x0009, f"CREATOR {name}"[:60], create=True)
    block.add_new(0x01, "LO", patient_id)
    block.add_new(0x02, "SQ", [inner])
    block.add_new(0x03, "OB", f"{name}\0{day}\0".encode())
    ds.add_new(0x60003000, "OW", f"{name}{patient_id}".ljust(64).encode())
    ds.add_new(0x00080110, "SQ", [Dataset()])
    ds[0x00080110].value[0].CodingSchemeName = name
    ds.ICCProfile = f"icc {name}".ljust(64).encode()
    ds.DataSetTrailingPadding = f"{name}".ljust(64).encode()
    ds.file_meta.SourceApplicationEntityTitle = tag[:10]
    ds.file_meta.PrivateInformationCreatorUID = uid + ".5"
    ds.file_meta.PrivateInformation = name.ljust(64).encode()
    ds.preamble = name.encode().ljust(128)
    return [name.encode(), patient_id.encode(), day.encode(), uid.encode(), tag.encode(), "佐藤".encode()]


def plant_in_jpeg(data: bytes, secret: bytes) -> bytes:
    """A JPEG with a comment, EXIF and XMP that hold the secret, and the secret behind its end."""
    parts = [(0xFE, secret), (0xE1, b"Exif\0\0" + secret), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + secret)]
    segments = b"".join(bytes([0xFF, m]) + (len(b) + 2).to_bytes(2, "big") + b for m, b in parts)
    return data[:2] + segments + data[2:] + secret
