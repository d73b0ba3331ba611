"""Whether what a bundle says about its own uncertainty is true, on images that nothing was fitted on.

Everything is measured on what users get: masks, margins and probabilities at the reference's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import ModelError, UsageError
from dermseg.evaluation import weighted
from dermseg.evaluation.calibration import Calibration, calibrate, pooled_figures
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.looks import Look
from dermseg.evaluation.metrics import JACCARD_THRESHOLD, dice, jaccard
from dermseg.inference.postprocess import upsample
from dermseg.inference.predictor import Model
from dermseg.measure.basics import describe
from dermseg.uncertainty.maps import Floats, binary_entropy
from dermseg.uncertainty.margins import DEFAULT_ALPHA, draw_margins, shrink_mask
from dermseg.uncertainty.predicted_dice import Judgement
from dermseg.uncertainty.trust import FIT_HINT, Trust

Wide = NDArray[np.float64]
Mask = NDArray[np.bool_]

ALPHAS = (0.05, 0.1, 0.15)
_BINS = 512
_SMALLEST = 2.0**-24
_MIN_STRATUM = 20


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of one image.

    Attributes
    ----------
    margins
        For each alpha: share of the lesion outside the outer line, share of the inner region that is not
        lesion, and the areas of both in areas of the mask (NaN where it is empty).
    errors
        For each map of uncertainty, how its values are spread over wrong and right nodes, ``(2, bins)``.
    """

    dataset: str
    group: str
    dice: float
    jaccard: float
    area: float
    touches: bool
    judgement: Judgement
    before: Calibration
    after: Calibration
    margins: dict[float, tuple[float, float, float, float]]
    errors: dict[str, Wide]


def missing_margins(model: Model, alpha: float) -> str:
    """Why there are no margins of a level to measure, in words; empty where there are.

    Fitted on few images a bundle has none of the lower levels, and all else can be measured still.

    Raises
    ------
    ModelError
        Nothing was fitted for the model.
    UsageError
        No bundle has such a level.
    """
    trust = _trust_of(model)
    try:
        trust.outer.at(alpha), trust.inner.at(alpha)
    except UsageError as error:
        if round(alpha, 4) not in {round(level, 4) for level in trust.outer.alphas}:
            raise
        return f"margins are not measured: {error.reason}"
    return ""


def judge(model: Model, looks: Iterable[Look], alpha: float = DEFAULT_ALPHA) -> list[Judged]:
    """Compare what the model says of each image with its reference.

    Parameters
    ----------
    alpha
        Level of the margins that are judged besides those of ``ALPHAS``; what the model does not have is left
        out.

    Raises
    ------
    ModelError
        Nothing was fitted for the model.
    """
    trust = _trust_of(model)
    levels = [level for level in sorted({*ALPHAS, alpha}) if trust.possible(level)]
    return [_judge(model, trust, look, levels) for look in looks]


def _trust_of(model: Model) -> Trust:
    if model.trust is None:
        raise ModelError(f"nothing was fitted for model '{model.card.name}'", hint=FIT_HINT)
    return model.trust


def _judge(model: Model, trust: Trust, look: Look, levels: Sequence[float]) -> Judged:
    reference = look.reference
    size = (reference.shape[0], reference.shape[1])
    probability = look.probability(model.card.postprocessing.temperature)
    result = model.finish(probability, size)
    assert result.judgement is not None
    counts = count_pixels(result.mask, reference)
    margins = {}
    for alpha in levels:
        drawn = draw_margins(result.mask, trust, alpha)
        margins[alpha] = _margin_figures(drawn.outer, drawn.inner, result.mask, reference)
    return Judged(
        dataset=look.row.dataset,
        group=look.group,
        dice=dice(counts),
        jaccard=jaccard(counts),
        area=float(reference.mean()),
        touches=describe(reference).touches_border,
        judgement=result.judgement,
        before=calibrate(upsample(look.probability(1.0), size), reference),
        after=calibrate(result.probability, reference),
        margins=margins,
        errors=_error_histograms(model, look, probability, result.mask),
    )


def _margin_figures(
    outer: Mask, inner: Mask, mask: Mask, reference: Mask
) -> tuple[float, float, float, float]:
    def share(part: Mask, whole: Mask, empty: float) -> float:
        n = int(np.count_nonzero(whole))
        return int(np.count_nonzero(part)) / n if n else empty

    missed, wrong = share(reference & ~outer, reference, 0.0), share(inner & ~reference, inner, 0.0)
    return missed, wrong, share(outer, mask, np.nan), share(inner, mask, np.nan)


def _error_histograms(model: Model, look: Look, probability: Floats, mask: Mask) -> dict[str, Wide]:
    """Values of each map on wrong and right nodes of the network's own grid; empty without passes.

    Bins are even in the logarithm, because most nodes are nearly certain. Each image weighs the same.
    """
    opinions = look.opinions(model.card.postprocessing.temperature)
    if opinions is None:
        return {}
    h, w = opinions.mean.shape
    wrong = shrink_mask(mask, (h, w)) != shrink_mask(look.reference, (h, w))
    plain = np.asarray(cv2.resize(probability, (w, h), interpolation=cv2.INTER_AREA), np.float32)
    maps = {
        "single_pass_entropy": binary_entropy(plain),
        "mc_entropy": opinions.entropy,
        "mc_std": opinions.std,
        "mc_mutual_information": opinions.mutual_information,
    }
    return {name: _histogram(values, wrong) for name, values in maps.items()}


