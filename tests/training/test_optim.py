from __future__ import annotations

import torch
from torch import nn

from dermseg.models import build_model
from dermseg.training.config import TrainingConfig
from dermseg.training.optim import WeightAverage, lr_factor, make_optimizer, set_lr


def test_schedules_start_low_peak_and_end_near_zero() -> None:
    for schedule in ("one_cycle", "cosine"):
        values = [lr_factor(i / 100, schedule, 0.1) for i in range(101)]
        assert values[0] < 0.05
        assert max(values) == values[10] == 1.0
        assert values[-1] < 1e-3
    assert lr_factor(0.9, "constant", 0.1) == 1.0


def test_norms_and_biases_are_not_decayed_and_the_encoder_learns_more_slowly() -> None:
    model = build_model("encoder_unet", decoder_widths=(8, 8, 8, 8))
    optimizer = make_optimizer(model, TrainingConfig(encoder_lr_factor=0.1, weight_decay=0.5))
    set_lr(optimizer, 1.0)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, p in model.named_parameters():
        assert of[id(p)]["weight_decay"] == (0.5 if p.ndim > 1 else 0.0)
        assert of[id(p)]["lr"] == (0.1 if name.startswith("encoder.") else 1.0)


def test_the_average_follows_the_weights() -> None:
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(11.0)
    average.update(step=1)  # early: decay is 2/11
    assert torch.allclose(average.model.weight, torch.tensor([1 * 2 / 11 + 11 * 9 / 11]))
    for step in range(2, 200):
        average.update(step)
    assert torch.allclose(average.model.weight, torch.tensor([11.0]), atol=1e-4)
