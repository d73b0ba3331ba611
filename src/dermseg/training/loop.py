"""The training loop: one function from a configuration to a run folder.

Exact resume: every random choice of the data is a function of (seed, epoch, position); the rest of the
state (weights, optimizer, average, scaler, generators, position) is in ``last.pt``. Killed at any moment
and resumed on the same machine, a CPU run ends with the same weights, bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.data.augment import Augmentation
from dermseg.data.cache import Cache, build_cache
from dermseg.data.index import IndexRow, read_index
from dermseg.errors import TrainingError, UsageError
from dermseg.images.masks import atomic_write
from dermseg.models import build_model, count_parameters
from dermseg.training.batches import Batches, Source
from dermseg.training.checkpoint import BEST, LAST, load_state, load_weights, save_state, save_weights
from dermseg.training.config import RunConfig, SourceConfig, expand
from dermseg.training.environment import describe_environment, keep_freed_memory
from dermseg.training.log import Board, LiveLine, MetricsFile
from dermseg.training.losses import segmentation_loss
from dermseg.training.optim import WeightAverage, lr_factor, make_optimizer, set_lr


@dataclass
class Progress:
    """Where a run stands; part of every checkpoint."""

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_dice: float = -1.0
    best_epoch: int = -1
    validations_since_best: int = 0
    seconds: float = 0.0
    val: dict[str, float] = field(default_factory=dict)
    finished: bool = False


def select_rows(source: SourceConfig, seed: int) -> list[IndexRow]:
    """Rows of an index that take part, in the order of the index."""
    path = expand(source.index)
    rows = [row for row in read_index(path) if row.split == source.split]
    if not rows:
        raise UsageError(f"no image has split '{source.split}'", file=path)
    if source.limit and source.limit < len(rows):
        keep = np.sort(np.random.default_rng([seed, 3]).permutation(len(rows))[: source.limit])
        rows = [rows[i] for i in keep]
    return rows


class Trainer:
    """Holds what a run needs; ``run`` does the work."""

    def __init__(self, config: RunConfig, folder: Path, *, resume: bool = False, quiet: bool = False) -> None:
        self.config, self.folder, self.quiet = config, folder, quiet
        t = config.training
        if t.threads:
            torch.set_num_threads(t.threads)
        self.device = pick_device(t.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.autocast_dtype = pick_autocast(t.autocast, self.device)
        self.line = LiveLine(0, 0, quiet)
        self.train_sources = [Source(self._cache(source), source.per_epoch) for source in config.data.train]
        self.val_caches = [(source, self._cache(source)) for source in config.data.val]
        self.augmentation = Augmentation(**config.augmentation.model_dump())
        torch.manual_seed(config.seed)
        model = build_model(config.model.architecture, **config.model.options)
        if config.model.init_from:
            load_weights(expand(config.model.init_from), model)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, t)
        self.average = WeightAverage(self.model, t.ema_decay) if t.ema_decay else None
        self.scaler = torch.amp.GradScaler(enabled=self.autocast_dtype is torch.float16)
        self.progress = Progress()
        if resume:
            self._restore(load_state(folder / LAST))
        self.mean = torch.tensor(config.model.mean, device=self.device).view(1, 3, 1, 1) * 255
        self.inverse_std = 1 / (torch.tensor(config.model.std, device=self.device).view(1, 3, 1, 1) * 255)
        resume_at = self.progress.step if resume else None
        self.metrics = MetricsFile(folder / "metrics.jsonl", resume_at)
        self.board = Board(folder / "tensorboard", resume_at)

    def run(self) -> Progress:
        """Train to the end of the schedule or until validation stops improving."""
        p, t = self.progress, self.config.training
        steps = [self._steps(epoch) for epoch in range(t.epochs)]
        total = sum(steps)
        self.line = LiveLine(total, p.step, self.quiet)
        self.line.line(
            f"{self.config.model.architecture}, {count_parameters(self.model):,} parameters, "
            f"{sum(len(s.cache) for s in self.train_sources):,} images, {total:,} steps on {self.device}"
        )
        while p.epoch < t.epochs and not p.finished:
            self._epoch(total)
            if (p.epoch + 1) % t.validate_every == 0 or p.epoch + 1 == t.epochs:
                self._validate()
            p.epoch, p.epoch_step, p.loss_sum = p.epoch + 1, 0, 0.0
            p.finished = p.epoch >= t.epochs or p.validations_since_best >= t.early_stopping_patience
            self._save()
        self.board.close()
        return p

    def _epoch(self, total: int) -> None:
        p, t = self.progress, self.config.training
        size, batch_size = t.at_epoch(p.epoch)
        batches = Batches(
            self.train_sources,
            self.augmentation,
            seed=self.config.seed,
            epoch=p.epoch,
            image_size=size,
            batch_size=batch_size,
            start_step=p.epoch_step,
            workers=self.config.data.decode_workers,
        )
        self.model.train()
        for images, masks in batches:
            start = time.monotonic()
            lr = t.lr * lr_factor(p.step / total, t.schedule, t.warmup)
            set_lr(self.optimizer, lr)
            loss = self._step(images, masks)
            p.step, p.epoch_step, p.loss_sum = p.step + 1, p.epoch_step + 1, p.loss_sum + loss
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss} at step {p.step}",
                    file=self.folder,
                    hint="lower training.lr, or set training.autocast=off",
                )
            if self.average:
                self.average.update(self.model, p.step)
            p.seconds += time.monotonic() - start
            val = f"val Dice {p.best_dice:.4f} (best)" if p.best_epoch >= 0 else "val Dice -"
            self.line.update(p.step, len(images), f"{p.epoch + 1}/{t.epochs}", p.loss_sum / p.epoch_step, val)
            if p.step % 20 == 0:
                self.metrics.write(event="train", step=p.step, epoch=p.epoch, loss=loss, lr=lr, size=size)
                self.board.scalars(p.step, train__loss=loss, train__lr=lr)
            if p.step % t.checkpoint_every_steps == 0 and p.epoch_step < len(batches):
                self._save()

    def _steps(self, epoch: int) -> int:
        n = sum(s.per_epoch or len(s.cache) for s in self.train_sources)
        return max(1, n // self.config.training.at_epoch(epoch)[1])

    def _step(self, images: Tensor, masks: Tensor) -> float:
        t = self.config.training
        self.optimizer.zero_grad(set_to_none=True)
        x = self._normalize(images)
        target = masks.to(self.device, non_blocking=True).float() / 255
        with torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            logits = self.model(x)
        loss = segmentation_loss(logits, target, t.loss.bce, t.loss.dice)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if t.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), t.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach())

    def _normalize(self, images: Tensor) -> Tensor:
        x = images.to(self.device, non_blocking=True)
        x = x.to(torch.float32).contiguous(memory_format=torch.channels_last)
        return (x - self.mean) * self.inverse_std

    def _validate(self) -> None:
        p, t = self.progress, self.config.training
        size, _ = t.at_epoch(p.epoch)
        model = self.average.model if self.average else self.model
        model.eval()
        p.val = {
            f"{source.split}:{Path(source.index).stem}": validation_dice(model, cache, self._normalize, size)
            for source, cache in self.val_caches
        }
        dice = float(np.mean(list(p.val.values())))
        better = dice > p.best_dice
        if better:
            p.best_dice, p.best_epoch, p.validations_since_best = dice, p.epoch, 0
            save_weights(self.folder / BEST, model)
        else:
            p.validations_since_best += 1
        loss = p.loss_sum / max(1, p.epoch_step)
        self.metrics.write(event="val", step=p.step, epoch=p.epoch, dice=dice, train_loss=loss, **p.val)
        self.board.scalars(p.step, val__dice=dice)
        each = ", ".join(f"{name} {value:.4f}" for name, value in p.val.items())
        self.line.line(
            f"epoch {p.epoch + 1}: loss {loss:.4f}, val Dice {dice:.4f} ({each})"
            f"{', best so far' if better else ''}, {p.seconds / 60:.1f} min"
        )

    def _save(self) -> None:
        state = {
            "progress": json.dumps(vars(self.progress)),
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else None,
        }
        save_state(self.folder / LAST, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.progress = Progress(**json.loads(state["progress"]))
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["cuda_rng"])

    def _cache(self, source: SourceConfig) -> Cache:
        data = self.config.data
        rows = select_rows(source, self.config.seed)

        def show(done: int, total: int) -> None:
            if done % 1000 == 0 or done == total:
                self.line.line(f"decoding {source.index} {source.split}: {done}/{total}")

        folder = expand(data.cache_dir)
        return build_cache(rows, data.cache_size, folder, workers=data.decode_workers, progress=show)


@torch.inference_mode()
def validation_dice(model: nn.Module, cache: Cache, normalize: Any, size: int, batch: int = 16) -> float:
    """Mean Dice per image at the size of the cache, threshold 0.5.

    A quick figure for choosing checkpoints; ``dermseg evaluate`` gives the one to report.
    """
    scores: list[float] = []
    for i in range(0, len(cache), batch):
        images = torch.from_numpy(np.array(cache.images[i : i + batch])).permute(0, 3, 1, 2)
        reference = torch.from_numpy(cache.masks[i : i + batch] >= 128)
        x = normalize(images)
        if x.shape[-1] != size:
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        logits = F.interpolate(model(x).float(), size=reference.shape[-2:], mode="bilinear")
        found = (logits[:, 0] > 0).cpu()
        overlap = (found & reference).sum((1, 2))
        area = found.sum((1, 2)) + reference.sum((1, 2))
        scores += torch.where(area > 0, 2 * overlap / area.clamp(min=1), torch.ones(())).tolist()
    return float(np.mean(scores))


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA when there is one.

    Raises
    ------
    UsageError
        CUDA is asked for and absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"training.device is '{name}' and no GPU is available", hint="training.device=cpu")
    return torch.device(name)


def pick_autocast(name: str, device: torch.device) -> torch.dtype | None:
    """``auto`` is bf16 where the hardware multiplies it faster than fp32 (GPU, AMX), else off."""
    if name == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def train(config: RunConfig, folder: Path, *, resume: bool = False, quiet: bool = False) -> Progress:
    """Train ``config`` into the run folder ``folder``.

    Raises
    ------
    UsageError
        The folder holds another run and ``resume`` is off, or no run and ``resume`` is on.
    TrainingError
        The loss is no longer finite, or the checkpoint cannot be read.
    """
    path = folder / "config.yaml"
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    if resume and not path.exists():
        raise UsageError("there is no run here to resume", file=folder)
    if not resume:
        if path.exists():
            raise UsageError("the folder holds a run already", file=folder, hint="--resume, or another -o")
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.encode())
        atomic_write(folder / "environment.json", json.dumps(describe_environment(), indent=2).encode())
    # killed before the first checkpoint: there is nothing to go on from, so start anew
    return Trainer(config, folder, resume=resume and (folder / LAST).exists(), quiet=quiet).run()
