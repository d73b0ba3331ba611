"""Audit records from the event loop: what waits goes to the disk in one append, so one fsync serves many."""

from __future__ import annotations

import asyncio

from dermseg.apps.api.metrics import Metrics
from dermseg.audit import AuditLog, Entry, Receipt


class Auditor:
    """Writes to a log for any number of requests at once. Used from one event loop."""

    def __init__(self, log: AuditLog, metrics: Metrics) -> None:
        self.log = log
        self._metrics = metrics
        self._waiting: list[tuple[Entry, asyncio.Future[Receipt]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, entry: Entry) -> Receipt:
        """Add a record; returns when the disk has it.

        Raises
        ------
        AuditError
            It cannot be written. The result must not be given out then.
        """
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                receipts = await asyncio.to_thread(self.log.append, [entry for entry, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._metrics.audit_records.set(receipts[-1].seq)
            for (_, future), receipt in zip(batch, receipts, strict=True):
                if not future.done():  # its client may be gone
                    future.set_result(receipt)
