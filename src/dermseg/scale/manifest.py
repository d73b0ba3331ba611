"""Manifests: which images a large job is about, one path or URL per line or row.

``.txt`` has one path a line; ``.csv`` and ``.parquet`` have a column ``image`` (that of an index), ``path``,
``url`` or ``file``, and may have a column ``name``: the relative path that results are written under.
Relative paths are relative to the manifest. Without names, the folder that all paths share is left out.
"""

from __future__ import annotations

import glob
import io
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from dermseg.errors import DataError, UsageError
from dermseg.files import decode_text, delimiter_of
from dermseg.images.find import find_images
from dermseg.images.names import UniqueNames, portable_name
from dermseg.images.roles import tell_apart
from dermseg.images.sources import ImageSource, as_source, is_url, split_zip
from dermseg.scale.storage import RemoteImage, Store, unsigned

EXTENSIONS = (".txt", ".csv", ".parquet")
COLUMNS = ("image", "path", "url", "file")
NAME = "name"
_NOT_UTF8 = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Listed:
    """One image of a job: where it is, and the relative path its results are named after.

    ``entry`` is the position in the zip's directory, which tells apart members that share a location.
    ``place`` is the location without what signs a URL: what is written down.
    """

    location: str
    name: str
    entry: int | None = None

    @property
    def place(self) -> str:
        """See above."""
        return unsigned(self.location)

    def source(self) -> ImageSource:
        """What reads it."""
        if is_url(self.location):
            return RemoteImage(self.name, Path(self.place.rpartition("/")[2]), url=self.location)
        found = as_source(self.location)
        return ImageSource(self.name, found.path, found.member, self.entry)


def is_manifest(text: str) -> bool:
    """Whether an input is a manifest, by its extension."""
    return text.lower().endswith(EXTENSIONS)


def list_inputs(inputs: Sequence[str], *, exclude: Sequence[Path] = ()) -> list[Listed]:
    """Every image that the inputs name, once: manifests, URLs, or what the local engine takes.

    Raises
    ------
    UsageError
        Manifests are mixed with other inputs, a URL or what is named beside one is more than one image, or
        nothing is found.
    DataError
        A manifest cannot be read.
    """
    manifests = [text for text in inputs if is_manifest(text)]
    if len(manifests) not in (0, len(inputs)):
        raise UsageError("manifests and other inputs do not go together", hint="run them one after the other")
    if manifests:
        rows = [row for manifest in manifests for row in read_manifest(manifest)]
        listed = name_images(rows)
    elif any(is_url(text) for text in inputs):
        listed = name_images(_one_image(text) for text in inputs)
    else:
        sources = tell_apart(find_images(inputs, exclude=exclude)).photographs
        listed = [Listed(str(Path(s.path).absolute()) + _member(s), s.name, s.entry) for s in sources]
    if not listed:
        raise UsageError(f"no image is listed in {', '.join(inputs)}")
    for image in listed:
        if _NOT_UTF8.search(image.location):  # nothing else fits into a table
            raise UsageError(
                f"the path {image.location!a} is not UTF-8", hint="rename it, or leave --engine ray away"
            )
    return listed


def _one_image(text: str) -> tuple[str, str | None]:
    """Location and name (None: from the location) of an input that is a URL or stands beside one.

    Raises
    ------
    UsageError
        It is a folder, a zip or a pattern: object storage is not searched.
    """
    hint = "list the images in a manifest (.txt, one path or URL a line)"
    if is_url(text):
        query = text.lower().startswith(("http://", "https://"))  # where "?" is no pattern
        if text.endswith("/") or "*" in text or ("?" in text and not query):
            raise UsageError(f"'{text}' is no URL of one image", hint=hint)
        return text, None
    path, member = split_zip(text)
    whole = member is None and (path.is_dir() or path.suffix.lower() == ".zip")
    if whole or glob.has_magic(member or ("" if path.exists() else text)):
        raise UsageError(f"'{text}' is not one image, and other inputs are URLs", hint=hint)
    name = text if member is None else f"{path}/{member}"
    return str(Path(text).absolute()), name  # absolute: workers may run in another folder


