"""The exported graph is the trained network, at any batch and size it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from dermseg.errors import ModelError, UsageError
from dermseg.export.graph import opset_of
from dermseg.export.onnx import OPSET, fold_batch_norm, store_as_fp16, to_onnx
from dermseg.inference.session import OrtSession
from dermseg.models import build_model


def trained_looking(name: str, options: dict[str, Any]) -> torch.nn.Module:
    """A network whose batch norms are not the identity."""
    torch.manual_seed(0)
    model = build_model(name, **options).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64) * 2 + 1)
    return model.eval()


def test_onnx_equals_torch_and_holds_nothing_of_the_machine() -> None:
    model = trained_looking("unet", {"widths": (8, 16, 32)})
    data = to_onnx(model, 64)
    half = store_as_fp16(data)
    assert len(half) < 0.62 * len(data)
    proto = onnx.load_from_string(data)
    assert opset_of(proto) == OPSET
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
    for batch, size in ((1, (64, 64)), (3, (96, 32))):
        x = torch.randn(batch, 3, *size)
        with torch.inference_mode():
            expected = model(x).numpy()
        for content, tolerance in ((data, 1e-4), (half, 3e-2)):
            session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
            (logits,) = session.run(["logits"], {"image": x.numpy()})
            assert logits.shape == expected.shape
            assert np.abs(logits - expected).max() < tolerance * max(1.0, float(np.abs(expected).max()))


def test_an_older_opset_computes_the_same_at_odd_sizes() -> None:
    model = trained_looking("encoder_unet", {"decoder_widths": (16, 16, 8, 8)})
    data = to_onnx(model, 64, 13)
    assert opset_of(onnx.load_from_string(data)) == 13
    x = torch.randn(2, 3, 97, 131)
    with torch.inference_mode():
        expected = model(x).numpy()
    assert np.abs(OrtSession(data, 1)(x.numpy()) - expected).max() < 1e-4 * np.abs(expected).max()
    for opset in (12, 99):
        with pytest.raises(UsageError, match=f"opset {opset}"):
            to_onnx(model, 64, opset)


class Attention(torch.nn.Module):
    """Means over pixels and halves of the channels, as in many networks of others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        one, other = x.chunk(2, dim=1)
        return self.head(one * torch.sigmoid(other.amax(1, keepdim=True)))


def test_an_older_opset_of_networks_with_attention() -> None:
    model = Attention().eval()
    x = torch.randn(2, 3, 48, 80)
    with torch.inference_mode():
        expected = model(x).numpy()
    for opset in (13, 17):
        data = to_onnx(model, 64, opset)
        assert np.abs(OrtSession(data, 1)(x.numpy()) - expected).max() < 1e-5
        graph = onnx.load_from_string(data).graph
        read = {name for node in graph.node for name in node.input}
        assert {tensor.name for tensor in graph.initializer} <= read, "runtimes warn of the others"


class LooksAtValues(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] if float(x.mean()) > 0 else x[:, 1:2]


def test_a_network_that_torch_cannot_export_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"torch cannot write the network as ONNX: .*data-dependent"):
        to_onnx(LooksAtValues(), 64)


def test_folding_batch_norm_keeps_the_function() -> None:
    model = trained_looking("unet", {"widths": (8, 16)})
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(model(x), fold_batch_norm(model)(x), atol=1e-4)
