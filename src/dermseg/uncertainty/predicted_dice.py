"""One number per image: the Dice that the outline would reach if somebody drew a reference.

A ridge regression on the features of the map and their squares. (Boosted trees predicted worse with images
left out.) It is fitted on images with references that the network was not trained on. What is reported about
it comes from predictions for images that were left out (ten folds, lesions of one group stay together), and
so do the interval and the threshold for review.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dermseg.errors import DataError
from dermseg.schema import Stored
from dermseg.uncertainty.features import MAP_FEATURES

Floats = NDArray[np.float64]

FOLDS = 10
LEVEL = 0.9
CAUGHT = 0.8
_PENALTY = 10.0
_CLIP = 4.0  # features further out than this many standard deviations count as this far
_BANDS = 5
_MIN_BAND = 40
_MIN_FAILURES = 10
_FAILED_DICE = 2 * 0.65 / (1 + 0.65)  # Jaccard 0.65, below which the ISIC challenge counts a failure


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is expected of one outline.

    Attributes
    ----------
    predicted_dice
        In [0, 1].
    low, high
        The true Dice lies between them for ``LEVEL`` of such images.
    needs_review
        Whether a person should look at the outline. It says nothing about the lesion.
    """

    predicted_dice: float
    low: float
    high: float
    needs_review: bool


# Of a map without an outline, which nothing was fitted on: whoever sees a lesion agrees in no pixel of it.
NO_OUTLINE = Judgement(0.0, 0.0, 1.0, needs_review=True)


class Regression(Stored):
    """A fitted ridge regression; part of a bundle.

    Parameters
    ----------
    centre, scale
        Median and standard deviation of each feature, ``(k,)``.
    weights
        Of the features in standard deviations, then of their squares, ``(2k,)``.
    """

    base: float
    centre: list[float]
    scale: list[float]
    weights: list[float]

    @model_validator(mode="after")
    def _whole(self) -> Regression:
        k = len(self.centre)
        if len(self.scale) != k or len(self.weights) != 2 * k:
            raise ValueError(f"{k} centres need {k} scales and {2 * k} weights")
        if any(s <= 0 for s in self.scale):
            raise ValueError("a scale is above 0")
        return self

    def predict(self, rows: Floats) -> Floats:
        """Values in [0, 1], ``float64 (n,)``, for rows ``float64 (n, k)``."""
        basis = _basis(rows, np.array(self.centre), np.array(self.scale))
        predicted: Floats = np.clip(self.base + basis @ np.array(self.weights), 0.0, 1.0)
        return predicted


def fit_regression(rows: Floats, target: Floats) -> Regression:
    """Fit ``target (n,)`` on ``rows (n, k)``."""
    centre, spread = np.median(rows, axis=0), rows.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    basis = _basis(rows, centre, scale)
    mean, size = basis.mean(axis=0), basis.std(axis=0)
    size = np.where(size > 1e-9, size, 1.0)
    x = (basis - mean) / size
    weights = np.linalg.solve(x.T @ x + _PENALTY * np.eye(x.shape[1]), x.T @ (target - target.mean())) / size
    return Regression(
        base=float(target.mean() - mean @ weights),
        centre=centre.tolist(),
        scale=scale.tolist(),
        weights=weights.tolist(),
    )


def _basis(rows: Floats, centre: Floats, scale: Floats) -> Floats:
    z = np.clip((rows - centre) / scale, -_CLIP, _CLIP)
    return np.concatenate([z, z**2], axis=1)


class DiceModel(Stored):
    """The regression with its interval and threshold; part of a bundle.

    Parameters
    ----------
    features
        Names of what it takes, in order.
    edges, low, high
        Predictions are sorted into bands by ``edges``; in band i the true value lies between prediction +
        ``low[i]`` and prediction + ``high[i]`` (split conformal within bands, Vovk 2003).
    review_below
        Outlines whose predicted Dice is at most this need review.
    figures
        What it reached on images that were left out.
    """

    features: list[str]
    regression: Regression
    edges: list[float]
    low: list[float]
    high: list[float]
    review_below: float = Field(ge=0.0, le=1.0)
    figures: dict[str, float]

    @model_validator(mode="after")
    def _whole(self) -> DiceModel:
        if len(self.features) != len(self.regression.centre):
            raise ValueError(f"{len(self.features)} features for {len(self.regression.centre)} centres")
        unknown = sorted(set(self.features) - set(MAP_FEATURES))
        if unknown:
            raise ValueError(f"this dermseg has no feature {', '.join(unknown)}")
        if not len(self.low) == len(self.high) == len(self.edges) + 1:
            raise ValueError("low and high have one entry more than edges")
        return self

    def judge(self, features: dict[str, float]) -> Judgement:
        """The prediction with its interval and verdict."""
        row = np.array([[features[name] for name in self.features]])
        dice = float(self.regression.predict(row)[0])
        band = int(np.searchsorted(self.edges, dice))
        low, high = np.clip([dice + self.low[band], dice + self.high[band]], 0.0, 1.0)
        return Judgement(dice, float(low), float(high), dice <= self.review_below)


