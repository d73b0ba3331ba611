"""Checking an audit log from its first to its last byte."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dermseg.audit.log import Receipt, compare_head, read_head
from dermseg.audit.record import START, AuditError, decode_line, key_name
from dermseg.errors import UsageError
from dermseg.locks import locked


@dataclass(frozen=True, slots=True)
class Verification:
    """What the check found.

    Parameters
    ----------
    ok
        Every record is as it was written, none is missing.
    records
        How many are right, from the first on.
    problem
        What is wrong with the one after these; None where nothing is.
    last
        The last record that is right: note it elsewhere and give it to a later check.
    keyed
        Whether the chain is an HMAC chain.
    """

    ok: bool
    records: int
    problem: str | None
    last: Receipt | None
    keyed: bool

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def verify(path: Path, key: bytes | None = None, *, expect: Receipt | None = None) -> Verification:
    """Check a log: every hash, the order, that it reaches its head, and that it holds a noted record.

    Parameters
    ----------
    expect
        A record that was noted elsewhere (from an answer, a log line or an earlier check).

    Raises
    ------
    UsageError
        There is no such file.
    """
    if not path.is_file():
        raise UsageError("there is no audit log", file=path)
    last = Receipt(0, START)
    expected_seen = expect is None
    with path.open("rb") as file:
        with locked(file.fileno(), shared=True):  # up to a moment at which no writer is amid a line
            size = os.fstat(file.fileno()).st_size
            try:
                head, problem = read_head(path), None
            except AuditError as error:
                head, problem = None, f"the head of the log {error.message}"
        lines = iter(lambda: file.readline(size - file.tell()), b"")
        for number, line in enumerate(lines if problem is None else (), 1):
            problem = _wrong(line, number, last, key)
            if problem is not None:
                break
            last = Receipt(number, decode_line(line, key)["hash"])
            expected_seen = expected_seen or last == expect
    if problem is None:
        problem = compare_head(head, last) if last.seq else "the log is empty"
    if problem is None and not expected_seen and expect is not None:
        problem = f"record {expect.seq} is not the one that was noted"
    return Verification(problem is None, last.seq, problem, last if last.seq else None, key is not None)


def _wrong(line: bytes, number: int, before: Receipt, key: bytes | None) -> str | None:
    try:
        record = decode_line(line, key)
    except ValueError as error:
        return f"record {number} {error}"
    if record["seq"] != number:
        return f"record {number} has the number {record['seq']}"
    if record["prev"] != before.hash:
        return f"record {number} does not follow the record before it"
    if number == 1 and record.get("subject") != key_name(key):
        return "the log was begun with another key"
    return None
