"""Data sets whose masks are not image files: LabelMe, COCO, WebDataset and TFRecord.

Their masks (and images that lie inside of shards) are written once as files into a folder beside the index;
from there on they are a data set like any other, checked by the same code.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.coco import MASKS, CocoImage, read_coco
from dermseg.data.index import EXCLUDED
from dermseg.data.labelme import draw_labels as draw_labelme
from dermseg.data.labelme import read_labelme
from dermseg.data.proposals import is_proposal
from dermseg.data.shards import Example, read_tar, read_tfrecord
from dermseg.data.sources.base import Candidate, Entry, Found, is_dicom_name, is_image_name, is_mask_path
from dermseg.data.sources.beside import ImagesOfFiles
from dermseg.data.sources.dicom import stored_in
from dermseg.data.sources.store import Store
from dermseg.errors import DataError
from dermseg.images.names import portable_name

LABELME, SHARDS = "labelme", "shards"
Draw = Callable[[Sequence[str]], NDArray[np.bool_]]
_ABSENT = "is not among the files (name its folder or zip, too)"
_TAKEN = "the same image id was found before; import its folder by itself, with --append and a --name"
_SPLITS = frozenset(["train", "val", "calib", "test", EXCLUDED])
_ENDING = re.compile(r"\.(?:tar(?:\.gz)?|tfrecords?|tfrec|json)(?=$|-\d)", re.I)
_NUMBER = re.compile(r"-\d+(?:-of-\d+)?$")
_TAR = re.compile(r"\.tar(?:\.gz)?$", re.I)
_RECORDS = re.compile(r"\.(?:tfrecords?|tfrec)(?:-\d+-of-\d+)?$", re.I)


def convert_labelme(entries: Sequence[Entry], store: Store, labels: Sequence[str]) -> Found:
    """Draw the masks of LabelMe files; images are found beside them, by name, or inside of them.

    Each is read twice: most hold their photograph, and all of them at once would fill the memory.
    """
    found = Found()
    files: list[Entry] = []
    there: set[str] = set()
    for entry in entries:
        if entry.path.suffix.lower() != ".json":
            continue
        try:
            there.update(read_labelme(entry.source.read_bytes(), entry.source.label).labels)
        except DataError as error:
            found.rejected.append((entry.path.stem, entry, error.reason))
        else:
            files.append(entry)
    _check_files("LabelMe", entries)
    chosen = _choose(labels, sorted(there), found)
    look_up = ImagesOfFiles([entry for entry in entries if is_image_name(entry.path)], files)
    dicom = ImagesOfFiles([entry for entry in entries if is_dicom_name(entry.path)], files)
    taken: set[str] = set()
    for number, entry in enumerate(files, start=1):
        store.progress(number, len(files))
        image_id = entry_id(entry.path)
        if image_id in taken:  # its mask would be written over the other one's
            found.rejected.append((image_id, entry, _TAKEN))
            continue
        annotation = read_labelme(entry.source.read_bytes(), entry.source.label)
        named = PurePosixPath(annotation.image.replace("\\", "/"))
        places = dicom.of(entry, annotation) if is_dicom_name(named) else []
        places = places or look_up.of(entry, annotation)
        image = places[0] if len(places) == 1 else None
        embedded = annotation.extra.get("imageData")
        if image is None and isinstance(embedded, str):
            suffix = named.suffix or ".png"
            try:
                data = base64.b64decode(embedded, validate=True)
            except ValueError:
                found.rejected.append((image_id, entry, "imageData is damaged"))
                continue
            image = store.write(f"images/{image_id}{suffix}", data)
        if image is None:
            reason = _ABSENT if not places else "is there more than once"
            found.rejected.append((image_id, entry, f"its image '{annotation.image}' {reason}"))
            continue
        taken.add(image_id)
        masks = [draw_labelme(annotation, names) for names in chosen]
        if len(masks) == 1 and not masks[0].any():  # named by the file that people know, not by its mask
            found.rejected.append((image_id, entry, "it has no outline in the image"))
            continue
        written = store.write_masks(image_id, masks)
        found.candidates.append(Candidate(image_id, image, written, stored=stored_in(image)))
    return found


def not_drawn_on(entries: Sequence[Entry], found: Found) -> list[Candidate]:
    """Images among LabelMe files that no outline belongs to yet."""
    drawn = {(c.image.source.path, c.image.source.member) for c in found.candidates}
    return [
        Candidate(entry_id(entry.path), entry, stored=stored_in(entry))
        for entry in entries
        if (is_image_name(entry.path) or is_dicom_name(entry.path))
        and not is_mask_path(PurePosixPath(*entry.path.parts[1:]))
        and (entry.source.path, entry.source.member) not in drawn
    ]


def part_proposals(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """All files but a model's proposals that nobody has worked on, and those."""
    rest: list[Entry] = []
    proposals: list[Entry] = []
    for entry in entries:
        untouched = False
        if entry.path.suffix.lower() == ".json":
            with suppress(DataError):  # what is no LabelMe file is refused where it is read
                untouched = is_proposal(read_labelme(entry.source.read_bytes()))
        (proposals if untouched else rest).append(entry)
    return rest, proposals


