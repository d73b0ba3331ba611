"""What every loss of the registry keeps, for each kind of outputs that it fits."""

from __future__ import annotations

import pytest
import torch

from dermseg.errors import ConfigError
from dermseg.registry import LOSSES
from dermseg.training.loss_config import LossConfig
from dermseg.training.losses import build_loss, supervised_loss
from dermseg.training.targets import make_target

CLASSES = 3
PAIRS = [(entry.name, outputs) for entry in LOSSES for outputs in entry.outputs]
every = pytest.mark.parametrize(("name", "outputs"), PAIRS, ids=["-".join(pair) for pair in PAIRS])


def masks(n: int = 4, size: int = 24) -> torch.Tensor:
    """``(n, M, size, size)`` without overlap; the second image has no lesion, the last is soft."""
    out = torch.zeros(n, CLASSES, size, size)
    out[0, 0, 3:12, 4:14] = 1
    out[0, 1, 14:20, 10:20] = 1
    out[2, 2, 10:13, 10:12] = 1
    out[3, 1, 2:20, 2:20] = 0.7
    return out


def data(outputs: str) -> torch.Tensor:
    drawn = masks()
    return make_target(drawn[:, 1:] if outputs == "softmax" else drawn, outputs == "softmax")


def logits_of(target: torch.Tensor, outputs: str, certainty: float = 12.0) -> torch.Tensor:
    return ((target >= 0.5).float() * 2 - 1) * certainty


@every
def test_a_perfect_answer_costs_next_to_nothing_and_a_worse_one_more(name: str, outputs: str) -> None:
    loss = build_loss(LossConfig(name=name), CLASSES, outputs)
    target = (data(outputs) >= 0.5).float()
    perfect = float(loss(logits_of(target, outputs), target))
    shifted = float(loss(logits_of(target.roll(3, -1), outputs), target))
    inverted = float(loss(logits_of(1 - target, outputs), target))
    assert 0 <= perfect < 0.02
    assert perfect < shifted < inverted


@every
def test_gradients_are_finite_even_where_the_network_is_sure(name: str, outputs: str) -> None:
    loss = build_loss(LossConfig(name=name), CLASSES, outputs)
    target = data(outputs)
    for scale in (0.0, 1.0, 1e3):
        logits = (
            torch.randn(target.shape, generator=torch.Generator().manual_seed(0)) * scale
        ).requires_grad_()
        value = loss(logits, target)
        value.backward()
        assert value.ndim == 0
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        if scale == 1.0:
            assert logits.grad.abs().sum() > 0


@every
def test_going_down_the_gradient_finds_the_masks(name: str, outputs: str) -> None:
    loss = build_loss(LossConfig(name=name), CLASSES, outputs)
    target = (data(outputs)[:1] >= 0.5).float()
    logits = torch.zeros_like(target, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
    found = logits.argmax(1) == target.argmax(1) if outputs == "softmax" else (logits > 0) == (target > 0.5)
    assert found.float().mean() > 0.99


@every
def test_an_image_costs_the_same_in_any_batch(name: str, outputs: str) -> None:
    """So that accumulated batches, or several processes, learn what one large batch would."""
    config = LossConfig(
        name=name, class_weights=(1.0, 2.0, 0.5), small_lesion_weight=3.0, small_lesion_area=0.04
    )
    loss = build_loss(config, CLASSES, outputs)
    target = data(outputs)
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    whole = loss(logits, target)
    parts = [loss(logits[i : i + 2], target[i : i + 2]) for i in (0, 2)]
    assert torch.allclose(whole, sum(parts) / 2, rtol=1e-5)


@every
def test_half_precision_logits_and_several_heads_are_taken(name: str, outputs: str) -> None:
    loss = build_loss(LossConfig(name=name), CLASSES, outputs)
    target = data(outputs)
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(2))
    one = supervised_loss(loss, logits, target)
    assert torch.allclose(supervised_loss(loss, (logits, logits), target), one)
    assert torch.allclose(supervised_loss(loss, logits.bfloat16(), target), one, rtol=0.05, atol=0.05)


@every
def test_weights_change_what_counts(name: str, outputs: str) -> None:
    target = (data(outputs) >= 0.5).float()
    missed = target[:, 2] >= 0.5
    without = target.clone()
    without[:, 2][missed] = 0
    if outputs == "softmax":
        without[:, 0][missed] = 1
    logits = logits_of(without, outputs, 6.0)
    light, heavy = (
        float(
            build_loss(LossConfig(name=name, class_weights=(1.0, 1.0, w)), CLASSES, outputs)(logits, target)
        )
        for w in (0.1, 10.0)
    )
    assert light < heavy


def test_a_loss_that_does_not_fit_the_outputs_or_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="ce_dice"):
        build_loss(LossConfig(name="bce_dice"), 3, "softmax")
    with pytest.raises(ConfigError, match="2 numbers and the model 3"):
        build_loss(LossConfig(class_weights=(1.0, 2.0)), 3, "sigmoid")


def test_targets_of_overlapping_masks_share_a_pixel_and_sum_to_one() -> None:
    drawn = masks()[:, 1:]
    drawn[0, 1, 15:17, 11:13] = 1
    target = make_target(drawn, softmax=True)
    assert torch.allclose(target.sum(1), torch.ones(()))
    assert target[0, 1, 15, 11] == target[0, 2, 15, 11] == 0.5
