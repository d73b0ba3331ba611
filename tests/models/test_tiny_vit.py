"""TinyViT as an encoder: what it computes, and that its weights survive every form of storage."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dermseg.errors import ConfigError, ModelError
from dermseg.export.mc_dropout import mc_dropout_part
from dermseg.export.onnx import fold_batch_norm, store_as_bytes, store_as_fp16, to_onnx
from dermseg.inference.session import OrtSession
from dermseg.models import build_model
from dermseg.models.stored import read_parameters, unfold
from dermseg.models.tiny_vit import PLACE, Attention, TinyViT, load_mobile_sam
from dermseg.uncertainty.mc_dropout import McSession, draw_masks


def lively(model: Any) -> Any:
    """The model with numbers in all that starts at zero, and statistics of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith(("attention_biases", "running_mean", "bias")):
                value.normal_(0, 0.3, generator=generator)
            elif name.endswith(("running_var", "norm.weight")):  # equal tensors would be written once
                value.uniform_(0.5, 2, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return lively(build_model("encoder_unet", encoder="tiny_vit", decoder_widths=(16, 16, 8, 8)))


@pytest.fixture(scope="module")
def graph(network: Any) -> bytes:
    return to_onnx(network, 64)


def image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_maps_have_strides_4_8_16_and_16_at_any_size() -> None:
    encoder = TinyViT().eval()
    with torch.inference_mode():
        for height, width, deepest in ((64, 64, (4, 4)), (50, 37, (4, 3))):
            shapes = [tuple(each.shape[1:]) for each in encoder(image(height, width))]
            assert [c for c, *_ in shapes] == list(encoder.channels)
            assert shapes[2][1:] == shapes[3][1:] == deepest
            assert shapes[0][1:] == (-(-height // 4), -(-width // 4))


def test_gradients_reach_every_parameter() -> None:
    network = build_model(
        "encoder_unet", encoder="tiny_vit", decoder_widths=(16, 16, 8, 8), dropout=0.0
    ).train()
    network(image(64, 64, batch=4)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_attention_knows_how_far_apart_two_positions_are() -> None:
    attention = Attention(32, 3)
    with torch.no_grad():
        attention.attention_biases.copy_(torch.arange(9.0)[None])  # rows apart * 3 + columns apart
    rows, columns = np.divmod(np.arange(9), 3)
    apart = 3 * abs(rows[:, None] - rows) + abs(columns[:, None] - columns)
    table = attention.attention_biases.clone()
    assert np.array_equal(attention.attention_biases[:, attention.index][0].detach().numpy(), apart)
    x = torch.randn(2, 9, 32)
    before = attention(x)
    attention.fold_()
    torch.testing.assert_close(attention(x), before)
    assert torch.equal(attention.attention_biases[:, 0], table)


def test_a_window_at_the_edge_is_padded_and_others_do_not_see_it(network: Any) -> None:
    block = network.encoder.layers[1].blocks[0]  # windows of 7
    x = torch.randn(1, 128, 10, 7)
    changed = x.clone()
    changed[:, :, 8:] += 1  # the second window only; a 3x3 convolution follows
    with torch.inference_mode():
        same = (block(x) - block(changed)).abs().amax(dim=(0, 1, 3)) == 0
    assert same.tolist() == [True] * 6 + [False] * 4


@pytest.mark.parametrize("form", [bytes, store_as_fp16, store_as_bytes])
@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
def test_the_exported_graph_computes_the_same(network: Any, graph: bytes, form: Any, size: Any) -> None:
    x = image(*size, batch=2)
    with torch.inference_mode():
        expected = network(x).numpy()
    found = OrtSession(form(graph), 1)(x.numpy())
    bound = {bytes: 1e-5, store_as_fp16: 0.01, store_as_bytes: 0.1}[form] * np.abs(expected).max()
    assert np.abs(found - expected).max() < bound


@pytest.mark.parametrize("size, written", [((64, 96), None), ((64, 96), (64, 96)), ((72, 80), (72, 80))])
def test_dropout_acts_on_two_maps_of_one_stride(
    network: Any, graph: bytes, size: tuple[int, int], written: tuple[int, int] | None
) -> None:
    session = McSession(graph + mc_dropout_part(graph, written), rate=0.3, threads=1)
    masks = draw_masks(session.channels, 0.3, passes=5, seed=1)
    x = image(*size)
    found = session.with_masks(x[0].numpy(), *masks)
    model, given = deepcopy(network), iter(masks)
    model.dropout = nn.Identity()
    model.dropout.register_forward_hook(lambda _, __, y: y * torch.from_numpy(next(given))[:, :, None, None])
    with torch.inference_mode():
        features = [f.expand(5, -1, -1, -1) for f in model.encode(x)]
        expected = model.decode(features, (found.shape[-2], found.shape[-1])).numpy()
    assert found.shape == (5, 1, size[0] // 4, size[1] // 4) and np.ptp(found, axis=0).max() > 0.01
    assert np.abs(found - expected).max() < 1e-4 * max(1.0, float(np.abs(expected).max()))


def test_eight_bits_are_a_quarter_and_near(graph: bytes) -> None:
    small = store_as_bytes(graph)
    assert len(small) < 0.3 * len(graph)
    exact, near = read_parameters(graph), read_parameters(small)
    assert exact.keys() == near.keys()
    for name, weight in exact.items():
        step = weight.abs().max() / 127
        assert (near[name] - weight).abs().max() <= max(0.51 * float(step), 1e-3 * float(weight.abs().max()))


@pytest.mark.parametrize("form", [bytes, store_as_fp16, store_as_bytes])
def test_weights_come_back_for_inference_and_for_training(network: Any, graph: bytes, form: Any) -> None:
    data = form(graph)
    with torch.inference_mode():
        expected = OrtSession(data, 1)(image(64, 64).numpy())
        folded = fold_batch_norm(
            build_model("encoder_unet", encoder="tiny_vit", decoder_widths=(16, 16, 8, 8))
        )
        found = read_parameters(data)
        folded.load_state_dict({name: found[name] for name in folded.state_dict()})
        assert np.allclose(folded(image(64, 64)).numpy(), expected, atol=1e-4)
        again = build_model("encoder_unet", encoder="tiny_vit", decoder_widths=(16, 16, 8, 8))
        again.load_state_dict(unfold(again, found))
        assert np.allclose(again.eval()(image(64, 64)).numpy(), expected, atol=1e-4)


def test_weights_are_read_from_mobile_sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = lively(TinyViT()), TinyViT()
    path = tmp_path / "mobile_sam.pt"
    published = {f"image_encoder.{name}": value for name, value in source.state_dict().items()}
    torch.save(published | {"mask_decoder.x": torch.zeros(1)}, path)
    monkeypatch.setenv(PLACE, str(path))
    load_mobile_sam(target)
    found, wanted = target.state_dict(), source.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_without_the_weights_it_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLACE, raising=False)
    with pytest.raises(ConfigError, match=f"set {PLACE}.*mobile_sam.py"):
        build_model("encoder_unet", encoder="tiny_vit", pretrained=True)
    monkeypatch.setenv(PLACE, str(tmp_path / "gone.pt"))
    with pytest.raises(ConfigError, match="names no file"):
        build_model("encoder_unet", encoder="tiny_vit", pretrained=True)
    (tmp_path / "other.pt").write_bytes(b"other")
    monkeypatch.setenv(PLACE, str(tmp_path / "other.pt"))
    with pytest.raises(ModelError, match="not MobileSAM's weights"):
        build_model("encoder_unet", encoder="tiny_vit", pretrained=True)
