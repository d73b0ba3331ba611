"""Find, measure and follow skin lesions in images.

>>> import dermseg
>>> model = dermseg.load_model()
>>> result = model.segment(image)  # uint8 (H, W, 3) RGB
>>> result.mask  # bool (H, W)
>>> dermseg.evaluate("index.csv", split="test").summary()["dice"]
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dermseg.version import __version__

if TYPE_CHECKING:
    from dermseg.api import evaluate, segment
    from dermseg.inference.predictor import Model, load_model
    from dermseg.inference.result import Result

__all__ = ["Model", "Result", "__version__", "evaluate", "load_model", "segment"]

# When it is imported, ONNX Runtime (seen with 1.31 on Linux) makes an id of this device in the user's folder
# and begins to report to its makers. Only this variable, set before, keeps it from that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Heavy imports (cv2, onnxruntime) happen at first use, so that `import dermseg` costs nothing.
_LAZY = {
    "segment": "dermseg.api",
    "evaluate": "dermseg.api",
    "load_model": "dermseg.inference.predictor",
    "Model": "dermseg.inference.predictor",
    "Result": "dermseg.inference.result",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'dermseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # completion in a shell or notebook knows what is not loaded yet
