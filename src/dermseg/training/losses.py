"""Losses on logits ``(N, C, H, W)`` against targets of the same shape in [0, 1].

Each is a function that gives one value per image and class, ``(N, C)``; ``Criterion`` weighs and averages
them. Averaged per image, not over the batch, so that small lesions weigh as much as large ones.

Two kinds of outputs: ``sigmoid`` channels are independent (one lesion, or several attributes that may
overlap); ``softmax`` channels are classes of which each pixel has one, class 0 being the background, and
targets are one-hot. Dice, Tversky, Lovasz and boundary terms leave the background out: it is nearly always
right and would hide the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.errors import ConfigError
from dermseg.registry import find_loss, load_dotted
from dermseg.training.distance import signed_distance
from dermseg.training.loss_config import LossConfig

_PIXELS = (-2, -1)


def soft_dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice per image and class, averaged.

    Sums of probabilities in the denominator (Drozdzal 2016, arXiv:1608.04117), not of their squares as in
    Milletari 2016.
    """
    return dice_term(torch.sigmoid(logits.float()), target, smooth).mean()


def segmentation_loss(logits: Tensor, target: Tensor, bce: float = 1.0, dice: float = 1.0) -> Tensor:
    """Weighted sum of binary cross-entropy and soft Dice."""
    loss = logits.new_zeros((), dtype=torch.float32)
    if bce:
        loss = loss + bce * F.binary_cross_entropy_with_logits(logits.float(), target)
    if dice:
        loss = loss + dice * soft_dice_loss(logits, target)
    return loss


