"""Optimizer, learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from dermseg.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW; no weight decay on biases and norms; the pretrained encoder may learn more slowly."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_encoder = name.startswith("encoder.")
        groups.setdefault((in_encoder, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decays else 0.0,
                "lr_factor": config.encoder_lr_factor if in_encoder else 1.0,
            }
            for (in_encoder, decays), parameters in groups.items()
        ],
        lr=config.lr,
    )


def lr_factor(progress: float, schedule: str, warmup: float) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1] of the run.

    ``one_cycle`` starts at 1/25 and ends near 0 (Smith 2018, arXiv:1803.09820) with cosine flanks;
    ``cosine`` warms up linearly, then falls along a cosine (Loshchilov 2017, arXiv:1608.03983).
    """
    if progress < warmup:
        x = progress / warmup
        return x if schedule != "one_cycle" else 0.04 + 0.96 * (1 - math.cos(math.pi * x)) / 2
    if schedule == "constant":
        return 1.0
    x = (progress - warmup) / (1 - warmup)
    return max(1e-4, (1 + math.cos(math.pi * x)) / 2)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its share of ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


class WeightAverage:
    """Exponential moving average of weights and batch-norm statistics.

    Early in the run the decay is lower (``(1 + step) / (10 + step)``), so the average does not drag the
    random start along.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards ``model`` after optimizer step ``step`` (1-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = [], []
        for mine, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                ours.append(mine)
                theirs.append(new)
            else:
                mine.copy_(new)
        torch._foreach_lerp_(ours, theirs, 1 - decay)
