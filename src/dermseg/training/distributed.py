"""Several processes that compute what one would: ``torchrun`` with DistributedDataParallel.

- Each process (a *rank*) takes its equal share of every batch, so ``batch_size`` means the same for any
  number of them. Batch norm takes its statistics over all shares; gradients and losses are means.
- Only rank 0 writes. The run folder must be one that every rank reads; each machine keeps its own cache.
- A problem found before the work starts is said once, by the lowest rank that has it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.parallel import DistributedDataParallel

from dermseg.errors import DermsegError, TrainingError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
# A rank that is gone is noticed at once (its connections close); this is for one that hangs. Decoding of a
# large data set by the first rank must fit in it.
_TIMEOUT = timedelta(hours=6)


@dataclass(frozen=True)
class World:
    """This process among those of the run. ``World()`` is a run of one process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def mean_(self, value: Tensor) -> Tensor:
        """``value`` replaced by its mean over the ranks; no wait for the device."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, batch_size: int) -> slice:
        """Which images of a batch are this rank's."""
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def agree(self, problem: DermsegError | None) -> None:
        """Raise the problem of the lowest rank that has one; the other ranks end without a word.

        Raises
        ------
        DermsegError
            This rank is the one that speaks.
        SystemExit
            Another one is.
        """
        with_problem = [rank for rank, found in enumerate(self.gather(problem is not None)) if found]
        if not with_problem:
            return
        if problem is not None and self.rank == with_problem[0]:
            raise problem
        raise SystemExit(0)  # torchrun ends the others when one fails: they must not be the first

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """What to call in training: the network, with its gradients averaged over the ranks."""
        if self.size == 1:
            return model
        synchronize_batch_norm(model, device)
        # every rank computes the same batch-norm statistics, so there are no buffers to send around
        ids = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer torch has another name for it
            return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


def torchrun_world() -> World:
    """The place of this process as ``torchrun`` says it, else a world of one."""
    if any(name not in os.environ for name in _VARIABLES):
        return World()
    rank, size, local = (int(os.environ[name]) for name in _VARIABLES[:3])
    return World(rank, size, local) if size > 1 else World()


@contextmanager
def join(device: str) -> Generator[World, None, None]:
    """Join the processes that ``torchrun`` started; alone, there is nothing to join.

    Parameters
    ----------
    device
        As ``training.device``: says how the ranks talk to each other (NCCL between GPUs, else gloo).

    Raises
    ------
    TrainingError
        Another rank is gone. Errors of this rank say its number.
    """
    world = torchrun_world()
    if world.size == 1:
        yield world
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu and torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    dist.init_process_group("nccl" if on_gpu and torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    try:
        yield world
        dist.destroy_process_group()  # not after an error: with a peer gone it may wait for ever
    except DermsegError as error:
        error.message = f"rank {world.rank}: {error.message}"
        raise
    except RuntimeError as error:
        if not _says_peer_is_gone(error):
            raise
        raise TrainingError(
            f"rank {world.rank}: another process of this run is gone",
            hint="its own message says why; --resume goes on from the last checkpoint",
        ) from error


def _says_peer_is_gone(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return any(sign in str(error) for sign in ("Connection closed by peer", "Connection reset", "gloo"))


class _MeanOverRanks(torch.autograd.Function):
    """Mean of a tensor over the ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean_over_ranks(value: Tensor) -> Tensor:
    mean: Tensor = _MeanOverRanks.apply(value)  # type: ignore[no-untyped-call]
    return mean


def _mean(value: Tensor) -> Tensor:
    value = value.contiguous().clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all ranks together, where torch's own wants a GPU.

    Every rank has as many images of the same size, so means over ranks are means over the whole batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        x32 = x.float()
        mean = _mean_over_ranks(x32.mean((0, 2, 3)))
        centred = x32 - mean[:, None, None]
        variance = _mean_over_ranks(centred.square().mean((0, 2, 3)))
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            with torch.no_grad():
                n = x.numel() // x.shape[1] * dist.get_world_size()
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (n / max(1, n - 1)), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Make every batch norm of ``model`` take its statistics over all ranks; weights and names stay."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.BatchNorm2d:
                continue
            if device.type == "cuda":
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
            else:
                child.__class__ = SynchronizedBatchNorm2d
