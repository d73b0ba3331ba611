"""Monte-Carlo dropout without torch (Gal and Ghahramani 2016, arXiv:1506.02142).

The graph comes from ``export.mc_dropout``: the encoder runs once, what follows the first dropout is repeated
in a batch, one pass per row of the masks. The masks are drawn here from a seed, so a result can be repeated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import ModelError, UsageError
from dermseg.inference.session import OrtSession

Floats = NDArray[np.float32]

MC_PART, MC_FILE = "mc_dropout", "mc-dropout.onnx.part"
BOTTLENECK_INPUT, STAGE_INPUT, LOGITS_OUTPUT = "drop_bottleneck", "drop_stage", "mc_logits"
DEFAULT_PASSES = 20
MAX_PASSES = 1000


def draw_masks(
    channels: tuple[int, int], rate: float, passes: int = DEFAULT_PASSES, seed: int = 0
) -> tuple[Floats, Floats]:
    """What the channels are multiplied by: 0 with probability ``rate``, else ``1 / (1 - rate)``.

    Parameters
    ----------
    channels
        Number of channels at the bottleneck and after the lowest decoder stage.
    rate
        Dropout probability, in [0, 1).
    passes
        Number of passes, N.
    seed
        The same seed gives the same masks; more passes extend those of fewer.

    Returns
    -------
    tuple of ndarray
        ``float32 (N, C)`` for each of the two places.
    """
    if not 1 <= passes <= MAX_PASSES:
        raise UsageError(f"the number of passes must lie between 1 and {MAX_PASSES}, got {passes}")
    if not 0.0 <= rate < 1.0:
        raise ModelError(f"a dropout rate lies in [0, 1), got {rate}")
    draws = np.random.default_rng(seed).random((passes, sum(channels)))
    masks = np.where(draws >= rate, np.float32(1.0 / (1.0 - rate)), np.float32(0.0))
    return np.ascontiguousarray(masks[:, : channels[0]]), np.ascontiguousarray(masks[:, channels[0] :])


class McSession(OrtSession):
    """A session of the model with its Monte-Carlo part. Safe to call from several threads at once.

    Parameters
    ----------
    model_bytes
        Content of ``model.onnx`` followed by that of the Monte-Carlo part.
    rate
        Dropout probability that the network was trained with.
    threads
        As for ``OrtSession``.
    """

    def __init__(self, model_bytes: bytes, *, rate: float, threads: int | None = None) -> None:
        super().__init__(model_bytes, threads, output_name=LOGITS_OUTPUT)
        shapes = {node.name: node.shape for node in self._session.get_inputs()}
        if BOTTLENECK_INPUT not in shapes or STAGE_INPUT not in shapes:
            raise ModelError("the model has no inputs for dropout masks", hint="export the bundle again")
        self.channels = (int(shapes[BOTTLENECK_INPUT][1]), int(shapes[STAGE_INPUT][1]))
        self.rate = rate

    def repeat(self, image: Floats, passes: int = DEFAULT_PASSES, seed: int = 0) -> Floats:
        """Logits ``float32 (N, C, h, w)`` on the network's own grid, for one input ``float32 (3, H, W)``."""
        return self.with_masks(image, *draw_masks(self.channels, self.rate, passes, seed))

    def with_masks(self, image: Floats, bottleneck: Floats, stage: Floats) -> Floats:
        """As ``repeat``, for given masks ``float32 (N, C)``."""
        feeds = {self.input_name: image[None], BOTTLENECK_INPUT: bottleneck, STAGE_INPUT: stage}
        logits: Floats = self._session.run([LOGITS_OUTPUT], feeds)[0]
        return logits
