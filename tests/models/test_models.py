"""The contract that every network keeps, and what is particular to one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dermseg.errors import ConfigError
from dermseg.models import build_model, count_parameters
from dermseg.models.encoders import EfficientNetLite, imagenet_weights_path, load_imagenet_weights

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"widths": (8, 16, 32)},
    "encoder_unet": {"decoder_widths": (16, 16, 8, 8)},
}
each_architecture = pytest.mark.parametrize("name", SMALL)


@each_architecture
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (96, 64)])
def test_output_has_the_size_of_the_input(name: str, size: tuple[int, int]) -> None:
    model = build_model(name, classes=3, **SMALL[name]).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, *size)).shape == (2, 3, *size)


@each_architecture
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, dropout=0.0, **SMALL[name]).train()
    model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


@each_architecture
def test_the_same_seed_gives_the_same_network(name: str) -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(build_model(name, **SMALL[name]).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(networks[0].values(), networks[1].values(), strict=True))


@each_architecture
def test_decode_of_encode_is_forward_and_dropout_acts_in_training_only(name: str) -> None:
    torch.manual_seed(1)
    model = build_model(name, dropout=0.5, **SMALL[name]).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), model.decode(model.encode(x), (64, 64)))
        model.dropout.train()
        assert not torch.equal(model(x), model(x))


@each_architecture
def test_autocast_stays_close(name: str) -> None:
    torch.manual_seed(2)
    model = build_model(name, **SMALL[name]).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x).float()
    assert (exact - rough).abs().max() < 0.05 * exact.abs().max() + 0.1


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("unet", {}, 31_037_633),
        ("encoder_unet", {}, 3_311_329),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], parameters: int) -> None:
    assert count_parameters(build_model(name, **options)) == parameters


def test_unknown_names_are_refused_with_what_is_known() -> None:
    with pytest.raises(ConfigError, match="encoder_unet"):
        build_model("resnet")
    with pytest.raises(ConfigError, match="decoder_widths"):
        build_model("encoder_unet", width=3)


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