def convert_coco(entries: Sequence[Entry], store: Store, labels: Sequence[str]) -> Found:
    """Draw the masks of COCO files; images are found by the end of their path."""
    found = Found()
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        if is_image_name(entry.path) or is_dicom_name(entry.path):
            by_name.setdefault(entry.path.name, []).append(entry)
    read = []
    for entry in entries:
        if entry.path.suffix.lower() == ".json":
            try:
                read += [(entry, image) for image in read_coco(entry.source.read_bytes(), entry.source.label)]
            except DataError as error:
                found.rejected.append((entry.path.stem, entry, error.reason))
    _check_files("COCO", entries)
    chosen = _choose(labels, sorted({name for _, image in read for name, _ in image.regions}), found)
    taken: dict[str, Entry] = {}
    for number, (entry, image) in enumerate(read, start=1):
        store.progress(number, len(read))
        path = PurePosixPath(portable_name(image.file_name))
        places = [e for e in by_name.get(path.name, ()) if e.path.parts[-len(path.parts) :] == path.parts]
        places = places or by_name.get(path.name, [])
        if len(places) > 1:  # train/1.jpg and valid/1.jpg, each with a file beside it
            places = [e for e in places if e.path.is_relative_to(entry.path.parent)] or places
        if len(places) != 1:
            reason = _ABSENT if not places else "is there more than once"
            found.rejected.append((path.stem, entry, f"its image '{image.file_name}' {reason}"))
            continue
        key = "_".join((*path.parts[:-1], path.stem))
        if taken.get(key, places[0]) != places[0]:
            key = "_".join((*entry.path.parts[1:-1], key))
        if key in taken:
            found.rejected.append((key, entry, _TAKEN))
            continue
        said, image_id = _stored(image.facts, key)
        said = {**stored_in(places[0]), **said}
        try:
            masks = [image.draw(names) for names in chosen] if _is_drawn_on(image, chosen) else []
        except DataError as error:
            found.rejected.append((image_id, entry, error.reason))
            continue
        taken[key] = places[0]
        part = said.get("split") or _part(entry.path.name, own="image_id" in said)
        written = store.write_masks(key, masks)
        found.candidates.append(Candidate(image_id, places[0], written, part, said))
    return found


def _is_drawn_on(image: CocoImage, chosen: Sequence[Sequence[str]]) -> bool:
    """Whether an image has masks, be they empty: COCO has no sign for that, ``dermseg data export`` has.

    Elsewhere an image without an outline of the one class has none; of several classes all may be absent.
    """
    number = image.facts.get(MASKS)
    if isinstance(number, int):
        return number > 0
    return len(chosen) > 1 or any(name in chosen[0] for name, _ in image.regions)


def _stored(facts: Mapping[str, Any], key: str) -> tuple[dict[str, str], str]:
    """What ``dermseg data export`` wrote of an image besides, and its id; else that is ``key``.

    An id is taken only where it could be the name of a file: anybody may have written these files.
    """
    said = {name: value for name, value in facts.items() if isinstance(value, str)}
    image_id = said.get("image_id") or key
    return said, image_id if portable_name(image_id) == image_id else key


def convert_shards(entries: Sequence[Entry], store: Store, labels: Sequence[str]) -> Found:
    """Take images and masks out of WebDataset and TFRecord shards.

    Raises
    ------
    DataError
        ``labels`` were given: shards do not name their masks.
    """
    if labels:
        raise DataError("shards keep masks by number, not by label", hint="leave --labels away")
    found = Found()
    taken: set[str] = set()
    for entry in entries:
        read = _reader_of(entry)
        if read is None:
            continue
        if entry.source.member is not None:
            raise DataError(
                "a shard inside of a zip is not read", file=entry.source.label, hint="unpack the zip"
            )
        try:
            for example in read(entry.source.path):
                key = portable_name(example.key).replace("/", "_")
                if key in taken:
                    found.rejected.append((key, entry, _TAKEN))
                else:
                    taken.add(key)
                    found.candidates.append(_unpacked(example, key, entry.path.name, store))
        except DataError as error:
            found.rejected.append((entry.path.stem, entry, error.reason))
    return found


