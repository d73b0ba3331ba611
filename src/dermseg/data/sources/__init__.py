"""Data sets that can be imported: the official layouts, and any folder of images and masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dermseg.data.sources.base import Entry, Layout, is_dicom_name, is_image_name
from dermseg.data.sources.converted import CONVERTERS, detect_converted
from dermseg.data.sources.dicom import DICOM
from dermseg.data.sources.ham10000 import HAM10000
from dermseg.data.sources.isic import ISIC2016, ISIC2017, ISIC2018, ISIC2018_TASK2
from dermseg.data.sources.ph2 import PH2
from dermseg.errors import DataError

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (ISIC2016, ISIC2017, ISIC2018, ISIC2018_TASK2, HAM10000, PH2)
}
FOLDER = "folder"  # any images and masks
KINDS: tuple[str, ...] = (*LAYOUTS, *CONVERTERS, DICOM, FOLDER)


def detect(entries: Sequence[Entry], masks: Iterable[Entry] | None = None) -> str:
    """The kind of data set that the file names show.

    Raises
    ------
    DataError
        No image among the files, or several data sets at once.
    """
    converted = detect_converted(entries)
    if converted and masks is None:
        return converted
    if any(is_dicom_name(entry.path) for entry in entries):
        return DICOM
    if not any(is_image_name(entry.path) for entry in entries):
        raise DataError("there is no image among the inputs", hint="give a folder or a zip with images")
    both = list(entries) if masks is None else [*entries, *masks]
    kinds = [
        name
        for name, layout in LAYOUTS.items()
        if any(layout.image.search(entry.path.as_posix()) for entry in entries)
        and any(layout.mask.search(entry.path.as_posix()) for entry in both)
    ]
    if len(kinds) > 1:
        raise DataError(
            f"the inputs hold several data sets: {', '.join(kinds)}",
            hint=f"one at a time: 'dermseg data import {kinds[0]} ...', the next with --append",
        )
    return kinds[0] if kinds else FOLDER
