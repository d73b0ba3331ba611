"""The graph with Monte-Carlo dropout does what repeated passes of the network in torch do."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dermseg.errors import ModelError, UsageError
from dermseg.export.mc_dropout import mc_dropout_part
from dermseg.export.onnx import fold_batch_norm, store_as_fp16, to_onnx
from dermseg.models import build_model
from dermseg.uncertainty.mc_dropout import McSession, draw_masks

RATE = 0.3


class GivenMasks(nn.Module):
    """Instead of dropout: multiply channels by the masks, in the order in which the places come."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks, self.calls = masks, 0

    def forward(self, x: Tensor) -> Tensor:
        mask = self.masks[self.calls]
        self.calls = (self.calls + 1) % len(self.masks)
        return x * mask[:, :, None, None]


def network(**options: Any) -> Any:
    torch.manual_seed(0)
    model = build_model("encoder_unet", decoder_widths=(16, 24, 8, 8), dropout=RATE, **options).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean: signals keep their size, so that masks matter
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64) * 2 + 1)
    return model.eval()


@cache
def written(*options: tuple[str, Any]) -> tuple[Any, bytes]:
    """A network and its graph, which takes many seconds to write."""
    model = network(**dict(options))
    return model, to_onnx(fold_batch_norm(model), 64)


@pytest.fixture(
    params=[{}, {"separable_strides": 0}],  # and tiny_vit with the tests of its graph, which takes longest
    ids=["separable", "dense"],
)
def exported(request: pytest.FixtureRequest) -> tuple[Any, bytes]:
    """A network and its graph."""
    return written(*request.param.items())


@pytest.mark.parametrize("size, written", [((64, 96), None), ((64, 96), (64, 96)), ((72, 80), (72, 80))])
def test_the_same_masks_give_the_same_logits(
    exported: tuple[Any, bytes], size: tuple[int, int], written: tuple[int, int] | None
) -> None:
    model, graph = deepcopy(exported[0]), exported[1]
    session = McSession(graph + mc_dropout_part(graph, written), rate=RATE, threads=1)
    assert session.channels == (16, 24)
    image = np.random.default_rng(0).normal(0, 1, (3, *size)).astype(np.float32)
    masks = draw_masks(session.channels, RATE, passes=5, seed=1)
    found = session.with_masks(image, *masks)
    model.dropout = GivenMasks([torch.from_numpy(m) for m in masks])
    with torch.inference_mode():
        *skips, deepest = model.encode(torch.from_numpy(image)[None].repeat(5, 1, 1, 1))
        own = (found.shape[-2], found.shape[-1])
        expected = model.decode([*skips, deepest], own).numpy()  # at the head's own size: nothing is resized
    assert found.shape == (5, 1, size[0] // 4, size[1] // 4) and np.ptp(found, axis=0).max() > 0.01
    assert np.abs(found - expected).max() < 1e-4 * max(1.0, float(np.abs(expected).max()))


def test_many_passes_agree_with_torchs_own_dropout_to_monte_carlo_error() -> None:
    plain, exact = written()
    model, graph = deepcopy(plain), store_as_fp16(exact)
    session = McSession(graph + mc_dropout_part(graph), rate=RATE, threads=1)
    image = np.random.default_rng(1).normal(0, 1, (3, 64, 64)).astype(np.float32)
    n = 400
    found = session.repeat(image, passes=n, seed=2)[:, 0]
    model.dropout.train()
    with torch.inference_mode():
        features = model.encode(torch.from_numpy(image)[None])
        naive = model.decode([f.expand(n, -1, -1, -1) for f in features], (16, 16)).numpy()[:, 0]
    error = np.sqrt((found.var(0) + naive.var(0)) / n)
    z = (found.mean(0) - naive.mean(0)) / error
    assert np.abs(z).mean() < 2 and np.abs(z).max() < 5.5
    assert found.std() == pytest.approx(naive.std(), rel=0.1)


def test_masks_can_be_repeated_and_have_the_right_mean() -> None:
    a, b = draw_masks((50, 70), 0.2, passes=200, seed=3), draw_masks((50, 70), 0.2, passes=20, seed=3)
    assert np.array_equal(a[0][:20], b[0]) and np.array_equal(a[1][:20], b[1])
    assert set(np.unique(a[0])) == {0.0, np.float32(1.25)} and a[1].mean() == pytest.approx(1.0, abs=0.02)
    with pytest.raises(UsageError, match="number of passes"):
        draw_masks((5, 5), 0.2, passes=0)


def test_other_networks_are_refused() -> None:
    graph = to_onnx(build_model("unet", widths=(8, 16)).eval(), 32)
    with pytest.raises(ModelError, match="encoder_unet"):
        mc_dropout_part(graph)
