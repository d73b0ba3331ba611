"""The index: one CSV table that says which image belongs to which masks, patient, lesion and split.

Decisions
- A location is a path relative to the folder of the index, or ``archive.zip!member``: data sets are
  used as they were downloaded, nothing is unpacked, and a folder with its index can be moved as one.
- Empty text means unknown. A row without masks is an image that nobody has drawn on yet.
- Groups are what must never be torn apart by a split: patient, else lesion, else near-duplicates.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from dermseg.data.locations import relocate, split_location
from dermseg.data.spreadsheet import known_text, open_table
from dermseg.errors import DataError
from dermseg.files import atomic_write
from dermseg.images.sources import ImageSource

COLUMNS = (
    "image_id",
    "image",
    "masks",
    "dataset",
    "subject",
    "lesion",
    "group",
    "split",
    "width",
    "height",
    "licence",
    "sha256",
)
EXCLUDED = "excluded"  # rows that share a patient, lesion or near-duplicate with a held-out split


@dataclass(frozen=True)
class IndexRow:
    """One image with what is known about it.

    Attributes
    ----------
    image_id
        Name of the image, unique within its data set.
    image, masks
        Locations: a path relative to ``root``, or ``archive.zip!member``.
    dataset, subject, lesion, licence
        Empty text where unknown.
    group
        Rows of one group always share a split.
    split
        ``train``, ``val``, ``calib``, ``test``, ``excluded``, a fold name, or empty (not assigned).
    width, height
        Size of the oriented image in pixels.
    sha256
        Of the image file's bytes, lower-case hex.
    extra
        Columns that an index has besides, and what is in them: kept as they are.
    root
        Folder that locations are relative to (the folder of the index); not written to the file.
    """

    image_id: str
    image: str
    masks: tuple[str, ...] = ()
    dataset: str = ""
    subject: str = ""
    lesion: str = ""
    group: str = ""
    split: str = ""
    width: int = 0
    height: int = 0
    licence: str = ""
    sha256: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    root: Path = field(default=Path(), compare=False)

    @property
    def key(self) -> tuple[str, str]:
        """Data set and image id: what makes a row unique in an index."""
        return self.dataset, self.image_id

    def rebased(self, root: Path) -> IndexRow:
        """The same row with locations relative to another folder."""
        if self.root.resolve() == root.resolve():
            return replace(self, root=root)
        return replace(
            self,
            image=relocate(self.image, self.root, root),
            masks=tuple(relocate(mask, self.root, root) for mask in self.masks),
            root=root,
        )


def open_image(row: IndexRow) -> ImageSource:
    """The row's image, to be given to ``load_image``; its name is ``<dataset>/<image_id>.<ext>``."""
    return _source(row, row.image, "")


def open_mask(row: IndexRow, number: int = 0) -> ImageSource:
    """One of the row's masks, to be given to ``load_mask``.

    Raises
    ------
    DataError
        The row has no mask of that number.
    """
    if not 0 <= number < len(row.masks):
        raise DataError(f"image '{row.image_id}' has {len(row.masks)} masks, number {number} was asked for")
    return _source(row, row.masks[number], "_segmentation")


def _source(row: IndexRow, location: str, suffix: str) -> ImageSource:
    path, member = split_location(location)
    extension = PurePosixPath(member or path).suffix
    name = f"{row.image_id}{suffix}{extension}"
    return ImageSource(
        name=f"{row.dataset}/{name}" if row.dataset else name, path=row.root / path, member=member
    )


