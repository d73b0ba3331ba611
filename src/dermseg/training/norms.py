"""Statistics of batch norms where a network does not begin with good ones.

A bundle has none: export folds each norm into the convolution before it (``models.stored``). Frozen, such
norms do for a few images. A long training wants them alive, and that starts well only where mean and variance
are those of what flows through the network. Random weights have none either, and must come to them soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_MOMENTUM = 0.1  # torch's own


def quicken_norms(model: nn.Module) -> None:
    """Let norms that begin with nothing take the statistics of what they see within tens of steps.

    Encoders with published weights change theirs slowly (momentum 0.01). From random weights that leaves
    hundreds of steps in which the network learns and, evaluated, finds no lesion at all.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, _MOMENTUM)


@torch.no_grad()
def recover_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every batch norm, and its scale and shift so that its output stays.

    Parameters
    ----------
    model
        Left in evaluation mode.
    batches
        Network inputs ``float32 (N, 3, H, W)``, as in training; a few hundred images are enough.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    sums: dict[nn.Module, tuple[int, Tensor, Tensor]] = {}

    def watch(norm: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0].float()
            axes = [0, *range(2, x.ndim)]
            count, total, squares = sums.get(norm, (0, torch.zeros(()), torch.zeros(())))
            # per batch in fp32, over batches in doubles: activations are near zero, nothing cancels
            total = total.to(x.device) + x.sum(axes).double()
            squares = squares.to(x.device) + x.square().sum(axes).double()
            sums[norm] = count + x.numel() // x.shape[1], total, squares

        return hook

    handles = [norm.register_forward_pre_hook(watch(norm)) for norm in norms]
    model.eval()
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    for norm in norms:
        if norm in sums:
            count, total, squares = sums[norm]
            mean = total / count
            _restate(norm, mean, (squares / count - mean.square()).clamp(min=0))


def _restate(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """The same function with other statistics: ``scale * (x - mean) / sqrt(variance + eps) + shift``."""
    assert norm.running_mean is not None and norm.running_var is not None
    slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    norm.bias.add_((slope * (mean - norm.running_mean)).to(norm.bias))
    norm.weight.copy_(slope * torch.sqrt(variance + norm.eps))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
