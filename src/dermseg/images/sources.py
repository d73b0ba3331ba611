"""What the user names (files, folders, globs, zips) turned into a list of image sources.

Design: a source is a small frozen record that says where the bytes are; it opens nothing until it is read,
and it can be sent to another process. A folder or zip gives only what has an image or DICOM extension; a
file named by the user is always taken, so that a wrong one gives a row with a reason and not silence.
"""

from __future__ import annotations

import glob
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from dermseg.errors import ImageError, UsageError
from dermseg.images.names import UniqueNames, natural_key, portable_name, printable_name
from dermseg.images.zips import find_member, open_member, open_zip

READ_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp")
# Images that are not read: a row that says so is better than a photograph that is missed in silence.
_NOT_READ = [".heic", ".heif", ".avif", ".gif", ".jp2", ".jpx", ".j2k"]
IMAGE_EXTENSIONS = frozenset([*READ_EXTENSIONS, *_NOT_READ])
DICOM_EXTENSIONS = frozenset([".dcm", ".dicom"])
MAX_BYTES = 1 << 30  # 1 GiB: 100 megapixels of RGB with 16 bits are 600 MB uncompressed
HEAD_BYTES = 1 << 16
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ImageSource:
    """A file on disk or a member of a zip file.

    Attributes
    ----------
    name
        Relative POSIX path for outputs (``sub/a.jpg``); never absolute, no ``..``.
    path
        The file, or the zip file that holds it.
    member
        Name of the zip member as stored; None for a file.
    entry
        Position in the zip's directory, which tells apart members that share a name.
    """

    name: str
    path: Path
    member: str | None = None
    entry: int | None = None

    @property
    def label(self) -> str:
        """Where the bytes are, for messages: the path, or ``zip!member``."""
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    def stamp(self) -> str:
        """What changes when the bytes do: size and time of change of a file at its place, of a zip's member
        its checksum. A file that is not there has an empty one.
        """
        try:
            if self.member is not None:
                info = find_member(self.path, self.member, self.entry)
                return "" if info is None else f"{self.member}:{info.file_size}:{info.CRC:08x}"
            status = self.path.stat()
        except (OSError, ImageError):
            return ""
        return f"{os.path.realpath(self.path)}:{status.st_size}:{status.st_mtime_ns}"

    def read_bytes(
        self, max_bytes: int = MAX_BYTES, *, inspect: Callable[[bytes], int] | None = None
    ) -> bytes:
        """Read the whole file.

        Parameters
        ----------
        max_bytes
            Refuse more than this, whether declared (file size, zip directory) or found while unpacking.
        inspect
            Called with the first 64 KiB before the rest is read. It returns how many bytes such a file may
            have, or raises; a bomb of zeros ends here.

        Raises
        ------
        ImageError
            Missing, not a regular file, empty, too large, encrypted, or the zip is damaged.
        """
        if self.member is None:
            stream, declared = _open_file(self.path)
        else:
            stream, declared = open_member(self.path, self.member, self.entry)
        with stream:
            try:
                if declared > max_bytes:
                    raise self._too_large(declared, max_bytes)
                if declared == 0:
                    raise ImageError("the file is empty (0 bytes)", file=self.label)
                head = stream.read(min(HEAD_BYTES, max_bytes + 1))
                if inspect is not None:
                    max_bytes = min(max_bytes, inspect(head))
                    if declared > max_bytes:
                        raise self._too_large(declared, max_bytes)
                chunks, total = [head], len(head)
                while chunk := stream.read(_CHUNK):
                    total += len(chunk)
                    if total > max_bytes:
                        raise self._too_large(total, max_bytes)
                    chunks.append(chunk)
                return b"".join(chunks)
            except ImageError:
                raise
            except OSError as error:
                raise ImageError(f"cannot be read: {error.strerror or error}", file=self.label) from error
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
                raise ImageError(f"the zip file is damaged here: {error}", file=self.label) from error

    def _too_large(self, size: int, limit: int) -> ImageError:
        return ImageError(f"{size:,} bytes are more than such an image may have ({limit:,})", file=self.label)


def _open_file(path: Path) -> tuple[IO[bytes], int]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
            if stat.S_ISDIR(status.st_mode):
                closed = not os.access(path, os.R_OK | os.X_OK)
                raise ImageError("is a folder" + " that cannot be looked into" * closed, file=path)
            raise ImageError("is not a regular file", file=path)
        return path.open("rb"), status.st_size
    except FileNotFoundError:
        why = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise ImageError(why, file=path) from None
    except (OSError, ValueError) as error:
        raise ImageError(
            f"cannot be opened: {getattr(error, 'strerror', None) or error}", file=path
        ) from error


