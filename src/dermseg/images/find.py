"""What the user names (files, folders, globs, zips) turned into a list of image sources.

A folder or zip gives only what has an image or DICOM extension; a file named by the user is always taken, so
that a wrong one gives a row with a reason and not silence.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from dermseg.errors import ImageError, UsageError
from dermseg.images.names import UniqueNames, natural_key, portable_name, printable_name
from dermseg.images.sources import (
    DICOM_EXTENSIONS,
    IMAGE_EXTENSIONS,
    RAW_EXTENSIONS,
    ImageSource,
    split_zip,
)
from dermseg.images.zips import open_zip


def find_images(
    inputs: Sequence[str | Path], *, exclude: Sequence[Path] = (), linked: list[Path] | None = None
) -> list[ImageSource]:
    """List the images that `inputs` name, sorted naturally by name.

    Parameters
    ----------
    inputs
        Files, folders (searched recursively; linked folders are not followed), globs (``**`` too), zip
        files, and parts of zip files (``archive.zip!images/*``). A zip is looked into when it is named or
        matched by a glob, not when it merely lies in a folder.
    exclude
        Folders that are left out where they lie inside an input, such as those of the outputs. What is named
        inside one of them is taken: the output may be the folder in which the photographs lie.
    linked
        Takes the linked folders that lie in the inputs and lead elsewhere.

    Returns
    -------
    list of ImageSource
        Each file once, however often it is named. Names are relative to the folder, zip or fixed part of
        the glob; where two inputs give the same name, the later gets its folder's name in front.

    Raises
    ------
    UsageError
        An input does not exist, or there is no image in any.

    Notes
    -----
    Camera raw is a source whose reading fails, except beside the picture that was made of it.
    macOS puts a ``._name`` beside files and in ``__MACOSX``; these hold no image and are passed over.
    A zip that cannot be opened is one source whose reading fails, so that the rest of a batch goes on.
    """
    names, seen, found = UniqueNames(), set(), []
    links: list[Path] = []
    for given in inputs:
        hidden = left_out(fixed_part(str(given)), exclude)
        for name, parent, source in _expand(str(given), links):
            key = (os.path.realpath(source.path), source.member, source.entry)
            if key in seen or any(Path(key[0]).is_relative_to(folder) for folder in hidden):
                continue
            seen.add(key)
            unique = names.take(name, parent)
            found.append(ImageSource(unique, source.path, source.member, source.entry))
    real = [Path(os.path.realpath(fixed_part(str(given)))) for given in inputs] if links else []
    elsewhere = [link for link in links if not any(map(Path(os.path.realpath(link)).is_relative_to, real))]
    if linked is not None:
        linked += elsewhere
    if not found:
        listed = ", ".join(f"'{given}'" for given in inputs) or "no input"
        hint = "name files, folders or zips with JPEG, PNG, TIFF, BMP, WebP or DICOM images"
        folders = [Path(given) for given in inputs if Path(given).is_dir()]
        if zips := [path for folder in folders for path in folder.rglob("*.zip")]:
            hint = f"zips that lie in a folder are opened where they are named, such as '{zips[0]}'"
        elif elsewhere:
            hint = f"linked folders are looked into where they are named, such as '{elsewhere[0]}'"
        elif others := [other for given in inputs if (other := _other_case(str(given)))]:
            hint = f"upper and lower case differ; '{others[0]}' finds some"  # cameras write IMG_1.JPG
        raise UsageError(f"no image found in {listed}", hint=hint)
    return sorted(_without_raw_twins(found), key=lambda source: natural_key(source.name))


def _other_case(pattern: str) -> str:
    """``*.JPG`` for ``*.jpg``, or the other way round, if that finds something; else empty."""
    start, ending = os.path.splitext(pattern)  # noqa: PTH122
    other = start + ending.swapcase()
    found = other != pattern and glob.has_magic(start) and glob.glob(other, recursive=True)  # noqa: PTH207
    return other if found else ""


def _without_raw_twins(sources: list[ImageSource]) -> list[ImageSource]:
    """Cameras write ``a.nef`` and ``a.jpg`` of one photograph."""
    placed = [(source, *_place(source)) for source in sources]
    developed = {place for _, place, ending in placed if ending in IMAGE_EXTENSIONS}
    return [
        source for source, place, ending in placed if ending not in RAW_EXTENSIONS or place not in developed
    ]


def _place(source: ImageSource) -> tuple[tuple[Path, str], str]:
    """Where a file lies, without its extension, and the extension."""
    place, ending = os.path.splitext(source.member or source.path.name)  # noqa: PTH122
    return (source.path if source.member else source.path.parent, place), ending.lower()


def left_out(place: Path, exclude: Sequence[Path]) -> list[Path]:
    """The folders of `exclude` that nothing at or below `place` may come from, links resolved."""
    real = Path(os.path.realpath(place))
    folders = [Path(os.path.realpath(folder)) for folder in exclude]
    return [folder for folder in folders if not real.is_relative_to(folder)]


def fixed_part(text: str) -> Path:
    """The file, folder or zip that an input names, or the folder that a glob begins with."""
    path, _ = split_zip(text)
    while glob.has_magic(str(path)) and not os.path.lexists(path):
        path = path.parent
    return path


def _as_named(text: str, folder: Path) -> str:
    """A glob in which its fixed part, a folder that is called so (``photos [2024]``), is no pattern."""
    if not glob.has_magic(str(folder)):
        return text
    return str(Path(glob.escape(str(folder)), Path(text).relative_to(folder)))


_Found = Iterator[tuple[str, str, ImageSource]]  # name, folder to put in front if taken, source


def _expand(text: str, links: list[Path]) -> _Found:
    archive, pattern = split_zip(text)
    if pattern is not None:
        if not archive.exists():
            raise UsageError(f"'{archive}' does not exist")
        yield from _from_zip(archive, pattern)
    elif os.path.lexists(text):
        yield from _from_path(Path(text), "", links, explicit=True)
    elif glob.has_magic(text):
        fixed = fixed_part(text)
        for match in sorted(glob.glob(_as_named(text, fixed), recursive=True), key=natural_key):  # noqa: PTH207
            if os.path.normpath(match) == os.path.normpath(fixed):  # "photos/**" is also "photos/" itself
                yield from _from_path(fixed, "", links, explicit=True)
                continue
            parts = Path(os.path.relpath(Path(match).parent, fixed)).parts
            prefix = "".join(f"{part}/" for part in parts if part not in (".", ".."))  # of "a/*/../../b*"
            yield from _from_path(Path(match), prefix, links, explicit=False)
    else:
        raise UsageError(
            f"'{text}' does not exist", hint="check the path; quote a glob such as 'photos/*.jpg'"
        )


def _from_path(path: Path, prefix: str, links: list[Path], *, explicit: bool) -> _Found:
    parent = printable_name(path.absolute().parent.name)
    if os.path.isdir(path):  # noqa: PTH112 - Path's raises in a folder that may be listed and not entered
        inner = f"{prefix}{path.name}/" if not explicit else ""
        closed: list[OSError] = []
        for folder, folders, files in os.walk(path, onerror=closed.append):
            folders.sort(key=natural_key)
            links += [Path(folder, name) for name in folders if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
            relative = os.path.relpath(folder, path).replace(os.sep, "/")
            front = inner if relative == "." else f"{inner}{relative}/"
            for file in sorted(files, key=natural_key):
                if _wanted(file):
                    name = printable_name(f"{front}{file}")
                    yield name, printable_name(path.absolute().name), ImageSource(name, Path(folder, file))
        for error in closed:  # a row that says so is better than photographs that are missed in silence
            place = Path(error.filename)
            inside = os.path.relpath(place, path).replace(os.sep, "/")
            name = printable_name(f"{inner}{inside}".removesuffix("/."))
            name = printable_name(path.absolute().name) if name == "." else name
            yield name, printable_name(path.absolute().name), ImageSource(name, place)
    elif path.suffix.lower() == ".zip":
        yield from _from_zip(path, None)
    elif explicit or _wanted(path.name):
        name = printable_name(f"{prefix}{path.name}")
        yield name, parent, ImageSource(name, path)


def _from_zip(path: Path, pattern: str | None) -> _Found:
    try:
        infos = open_zip(path).infolist()
    except ImageError:
        yield path.name, "", ImageSource(path.name, path)
        return
    for entry, info in enumerate(infos):
        name = portable_name(info.filename)
        if info.is_dir() or not _wanted(name) or not (pattern is None or _matches(name, pattern)):
            continue
        yield name, portable_name(path.stem), ImageSource(name, path, info.filename, entry)


def _matches(name: str, pattern: str) -> bool:
    pattern = pattern.replace("\\", "/").strip("/")
    return fnmatchcase(name, pattern) or name == pattern or name.startswith(f"{pattern}/")


def _wanted(name: str) -> bool:
    last = name.rpartition("/")[2]
    if last.startswith("._") or name.startswith("__MACOSX/"):
        return False
    ending = os.path.splitext(last)[1].lower()  # noqa: PTH122
    return ending in IMAGE_EXTENSIONS or ending in DICOM_EXTENSIONS or ending in RAW_EXTENSIONS
