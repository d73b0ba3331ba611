"""The weights in an exported ONNX file, back in a network that can be trained.

The exporter folds each batch norm into the convolution before it and keeps the names. Here the convolution
gets the folded weight, and its norm becomes the one that does nothing but add the folded bias: mean 0,
variance 1, scale ``sqrt(1 + eps)``. That is the same function for as long as the norm's statistics stay as
they are (``training.freeze_norm``); ``training.norms`` gives them statistics again.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from dermseg.errors import ModelError
from dermseg.models.tiny_vit import unfold_biases

# What ends the name of a tensor in an ONNX file
HALF = "_fp16"  # stored in half precision
BYTES, SCALE = "_int8", "_scale"  # stored in 8 bits, and what they are multiplied by
TRANSPOSED = "_transposed"  # of a linear layer, as MatMul takes it


def read_parameters(data: bytes) -> dict[str, Tensor]:
    """The weights in an ONNX file as float32, under the names that they have in torch."""
    there = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer}
    found = {}
    for stored, content in there.items():
        if f"{stored.removesuffix(SCALE)}{BYTES}" in there:
            continue
        name = stored.removesuffix(HALF).removesuffix(BYTES)
        in_bytes = content.dtype == np.int8 and stored != name
        values = content * there[f"{name}{SCALE}"] if in_bytes else content
        if values.dtype in (np.float16, np.float32):
            weight = torch.from_numpy(values.astype(np.float32))
            found[name.removesuffix(TRANSPOSED)] = weight.T if name.endswith(TRANSPOSED) else weight
    return found


def norm_pairs(model: nn.Module) -> dict[str, str]:
    """Names of the convolutions that are followed by a batch norm, each with the name of its norm."""
    pairs = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        prefix = f"{name}." if name else ""
        for (first, conv), (second, norm) in pairwise(module.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                pairs[f"{prefix}{first}"] = f"{prefix}{second}"
    return pairs


def unfold(model: nn.Module, folded: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state for ``model``, with its batch norms, from the weights of its exported form.

    Parameters
    ----------
    model
        The network as it is trained; not changed, and may be on the meta device.
    folded
        As ``read_parameters`` gives them.

    Raises
    ------
    ModelError
        Weights that the network needs are not among them.
    """
    state: dict[str, Tensor] = {}
    modules, wanted = dict(model.named_modules()), model.state_dict()
    for conv, norm in norm_pairs(model).items():
        layer = modules[norm]
        assert isinstance(layer, nn.BatchNorm2d)
        n = layer.num_features
        state[f"{norm}.weight"] = torch.full((n,), math.sqrt(1 + layer.eps))
        state[f"{norm}.bias"] = folded.get(f"{conv}.bias", torch.zeros(n))
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = torch.zeros(n), torch.ones(n)
        if f"{conv}.bias" in wanted:
            state[f"{conv}.bias"] = torch.zeros(n)
    for name, value in wanted.items():
        if name in state:
            continue
        if name in folded:
            table = name.endswith("attention_biases")
            state[name] = unfold_biases(folded[name]) if table else folded[name]
        elif name.endswith(("bias", "num_batches_tracked")):  # a bias of zeros is left out of ONNX files
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
        else:
            raise ModelError(f"the ONNX file has no weights '{name}'")
    return state
