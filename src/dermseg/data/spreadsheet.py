"""CSV tables as people's programs write them: with commas, semicolons or tabs, in UTF-8 or UTF-16."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from dermseg.errors import DataError
from dermseg.files import decode_text, delimiter_of

_UNKNOWN = frozenset(["", "unknown", "nan", "none", "null", "n/a", "na"])


def known_text(text: str | None) -> str:
    """What a cell says, without spaces around it; empty where it says that it is not known.

    R writes ``NA`` for what is missing, others ``nan`` or ``unknown``: that is no patient's name.
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
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=strict)
