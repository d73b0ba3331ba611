"""The photographs that masks were drawn on, found by name: for what only a photograph can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DataError, DermsegError
from dermseg.evaluation.matching import image_id_of, match_masks
from dermseg.images.labels import NAME_END, is_label_map
from dermseg.images.load import VIEW_MIN_SIDE, load_image
from dermseg.images.roles import find_photographs
from dermseg.images.sources import ImageSource


class Photographs:
    """Photographs by their masks.

    Parameters
    ----------
    given
        Files, folders, globs and zips of photographs.
    masks
        What to find the photographs of: ``a.jpg`` of ``a.png``, ``a_mask.png``, ``a_labels.png`` ...

    Raises
    ------
    UsageError
        There is no photograph in what was named: what ``dermseg segment`` wrote is none.
    """

    def __init__(self, given: Sequence[str], masks: Sequence[ImageSource]) -> None:
        by_plain = {_plain(mask): mask for mask in masks}
        pairing = match_masks(find_photographs(given)[0], list(by_plain))
        self._of = {by_plain[plain]: photograph for _, photograph, plain in pairing.pairs}
        self._names = Counter(image_id_of(plain.name) for plain in by_plain)

    def pixels(self, mask: ImageSource, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The photograph of a mask, ``uint8 (h, w, 3)`` RGB, perhaps reduced.

        Parameters
        ----------
        size
            Height and width of the mask.

        Raises
        ------
        DermsegError
            There is none of this name, or several; it cannot be read, or has another size.
        """
        photograph = self._of.get(mask)
        if photograph is None:
            # whose photograph that of the same name is, nobody says: it may be another patient's
            several = self._names[image_id_of(_plain(mask).name)] > 1
            raise DataError(
                "no photograph of this name in --images, or several",
                hint="measure masks of one name folder by folder" if several else None,
            )
        try:
            loaded = load_image(photograph, min_side=VIEW_MIN_SIDE)
        except DermsegError as error:
            raise DataError(f"photograph {photograph.name}: {error.reason}") from error
        height, width = loaded.info.height, loaded.info.width
        if (height, width) != size:
            raise DataError(
                f"photograph {photograph.name} is {width} x {height}, the mask {size[1]} x {size[0]} pixels"
            )
        return loaded.pixels


def _plain(mask: ImageSource) -> ImageSource:
    """The same file under the name that its mask would have."""
    if not is_label_map(mask):
        return mask
    head, _, extension = mask.name.rpartition(".")
    return replace(mask, name=f"{head[: -len(NAME_END)]}.{extension}")