def as_source(value: ImageSource | Path | str) -> ImageSource:
    """A path, or the text ``archive.zip!member``, as a source."""
    if isinstance(value, ImageSource):
        return value
    archive, member = _split_zip(str(value))
    if member is not None:
        return ImageSource(portable_name(member), archive, member)
    path = Path(value)
    return ImageSource(printable_name(path.name) or "unnamed", path)


def _split_zip(text: str) -> tuple[Path, str | None]:
    head, mark, member = text.partition("!")
    while mark and not head.lower().endswith(".zip"):
        more, mark, member = member.partition("!")
        head = f"{head}!{more}"
    if mark and member and not os.path.lexists(text):
        return Path(head), member
    return Path(text), None


def find_images(inputs: Sequence[str | Path], *, exclude: Sequence[Path] = ()) -> list[ImageSource]:
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
    macOS puts a ``._name`` beside files and in ``__MACOSX``; these hold no image and are passed over.
    A zip that cannot be opened is one source whose reading fails, so that the rest of a batch goes on.
    """
    names, seen, found = UniqueNames(), set(), []
    for given in inputs:
        hidden = left_out(fixed_part(str(given)), exclude)
        for name, parent, source in _expand(str(given)):
            key = (os.path.realpath(source.path), source.member, source.entry)
            if key in seen or any(Path(key[0]).is_relative_to(folder) for folder in hidden):
                continue
            seen.add(key)
            unique = names.take(name, parent)
            found.append(ImageSource(unique, source.path, source.member, source.entry))
    if not found:
        listed = ", ".join(f"'{given}'" for given in inputs) or "no input"
        hint = "name files, folders or zips with JPEG, PNG, TIFF, BMP, WebP or DICOM images"
        folders = [Path(given) for given in inputs if Path(given).is_dir()]
        if zips := [path for folder in folders for path in folder.rglob("*.zip")]:
            hint = f"zips that lie in a folder are opened where they are named, such as '{zips[0]}'"
        raise UsageError(f"no image found in {listed}", hint=hint)
    return sorted(found, key=lambda source: natural_key(source.name))


def left_out(place: Path, exclude: Sequence[Path]) -> list[Path]:
    """The folders of `exclude` that nothing at or below `place` may come from, links resolved."""
    real = Path(os.path.realpath(place))
    folders = [Path(os.path.realpath(folder)) for folder in exclude]
    return [folder for folder in folders if not real.is_relative_to(folder)]


def fixed_part(text: str) -> Path:
    """The file, folder or zip that an input names, or the folder that a glob begins with."""
    path, _ = _split_zip(text)
    if not os.path.lexists(path):
        while glob.has_magic(str(path)):
            path = path.parent
    return path


_Found = Iterator[tuple[str, str, ImageSource]]  # name, folder to put in front if taken, source


def _expand(text: str) -> _Found:
    archive, pattern = _split_zip(text)
    if pattern is not None:
        if not archive.exists():
            raise UsageError(f"'{archive}' does not exist")
        yield from _from_zip(archive, pattern)
    elif os.path.lexists(text):
        yield from _from_path(Path(text), "", explicit=True)
    elif glob.has_magic(text):
        fixed = fixed_part(text)
        for match in sorted(glob.glob(text, recursive=True), key=natural_key):  # noqa: PTH207
            if os.path.normpath(match) == os.path.normpath(fixed):  # "photos/**" is also "photos/" itself
                yield from _from_path(fixed, "", explicit=True)
                continue
            parts = Path(os.path.relpath(Path(match).parent, fixed)).parts
            prefix = "".join(f"{part}/" for part in parts if part not in (".", ".."))  # of "a/*/../../b*"
            yield from _from_path(Path(match), prefix, explicit=False)
    else:
        raise UsageError(
            f"'{text}' does not exist", hint="check the path; quote a glob such as 'photos/*.jpg'"
        )


def _from_path(path: Path, prefix: str, *, explicit: bool) -> _Found:
    parent = printable_name(path.absolute().parent.name)
    if path.is_dir():
        inner = f"{prefix}{path.name}/" if not explicit else ""
        closed: list[OSError] = []
        for folder, folders, files in os.walk(path, onerror=closed.append):
            folders.sort(key=natural_key)
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
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}/")


def _wanted(name: str) -> bool:
    last = name.rpartition("/")[2]
    if last.startswith("._") or name.startswith("__MACOSX/"):
        return False
    return os.path.splitext(last)[1].lower() in IMAGE_EXTENSIONS | DICOM_EXTENSIONS  # noqa: PTH122
