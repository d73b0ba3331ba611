"""From files to index rows: every pair is opened and checked, and what is left out is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dermseg.data.duplicates import Fingerprint
from dermseg.data.index import IndexRow, write_table
from dermseg.data.proposals import PROPOSED
from dermseg.data.sources import FOLDER, KINDS, LAYOUTS, detect
from dermseg.data.sources.base import Candidate, Entry, Found, list_entries, unseen_folders
from dermseg.data.sources.converted import CONVERTERS, LABELME, SHARDS, entry_id, not_drawn_on, part_proposals
from dermseg.data.sources.dicom import DICOM, pair_dicom
from dermseg.data.sources.opened import open_candidate
from dermseg.data.sources.pairing import pair_by_folder, pair_by_layout, split_by_folders, take_apart
from dermseg.data.sources.store import Store
from dermseg.data.sources.tables import Facts, SplitTable
from dermseg.data.threads import map_threads
from dermseg.errors import DataError, DermsegError, MaskError

UNTOUCHED = "a model's proposal that nobody has worked on (flags.proposed)"
REJECTED_COLUMNS = ("dataset", "image_id", "file", "reason")


@dataclass(frozen=True)
class Rejected:
    """A file that did not come into the index, and why."""

    dataset: str
    image_id: str
    file: str
    reason: str


@dataclass
class Imported:
    """What an import gave.

    Attributes
    ----------
    rows
        In the order of the image ids.
    fingerprints
        One per row, for the search for near-duplicates.
    not_in_data
        What the split file names that is not there.
    without_split
        How many images the split file does not name.
    without_metadata
        How many images the metadata do not name; 0 where none were given.
    proposals
        How many proposals of a model that nobody has worked on were left out.
    frames
        Of how many rows a mask is a frame, see ``images.masks.is_frame``.
    """

    kind: str
    rows: list[IndexRow] = field(default_factory=list)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    not_in_data: list[str] = field(default_factory=list)
    without_split: int = 0
    without_metadata: int = 0
    proposals: int = 0
    frames: int = 0


def import_dataset(
    inputs: Sequence[str | Path],
    *,
    kind: str = "auto",
    masks: Sequence[str | Path] = (),
    name: str | None = None,
    metadata: Mapping[str, Facts] | None = None,
    splits: SplitTable | None = None,
    split: str = "",
    licence: str = "",
    allow_unmasked: bool = False,
    labels: Sequence[str] = (),
    proposals: bool = False,
    folder: Path = Path("dermseg-import"),
    keep: Iterable[Path] = (),
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Find the image-mask pairs among files, check each, and make index rows of the good ones.

    Parameters
    ----------
    inputs
        Folders, zips and files; with ``masks`` they hold the images only.
    kind
        One of ``KINDS``, or ``auto``: by the file names.
    name
        Data set name in the index; when absent the one that is stored with the image (``dermseg data
        export``), else the kind's own (``folder``: the name of the input).
    split
        A split for all rows, e.g. ``test`` for a data set that is only ever tested on. ``splits`` goes
        before it, and both before the part that an official layout, a shard, a COCO file or the folders name.
    allow_unmasked
        Keep images without a mask (to be labelled) instead of leaving them out.
    labels
        LabelMe and COCO: the labels that become masks, one class each; ``a+b`` makes one mask of two.
    proposals
        LabelMe: take a model's outlines that nobody has worked on, too; else each is a ``Rejected``.
    folder
        Where masks go that are no files yet (LabelMe, COCO, shards).
    keep
        Files in ``folder`` that are not to be replaced: those that other rows name.

    Raises
    ------
    DataError
        Nothing to import, an unknown kind, a broken input, or LabelMe files that are proposals all. A broken
        image is a ``Rejected`` instead; there may be no rows but those.
    """
    if kind not in ("auto", *KINDS):
        raise DataError(f"unknown kind of data set '{kind}'", hint=f"one of: auto, {', '.join(KINDS)}")
    entries = list_entries(inputs)
    mask_entries = list_entries(masks) if masks else None
    unseen = list(unseen_folders([*inputs, *masks]))
    if unseen and not entries:
        raise DataError(f"there is no file to import; this {unseen[0][1]}", file=unseen[0][0])
    if kind == "auto":
        kind = detect(entries, mask_entries)
    layout = LAYOUTS.get(kind)
    if mask_entries and not layout:  # whose patterns tell them apart
        entries, mask_entries = take_apart(entries, mask_entries)
    if labels and kind not in CONVERTERS:
        raise DataError(f"masks of a '{kind}' data set have no labels", hint="leave --labels away")
    untouched: list[Entry] = []
    if kind == LABELME and not proposals:
        entries, untouched = _without_proposals(entries, Path(inputs[0]))
    if kind in CONVERTERS:
        found = CONVERTERS[kind](entries, Store(folder, keep, progress), labels)
    else:
        found = _pair(kind, entries, mask_entries)
    found.rejected += [(entry_id(entry.path), entry, UNTOUCHED) for entry in untouched]
    if allow_unmasked and kind == LABELME:  # a COCO file lists all of its images
        found.candidates += not_drawn_on(entries, found)
    if not layout:
        found.candidates = split_by_folders(found.candidates)
    several = len(labels) > 1 or bool(layout and layout.classes)
    if not found.candidates and not found.rejected:
        raise DataError(
            f"no image of a '{kind}' data set among {len(entries)} files",
            file=Path(inputs[0]),
            hint="'dermseg data import folder ...' takes any images and masks",
        )
    name = (name or "").strip()  # as an index is read: with a space at an end, each row would be there twice
    dataset = name or (layout.name if layout else Path(inputs[0]).absolute().stem.strip() or FOLDER)
    result = Imported(kind, proposals=len(untouched))
    for image_id, entry, reason in found.rejected:
        result.rejected.append(Rejected(dataset, image_id, entry.source.label, reason))
    result.rejected += [Rejected(dataset, "", str(place), reason) for place, reason in unseen]

    def check(candidate: Candidate) -> tuple[IndexRow, Fingerprint, bool] | Rejected:
        try:
            own = name or candidate.stored.get("dataset", "").strip() or dataset
            classes = several or (kind == SHARDS and len(candidate.masks) > 1)
            return open_candidate(candidate, own, allow_unmasked, classes)
        except DermsegError as error:
            bad = candidate.masks[0] if isinstance(error, MaskError) and candidate.masks else candidate.image
            return Rejected(dataset, candidate.image_id, error.file or bad.source.label, error.reason)

    if layout and layout.classes:
        result.rejected += _without_all_masks(found.candidates, dataset, len(layout.classes))
        found.candidates = [c for c in found.candidates if len(c.masks) == len(layout.classes)]
    default_licence = licence or (layout.licence if layout else "")
    seen: set[tuple[str, str]] = set()
    candidates = sorted(found.candidates, key=lambda candidate: candidate.image_id)
    for candidate, outcome in zip(
        candidates, map_threads(check, candidates, workers=workers, progress=progress), strict=True
    ):
        if isinstance(outcome, Rejected):
            result.rejected.append(outcome)
            continue
        row, print_, framed = outcome
        if row.key in seen:
            reason = f"there is an image '{row.image_id}' of '{row.dataset}' already"
            result.rejected.append(Rejected(row.dataset, row.image_id, candidate.image.source.label, reason))
            continue
        seen.add(row.key)
        told = (metadata or {}).get(row.image_id, Facts())
        result.rows.append(
            _complete(row, candidate, told, splits=splits, split=split, licence=default_licence)
        )
        result.fingerprints.append(print_)
        result.frames += framed
    if metadata is not None:
        result.without_metadata = sum(row.image_id not in metadata for row in result.rows)
    if splits is not None:
        result.without_split = sum(not row.split for row in result.rows)
        datasets = {dataset, *(row.dataset for row in result.rows)}
        result.not_in_data = splits.absent([row.image_id for row in result.rows], datasets)
    return result


