"""From a run folder to a bundle: ONNX, parity, threshold and card, whole or not at all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.errors import ModelError, UsageError
from dermseg.export.end_to_end import check_filters
from dermseg.export.features import add_features
from dermseg.export.onnx import OPSET, fold_batch_norm, to_onnx
from dermseg.export.paced import counted
from dermseg.export.parity import lesion_probability, run_session, run_torch
from dermseg.export.partner import add_partner, load_partner
from dermseg.export.provenance import INTENDED_USE, LIMITATIONS, describe_training, licence_of, other_maps
from dermseg.export.quantize import CALIBRATION_IMAGES
from dermseg.export.tune import Labelled, tune
from dermseg.export.two_classes import as_one_channel
from dermseg.export.variants import Original, check_names, store_variants
from dermseg.export.write import check_output, write_bundle
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.images.packed import PackedMask
from dermseg.inference.card import ModelCard, Preprocessing
from dermseg.inference.machine import describe_machine, library_versions
from dermseg.inference.partner import check_partner
from dermseg.inference.preprocess import to_input
from dermseg.inference.session import OrtSession
from dermseg.models import build_model, count_parameters, without_pretrained
from dermseg.models.unetpp import UNetPlusPlus
from dermseg.training.checkpoint import BEST, START, best_image_size, load_weights
from dermseg.training.config import ModelConfig, RunConfig, network_preprocessing
from dermseg.training.folder import run_config
from dermseg.training.log import epochs_trained
from dermseg.training.rows import of_other_images, select_rows
from dermseg.training.start import Start, average_with, find_start

CHECKED_IMAGES = 64
MAX_LOGIT_DIFFERENCE = 0.01  # a probability of at most a quarter of this


@dataclass(frozen=True)
class Named:
    """What only a person can say about a bundle."""

    name: str
    version: str
    licence: str = ""  # where it is not given: that of the bundle which the weights began with
    summary: str = ""
    notes: tuple[str, ...] = ()


def export_run(
    run: Path,
    output: Path,
    named: Named,
    *,
    variants: Sequence[str] = ("fp16",),
    end_to_end: bool = False,
    opset: int = OPSET,
    prune: int | None = None,
    partner: str | None = None,
    force: bool = False,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> ModelCard:
    """Export the best weights of a run.

    The threshold and the post-processing are chosen on the run's own validation images, through the
    same decoding and resizing as ``dermseg segment``. Each variant is compared with torch on these images.

    Parameters
    ----------
    variants
        Forms to store, see ``variants``; the first of those with float32 arithmetic is the default.
    end_to_end
        Also a graph from pixels to mask.
    opset
        Of every ONNX file, 13 to 23.
    prune
        Of a UNet++ only the levels down to this depth, with the head there.
    partner
        A bundle of the package whose logits are averaged with those of this network, see ``add_partner``.
    force
        Keep variants that lose more than 0.3 Dice points or are slower than fp32.
    overwrite
        Replace a bundle that is there.

    Raises
    ------
    ModelError
        The weights are missing or do not fit, the network tells more than two classes apart, or what was
        exported differs from torch.
    UsageError
        ``run`` is no run folder, ``output`` exists and may not be replaced, or a variant or opset that does
        not exist, or ``prune`` for a network that is no UNet++; or there can be no such ``partner``.
    ConfigError
        The UNet++ has no head at the depth ``prune``.
    """
    check_output(output, overwrite=overwrite)
    names = check_names(variants)
    other = None if partner is None else load_partner(partner, names, end_to_end=end_to_end)
    config = run_config(run)
    model, network = _trained(run, config.model, prune)
    parameters = count_parameters(model)  # as trained; folding batch norms makes a few fewer
    model = fold_batch_norm(model)
    size = best_image_size(run, config)
    preprocessing = network_preprocessing(config, size)
    if end_to_end:
        check_filters(preprocessing)
    if other is not None:
        check_partner(preprocessing, other)
    report("writing ONNX")
    graph = add_features(to_onnx(model, size, opset), size)
    val = [select_rows(source, config.seed) for source in config.data.val]
    rows = [row for part in val for row in part]
    others = of_other_images(run, config, val)
    for line in others:
        report(f"warning: {line}")
    report(f"reading {len(rows)} validation images")
    inputs, references = _load(rows, preprocessing, report)
    expected = run_torch(model, inputs)
    step = -(-len(rows) // CHECKED_IMAGES)
    largest = float(np.abs(expected[::step] - run_session(OrtSession(graph), inputs[::step])).max())
    if largest > MAX_LOGIT_DIFFERENCE:
        raise ModelError(f"the logits of the ONNX graph differ from torch by {largest:.4f}", file=run)

    report("choosing threshold and post-processing")
    probability = lesion_probability(expected)
    items = [
        Labelled(row.dataset, p, reference)
        for row, p, reference in zip(rows, probability, references, strict=True)
    ]
    postprocessing, trials = tune(items, report=report)
    original = Original(
        graph,
        preprocessing,
        postprocessing,
        inputs,
        probability,
        rows,
        references,
        partial(_calibration, config, preprocessing),
    )
    stored = store_variants(original, names, end_to_end=end_to_end, force=force, report=report)
    card = ModelCard(
        name=named.name,
        version=named.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=named.summary,
        architecture=network.architecture,
        architecture_options=_all_options(type(model), network),
        parameters=parameters,
        licence=named.licence or licence_of(config),
        intended_use=INTENDED_USE,
        limitations=[*LIMITATIONS, *other_maps(network.classes), *others, *named.notes],
        preprocessing=preprocessing,
        postprocessing=postprocessing,
        variants=stored.variants,
        default_variant=next(iter(stored.variants)),
        training=describe_training(config, epochs_trained(run), len(rows), trials),
        export={
            "machine": describe_machine(),
            "versions": library_versions() | {"torch": torch.__version__},
            "refused": stored.refused,
            "left_out": stored.left_out,
        },
    )
    write_bundle(output, card, stored.files)
    return card if other is None else add_partner(output, other, rows, inputs, references, report=report)


def _trained(run: Path, config: ModelConfig, prune: int | None) -> tuple[nn.Module, ModelConfig]:
    """The network with the weights that are to be stored, one channel out, and its configuration."""
    model = build_model(config.architecture, **without_pretrained(config.options))
    load_weights(run / BEST, model)
    if config.init_from and config.average_with_start:
        began = run / START  # what a bundle was turned into; the weights of runs are averaged as they are
        start = Start(weights=began) if began.exists() else find_start(config.init_from)
        average_with(start, model, config.average_with_start)
    if prune is not None:
        if not isinstance(model, UNetPlusPlus):
            raise UsageError(f"--prune is for unetpp, and this run is of {config.architecture}", file=run)
        model = model.pruned(prune)
        config = config.model_copy(update={"options": {**config.options, "widths": [*model.widths]}})
    if config.outputs == "softmax":
        model, config = as_one_channel(model, config)
    if isinstance(model, UNetPlusPlus):  # the graph has the deepest head alone
        config = config.model_copy(update={"options": {**config.options, "deep_supervision": False}})
    return model, config


def _all_options(kind: type[nn.Module], config: ModelConfig) -> dict[str, Any]:
    """Of the network, with those that are not given: defaults may change, the card of this one must not."""
    given = without_pretrained(config.options)
    if "." in config.architecture:  # a class or function of another package
        return given
    known = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in known if p.default is not p.empty} | given


def _load(
    rows: Sequence[IndexRow], preprocessing: Preprocessing, report: Callable[[str], None]
) -> tuple[NDArray[np.float32], list[PackedMask]]:
    inputs = np.empty((len(rows), 3, preprocessing.height, preprocessing.width), np.float32)
    references = []
    for slot, row in zip(inputs, counted(rows, len(rows), "reading", report), strict=True):
        slot[:], size = _network_input(row, preprocessing)
        references.append(PackedMask.of(load_mask(open_mask(row), size=size)))
    return inputs, references


def _calibration(config: RunConfig, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Training images for the ranges of int8, drawn evenly over the sources."""
    sources = [select_rows(source, config.seed) for source in config.data.train]
    each = -(-CALIBRATION_IMAGES // len(sources))
    rows = [row for source in sources for row in source[:: -(-len(source) // each)]]
    return np.stack([_network_input(row, preprocessing)[0] for row in rows])


def _network_input(
    row: IndexRow, preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """What the network sees of an image in ``dermseg segment``, and the image's own height and width."""
    image = load_image(open_image(row), min_side=2 * max(preprocessing.height, preprocessing.width))
    return to_input(image.pixels, preprocessing), (image.info.height, image.info.width)
