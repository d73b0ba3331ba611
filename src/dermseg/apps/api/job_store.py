"""Batch jobs in SQLite: what was accepted is on the disk before its client is told so.

Write-ahead logging with ``synchronous=FULL``: a commit survives the loss of power. One connection under a
lock serves all threads; a statement takes well under a millisecond, an image tens.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dermseg.errors import DermsegError

State = Literal["queued", "running", "done", "failed", "deleted"]
UNFINISHED: tuple[State, ...] = ("queued", "running")
_SCHEMA_VERSION = 2
# From the version before: what the images of a job were judged to be.
_UPGRADES = {
    1: "ALTER TABLE jobs ADD COLUMN review INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN reject INTEGER NOT NULL DEFAULT 0;"
}
_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    idempotency_key TEXT,
    state TEXT NOT NULL,
    options TEXT NOT NULL,
    input_sha256 TEXT NOT NULL,
    images INTEGER NOT NULL,
    ok INTEGER NOT NULL DEFAULT 0,
    no_lesion INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    review INTEGER NOT NULL DEFAULT 0,
    reject INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    problem TEXT,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX jobs_by_state ON jobs (state, created);
"""


class StoreError(DermsegError):
    """The database of jobs cannot be used."""


@dataclass(frozen=True, slots=True)
class Job:
    """One row. Times are seconds since 1970; ``options`` what the client chose."""

    id: str
    owner: str
    idempotency_key: str | None
    state: State
    options: dict[str, Any]
    input_sha256: str
    images: int
    ok: int = 0
    no_lesion: int = 0
    failed: int = 0
    review: int = 0
    reject: int = 0
    attempts: int = 0
    problem: str | None = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None


_COLUMNS = ", ".join(Job.__slots__)
_COUNTED = ("ok", "no_lesion", "failed", "review", "reject")


class JobStore:
    """The database. Threads may share it.

    Raises
    ------
    StoreError
        The file cannot be opened, or was written by a later version.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            script = _SCHEMA if version == 0 else _UPGRADES.get(version)
            if script is not None:
                self._db.executescript(f"BEGIN;{script}PRAGMA user_version={_SCHEMA_VERSION};COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the database of jobs cannot be opened: {error}", file=path) from None
        if version > _SCHEMA_VERSION:
            self._db.close()
            raise StoreError(
                f"the database of jobs has version {version}, this dermseg knows {_SCHEMA_VERSION}",
                file=path,
                hint="pip install --upgrade dermseg, or give another --state folder",
            )

    def add(self, job: Job) -> Job:
        """Accept a job. Where its owner used the idempotency key before, the earlier job is returned."""
        values = (*_row(job),)
        marks = ", ".join("?" * len(values))
        with self._lock:
            self._db.execute(
                f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks}) "
                "ON CONFLICT (owner, idempotency_key) DO NOTHING",
                values,
            )
        kept = self.get(job.id) or self.by_key(job.owner, job.idempotency_key)
        assert kept is not None
        return kept

    def get(self, job_id: str) -> Job | None:
        """The job of that id."""
        found = self._all("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def by_key(self, owner: str, idempotency_key: str | None) -> Job | None:
        """The job that the owner gave this idempotency key."""
        if idempotency_key is None:
            return None
        found = self._all("WHERE owner = ? AND idempotency_key = ?", (owner, idempotency_key))
        return found[0] if found else None

    def of(self, owner: str, limit: int = 100) -> list[Job]:
        """An owner's jobs, newest first."""
        return self._all(
            "WHERE owner = ? AND state != 'deleted' ORDER BY created DESC, rowid DESC LIMIT ?", (owner, limit)
        )

    def ids(self) -> set[str]:
        """Every job there is a row of."""
        with self._lock:
            return {row[0] for row in self._db.execute("SELECT id FROM jobs")}

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self._lock:
            return dict(self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall())

    def next(self) -> Job | None:
        """Begin the oldest queued job: it is running then, and has one attempt more."""
        with self._lock:
            row = self._db.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = COALESCE(started, ?) "
                "WHERE id = (SELECT id FROM jobs WHERE state = 'queued' ORDER BY created, rowid LIMIT 1) "
                f"RETURNING {_COLUMNS}",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def recover(self) -> int:
        """Queue again what was running when the server ended; how many."""
        with self._lock:
            return self._db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'").rowcount

    def progress(self, job_id: str, counts: dict[str, int]) -> None:
        """Note how far a running job is."""
        with self._lock:
            self._db.execute(
                f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in _COUNTED)} "
                "WHERE id = ? AND state = 'running'",
                (*(counts.get(name, 0) for name in _COUNTED), job_id),
            )

    def end(
        self, job_id: str, state: State, *, since: Iterable[State] = ("running",), problem: str | None = None
    ) -> bool:
        """Move a job into its last state, if it is in one of `since`; whether it was."""
        states = tuple(since)
        marks = ", ".join("?" * len(states))
        with self._lock:
            return (
                self._db.execute(
                    "UPDATE jobs SET state = ?, problem = ?, finished = COALESCE(finished, ?) "
                    f"WHERE id = ? AND state IN ({marks})",
                    (state, problem, time.time(), job_id, *states),
                ).rowcount
                == 1
            )

    def forget(self, before: float) -> list[str]:
        """Remove the rows of jobs that ended before a time; their ids."""
        marks = ", ".join("?" * len(UNFINISHED))
        with self._lock:
            rows = self._db.execute(
                f"DELETE FROM jobs WHERE finished < ? AND state NOT IN ({marks}) RETURNING id",
                (before, *UNFINISHED),
            ).fetchall()
        return [row[0] for row in rows]

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _all(self, where: str, values: tuple[Any, ...]) -> list[Job]:
        with self._lock:
            return [_job(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values)]


def _row(job: Job) -> list[Any]:
    values = [getattr(job, name) for name in Job.__slots__]
    return [json.dumps(value) if isinstance(value, dict) else value for value in values]


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    values["options"] = json.loads(values["options"])
    return Job(**values)
