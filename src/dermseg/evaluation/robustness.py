"""How much a model loses when photographs get worse: every corruption of the suite on every image.

The one figure per model is the *mean corruption error*: 1 minus the Dice coefficient, averaged over
severities, then corruptions, then images. It is not divided by another model's error (as in ImageNet-C), so
it needs no baseline and does not change when a baseline does; the loss against the clean images stands
beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask, write_table
from dermseg.errors import DermsegError, ScoringError
from dermseg.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.evaluate import cluster_of
from dermseg.evaluation.intervals import estimate
from dermseg.evaluation.metrics import dice
from dermseg.evaluation.table import Cluster, Failure
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.inference.threads import available_cpus

if TYPE_CHECKING:
    from dermseg.inference.predictor import Model

Floats = NDArray[np.float64]
CLEAN = "clean"
SIDE = 512
"""Pixels of the shorter side that JPEGs keep when they are decoded to be spoilt, for every model: noise, hair
and blocks of 8 pixels are another spoiling in a picture of another size, and what a model decodes for itself
depends on its network."""


@dataclass(frozen=True, slots=True, eq=False)
class Robustness:
    """Dice coefficients of one model on clean and spoilt images.

    Attributes
    ----------
    images
        ``(dataset, image_id)`` of each image.
    clusters
        Which patient or lesion each belongs to.
    clean
        float64 ``(n,)``.
    spoilt
        float64 ``(n, corruptions, severities)``, in the order of `CORRUPTIONS`.
    failures
        Images that could not be read.
    seed
        What chance started from.
    """

    images: Sequence[tuple[str, str]]
    clusters: Sequence[Cluster]
    clean: Floats
    spoilt: Floats
    failures: Sequence[Failure]
    seed: int

    def summary(self) -> dict[str, object]:
        """The figures as JSON: ``mean_corruption_error`` first, then each corruption's curve.

        Every figure is a mean over images with its intervals (`Estimate.to_dict`); ``loss`` is clean minus
        spoilt over the same images.
        """

        def over_images(values: Floats) -> dict[str, object]:
            return estimate(values, self.clusters).to_dict()

        mean = self.spoilt.mean(axis=(1, 2))
        return {
            "n": len(self.images),
            "metric": "dice",
            "seed": self.seed,
            "mean_corruption_error": over_images(1 - mean),
            "clean": over_images(self.clean),
            "loss": over_images(self.clean - mean),
            "corruptions": [
                {
                    "name": name,
                    "dice": over_images(self.spoilt[:, i].mean(axis=1)),
                    "loss": over_images(self.clean - self.spoilt[:, i].mean(axis=1)),
                    "severities": [float(value) for value in self.spoilt[:, i].mean(axis=0)],
                }
                for i, name in enumerate(CORRUPTIONS)
            ],
            "failed_images": len(self.failures),
        }

    def write_csv(self, path: Path) -> None:
        """Write one row per image, corruption and severity; severity 0 is the clean image."""
        rows: list[tuple[object, ...]] = []
        for (dataset, image_id), clean, spoilt in zip(self.images, self.clean, self.spoilt, strict=True):
            rows.append((image_id, dataset, CLEAN, 0, float(clean)))
            rows += [
                (image_id, dataset, name, severity, float(spoilt[i, j]))
                for i, name in enumerate(CORRUPTIONS)
                for j, severity in enumerate(SEVERITIES)
            ]
        write_table(path, ("image_id", "dataset", "corruption", "severity", "dice"), rows)


def evaluate_robustness(
    model: Model,
    rows: Sequence[IndexRow],
    *,
    threshold: float | None = None,
    tta: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Robustness:
    """Run a model over every corruption of every image: 71 times the work of an evaluation.

    Images are decoded at one size for all models (`SIDE`), spoilt, and compared with their first mask at its
    own size.

    Parameters
    ----------
    model
        As ``dermseg.load_model`` gives it.
    rows
        Rows with at least one mask.
    threshold, tta
        As in ``Model.segment``.
    seed
        Another seed draws other hairs, bubbles and directions.
    progress
        Called with the number of images done since the last call.

    Raises
    ------
    ScoringError
        None of the images could be read.
    """
    images: list[tuple[str, str]] = []
    clusters: list[Cluster] = []
    clean: list[float] = []
    spoilt: list[Floats] = []
    failures: list[Failure] = []
    one_image = partial(_one_image, model, threshold=threshold, tta=tta, seed=seed)
    with ThreadPoolExecutor(available_cpus()) as pool:
        for row, outcome in zip(rows, pool.map(one_image, rows), strict=True):
            if isinstance(outcome, DermsegError):
                failures.append(Failure(row.image_id, str(outcome), row.dataset, cluster_of(row)))
            else:
                group = cluster_of(row)
                images.append(row.key)
                clusters.append(("group", group) if group else ("image", *row.key))
                clean.append(outcome[0])
                spoilt.append(outcome[1])
            if progress is not None:
                progress(1)
    if not images:
        raise ScoringError(f"no image could be scored ({len(failures)} failed, first: {failures[0].reason})")
    return Robustness(images, clusters, np.array(clean), np.stack(spoilt), failures, seed)


def _one_image(
    model: Model, row: IndexRow, *, threshold: float | None, tta: bool, seed: int
) -> tuple[float, Floats] | DermsegError:
    """Dice on the clean image, and float64 ``(corruptions, severities)`` on the spoilt ones."""
    try:
        loaded = load_image(open_image(row), min_side=SIDE)
        reference = load_mask(open_mask(row), size=(loaded.info.height, loaded.info.width))
    except DermsegError as error:
        return error
    values = np.empty((len(CORRUPTIONS), len(SEVERITIES)))
    clean = model.segment(loaded, threshold=threshold, tta=tta)
    for i, name in enumerate(CORRUPTIONS):
        pairs = [
            corrupt(loaded.pixels, reference, name, severity, image_id=row.image_id, seed=seed)
            for severity in SEVERITIES
        ]
        pictures = [replace(loaded, pixels=pixels) for pixels, _ in pairs]
        results = model.segment_batch(pictures, threshold=threshold, tta=tta)
        for j, (result, (_, moved)) in enumerate(zip(results, pairs, strict=True)):
            values[i, j] = dice(count_pixels(result.mask, moved))
    return dice(count_pixels(clean.mask, reference)), values
