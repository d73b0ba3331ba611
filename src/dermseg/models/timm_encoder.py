"""Any encoder of timm (Wightman 2019, doi:10.5281/zenodo.4414861) that gives a pyramid of feature maps.

timm is an extra and imported only here. ImageNet weights are fetched by timm itself from the Hugging Face
hub, on request; a bundle needs none of it.
"""

from __future__ import annotations

import difflib
from typing import Any

from torch import Tensor

from dermseg.errors import ConfigError, MissingExtraError, ModelError
from dermseg.models.encoders import Encoder

_STRIDES = (2, 4, 8, 16, 32)


class TimmEncoder(Encoder):
    """The feature maps of a timm network at strides 2 (where there is one), 4, 8, 16 and 32.

    Parameters
    ----------
    name
        Model name, with or without a tag: ``resnet34``, ``convnext_tiny.fb_in22k``.
    pretrained
        Let timm fetch its ImageNet weights.

    Raises
    ------
    MissingExtraError
        timm is not installed.
    ConfigError
        timm has no such model, or it gives no pyramid down to stride 32.
    ModelError
        The weights cannot be fetched.
    """

    def __init__(self, name: str, pretrained: bool = False) -> None:
        super().__init__()
        try:
            import timm
        except ImportError:
            raise MissingExtraError(f"the encoder 'timm:{name}'", "timm") from None
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            raise ConfigError(
                f"timm has no model '{name}'",
                hint=f"such as {', '.join(close)}" if close else "see timm.list_models()",
            )
        try:
            self.network: Any = timm.create_model(name, pretrained=pretrained, features_only=True)
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise _no_pyramid(name) from error
            raise ModelError(
                f"timm cannot fetch the weights of '{name}': {str(error).splitlines()[0]}",
                hint="pretrained: false, or fill its cache on a machine with a network",
            ) from error
        except (AttributeError, NotImplementedError):
            raise _no_pyramid(name) from None
        reductions, widths = self.network.feature_info.reduction(), self.network.feature_info.channels()
        self._taken = [i for i, stride in enumerate(reductions) if stride in _STRIDES]
        strides = tuple(reductions[i] for i in self._taken)
        if strides not in (_STRIDES, _STRIDES[1:]):
            raise _no_pyramid(name)
        self.channels = tuple(widths[i] for i in self._taken)
        # some networks give (N, H, W, C), which shapes alone do not tell where H is C
        self._channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.network(x)
        taken = [maps[i] for i in self._taken]
        return [each.permute(0, 3, 1, 2) for each in taken] if self._channels_last else taken


def _no_pyramid(name: str) -> ConfigError:
    return ConfigError(
        f"timm's '{name}' gives no feature maps at strides 4, 8, 16 and 32",
        hint="take a convolutional or hierarchical one, such as resnet34 or convnext_tiny",
    )
