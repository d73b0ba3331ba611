"""Which of the files that were found are photographs, and which are masks or results that lie among them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dermseg.errors import UsageError
from dermseg.images.find import find_images
from dermseg.images.names import typed_name
from dermseg.images.sources import ImageSource

JOURNAL, RUN = "journal.jsonl", "run.json"  # in the output folders of ``dermseg segment``
_MASK_NAME = re.compile(r"(.+)_(?:segmentation|mask|lesion|labels|superpixels|attribute_[a-z_]+)")


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
        """What is left out, in words."""
        why = {
            "masks of other inputs, by name": len(self.masks),
            "results of an earlier run": len(self.results),
        }
        return [
            f"{count} file{' is' if count == 1 else 's are'} left out: {what}"
            for what, count in why.items()
            if count
        ]


def tell_apart(sources: Sequence[ImageSource]) -> Roles:
    """What each of the files that were found is.

    Data sets come as images beside masks: ``X_segmentation``, ``X_mask``, ``X_lesion`` or ``X_labels`` is a
    reference mask where an image ``X`` is there too, in whatever folder, as are the superpixels and attribute
    masks of ISIC; a file of such a name on its own is a photograph.
    What an earlier ``dermseg segment`` wrote below the folders that were named is none, though its overlays
    look like it, nor are the masks that an import of outlines wrote (``INDEX-files/masks``); an output folder
    that is itself named is taken as it is. Nor is ``X.LAYER.png`` with
    ``X.LAYER.npy`` beside it, which ``dermseg explain`` wrote of ``X``.
    """
    written: dict[Path, bool] = {}

    def is_result(source: ImageSource) -> bool:
        depth = 0 if source.member else source.name.count("/")
        for folder in list(source.path.parents)[:depth]:
            if folder not in written:
                written[folder] = is_output(folder) or _is_drawn(folder)
            if written[folder]:
                return True
        return False

    roles = Roles([], [], [])
    others: list[ImageSource] = []
    for source in sources:
        (roles.results if is_result(source) else others).append(source)
    stems = {_stem(source) for source in others}
    for source in others:
        if _is_explanation(source, stems):
            roles.results.append(source)
            continue
        base = _MASK_NAME.fullmatch(_stem(source))
        (roles.masks if base and base[1] in stems else roles.photographs).append(source)
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
    roles = tell_apart(find_images(inputs, exclude=exclude))
    if not roles.photographs:
        raise UsageError("no photograph in what was named", hint="; ".join(roles.remarks()))
    return roles.photographs, roles.remarks()


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


def _stem(source: ImageSource) -> str:
    return typed_name(PurePosixPath(source.name).stem.lower())
