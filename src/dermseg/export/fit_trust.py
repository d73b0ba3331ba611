"""Fit what a bundle knows about its own uncertainty, on images that its network was not trained on.

In this order, because each step changes what the next one sees:

1. the temperature, each split of each data set weighing the same; the threshold moves along, so that the
   outlines stay what they are;
2. predicted Dice, its interval and the threshold for review, cross-validated;
3. the outer and inner line: for each split of each data set by itself, and the widest counts.

All of it on ``calib`` and ``val``. What is promised then holds for each of these sources, and a photograph
from somewhere else is more likely to be like one of several than like the easiest or the most frequent. (The
references of ISIC's ``val`` come from other people and tools than those of its ``calib``, which is like the
training images.)

The bundle also gets the part that makes its network one with Monte-Carlo dropout, where it has dropout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, read_index
from dermseg.data.splits import regroup
from dermseg.errors import DataError
from dermseg.evaluation.calibration import boundary_band
from dermseg.evaluation.looks import Look, Outlined, collect, outline
from dermseg.evaluation.metrics import JACCARD_THRESHOLD, dice, jaccard
from dermseg.export.mc_dropout import mc_dropout_part
from dermseg.export.paced import counted
from dermseg.export.write import attach, open_folder, write_card
from dermseg.inference.bundle import Bundle
from dermseg.inference.card import ModelCard, Postprocessing
from dermseg.inference.predictor import Model
from dermseg.uncertainty.conformal import ALPHAS, inner_losses, outer_losses, risk_control
from dermseg.uncertainty.features import MAP_FEATURES
from dermseg.uncertainty.margins import outline_distance, to_margin_grid
from dermseg.uncertainty.mc_dropout import MC_FILE, MC_PART
from dermseg.uncertainty.predicted_dice import CAUGHT, fit_dice_model
from dermseg.uncertainty.temperature import fit_temperature, move_threshold
from dermseg.uncertainty.trust import ATTACHMENT, FILE, Line, Trust
from dermseg.version import __version__

Floats = NDArray[np.float64]

SPLITS = ("calib", "val")
SPLIT_FIRST = (
    "dermseg data split INDEX -o INDEX --overwrite --ratios train=0.6,val=0.15,calib=0.1,test=0.15 "
    "(then train and export again: images of calib must not be trained on)"
)
"""What to do where an index has no split ``calib``, which ``data split`` makes when it is asked to only."""
# Widths of margins that are tried, in roots of the lesion's area.
_LAMBDAS = np.linspace(0.0, 1.5, 601)
_DROPOUT = 0.2  # of encoder_unet, where a card older than the option does not say it


@dataclass(frozen=True)
class Fitted:
    """What goes into the bundle: post-processing for the card, and ``trust.json``."""

    postprocessing: Postprocessing
    trust: Trust


def fit_bundle(
    path: Path,
    indexes: Sequence[Path],
    *,
    caught: float = CAUGHT,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> ModelCard:
    """Fit everything for a bundle and write it into the bundle; what was fitted before is replaced.

    Parameters
    ----------
    path
        The folder of the bundle.
    indexes
        Index files with the splits ``calib`` and ``val``; images without a mask are left out.
    caught
        Share of the failures that the threshold for review is to catch.

    Raises
    ------
    UsageError
        The bundle is a zip.
    DataError
        No images of one of the splits, or an image that cannot be read.
    """
    bundle = open_folder(path)
    model = Model(bundle)
    rows = regroup([row for index in indexes for row in read_index(index)])
    chosen: dict[str, list[IndexRow]] = {}
    for split in SPLITS:
        there = [row for row in rows if row.split == split]
        chosen[split] = [row for row in there if row.masks]
        bare = len(there) - len(chosen[split])
        without = f"; {bare} without a mask are left out" if bare else ""
        report(f"{split}: {len(chosen[split])} images{without}")
    _both(chosen["calib"], chosen["val"])  # before minutes are spent on looking at one of them
    looks = {
        split: list(counted(collect(model, images), len(images), split, report))
        for split, images in chosen.items()
    }
    report("fitting")
    fitted = fit(looks["calib"], looks["val"], bundle.card.postprocessing, caught=caught, seed=seed)
    return _write(bundle, fitted)


def _both(calib: Sequence[object], val: Sequence[object]) -> None:
    """Refuse where one of the splits has no images."""
    if not calib or not val:
        raise DataError(
            f"fitting needs images of both splits, there are {len(calib)} of calib and {len(val)} of val",
            hint=SPLIT_FIRST,
        )


def fit(
    calib: Sequence[Look],
    val: Sequence[Look],
    post: Postprocessing,
    *,
    caught: float = CAUGHT,
    seed: int = 0,
) -> Fitted:
    """Fit everything from the looks at the two splits.

    Parameters
    ----------
    post
        Of the bundle; its temperature and threshold are replaced.

    Raises
    ------
    DataError
        A split is empty, or too small for what is fitted on it.
    """
    _both(calib, val)
    looks = (*calib, *val)
    sources = np.array([f"{look.row.dataset} {look.row.split}" for look in looks])
    counts = Counter(map(str, sources))
    temperature = _temperature(looks, [1 / counts[str(source)] for source in sources], seed)
    # not rounded: where a network is hardly ever wrong, it comes very near to 0 or 1
    threshold = move_threshold(post.threshold, post.temperature, temperature)
    post = post.model_copy(update={"temperature": temperature, "threshold": threshold})

    outlined = [outline(look, post) for look in looks]
    model = fit_dice_model(
        MAP_FEATURES,
        np.array([list(o.features.values()) for o in outlined]),
        np.array([dice(o.counts) for o in outlined]),
        np.array([jaccard(o.counts) < JACCARD_THRESHOLD for o in outlined]),
        [o.look.group for o in outlined],
        caught=caught,
        seed=seed,
    )
    outer, inner, figures = fit_lines(outlined, sources)
    trust = Trust(
        fitted={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "dermseg": __version__,
            "images": dict(counts),
            "temperature": temperature,
            "failures_to_catch": caught,
            "margins_at_0.1": figures,
            "seed": seed,
        },
        dice=model,
        outer=outer,
        inner=inner,
    )
    return Fitted(post, trust)


def _temperature(looks: Sequence[Look], shares: Sequence[float], seed: int) -> float:
    """The pixels near the boundary, which decide the outline, and all pixels of an image count the same.

    ``shares`` is how much each image counts.
    """
    logits, references, weights = [], [], []
    for look, share in zip(looks, shares, strict=True):
        band = boundary_band(look.network_reference)
        for which in (band, np.ones_like(band)):
            if which.any():
                logits.append(look.logits[which])
                references.append(look.network_reference[which])
                weights.append(share)
    return round(fit_temperature(logits, references, weights=weights, seed=seed), 4)


def fit_lines(
    outlined: Sequence[Outlined], sources: NDArray[np.str_]
) -> tuple[Line, Line, dict[str, dict[str, float]]]:
    """Outer and inner line, and what they reach on each source at level 0.1."""
    curves = [_curves(o) for o in outlined]
    lines, figures = [], {str(name): dict[str, float]() for name in np.unique(sources)}
    for i, side in enumerate(("outer", "inner")):
        losses = np.array([c[i] for c in curves])
        widest = _widest([risk_control(losses[sources == name]) for name in figures])
        lambdas = [None if at is None else round(float(_LAMBDAS[at]), 6) for at in widest]
        lines.append(Line(alphas=list(ALPHAS), lambdas=lambdas))
        at = widest[ALPHAS.index(0.1)]
        if at is not None:
            for name, of_source in figures.items():
                of_source[f"{side}_loss"] = round(float(losses[sources == name, at].mean()), 5)
    return lines[0], lines[1], figures


def _widest(found: Sequence[Sequence[int | None]]) -> list[int | None]:
    """For each level the largest index that a source needs; None where one of them cannot be promised."""
    together: list[int | None] = []
    for at in zip(*found, strict=True):
        known = [i for i in at if i is not None]
        together.append(max(known) if len(known) == len(at) else None)
    return together


def _curves(o: Outlined) -> tuple[Floats, Floats]:
    distance = outline_distance(to_margin_grid(o.mask)).astype(np.float64)
    lesion = to_margin_grid(o.look.reference)
    return outer_losses(distance, lesion, _LAMBDAS), inner_losses(distance, lesion, _LAMBDAS)


def _write(bundle: Bundle, fitted: Fitted) -> ModelCard:
    """Put what was fitted beside the model; the card, which names it, comes last."""
    card = bundle.card
    files: dict[str, tuple[str, bytes, dict[str, Any]]] = {}
    files[ATTACHMENT] = (FILE, fitted.trust.to_json().encode(), {})
    # passes are those of one network: for one with a partner, flips and turns of both say more
    together = any(variant.partner for variant in card.variants.values())
    if card.architecture == "encoder_unet" and not together:
        variant = next(name for name in ("fp32", "fp16", "int8-weights") if name in card.variants)
        options = {"variant": variant, "rate": float(card.architecture_options.get("dropout", _DROPOUT))}
        size = card.preprocessing.height, card.preprocessing.width
        files[MC_PART] = (MC_FILE, mc_dropout_part(bundle.read_model(variant), size), options)
    attached = {name: attach(bundle.path, *file) for name, file in files.items()}
    changed = {"postprocessing": fitted.postprocessing, "attachments": {**card.attachments, **attached}}
    return write_card(bundle.path, card.model_copy(update=changed))