def _reader_of(entry: Entry) -> Callable[[Path], Iterable[Example]] | None:
    if _RECORDS.search(entry.path.name):
        return read_tfrecord
    return read_tar if _TAR.search(entry.path.name) else None


def _unpacked(example: Example, key: str, shard: str, store: Store) -> Candidate:
    """The example of a shard, its image and masks as files."""
    image = store.write(f"images/{key}.{example.extension}", example.image)
    names = [f"masks/{key}_{i}.png" for i in range(len(example.masks))]
    masks = tuple(store.write(name, data) for name, data in zip(names, example.masks, strict=True))
    said, image_id = _stored(example.facts, key)
    part = said.get("split") or _part(shard, own="image_id" in said)
    return Candidate(image_id, image, masks, part, said)


CONVERTERS: dict[str, Callable[[Sequence[Entry], Store, Sequence[str]], Found]] = {
    LABELME: convert_labelme,
    "coco": convert_coco,
    SHARDS: convert_shards,
}


def detect_converted(entries: Sequence[Entry]) -> str | None:
    """``shards``, ``labelme`` or ``coco`` where the files are such; JSON files are looked into."""
    if any(map(_reader_of, entries)):
        return SHARDS
    for entry in (e for e in entries if e.path.suffix.lower() == ".json"):
        text = entry.source.read_bytes()
        if b'"shapes"' in text and b'"imageHeight"' in text:
            return "labelme"
        if b'"annotations"' in text and b'"categories"' in text:
            return "coco"
    return None


def _part(name: str, *, own: bool = False) -> str:
    """The split that a name says: ``train-000000.tar``, ``val-00000-of-00002.tfrecord``, ``test.json``.

    A COCO file that ``dermseg data export`` wrote has none behind it: the number in ``fold-1.json`` is the
    split's own.

    Parameters
    ----------
    own
        ``dermseg data export`` wrote it, so that any name is a split; else only those that are in use are.
    """
    stem = _ENDING.sub("", name)
    if not (own and name.lower().endswith(".json")):
        stem = _NUMBER.sub("", stem)
    return stem if stem in _SPLITS or (own and stem != "unassigned") else ""


def _check_files(kind: str, entries: Sequence[Entry]) -> None:
    """Refuse files among which none has outlines."""
    if not any(entry.path.suffix.lower() == ".json" for entry in entries):
        raise DataError(
            f"no {kind} file (.json) among {len(entries)} files",
            hint="name it, or its folder, beside the images",
        )


def _choose(labels: Sequence[str], there: Sequence[str], found: Found) -> list[tuple[str, ...]]:
    """The labels of each mask: ``a+b`` is one mask of two labels.

    Raises
    ------
    DataError
        No such label; the first file that could not be read is named, for its outlines may be those meant.
    """
    for _, entry, reason in found.rejected[:1]:
        missing = [name for label in labels for name in label.split("+") if name.strip() not in there]
        if missing or not there:
            what = f"labelled '{missing[0].strip()}'" if missing else "with a label"
            raise DataError(f"{reason}; no other file has an outline {what}", file=entry.source.label)
    if not there:
        raise DataError("no outline has a label", hint="is it the right folder?")
    if not labels:
        if len(there) > 1:
            raise DataError(
                f"the outlines have several labels: {', '.join(there)}",
                hint=f"--labels {there[0]} takes one; {','.join(there[:2])} keeps two classes; "
                f"{'+'.join(there[:2])} makes one of them",
            )
        return [(there[0],)]
    chosen = [tuple(part.strip() for part in label.split("+")) for label in labels]
    unknown = [name for names in chosen for name in names if name not in there]
    if unknown:
        raise DataError(f"no outline is labelled '{unknown[0]}'", hint=f"there are: {', '.join(there)}")
    return chosen


def entry_id(path: PurePosixPath) -> str:
    """Image id of a file: its path without the first folder and the extension, as one name."""
    return "_".join((*path.parts[1:-1], path.stem))
