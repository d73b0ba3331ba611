"""Where images come from and results go: local folders, and whatever fsspec reaches (s3://, gs://, ...).

A local file appears whole or not at all through a rename, an object of a store through its single upload, so
that a worker that is killed never leaves half a result under its final name.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from dermseg.errors import DermsegError, ImageError, UsageError
from dermseg.files import atomic_write
from dermseg.images.sources import MAX_BYTES, ImageSource, is_url

# Object stores, by protocol, and the package that each needs.
_STORES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
}
_INSTALL = {**_STORES, "http": "aiohttp", "https": "aiohttp"}


# What a presigned URL carries besides the place, by the parameter that gives it away. Tokens are no place.
_SIGNED_BY = {
    "signature": {"signature", "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"},
    "sig": {"sig", "se", "si", "sip", "sks", "skoid", "skt", "ske", "sktid", "skv", "sp", "spr", "sr", "srt"}
    | {"ss", "st", "sv"},
    "token": {"token"},
    "access_token": {"access_token"},
}
_SIGNING = ("x-amz-", "x-goog-")


def unsigned(url: str) -> str:
    """A URL without passwords, keys and dates: what an image is called, whoever may read it and until when.

    Other parameters of ``http`` and ``https`` stay: an image server may tell images apart by them.
    """
    protocol, mark, rest = url.partition("://")
    if protocol.lower() not in ("http", "https"):
        return url
    host, slash, path = rest.partition("/")
    path, _, query = path.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    names = [pair.partition("=")[0].lower() for pair in pairs]
    secret = set().union(*(more for name, more in _SIGNED_BY.items() if name in names))
    kept = [
        pair
        for name, pair in zip(names, pairs, strict=True)
        if name not in secret and not name.startswith(_SIGNING)
    ]
    tail = f"?{'&'.join(kept)}" if kept else ""
    return f"{protocol}{mark}{host.rpartition('@')[2]}{slash}{path}{tail}"


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises
    ------
    UsageError
        The protocol is unknown, or its package is not installed.
    """
    protocol = url.partition("://")[0].lower()
    try:
        filesystem, path = fsspec.url_to_fs(url)
    except ImportError as error:
        package = _INSTALL.get(protocol)
        raise UsageError(
            f"'{protocol}://' needs a package of its own",
            hint=f"pip install {package}" if package else str(error),  # fsspec names it
        ) from None
    except ValueError as error:
        raise UsageError(f"'{unsigned(url)}' cannot be used: {error}") from None
    return filesystem, path.rstrip("/")


@dataclass(frozen=True)
class RemoteImage(ImageSource):
    """An image behind a URL. ``path`` is its last part only."""

    url: str = field(default="", kw_only=True)

    @property
    def label(self) -> str:
        """The URL, without what signs it."""
        return unsigned(self.url)

    def read_bytes(self, max_bytes: int = MAX_BYTES, *, inspect: Any = None) -> bytes:
        """The whole object, in one request; the limits are those of ``ImageSource.read_bytes``.

        Raises
        ------
        ImageError
            Missing, unreadable, empty or too large.
        """
        filesystem, path = open_filesystem(self.url)
        try:
            with filesystem.open(path, "rb", cache_type="readahead") as stream:
                data: bytes = stream.read(max_bytes + 1)
        except FileNotFoundError:
            raise ImageError("does not exist", file=self.label) from None
        except Exception as error:  # each protocol raises types of its own
            why = type(error).__name__
            if self.label == self.url:
                why += f": {error}"
            elif status := getattr(error, "status", None):  # the words have the whole URL in them
                why += f": HTTP {status}"
            raise ImageError(f"cannot be read: {why}", file=self.label) from None
        if not data:
            raise ImageError("the file is empty (0 bytes)", file=self.label)
        limit = max_bytes if inspect is None else min(max_bytes, inspect(data[: 1 << 16]))
        if len(data) > limit:
            raise ImageError(f"more bytes than such an image may have ({limit:,})", file=self.label)
        return data


class Store:
    """A folder for results, local or behind a URL; picklable.

    Parameters
    ----------
    place
        A local path or a URL.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.local = None if is_url(place) else Path(place)

    def __str__(self) -> str:
        return self.place

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Raises
        ------
        DermsegError
            It cannot be written.
        """
        if self.local is not None:
            return atomic_write(self.local / name, data)
        filesystem, root = open_filesystem(self.place)
        try:
            if self.place.partition("://")[0].lower() not in _STORES:
                # Object stores have no folders; asked for one, s3fs would make a bucket of a misspelt name.
                filesystem.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            filesystem.pipe_file(f"{root}/{name}", data)
        except Exception as error:
            raise DermsegError(
                f"cannot be written: {type(error).__name__}: {error}", file=f"{self.place}/{name}"
            ) from error

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none.

        Raises
        ------
        DermsegError
            The store cannot be reached or refuses.
        """
        try:
            if self.local is not None:
                return (self.local / name).read_bytes()
            filesystem, root = open_filesystem(self.place)
            data: bytes = filesystem.cat_file(f"{root}/{name}")
            return data
        except FileNotFoundError:
            return None
        except DermsegError:
            raise
        except Exception as error:
            raise DermsegError(
                f"cannot be read: {type(error).__name__}: {error}", file=f"{self.place}/{name}"
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file, where there is one."""
        if self.local is not None:
            return (self.local / name).unlink(missing_ok=True)
        filesystem, root = open_filesystem(self.place)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(f"{root}/{name}")

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; none where it does not exist."""
        try:
            if self.local is not None:
                return sorted(path.name for path in (self.local / folder).iterdir())
            filesystem, root = open_filesystem(self.place)
            filesystem.invalidate_cache()
            found = filesystem.ls(f"{root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise UsageError("the output is a file, not a folder", file=self.place) from None
        return sorted(name.rpartition("/")[2] for name in found)
