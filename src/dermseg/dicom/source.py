"""The photograph as the library that writes results wants to see it, and the patient put back afterwards.

highdicom copies patient and study from the source and checks every value on the way. Archives hold values
that fail such checks (a birth date with dots, a patient id of 70 characters). So it gets a *reference* with
those values left empty, and `put_back` then copies patient and study from the source as they stand: a result
that carries another patient id than its image would be lost, or worse.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.multival import MultiValue
from pydicom.uid import SecondaryCaptureImageStorage

from dermseg.dicom.identity import Origin, derive_uid
from dermseg.images.dicom import spacing_of

# Patient, General Study, Patient Study, Clinical Trial Subject and Clinical Trial Study modules
# (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.1.3, C.7.2.3).
_PATIENT = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
_TEXT = frozenset(("AS", "CS", "DA", "DS", "LO", "LT", "PN", "SH", "ST", "TM", "UI"))
_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def reference(image: Dataset) -> Dataset:
    """A small data set with what the writers read: UIDs, size, spacing; no patient.

    A multi-frame source becomes its first frame, which is the picture that was segmented. Frame of reference
    and position go along only where all that places a pixel is there: spacing, position, orientation.
    """
    found = Dataset()
    found.file_meta = FileMetaDataset()
    for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(found, name, str(image[name].value))
    found.Rows, found.Columns = int(image.Rows), int(image.Columns)
    found.Modality = str(image.get("Modality") or "OT")[:16]
    found.InstanceNumber = 1
    if image.get("NumberOfFrames"):  # as a single picture; `put_back` names the class and the frame
        found.SOPClassUID = SecondaryCaptureImageStorage
    for name in _REQUIRED:
        setattr(found, name, None)
    if str(image.get("LossyImageCompression") or "") == "01":  # what was lost stays lost
        found.LossyImageCompression = "01"
        found.LossyImageCompressionMethod = image.get("LossyImageCompressionMethod") or "ISO_10918_1"
        found.LossyImageCompressionRatio = _ratios(image) or 1
    spacing = spacing_of(image)
    if spacing is not None:
        found.PixelSpacing = [round(value, 10) for value in spacing]
        # A photograph has no thickness, but highdicom 0.28 refuses to read a segmentation with a spacing and
        # without one. As thick as its rows are apart: pixels as cubes, which makes up no extent of its own.
        thickness = _numbers(image, "SliceThickness", 1)
        found.SliceThickness = thickness[0] if thickness and thickness[0] > 0 else found.PixelSpacing[0]
    position = _numbers(image, "ImagePositionPatient", 3)
    orientation = _numbers(image, "ImageOrientationPatient", 6)
    frame_of_reference = image.get("FrameOfReferenceUID")
    if frame_of_reference and spacing and position and orientation and _is_orthonormal(orientation):
        found.FrameOfReferenceUID = str(frame_of_reference)
        found.ImagePositionPatient, found.ImageOrientationPatient = position, orientation
    return found


def _ratios(image: Dataset) -> list[float] | None:
    """Lossy Image Compression Ratio; None where there is none, or no number (``20:1``)."""
    try:
        value = image.get("LossyImageCompressionRatio")
        found = [float(f"{float(one):.6g}") for one in (value if isinstance(value, MultiValue) else [value])]
    except (TypeError, ValueError):
        return None
    return found if all(map(math.isfinite, found)) else None


def _numbers(image: Dataset, keyword: str, count: int) -> list[float] | None:
    """The finite numbers of an attribute; None where there are not so many, or where it is damaged."""
    try:
        value = image[keyword].value
        found = [float(one) for one in ([value] if count == 1 else value)]
    except (KeyError, TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def _is_orthonormal(orientation: list[float]) -> bool:
    """Whether the directions of rows and columns have length 1 and a right angle (PS3.3 C.7.6.2.1.1)."""
    directions = np.array(orientation).reshape(2, 3)
    return bool(np.allclose(directions @ directions.T, np.eye(2), atol=1e-3))


def put_back(made: Dataset, origin: Origin) -> None:
    """Copy patient and study from the photograph, byte for byte, and set the moment of creation."""
    image = origin.image
    if image.get("NumberOfFrames"):
        numbers = frame_numbers(image)
        made.walk(partial(_name_frame, origin.image_uid, str(image.SOPClassUID), numbers))
    created = _on_the_clock_of(image, origin.created)
    moment: dict[str, Any] = {
        "InstanceCreationDate": created.strftime("%Y%m%d"),
        "InstanceCreationTime": created.strftime("%H%M%S"),
        "ContentDate": created.strftime("%Y%m%d"),
        "ContentTime": created.strftime("%H%M%S"),
        "DateOfSecondaryCapture": created.strftime("%Y%m%d"),
        "TimeOfSecondaryCapture": created.strftime("%H%M%S"),
    }
    for name, value in moment.items():
        if name in made:
            setattr(made, name, value)
    dimensions = derive_uid(str(made.SOPInstanceUID), "dimensions")
    made.walk(partial(_settle, dimensions, created.strftime("%Y%m%d%H%M%S")))
    correct_ambiguous_vr(made, True)
    for name in _PATIENT:  # last, for what looks at them decodes them
        tag = tag_for_keyword(name)
        assert tag is not None
        if tag in image:
            made[tag] = _as_it_stands(image, tag)
        elif name in ("SpecificCharacterSet",) and tag in made:
            del made[tag]  # the source's letters are those of the default repertoire
    # Else pydicom writes all texts anew, and letters that are none of the character set which the photograph
    # names would become others.
    made.set_original_encoding(False, True, image.original_character_set)


def _as_it_stands(image: Dataset, tag: int) -> DataElement | RawDataElement:
    """An element for a file in Explicit VR Little Endian: the bytes of a text, unless they were decoded."""
    raw = image.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.value is not None:
        vr = raw.VR or dictionary_VR(raw.tag)
        if vr in _TEXT:
            value = raw.value + (b"\0" if vr == "UI" else b" ") * (len(raw.value) % 2)
            return RawDataElement(raw.tag, vr, len(value), value, 0, False, True)
    return image[tag]


def _on_the_clock_of(image: Dataset, moment: datetime) -> datetime:
    """A moment as the photograph's clock shows it, where its file says how far that is from UTC.

    The attribute goes along, and holds for every time of a result (PS3.3 C.12.1).
    """
    offset = str(image.get("TimezoneOffsetFromUTC") or "").strip()
    found = re.fullmatch(r"([+-])(0\d|1[0-4])([0-5]\d)", offset)
    if found is None:
        return moment
    sign, hours, minutes = found.groups()
    away = timedelta(hours=int(hours), minutes=int(minutes))
    return moment.astimezone(timezone(-away if sign == "-" else away))


def _settle(dimensions: str, moment: str, at: Dataset, element: Any) -> None:
    """Replace what was drawn or read from the clock: the same causes give the same bytes."""
    if element.keyword == "DimensionOrganizationUID":
        element.value = dimensions
    elif element.keyword == "ContributionDateTime":
        element.value = moment


def _name_frame(image_uid: str, class_uid: str, numbers: list[int] | None, at: Dataset, element: Any) -> None:
    """In every reference to the photograph, say its class and which frame was segmented."""
    if element.keyword == "ReferencedSOPInstanceUID" and element.value == image_uid:
        at.ReferencedSOPClassUID = class_uid
        if numbers is not None and "PurposeOfReferenceCodeSequence" in at:
            at.ReferencedFrameNumber = numbers


def frame_numbers(image: Dataset) -> list[int] | None:
    """``[1]`` for a source of several frames; None for a single picture, which is named without.

    Cameras write a Number of Frames of 1 into single-frame objects, which have no frames to be named.
    """
    return [1] if int(image.get("NumberOfFrames") or 1) > 1 else None
