"""Losses against MONAI where it defines the same, and against their definitions where it does not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from dermseg.training import losses
from dermseg.training.distance import signed_distance
from dermseg.training.loss_config import LossConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MONAI's own imports
    monai = pytest.importorskip("monai.losses", reason="MONAI is in the dev group")

GENERATOR = torch.Generator().manual_seed(0)


def binary() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(3, 2, 16, 20, generator=GENERATOR) * 2
    return logits, (torch.rand(3, 2, 16, 20, generator=GENERATOR) > 0.7).float()


def classes() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(3, 4, 16, 20, generator=GENERATOR) * 2
    labels = torch.randint(0, 4, (3, 16, 20), generator=GENERATOR)
    return logits, torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float()


def ours(logits: torch.Tensor, target: torch.Tensor, outputs: str, **settings: object) -> float:
    loss = losses.build_loss(LossConfig.model_validate(settings), logits.shape[1], outputs)
    return float(loss(logits, target))


def test_dice() -> None:
    logits, target = binary()
    theirs = monai.DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
    assert ours(logits, target, "sigmoid", bce=0.0) == pytest.approx(float(theirs(logits, target)), rel=1e-5)


def test_cross_entropy_and_dice_over_classes() -> None:
    logits, target = classes()
    theirs = monai.DiceCELoss(
        softmax=True, include_background=False, smooth_nr=1.0, smooth_dr=1.0, lambda_ce=0.7, lambda_dice=1.5
    )
    value = ours(logits, target, "softmax", name="ce_dice", ce=0.7, dice=1.5)
    assert value == pytest.approx(float(theirs(logits, target)), rel=1e-5)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7)])
def test_tversky(weights: tuple[float, float]) -> None:
    logits, target = binary()
    theirs = monai.TverskyLoss(sigmoid=True, alpha=weights[0], beta=weights[1], smooth_nr=1.0, smooth_dr=1.0)
    value = ours(
        logits, target, "sigmoid", name="tversky", false_positive=weights[0], false_negative=weights[1]
    )
    assert value == pytest.approx(float(theirs(logits, target)), rel=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal(alpha: float | None) -> None:
    logits, target = binary()
    theirs = monai.FocalLoss(gamma=2.0, alpha=alpha)
    value = ours(logits, target, "sigmoid", name="focal", gamma=2.0, alpha=alpha)
    assert value == pytest.approx(float(theirs(logits, target)), rel=1e-5)


def test_focal_over_classes() -> None:
    logits, target = classes()
    # MONAI takes the mean over the channels, of which only one is not 0; the paper and we the sum
    theirs = 4 * float(monai.FocalLoss(gamma=1.5, use_softmax=True)(logits, target))
    assert ours(logits, target, "softmax", name="focal", gamma=1.5) == pytest.approx(theirs, rel=1e-5)


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """1 - Jaccard of what is left of ``truth`` when the pixels of ``wrong`` are mispredicted."""
    union = len(truth | wrong)
    return len(wrong) / union if union else 0.0


def test_lovasz_is_the_extension_of_the_jaccard_loss() -> None:
    """Equation 8 of Berman 2018, pixel by pixel, from sets."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        target = rng.random((4, 5)) < 0.4
        logits = rng.normal(0, 2, (4, 5))
        errors = np.maximum(0, 1 - logits * np.where(target, 1, -1)).ravel()
        truth, order = set(np.flatnonzero(target).tolist()), np.argsort(-errors)
        expected, before = 0.0, 0.0
        for k in range(1, 21):
            value = jaccard_loss(set(order[:k].tolist()), truth)
            expected += errors[order[k - 1]] * (value - before)
            before = value
        found = losses.lovasz_term(
            torch.tensor(logits)[None, None], torch.tensor(target)[None, None].double(), softmax=False
        )
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    target = (rng.random((2, 1, 30, 40)) < 0.5).astype(np.float32)
    target[1] = 0
    target[1, 0, 5:20, 8:30] = 1
    found = signed_distance(torch.from_numpy(target)).numpy() * 40
    for mask, values in zip(target[:, 0] > 0, found[:, 0], strict=True):
        inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
        assert np.abs(values - np.where(mask, 0.5 - inside, outside - 0.5)).max() < 1e-4
