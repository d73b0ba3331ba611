"""A job cut into parts: the unit of work, of retrying and of what is known to be done.

Decisions
---------
- A part is some dozens to some hundreds of images. It is done when its rows stand in
  ``results.parquet/part-N.parquet``, which is written last and whole. What was killed before is done again,
  and gives the same files under the same names.
- Which image is in which part follows from the list of images alone, so a later run finds the same parts.
- ``results.parquet`` is a folder, as Spark and Ray write tables: ``pandas.read_parquet`` takes it as one.
- ``job.json`` claims the output folder and says what the job was: model, options, list of images, and by
  sizes and times of change whether the images of each part are still those. Objects behind URLs are not asked
  for theirs: a request for each would be as slow as the job.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from dermseg.errors import DermsegError, UsageError
from dermseg.files import json_text
from dermseg.images.roles import JOURNAL, RUN
from dermseg.inference.header import stamp_inputs
from dermseg.inference.outputs import Row
from dermseg.scale.manifest import Listed
from dermseg.scale.storage import RemoteImage, Store
from dermseg.version import __version__

JOB, TABLE = "job.json", "results.parquet"
MIN_PART, MAX_PART, MAX_PARTS = 16, 1024, 10_000
_PART = re.compile(r"part-(\d{6})\.parquet")
_TRIES = re.compile(r"\.part-(\d{6})\.tries")
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SCHEMA = pa.schema(
    [pa.field("location", pa.string())]
    + [pa.field(f.name, _TYPES[str(f.type).removesuffix(" | None")]) for f in fields(Row)]
)


@dataclass(frozen=True, slots=True)
class Job:
    """What two runs must have in common to be one job."""

    version: str
    model: dict[str, Any]
    options: dict[str, Any]
    images: int
    digest: str  # sha256 of places and names, in order
    files: list[str]  # per part a digest of the sizes and times of change of its local files

    def to_json(self) -> bytes:
        """The text of ``job.json``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json_text({"dermseg_job": 1, **values})

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """In what an earlier job differs, in plain words; empty if in nothing."""
        now = json.loads(self.to_json())
        found = []
        for key, what in (("version", "dermseg"), ("model", "the model"), ("digest", "the list of images")):
            if earlier.get(key) != now[key]:
                found.append(f"{what} is another")
        was, options = earlier.get("options") or {}, now["options"]
        found += [
            f"{key} was {was.get(key)}, is {options.get(key)}"
            for key in sorted(was.keys() | options.keys())
            if was.get(key) != options.get(key)
        ]
        return found


def describe_job(model: dict[str, Any], options: dict[str, Any], listed: Sequence[Listed]) -> Job:
    """The job that segments these images in this way."""
    digest = hashlib.sha256()
    for image in listed:
        digest.update(f"{image.place}\n{image.name}\n".encode())
    stamps, size = _stamps(listed), part_size(len(listed))
    files = [
        hashlib.sha256("\n".join(islice(stamps, size)).encode()).hexdigest()[:16]
        for _ in range(0, len(listed), size)
    ]
    return Job(__version__, model, options, len(listed), digest.hexdigest(), files)


def _stamps(listed: Iterable[Listed]) -> Iterator[str]:
    """Size and time of change of each local file, as the local engine compares them; empty of a URL."""
    place, stamp = None, ""
    for image in listed:
        source = image.source()
        if isinstance(source, RemoteImage):
            yield ""
            continue
        if source.path != place:  # members of one zip, which they share, stand together
            place = source.path
            (_, *values) = stamp_inputs([source])[0]
            stamp = str(values)
        yield stamp


