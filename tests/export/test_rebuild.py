"""A network from a bundle in torch; what it computes is tested with Grad-CAM and the runtimes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dermseg.errors import ConfigError, ModelError
from dermseg.export.rebuild import rebuild
from dermseg.inference.bundle import load_bundle

BUNDLE = load_bundle("default")


def test_a_card_cannot_name_code_to_import() -> None:
    card = BUNDLE.card.model_copy(update={"architecture": "subprocess.check_output"})
    with pytest.raises(ConfigError, match=r"subprocess.*, which is no architecture .*--runtime onnxruntime"):
        rebuild(replace(BUNDLE, card=card))


def test_parameters_of_another_network_are_refused() -> None:
    options = BUNDLE.card.architecture_options | {"decoder_widths": [128, 96, 64]}
    card = BUNDLE.card.model_copy(update={"architecture_options": options})
    with pytest.raises(ModelError, match="cannot rebuild 'encoder_unet'"):
        rebuild(replace(BUNDLE, card=card))
