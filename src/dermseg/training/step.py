"""One step of the optimizer: what training repeats, and what benchmarks and the batch-size finder time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dermseg.training.config import RunConfig
from dermseg.training.device import pick_autocast
from dermseg.training.distributed import World
from dermseg.training.losses import build_loss, supervised_loss
from dermseg.training.optim import make_optimizer
from dermseg.training.targets import make_target


def seed_network(*key: int) -> None:
    """Make what the network draws next (dropout) a function of ``key``, not of what was drawn before."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def train_mode(model: nn.Module, *, freeze_norm: bool) -> None:
    """The network as it learns; frozen batch norms stay as they are at inference."""
    model.train()
    if freeze_norm:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


class Step:
    """Forward, loss, backward, clipping and update, for batches of ``uint8`` images and masks.

    Parameters
    ----------
    config
        Of the run.
    model
        The network, not on its device yet.
    """

    def __init__(
        self, config: RunConfig, model: nn.Module, device: torch.device, world: World | None = None
    ) -> None:
        world = world or World()
        t = config.training
        self.settings, self.device, self.world = t, device, world
        self.softmax = config.model.outputs == "softmax"
        self.layout = torch.channels_last if t.channels_last else torch.contiguous_format
        self.autocast_dtype = pick_autocast(t.autocast, device)
        self.model = model.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        if t.compile:
            self.model.compile()
        self.loss: Callable[[Tensor, Tensor], Tensor] = build_loss(
            t.loss, config.model.classes, config.model.outputs
        )
        if isinstance(self.loss, nn.Module):
            self.loss.to(device)
        self.wrapped = world.wrap(self.model, device)
        self.optimizer = make_optimizer(self.model, t)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.autocast_dtype is torch.float16)
        self.mean = torch.tensor(config.model.mean, device=device).view(1, 3, 1, 1) * 255
        self.inverse_std = 1 / (torch.tensor(config.model.std, device=device).view(1, 3, 1, 1) * 255)

    def __call__(self, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Learn from one or more batches (gradient accumulation); gives the mean loss, on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        for i, (images, masks) in enumerate(parts):
            x = self.normalize(images)
            target = make_target(masks.to(self.device, non_blocking=True).float() / 255, self.softmax)
            with self._alone(last=i == len(parts) - 1):
                with torch.autocast(
                    self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None
                ):
                    outputs = self.wrapped(x)
                loss = supervised_loss(self.loss, outputs, target) / len(parts)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            mean += loss.detach()
        if self.settings.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.world.mean_(mean)

    def train_mode(self) -> None:
        """See the function of this name."""
        train_mode(self.model, freeze_norm=self.settings.freeze_norm)

    def _alone(self, last: bool) -> Any:
        """Ranks exchange gradients once per step, after the last batch."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return nullcontext()

    def normalize(self, images: Tensor) -> Tensor:
        """Network input ``float32 (N, 3, H, W)`` on the device, of ``uint8`` images of the same shape."""
        x = images.to(self.device, non_blocking=True)
        x = x.to(torch.float32).contiguous(memory_format=self.layout)
        return (x - self.mean) * self.inverse_std
