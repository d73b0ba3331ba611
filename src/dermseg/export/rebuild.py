"""The network of a bundle in torch again: built from the card, filled from the ONNX file.

A bundle holds its weights once, in ONNX. Export folds each batch norm into its convolution and keeps the
names of the parameters, so the folded network takes them back one by one.
"""

from __future__ import annotations

import torch
from torch import nn

from dermseg.errors import ConfigError, ModelError
from dermseg.export.onnx import fold_batch_norm
from dermseg.inference.bundle import Bundle
from dermseg.inference.session import first_line
from dermseg.models import build_model, without_pretrained
from dermseg.models.stored import read_parameters
from dermseg.registry import find_architecture


def rebuild(bundle: Bundle, variant: str | None = None) -> nn.Module:
    """The folded network of a variant (None: the default) in evaluation mode, fp32.

    Raises
    ------
    ModelError
        The file is damaged, or its parameters do not fit the network.
    ConfigError
        The architecture is not one of this package.
    """
    card = bundle.card
    try:
        find_architecture(card.architecture)  # a card must not name code to import, as configurations may
    except ConfigError:
        raise ConfigError(
            f"torch cannot rebuild '{card.architecture}', which is no architecture of this package",
            file=bundle.path,
            hint="segmenting needs no torch: --runtime onnxruntime",
        ) from None
    options = without_pretrained(card.architecture_options)  # all weights come from the bundle
    data = bundle.read_model(variant)
    try:
        network = fold_batch_norm(build_model(card.architecture, **options))
        found = read_parameters(data)
        # a bias of zeros is left out when ONNX is written
        biases = {k: torch.zeros_like(v) for k, v in network.state_dict().items() if k.endswith("bias")}
        network.load_state_dict(biases | {k: found[k] for k in network.state_dict() if k in found})
    except Exception as error:  # of protobuf, onnx, torch or the network's own
        raise ModelError(
            f"torch cannot rebuild '{card.architecture}' from variant '{variant or card.default_variant}': "
            + first_line(error, 2),
            file=bundle.path,
            hint="those of this version's 'dermseg export' can be, but for transunet and timm encoders; "
            "segmenting needs no torch: --runtime onnxruntime",
        ) from None
    return network.eval()
