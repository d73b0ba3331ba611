"""A table of visits: which photographs show which lesion, and when they were taken.

CSV (commas, semicolons or tabs) with a column ``image`` and, where they are known, ``subject``, ``lesion``,
``date``, ``spacing_mm`` and ``mask``; others are passed over, so that an index is such a table too: its
``dataset`` tells lesions of one name apart. Locations are relative to the table or ``zip!member``.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

from dermseg.data.locations import split_location
from dermseg.data.sources.base import GLOBAL_NAME
from dermseg.data.spreadsheet import known_text, open_table
from dermseg.errors import DataError
from dermseg.files import as_on_disk
from dermseg.images.names import printable_name
from dermseg.images.sources import ImageSource
from dermseg.inference.following import Photograph
from dermseg.measure.geometry import is_spacing, spacing_words

COLUMNS = ("image", "subject", "lesion", "date", "spacing_mm", "mask")
_EXAMPLE = "columns: image,lesion,date,spacing_mm,mask; only image has to be there"


def read_visits(path: Path) -> tuple[list[list[Photograph]], int]:
    """Read a table: the photographs of each lesion in order of time, and how many rows name no lesion.

    Lesions come in the order in which they first appear. Without dates the order of the rows is that of time;
    without a column ``lesion`` all photographs show one.

    Raises
    ------
    DataError
        The table cannot be read, or holds something that cannot be right (line number given).
    """
    try:
        reader = open_table(path, "table", strict=True)
    except FileNotFoundError:
        raise DataError("the table cannot be read: no such file", file=path) from None
    # A column "Lesion" that is passed over would make all lesions one.
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    if "image" not in columns:
        raise DataError("no column 'image'", file=path, hint=_EXAMPLE)
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise DataError(f"more than one column '{twice[0]}'", file=path)
    named = "lesion" in columns
    lesions: dict[tuple[str, str, str], list[tuple[datetime, Photograph]]] = {}
    nameless = 0
    try:
        for record in reader:
            line = reader.line_num
            if None in record or None in record.values():
                raise DataError(f"line {line} does not have the columns of the header", file=path)
            values = {name: (record.get(name) or "").strip() for name in COLUMNS}
            values |= {name: known_text(values[name]) for name in ("subject", "lesion", "date", "mask")}
            if named and not values["lesion"]:
                nameless += 1
                continue
            local = named and not GLOBAL_NAME.fullmatch(values["lesion"])
            dataset = known_text(record.get("dataset")) if local else ""
            whose = dataset, values["subject"], values["lesion"]
            moment = _moment(values["date"], path, line) if values["date"] else None
            photograph = _parse(values, moment and moment.date(), path, line)
            lesions.setdefault(whose, []).append((moment or datetime.min, photograph))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {error}", file=path) from None
    if not lesions:
        raise DataError("no row names a photograph of a lesion", file=path, hint=_EXAMPLE)
    times = Counter(whose[1:] for whose in lesions)
    return [
        _in_time(rows, path, dataset if times[subject, lesion] > 1 else "")
        for (dataset, subject, lesion), rows in lesions.items()
    ], nameless


def _parse(values: dict[str, str], taken: date | None, path: Path, line: int) -> Photograph:
    if not values["image"]:
        raise DataError(f"line {line} has no image", file=path)
    return Photograph(
        image=_source(values["image"], path.parent),
        lesion="/".join(part for part in (values["subject"], values["lesion"]) if part),
        taken=taken,
        spacing_mm=_spacing(values["spacing_mm"], path, line),
        mask=_source(values["mask"], path.parent) if values["mask"] else None,
    )


def _source(location: str, root: Path) -> ImageSource:
    path, member = split_location(location)
    return ImageSource(name=printable_name(location), path=as_on_disk(root / path), member=member)


def _moment(text: str, path: Path, line: int) -> datetime:
    """The day, or day and time: of two photographs of one day the time says which was the first."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise DataError(
            f"line {line}: '{text}' is not a date", file=path, hint="year-month-day, such as 2026-03-14"
        ) from None


def _spacing(text: str, path: Path, line: int) -> tuple[float, float] | None:
    """None where it is not known, as R's ``NA``; ``nan`` is a sum that went wrong."""
    if not known_text(text) and text.lower() != "nan":
        return None
    try:
        spacing = float(text.replace(",", "."))  # a decimal comma: thousands of millimetres there are none
    except ValueError:
        spacing = math.nan
    if not is_spacing(spacing):
        raise DataError(
            f"line {line}: spacing_mm '{text}' is not a number {spacing_words()}",
            file=path,
            hint="millimetres between pixel centres, such as 0.021",
        )
    return spacing, spacing


def _in_time(rows: list[tuple[datetime, Photograph]], path: Path, dataset: str) -> list[Photograph]:
    """In order of time; the name of the data set, where there is one, goes before the lesion's.

    Raises
    ------
    DataError
        Some have a date and some have none: their order is not known.
    """
    photographs = [one for _, one in sorted(rows, key=lambda row: row[0])]
    if dataset:
        photographs = [replace(one, lesion=f"{dataset}/{one.lesion}") for one in photographs]
    dated = [one for one in photographs if one.taken is not None]
    if len(dated) not in (0, len(photographs)):
        missing = next(one for one in photographs if one.taken is None)
        raise DataError(
            f"lesion '{photographs[0].lesion}': '{missing.image.name}' has no date, others have",
            file=path,
            hint="give all of a lesion's photographs a date, or none and write them in order of time",
        )
    return photographs
