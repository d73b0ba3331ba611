"""One image and its masks, opened and checked on their way into the index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dermseg.data.duplicates import Fingerprint, fingerprint
from dermseg.data.index import IndexRow
from dermseg.data.locations import locate, split_location
from dermseg.data.sources.base import Candidate
from dermseg.errors import DataError, DermsegError, MaskError
from dermseg.images.load import load_image
from dermseg.images.masks import is_frame, load_mask

NO_MASK = "no mask for this image"
_SEPARATOR = ";"  # joins masks in the index, so no location may hold it


def open_candidate(
    candidate: Candidate, dataset: str, allow_unmasked: bool, several: bool
) -> tuple[IndexRow, Fingerprint, bool]:
    """Open one pair, and whether a mask is a frame. Errors of the images room come out as they are.

    With several classes a mask may be empty: not every class is on every image.
    """
    if not candidate.masks and not allow_unmasked:
        raise MaskError(NO_MASK, file=candidate.image.source.label)
    root = Path.cwd()
    locations = [locate(entry.source, root) for entry in (candidate.image, *candidate.masks)]
    _check_names(candidate, locations)
    data = candidate.image.source.read_bytes()
    image = load_image(data)
    size = (image.info.height, image.info.width)
    framed = False
    for entry in candidate.masks:
        try:
            mask = load_mask(entry.source, size=size)
        except DermsegError as error:
            raise MaskError(error.message, file=entry.source.label, hint=error.hint) from None
        if not mask.any() and not several:
            raise MaskError("the mask is empty", file=entry.source.label)
        framed |= is_frame(mask)
    row = IndexRow(
        image_id=candidate.image_id,
        image=locations[0],
        masks=tuple(locations[1:]),
        dataset=dataset,
        width=image.info.width,
        height=image.info.height,
        sha256=hashlib.sha256(data).hexdigest(),
        root=root,
    )
    return row, fingerprint(image.pixels), framed


def _check_names(candidate: Candidate, locations: Sequence[str]) -> None:
    """Refuse names and paths that an index cannot hold."""
    if any(_SEPARATOR in location for location in locations):
        raise DataError("a file name with ';' does not fit into the index", file=candidate.image.source.label)
    for entry in (candidate.image, *candidate.masks):
        if split_location(entry.source.path.absolute().as_posix())[1] is not None:
            reason = "a path with '.zip!' in it does not fit into the index, where it means an archive"
            raise DataError(reason, file=entry.source.label, hint="rename it")
    if candidate.image_id != candidate.image_id.strip():
        reason = "a name with a space before or behind it does not fit into the index"
        raise DataError(reason, file=candidate.image.source.label, hint="rename it")
    try:
        "".join(locations).encode()
    except UnicodeEncodeError:
        reason = "a file name that is not UTF-8 does not fit into the index"
        raise DataError(reason, file=candidate.image.source.label, hint="rename it") from None