def short_names(indexes: Sequence[Path], prefixes: Sequence[str] = ()) -> list[str]:
    """A name for each index, with as many folders as tell them apart; one that comes twice is numbered.

    Parameters
    ----------
    prefixes
        What each name begins with; it tells them apart too.
    """
    first = prefixes or [""] * len(indexes)
    paths = [(*path.parts[:-1], path.stem) for path in indexes]
    for length in range(1, max(map(len, paths), default=0) + 1):
        names = [start + "/".join(path[-length:]) for start, path in zip(first, paths, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [f"{start}{path[-1]} {n}" for n, (start, path) in enumerate(zip(first, paths, strict=True), 1)]


def read_index(path: str | Path) -> list[IndexRow]:
    """Read an index.

    Raises
    ------
    DataError
        The file is missing, lacks a column, or holds a row that cannot be right (line number given).
    """
    file = Path(path)
    try:
        reader = open_table(file, "index", strict=True)
    except FileNotFoundError:
        raise DataError("no such index", file=file, hint="'dermseg data import' makes one") from None
    there = list(reader.fieldnames or ())
    missing = [name for name in COLUMNS if name not in there]
    if missing:
        raise DataError(
            f"not an index: no column {', '.join(missing)}", file=file, hint=f"columns: {','.join(COLUMNS)}"
        )
    if twice := [name for name in COLUMNS if there.count(name) > 1]:  # which of them is meant?
        raise DataError(
            f"the column {', '.join(twice)} is there twice", file=file, hint="take one of them out"
        )
    rows: list[IndexRow] = []
    seen: set[tuple[str, str]] = set()
    try:
        for record in reader:
            row = _parse(record, file, reader.line_num)
            if row.key in seen:
                raise DataError(
                    f"image '{row.image_id}' of '{row.dataset}' is listed twice (line {reader.line_num})",
                    file=file,
                )
            seen.add(row.key)
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {error}", file=file) from None
    return rows


def _parse(record: dict[str, str | None], file: Path, line: int) -> IndexRow:
    # A key or value None is how the csv module reports a line with too many or too few fields.
    if None in record or any(record[name] is None for name in COLUMNS):
        raise DataError(f"line {line} does not have the columns of the header", file=file)
    values = {name: (record[name] or "").strip() for name in COLUMNS if name != "masks"}
    if not values["image_id"] or not values["image"]:
        raise DataError(f"line {line} has no image_id or no image", file=file)
    size: dict[str, int] = {}
    for name in ("width", "height"):
        text = values.pop(name)
        if text and not text.isdecimal():
            raise DataError(f"line {line}: {name} '{text}' is not a number of pixels", file=file)
        size[name] = int(text or 0)
    values |= {name: known_text(values[name]) for name in ("subject", "lesion", "group", "split")}
    # a folder's or file's name may begin with a space
    values["image"] = record["image"] or ""
    masks = tuple(mask for mask in (record["masks"] or "").split(";") if mask.strip())
    extra = tuple((name, text or "") for name, text in record.items() if name and name not in COLUMNS)
    width, height = size["width"], size["height"]
    return IndexRow(masks=masks, extra=extra, root=file.parent, width=width, height=height, **values)


def write_index(rows: Iterable[IndexRow], path: str | Path) -> None:
    """Write an index whole or not at all; locations become relative to its folder.

    What it has besides (``IndexRow.extra``) stands behind its own columns.
    """
    file = Path(path)
    rows = list(rows)
    more = list(dict.fromkeys(name for row in rows for name, _ in row.extra))
    table = [
        (
            *(";".join(row.masks) if name == "masks" else getattr(row, name) or "" for name in COLUMNS),
            *map(dict(row.extra).get, more),
        )
        for row in (row.rebased(file.parent) for row in rows)
    ]
    write_table(file, (*COLUMNS, *more), table)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table whole or not at all (UTF-8, ``\\n`` line ends, one header line)."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    # Of names that are not UTF-8, which stand in lists of what was left out.
    atomic_write(path, buffer.getvalue().encode("utf-8", "backslashreplace"))


def merge(*tables: Sequence[IndexRow]) -> list[IndexRow]:
    """Several indexes as one; of rows with the same data set and image id the later one stays.

    Raises
    ------
    DataError
        Two such rows are about different images: other bytes, at another place.
    """
    merged: dict[tuple[str, str], IndexRow] = {}
    for row in (row for table in tables for row in table):
        before = merged.get(row.key)
        if before is not None and not _same_image(before, row):
            first, second = (open_image(each).label for each in (before, row))
            raise DataError(
                f"'{row.image_id}' of data set '{row.dataset}' is two different images: {first} and {second}",
                hint="import one of them under another name: dermseg data import ... --name NAME",
            )
        merged[row.key] = row
    return list(merged.values())


def _same_image(first: IndexRow, second: IndexRow) -> bool:
    if first.sha256 and first.sha256 == second.sha256:  # perhaps moved
        return True
    here = Path.cwd()  # at the same place, perhaps saved anew
    return relocate(first.image, first.root, here) == relocate(second.image, second.root, here)


def files_of(rows: Iterable[IndexRow]) -> set[Path]:
    """Every file that rows name: images, masks, and archives that hold them."""
    return {row.root / split_location(place)[0] for row in rows for place in (row.image, *row.masks)}
