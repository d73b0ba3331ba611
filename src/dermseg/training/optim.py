"""Optimizer, learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from dermseg.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD with Nesterov momentum.

    No weight decay on biases and norms; the pretrained encoder may learn more slowly. AdamW decays weights
    apart from the gradient (Loshchilov 2019, arXiv:1711.05101), the others through it.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_encoder = name.startswith("encoder.")
        groups.setdefault((in_encoder, parameter.ndim > 1), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "lr_factor": config.encoder_lr_factor if in_encoder else 1.0,
        }
        for (in_encoder, decays), parameters in groups.items()
    ]
    # one kernel for all parameters on a GPU, where the many small ones would take longer than the step
    fused = next(model.parameters()).device.type == "cuda"
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(
            settings, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused
        )
    if config.optimizer == "adam":
        return torch.optim.Adam(settings, lr=config.lr, fused=fused)
    return torch.optim.AdamW(settings, lr=config.lr, fused=fused)


def lr_factor(progress: float, schedule: str, warmup: float) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1] of the run.

    ``one_cycle`` starts at 1/25 and ends near 0 (Smith 2018, arXiv:1803.09820) with cosine flanks;
    ``cosine`` warms up linearly, then falls along a cosine (Loshchilov 2017, arXiv:1608.03983).
    ``constant`` and ``plateau`` warm up linearly and stay; ``plateau`` is then lowered by validation.
    """
    if progress < warmup:
        x = progress / warmup
        return x if schedule != "one_cycle" else 0.04 + 0.96 * (1 - math.cos(math.pi * x)) / 2
    if schedule in ("constant", "plateau"):
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
        # the tensors of a state are changed in place for as long as the network lives
        both = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        pairs = list({pair[0].data_ptr(): pair for pair in both}.values())  # once, under however many names
        self._averaged = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        self._copied = [pair for pair in pairs if not pair[0].dtype.is_floating_point]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the network after optimizer step ``step`` (1-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(list(ours), list(theirs), 1 - decay)
        for mine, new in self._copied:
            mine.copy_(new)
