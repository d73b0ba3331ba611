"""Where the bytes of an image are: a file, or a member of a zip.

A source is a small frozen record; it opens nothing until it is read, and it can be sent to another process.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dermseg.errors import ImageError
from dermseg.images.names import portable_name, printable_name
from dermseg.images.zips import find_member, open_member

READ_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp")
# With an extra: see heic.
HEIC_EXTENSIONS = (".heic", ".heif", ".hif")
# Images that are not read: a row that says so is better than a photograph that is missed in silence.
_NOT_READ = [".avif", ".gif", ".jp2", ".jpx", ".j2k", ".jxl"]
IMAGE_EXTENSIONS = frozenset([*READ_EXTENSIONS, *HEIC_EXTENSIONS, *_NOT_READ])
# Camera raw: often beside the JPEG that the camera made of it.
RAW_EXTENSIONS = frozenset(
    [".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"]
)
DICOM_EXTENSIONS = frozenset([".dcm", ".dicom"])
MAX_BYTES = 1 << 30  # 1 GiB: 100 megapixels of RGB with 16 bits are 600 MB uncompressed
HEAD_BYTES = 1 << 16
_CHUNK = 1 << 20
_URL = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)


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
    archive, member = split_zip(str(value))
    if member is not None:
        return ImageSource(portable_name(member), archive, member)
    path = Path(value)
    return ImageSource(printable_name(path.name) or "unnamed", path)


def same_bytes(one: ImageSource, other: ImageSource) -> bool:
    """Whether two files are copies of each other; what cannot be read is like nothing."""
    try:
        return one.read_bytes() == other.read_bytes()
    except ImageError:
        return False


def is_url(text: str) -> bool:
    """Whether this is for fsspec, which ``--engine ray`` uses; a path of the local disk is not."""
    return bool(_URL.match(text))


def split_zip(text: str) -> tuple[Path, str | None]:
    """The zip and the member, or pattern, of ``archive.zip!member``; the path and None of anything else."""
    head, mark, member = text.partition("!")
    while mark and not head.lower().endswith(".zip"):
        more, mark, member = member.partition("!")
        head = f"{head}!{more}"
    if mark and member and not os.path.lexists(text):
        return Path(head), member
    return Path(text), None
