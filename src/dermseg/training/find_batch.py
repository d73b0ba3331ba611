"""The largest batch that fits: real training steps at growing sizes, measured."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dermseg.errors import TrainingError
from dermseg.models import build_model, without_pretrained
from dermseg.training.check import check_run
from dermseg.training.config import RunConfig
from dermseg.training.device import lacks_memory, pick_device
from dermseg.training.environment import keep_freed_memory
from dermseg.training.step import Step

SPARE = 0.9  # of the memory: the rest is for validation, and for what others begin to use
LARGEST = 1024
_STEPS = 3  # the first allocates; the others are timed


@dataclass(frozen=True)
class Trial:
    """One batch size: whether it fits, peak memory of the process or device, and speed."""

    batch_size: int
    fits: bool
    gigabytes: float | None = None
    images_per_second: float | None = None


def find_batch_size(config: RunConfig, report: Callable[[Trial], None] = lambda _: None) -> list[Trial]:
    """Try batches of 1, 2, 4 ... at the run's largest image size, then halve the gap to what does not fit.

    None is larger than an epoch, of which a larger batch would hold no more images.

    On a GPU a batch fits when its steps run and leave a tenth of the memory free. On the CPU running out of
    memory ends the process, so the next size is tried only if the memory of those before, continued as a
    straight line, leaves that tenth.

    Returns
    -------
    list of Trial
        In the order in which they were made; ``largest`` picks from it.

    Raises
    ------
    UsageError
        See ``check_run``.
    TrainingError
        Not even one image fits.
    """
    most = min(LARGEST, check_run(config))
    t = config.training
    device = pick_device(t.device)
    if t.threads:
        torch.set_num_threads(t.threads)
    if device.type == "cpu":
        keep_freed_memory()
    size = max(t.at_epoch(epoch)[0] for epoch in range(t.epochs))
    options = without_pretrained(config.model.options)  # other weights take the same memory
    step = Step(config, build_model(config.model.architecture, **options), device)
    step.train_mode()
    trials: list[Trial] = []

    def attempt(batch: int) -> bool:
        trial = (
            _measure(step, batch, size, config)
            if device.type == "cuda" or _will_fit(trials, batch)
            else Trial(batch, False)
        )
        trials.append(trial)
        report(trial)
        return trial.fits

    fits, too_large = 0, most + 1
    batch = 1
    while batch < too_large:
        try:
            fit = attempt(batch)
        except ValueError:
            # One image of 32 px is one number per channel at the bottleneck, which a batch norm refuses.
            if batch > 1:
                raise
            batch = 2
            continue
        if fit:
            fits, batch = batch, min(2 * batch, most) if batch < most else too_large
        else:
            too_large = batch
    while too_large - fits > max(1, fits // 8) and too_large <= most:
        middle = (fits + too_large) // 2
        if attempt(middle):
            fits = middle
        else:
            too_large = middle
    if not fits:
        raise TrainingError(
            f"not even one image of {size} x {size} fits in the memory of {device}",
            hint="a smaller training.image_size, narrower widths, or training.autocast=bf16",
        )
    return trials


def largest(trials: list[Trial]) -> Trial:
    """The largest batch that fits."""
    return max((trial for trial in trials if trial.fits), key=lambda trial: trial.batch_size)


def as_dict(trials: list[Trial]) -> dict[str, Any]:
    """For ``--json``."""
    return {"batch_size": largest(trials).batch_size, "trials": [asdict(trial) for trial in trials]}


def _measure(step: Step, batch: int, size: int, config: RunConfig) -> Trial:
    images = torch.zeros(batch, 3, size, size, dtype=torch.uint8)
    masks = torch.zeros(batch, config.model.masks, size, size, dtype=torch.uint8)
    masks[..., : size // 2] = 255
    cuda = step.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(step.device)
    try:
        start = 0.0
        for i in range(_STEPS):
            if i == 1:
                if cuda:
                    torch.cuda.synchronize(step.device)
                start = time.perf_counter()
            float(step([(images, masks)]))
        speed = (_STEPS - 1) * batch / (time.perf_counter() - start)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        step.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
        return Trial(batch, False)
    used = torch.cuda.max_memory_allocated(step.device) if cuda else _resident()
    room = torch.cuda.get_device_properties(step.device).total_memory if cuda else None
    gigabytes = None if used is None else round(used / 1e9, 3)
    return Trial(batch, room is None or (used or 0) <= SPARE * room, gigabytes, round(speed, 2))


def _will_fit(trials: list[Trial], batch: int) -> bool:
    """On the CPU: whether a straight line through the last two trials leaves memory free."""
    measured = [(t.batch_size, t.gigabytes) for t in trials if t.gigabytes is not None]
    free = _free()
    if len(measured) < 2 or free is None:
        return len(trials) < 2 or (free is None and batch <= 64)  # no figures to go by: a cautious end
    (n1, g1), (n2, g2) = measured[-2:]
    slope = max(0.0, (g2 - g1) / (n2 - n1))
    return slope * (batch - n2) * 1e9 <= SPARE * free


def _resident() -> int | None:
    """Bytes that this process holds; None where the system does not say it in this way."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _free() -> int | None:
    """Bytes that may still be taken, of the machine and of the container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip() if (group / "memory.max").exists() else "max"
        if limit.isdecimal():
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return free
