"""DICOM files among what the user names: archives export them without an extension (``IM000001``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dermseg.errors import ImageError, UsageError
from dermseg.images.find import find_images, left_out
from dermseg.images.headers import sniff
from dermseg.images.names import UniqueNames, natural_key, printable_name
from dermseg.images.sources import DICOM_EXTENSIONS, ImageSource


def find_files(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> list[ImageSource]:
    """What ``find_images`` finds, and in folders also DICOM files of any name, told by their content.

    Raises
    ------
    UsageError
        An input does not exist, or there is nothing in any.
    """
    names, seen, found = UniqueNames(), set(), []
    plain: list[ImageSource] = []
    for given in inputs:
        try:
            plain += find_images([given], exclude=[] if exclude is None else [exclude])
        except UsageError:
            if not Path(given).is_dir():
                raise
        if Path(given).is_dir():
            plain += _unnamed(Path(given), exclude)
    for source in plain:
        # not resolve(): it raises in a loop of links
        key = (os.path.realpath(source.path), source.member, source.entry)
        if key not in seen:
            seen.add(key)
            name = names.take(source.name, printable_name(source.path.absolute().parent.name))
            found.append(ImageSource(name, source.path, source.member, source.entry))
    if not found:
        raise UsageError(f"no image found in {', '.join(map(str, inputs))}")
    return sorted(found, key=lambda source: natural_key(source.name))


def _unnamed(folder: Path, exclude: Path | None) -> list[ImageSource]:
    hidden = left_out(folder, [] if exclude is None else [exclude])
    found = []
    for path in sorted(folder.rglob("*")):
        # not Path's: it raises in a folder that may be listed and not entered, which is a row already
        if os.path.islink(path) or not os.path.isfile(path) or path.name == "DICOMDIR":  # noqa: PTH113, PTH114
            continue
        if any(Path(os.path.realpath(path)).is_relative_to(place) for place in hidden):
            continue
        try:
            with path.open("rb") as file:
                wanted = file.read(132)[128:] == b"DICM"
        except OSError:  # its row will say why, instead of the end of the run
            wanted = True
        if wanted:
            name = printable_name(path.relative_to(folder).as_posix())
            found.append(ImageSource(name, path))
    return found


def is_dicom(source: ImageSource) -> bool:
    """Whether a source is DICOM, by its content, or by its name where it cannot be read."""
    try:
        data = source.read_bytes(inspect=_head_only)
    except _HeadError as head:
        data = head.args[0]
    except ImageError:
        return Path(source.name).suffix.lower() in DICOM_EXTENSIONS
    try:
        return sniff(data[:132]) == "DICOM"
    except ImageError:
        return Path(source.name).suffix.lower() in DICOM_EXTENSIONS


class _HeadError(Exception):
    """Ends the reading of a file after its head."""


def _head_only(head: bytes) -> int:
    raise _HeadError(head[:132])
