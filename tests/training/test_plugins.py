"""Augmentation, architecture, loss and metric of somebody else, named by dotted paths."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dermseg.errors import ConfigError
from dermseg.training.checkpoint import LAST, load_state, read_weights
from dermseg.training.config import AugmentationConfig, load_config
from dermseg.training.optim import WeightAverage
from dermseg.training.plugins import build_augmentation
from dermseg.training.run import train

MODULE = """
import numpy as np, torch
from torch import nn

class Dilated(nn.Module):
    def __init__(self, width=4, classes=1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(width, classes, 1))
    def forward(self, x):
        return self.layers(x)

class Huber(nn.Module):
    def __init__(self, beta=1.0):
        super().__init__()
        self.loss = nn.SmoothL1Loss(beta=beta)
    def forward(self, logits, target):
        return self.loss(torch.sigmoid(logits), target)

def recall(found, reference):
    return (found & reference).flatten(1).sum(1) / reference.flatten(1).sum(1).clamp(min=1)

def flips(image, mask):
    if np.random.rand() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return {"image": image, "mask": mask}

class Crop:
    def __init__(self, share):
        self.share = share
    def __call__(self, image, mask):
        n = int(image.shape[0] * self.share)
        return {"image": image[:n, :n], "mask": mask[:n, :n]}

def forgets_the_mask(image, mask):
    return {"image": image}

class HoldsALayerTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.first = self.backbone[:1]
        self.head = nn.Conv2d(4, 1, 1)
    def forward(self, x):
        return self.head(self.backbone[1](self.first(x)))

def unknown_recall(found, reference):
    return (found & reference).flatten(1).sum(1) / (0 * reference).flatten(1).sum(1)

def per_image(logits, target):
    return (torch.sigmoid(logits) - target).square().mean((1, 2, 3))

def misspelt(logits, target):
    return torch.nn.functional.mse(logits, target)

def detached(logits, target):
    return (logits.detach() - target).mean()
"""


@pytest.fixture
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "somebody.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somebody", raising=False)
    return "somebody"


def test_a_run_of_which_every_part_is_somebody_elses(
    tiny_config: tuple[Path, Any], tmp_path: Path, somebody: str
) -> None:
    overrides = [
        "model={architecture: somebody.Dilated, options: {width: 6}}",
        "training.loss={name: somebody.Huber, options: {beta: 0.5}}",
        "training.metric=somebody.recall",
        "augmentation={name: somebody.Crop, options: {share: 0.8}}",
        "training.epochs=2",
    ]
    progress = train(load_config(tiny_config[0], overrides), tmp_path / "run", quiet=True)
    assert progress.best_score is not None
    assert 0 <= progress.best_score <= 1
    again = load_config(tmp_path / "run" / "config.yaml")
    assert again.augmentation.name == "somebody.Crop"
    assert train(again, tmp_path / "again", quiet=True).best_score == progress.best_score


def test_a_transform_that_draws_from_numpy_is_repeated_exactly(somebody: str) -> None:
    transform = build_augmentation(AugmentationConfig(name="somebody.flips"), 48)
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    mask = image[..., 0].copy()
    seen = set()
    for seed in range(12):
        first, second = (transform(np.random.default_rng(seed), image, mask, 16) for _ in range(2))
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[0][..., 0], first[1])  # the mask goes where the image goes
        seen.add(first[0].tobytes())
    assert len(seen) == 2


def test_what_does_not_fit_is_said(somebody: str) -> None:
    for name, message in (
        ("somebody.forgets_the_mask", "no uint8 image and mask"),
        ("somebody.Crop", "share"),
        ("somebody.nothing", "has no 'nothing'"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_augmentation(AugmentationConfig(name=name), 48)
    with pytest.raises(ValueError, match="has no effect"):
        AugmentationConfig(name="somebody.flips", rotate_degrees=10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("per_image", r"gave shape \(2,\) for 2 images, not a scalar"),
        ("misspelt", "fails: AttributeError: .*'mse'"),
        ("detached", "does not require grad"),
    ],
)
def test_a_loss_is_tried_before_anything_is_written(
    tiny_config: tuple[Path, Any], tmp_path: Path, somebody: str, name: str, message: str
) -> None:
    config = load_config(tiny_config[0], [f"training.loss.name=somebody.{name}"])
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_a_metric_that_is_no_number_chooses_nothing(
    tiny_config: tuple[Path, Any], tmp_path: Path, somebody: str
) -> None:
    config = load_config(tiny_config[0], ["training.metric=somebody.unknown_recall"])
    with pytest.raises(ConfigError, match=r"gave (nan|inf) for an image"):
        train(config, tmp_path / "run", quiet=True)


def test_a_network_that_holds_a_layer_under_two_names(
    tiny_config: tuple[Path, Any], tmp_path: Path, somebody: str
) -> None:
    overrides = ["model={architecture: somebody.HoldsALayerTwice, options: {}}", "training.epochs=2"]
    train(load_config(tiny_config[0], overrides), tmp_path / "run", quiet=True)
    weights = read_weights(tmp_path / "run")
    assert torch.equal(weights["backbone.0.weight"], weights["first.0.weight"])

    network = nn.Module()
    network.one = network.two = nn.Linear(1, 1)
    average = WeightAverage(network, 0.9)
    before = average.model.one.weight.clone()
    nn.init.constant_(network.one.weight, 1.0)
    average.update(10**6)
    assert torch.allclose(average.model.one.weight, 0.9 * before + 0.1), "averaged once"


def test_a_compose_of_albumentations_works_unchanged(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for newer versions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("albumentations", reason="Albumentations is in the dev group")
    (tmp_path / "theirs.py").write_text(
        "import albumentations as A\n"
        "transform = A.Compose([A.RandomCrop(40, 40), A.RandomResizedCrop((48, 48), scale=(0.5, 1.0)), "
        "A.D4(), A.ColorJitter(p=0.8), A.GaussNoise(p=0.5)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["augmentation.name=theirs.transform", "training.epochs=2"]
    config = load_config(tiny_config[0], overrides)
    weights = []
    for run, threads in (("a", 1), ("b", 2)):  # what it draws depends on the image, not on threads
        data = config.data.model_copy(update={"decode_workers": threads})
        train(config.model_copy(update={"data": data}), tmp_path / run, quiet=True)
        weights.append(load_state(tmp_path / run / LAST)["model"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
