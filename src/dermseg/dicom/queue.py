"""The queue on disk: what was received, how far it is, what failed. Survives SIGKILL and power cuts.

Decisions
---------
- SQLite in WAL mode with ``synchronous=FULL``: a job exists when ``add`` returns, and the sender is told of
  success only then. The file of the image is written and synced before its row.
- A job is one image (SOP Instance UID) and one way of working (hash of model and options). The pair is
  unique: what is sent twice is worked on once, and a new model may work on it again.
- States: ``received`` -> ``made`` (result files lie in ``made/``) -> ``sent``; ``dead`` after too many
  failures or where trying again cannot help; ``ignored`` for dermseg's own results that come back, and for
  dead letters that were given up.
- Nothing is done exactly once by keeping count. A step that a crash cut off is done again, and gives the
  same objects with the same UIDs, so the archive has each of them once.
- No number of a job is given twice, though finished jobs are forgotten: logs name them.
- One process owns the folder: a second one is refused (an exclusive transaction in ``lock.sqlite``, which the
  system ends with the process, however that ends).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dermseg.dicom.disk import write_synced
from dermseg.dicom.identity import is_uid
from dermseg.errors import DermsegError, UsageError
from dermseg.files import private_file, private_folder

State = Literal["received", "made", "sent", "dead", "ignored"]
STATES: tuple[State, ...] = ("received", "made", "sent", "dead", "ignored")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image_uid TEXT NOT NULL,
    work_key TEXT NOT NULL,
    origin TEXT NOT NULL,
    received REAL NOT NULL,
    changed REAL NOT NULL,
    state TEXT NOT NULL,
    failed_in TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    reason TEXT,
    UNIQUE (image_uid, work_key)
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, not_before);
CREATE TABLE IF NOT EXISTS studies (uid TEXT PRIMARY KEY, instances INTEGER NOT NULL, seen REAL NOT NULL);
"""
_SELECT = (
    "SELECT id, image_uid, work_key, origin, received, state, attempts, reason FROM jobs WHERE state = ?"
)


class QueueError(DermsegError):
    """The queue cannot be read or written."""


@dataclass(frozen=True)
class Job:
    """One image on its way. ``origin`` says who sent it (AE title, or ``web``)."""

    id: int
    image_uid: str
    work_key: str
    origin: str
    received: float
    state: State
    attempts: int
    reason: str | None


