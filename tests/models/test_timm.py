"""Encoders of timm, in an environment of their own; see CONTRIBUTING.md for the command."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dermseg.errors import ConfigError
from dermseg.export.onnx import to_onnx
from dermseg.inference.session import OrtSession
from dermseg.models import build_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("timm", reason="timm brings torchvision and is tested apart")

DECODER = {"decoder_widths": (16, 16, 8, 8)}
# strides 2 to 32; 4 to 32; channels last
NAMES = (
    "resnet18",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "mambaout_femto",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_with_an_encoder_of_timm_trains(name: str) -> None:
    torch.manual_seed(0)
    size = 224 if "224" in name else 64
    network = build_model("encoder_unet", encoder=f"timm:{name}", classes=2, dropout=0.0, **DECODER).train()
    out = network(torch.randn(2, 3, size, size))
    assert out.shape == (2, 2, size, size)
    out.square().mean().backward()
    decoder = [p for n, p in network.named_parameters() if not n.startswith("encoder.")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder)


def test_channels_last_are_known_where_the_shapes_do_not_tell() -> None:
    encoder = build_model("encoder_unet", encoder="timm:mambaout_femto", **DECODER).eval().encoder
    with torch.inference_mode():
        x = torch.randn(1, 3, 192, 192)  # at stride 4: 48 rows, 48 columns, 48 channels
        first, last = encoder(x)[0], encoder.network(x)[0]
    assert first.shape == (1, 48, 48, 48)
    assert torch.equal(first, last.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_its_onnx_graph_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    network = build_model("encoder_unet", encoder=f"timm:{name}", **DECODER).eval()
    session = OrtSession(to_onnx(network, 64), threads=1)
    x = torch.randn(3, 3, 96, 64)
    with torch.inference_mode():
        assert np.abs(session(x.numpy()) - network(x).numpy()).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "message"), [("resnet19", "such as"), ("vit_tiny_patch16_224", "no feature maps at strides")]
)
def test_what_timm_cannot_give_is_said(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model("encoder_unet", encoder=f"timm:{name}", **DECODER)


def test_more_decoder_stages_than_the_encoder_has_maps() -> None:
    with pytest.raises(ConfigError, match="a stride that the encoder has no map of"):
        build_model("encoder_unet", encoder="timm:convnext_atto", decoder_widths=(16, 16, 8, 8, 8))
