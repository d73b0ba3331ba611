"""Tables that come with a data set: who is on the image, under which licence, and in which split."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dermseg.data.sources.base import GLOBAL_ID
from dermseg.data.spreadsheet import known_text, open_table, read_rows
from dermseg.errors import DataError
from dermseg.images.names import typed_name
from dermseg.images.sources import DICOM_EXTENSIONS, IMAGE_EXTENSIONS

_ID = ("isic_id", "image_id", "image", "image_name", "filename", "file", "name")
_SUBJECT = ("patient_id", "patient", "subject", "subject_id")
_LESION = ("lesion_id", "lesion")
_LICENCE = ("copyright_license", "licence", "license")


@dataclass(frozen=True)
class Facts:
    """What a metadata table says about one image; empty text where it says nothing."""

    subject: str = ""
    lesion: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Assignment:
    """What a split file says about one image."""

    split: str
    group: str = ""


@dataclass(frozen=True)
class SplitTable:
    """A split file: by data set and image id, and by ids that are unique across data sets."""

    file: Path
    rows: Mapping[tuple[str, str], Assignment]
    datasets: frozenset[str]
    ends: Mapping[tuple[str, str], set[Assignment]] = field(default_factory=dict)  # by ends of paths

    def find(self, dataset: str, image_id: str) -> Assignment | None:
        """The assignment of an image.

        A file without a data set column serves every data set. An image is found by its whole id, else by
        the end of a path in the file. Another view of a data set (say crops of the ISIC images under a name
        of their own) is found by its ISIC id.

        Raises
        ------
        DataError
            Several data sets of the file hold the id, in different splits, or several folders.
        """
        for key in ((dataset, image_id), ("", image_id)):
            if key in self.rows:
                return self.rows[key]
        for key in ((dataset, image_id), ("", image_id)):
            if len(found := self.ends.get(key, ())) > 1:
                reason = f"image '{image_id}' is in the file in several folders, with different values"
                raise DataError(reason, file=self.file)
            for assignment in found:
                return assignment
        if not GLOBAL_ID.fullmatch(image_id):
            return None
        others = {self.rows[name, image_id] for name in self.datasets if (name, image_id) in self.rows}
        for name in () if others else self.datasets:
            others |= self.ends.get((name, image_id), set())
        if len({other.split for other in others}) > 1:
            raise DataError(f"image '{image_id}' is in several splits", file=self.file)
        return next(iter(others), None)

    def absent(self, image_ids: Collection[str], datasets: Collection[str]) -> list[str]:
        """Names of the file, of these data sets or of none, that are no image's: misspelt, or not there."""
        ids, own = set(image_ids), {"", *datasets}
        # the file may name them with more folders than their ids have
        return [
            name for dataset, name in self.rows if dataset in own and ids.isdisjoint((name, *ends_of(name)))
        ]


def read_table(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names (lower case) and rows of a table with a header: commas, semicolons or tabs.

    Raises
    ------
    DataError
        The file is missing or is not such a table, or has a line with more cells than the header.
    """
    try:
        reader = open_table(file, "table")
    except FileNotFoundError:
        raise DataError("no such file", file=file) from None
    columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if len(columns) < 2:
        raise DataError("not a table with a header line", file=file)
    reader.fieldnames = columns
    return columns, list(read_rows(reader, file))


def read_metadata(file: str | Path) -> dict[str, Facts]:
    """Patient, lesion and licence per image (columns as the ISIC archive and HAM10000 name them).

    Returns
    -------
    dict
        By the image as the table names it, without the extension of a file, and by what else an image id may
        be of it (`ends_of`) which the table names nowhere itself and about which all its rows agree.

    Raises
    ------
    DataError
        No column with the image, or none that says anything of it; or two rows of an image that differ.
    """
    path = Path(file)
    columns, rows = read_table(path)
    image = _column(columns, _ID, path, "image id")
    subject, lesion, licence = (_first(columns, names) for names in (_SUBJECT, _LESION, _LICENCE))
    if not (subject or lesion or licence):
        known = ", ".join((*_SUBJECT, *_LESION, *_LICENCE))
        raise DataError(
            f"no column with patient, lesion or licence; columns: {', '.join(columns)}",
            file=path,
            hint=f"one of: {known}",
        )
    found: dict[str, Facts] = {}
    ends: dict[str, set[Facts]] = {}
    for row in rows:
        if not row[image]:
            continue
        facts = Facts(*(known_text(row[column]) if column else "" for column in (subject, lesion, licence)))
        name = id_in_table(row[image])
        if found.setdefault(name, facts) != facts:
            raise DataError(f"image '{name}' is in the file twice, with different values", file=path)
        for end in ends_of(name):
            ends.setdefault(end, set()).add(facts)
    return {**{end: same.pop() for end, same in ends.items() if len(same) == 1}, **found}


def read_splits(file: str | Path, column: str = "split") -> SplitTable:
    """A split file: an image id column, ``column``, and perhaps ``dataset`` and ``group``.

    Raises
    ------
    DataError
        The file lacks the column, or puts one image into two splits.
    """
    path = Path(file)
    columns, rows = read_table(path)
    image = _column(columns, _ID, path, "image id")
    if column.lower() not in columns:
        raise DataError(f"no column '{column}'", file=path, hint=f"columns: {', '.join(columns)}")
    found: dict[tuple[str, str], Assignment] = {}
    ends: dict[tuple[str, str], set[Assignment]] = {}
    for row in rows:
        split = known_text(row[column.lower()])
        if not row[image] or not split:
            continue
        dataset, name = row.get("dataset", ""), id_in_table(row[image])
        assignment = Assignment(split, known_text(row.get("group")))
        if found.setdefault((dataset, name), assignment) != assignment:
            raise DataError(f"image '{name}' is in the file twice, with different values", file=path)
        for end in ends_of(name):
            ends.setdefault((dataset, end), set()).add(assignment)
    return SplitTable(path, found, frozenset(dataset for dataset, _ in found), ends)


def id_in_table(text: str) -> str:
    """An image id that may be given as a file; a dot in it is none of a file ("IMG.001", DICOM's UIDs)."""
    path = PurePosixPath(typed_name(text).replace("\\", "/"))  # a list of files from Windows
    named = path.with_suffix("") if path.suffix.lower() in IMAGE_EXTENSIONS | DICOM_EXTENSIONS else path
    return named.as_posix()


def ends_of(name: str) -> Iterator[str]:
    """``"b/1"`` and ``"1"`` of ``"a/b/1"``: tables may know of more folders than an image id has.

    Ids of LabelMe and COCO files have their folders in one name: ``"a_b_1"`` and ``"b_1"``.
    """
    parts = PurePosixPath(name).parts
    for i in range(len(parts)):
        if i:
            yield "/".join(parts[i:])
        if i < len(parts) - 1:
            yield "_".join(parts[i:])


def _first(columns: Iterable[str], names: Iterable[str]) -> str | None:
    known = {column.replace(" ", "_"): column for column in columns}  # "Patient ID" is "patient_id"
    return next((known[name] for name in names if name in known), None)


def _column(columns: list[str], names: Iterable[str], file: Path, what: str) -> str:
    found = _first(columns, names)
    if found is None:
        raise DataError(f"no column with the {what}", file=file, hint=f"one of: {', '.join(names)}")
    return found
