"""Which LabelMe file belongs to an image, how it names the image, and whether it is another one's.

The name alone does not tell. Cameras count every visit's photographs from 1, so that a folder of annotations
(``-o``) is asked for two images ``IMG_1.jpg``, and ``a.jpg`` and ``a.png`` of one folder share ``a.json``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from dermseg.data.labelme import Annotation, read_labelme
from dermseg.data.sources.beside import ZIP_FIELD, find_named
from dermseg.errors import DataError, ImageError
from dermseg.images.names import typed_name
from dermseg.images.sources import ImageSource, same_bytes
from dermseg.images.zips import find_member


def annotation_path(source: ImageSource, folder: Path | None) -> Path:
    """Where LabelMe looks for what belongs to an image: a file of its stem, whatever its kind.

    Raises
    ------
    DataError
        An image in a zip, and no folder.
    """
    if folder is not None:
        return folder / PurePosixPath(source.name).with_suffix(".json")
    if source.member is not None:
        raise DataError(
            "an image in a zip has no folder to write to", file=source.path, hint="name one with -o"
        )
    return source.path.with_suffix(".json")


def read_own(file: Path) -> Annotation:
    """The LabelMe file where that of an image belongs.

    Raises
    ------
    DataError
        It is none: archives put what they know of an image there, too.
    """
    try:
        return read_labelme(file.read_bytes(), file)
    except DataError as error:
        hint = error.hint or "move it away, or name another folder with -o"
        raise DataError(error.message, file=file, hint=hint) from None


def name_image(annotation: Annotation, source: ImageSource, folder: Path) -> Annotation:
    """The annotation with the place of its image, as a file in ``folder`` names it."""
    extra = {key: value for key, value in annotation.extra.items() if key != ZIP_FIELD}
    if source.member is None:
        return replace(annotation, image=_relative(source.path, folder), extra=extra)
    extra[ZIP_FIELD] = f"{_relative(source.path, folder)}!{source.member}"
    # as annotations lie in folders like the zip's: so LabelMe finds it in the unpacked zip
    return replace(annotation, image=PurePosixPath(source.name).name, extra=extra)


def adopt(annotation: Annotation, source: ImageSource, folder: Path) -> Annotation:
    """The annotation as that of ``source``, where what it names is not there: it was renamed or moved."""
    return name_image(annotation, source, folder) if find_named(annotation, folder) is None else annotation


def other_image(
    annotation: Annotation, source: ImageSource, folder: Path, *, quick: bool = False
) -> str | None:
    """The image that an annotation belongs to, as it names it, if that is not ``source``.

    An image that is not there any more was renamed, converted or moved: its annotation goes with the one that
    has its name now. A copy, with the very bytes, is the same image.

    Parameters
    ----------
    folder
        Of the LabelMe file.
    quick
        Files of one size are taken for copies, unread.
    """
    name = PureWindowsPath(annotation.image).name
    own = PurePosixPath(source.name).name if source.member is not None else source.path.name
    if _stem(name) != _stem(own):
        return None
    named = find_named(annotation, folder)
    if named is None:
        # Files from before zips were named tell of their members the name alone.
        unnamed = source.member is not None and ZIP_FIELD not in annotation.extra
        return annotation.image if unnamed and name != own else None
    if _same_place(named, source) or _same_content(named, source, quick=quick):
        return None
    return annotation.image if named.member is None else str(annotation.extra[ZIP_FIELD])


def _relative(path: Path, folder: Path) -> str:
    # Of the real folders: ".." of a linked one leads away from where the link lies.
    real = Path(os.path.realpath(path.parent), path.name)
    try:
        return Path(os.path.relpath(real, os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive (Windows): there is no relative path
        return path.absolute().as_posix()


def _stem(name: str) -> str:
    """Without what differs between systems of which some give two such names one file."""
    return typed_name(PurePosixPath(name).stem).casefold()


def _same_place(one: ImageSource, other: ImageSource) -> bool:
    try:
        return one.member == other.member and one.path.samefile(other.path)
    except OSError:
        return False


def _same_content(one: ImageSource, other: ImageSource, *, quick: bool) -> bool:
    size = _size(one)
    if size is None or size != _size(other):
        return False
    return quick or same_bytes(one, other)


def _size(source: ImageSource) -> int | None:
    """Bytes of an image; None where it is not there."""
    try:
        if source.member is None:
            return source.path.stat().st_size
        info = find_member(source.path, source.member, source.entry)
        return None if info is None else info.file_size
    except (OSError, ImageError):
        return None
