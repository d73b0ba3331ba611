"""What identifies somebody in a file, as a pattern to search for in everything that is to stay.

Whoever is in a file may stand in it more than once: a name typed into a description, an id into a version.
Names, ids, dates and UIDs are taken from the attributes that exist for them, at every depth.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from dermseg.dicom.identity import is_ours


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MIN_LETTERS = 3  # shorter words are everywhere
_WHOLE_WORD_BELOW = 6  # letters; "ann" is no secret in "annotation"
# Chinese characters, kana, Hangul: written without spaces, and two of them are a whole name.
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]{2,}")
# Parts of names that are ordinary words, and what stands where a name was removed.
_NOBODY = _words("von van den der dem des del della dos das les los las bin ibn ter ten anonymous removed")
# UIDs of coding schemes (SNOMED CT, LOINC, UCUM) are nobody's.
_PUBLIC_UIDS = frozenset(f"2.16.840.1.113883.6.{number}" for number in (1, 8, 96))
_IDS = _words(
    "PatientID OtherPatientIDs AccessionNumber StudyID AdmissionID PatientAddress PatientTelephoneNumbers "
    "MilitaryRank MedicalRecordLocator PerformedProcedureStepID ScheduledProcedureStepID "
    "RequestedProcedureID PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest"
)
_OWNED = {
    "device": frozenset(["DeviceSerialNumber", "StationName"]),
    "institution": frozenset(["InstitutionName", "InstitutionAddress"]),
}


def find_traces(dataset: Dataset, retain: frozenset[str]) -> re.Pattern[str] | None:
    """A pattern of the identity that the file itself tells, for text that went through `fold`.

    None where it tells of nobody. What the options in `retain` keep is no secret.
    """
    words: set[str] = set()
    owned = frozenset().union(*(names for option, names in _OWNED.items() if option not in retain))
    if is_ours(dataset):
        owned -= {"DeviceSerialNumber"}  # the network's hash, which the algorithm's parameters name too
    for _, element in walk(dataset):
        if element.is_empty or element.VR == "SQ":
            continue
        for text in (str(value).strip() for value in listed(element.value)):
            if element.VR == "PN":
                words |= _name_forms(text)
            elif element.keyword in _IDS | owned:
                words.add(text)
            elif element.VR == "UI" and "uids" not in retain:
                words |= set() if is_public(text) else {text}
            elif element.VR in ("DA", "DT") and re.fullmatch(r"\d{8}", text[:8]):
                secret = "dates" not in retain or element.keyword == "PatientBirthDate"
                words |= _date_forms(text[:8]) if secret else set()
    folded = {fold(word) for word in words}
    found = {word for word in folded if _IDEOGRAPHS.fullmatch(word) or len(word) >= _MIN_LETTERS} - _NOBODY
    if not found:
        return None
    return re.compile("|".join(_part(word) for word in sorted(found, key=len, reverse=True)))


def _part(word: str) -> str:
    escaped = re.escape(word)
    if len(word) >= _WHOLE_WORD_BELOW or _IDEOGRAPHS.fullmatch(word):
        return escaped
    return rf"(?<![^\W_]){escaped}(?![^\W_])"


def _name_forms(name: str) -> set[str]:
    """Each word of family, given and middle name, in every group (alphabetic, ideographic, phonetic).

    Titles (prefix, suffix) are nobody's. Words too short to be searched alone ("Xu", "Li") are as a pair, and
    what is written as several words also as one.
    """
    forms: set[str] = set()
    for group in unicodedata.normalize("NFKC", name).split("="):
        parts = [part.strip() for part in group.split("^")[:3]]
        words = [_name_words(part) for part in parts]
        glued = ["".join(found) for found in words]  # "OBrien", "delacruz"
        forms |= {word for found in words for word in found} | set(glued)
        pair = [part for part in parts[:2] if part]
        if len(pair) == 2:
            forms |= {mark.join(two) for two in (pair, pair[::-1]) for mark in (" ", "^", ", ", ",", "_")}
            forms |= {glued[0] + glued[1], glued[1] + glued[0]}  # as in the names of logins: "jdoe"
    return forms


def _name_words(text: str) -> list[str]:
    """The words of a name. Marks belong to them: vowels of Indian scripts, accents of their own."""
    return "".join(one if unicodedata.category(one)[0] in "LMN" else " " for one in text).split()


def _date_forms(day: str) -> set[str]:
    y, m, d = day[:4], day[4:6], day[6:8]
    return {
        day,
        f"{y}-{m}-{d}",
        f"{d}.{m}.{y}",
        f"{m}/{d}/{y}",
        f"{d}/{m}/{y}",
        f"{y}/{m}/{d}",
        f"{d}-{m}-{y}",
    }


def is_public(uid: str) -> bool:
    """Whether it is a UID of the standard (a class, a syntax, a coding scheme) and so tells of nobody."""
    return uid in _PUBLIC_UIDS or UID(uid).name != uid


def walk(dataset: Dataset) -> Iterator[tuple[Dataset, DataElement]]:
    """Every readable element at every depth, with the data set that holds it."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:
            continue
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value or []:
                yield from walk(item)


def listed(value: Any) -> list[Any]:
    """The values of an element; a name (``PersonName``, iterable by letters) is one value."""
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]


def flat(value: Any) -> str:
    """All values of an element as one text to search in."""
    return fold("\n".join(str(one) for one in listed(value)))


def fold(text: str) -> str:
    """Lower case, and one form for what Unicode writes in several: accents, half-width kana."""
    return unicodedata.normalize("NFKC", text).casefold()
