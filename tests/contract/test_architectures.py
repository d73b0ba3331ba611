"""What every network of the registry keeps, at tiny widths; its real size is only counted."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dermseg.errors import ModelError
from dermseg.export.onnx import fold_batch_norm, to_onnx
from dermseg.export.quantize import quantize
from dermseg.inference.session import OrtSession
from dermseg.models import build_model, count_parameters
from dermseg.models.network import SegmentationNetwork
from dermseg.models.stored import read_parameters
from dermseg.registry import ARCHITECTURES, Architecture
from dermseg.training.checkpoint import load_weights, save_weights

_DECODER = {"decoder_widths": (16, 16, 8, 8)}
TINY: dict[str, dict[str, Any]] = {
    "unet": {"widths": (8, 16, 32)},
    "unetpp": {"widths": (8, 16, 32)},
    "attention_unet": {"widths": (8, 16, 32)},
    "transunet": {
        "image_size": 64,
        "hidden": 32,
        "layers": 2,
        "heads": 4,
        "mlp": 64,
        "cnn_width": 8,
        "cnn_blocks": (1, 1, 1),
        "decoder_widths": (32, 16, 16, 8, 8),
    },
    "encoder_unet": _DECODER,
    "mobile_unet": {"widths": (8, 8, 12, 16, 24), "blocks": (1, 1, 1, 1, 1), **_DECODER},
}
SIZE = 64
every = pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)


def tiny(entry: Architecture, **options: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    network = build_model(entry.name, **TINY[entry.name], **options)
    assert isinstance(network, SegmentationNetwork)
    return network


def image(batch: int = 2, height: int = SIZE, width: int = SIZE) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def heads(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else outputs


@every
def test_the_registry_says_what_the_code_is(entry: Architecture) -> None:
    with torch.device("meta"):
        network = build_model(entry.name)
    assert isinstance(network, SegmentationNetwork)
    assert count_parameters(network) == entry.parameters
    assert network.deep_supervision == entry.deep_supervision
    assert network.size_multiple == entry.size_multiple
    assert ("pretrained" in inspect.signature(type(network)).parameters) == entry.pretrained
    assert (network.dropout is not None) == entry.mc_dropout


@every
@pytest.mark.parametrize("classes", [1, 5])
def test_logits_have_the_size_of_the_image(entry: Architecture, classes: int) -> None:
    network = tiny(entry, classes=classes).eval()
    # sizes that are multiples of nothing work where the network says so
    sizes = [(64, 64), (96, 64), *([(33, 47)] if network.any_size else [])]
    with torch.inference_mode():
        for height, width in sizes:
            out = network(image(2, height, width))
            assert isinstance(out, torch.Tensor)
            assert out.shape == (2, classes, height, width)


@every
def test_sizes_it_cannot_do_are_refused_with_the_nearest(entry: Architecture) -> None:
    network = tiny(entry).eval()
    if network.any_size:
        pytest.skip("any size works")
    with pytest.raises(ModelError, match="48 x 48"):
        network(image(1, 33, 47))


@every
def test_gradients_reach_every_parameter(entry: Architecture) -> None:
    network = tiny(entry, dropout=0.0).train()
    outputs = heads(network(image(4)))
    assert len(outputs) > 1 if entry.deep_supervision else len(outputs) == 1
    assert {out.shape for out in outputs} == {(4, 1, SIZE, SIZE)}
    sum(out.square().mean() for out in outputs).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


@every
def test_the_same_seed_gives_the_same_network(entry: Architecture) -> None:
    first, second = tiny(entry).state_dict(), tiny(entry).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every
def test_decode_of_encode_is_the_network_and_dropout_acts_after_encode(entry: Architecture) -> None:
    network = tiny(entry, dropout=0.5).eval()
    x = image()
    with torch.no_grad():
        features = network.encode(x)
        assert torch.equal(heads(network(x))[0], network.decode(features, (SIZE, SIZE)))
        if entry.mc_dropout:
            network.dropout.train()
            assert not torch.equal(
                network.decode(features, (SIZE, SIZE)), network.decode(features, (SIZE, SIZE))
            )
            assert all(torch.equal(a, b) for a, b in zip(features, network.encode(x), strict=True))


@every
def test_named_layers_give_feature_maps_that_the_output_depends_on(entry: Architecture) -> None:
    network = tiny(entry).eval()
    maps: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            output.retain_grad()
            maps[name] = output

        return hook

    layers = network.feature_layers()
    for name, layer in layers.items():
        layer.register_forward_hook(keep(name))
    heads(network(image()))[0].square().mean().backward()
    assert list(maps) == list(layers)  # in the order in which they run
    assert "bottleneck" in maps
    for name, value in maps.items():
        assert value.ndim == 4, name
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


@every
def test_autocast_stays_close_and_trains(entry: Architecture) -> None:
    network = tiny(entry).eval()
    with torch.no_grad():
        exact = heads(network(image()))[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = heads(network(image()))[0]
    assert (exact - rough.float()).abs().max() < 0.05 * exact.abs().max() + 0.1
    rough.float().mean().backward()


@every
def test_weights_come_back_from_a_file(entry: Architecture, tmp_path: Path) -> None:
    network = tiny(entry).eval()
    save_weights(tmp_path / "w.safetensors", network)
    torch.manual_seed(99)
    other = build_model(entry.name, **TINY[entry.name]).eval()
    load_weights(tmp_path / "w.safetensors", other)
    with torch.inference_mode():
        assert torch.equal(heads(network(image()))[0], heads(other(image()))[0])


@every
def test_its_exported_form_computes_the_same_runs_as_int8_and_keeps_names(entry: Architecture) -> None:
    network = tiny(entry, classes=2).eval()
    # weights and statistics away from their start, so that nothing is 0 or 1 by chance
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    data = to_onnx(network, SIZE)
    session = OrtSession(data, threads=1)
    assert all(node.op_type != "BatchNormalization" for node in onnx.load_from_string(data).graph.node)
    with torch.inference_mode():
        for x in (image(1), image(3, 96, 128)):
            expected = heads(network(x))[0].numpy()
            assert np.abs(session(x.numpy()) - expected).max() < 1e-3 * max(1, np.abs(expected).max())
        small, _ = quantize(data, image().numpy(), lambda _: 0.0)
        expected = heads(network(image()))[0].numpy()
    difference = np.abs(OrtSession(small, threads=1)(image().numpy()) - expected)
    assert difference.max() < 0.5 * np.abs(expected).max()
    if entry.name != "transunet":  # whose group norms and linear layers are taken apart
        names = read_parameters(data)
        wanted = [name for name in fold_batch_norm(network).state_dict() if not name.startswith("heads.")]
        assert [name for name in wanted if name not in names and not name.endswith("bias")] == []


@every
def test_folding_batch_norms_changes_nothing(entry: Architecture) -> None:
    network = tiny(entry).eval()
    with torch.inference_mode():
        difference = heads(network(image()))[0] - heads(fold_batch_norm(network)(image()))[0]
    assert difference.abs().max() < 1e-4
