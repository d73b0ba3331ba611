"""The Basic Application Level Confidentiality Profile as data (PS3.15 E.2, table E.1-1, edition 2026c).

``profile_e1.csv`` has the table's actions: X remove, Z empty, D dummy, U new UID. Where the table leaves a
choice (X/Z, X/D, X/Z/D, Z/D), the attribute stays with a dummy or empty, which suits every kind of object.

Stricter than the table: every private attribute goes; so does every attribute that the data dictionary does
not know; dates, names and UIDs are treated by their value representation even where the table forgets them;
and *text* stays only where it is on the short list below, because a name can be typed into any text.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag

from dermseg.errors import UsageError

# Option -> (code of CID 7050, its meaning)
OPTIONS: dict[str, tuple[str, str]] = {
    "uids": ("113110", "Retain UIDs Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "shifted-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
}
BASIC = ("113100", "Basic Application Confidentiality Profile")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RETAINED: dict[str, frozenset[str]] = {
    "device": _words(
        "DeviceSerialNumber DeviceUID DeviceID DeviceDescription DeviceLabel StationName GantryID DetectorID "
        "CassetteID PlateID GeneratorID PerformedStationName PerformedStationAETitle XRaySourceID "
        "UDISequence UniqueDeviceIdentifier"
    ),
    "institution": _words(
        "InstitutionName InstitutionAddress InstitutionalDepartmentName InstitutionCodeSequence "
        "InstitutionalDepartmentTypeCodeSequence ClinicalTrialSiteID ClinicalTrialSiteName "
        "ClinicalTrialCoordinatingCenterName ClinicalTrialProtocolEthicsCommitteeName"
    ),
    "patient": _words(
        "PatientSex PatientAge PatientSize PatientWeight EthnicGroup SmokingStatus PregnancyStatus "
        "PatientSexNeutered"
    ),
    # Dates and times go by their value representation.
    "dates": frozenset(["TimezoneOffsetFromUTC"]),
    "shifted-dates": frozenset(["TimezoneOffsetFromUTC"]),
}
# Dates about the person, not about the visit: no option retains them.
_ALWAYS_PERSONAL = frozenset(
    ["PatientBirthDate", "PatientBirthTime", "PatientDeathDateInAlternativeCalendar"]
)
_TEXT_KEPT = _words(
    "CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning LongCodeValue CodingSchemeName "
    "MappingResourceName Manufacturer ManufacturerModelName SoftwareVersions SegmentLabel AlgorithmName "
    "AlgorithmVersion AlgorithmSource SegmentAlgorithmName DimensionDescriptionLabel LUTExplanation "
    "ExposureIndexUnit LensMake LensModel AlgorithmParameters TrackingID ModalityLUTType"
)
# Objects are not valid without these, even if there is nothing in them (type 2).
_TEXT_EMPTIED = _words("ContentDescription PositionReferenceIndicator")
_BINARY_KEPT = _words(
    "PixelData FloatPixelData DoubleFloatPixelData ICCProfile "
    "RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
    "AlphaPaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData "
    "SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData LUTData "
    "ExtendedOffsetTable ExtendedOffsetTableLengths SmallestImagePixelValue LargestImagePixelValue "
    "FileMetaInformationVersion"
)
_TEXT = frozenset(["LO", "SH", "AE", "LT", "ST", "UT", "UC", "UR", "UN"])
_BINARY = frozenset(["OB", "OW", "OF", "OD", "OL", "OV", "OB or OW"])


@cache
def table() -> dict[int, str]:
    """Tag -> action of table E.1-1."""
    text = files("dermseg.dicom").joinpath("profile_e1.csv").read_text(encoding="ascii")
    return {int(row["tag"], 16): row["action"] for row in csv.DictReader(text.splitlines())}


def parse_retain(text: str) -> frozenset[str]:
    """``"uids,device"`` -> the options.

    Raises
    ------
    UsageError
        An unknown option, or both kinds of dates.
    """
    chosen = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
    unknown = sorted(chosen - set(OPTIONS))
    if unknown:
        raise UsageError(f"--retain: unknown value {', '.join(unknown)}", hint=f"of {', '.join(OPTIONS)}")
    if {"dates", "shifted-dates"} <= chosen:
        raise UsageError("--retain: dates and shifted-dates exclude each other")
    return chosen


def action(tag: int, vr: str, retain: frozenset[str]) -> str:
    """What happens to an attribute.

    Returns
    -------
    str
        ``remove``, ``empty``, ``dummy``, ``uid`` (a new one), ``shift`` (a date), ``items`` (look inside a
        sequence) or ``keep``.
    """
    group = tag >> 16
    if group % 2 or group & 0xFF00 in (0x5000, 0x6000) or not dictionary_has_tag(tag):
        return "remove"  # private, curves, overlays, unknown
    keyword = keyword_for_tag(tag)
    listed = table().get(tag)
    if any(keyword in _RETAINED[option] for option in retain & set(_RETAINED)):
        return "items" if vr == "SQ" else "keep"
    if vr == "UI":
        return "keep" if "uids" in retain else "uid"
    if vr in ("DA", "DT", "TM") and keyword not in _ALWAYS_PERSONAL:
        if "dates" in retain:
            return "keep"
        if "shifted-dates" in retain:
            return "keep" if vr == "TM" else "shift"
    if listed is not None:
        return _listed(listed, vr)
    if vr == "SQ":
        return "items"
    if vr in ("DA", "DT", "TM"):
        return "remove"
    if vr == "PN":
        return "empty"
    if vr in _TEXT:
        if keyword in _TEXT_EMPTIED:
            return "empty"
        return "keep" if keyword in _TEXT_KEPT else "remove"
    if vr in _BINARY or dictionary_VR(tag) in _BINARY:
        return "keep" if keyword in _BINARY_KEPT else "remove"
    return "keep"


def _listed(listed: str, vr: str) -> str:
    if listed == "X":
        return "remove"
    if vr == "SQ":
        return "empty" if listed == "Z" else "items"
    if listed in ("Z", "X/Z", "Z/D", "X/Z/D"):
        return "empty" if listed in ("Z", "X/Z") else "dummy"
    return "uid" if vr == "UI" else "dummy"