def part_size(images: int) -> int:
    """Images per part: few, so that little is done twice; but at most 10,000 parts of 1024 or more."""
    return max(MIN_PART, min(MAX_PART, images // 1000), -(-images // MAX_PARTS))


def claim(store: Store, job: Job, *, resume: bool) -> bool:
    """Make the output folder that of this job, or check that it is; whether it was not before.

    Raises
    ------
    UsageError
        It holds another job, or this one and ``resume`` was not asked for.
    """
    held = store.read(JOB)
    if held is None:
        if store.read(JOURNAL) is not None or store.read(RUN) is not None or store.names("masks"):
            raise UsageError(
                "the output folder holds another run", file=str(store), hint="choose another folder with -o"
            )
        store.write(JOB, job.to_json())
        return True
    if not resume:
        raise UsageError(
            "the output folder holds an earlier run",
            file=str(store),
            hint="go on with it (--resume), or choose another folder with -o",
        )
    try:
        differences = job.differences(json.loads(held))
    except ValueError:
        differences = [f"{JOB} cannot be read"]
    if differences:
        raise _another_job(store, "; ".join(differences))
    return False


def check_files(store: Store, job: Job, done: Iterable[int]) -> None:
    """Refuse a job of which images have changed that are done; images of other parts may be mended ones.

    Raises
    ------
    UsageError
        There are some.
    """
    before = json.loads(store.read(JOB) or b"{}").get("files")
    if before == job.files:
        return
    if any(not isinstance(before, list) or before[part] != job.files[part] for part in done):
        raise _another_job(store, "images have changed since")
    store.write(JOB, job.to_json())


def _another_job(store: Store, why: str) -> UsageError:
    return UsageError(
        f"the earlier run cannot be resumed: {why}",
        file=str(store),
        hint="run it as before, or choose another folder with -o",
    )


def part_file(part: int) -> str:
    """Where the rows of a part stand."""
    return f"{TABLE}/part-{part:06d}.parquet"


def check_arrived(store: Store, part: int) -> None:
    """See that a part that a worker recorded is in the job's own output.

    Raises
    ------
    DermsegError
        It is not: the worker's machine has another disk under that path.
    """
    if store.local is not None and not (store.local / part_file(part)).exists():
        raise DermsegError(
            "results are missing that a worker wrote: its machine has another folder under this path",
            file=str(store),
            hint="-o takes a folder that all machines share, or a URL",
        )


def write_part(store: Store, part: int, rows: Iterable[tuple[str, Row]]) -> None:
    """Record a part as done: the location and the row of each of its images."""
    values = [{"location": location, **row.as_dict()} for location, row in rows]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(values, SCHEMA), buffer, compression="zstd")
    store.write(part_file(part), buffer.getvalue())


def count_try(store: Store, part: int) -> int:
    """Note that a worker begins a part; how many began it before in this run and did not end it."""
    name = f"{TABLE}/.part-{part:06d}.tries"
    before = int(store.read(name) or 0)
    store.write(name, str(before + 1).encode())
    return before


def forget_tries(store: Store, part: int) -> None:
    """The part came to an end."""
    store.remove(f"{TABLE}/.part-{part:06d}.tries")


def forget_all_tries(store: Store) -> None:
    """What an earlier run gave up gets new tries."""
    for name in store.names(TABLE):
        if match := _TRIES.fullmatch(name):
            forget_tries(store, int(match[1]))


def read_failures(store: Store, parts: Iterable[int], limit: int) -> list[tuple[str, str]]:
    """Names and reasons of the first images of these parts that failed."""
    found: list[tuple[str, str]] = []
    for part in parts:
        data = store.read(part_file(part)) or b""
        table = pyarrow.parquet.read_table(io.BytesIO(data), columns=["file", "status", "message"])
        found += [(row["file"], row["message"]) for row in table.to_pylist() if row["status"] == "failed"]
        if len(found) >= limit:
            break
    return found[:limit]


def read_done(store: Store, column: str = "status") -> dict[int, Counter[str]]:
    """The parts that are recorded, and how many images of each ended with which status (or verdict).

    A table that lost its content (a power cut, a failed copy) records nothing: its part is done again.
    """
    found = [(name, int(match[1])) for name in store.names(TABLE) if (match := _PART.fullmatch(name))]

    def read(name: str) -> Counter[str] | None:
        data = store.read(f"{TABLE}/{name}") or b""
        try:
            table = pyarrow.parquet.read_table(io.BytesIO(data), columns=[column])
        except (pa.ArrowInvalid, OSError):
            return None
        return Counter(table[column].to_pylist())

    with ThreadPoolExecutor(16) as pool:  # stores answer slowly, and many at a time
        counts = pool.map(read, (name for name, _ in found))
        return {part: count for (_, part), count in zip(found, counts, strict=True) if count is not None}
