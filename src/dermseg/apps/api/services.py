"""Everything a server consists of, opened in the right order and closed in the reverse one."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dermseg.apps.api.auditor import Auditor
from dermseg.apps.api.engine import Engine
from dermseg.apps.api.job_runner import JobRunner
from dermseg.apps.api.job_store import JobStore
from dermseg.apps.api.keys import KeyRing
from dermseg.apps.api.limits import ByteBudget
from dermseg.apps.api.metrics import Metrics
from dermseg.apps.api.settings import Settings
from dermseg.audit import AuditLog, read_key
from dermseg.errors import UsageError
from dermseg.files import private_file, private_folder
from dermseg.inference.bundle import load_bundle
from dermseg.inference.predictor import Model
from dermseg.locks import lock_file
from dermseg.version import __version__

AUDIT, DATABASE, JOBS, LOCK = "audit.jsonl", "jobs.sqlite3", "jobs", "server.lock"
MIN_FREE_BYTES = 200_000_000


@dataclass(frozen=True, eq=False)
class Services:
    """The parts of a running server. ``start`` makes them, ``stop`` ends them."""

    settings: Settings
    keys: KeyRing
    metrics: Metrics
    engine: Engine
    auditor: Auditor
    store: JobStore
    runner: JobRunner
    budget: ByteBudget
    lock: BinaryIO

    @classmethod
    def start(cls, settings: Settings) -> Services:
        """Open everything.

        Raises
        ------
        UsageError
            The state folder cannot be used or another server uses it; a key file is wrong.
        ModelError
            A bundle is missing, damaged or does not run.
        AuditError
            The audit log is not as it was written.
        """
        keys = KeyRing(settings.keys_file, settings.keys)
        models = load_models(settings)
        lock = _claim(settings.state)
        metrics = Metrics()
        metrics.build.info(
            {"version": __version__, "models": ",".join(f"{n}:{m.sha256[:12]}" for n, m in models.items())}
        )
        log = AuditLog(settings.state / AUDIT, read_key(settings.audit_key_file))
        metrics.audit_records.set(log.last.seq)
        store = JobStore(settings.state / DATABASE)
        engine = Engine(
            models,
            workers=settings.workers,
            max_batch=settings.max_batch,
            queue=settings.queue,
            max_pixels=settings.max_pixels,
            metrics=metrics,
        )
        runner = JobRunner(
            store,
            settings.state / JOBS,
            models,
            log,
            metrics,
            threads=max(1, settings.workers // 2),  # single images are somebody waiting
            max_megapixels=settings.max_megapixels,
            keep_s=settings.job_days * 86_400,
        )
        budget = ByteBudget(round(settings.max_inflight_mb * 1e6), metrics.shed.labels("memory").inc)
        metrics.inflight.set_function(lambda: budget.used)
        return cls(settings, keys, metrics, engine, Auditor(log, metrics), store, runner, budget, lock)

    def stop(self) -> None:
        """Finish the images that were accepted, leave unfinished jobs to the next start, close the files."""
        self.engine.stop()
        self.runner.stop()
        self.store.close()
        self.auditor.log.close()
        self.lock.close()

    def obstacles(self) -> list[str]:
        """What keeps the server from doing its work; empty if nothing does."""
        found = []
        if not self.engine.alive:
            found.append("images are not taken")
        if not self.runner.alive:
            found.append("jobs are not worked on")
        if not self.auditor.log.in_place():
            found.append("the audit log was moved or removed")
        if shutil.disk_usage(self.settings.state).free < MIN_FREE_BYTES:
            found.append("the disk is full")
        if not os.access(self.settings.state, os.W_OK):  # what many systems make of a disk with errors
            found.append("the disk cannot be written to")
        return found


def load_models(settings: Settings) -> dict[str, Model]:
    """The models by the name in their card, the first one first.

    Raises
    ------
    UsageError
        Two bundles have one name.
    """
    models: dict[str, Model] = {}
    for given in settings.models:
        bundle = load_bundle(given)
        if bundle.card.name in models:
            hint = "give one of them another 'name' in its card.json, by which requests choose it"
            raise UsageError(f"two models are called '{bundle.card.name}'", file=given, hint=hint)
        models[bundle.card.name] = Model(
            bundle, variant=settings.variant, threads=1, runtime=settings.runtime
        )
    return models


def _claim(state: Path) -> BinaryIO:
    """Make the folder this server's own, as long as the file is open."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_folder(state / JOBS)
        private_file(state / DATABASE)
        file = (state / LOCK).open("w+b")
    except OSError as error:
        raise UsageError(
            f"cannot be used: {error.strerror or error}", file=state, hint="--state FOLDER"
        ) from None
    try:
        lock_file(file)
    except OSError:
        file.close()
        raise UsageError("another server uses this folder", file=state, hint="--state OTHER") from None
    return file