def _member(source: ImageSource) -> str:
    return "" if source.member is None else f"!{source.member}"


def read_manifest(place: str) -> list[tuple[str, str | None]]:
    """Location and name (or None) of every row; relative locations are made absolute.

    Raises
    ------
    DataError
        Missing, unreadable, or without one of the columns.
    """
    folder, _, file = place.replace("\\", "/").rpartition("/") if is_url(place) else ("", "", place)
    store = Store(folder) if folder else Store(str(Path(place).parent))
    data = store.read(file if folder else Path(place).name)
    if data is None:
        raise DataError("the manifest does not exist", file=place)
    base = folder or str(Path(place).absolute().parent)
    try:
        if place.lower().endswith(".txt"):
            lines = (line.strip() for line in decode_text(data).splitlines())
            return [(_absolute(line, base), None) for line in lines if line and not line.startswith("#")]
        table = _read_table(place, data)
        column = next((name for name in COLUMNS if name in table.column_names), None)
        if column is None:
            raise DataError(
                f"the manifest has no column of {', '.join(COLUMNS)}",
                file=place,
                hint=f"it has {table.column_names}",
            )
        locations = _texts(table, column)
        names = _texts(table, NAME) if NAME in table.column_names else [None] * len(locations)
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        raise DataError(f"the manifest cannot be read: {error}", file=place) from None
    return [(_absolute(at, base), name) for at, name in zip(locations, names, strict=True) if at]


def _texts(table: pa.Table, column: str) -> list[str | None]:
    """The texts of a column.

    Raises
    ------
    pyarrow.ArrowInvalid
        There are several of that name, or it holds something else.
    """
    try:
        texts: list[str | None] = table[column].cast(pa.string()).to_pylist()
    except pa.ArrowNotImplementedError:
        raise pa.ArrowInvalid(f"column '{column}' holds no paths, but {table[column].type}") from None
    except KeyError:
        raise pa.ArrowInvalid(f"several columns are called '{column}'") from None
    return texts


def _read_table(place: str, data: bytes) -> pa.Table:
    if place.lower().endswith(".parquet"):
        return pyarrow.parquet.read_table(io.BytesIO(data))
    text = decode_text(data)
    delimiter = delimiter_of(text)
    header = text.partition("\n")[0].rstrip("\r").replace('"', "").split(delimiter)
    table = pyarrow.csv.read_csv(
        io.BytesIO(text.encode()),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
        convert_options=pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in header}),
    )
    for index, name in enumerate(table.column_names):
        if name != name.strip():  # "image, name" and, below it, "a.jpg, left.jpg"
            texts = pyarrow.compute.utf8_trim_whitespace(table.column(index).cast(pa.string()))
            table = table.set_column(index, name.strip(), texts)
    return table


def _absolute(location: str, base: str) -> str:
    if is_url(location):
        return location
    if is_url(base):
        return f"{base}/{location}"
    return str(Path(base, location))  # an absolute location stays what it is


def name_images(rows: Iterable[tuple[str, str | None]]) -> list[Listed]:
    """Every row once, with a unique name, in the order of the rows.

    A location without a name gets its path below the folder that all of them share; one that is listed under
    several names has results under each. The same rows give the same names, which is what lets a job be
    taken up again.
    """
    wanted: dict[tuple[str, str | None], str] = {}
    for location, name in rows:
        wanted.setdefault((unsigned(location), name or None), location)
    folder = _common_folder([place for place, name in wanted if name is None])
    unique = UniqueNames()
    listed = []
    for (place, name), location in wanted.items():
        plain = portable_name(name or place[len(folder) :].replace("!", "/"))
        parent, _, _ = plain.rpartition("/")
        listed.append(Listed(location, unique.take(plain, parent)))
    return listed


def _common_folder(locations: Sequence[str]) -> str:
    """The longest start, up to and with a slash, that all locations have in common."""
    if not locations:
        return ""
    first, last = (f(text.replace("\\", "/") for text in locations) for f in (min, max))
    shared = posixpath.commonprefix([first, last])
    return shared[: shared.rfind("/") + 1]
