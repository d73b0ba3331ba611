"""A run folder as something that predicts: the torch network with its preprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.data.splits import regroup
from dermseg.errors import DermsegError
from dermseg.evaluation.evaluate import cluster_of, score_pair
from dermseg.evaluation.table import Evaluation, Failure, ImageScore
from dermseg.images import load_image
from dermseg.images.masks import load_mask
from dermseg.images.sources import ImageSource
from dermseg.inference.postprocess import upsample
from dermseg.inference.preprocess import to_input
from dermseg.models import build_model, count_parameters, without_pretrained
from dermseg.training.checkpoint import BEST, CONFIG, best_image_size, load_weights
from dermseg.training.config import RunConfig, load_config, network_preprocessing
from dermseg.training.device import pick_device
from dermseg.training.targets import lesion_probability

THRESHOLD = 0.5


class RunModel:
    """The best checkpoint of a run.

    Parameters
    ----------
    folder
        A run folder with ``config.yaml`` and ``best.safetensors``.
    device
        As ``training.device``.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.folder = folder
        self.config: RunConfig = load_config(folder / CONFIG)
        model = self.config.model
        options = without_pretrained(model.options)  # the checkpoint has every weight
        network = build_model(model.architecture, **options)
        load_weights(folder / BEST, network)
        self.parameters = count_parameters(network)
        self.device = pick_device(device)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocessing = network_preprocessing(self.config, best_image_size(folder, self.config))

    @torch.inference_mode()
    def probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From ``uint8 (H, W, 3)`` to ``float32 (h, w)`` at the network's size."""
        x = torch.from_numpy(to_input(image, self.preprocessing)[None]).to(self.device)
        lesion = self.lesion(self.network(x.contiguous(memory_format=torch.channels_last)))
        return np.asarray(lesion[0])

    def lesion(self, logits: torch.Tensor) -> NDArray[np.float32]:
        """Probability of lesion ``float32 (N, h, w)`` for the network's logits ``(N, C, h, w)``."""
        softmax = self.config.model.outputs == "softmax"
        out: NDArray[np.float32] = lesion_probability(logits.float(), softmax).cpu().numpy()
        return out

    def mask(self, source: ImageSource) -> NDArray[np.bool_]:
        """``bool (H, W)`` of an image file, at its own size: threshold 0.5 and nothing else."""
        pixels = load_image(source).pixels
        height, width = pixels.shape[:2]
        mask: NDArray[np.bool_] = upsample(self.probability(pixels), (height, width)) >= THRESHOLD
        return mask

    def reference(self, row: IndexRow, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
        """What ``mask`` is to be: the first mask; of exclusive classes all of them together.

        Raises
        ------
        MaskError
            Not of ``size = (height, width)``.
        """
        first = load_mask(open_mask(row), size=size)
        if self.config.model.outputs == "softmax":
            for number in range(1, min(self.config.model.masks, len(row.masks))):
                first |= load_mask(open_mask(row, number), size=first.shape)
        return first

    def evaluate(self, rows: list[IndexRow]) -> Evaluation:
        """Score the run at the masks' own size, threshold 0.5 and nothing else, so that runs differ by their
        network alone. What cannot be read, or is of another size than its mask, is a failed row."""
        scores: list[ImageScore] = []
        failures: list[Failure] = []
        for row in regroup(rows):
            cluster = cluster_of(row)
            try:
                mask = self.mask(open_image(row))
                height, width = mask.shape
                score = score_pair(row.image_id, mask, self.reference(row, (height, width)))
            except DermsegError as error:
                failures.append(Failure(row.image_id, str(error), row.dataset, cluster))
            else:
                scores.append(replace(score, dataset=row.dataset, group=cluster))
        return Evaluation(scores, failures)
