"""CSV tables as people's programs write them: with commas, semicolons or tabs, in UTF-8 or UTF-16."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from dermseg.errors import DataError
from dermseg.files import decode_text, delimiter_of

_UNKNOWN = frozenset(["", "unknown", "nan", "none", "null", "n/a", "na", "<na>", "#n/a", "#nv", "-", "?"])


def known_text(text: str | None) -> str:
    """What a cell says, without spaces around it; empty where it says that it is not known.

    R writes ``NA`` for what is missing, Excel ``#N/A`` for what a look-up did not find (``#NV`` in German),
    people ``-`` or ``?``: that is no patient's name.
    """
    value = (text or "").strip()
    return "" if value.lower() in _UNKNOWN else value


def open_table(path: Path, what: str, *, strict: bool = False) -> csv.DictReader[str]:
    """A reader of the rows.

    Excel puts semicolons where commas are decimal signs, and tabs and UTF-16 into its "Unicode text".

    Parameters
    ----------
    what
        The table in an error's words, such as "index".
    strict
        Refuse odd quotes, with ``csv.Error``.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DataError
        The file cannot be read, or its text is in another encoding.
    """
    try:
        text = decode_text(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"the {what} cannot be read: {error.strerror or error}", file=path) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"the {what} cannot be read: {error}", file=path, hint="save it as CSV UTF-8"
        ) from None
    head, _, rest = text.partition("\n")
    if head.lower().startswith("sep=") and len(mark := head.rstrip("\r")[4:]) == 1:  # a line for Excel alone
        return csv.DictReader(io.StringIO(rest, newline=""), delimiter=mark, strict=strict)
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=strict)


def read_rows(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    """Rows as column -> text without spaces around it; cells that are missing at a line's end are empty.

    Raises
    ------
    DataError
        Odd quotes, or a line with more cells than the header (line number given): one that holds the mark
        between columns, unquoted, moves all behind it by one, and another one would be taken for the patient.
    """
    try:
        for row in reader:
            if any(text.strip() for text in row.pop(None, None) or ()):
                raise DataError(
                    f"line {reader.line_num} has more cells than the header",
                    file=path,
                    hint=f"is there a '{reader.reader.dialect.delimiter}' in one of them? put it in quotes",
                )
            yield {name: (text or "").strip() for name, text in row.items()}
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {error}", file=path) from None
