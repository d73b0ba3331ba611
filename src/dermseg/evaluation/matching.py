"""Which predicted mask belongs to which reference, by the names of their files.

Names are matched by stem without what marks a mask: ``ISIC_0000000.png``, ``ISIC_0000000_segmentation.png``
and ``sub/ISIC_0000000_mask.png`` are the same image. Folders count only where stems alone are ambiguous.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dermseg.images.find import find_images
from dermseg.images.names import typed_name
from dermseg.images.roles import mask_root
from dermseg.images.sources import ImageSource

_MARKS = re.compile(
    r"[_-](?:segmentation|seg|mask|lesion|prediction|predicted|pred|ground_?truth|gt)$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which prediction belongs to which reference.

    Attributes
    ----------
    pairs
        ``(image_id, prediction, reference)`` in the references' order.
    missing
        ``(image_id, reference)`` without a prediction.
    extra
        Names of predictions that no reference asks for; they are not scored.
    ambiguous
        ``(image_id, reason)`` where several files have the same name.
    """

    pairs: list[tuple[str, ImageSource, ImageSource]] = field(default_factory=list)
    missing: list[tuple[str, ImageSource]] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    ambiguous: list[tuple[str, str]] = field(default_factory=list)


def image_id_of(name: str) -> str:
    """The image a mask file is about: its stem without what marks it as a mask.

    >>> image_id_of("masks/ISIC_0000000_segmentation.png")
    'ISIC_0000000'
    """
    stem = typed_name(PurePosixPath(name).stem)
    return _MARKS.sub("", stem) or stem


def match_masks(predictions: Sequence[ImageSource], references: Sequence[ImageSource]) -> Pairing:
    """Match two lists of mask files by name.

    Parameters
    ----------
    predictions, references
        As ``find_images`` gives them.
    """
    wanted, found = _by_stem(references), _by_stem(predictions)
    wanted, found = _by_whole_name(wanted, found), _by_whole_name(found, wanted)
    if any(len(sources) > 1 for sources in wanted.values()):
        wanted, found = _by_path(references, predictions)
    result = Pairing()
    for image_id, sources in wanted.items():
        candidates = found.pop(image_id, [])
        if len(sources) > 1:
            result.ambiguous.append((image_id, f"several references: {_names(sources)}"))
        elif len(candidates) > 1:
            result.ambiguous.append((image_id, f"several predictions: {_names(candidates)}"))
        elif candidates:
            result.pairs.append((image_id, candidates[0], sources[0]))
        else:
            result.missing.append((image_id, sources[0]))
    result.extra.extend(source.name for sources in found.values() for source in sources)
    return result


def match_paths(predictions: str | Path, references: str | Path) -> Pairing:
    """Match two folders or zips by name; two single files are a pair whatever their names.

    Raises
    ------
    UsageError
        A path does not exist or holds no image.
    """
    root, reference_root = mask_root(predictions), mask_root(references)
    found, wanted = find_images([root]), find_images([reference_root])
    if _is_single_file(root) and _is_single_file(reference_root):
        return Pairing(pairs=[(image_id_of(wanted[0].name), found[0], wanted[0])])
    return match_masks(found, wanted)


def _is_single_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() != ".zip"


def _by_stem(sources: Sequence[ImageSource]) -> dict[str, list[ImageSource]]:
    table: dict[str, list[ImageSource]] = {}
    for source in sources:
        table.setdefault(image_id_of(source.name), []).append(source)
    return table


def _by_whole_name(
    table: dict[str, list[ImageSource]], other: dict[str, list[ImageSource]]
) -> dict[str, list[ImageSource]]:
    """The same, with a whole stem for key where only that is what the other side has.

    An image may be called ``arm_lesion``, and its mask ``arm_lesion_segmentation``.
    """
    wholes = {key: typed_name(PurePosixPath(sources[0].name).stem) for key, sources in table.items()}
    return {
        whole
        if len(table[key]) == 1 and key not in other and whole in other.keys() - table.keys()
        else key: s
        for (key, whole), s in zip(wholes.items(), table.values(), strict=True)
    }


def _by_path(
    references: Sequence[ImageSource], predictions: Sequence[ImageSource]
) -> tuple[dict[str, list[ImageSource]], dict[str, list[ImageSource]]]:
    """Both by folder and stem, without the folders that all names of a side share (the top folder of a zip).

    Where all masks of one side lie in one of several folders, its name is shared and yet needed: what is left
    away is what makes most names meet.
    """
    choices = [
        (_without(references, i), _without(predictions, j))
        for i in range(_shared(references), -1, -1)
        for j in range(_shared(predictions), -1, -1)
    ]
    return max(choices, key=lambda both: len(both[0].keys() & both[1].keys()))


def _shared(sources: Sequence[ImageSource]) -> int:
    """How many leading folders all names have in common."""
    folders = [PurePosixPath(source.name).parent.parts for source in sources]
    levels = zip(*folders, strict=False)  # ends with the shortest
    return sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, levels))


def _without(sources: Sequence[ImageSource], leading: int) -> dict[str, list[ImageSource]]:
    """By folder and stem, without the first ``leading`` folders."""
    table: dict[str, list[ImageSource]] = {}
    for source in sources:
        folders = PurePosixPath(source.name).parent.parts[leading:]
        table.setdefault(typed_name("/".join((*folders, image_id_of(source.name)))), []).append(source)
    return table


def _names(sources: Sequence[ImageSource]) -> str:
    return ", ".join(source.name for source in sources[:3]) + (", ..." if len(sources) > 3 else "")
