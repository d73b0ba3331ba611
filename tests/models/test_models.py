"""What is particular to one network, and names that are wrong; ``tests/contract`` has what all share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dermseg.errors import ConfigError
from dermseg.models import build_model, count_parameters
from dermseg.models.attention_unet import AttentionUNet
from dermseg.models.encoders import EfficientNetLite, imagenet_weights_path, load_imagenet_weights


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("unet", {"upsample": "bilinear"}, 31_384_833),
        ("unet", {"classes": 5}, 31_037_893),
        ("unetpp", {"deep_supervision": False}, 9_159_681),
        ("encoder_unet", {"encoder": "efficientnet_lite1"}, 4_076_001),
        ("encoder_unet", {"encoder": "efficientnet_lite2"}, 4_722_041),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build_model(name, **options)) == parameters


def test_the_small_network_is_small() -> None:
    with torch.device("meta"):
        assert count_parameters(build_model("mobile_unet")) < 500_000


def test_unknown_names_are_refused_with_what_is_known() -> None:
    with pytest.raises(ConfigError, match="unet"):
        build_model("resnet")
    with pytest.raises(ConfigError, match="decoder_widths"):
        build_model("encoder_unet", width=3)
    with pytest.raises(ConfigError, match="transposed or bilinear"):
        build_model("unet", upsample="nearest")


@pytest.mark.parametrize("name", ["unet", "unetpp", "attention_unet"])
def test_bilinear_upsampling_learns_nothing(name: str) -> None:
    network = build_model(name, widths=(4, 8, 16), upsample="bilinear").eval()
    assert not list(network.up.parameters())
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 30, 34)).shape == (1, 1, 30, 34)


def test_attention_is_a_share_that_depends_on_the_gate() -> None:
    torch.manual_seed(0)
    network = AttentionUNet(widths=(4, 8)).eval()
    gate = network.gates[0]
    skip, below = torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        share = gate.coefficients(skip, below)
        assert share.shape == (1, 1, 4, 4)
        assert 0 < share.min() <= share.max() < 1
        assert not torch.allclose(share, gate.coefficients(skip, -below))


def test_transunet_resamples_its_positions_to_other_sizes() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "hidden": 16, "layers": 1, "heads": 2, "mlp": 16, "cnn_width": 4, "cnn_blocks": (1, 1, 1),
        "decoder_widths": (16, 8, 8, 8, 8),
    }  # fmt: skip
    network = build_model("transunet", image_size=64, **options).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before = network(x)
        network.position.zero_()
        assert not torch.allclose(before, network(x))
    with pytest.raises(ConfigError, match="not divisible by 16"):
        build_model("transunet", **{**options, "image_size": 100})


@pytest.mark.parametrize("variant", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_imagenet_weights_fit_where_installed(variant: str) -> None:
    if imagenet_weights_path(variant) is None:
        pytest.skip(f"the weight package of {variant} is not installed")
    encoder = EfficientNetLite(variant).eval()
    before = encoder.stem[0].weight.clone()
    load_imagenet_weights(encoder)
    assert not torch.equal(before, encoder.stem[0].weight)
    with torch.inference_mode():
        features = encoder(torch.zeros(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == list(encoder.channels)
    assert [64 // f.shape[2] for f in features] == [2, 4, 8, 16, 32]
