"""What a card says of where a model comes from: data, recipe, first weights, licence, and its limits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dermseg.errors import ModelError
from dermseg.inference.bundle import BUNDLED, is_bundled_name, load_bundle
from dermseg.training.checkpoint import CONFIG
from dermseg.training.config import RunConfig, expand, load_config
from dermseg.training.log import epochs_trained
from dermseg.training.rows import select_rows

UNSPECIFIED = "unspecified"
INTENDED_USE = (
    "Outlining one skin lesion in a dermoscopic or close-up clinical photograph, for research and "
    "measurement. Not a medical device; says nothing about malignancy."
)
LIMITATIONS = [
    "Accuracy on skin tones, cameras and kinds of lesions that the training images lack is not established.",
    "Expects one main lesion that is mostly inside the image.",
    "Reference outlines differ between people; the model cannot be surer than they are.",
]


def describe_training(
    config: RunConfig, epochs: int | None, val_images: int, trials: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the model was made from: data with licences, recipe, and how the threshold was chosen."""
    data = []
    for source in config.data.train:
        rows = select_rows(source, config.seed)
        licences = Counter(row.licence or "unknown" for row in rows)
        names = sorted({row.dataset for row in rows})
        data.append(
            {
                "dataset": ", ".join(names),
                "split": source.split,
                "images": len(rows),
                "per_epoch": source.images_per_epoch(len(rows)),
                "licences": dict(licences.most_common()),
            }
        )
    t = config.training
    return {
        "data": data,
        "seed": config.seed,
        "epochs": epochs or t.epochs,
        "phases": [p.model_dump() for p in t.phases],
        "batch_size": t.batch_size,
        "optimizer": f"{t.optimizer}, lr {t.lr}, {t.schedule}, weight decay {t.weight_decay}",
        "loss": t.loss.model_dump(),
        "initialisation": initialisation_of(config),
        **_averaged(config),
        "teachers": [Path(name).name for name in config.data.teachers],
        "threshold_chosen_on": f"{val_images} validation images",
        "postprocessing_trials": trials,
    }


def other_maps(classes: int) -> list[str]:
    """What is said of a network of several attributes."""
    if classes == 1:
        return []
    return [f"The network gives {classes} maps; outlines and figures are those of the first one."]


def _averaged(config: RunConfig) -> dict[str, str]:
    """What the exported weights are the mean of, where they are one."""
    if not (start := config.model.init_from) or not (share := config.model.average_with_start):
        return {}
    return {"weights": f"{100 - 100 * share:g} % as trained, {100 * share:g} % of {Path(start).name}"}


def _place(start: str) -> Path:
    """The folder or file that weights began with; a name of the package is not a folder here."""
    return BUNDLED / start if is_bundled_name(start) else expand(start)


def licence_of(config: RunConfig) -> str:
    """The licence of the bundle that the weights began with, however many runs ago, as far as it is known."""
    if not (start := config.model.init_from):
        return UNSPECIFIED
    earlier = _place(start)
    run = earlier.parent if earlier.suffix == ".safetensors" else earlier
    if (run / CONFIG).is_file():
        return licence_of(load_config(run / CONFIG))
    try:
        first = load_bundle(earlier).card
    except ModelError:  # weights without a card, or gone
        return UNSPECIFIED
    return first.licence if first.licence == UNSPECIFIED else f"that of {first.name}: {first.licence}"


def initialisation_of(config: RunConfig) -> str:
    """Where the weights came from, stage by stage."""
    if start := config.model.init_from:
        earlier = _place(start) / CONFIG
        name = Path(start).name
        if not earlier.is_file():
            return name
        first = load_config(earlier)
        epochs = epochs_trained(earlier.parent) or first.training.epochs
        return f"{name}, {epochs} epochs from {initialisation_of(first)}"
    return "ImageNet" if config.model.options.get("pretrained") else "random"
