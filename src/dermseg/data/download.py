"""Download data sets: the challenge files by plain HTTP, the ISIC archive through ``isic-cli``.

Beside the files come ``downloads.json`` (address, size, sha256 of each), ``LICENCE.txt`` (licence and
citation), and for the archive the attribution and licences that it names per image.

``isic-cli`` lists and filters the archive well, but version 12 does not look at the results of its
download threads: an image that failed is missing in silence. So what it wrote is compared with the
metadata it wrote, and it is run again for what is missing.
"""

from __future__ import annotations

import csv
import http.client
import importlib.util
import json
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dermseg.data.fetch import RETRIES, check_disk, fetch, sha256_of
from dermseg.data.remote import open_url, remote_info
from dermseg.data.sources.addresses import COLLECTIONS, Address
from dermseg.errors import DataError, DownloadError, MissingExtraError
from dermseg.files import atomic_write, check_writable, write_json
from dermseg.images.sources import IMAGE_EXTENSIONS

ARCHIVE = "https://api.isic-archive.com/"
RECORD = "downloads.json"
NOTICE = "LICENCE.txt"

FileProgress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all


@dataclass(frozen=True)
class Downloaded:
    """One file that is there: fetched now, or found whole from before."""

    name: str
    path: Path
    size: int
    sha256: str
    fetched: bool


def plan(source: str, parts: Sequence[str] = (), mirror: str | None = None) -> list[Address]:
    """The files of a data set, or of some of its parts.

    Parameters
    ----------
    mirror
        Address of a folder that serves the same file names instead.

    Raises
    ------
    DataError
        No such data set or part.
    """
    if source not in COLLECTIONS:
        hint = "ask the authors at https://www.fc.up.pt/addi/" if source == "ph2" else None
        known = ", ".join(COLLECTIONS)
        raise DataError(f"'{source}' has no public address", hint=hint or f"one of: isic-archive, {known}")
    files = COLLECTIONS[source].files
    known_parts = sorted({file.part for file in files})
    for part in parts:
        if part not in known_parts:
            raise DataError(f"'{source}' has no part '{part}'", hint=f"parts: {', '.join(known_parts)}")
    chosen = [file for file in files if not parts or file.part in parts]
    if mirror is None:
        return chosen
    return [Address(file.name, f"{mirror.rstrip('/')}/{file.name}", file.part) for file in chosen]


def download(
    source: str,
    folder: str | Path,
    *,
    parts: Sequence[str] = (),
    mirror: str | None = None,
    retries: int = RETRIES,
    timeout_s: float = 30.0,
    backoff_s: float = 1.0,
    progress: FileProgress | None = None,
) -> list[Downloaded]:
    """Download the official files of a data set; files that are there already are kept.

    Sizes are asked for first, and nothing starts when the disk cannot hold all of it.

    Raises
    ------
    DataError
        Unknown data set, no space, or a file of unknown origin is in the way.
    DownloadError
        A file could not be fetched (run again to go on).
    """
    target = Path(folder)
    files = plan(source, parts, mirror)
    check_writable(target)
    record = _read_record(target)
    todo = [file for file in files if _present(target, file, record) is None]
    need = 0
    for file in todo:
        size = remote_info(file.url, timeout_s=timeout_s).size or 0
        part = target / f"{file.name}.part"
        need += max(0, size - (part.stat().st_size if part.exists() else 0))
    check_disk(target, need)
    atomic_write(target / NOTICE, COLLECTIONS[source].notice.encode("utf-8"))
    result = []
    for file in files:
        present = _present(target, file, record)
        if present is None:
            # said before, so that a file whose record a kill prevented is known to be ours, and whole
            record[file.name] = {"url": file.url, "size": None}
            _write_record(target, record)
            got = fetch(
                file.url,
                target / file.name,
                retries=retries,
                timeout_s=timeout_s,
                backoff_s=backoff_s,
                progress=partial(progress, file.name) if progress else None,
            )
            record[file.name] = {
                "url": file.url,
                "size": got.size,
                "sha256": got.sha256,
                "etag": got.etag,
                "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
                "licence": COLLECTIONS[source].layout.licence,
            }
            # After each file: what is whole stays known when the next one fails.
            _write_record(target, record)
            present = Downloaded(file.name, got.path, got.size, got.sha256, True)
        result.append(present)
    if record:
        _write_record(target, record)
    return result


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_json(folder / RECORD, record)


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"the record cannot be read: {error}", file=path, hint="delete it") from None
    if not isinstance(record, dict):
        raise DataError("the record is not a JSON object", file=path, hint="delete it")
    return record