def dice_term(probability: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice, ``(N, C)``."""
    overlap = (probability * target).sum(_PIXELS)
    total = probability.sum(_PIXELS) + target.sum(_PIXELS)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def tversky_term(
    probability: Tensor,
    target: Tensor,
    false_positive: float = 0.3,
    false_negative: float = 0.7,
    smooth: float = 1.0,
) -> Tensor:
    """1 - Tversky index, ``(N, C)`` (Salehi 2017, doi:10.1007/978-3-319-67389-9_44, equation 4).

    ``false_positive`` and ``false_negative`` are its alpha and beta; 0.5 and 0.5 is Dice.
    """
    overlap = (probability * target).sum(_PIXELS)
    excess = (probability * (1 - target)).sum(_PIXELS)
    missed = ((1 - probability) * target).sum(_PIXELS)
    return 1 - (overlap + smooth) / (overlap + false_positive * excess + false_negative * missed + smooth)


def cross_entropy_term(logits: Tensor, target: Tensor, softmax: bool) -> Tensor:
    """Cross-entropy, ``(N, C)``; over classes, its mean over the channels is the usual value."""
    return _entropy(logits, target, softmax).mean(_PIXELS)


def focal_term(
    logits: Tensor, target: Tensor, softmax: bool, gamma: float = 2.0, alpha: float | None = 0.25
) -> Tensor:
    """Focal loss, ``(N, C)`` (Lin 2017, doi:10.1109/ICCV.2017.324, equation 5).

    ``alpha`` weighs lesion against the rest (sigmoid outputs only); None is no weighting.
    """
    if softmax:
        certainty = F.softmax(logits, dim=1)
    else:
        # probability of what is right, from logits: exact where the sigmoid is 0 or 1 already
        probability = torch.sigmoid(logits)
        certainty = probability * target + (1 - probability) * (1 - target)
    # the floor keeps the gradient finite for a gamma below 1
    values = (1 - certainty).clamp(min=1e-6) ** gamma * _entropy(logits, target, softmax)
    if alpha is not None and not softmax:
        values = values * (alpha * target + (1 - alpha) * (1 - target))
    return values.mean(_PIXELS)


def _entropy(logits: Tensor, target: Tensor, softmax: bool) -> Tensor:
    if softmax:
        # every class's share, times C, so that the mean over the channels is the sum over the classes
        return -target * F.log_softmax(logits, dim=1) * logits.shape[1]
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def lovasz_term(logits: Tensor, target: Tensor, softmax: bool) -> Tensor:
    """Lovasz extension of 1 - Jaccard, ``(N, C)`` (Berman 2018, doi:10.1109/CVPR.2018.00464).

    Hinge errors for sigmoid outputs (equation 12), probability errors for softmax (equation 13). Soft
    targets are cut at one half: the extension is defined for sets.
    """
    truth = (target >= 0.5).to(logits.dtype).flatten(2)
    if softmax:
        errors = (truth - F.softmax(logits, dim=1).flatten(2)).abs()
    else:
        errors = 1 - logits.flatten(2) * (2 * truth - 1)
    errors, order = errors.sort(dim=2, descending=True)
    truth = truth.gather(2, order)
    inside = truth.sum(2, keepdim=True)
    jaccard = 1 - (inside - truth.cumsum(2)) / (inside + (1 - truth).cumsum(2))
    weights = torch.cat([jaccard[..., :1], jaccard[..., 1:] - jaccard[..., :-1]], dim=2)
    return (F.relu(errors) * weights).sum(2)


def boundary_term(probability: Tensor, target: Tensor) -> Tensor:
    """Mean distance of wrong pixels from the reference outline, ``(N, C)``.

    Boundary loss (Kervadec 2019, proceedings.mlr.press/v102/kervadec19a, equation 5) less its value for a
    perfect prediction, which is a constant: the gradients are the published ones and the minimum is 0.
    Distances are shares of the image's longer side, so the weight does not depend on the size. An image
    without an outline (no lesion, or nothing else) contributes 0.
    """
    distance = signed_distance(target)
    return (distance * (probability - (target >= 0.5).to(probability.dtype))).mean(_PIXELS)


class Criterion(nn.Module):
    """The loss of a configuration: ``(logits, target)`` to a scalar, in fp32.

    ``class_weights`` weigh the classes of an image against each other; an image with a small lesion counts
    ``small_lesion_weight`` times. The loss of an image does not depend on the batch it is in, so several
    accumulated batches, or several processes, learn what one large batch would.
    """

    def __init__(self, config: LossConfig, softmax: bool = False) -> None:
        super().__init__()
        self.config, self.softmax = config, softmax
        self.class_weights: Tensor | None
        weights = None if config.class_weights is None else torch.tensor(config.class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        c = self.config
        if c.name == "bce_dice" and self.class_weights is None and c.small_lesion_weight == 1:
            return segmentation_loss(logits, target, c.bce, c.dice)
        logits = logits.float()
        image_weights = self._image_weights(target)
        loss = logits.new_zeros(())
        for factor, values, first in self._terms(logits, target):
            if self.class_weights is None:
                each = values.mean(1)
            else:
                weights = self.class_weights[first:]
                each = (values * weights).sum(1) / weights.sum().clamp(min=1e-12)
            loss = loss + factor * (each * image_weights).mean()
        return loss

    def _terms(self, logits: Tensor, target: Tensor) -> list[tuple[float, Tensor, int]]:
        """Factor, values ``(N, C')`` and first class of each part of the loss."""
        c, softmax = self.config, self.softmax
        first = 1 if softmax else 0  # parts that compare regions leave the background out
        terms: list[tuple[float, Tensor, int]] = []

        def regions() -> tuple[Tensor, Tensor]:
            probability = F.softmax(logits, dim=1) if softmax else torch.sigmoid(logits)
            return probability[:, first:], target[:, first:]

        match c.name:
            case "bce":
                terms.append((1.0, cross_entropy_term(logits, target, False), 0))
            case "bce_dice" | "ce_dice":
                entropy = c.bce if c.name == "bce_dice" else c.ce
                if entropy:
                    terms.append((entropy, cross_entropy_term(logits, target, softmax), 0))
                if c.dice:
                    terms.append((c.dice, dice_term(*regions()), first))
            case "focal":
                terms.append((1.0, focal_term(logits, target, softmax, c.gamma, c.alpha), 0))
            case "tversky":
                values = tversky_term(*regions(), c.false_positive, c.false_negative)
                terms.append((1.0, values, first))
            case "lovasz":
                terms.append((1.0, lovasz_term(logits, target, softmax)[:, first:], first))
            case "boundary":
                if c.dice:
                    terms.append((c.dice, dice_term(*regions()), first))
                terms.append((c.boundary, boundary_term(*regions()), first))
        return terms

    def _image_weights(self, target: Tensor) -> Tensor:
        """Weights ``(N,)``."""
        c = self.config
        lesion = 1 - target[:, 0] if self.softmax else target.amax(1)
        # an image without a lesion has no small one
        small = (lesion.mean(_PIXELS) < c.small_lesion_area) & (lesion.amax(_PIXELS) >= 0.5)
        return torch.where(small, c.small_lesion_weight, 1.0)


def build_loss(config: LossConfig, classes: int, outputs: str) -> nn.Module | Callable[..., Any]:
    """The loss of a configuration, or what its dotted path names, called with ``options``.

    Raises
    ------
    ConfigError
        It does not fit these outputs or this number of classes, or the dotted path leads nowhere.
    """
    if config.class_weights is not None and len(config.class_weights) != classes:
        raise ConfigError(
            f"training.loss.class_weights has {len(config.class_weights)} numbers and the model {classes} "
            f"{'class' if classes == 1 else 'classes'}",
            hint="give one for each class",
        )
    if "." in config.name:
        loss: Callable[..., Any] = load_dotted(config.name)
        if isinstance(loss, type) or config.options:
            try:
                loss = loss(**config.options)
            except TypeError as error:
                raise ConfigError(f"training.loss '{config.name}': {error}") from error
        return loss
    fits = find_loss(config.name).outputs
    if outputs not in fits:
        use = "ce_dice" if outputs == "softmax" else "bce_dice"
        raise ConfigError(
            f"training.loss '{config.name}' is for {fits[0]} outputs and model.outputs is '{outputs}' "
            f"with {classes} {'class' if classes == 1 else 'classes'}",
            hint=f"training.loss.name={use}, or model.outputs={fits[0]}",
        )
    if config.name == "focal" and outputs == "softmax" and config.alpha not in (None, LossConfig().alpha):
        raise ConfigError(
            f"training.loss.alpha is {config.alpha:g}, and does nothing with model.outputs=softmax",
            hint="leave it out; training.loss.class_weights has a weight for each class",
        )
    return Criterion(config, softmax=outputs == "softmax")


def supervised_loss(
    loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor | tuple[Tensor, ...], target: Tensor
) -> Tensor:
    """``loss`` of a network's outputs in fp32; of several heads (deep supervision), the mean (Zhou 2018)."""
    if isinstance(outputs, Tensor):
        return loss(outputs.float(), target)
    return torch.stack([loss(logits.float(), target) for logits in outputs]).mean()