def fit_dice_model(
    names: Sequence[str],
    rows: Floats,
    dice: Floats,
    failed: NDArray[np.bool_],
    groups: Sequence[Hashable],
    *,
    caught: float = CAUGHT,
    seed: int = 0,
) -> DiceModel:
    """Fit the regressor, its interval and its threshold.

    Parameters
    ----------
    names, rows
        Features and their values ``(n, features)``.
    dice
        What the outlines reach, ``(n,)``.
    failed
        Which outlines count as failures (Jaccard below 0.65), ``bool (n,)``.
    groups
        Images of one group are in the same fold.
    caught
        Share of the failures that are to be flagged.

    Raises
    ------
    DataError
        Fewer groups than folds.
    """
    held_out = held_out_predictions(rows, dice, groups, seed=seed)
    edges, low, high = _interval(held_out, dice)
    review_below = review_threshold(held_out, failed, caught)
    flagged = held_out <= review_below
    figures = {
        "images": float(len(dice)),
        "failures": float(failed.sum()),
        "pearson": _pearson(held_out, dice),
        "mean_absolute_error": float(np.abs(held_out - dice).mean()),
        "failures_flagged": float(flagged[failed].mean()) if failed.any() else 1.0,
        "others_flagged": float(flagged[~failed].mean()) if (~failed).any() else 0.0,
    }
    return DiceModel(
        features=list(names),
        regression=fit_regression(rows, dice),
        edges=edges,
        low=low,
        high=high,
        review_below=review_below,
        figures={name: round(value, 5) for name, value in figures.items()},
    )


def held_out_predictions(
    rows: Floats, target: Floats, groups: Sequence[Hashable], *, seed: int = 0
) -> Floats:
    """For each image the prediction of a regression that has seen no image of its group, ``(n,)``.

    Raises
    ------
    DataError
        Fewer groups than folds.
    """
    numbers: dict[Hashable, int] = {}
    of_image = np.array([numbers.setdefault(g, len(numbers)) for g in groups], np.intp)
    if len(numbers) < FOLDS:
        raise DataError(
            f"images of {len(numbers)} patients or lesions are too few to fit on, {FOLDS} is the least",
            hint="give calib and val a larger share ('dermseg data split --ratios'), or add images",
        )
    fold = (np.random.default_rng(seed).permutation(len(numbers)) % FOLDS)[of_image]
    predicted = np.empty(len(target))
    for k in range(FOLDS):
        out = fold == k
        predicted[out] = fit_regression(rows[~out], target[~out]).predict(rows[out])
    return predicted


def review_threshold(predicted: Floats, failed: NDArray[np.bool_], caught: float) -> float:
    """The lowest prediction at or below which lies the stated share of the failures.

    With fewer than ten failures there is nothing to choose it on: it is the Dice at Jaccard 0.65 then.
    """
    values = np.sort(predicted[failed])
    if len(values) < _MIN_FAILURES:
        return _FAILED_DICE
    return float(values[max(1, math.ceil(round(caught * len(values), 9))) - 1])


def _interval(predicted: Floats, dice: Floats) -> tuple[list[float], list[float], list[float]]:
    bands = max(1, min(_BANDS, len(dice) // _MIN_BAND))
    edges = np.quantile(predicted, np.linspace(0, 1, bands + 1)[1:-1])
    band = np.searchsorted(edges, predicted)
    low, high = [], []
    for i in range(bands):
        residual = np.sort((dice - predicted)[band == i])
        n = len(residual)
        tail = round((1 - LEVEL) / 2, 9)  # a plain 0.05: a hair less would take the next value outwards
        below, above = math.floor(tail * (n + 1)) - 1, math.ceil((1 - tail) * (n + 1)) - 1
        low.append(float(residual[below]) if below >= 0 else -1.0)
        high.append(float(residual[above]) if above < n else 1.0)
    return edges.tolist(), low, high


def _pearson(a: Floats, b: Floats) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
