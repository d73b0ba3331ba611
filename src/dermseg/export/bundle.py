"""From a run folder to a bundle: ONNX, parity, threshold and card, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.errors import ModelError, UsageError
from dermseg.export.onnx import INPUT_NAME, OPSET, OUTPUT_NAME, fold_batch_norm, store_as_fp16, to_onnx
from dermseg.export.parity import compare, run_onnx, run_torch
from dermseg.export.tune import Labelled, tune
from dermseg.images.load import load_image
from dermseg.images.masks import atomic_write, load_mask
from dermseg.inference.card import Metric, ModelCard, Preprocessing, Variant
from dermseg.inference.preprocess import to_input
from dermseg.models import build_model, count_parameters
from dermseg.training.checkpoint import BEST, LAST, load_state, load_weights
from dermseg.training.config import RunConfig, load_config
from dermseg.training.loop import select_rows

MAX_DICE_LOSS = 0.003  # a stored form that loses more than 0.3 Dice points is refused
PARITY_IMAGES = 64

INTENDED_USE = (
    "Outlining one skin lesion in a dermoscopic or close-up clinical photograph, for research and "
    "measurement. Not a medical device; says nothing about malignancy."
)
LIMITATIONS = [
    "Trained on dermoscopic images of mostly light skin; accuracy on dark skin is not established.",
    "Expects one main lesion that is mostly inside the image.",
    "Reference outlines differ between people; the model cannot be surer than they are.",
]


@dataclass(frozen=True)
class Named:
    """What only a person can say about a bundle."""

    name: str
    version: str
    licence: str
    summary: str = ""
    notes: tuple[str, ...] = ()


def export_run(
    run: Path,
    output: Path,
    named: Named,
    *,
    opset: int = OPSET,
    report: Callable[[str], None] = lambda _: None,
) -> ModelCard:
    """Export the best weights of a run.

    The threshold and the post-processing are chosen on the run's own validation images, through the
    same decoding and resizing as ``dermseg segment``. Weights are stored as fp16 where that changes Dice
    by less than 0.3 points on these images, else as fp32.

    Raises
    ------
    ModelError
        The weights are missing or do not fit, or the exported graph differs from torch.
    UsageError
        ``output`` exists and is not a bundle.
    """
    if output.exists() and any(output.iterdir()) and not (output / "card.json").exists():
        raise UsageError("the folder holds something that is not a bundle", file=output)
    config = load_config(run / "config.yaml")
    options = (
        {**config.model.options, "pretrained": False}
        if "pretrained" in config.model.options
        else dict(config.model.options)
    )
    model = build_model(config.model.architecture, **options)
    load_weights(run / BEST, model)
    parameters = count_parameters(model)  # as trained; folding batch norms makes a few fewer
    model = fold_batch_norm(model)
    size = best_image_size(run, config)
    preprocessing = Preprocessing(
        height=size,
        width=size,
        mean=config.model.mean,
        std=config.model.std,
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
    )
    report("writing ONNX")
    full = to_onnx(model, size, opset)
    rows = [row for source in config.data.val for row in select_rows(source, config.seed)]
    report(f"reading {len(rows)} validation images")
    inputs, references = _load(rows, preprocessing)

    step = max(1, len(rows) // PARITY_IMAGES)
    chosen = slice(None, None, step)
    small = np.stack([_at(references[i], size) for i in range(0, len(rows), step)])
    expected = run_torch(model, inputs[chosen])
    parity = compare(expected, run_onnx(full, inputs[chosen]), small)
    if parity["max_difference"] > 1e-3:
        raise ModelError(f"the ONNX graph differs from torch by {parity['max_difference']:.4f}", file=run)
    data, precision = full, "fp32"
    halved = store_as_fp16(full)
    parity_half = compare(expected, run_onnx(halved, inputs[chosen]), small)
    if parity_half["dice"] >= parity["dice"] - MAX_DICE_LOSS:
        data, precision, parity = halved, "fp32, weights stored as fp16", parity_half
    report(f"parity over {parity['images']} images: {parity}")

    report("choosing threshold and post-processing")
    probabilities = run_onnx(data, inputs)[:, 0]
    items = [
        Labelled(row.dataset, p, reference)
        for row, p, reference in zip(rows, probabilities, references, strict=True)
    ]
    postprocessing, trials = tune(items)
    card = ModelCard(
        name=named.name,
        version=named.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=named.summary,
        architecture=config.model.architecture,
        architecture_options=options,
        parameters=parameters,
        licence=named.licence,
        intended_use=INTENDED_USE,
        limitations=[*LIMITATIONS, *named.notes],
        preprocessing=preprocessing,
        postprocessing=postprocessing,
        variants={
            "fp32": Variant(
                file="model.onnx",
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                precision=precision,
                parity=parity,
            )
        },
        default_variant="fp32",
        training=_training(config, len(rows), trials),
    )
    write_bundle(output, card, {"model.onnx": data})
    return card


def best_image_size(run: Path, config: RunConfig) -> int:
    """The image size at which the best weights were validated: the network must be run at that size."""
    progress: dict[str, Any] = json.loads(load_state(run / LAST)["progress"])
    return config.training.at_epoch(progress["best_epoch"])[0]


def write_bundle(output: Path, card: ModelCard, files: dict[str, bytes]) -> None:
    """Write a bundle folder beside its place and move it in, replacing an older one."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        (temporary / "card.json").write_text(card.to_json(), encoding="utf-8")
        temporary.chmod(0o755)
        if output.exists():
            old = output.with_name(f".{output.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            output.replace(old)
            temporary.replace(output)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def add_metrics(output: Path, card: ModelCard, metrics: Sequence[Metric]) -> ModelCard:
    """The card with what the model reached, written back into its bundle."""
    updated = card.model_copy(update={"metrics": list(metrics)})
    atomic_write(output / "card.json", updated.to_json().encode())
    return updated


def _load(
    rows: Sequence[IndexRow], preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], list[NDArray[np.bool_]]]:
    inputs = np.empty((len(rows), 3, preprocessing.height, preprocessing.width), np.float32)
    references = []
    for slot, row in zip(inputs, rows, strict=True):
        image = load_image(open_image(row), min_side=2 * max(preprocessing.height, preprocessing.width))
        to_input(image.pixels, preprocessing, out=slot)
        references.append(load_mask(open_mask(row), size=(image.info.height, image.info.width)))
    return inputs, references


def _at(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A mask sampled at the centres of ``size x size`` pixels."""
    y = ((np.arange(size) + 0.5) * mask.shape[0] / size).astype(int)
    x = ((np.arange(size) + 0.5) * mask.shape[1] / size).astype(int)
    return mask[np.ix_(y, x)]


def _training(config: RunConfig, val_images: int, trials: list[dict[str, Any]]) -> dict[str, Any]:
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
                "per_epoch": source.per_epoch or len(rows),
                "licences": dict(licences.most_common()),
            }
        )
    t = config.training
    return {
        "data": data,
        "seed": config.seed,
        "epochs": t.epochs,
        "phases": [p.model_dump() for p in t.phases],
        "batch_size": t.batch_size,
        "optimizer": f"AdamW, lr {t.lr}, {t.schedule}, weight decay {t.weight_decay}",
        "loss": t.loss.model_dump(),
        "initialisation": "ImageNet" if config.model.options.get("pretrained") else "random",
        "threshold_chosen_on": f"{val_images} validation images",
        "postprocessing_trials": trials,
    }
