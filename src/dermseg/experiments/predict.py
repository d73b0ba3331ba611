"""A run folder as something that predicts: the torch network with its preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.evaluation.evaluate import evaluate_function
from dermseg.evaluation.table import Evaluation
from dermseg.images import load_image
from dermseg.images.masks import load_mask
from dermseg.inference.preprocess import to_input
from dermseg.models import build_model, count_parameters, without_pretrained
from dermseg.training.checkpoint import BEST, CONFIG, load_weights
from dermseg.training.config import RunConfig, load_config, network_preprocessing
from dermseg.training.device import pick_device

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
        size = self.config.training.image_size
        self.preprocessing = network_preprocessing(self.config, size)

    @torch.inference_mode()
    def probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From ``uint8 (H, W, 3)`` to ``float32 (h, w)`` at the network's size."""
        x = torch.from_numpy(to_input(image, self.preprocessing)[None]).to(self.device)
        x = x.contiguous(memory_format=torch.channels_last)
        out: NDArray[np.float32] = torch.sigmoid(self.network(x).float())[0, 0].cpu().numpy()
        return out

    def evaluate(self, rows: list[IndexRow]) -> Evaluation:
        """Score the run at the masks' own size, threshold 0.5 and nothing else, so that runs differ by their
        network alone."""
        items = (
            (row.image_id, load_image(open_image(row)).pixels, load_mask(open_mask(row))) for row in rows
        )
        return evaluate_function(self.probability, items, threshold=THRESHOLD)
