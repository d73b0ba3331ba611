"""One DICOM data set without its identity (PS3.15 E.2), and a second look for what was left.

The first pass treats every attribute as `profile.action` says, at every depth. The second knows whom it is
looking for: names, ids, dates and UIDs that the file itself holds are searched in all text and bytes that
stayed, and what holds one goes too. Pixels are only touched where metadata lie inside their coding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from dermseg.dicom.identity import derive_uid, is_uid
from dermseg.dicom.profile import BASIC, OPTIONS, action
from dermseg.dicom.pseudonyms import Pseudonyms
from dermseg.dicom.strip import strip_pixels
from dermseg.dicom.traces import find_traces, flat, fold, is_public, listed, walk
from dermseg.errors import ImageError
from dermseg.images.dicom import class_name, transfer_syntax
from dermseg.version import __version__

IMPLEMENTATION = derive_uid("dermseg", "implementation")
_DUMMY: dict[str, Any] = {
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "PN": "Anonymous",
    "AS": "000Y",
    "IS": 0,
    "DS": 0,
    "AT": 0,
}
# As the standard writes dates and times (PS3.5, table 6.2-1), those of before 1993 too.
_DAY_TIME = {
    "DA": re.compile(r"\d{8}|\d{4}\.\d\d\.\d\d"),
    "TM": re.compile(r"\d\d(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?|\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?"),
    "DT": re.compile(r"\d{4}(?:\d\d){0,5}(?:\.\d{1,6})?(?:[+-]\d{4})?"),
}
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "Rows", "Columns", "BitsAllocated", "PixelData")
_NUMBERS = frozenset(["US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"])
_TEXT = frozenset(["LO", "SH", "AE", "LT", "ST", "UT", "UC", "UR", "PN", "CS", "AS"])


@dataclass
class Cleaned:
    """What was done to one file: names of attributes, never their values."""

    removed: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    found_again: list[str] = field(default_factory=list)
    uids: int = 0
    private: int = 0
    shifted: int = 0
    inside_pixels: int = 0


def clean(dataset: Dataset, pseudonyms: Pseudonyms, retain: frozenset[str]) -> Cleaned:
    """De-identify a data set in place.

    Raises
    ------
    ImageError
        It holds no picture (reports and documents are not cleaned), or pixels in a coding that may hide
        metadata and is not understood.
    """
    if "PixelData" not in dataset:
        raise ImageError(f"a {class_name(dataset)} is not de-identified: only pictures are")
    missing = [name for name in _NEEDED if not dataset.get(name)]
    if missing:
        raise ImageError(f"the DICOM file has no {', '.join(missing)}")
    work = _Work(dataset, pseudonyms, retain)
    work.secrets = find_traces(dataset, retain)
    syntax = transfer_syntax(dataset)
    work.done.inside_pixels = strip_pixels(dataset, syntax)
    work.attributes(dataset)
    work.search(dataset)
    work.say_so(dataset)
    _new_meta(dataset, syntax)
    return work.done


class _Work:
    def __init__(self, dataset: Dataset, pseudonyms: Pseudonyms, retain: frozenset[str]) -> None:
        self.pseudonyms = pseudonyms
        self.retain = retain
        self.done = Cleaned()
        self.secrets: re.Pattern[str] | None = None
        issuer, patient = _text(dataset, "IssuerOfPatientID"), _text(dataset, "PatientID")
        patient = patient or _text(dataset, "PatientName") + _text(dataset, "PatientBirthDate")
        self.patient = pseudonyms.patient(issuer, patient) if patient else ""
        self.days = pseudonyms.shift_days(issuer, patient)

    def attributes(self, dataset: Dataset) -> None:
        for tag in list(dataset.keys()):
            try:
                element = dataset[tag]
                what = action(int(tag), element.VR, self.retain)
                self._apply(dataset, element, what)
            except Exception:  # what cannot be read cannot be cleaned
                del dataset[tag]
                self.done.removed.append(_name(int(tag)))

    def _apply(self, dataset: Dataset, element: DataElement, what: str) -> None:
        tag, name = element.tag, _name(int(element.tag))
        if what == "items":
            for item in element.value or []:
                self.attributes(item)
        elif what == "uid":
            element.value = self._uids(element.value)
        elif what == "keep" and element.VR == "UI" and not element.is_empty:
            if not all(map(is_uid, listed(element.value))):  # a path, or words about somebody
                element.value = self._uids(element.value)
        elif what in ("keep", "shift") and element.VR in _DAY_TIME and not _is_day_or_time(element):
            element.value = None
            self.done.emptied.append(name)
        elif what == "shift":
            if self._shift(element):
                self.done.shifted += 1
            else:
                del dataset[tag]
                self.done.removed.append(name)
        elif name in ("PatientID", "PatientName") and what in ("empty", "dummy"):
            element.value = self.patient
            self.done.replaced.append(name)
        elif what == "remove" or (what == "dummy" and element.VR in ("OB", "OW", "UN", "SQ")):
            del dataset[tag]
            if tag.is_private:
                self.done.private += 1
            self.done.removed.append(name)
        elif what == "empty":
            if not element.is_empty:
                self.done.emptied.append(name)
            element.value = None if element.VR != "SQ" else []
        elif what == "dummy" and not element.is_empty:
            element.value = _DUMMY.get(element.VR, 0 if element.VR in _NUMBERS else "REMOVED")
            self.done.replaced.append(name)

    def _uids(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return self._uid(str(value)) if value else value
        return [self._uid(str(one)) for one in value]

    def _uid(self, old: str) -> str:
        if is_public(old):
            return old
        self.done.uids += 1
        return self.pseudonyms.uid(old)

    def _shift(self, element: DataElement) -> bool:
        values = element.value if element.VM > 1 else [element.value]
        moved = []
        for value in values:
            text = str(value or "")
            if not text:
                return True
            if not re.fullmatch(r"\d{8}", text[:8]):  # a year or month alone, which cannot be moved by days
                return False
            try:
                day = datetime.strptime(text[:8], "%Y%m%d") + timedelta(days=self.days)
            except (ValueError, OverflowError):
                return False
            moved.append(day.strftime("%Y%m%d") + text[8:])
        element.value = moved if len(moved) > 1 else moved[0]
        return True

    def search(self, dataset: Dataset) -> None:
        """The second look: what stayed although it holds a name, id, date or UID of this very file."""
        if self.secrets is None:
            return
        for at, element in walk(dataset):
            name = _name(int(element.tag))
            if name in ("PatientID", "PatientName") or element.VR == "SQ" or element.is_empty:
                continue
            if element.VR in _TEXT:  # not UIDs: new ones tell nothing, retained ones are wanted
                if self.secrets.search(flat(element.value)):
                    element.value = "REMOVED" if element.VR != "AS" else None
                    self.done.found_again.append(name)
            elif isinstance(element.value, bytes) and name != "PixelData" and self._in_bytes(element.value):
                del at[element.tag]
                self.done.found_again.append(name)

    def _in_bytes(self, data: bytes) -> bool:
        assert self.secrets is not None
        return any(
            self.secrets.search(fold(data.decode(encoding, "ignore")))
            for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
        )

    def say_so(self, dataset: Dataset) -> None:
        """The attributes that say what was done (PS3.15 E.3, PS3.3 C.7.1.1)."""
        codes = [BASIC, *(OPTIONS[option] for option in sorted(self.retain))]
        items = []
        for value, meaning in codes:
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning[:64]
            items.append(item)
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = f"dermseg {__version__}, PS3.15 2026c"
        dataset.DeidentificationMethodCodeSequence = items
        kept = "UNMODIFIED" if "dates" in self.retain else "MODIFIED"
        dates = {"dates", "shifted-dates"} & self.retain
        dataset.LongitudinalTemporalInformationModified = kept if dates else "REMOVED"


def _is_day_or_time(element: DataElement) -> bool:
    """Whether nothing but a date or time stands where one should: a name may have been typed there."""
    form = _DAY_TIME[element.VR]
    texts = (str(value or "").strip(" \0") for value in listed(element.value))
    return all(not text or form.fullmatch(text) for text in texts)


def _new_meta(dataset: Dataset, syntax: str) -> None:
    """File meta information from scratch, and an empty preamble: both may carry anything."""
    for tag in filter(lambda tag: tag.group < 8, list(dataset.keys())):
        del dataset[tag]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    dataset.file_meta = meta
    dataset.preamble = bytes(128)


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "")
    except Exception:
        return ""


def _name(tag: int) -> str:
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