class Queue:
    """The queue in a folder. Threads may share it.

    Parameters
    ----------
    folder
        Made where there is none. Holds ``queue.sqlite``, ``received/`` and ``made/``.
    own
        Take the folder for this process; False only looks.

    Raises
    ------
    UsageError
        Another process owns the folder.
    QueueError
        The folder cannot be used.
    """

    def __init__(self, folder: Path, *, own: bool = True) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._files = threading.Lock()  # a received file and its row appear and go together
        self._owner: sqlite3.Connection | None = None
        self.changed = threading.Event()  # set when there may be something to do
        try:
            if not own and not (folder / "queue.sqlite").exists():
                hint = "'dermseg dicom listen' or 'dermseg dicom watch' makes it at its first start"
                raise UsageError("holds no queue", file=folder, hint=hint)
            if own:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for name in ("received", "made"):
                    private_folder(folder / name)
                private_file(folder / "queue.sqlite")
                self._own()
            self._db = sqlite3.connect(
                folder / "queue.sqlite", isolation_level=None, check_same_thread=False, timeout=30
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise QueueError(f"the queue cannot be opened: {error}", file=folder) from None

    def _own(self) -> None:
        owner = sqlite3.connect(
            self.folder / "lock.sqlite", isolation_level=None, check_same_thread=False, timeout=1
        )
        try:
            owner.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            owner.close()
            raise UsageError(
                "another dermseg works in this folder", file=self.folder, hint="give each its own folder"
            ) from None
        self._owner = owner

    def close(self) -> None:
        """Give the folder free."""
        with self._lock:
            self._db.close()
            if self._owner is not None:
                self._owner.close()

    def received_path(self, image_uid: str) -> Path:
        """Where the file of an image lies.

        Raises
        ------
        QueueError
            It is no UID, and so no safe file name.
        """
        if not is_uid(image_uid):
            raise QueueError("the SOP Instance UID is no UID")  # it is logged: what it is may be a name
        return self.folder / "received" / f"{image_uid}.dcm"

    def made_path(self, job: Job, kind: str) -> Path:
        """Where a result of a job lies until it is sent."""
        return self.folder / "made" / f"{job.id}-{kind}.dcm"

    def add(
        self, image_uid: str, work_key: str, origin: str, data: bytes, *, state: State = "received"
    ) -> bool:
        """Accept an image: when this returns, it is on the disk.

        Returns
        -------
        bool
            False where the same image was accepted before for the same work.

        Raises
        ------
        QueueError
            The disk is full or cannot be written, or it is no UID.
        """
        if self.knows(image_uid, work_key):
            return False
        try:
            with self._files:
                if state == "received":
                    write_synced(self.received_path(image_uid), data)
                now = time.time()
                with self._lock:
                    cursor = self._db.execute(
                        "INSERT INTO jobs (image_uid, work_key, origin, received, changed, state) "
                        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (image_uid, work_key) DO UPDATE "
                        "SET state = 'received', attempts = 0, not_before = 0, changed = excluded.changed "
                        "WHERE jobs.state = 'dead'",
                        (image_uid, work_key, origin, now, now, state),
                    )
                added = cursor.rowcount == 1
        except (OSError, sqlite3.Error) as error:
            # not its file, which is called after the image
            reason = getattr(error, "strerror", None) or error
            raise QueueError(f"the image cannot be kept: {reason}", file=self.folder) from None
        self.changed.set()
        return added

    def knows(self, image_uid: str, work_key: str) -> bool:
        """Whether an image was accepted for that work; a dead letter may be sent again."""
        statement = "SELECT 1 FROM jobs WHERE image_uid = ? AND work_key = ? AND state <> 'dead'"
        return bool(self._rows(statement, (image_uid, work_key)))

    def adopt(self, work_key: str) -> None:
        """Work that waits is done by the model and options of now, whatever they were when it came."""
        self._rows(
            "UPDATE OR IGNORE jobs SET work_key = ? WHERE state = 'received' AND work_key <> ?",
            (work_key, work_key),
        )
        # What could not be changed was accepted twice, for the old way and the new one.
        self._rows(
            "UPDATE jobs SET state = 'ignored' WHERE state = 'received' AND work_key <> ?", (work_key,)
        )

    def take(self, state: State) -> Job | None:
        """The oldest job in a state whose time has come; it stays in that state until it is moved."""
        now = time.time()  # before `changed`: the clock was set back, and would keep the job waiting
        rows = self._rows(
            f"{_SELECT} AND (not_before <= ? OR changed > ?) ORDER BY not_before, id LIMIT 1",
            (state, now, now),
        )
        return Job(*rows[0]) if rows else None

    def move(self, job: Job, state: State, reason: str | None = None) -> None:
        """Put a job into its next state; its failures are forgotten."""
        failed_in = job.state if state == "dead" else None
        self._rows(
            "UPDATE jobs SET state = ?, attempts = 0, not_before = 0, reason = ?, failed_in = ?, changed = ? "
            "WHERE id = ?",
            (state, reason, failed_in, time.time(), job.id),
        )
        self.changed.set()

    def finish(self, job: Job, *, keep_received: bool) -> None:
        """A job is ``sent``; the file of its image goes unless another job needs it."""
        with self._files:
            self.move(job, "sent")
            self._release(job.image_uid, keep_received)

    def drop(self, number: int, *, keep_received: bool) -> bool:
        """Give up a dead letter: it is not worked on again, and its files go. Whether there was that one."""
        with self._files:
            found = self._rows(
                "UPDATE jobs SET state = 'ignored', changed = ? WHERE id = ? AND state = 'dead' "
                "RETURNING image_uid",
                (time.time(), number),
            )
            if found:
                self._release(found[0][0], keep_received)
                for path in (self.folder / "made").glob(f"{number}-*"):
                    path.unlink(missing_ok=True)
        return bool(found)

    def _release(self, image_uid: str, keep_received: bool) -> None:
        """Remove the file of an image unless another job needs it."""
        others = self._rows(
            "SELECT 1 FROM jobs WHERE image_uid = ? AND state IN ('received', 'made', 'dead')", (image_uid,)
        )
        if not keep_received and not others:
            self.received_path(image_uid).unlink(missing_ok=True)

    def postpone(self, job: Job, seconds: float, reason: str) -> None:
        """Try again later."""
        now = time.time()
        self._rows(
            "UPDATE jobs SET attempts = attempts + 1, not_before = ?, reason = ?, changed = ? WHERE id = ?",
            (now + seconds, reason, now, job.id),
        )

    def revive(self) -> int:
        """Put every dead letter back to where it failed; returns how many."""
        revived = self._rows(
            "UPDATE jobs SET state = coalesce(failed_in, 'received'), attempts = 0, not_before = 0, "
            "changed = ? WHERE state = 'dead' RETURNING id",
            (time.time(),),
        )
        self.changed.set()
        return len(revived)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        found = dict(self._rows("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: int(found.get(state, 0)) for state in STATES}

    def waiting(self) -> int:
        """How many jobs are not finished; asked for each image, whatever is remembered of others."""
        return int(self._rows("SELECT count(*) FROM jobs WHERE state IN ('received', 'made')")[0][0])

    def listed(self, state: State, limit: int = 1000) -> list[Job]:
        """Jobs in a state, the oldest first."""
        return [Job(*row) for row in self._rows(f"{_SELECT} ORDER BY id LIMIT ?", (state, limit))]

    def study_changed(self, uid: str, instances: int) -> bool:
        """Whether a study has another number of instances than when it was last noted."""
        rows = self._rows("SELECT instances FROM studies WHERE uid = ?", (uid,))
        return not rows or rows[0][0] != instances

    def note_study(self, uid: str, instances: int) -> None:
        """All of a study's images are in the queue."""
        self._rows(
            "INSERT OR REPLACE INTO studies (uid, instances, seen) VALUES (?, ?, ?)",
            (uid, instances, time.time()),
        )

    def forget(self, before: float) -> None:
        """Drop the record of finished work that is older than a moment (seconds since 1970)."""
        self._rows("DELETE FROM jobs WHERE state IN ('sent', 'ignored') AND changed < ?", (before,))
        self._rows("DELETE FROM studies WHERE seen < ?", (before,))

    def tidy(self, *, keep_received: bool) -> None:
        """Remove files that no job needs: leftovers of a crash between two steps."""
        rows = self._rows("SELECT image_uid, id FROM jobs WHERE state IN ('received', 'made', 'dead')")
        needed, ids = {row[0] for row in rows}, {row[1] for row in rows}
        for path in (self.folder / "received").iterdir():
            if path.suffix == ".tmp" or not (keep_received or path.stem in needed):
                path.unlink(missing_ok=True)
        for path in (self.folder / "made").iterdir():
            number = path.name.partition("-")[0]
            if path.suffix == ".tmp" or not number.isdecimal() or int(number) not in ids:
                path.unlink(missing_ok=True)

    def _rows(self, statement: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(statement, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise QueueError(f"the queue cannot be used: {error}", file=self.folder) from None
