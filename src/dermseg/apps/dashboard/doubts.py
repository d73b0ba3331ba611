"""Uncertainty and Grad-CAM of one image, as maps ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from dermseg.inference.postprocess import Floats
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result
from dermseg.uncertainty.maps import Uncertainty
from dermseg.uncertainty.margins import Margins
from dermseg.uncertainty.opinions import open_opinions

if TYPE_CHECKING:
    from dermseg.apps.dashboard.looking import Look

MAPS = {
    "Mean": "mean probability of the passes",
    "Standard deviation": "how far the passes differ",
    "Entropy": "all the doubt there is, in bits",
}


@dataclass(frozen=True, eq=False)
class Layer:
    """A map with the value that gets the brightest colour, and what it shows."""

    values: Floats = field(repr=False)
    peak: float
    caption: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not bool(np.any(self.values > 0))


def doubt(model: Model, look: Look) -> tuple[Uncertainty, str]:
    """Maps of several passes over one image, and how the passes were made."""
    opinions = open_opinions(model)
    return opinions(look.network_input), opinions.summary


def uncertainty_layer(maps: Uncertainty, name: str, how: str) -> Layer:
    """One of the `MAPS`. Mean and entropy run to 1; the deviation to its own largest value."""
    values = {"Mean": maps.mean, "Standard deviation": maps.std, "Entropy": maps.entropy}[name]
    peak = float(values.max()) if name == "Standard deviation" else 1.0
    return Layer(values, peak, f"{name}: {MAPS[name]} ({how})")


def margin_words(margins: Margins, threshold: float, fitted: float) -> str | None:
    """What the lines promise: nothing at another threshold than the `fitted` one. None without lines."""
    if margins.outer_px is None or margins.inner_px is None:
        return None
    lines = f"White lines: {margins.outer_px:.0f} px outside and {margins.inner_px:.0f} px inside the outline"
    if threshold != fitted:
        return (
            f"{lines}. They were fitted for the model's own threshold, {fitted:.2f}; with {threshold:.2f} "
            "nothing is promised: far more of the lesion may lie outside the outer line."
        )
    return (
        f"{lines}. At most {margins.alpha:.0%} of the lesion is expected outside the outer line, and "
        f"at most {margins.alpha:.0%} of what the inner line holds not to be lesion."
    )


def explainable() -> bool:
    """Whether what Grad-CAM needs is installed."""
    return all(find_spec(name) is not None for name in ("torch", "onnx"))


def open_network(model: Model) -> Any:
    """The torch network of a model.

    Raises
    ------
    ModelError
        It cannot be built from the bundle.
    """
    from dermseg.export.rebuild import rebuild

    return rebuild(model.bundle)


def layer_names(network: Any) -> list[str]:
    """Layers that Grad-CAM can show, coarse to fine."""
    from dermseg.explain.network import feature_layers

    return list(feature_layers(network))


def grad_cam_layer(network: Any, look: Look, result: Result, name: str) -> Layer:
    """Grad-CAM of one layer for the outline as it stands."""
    from dermseg.explain.picture import explain_outline

    values = explain_outline(network, look.network_input, result.mask, name)
    return Layer(values, float(values.max()), f"Grad-CAM, layer {name}: where it speaks for the outline")
