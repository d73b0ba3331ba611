"""An index as other programs read it: COCO, WebDataset and TFRecord, one part for each split.

Written into a temporary folder and moved into place when all is there: one image that cannot be taken leaves
nothing behind.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dermseg.data.coco import write_coco
from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.data.shards import Example, write_tar, write_tfrecord
from dermseg.errors import DataError
from dermseg.files import atomic_write
from dermseg.images.load import load_image, open_header
from dermseg.images.masks import encode_mask, load_mask
from dermseg.images.names import UniqueNames, portable_name

FORMATS = ("coco", "webdataset", "tfrecord")
_UNASSIGNED = "unassigned"


def export_rows(
    rows: Sequence[IndexRow],
    kind: str,
    folder: Path,
    *,
    labels: Sequence[str] = ("lesion",),
    shard_size: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write rows in a format of others.

    Parameters
    ----------
    kind
        ``coco`` (``<split>.json`` and ``images/``), ``webdataset`` (``<split>-000000.tar``) or ``tfrecord``
        (``<split>-00000-of-00003.tfrecord``).
    labels
        COCO: the category of each mask, in their order.
    shard_size
        Images in a shard.

    Returns
    -------
    list of Path
        The files written, images of COCO not counted.

    Raises
    ------
    DataError
        Unknown format, no rows, rows whose numbers of masks differ from the labels, or images that are
        turned by their EXIF orientation (all are named).
    ImageError, MaskError
        A file cannot be read.
    MissingExtraError
        TFRecord needs the package google-crc32c.
    """
    if kind not in FORMATS:
        raise DataError(f"unknown format '{kind}'", hint=f"one of: {', '.join(FORMATS)}")
    if not rows:
        raise DataError("the index is empty")
    for row in rows if kind == "coco" else ():
        if len(row.masks) > len(labels):
            raise DataError(
                f"image '{row.image_id}' has {len(row.masks)} masks and {len(labels)} labels were given",
                hint="--labels names the category of each mask",
            )
    turned = [row for row in rows if open_header(open_image(row)).orientation > 1]
    if turned:
        # readers of these formats do not all turn images by their EXIF tag, so masks would not lie on them
        names = ", ".join(f"'{row.image_id}'" for row in turned[:5]) + (", ..." if len(turned) > 5 else "")
        raise DataError(
            f"images turned by their EXIF orientation ({len(turned)} of {len(rows)}): {names}",
            file=open_image(turned[0]).label,
            hint="save them upright first ('dermseg dicom deidentify' and image editors do so)",
        )
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, len(rows))

    there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as name:
            written = _write(rows, kind, Path(name), labels=labels, shard_size=shard_size, step=step)
            for path in [path for path in Path(name).rglob("*") if path.is_file()]:
                target = folder / path.relative_to(name)
                target.parent.mkdir(exist_ok=True)
                path.replace(target)
    except BaseException:
        if not there:
            with suppress(OSError):
                folder.rmdir()
        raise
    return [folder / path.name for path in written]


def _write(
    rows: Sequence[IndexRow],
    kind: str,
    folder: Path,
    *,
    labels: Sequence[str],
    shard_size: int,
    step: Callable[[], None],
) -> list[Path]:
    splits: dict[str, list[IndexRow]] = {}
    for row in rows:
        splits.setdefault(row.split or _UNASSIGNED, []).append(row)
    keys, stems = _keys(rows), UniqueNames()
    written: list[Path] = []
    for named, chosen in splits.items():
        split = stems.take(portable_name(named).replace("/", "_"))  # any text may stand in a table
        if kind == "coco":
            written.append(_write_coco(split, [(row, keys[row.key]) for row in chosen], folder, labels, step))
            continue
        count = -(-len(chosen) // shard_size)
        for number in range(count):
            part = chosen[number * shard_size : (number + 1) * shard_size]
            examples = [_example(row, keys[row.key], step) for row in part]
            name = (
                f"{split}-{number:06d}.tar"
                if kind == "webdataset"
                else (f"{split}-{number:05d}-of-{count:05d}.tfrecord")
            )
            (write_tar if kind == "webdataset" else write_tfrecord)(examples, folder / name)
            written.append(folder / name)
    return written


def _load(row: IndexRow) -> tuple[bytes, str, int, int, list[NDArray[np.bool_]]]:
    source = open_image(row)
    data = source.read_bytes()
    info = load_image(data).info
    size = (info.height, info.width)
    masks = [load_mask(open_mask(row, i), size=size) for i in range(len(row.masks))]
    return data, PurePosixPath(source.name).suffix.lstrip(".").lower(), info.width, info.height, masks


def _keys(rows: Sequence[IndexRow]) -> dict[tuple[str, str], str]:
    """What each row is called in the export: no two alike on any disk, no dot (it ends a WebDataset key)."""
    unique, keys = UniqueNames(), {}
    for row in rows:
        name = portable_name(f"{row.dataset}_{row.image_id}" if row.dataset else row.image_id)
        keys[row.key] = unique.take(name.replace("/", "_").replace(".", "_"))
    return keys


def _example(row: IndexRow, key: str, step: Callable[[], None]) -> Example:
    data, extension, width, height, masks = _load(row)
    step()
    return Example(key, extension, data, tuple(map(encode_mask, masks)), width, height, _facts(row))


def _facts(row: IndexRow) -> dict[str, str]:
    """What an import gives back."""
    names = ("image_id", "dataset", "subject", "lesion", "split", "licence", "sha256")
    return {name: getattr(row, name) for name in names}


def _write_coco(
    split: str,
    rows: Sequence[tuple[IndexRow, str]],
    folder: Path,
    labels: Sequence[str],
    step: Callable[[], None],
) -> Path:
    def images() -> Iterator[tuple[str, int, int, Sequence[NDArray[np.bool_]]]]:
        for row, key in rows:
            data, extension, width, height, masks = _load(row)
            name = f"{key}.{extension}"
            (folder / "images").mkdir(exist_ok=True)
            atomic_write(folder / "images" / name, data)
            yield name, width, height, masks
            step()

    licences = sorted({row.licence for row, _ in rows if row.licence})
    info = {"description": f"dermseg data export, split '{split}'", "licences": json.dumps(licences)}
    path = folder / f"{split}.json"
    atomic_write(path, write_coco(images(), labels, info, [_facts(row) for row, _ in rows]))
    return path
