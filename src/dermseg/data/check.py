"""Is everything still as the index says? Files, sizes, masks, and no group in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.data.splits import Leak, find_leaks
from dermseg.data.threads import map_threads
from dermseg.errors import DermsegError
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask


@dataclass(frozen=True)
class Trouble:
    """One thing that is not as the index says."""

    dataset: str
    image_id: str
    file: str
    reason: str


@dataclass
class CheckReport:
    """What a check found; ``ok`` when nothing is wrong.

    ``without_mask`` are images that nobody has drawn on yet, which an index may have.
    """

    images: int
    masks: int
    without_mask: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.troubles and not self.leaks


def check_rows(
    rows: Sequence[IndexRow],
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Open every image and mask of an index and compare with what it says.

    An image must have the bytes (sha256) and size of its row and decode in full; a mask must decode,
    be binary, have the size of its image and, where it is the only one, hold a lesion (of several classes
    not every one is on every image); no group may lie in two splits.
    """
    without = [f"{row.dataset}/{row.image_id}" for row in rows if not row.masks]
    report = CheckReport(len(rows), sum(len(row.masks) for row in rows), without)
    for troubles in map_threads(_check_row, rows, workers=workers, progress=progress):
        report.troubles.extend(troubles)
    report.leaks = find_leaks(rows)
    return report


def _check_row(row: IndexRow) -> list[Trouble]:
    troubles: list[Trouble] = []

    def note(file: str, reason: str) -> None:
        troubles.append(Trouble(row.dataset, row.image_id, file, reason))

    try:
        data = open_image(row).read_bytes()
        if row.sha256 and hashlib.sha256(data).hexdigest() != row.sha256:
            note(row.image, "the file is not the one that was imported (sha256 differs)")
        info = load_image(data).info
        if row.width and row.height and (info.width, info.height) != (row.width, row.height):
            note(row.image, f"{info.width} x {info.height} pixels, the index says {row.width} x {row.height}")
    except DermsegError as error:
        note(row.image, error.reason)
    size = (row.height, row.width) if row.width and row.height else None
    for number, location in enumerate(row.masks):
        try:
            if not load_mask(open_mask(row, number), size=size).any() and len(row.masks) == 1:
                note(location, "the mask is empty")
        except DermsegError as error:
            note(location, error.reason)
    return troubles
