"""DICOM folders as a data set: photographs, and masks that are segmentations or lie beside as images.

A segmentation belongs to the photograph whose SOP Instance UID it names, whatever the files are called. An
outline (BINARY) is a mask, a probability (FRACTIONAL) is none. The patient id becomes the subject, so that a
patient is never split; de-identify first where the index travels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dermseg.data.sources.base import Candidate, Entry, Found, is_dicom_name, is_image_name
from dermseg.data.sources.pairing import pair_by_folder
from dermseg.data.spreadsheet import known_text
from dermseg.errors import ImageError, MissingExtraError
from dermseg.images.dicom import SEGMENTATIONS, class_name, dicom_installed, read_dataset
from dermseg.images.headers import sniff

DICOM = "dicom"


def pair_dicom(entries: Sequence[Entry], masks: Iterable[Entry] | None = None) -> Found:
    """Pair DICOM photographs with segmentations by UID, and with mask images by name.

    What the headers say is in ``Candidate.stored``.

    Raises
    ------
    MissingExtraError
        The extra that reads DICOM is not installed.
    """
    if not dicom_installed():
        raise MissingExtraError("importing DICOM files", "dicom")
    rejected: list[tuple[str, Entry, str]] = []
    plain: list[Entry] = []
    uid_of: dict[Entry, tuple[str, str]] = {}  # photograph -> SOP Instance UID, patient
    references: list[tuple[Entry, str]] = []  # segmentation -> the UID it names
    fractional: set[Entry] = set()
    for entry in [*entries, *(masks or ())]:
        if is_image_name(entry.path):
            if masks is None:
                plain.append(entry)
            continue
        if entry.path.suffix and not is_dicom_name(entry.path):
            continue
        try:
            data = entry.source.read_bytes()
            if sniff(data[:132]) != "DICOM":
                continue
            dataset = read_dataset(data)
            if dataset.get("SOPClassUID") in SEGMENTATIONS:
                references.append((entry, _referenced(dataset)))
                if dataset.get("SegmentationType") == "FRACTIONAL":
                    fractional.add(entry)
            elif "PixelData" in dataset:
                uid_of[entry] = str(dataset.get("SOPInstanceUID") or ""), _patient(dataset)
            else:
                raise ImageError(f"a {class_name(dataset)} holds no picture")
        except ImageError as error:
            if entry.path.suffix:
                rejected.append((entry.path.stem, entry, error.reason))
    # Files without an extension take part under a name with one; what is read stays the same.
    named = {_named(entry): values for entry, values in uid_of.items()}
    images = [*named, *plain]
    mask_images = None if masks is None else [entry for entry in masks if is_image_name(entry.path)]
    found = pair_by_folder(images, mask_images)
    of_image: dict[str, list[Entry]] = {}
    for entry, uid in references:
        of_image.setdefault(uid, []).append(entry)
    known = {uid for uid, _ in named.values()}
    candidates: list[Candidate] = []
    for candidate in found.candidates:
        uid, patient = named.get(candidate.image, ("", ""))
        own = of_image.get(uid, []) if uid else []
        outlines = [entry for entry in own if entry not in fractional]
        stored = {"subject": patient} if patient else {}
        candidates.append(replace(candidate, masks=(*outlines, *candidate.masks), stored=stored))
        if own and not outlines:
            reason = "a FRACTIONAL segmentation is a probability, no mask, and no BINARY one is beside it"
            rejected += [(candidate.image_id, entry, reason) for entry in own]
    for entry, uid in references:
        if uid not in known:
            rejected.append((entry.path.stem, entry, "segmentation without its photograph"))
    return Found(candidates, [*found.rejected, *rejected])


def stored_in(image: Entry) -> dict[str, str]:
    """What a DICOM photograph says of itself, for ``Candidate.stored``; nothing of another file."""
    if not is_dicom_name(image.path) or not dicom_installed():
        return {}
    try:
        patient = _patient(read_dataset(image.source.read_bytes()))
    except ImageError:  # said where the image is checked
        return {}
    return {"subject": patient} if patient else {}


def _patient(dataset: Any) -> str:
    """The patient's id; empty where it says that there is none."""
    return known_text(str(dataset.get("PatientID") or ""))


def _referenced(dataset: Any) -> str:
    """The one image that a segmentation is about.

    Raises
    ------
    ImageError
        It names none, or several, or other frames than the first, which is what is read of a photograph.
    """
    uids = {
        str(instance.ReferencedSOPInstanceUID)
        for series in dataset.get("ReferencedSeriesSequence") or []
        for instance in series.get("ReferencedInstanceSequence") or []
    }
    if len(uids) != 1:
        raise ImageError(f"the segmentation is about {len(uids)} images, not one")
    named = [element for element in dataset.iterall() if element.keyword == "ReferencedFrameNumber"]
    frames = {int(number) for element in named for number in _values(element)}
    if frames - {1}:
        raise ImageError(
            f"the segmentation is about frame {max(frames)} of its photograph, of which the first is read"
        )
    return uids.pop()


def _values(element: Any) -> Sequence[Any]:
    return list(element.value) if element.VM > 1 else [element.value] if element.VM else []


def _named(entry: Entry) -> Entry:
    if entry.path.suffix:
        return entry
    return Entry(entry.path.with_name(f"{entry.path.name}.dcm"), entry.source)
