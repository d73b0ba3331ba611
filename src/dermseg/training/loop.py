"""The training loop.

Exact resume: every random choice is a function of (seed, epoch, position) for the data and of (seed, step,
rank) inside the network; the rest of the state (weights, optimizer, average, scaler, position) is in
``last.pt``. Killed at any moment and resumed on the same machine, a CPU run ends with the same weights, bit
for bit.

The device never waits for the loop: on a GPU losses are read now and then, not at every step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermseg.data.cache import Cache
from dermseg.errors import DermsegError, TrainingError
from dermseg.inference.bundle import Bundle
from dermseg.inference.threads import available_cpus
from dermseg.models import build_model, count_parameters
from dermseg.training.batches import Batches, Source
from dermseg.training.checkpoint import BEST, CONFIG, LAST, START, load_state, save_state, save_weights
from dermseg.training.config import RunConfig, SourceConfig
from dermseg.training.device import pick_device
from dermseg.training.display import Display
from dermseg.training.distributed import World
from dermseg.training.environment import keep_freed_memory
from dermseg.training.folder import check_best
from dermseg.training.log import RunLog
from dermseg.training.mirror import Mirror
from dermseg.training.norms import quicken_norms, recover_norms
from dermseg.training.optim import WeightAverage, lr_factor, set_lr
from dermseg.training.plugins import build_augmentation
from dermseg.training.progress import Progress, beginning, ending, finished
from dermseg.training.resolve import check_same_run, digest_ids, without_start
from dermseg.training.rows import open_cache, source_names
from dermseg.training.start import find_start
from dermseg.training.step import Step, seed_network
from dermseg.training.teachers import find_teachers
from dermseg.training.validation import Validation

LOG_EVERY = 20  # steps; the first and the last one are logged too
NORM_BATCHES = 20  # that batch norms of a bundle learn their statistics from


class Trainer:
    """Holds what a run needs; ``run`` does the work."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        resume: bool = False,
        quiet: bool = False,
        world: World | None = None,
        mirror: Path | None = None,
    ) -> None:
        self.config, self.folder, self.world = config, folder, world or World()
        t = config.training
        if t.threads:
            torch.set_num_threads(t.threads)
        self.device = pick_device(t.device, self.world.local_rank)
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        torch.backends.cudnn.benchmark = True  # sizes change between phases only
        # beside a network that computes on the CPU two threads are enough; a GPU leaves the cores free
        self.workers = config.data.decode_workers or (2 if on_cpu else available_cpus())
        self.read_every = 1 if on_cpu else LOG_EVERY
        self.display = Display(quiet or not self.world.main)
        teachers = find_teachers(config)
        self.train_sources = [
            Source(cache, source.images_per_epoch(len(cache)))
            for source, cache in ((source, self._cache(source, teachers)) for source in config.data.train)
        ]
        self.val_caches = [(source, self._cache(source)) for source in config.data.val]
        caches = [s.cache for s in self.train_sources] + [cache for _, cache in self.val_caches]
        self.images = [len(cache) for cache in caches]
        self.image_ids = [digest_ids(cache.image_ids) for cache in caches]
        state = load_state(folder / LAST) if resume else None
        if state is not None:
            check_same_run(state, config, self.images, self.image_ids, folder / CONFIG)
            config = without_start(config)
        self.augmentation = build_augmentation(config.augmentation, config.data.cache_size)
        torch.manual_seed(config.seed)
        model = build_model(config.model.architecture, **config.model.options)
        if self.config.model.from_nothing:  # also where it goes on from a checkpoint
            quicken_norms(model)
        start = find_start(config.model.init_from) if config.model.init_from else None
        if start:
            start.load(model)
        self.step = Step(config, model, self.device, self.world)
        self.model = self.step.model
        if start and start.bundle:
            self._start_from_bundle()
        self.average = WeightAverage(self.model, t.ema_decay) if t.ema_decay else None
        self.validation = Validation(t.metric, self.step.normalize, self.step.softmax, self.world)
        self.progress = Progress()
        if state is not None:
            self._restore(state)
        # a sum of doubles, as Progress has it, but where reading it does not stop the device
        self.loss_sum = torch.tensor(self.progress.loss_sum, dtype=torch.float64, device=self.device)
        self.log = RunLog(folder, self.progress.step if resume else None, on=self.world.main)
        self.mirror = Mirror(folder, mirror, self.display.line) if mirror and self.world.main else None

    def _start_from_bundle(self) -> None:
        """Bring its batch norms to life unless they stay frozen, and keep what the run starts from."""
        if not self.config.training.freeze_norm:
            with closing(iter(self.batches(0, whole=True))) as stream:
                recover_norms(self.model, (self.step.normalize(x) for x, _ in islice(stream, NORM_BATCHES)))
        if self.world.main:
            save_weights(self.folder / START, self.model)

    def run(self) -> Progress:
        """Train to the end of the schedule or until validation stops improving."""
        p, t = self.progress, self.config.training
        total = sum(self._steps(epoch) for epoch in range(t.epochs))
        if not (self.folder / LAST).exists():
            self._save()  # from here on weights without a checkpoint are a loss, and said to be one
        ranks = f", {self.world.size} processes" if self.world.size > 1 else ""
        with self.display:
            self.display.line(
                f"{self.config.model.architecture}, {count_parameters(self.model):,} parameters, "
                f"{sum(len(s.cache) for s in self.train_sources):,} images, {total:,} steps "
                f"on {self.device}{ranks}"
            )
            for line in finished(p, self.folder) if p.finished else beginning(self.config, total):
                self.display.line(line)
            self.display.start(total, p.step)
            while p.epoch < t.epochs and not p.finished:
                self._epoch(total)
                if (p.epoch + 1) % t.validate_every == 0 or p.epoch + 1 == t.epochs:
                    self._validate()
                p.next_epoch(t)
                self.loss_sum.zero_()
                self.log.draw(last=p.finished)
                self._save()
            for line in ending(p, t):
                self.display.line(line)
        self.log.close()
        if self.mirror:
            self.mirror.update()
        return p

    def _epoch(self, total: int) -> None:
        p, t = self.progress, self.config.training
        self.step.train_mode()
        steps = self._steps(p.epoch)
        clock = time.monotonic()
        with closing(iter(self.batches(p.epoch, p.epoch_step * t.accumulate))) as stream:
            while p.epoch_step < steps:
                self._train_step(list(islice(stream, t.accumulate)), total)
                now = time.monotonic()
                p.seconds, clock = p.seconds + now - clock, now
                if p.step % t.checkpoint_every_steps == 0 and p.epoch_step < steps:
                    self._save()
                    clock = time.monotonic()

    def batches(self, epoch: int, start_step: int = 0, *, whole: bool = False) -> Batches:
        """The batches of an epoch: this rank's share of each, or all of each."""
        size, batch_size = self.config.training.at_epoch(epoch)
        batch_size = min(batch_size, self._per_epoch)  # the ranks share what there is
        return Batches(
            self.train_sources,
            self.augmentation,
            seed=self.config.seed,
            epoch=epoch,
            image_size=size,
            batch_size=batch_size,
            start_step=start_step,
            workers=self.workers,
            share=slice(None) if whole or self.world.size == 1 else self.world.share(batch_size),
            pinned=self.device.type == "cuda",
        )

    def _train_step(self, parts: list[tuple[Tensor, Tensor]], total: int) -> None:
        """One step of the optimizer, and what is kept and shown of it."""
        p, t = self.progress, self.config.training
        seed_network(self.config.seed, p.step, self.world.rank)
        lr = t.lr * lr_factor(p.step / total, t.schedule, t.warmup) * p.lr_scale
        set_lr(self.step.optimizer, lr)
        loss = self.step(parts)
        self.loss_sum += loss.double()
        p.step, p.epoch_step = p.step + 1, p.epoch_step + 1
        if self.average:
            self.average.update(p.step)
        if p.step % self.read_every == 0:
            self._read_loss()
        self.display.update(p, sum(len(batch) for batch, _ in parts) * self.world.size, t.epochs)
        if p.step % LOG_EVERY == 0 or p.step in (1, total):
            size = t.at_epoch(p.epoch)[0]
            self.log.event("train", p.step, epoch=p.epoch, loss=float(loss), lr=lr, size=size)

    def _read_loss(self) -> None:
        """Bring the losses from the device; one that is not finite makes the sum so."""
        p = self.progress
        p.loss_sum, p.loss_steps = float(self.loss_sum), p.epoch_step
        if not math.isfinite(p.loss_sum):
            raise TrainingError(
                f"the loss became {p.loss_sum} by step {p.step}",
                file=self.folder,
                hint="lower training.lr, or set training.autocast=off",
            )

    @property
    def _per_epoch(self) -> int:
        """Images that an epoch takes."""
        return sum(s.per_epoch or len(s.cache) for s in self.train_sources)

    def _steps(self, epoch: int) -> int:
        """Steps of the optimizer in an epoch; what does not fill the last one is left out."""
        t = self.config.training
        return max(1, max(1, self._per_epoch // t.at_epoch(epoch)[1]) // t.accumulate)

    def _validate(self) -> None:
        p, t = self.progress, self.config.training
        self._read_loss()
        size, _ = t.at_epoch(p.epoch)
        model = self.average.model if self.average else self.model
        model.eval()
        scores, p.val = [], {}
        names = source_names(self.config.data.val)
        for name, (_, cache) in zip(names, self.val_caches, strict=True):
            score, dice = self.validation.scores(model, cache, size)
            scores.append((score, dice))
            p.val[name] = dice
        score, dice = (float(value) for value in np.mean(scores, axis=0))
        better = p.validated(score, dice, t)
        if better and self.world.main:
            save_weights(self.folder / BEST, model)
        other = {} if t.metric == "dice" else {"score": score}
        self.log.event("val", p.step, epoch=p.epoch, dice=dice, **other, train_loss=p.mean_loss, **p.val)
        if self.world.main:
            self.log.pictures(
                p.step, "validation", self.validation.pictures(model, self.val_caches[0][1], size)
            )
        each = ", ".join(f"{name} {value:.4f}" for name, value in p.val.items())
        self.display.line(
            f"epoch {p.epoch + 1}: loss {p.mean_loss:.4f}, val Dice {dice:.4f} ({each})"
            f"{f', {t.metric} {score:.4f}' if other else ''}{', best so far' if better else ''}, "
            f"{p.seconds / 60:.1f} min"
        )

    def _save(self) -> None:
        self._read_loss()
        if not self.world.main:
            return
        state = {
            "progress": self.progress.to_json(),
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "config": self.config.model_dump_json(),
            "images": self.images,
            "image_ids": self.image_ids,
        }
        save_state(self.folder / LAST, state)
        if self.mirror:
            self.mirror.update()

    def _restore(self, state: dict[str, Any]) -> None:
        self.progress = Progress.from_json(state["progress"])
        check_best(self.folder, self.progress.best_epoch)
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.step.optimizer.load_state_dict(state["optimizer"])
        self.step.scaler.load_state_dict(state["scaler"])

    def _cache(self, source: SourceConfig, teachers: Sequence[Bundle] = ()) -> Cache:
        """The images of a source; the first rank of a machine decodes them, the others wait."""
        cache: Cache | None = None
        problem: DermsegError | None = None
        settings = (self.config, source, self.workers, self.display.line, teachers)
        if self.world.local_rank == 0:
            try:
                cache = open_cache(*settings)
            except DermsegError as error:
                problem = error
        self.world.agree(problem)
        return cache or open_cache(*settings)
