"""The torch network of a bundle, for gradients: built from the card, filled from the ONNX file.

A bundle holds its weights once, in ONNX. Export folds each batch norm into its convolution and keeps the
names of the parameters, so the folded network takes them back one by one.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from dermseg.errors import ModelError
from dermseg.export.onnx import fold_batch_norm
from dermseg.inference.bundle import Bundle
from dermseg.models import build_model

_HALF = "_fp16"  # suffix of weights that are stored in half precision


def torch_network(bundle: Bundle) -> nn.Module:
    """The network of a bundle in torch, in evaluation mode, fp32.

    Raises
    ------
    ModelError
        The architecture is not one of dermseg's, or the ONNX file does not hold its parameters.
    """
    card = bundle.card
    options = {**card.architecture_options, "pretrained": False}
    if "pretrained" not in card.architecture_options:
        options.pop("pretrained")
    model = fold_batch_norm(build_model(card.architecture, **options))
    stored = {
        tensor.name.removesuffix(_HALF): numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(bundle.read_model()).graph.initializer
    }
    state = model.state_dict()
    for name, value in state.items():
        if name not in stored or stored[name].shape != tuple(value.shape):
            raise ModelError(
                f"the bundle's ONNX file does not hold '{name}' of {card.architecture}",
                file=bundle.path,
                hint="bundles made by this version's 'dermseg export' do",
            )
        state[name] = torch.from_numpy(stored[name].astype(np.float32))
    model.load_state_dict(state)
    return model.eval()


def feature_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose feature maps can be explained, by name, from coarse to fine as the network says."""
    named = getattr(model, "feature_layers", None)
    if named is None:
        raise ModelError(f"{type(model).__name__} names no feature layers")
    layers: dict[str, nn.Module] = named()
    return layers