def _present(folder: Path, file: Address, record: dict[str, Any]) -> Downloaded | None:
    """The file if it is there as the record says; a file without a record is not touched."""
    path = folder / file.name
    known = record.get(file.name)
    if not path.exists():
        return None
    size = path.stat().st_size
    if known is None:
        raise DataError(
            "the file is there, but nothing says that it is whole",
            file=path,
            hint=f"delete it, or keep it and use another folder ({RECORD} lists what was downloaded)",
        )
    if known.get("size") is None and not path.with_name(f"{path.name}.part").exists():
        # fetched under another name and moved here when whole; the run ended before it could be written down
        known.update(size=size, sha256=sha256_of(path))
    if known.get("size") != size:
        return None  # cut off or changed since: fetched again
    return Downloaded(file.name, path, size, str(known.get("sha256", "")), False)


def download_archive(
    folder: str | Path,
    *,
    search: str = "",
    collections: str = "",
    limit: int = 0,
    attempts: int = 3,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Download images and metadata of the ISIC archive with ``isic-cli``, and check that all are there.

    Parameters
    ----------
    search
        Query of the archive, e.g. ``age_approx:[20 TO 40] AND sex:male``.
    collections
        Collection ids, comma-separated.
    limit
        At most so many images; 0 for all.
    command
        How ``isic`` is started; its own module by default.

    Returns
    -------
    dict
        ``images``, ``bytes``, ``licences`` (with the number of images), ``missing`` (ids).

    Raises
    ------
    MissingExtraError
        ``isic-cli`` is not installed.
    DownloadError
        The archive cannot be reached.
    DataError
        It failed, or images are still missing after all attempts.
    """
    target = Path(folder)
    check_writable(target)
    check_disk(target, 0)
    if command is None:
        if importlib.util.find_spec("isic_cli") is None:
            raise MissingExtraError("downloading from the ISIC archive", "download")
        _check_archive()
        command = (sys.executable, "-m", "isic_cli.cli", "--no-version-check")
    arguments = [*command, "image", "download"]
    for option, value in (("--search", search), ("--collections", collections)):
        if value:
            arguments += [option, value]
    arguments += ["--limit", str(limit), str(target)]
    missing: list[str] = []
    for _ in range(attempts):
        # No stdin: when the disk is too small it asks whether to go on, and no answer means no.
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=2, check=False)
        if done.returncode != 0:
            raise DataError(
                f"isic-cli ended with code {done.returncode}",
                file=target,
                hint="its message is above; run the same command again to go on",
            )
        records = _read_archive(target)
        there = {path.stem: path for path in target.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS}
        missing = [record["isic_id"] for record in records if record["isic_id"] not in there]
        if not missing:
            break
    if missing:
        raise DataError(
            f"{len(missing)} of {len(records)} images are missing, the first is {missing[0]}",
            file=target,
            hint="run the same command again to go on",
        )
    licences: dict[str, int] = {}
    entries = {}
    for record in records:
        path = there[record["isic_id"]]
        licence = record.get("copyright_license", "")
        licences[licence] = licences.get(licence, 0) + 1
        entries[path.name] = {
            "size": path.stat().st_size,
            "sha256": sha256_of(path),
            "licence": licence,
            "attribution": record.get("attribution", ""),
        }
    _write_record(target, entries)
    return {
        "images": len(records),
        "bytes": sum(entry["size"] for entry in entries.values()),
        "licences": licences,
        "missing": missing,
    }


def _check_archive() -> None:
    """An archive that cannot be reached is said at once: isic-cli tries for twenty minutes without a word."""
    try:
        open_url(ARCHIVE, {}, 30.0, "HEAD").close()
    except urllib.error.HTTPError as error:
        error.close()  # it answers
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(
            f"the ISIC archive cannot be reached: {reason}",
            file=ARCHIVE,
            hint="run the same command again where the internet is",
        ) from None


def _read_archive(folder: Path) -> list[dict[str, str]]:
    path = folder / "metadata.csv"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            records = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"isic-cli left no readable metadata: {error}", file=path) from None
    if records and "isic_id" not in records[0]:
        raise DataError("no column isic_id", file=path)
    return records
