"""Fetch one file by HTTP so that it is whole in the end: resumed, retried, checked, moved into place.

Decisions
- A partial file ``<name>.part`` has a note ``<name>.part.json`` beside it that says which version of the
  remote file it is a part of (ETag or Last-Modified). Without that note it is started anew: two halves of
  two versions would make a file that nobody notices is broken.
- A server may ignore ``Range`` (200 instead of 206), or the file may have changed (``If-Range`` makes the
  server send all of it): both start anew.
- Failures count only in a row without progress, so a long download over a bad line gets through.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dermseg.data.remote import RemoteInfo, content_length, open_url
from dermseg.errors import DataError, DownloadError
from dermseg.files import atomic_write

CHUNK = 1 << 20
RETRIES = 8
SPARE_BYTES = 64 << 20  # left free on the disk
_MAX_RESTARTS = 3
_MAX_WAIT_S = 60.0
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


@dataclass(frozen=True)
class Fetched:
    """A file that is whole and in its place."""

    path: Path
    url: str
    size: int
    sha256: str
    etag: str | None
    requests: int


class _Again(Exception):  # noqa: N818
    """The attempt ended early; another may succeed."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


def check_disk(folder: Path, need: int) -> None:
    """Refuse to start what cannot end.

    Raises
    ------
    DataError
        Fewer than ``need`` bytes (and a little more) are free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if need + SPARE_BYTES > free:
        raise DataError(
            f"{need / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free",
            file=folder,
            hint="free some space or choose another folder with -o",
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(
    url: str,
    target: Path,
    *,
    retries: int = RETRIES,
    timeout_s: float = 30.0,
    backoff_s: float = 1.0,
    progress: Progress | None = None,
) -> Fetched:
    """Download ``url`` to ``target``; what an earlier attempt left is continued.

    Parameters
    ----------
    retries
        Failures in a row, without a byte gained, after which it gives up.
    backoff_s
        Wait after the first failure; doubled each time up to a minute, unless the server says how long.

    Raises
    ------
    DownloadError
        Not found, refused, gave up (the partial file stays).
    DataError
        No disk space, or no address of the web.
    """
    part, note = _part_paths(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = restarts = requests = best = 0
    while True:
        state = _read_note(note, url)
        have = part.stat().st_size if part.exists() else 0
        if state is None or (state.size is not None and have > state.size):
            _discard(part, note)
            state, have = None, 0
        if state is not None and state.size is not None and have == state.size:
            break
        requests += 1
        try:
            if _attempt(url, part, note, state=state, have=have, timeout_s=timeout_s, progress=progress):
                break
            restarts += 1
            if restarts > _MAX_RESTARTS:
                raise DownloadError("the file on the server keeps changing", file=url, hint="try again later")
            continue
        except _Again as error:
            # Progress is a byte that no earlier attempt reached: a server that always starts at the
            # beginning and always breaks off must not keep us here for ever.
            reached = part.stat().st_size if part.exists() else 0
            failures = 1 if reached > max(best, have) else failures + 1
            best = max(best, have, reached)
            if failures > retries:
                raise DownloadError(
                    f"gave up after {failures} failures in a row: {error}",
                    file=url,
                    hint="run the same command again: it goes on where it stopped",
                ) from None
            wait = error.wait_s if error.wait_s is not None else backoff_s * 2 ** (failures - 1)
            time.sleep(min(wait, _MAX_WAIT_S))
    final = _read_note(note, url)
    digest = sha256_of(part)
    size = part.stat().st_size
    part.replace(target)
    note.unlink(missing_ok=True)
    return Fetched(target, url, size, digest, final.etag if final else None, requests)


def _attempt(
    url: str,
    part: Path,
    note: Path,
    *,
    state: RemoteInfo | None,
    have: int,
    timeout_s: float,
    progress: Progress | None,
) -> bool:
    """One request. True: the file is whole; False: what was there is of no use, start anew."""
    headers = {}
    if have and state is not None and state.validator:
        headers = {"Range": f"bytes={have}-", "If-Range": state.validator}
    try:
        reply = open_url(url, headers, timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(error, part, note, url)
    except (OSError, http.client.HTTPException) as error:
        raise _Again(_reason(error)) from None
    with reply:
        start = 0
        if reply.status == 206:
            found = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
            total = int(found[3]) if found and found[3] != "*" else None
            info = RemoteInfo.of(reply.headers, total)
            same = state is not None and (info.validator or state.validator) == state.validator
            fits = found is not None and int(found[1]) == have and (state is None or total == state.size)
            if not headers or not same or not fits:
                _discard(part, note)
                return False
            start = have
        else:
            info = RemoteInfo.of(reply.headers, content_length(reply.headers))
            chunked = "chunked" in reply.headers.get("Transfer-Encoding", "").lower()
            if info.size is None and not chunked:
                raise DownloadError("the server does not say how long the file is", file=url)
            check_disk(part.parent, info.size or 0)
            part.write_bytes(b"")
            atomic_write(note, json.dumps({"url": url, **asdict(info)}).encode())
        _copy(reply, part, start, info.size, progress)
    return True


def _copy(reply: Any, part: Path, start: int, total: int | None, progress: Progress | None) -> None:
    done = start
    with part.open("r+b") as out:
        out.truncate(start)
        out.seek(start)
        try:
            # read1 gives what has arrived, so that a broken line loses nothing that came before.
            while chunk := reply.read1(CHUNK):
                if total is not None and done + len(chunk) > total:
                    raise _Again("the server sent more than it announced")
                out.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == 28:  # ENOSPC: trying again does not help
                raise DataError("the disk is full", file=part) from None
            raise _Again(_reason(error)) from None
        finally:
            out.flush()
            os.fsync(out.fileno())
    if total is not None and done < total:
        raise _Again(f"the connection ended after {done} of {total} bytes")


def _refused(error: urllib.error.HTTPError, part: Path, note: Path, url: str) -> bool:
    if error.code == 416:  # the range is outside of the file: ours is not a part of it
        _discard(part, note)
        return False
    reason = f"the server answers {error.code} {error.reason}"
    if error.code in _RETRY_STATUS:
        wait = error.headers.get("Retry-After", "")
        raise _Again(reason, float(wait) if wait.isdecimal() else None)
    raise DownloadError(reason, file=url)


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    return str(inner or error) or type(error).__name__


def _part_paths(target: Path) -> tuple[Path, Path]:
    return target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")


def _read_note(note: Path, url: str) -> RemoteInfo | None:
    try:
        values = json.loads(note.read_bytes())
        if values["url"] != url:
            return None
        info = RemoteInfo(values["size"], values["etag"], values["last_modified"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return info if info.validator else _unresumable(info, note)


def _unresumable(info: RemoteInfo, note: Path) -> RemoteInfo | None:
    # Without a validator a part can only be used by the attempt that wrote all of it.
    part = note.with_name(note.name.removesuffix(".json"))
    whole = info.size is not None and part.exists() and part.stat().st_size == info.size
    return info if whole else None


def _discard(part: Path, note: Path) -> None:
    for path in (part, note):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
