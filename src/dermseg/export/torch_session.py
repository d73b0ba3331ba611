"""A session in torch: the network is built again from the card and filled from the bundle's ONNX file.

For comparison, and for devices that torch reaches and ONNX Runtime does not. It works for networks of this
package, whose parameters keep their names in the ONNX file; a foreign model has no network to build.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dermseg.errors import ModelError
from dermseg.export.rebuild import rebuild
from dermseg.inference.bundle import Bundle
from dermseg.inference.session import check_logits, first_line, resolve_threads


class TorchSession:
    """A network of this package in torch, on CUDA where there is a device, else on the CPU.

    torch has one pool of threads for the whole process: ``threads`` sets its size.

    Raises
    ------
    ModelError
        The parameters do not fit the network.
    ConfigError
        The architecture is not one of this package.
    """

    runtime = "torch"

    def __init__(self, bundle: Bundle, variant: str, threads: int | None = None) -> None:
        self.threads = resolve_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = rebuild(bundle, variant).to(self._device)
        torch.set_num_threads(self.threads)

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits ``float32 (N, C, h, w)`` for images ``float32 (N, 3, H, W)``.

        Raises
        ------
        ModelError
            The network does not take this shape.
        """
        images = torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(self._device)
        try:
            with torch.inference_mode():
                logits = self._network(images)
        except RuntimeError as error:
            raise ModelError(f"the model fails on input {batch.shape}: {first_line(error)}") from None
        return check_logits(logits.float().cpu().numpy(), batch)

    def with_features(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        """Logits alone: the pooled features are an output of the ONNX graph."""
        return self(batch), None