def _pair(kind: str, entries: list[Entry], masks: list[Entry] | None) -> Found:
    """Images with the masks that are files already."""
    if kind == DICOM:
        return pair_dicom(entries, masks)
    layout = LAYOUTS.get(kind)
    return pair_by_layout(layout, entries, masks) if layout else pair_by_folder(entries, masks)


def _without_all_masks(candidates: Iterable[Candidate], dataset: str, classes: int) -> Iterator[Rejected]:
    """Images with more or fewer masks than the layout has classes: which is which is not known."""
    for c in candidates:
        if len(c.masks) != classes:
            reason = f"{len(c.masks)} masks instead of {classes}"
            yield Rejected(dataset, c.image_id, c.image.source.label, reason)


def _without_proposals(entries: list[Entry], place: Path) -> tuple[list[Entry], list[Entry]]:
    """Files apart from a model's proposals that nobody has worked on; not if there are only those."""
    entries, untouched = part_proposals(entries)
    if untouched and not any(entry.path.suffix.lower() == ".json" for entry in entries):
        raise DataError(
            f"no label of a person among {len(untouched)} files: all are a model's proposals",
            file=place,
            hint="correct and save them in LabelMe or 'dermseg desktop', or take the flag "
            f"'{PROPOSED}' away where they are right; 'dermseg label import --proposals' takes "
            "them as they are",
        )
    return entries, untouched


def _complete(
    row: IndexRow, candidate: Candidate, told: Facts, *, splits: SplitTable | None, split: str, licence: str
) -> IndexRow:
    # each for itself: a table of lesions says nothing against the patient in a DICOM header
    subject, lesion, own_licence = (
        getattr(told, name) or candidate.stored.get(name, "") for name in ("subject", "lesion", "licence")
    )
    chosen, group = split or candidate.part, ""
    if splits is not None:
        assignment = splits.find(row.dataset, row.image_id)
        # With a split file, an image that it does not name is in no split: guessing could leak.
        chosen = assignment.split if assignment else split
        group = assignment.group if assignment else ""
    # of groups only what the split file gives: ``assign_groups`` makes the rest
    return replace(
        row, subject=subject, lesion=lesion, group=group, split=chosen, licence=own_licence or licence
    )


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """Write the list of what was left out; an import that left nothing out writes only the header."""
    write_table(path, REJECTED_COLUMNS, [(r.dataset, r.image_id, r.file, r.reason) for r in rejected])