def _histogram(values: Floats, wrong: Mask) -> Wide:
    scaled = np.log2(np.maximum(values, np.float32(_SMALLEST))) / 24 + 1  # [0, 1]
    bins = np.clip((scaled * _BINS).astype(np.intp), 0, _BINS - 1)
    both = [np.bincount(bins[w].ravel(), minlength=_BINS) for w in (wrong, ~wrong)]
    return np.array(both, np.float64) / values.size


def summarise(judged: Sequence[Judged], alpha: float = DEFAULT_ALPHA) -> dict[str, Any]:
    """All figures with 95 % intervals (BCa, over patients or lesions): one block for each data set."""
    names = dict.fromkeys(j.dataset for j in judged)
    return {name: _figures([j for j in judged if j.dataset == name], alpha) for name in names}


def _figures(judged: Sequence[Judged], alpha: float) -> dict[str, Any]:
    groups = [j.group for j in judged]
    true = np.array([j.dice for j in judged])
    failed = np.array([j.jaccard < JACCARD_THRESHOLD for j in judged])
    predicted, low, high = (
        np.array([getattr(j.judgement, name) for j in judged]) for name in ("predicted_dice", "low", "high")
    )
    review = np.array([j.judgement.needs_review for j in judged], np.float64)
    figures: dict[str, weighted.Figure] = {
        "dice": lambda w: weighted.mean(w, true),
        "pearson": lambda w: weighted.pearson(w, predicted, true),
        "auroc_failure": lambda w: weighted.auroc(w, -predicted, failed),
        "gain_refusing_10_percent": lambda w: weighted.refusal_gain(w, predicted, true),
        "mean_absolute_error": lambda w: weighted.mean(w, np.abs(predicted - true)),
        "interval_coverage": lambda w: weighted.mean(w, ((true >= low) & (true <= high)).astype(float)),
        "failures_flagged": lambda w: weighted.mean(w * failed, review),
        "share_flagged": lambda w: weighted.mean(w, review),
    }
    block: dict[str, Any] = {
        "n": len(judged),
        "failures": int(failed.sum()),
        **{name: weighted.with_interval(figure, groups) for name, figure in figures.items()},
        "interval_width": float(np.mean(high - low)),
        "band_ece": {
            "before": _band([j.before for j in judged], groups),
            "after": _band([j.after for j in judged], groups),
        },
    }
    if all(alpha in j.margins for j in judged):
        block["margins"] = _margins(judged, alpha)
    if all(j.errors for j in judged):
        aurocs = {
            name: _pooled_auroc(np.array([j.errors[name] for j in judged])) for name in judged[0].errors
        }
        # On the same images, so the difference is surer than the two intervals look.
        gain = lambda w: aurocs["mc_entropy"](w) - aurocs["single_pass_entropy"](w)  # noqa: E731
        block["pixel_error_auroc"] = {
            name: weighted.with_interval(figure, groups)
            for name, figure in {**aurocs, "mc_minus_single_pass_entropy": gain}.items()
        }
    return block


def _band(parts: Sequence[Calibration], groups: Sequence[str]) -> dict[str, Any] | None:
    known = [(c.band, g) for c, g in zip(parts, groups, strict=True) if c.band is not None]
    if not known:
        return None
    figures = pooled_figures([band for band, _ in known], [g for _, g in known])
    return {"value": figures["ece"], "ci95": figures["ece_bca95"], "brier": figures["brier"]}


def _pooled_auroc(histograms: Wide) -> Callable[[Wide], Wide]:
    yes, no = histograms[:, 0], histograms[:, 1]
    return lambda w: weighted.rank_auroc(w @ yes, w @ no)


def _margins(judged: Sequence[Judged], alpha: float) -> dict[str, Any]:
    groups = [j.group for j in judged]
    rows = np.array([j.margins[alpha] for j in judged])
    seen = np.isfinite(rows[:, 2])
    drawn = [g for g, s in zip(groups, seen, strict=True) if s]
    names = ("missed_outside", "wrong_inside")
    strata = _strata(judged)
    return {
        "alpha": alpha,
        **{
            n: weighted.with_interval(lambda w, v=rows[:, i]: weighted.mean(w, v), groups)  # type: ignore[misc]
            for i, n in enumerate(names)
        },
        "outer_area": weighted.with_interval(lambda w: weighted.median(w, rows[seen, 2]), drawn),
        "inner_area": weighted.with_interval(lambda w: weighted.median(w, rows[seen, 3]), drawn),
        "worst": {n: _worst(rows[:, i], strata) for i, n in enumerate(names)},
        "by_level": {
            f"{a:g}": [_known_mean(column) for column in np.array([j.margins[a] for j in judged]).T]
            for a in judged[0].margins
        },
    }


def _known_mean(values: Wide) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 5) if known.size else None


def _strata(judged: Sequence[Judged]) -> dict[str, Mask]:
    """Quarters of the lesion's share of the image, and whether it is cut by the frame."""
    area, touches = np.array([j.area for j in judged]), np.array([j.touches for j in judged])
    quarter = np.searchsorted(np.quantile(area, [0.25, 0.5, 0.75]), area)
    names = ("smallest", "second", "third", "largest")
    strata = {f"lesion size, {name} quarter": quarter == i for i, name in enumerate(names)}
    return strata | {"cut by the frame": touches, "whole in the image": ~touches}


def _worst(losses: Wide, strata: dict[str, Mask]) -> dict[str, Any] | None:
    """The stratum of at least ``_MIN_STRATUM`` images with the largest mean loss."""
    means = {name: float(losses[w].mean()) for name, w in strata.items() if w.sum() >= _MIN_STRATUM}
    if not means:
        return None
    name = max(means, key=lambda key: means[key])
    return {"stratum": name, "n": int(strata[name].sum()), "value": means[name]}
