from __future__ import annotations

import pytest
import torch

from dermseg.errors import ConfigError
from dermseg.training.loss_config import LossConfig
from dermseg.training.losses import build_loss, segmentation_loss, soft_dice_loss


def test_dice_loss_is_one_minus_dice_for_certain_predictions() -> None:
    target = torch.zeros(1, 1, 10, 10)
    target[..., :4] = 1  # 40 pixels
    found = torch.zeros(1, 1, 10, 10)
    found[..., 2:6] = 1  # 40 pixels, 20 shared
    loss = soft_dice_loss((found - 0.5) * 200, target, smooth=0.0)
    assert abs(float(loss) - (1 - 2 * 20 / 80)) < 1e-6


def test_small_lesions_weigh_as_much_as_large_ones() -> None:
    target = torch.zeros(2, 1, 32, 32)
    target[0, :, :2, :2] = 1
    target[1, :, :30, :30] = 1
    missed = torch.full_like(target, -100.0)
    each = [float(soft_dice_loss(missed[i : i + 1], target[i : i + 1], smooth=0.0)) for i in (0, 1)]
    assert each == [1.0, 1.0]


def test_parts_add_up_and_stay_finite_for_huge_logits() -> None:
    logits = torch.tensor([[[[1e4, -1e4], [3.0, -3.0]]]])
    target = torch.tensor([[[[0.0, 1.0], [1.0, 0.5]]]])
    both = segmentation_loss(logits, target, 2.0, 3.0)
    parts = 2 * segmentation_loss(logits, target, 1.0, 0.0) + 3 * segmentation_loss(logits, target, 0.0, 1.0)
    assert torch.isfinite(both)
    assert torch.allclose(both, parts)


def test_an_image_without_a_lesion_is_none_with_a_small_one() -> None:
    target = torch.zeros(3, 1, 32, 32)
    target[1, :, :4, :4] = 1
    target[2, :, :30, :30] = 1
    logits = torch.zeros_like(target)
    plain, heavier = (
        build_loss(LossConfig(name="bce", small_lesion_weight=w), 1, "sigmoid") for w in (1.0, 3.0)
    )
    times = [float(heavier(logits[i : i + 1], target[i : i + 1]) / plain(logits, target)) for i in range(3)]
    assert times == pytest.approx([1.0, 3.0, 1.0])


def test_a_weight_of_lesion_that_softmax_outputs_do_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"alpha is 0\.6, .*class_weights"):
        build_loss(LossConfig(name="focal", alpha=0.6), 3, "softmax")
    build_loss(LossConfig(name="focal", alpha=0.6), 3, "sigmoid")
    stored = LossConfig(name="focal").model_dump()  # of a run folder
    assert stored["alpha"] == 0.25
    build_loss(LossConfig(**stored), 3, "softmax")
