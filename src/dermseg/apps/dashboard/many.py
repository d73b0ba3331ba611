"""Many images at once: the same batch as ``dermseg segment``, its folder handed over as a zip."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dermseg.apps.dashboard.uploads import Upload, lay_out
from dermseg.images import close_zips
from dermseg.images.names import natural_key
from dermseg.images.roles import JOURNAL, tell_apart
from dermseg.inference.batch import run_batch
from dermseg.inference.journal import Entry, read_entries
from dermseg.inference.options import BatchOptions
from dermseg.inference.outputs import RESULTS
from dermseg.inference.predictor import Model
from dermseg.report.batch import write_batch_report

Progress = Callable[[int, int, str], None]  # done, of how many, name of the last one
_STORED = {".png", ".jpg"}  # packing these again gains nothing


@dataclass(frozen=True)
class Finished:
    """What is left of a batch when its folder is gone.

    Attributes
    ----------
    entries
        Row and thumbnail of each image, in input order.
    counts
        ``images``, ``ok``, ``no_lesion``, ``failed``; of those done ``review`` and ``reject``.
    archive, table
        The zip with ``masks/``, ``overlays/``, ``results.csv``, ``report.html`` and ``run.json``, and
        ``results.csv`` alone.
    left_out
        Files that by their names are masks of other files.
    """

    entries: tuple[Entry, ...]
    counts: dict[str, int]
    seconds: float
    archive: bytes = field(repr=False)
    table: bytes = field(repr=False)
    left_out: tuple[str, ...] = ()


def segment_uploads(
    model: Model, uploads: Sequence[Upload], options: BatchOptions, progress: Progress | None = None
) -> Finished:
    """Segment every image in the uploads, in a temporary folder.

    Raises
    ------
    UsageError
        There is no image, or the options do not fit the model.
    """
    with TemporaryDirectory(prefix="dermseg-") as name:
        inputs, out = Path(name, "inputs"), Path(name, "results")
        inputs.mkdir()
        try:
            sources, masks, _ = tell_apart(lay_out(uploads, inputs))

            def listen(entry: Entry | None, counts: Any) -> None:
                if progress is not None:
                    progress(counts.total(), len(sources), "" if entry is None else entry.row.file)

            given = [upload.name for upload in uploads]
            result = run_batch(model, sources, out, options, inputs=given, listener=listen)
        finally:
            close_zips()
        write_batch_report(result)
        return Finished(
            tuple(read_entries(out, result.order)),
            result.counts,
            result.seconds,
            pack(out),
            (out / RESULTS).read_bytes(),
            tuple(mask.name for mask in masks),
        )


def name_settings(options: BatchOptions) -> str:
    """What can be chosen on the page, in words."""
    words = ["all lesions" if options.lesions == "all" else "the largest lesion"]
    words += ["average over flips and turns"] if options.tta else []
    words += ["uncertainty maps"] if options.uncertainty else []
    return ", ".join(words)


def pack(folder: Path) -> bytes:
    """The files of a batch as a zip, without its journal."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != JOURNAL:
                kind = zipfile.ZIP_STORED if path.suffix in _STORED else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder).as_posix(), kind)
    return data.getvalue()


ORDERS = ("Least sure first", "Surest first", "Largest lesion first", "Name")


def sort_entries(entries: Sequence[Entry], order: str) -> list[Entry]:
    """Entries in one of the `ORDERS`; failed ones come first where the unsure do, else last."""
    rank: dict[str, Callable[[Entry], tuple[float, ...]]] = {
        "Least sure first": lambda e: (e.row.status != "failed", e.row.confidence or 0.0),
        "Surest first": lambda e: (e.row.status == "failed", -(e.row.confidence or 0.0)),
        "Largest lesion first": lambda e: (e.row.status == "failed", -(e.row.area_fraction or 0)),
        "Name": lambda e: (),
    }
    return sorted(entries, key=lambda entry: (rank[order](entry), natural_key(entry.row.file)))


def thumbnail(entry: Entry) -> bytes | None:
    """The JPEG of an entry; None where the image failed."""
    return base64.b64decode(entry.thumbnail) if entry.thumbnail else None
