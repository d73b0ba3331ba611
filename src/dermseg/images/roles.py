"""Which of the files that were found are photographs, and which are masks or results that lie among them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dermseg.errors import UsageError
from dermseg.images.find import find_images
from dermseg.images.names import typed_name
from dermseg.images.sources import ImageSource

JOURNAL, RUN = "journal.jsonl", "run.json"  # in the output folders of ``dermseg segment``
# Folders that say what lies in them; the last two of each are those of nnU-Net.
MASK_FOLDERS = frozenset(
    [
        *("mask", "masks", "label", "labels", "gt", "groundtruth", "ground_truth", "segmentations"),
        *("labelstr", "labelsts"),
    ]
)
IMAGE_FOLDERS = frozenset(
    [*("image", "images", "img", "imgs", "input", "inputs", "photos"), *("imagestr", "imagests")]
)
_KINDS = MASK_FOLDERS | IMAGE_FOLDERS
_MASK_NAME = re.compile(
    r"(.+)_(?:segmentation|mask|lesion|labels|superpixels|attribute_[a-z_]+|r[0-9]+_label[0-9a-z]+)"
)
# What is written of an image, in the names of ``inference.outputs.LAYOUT``.
_RESULT = re.compile(
    r"(?:masks/.*_segmentation|overlays/.*|probabilities/.*|labels/.*_labels|margins/.*_(?:outer|inner)"
    r"|uncertainty/.*_(?:mean|std|entropy)|dicom/.*_(?:seg|probability|sr|sc))\.[a-z]+"
)
_NAMED = 3


def is_output(folder: Path) -> bool:
    """Whether ``dermseg segment`` wrote into a folder (on a cluster it has no journal)."""
    # not Path's methods: they raise in a folder that may be listed and not entered
    journal, run, masks = (os.path.join(folder, name) for name in (JOURNAL, RUN, "masks"))  # noqa: PTH118
    return os.path.isfile(journal) or (os.path.isfile(run) and os.path.isdir(masks))  # noqa: PTH112, PTH113


def mask_root(path: str | Path) -> Path:
    """The folder of masks where the output folder of ``dermseg segment`` was given, else the path itself.

    Raises
    ------
    UsageError
        An output folder without masks.
    """
    path = Path(path)
    if not is_output(path):
        return path
    if not (path / "masks").is_dir():
        raise UsageError(
            "the run wrote no masks", file=path, hint="run it with --save mask, or name a folder inside"
        )
    return path / "masks"


def label_root(path: str | Path) -> Path | None:
    """The folder of label maps of an output folder of ``dermseg segment --lesions all``, else None."""
    folder = Path(path) / "labels"
    return folder if is_output(Path(path)) and folder.is_dir() else None


class Roles(NamedTuple):
    """Photographs, reference masks of them, and what an earlier run wrote."""

    photographs: list[ImageSource]
    masks: list[ImageSource]
    results: list[ImageSource]

    def remarks(self) -> list[str]:
        """What is left out, in words, with the first names: a photograph may be called like a mask."""
        why = {"masks of other inputs, by name": self.masks, "results of an earlier run": self.results}
        return [
            f"{len(files)} file{' is' if len(files) == 1 else 's are'} left out: {what} "
            f"({_first(file.name for file in files)})"
            for what, files in why.items()
            if files
        ]


def tell_apart(sources: Sequence[ImageSource]) -> Roles:
    """What each of the files that were found is.

    Data sets come as images beside masks: ``X_segmentation``, ``X_mask``, ``X_lesion`` or ``X_labels`` is a
    reference mask where an image ``X`` is there too, in whatever folder, as are the superpixels and attribute
    masks of ISIC and the regions of PH2, and so is ``masks/X`` beside ``X`` or ``images/X``; a file of such
    a name on its own is a photograph. ``X.json`` beside ``X.jpg`` holds its outlines, and comes along where a
    shell is given ``photos/*``, or all files of a folder are dropped on a window.
    What ``dermseg segment`` wrote into an output folder is none, though its overlays look like it; what else
    lies there is, for the output may be the folder of the photographs. Nor are the masks that an import of
    outlines wrote (``INDEX-files/masks``) below the folders that were named, and ``X.LAYER.png`` with
    ``X.LAYER.npy`` beside it, which ``dermseg explain`` wrote of ``X``. Files, and folders of an output, that
    are themselves named are taken as they are.
    """
    kinds: dict[Path, tuple[bool, bool]] = {}

    def is_result(source: ImageSource) -> bool:
        if source.member is not None:
            return False
        named = source.name.count("/")  # how far above the file the folder that was named is
        for above, folder in enumerate(list(source.path.parents)[: named + 1]):
            if folder not in kinds:
                kinds[folder] = is_output(folder), _is_drawn(folder)
            output, drawn = kinds[folder]
            below = "/".join(source.path.parts[-1 - above :])
            if (output and _RESULT.fullmatch(below)) or (drawn and above < named):
                return True
        return False

    roles = Roles([], [], [])
    others: list[ImageSource] = []
    outlined = {s.path.with_suffix("") for s in sources if s.path.suffix.lower() != ".json"}
    for source in sources:
        if source.path.suffix.lower() == ".json" and source.path.with_suffix("") in outlined:
            roles.masks.append(source)
        else:
            (roles.results if is_result(source) else others).append(source)
    stems = {_stem(source) for source in others}
    places = [_place(source) for source in others]
    pictures = {place for place, in_masks in places if not in_masks}
    for source, (place, in_masks) in zip(others, places, strict=True):
        if _is_explanation(source, stems):
            roles.results.append(source)
            continue
        base = _MASK_NAME.fullmatch(_stem(source))
        is_mask = (base is not None and base[1] in stems) or (in_masks and place in pictures)
        (roles.masks if is_mask else roles.photographs).append(source)
    return roles


def find_photographs(
    inputs: Sequence[str | Path], *, exclude: Sequence[Path] = ()
) -> tuple[list[ImageSource], list[str]]:
    """The photographs in what the user names (see ``find_images``), and what was left out, in words.

    Raises
    ------
    UsageError
        There is none.
    """
    linked: list[Path] = []
    roles = tell_apart(find_images(inputs, exclude=exclude, linked=linked))
    remarks = roles.remarks()
    if linked:
        folders = f"{len(linked)} linked folder{' is' if len(linked) == 1 else 's are'}"
        remarks.append(f"{folders} not looked into unless named: {_first(map(str, linked))}")
    if not roles.photographs:
        raise UsageError("no photograph in what was named", hint="; ".join(remarks))
    return roles.photographs, remarks


def _first(names: Iterable[str]) -> str:
    """The first of many names."""
    shown = list(islice(names, _NAMED + 1))
    return ", ".join(shown[:_NAMED]) + (", ..." if len(shown) > _NAMED else "")


def _is_drawn(folder: Path) -> bool:
    """Whether an import of outlines wrote its masks into a folder, beside the index."""
    stem = folder.parent.name.removesuffix("-files")
    if folder.name != "masks" or stem == folder.parent.name:
        return False
    return os.path.isfile(folder.parent.with_name(f"{stem}.csv"))  # noqa: PTH113


def _is_explanation(source: ImageSource, stems: set[str]) -> bool:
    base = PurePosixPath(_stem(source))
    if (
        source.member is not None
        or not base.suffix
        or stems.isdisjoint((base.stem, PurePosixPath(base.stem).stem))
    ):
        return False
    return os.path.isfile(source.path.with_suffix(".npy"))  # noqa: PTH113


def _place(source: ImageSource) -> tuple[str, bool]:
    """Where a file lies, without folders such as ``images`` and ``masks``; whether one of masks was there."""
    folders = source.name.lower().split("/")[:-1]
    kept = [folder for folder in folders if folder not in _KINDS]
    return "/".join([*kept, _stem(source)]), not MASK_FOLDERS.isdisjoint(folders)


def _stem(source: ImageSource) -> str:
    return typed_name(PurePosixPath(source.name).stem.lower())
