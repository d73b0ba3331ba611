"""Temperature, conformal risk control, predicted Dice and weighted figures, where the truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermseg.errors import DataError, UsageError
from dermseg.evaluation import weighted
from dermseg.evaluation.intervals import estimate
from dermseg.uncertainty.conformal import ALPHAS, inner_losses, outer_losses, risk_control
from dermseg.uncertainty.features import MAP_FEATURES, map_features
from dermseg.uncertainty.maps import Uncertainty, binary_entropy
from dermseg.uncertainty.predicted_dice import DiceModel, _interval, fit_dice_model, review_threshold
from dermseg.uncertainty.temperature import fit_temperature, move_threshold
from dermseg.uncertainty.trust import Line


def test_the_temperature_that_made_the_logits_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = [rng.normal(0, 2, (64, 64)) for _ in range(20)]
    lesions = [rng.random(z.shape) < 1 / (1 + np.exp(-z)) for z in logits]
    assert fit_temperature([3 * z for z in logits], lesions) == pytest.approx(3.0, rel=0.05)
    mixed = [3 * z if i < 10 else z for i, z in enumerate(logits)]
    few = fit_temperature(mixed, lesions, weights=[0.0] * 10 + [1.0] * 10)
    assert few == pytest.approx(1.0, rel=0.05) and fit_temperature(mixed, lesions) > 1.3
    with pytest.raises(DataError, match="lesion and of skin"):
        fit_temperature(logits, [np.ones((64, 64), np.bool_)] * 20)


@given(st.floats(0.05, 0.95), st.floats(0.2, 5.0))
def test_a_moved_threshold_cuts_the_same_logit(threshold: float, temperature: float) -> None:
    logit = math.log(threshold / (1 - threshold))
    moved = move_threshold(threshold, 1.0, temperature)
    assert moved == pytest.approx(1 / (1 + math.exp(-logit / temperature)))


def test_entropy_tells_doubt_from_disagreement() -> None:
    assert binary_entropy(np.array([0.0, 0.5, 1.0], np.float32)) == pytest.approx([0, 1, 0], abs=1e-5)
    doubt = Uncertainty(np.full((4, 2, 2), 0.5, np.float32))
    quarrel = Uncertainty(np.repeat([0.0, 1.0], 2)[:, None, None] * np.ones((1, 2, 2), np.float32))
    assert doubt.entropy == pytest.approx(1.0) and doubt.mutual_information == pytest.approx(0.0, abs=1e-5)
    assert quarrel.entropy == pytest.approx(1.0) and quarrel.mutual_information == pytest.approx(
        1.0, abs=1e-4
    )
    assert quarrel.std == pytest.approx(0.5)


@given(st.integers(0, 2**32 - 1))
def test_losses_are_those_of_the_regions_drawn_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distance, lesion = rng.normal(0, 1, (6, 7)), rng.random((6, 7)) < 0.4
    lambdas = np.linspace(0, 2, 9)
    missed = [(lesion & (distance > a)).sum() / max(lesion.sum(), 1) for a in lambdas]
    assert outer_losses(distance, lesion, lambdas) == pytest.approx(missed)
    wrong = [(~lesion & (distance <= -a)).sum() / max((distance <= -a).sum(), 1) for a in lambdas]
    found = inner_losses(distance, lesion, lambdas)
    assert found == pytest.approx([max(wrong[i:]) for i in range(9)])
    assert np.all(np.diff(found) <= 0) and np.all(found >= np.array(wrong) - 1e-12)


def test_risk_is_controlled_on_new_images() -> None:
    """Over many draws of calibration images, the next image's mean loss is at most alpha, and near it."""
    rng = np.random.default_rng(1)
    lambdas = np.linspace(0, 1, 101)

    def draw(n: int) -> Any:
        return np.clip(rng.beta(2, 5, (n, 1)) * 1.5 - lambdas, 0, 1)

    reached = []
    for _ in range(300):
        at = risk_control(draw(60), [0.1])[0]
        assert at is not None
        reached.append(draw(200)[:, at].mean())
    assert 0.07 < np.mean(reached) <= 0.1
    assert risk_control(np.ones((50, 3)), [0.1]) == [None]
    # nine images without any loss are just enough for one in ten: the tenth may have all of it
    assert [risk_control(np.zeros((n, 3)), [0.1]) for n in (8, 9)] == [[None], [0]]


def test_a_level_that_cannot_be_promised_is_refused() -> None:
    line = Line(alphas=list(ALPHAS), lambdas=[None, *[0.1] * (len(ALPHAS) - 1)])
    assert line.at(0.1) == 0.1
    for alpha in (0.01, 0.105, 0.5):
        with pytest.raises(UsageError, match="no margin at level") as error:
            line.at(alpha)
        assert "0.02 to 0.3" in str(error.value.hint)


def fitted(n: int = 600) -> tuple[DiceModel, Any, Any]:
    rng = np.random.default_rng(2)
    rows = rng.normal(0, 1, (n, len(MAP_FEATURES)))
    dice = np.clip(0.85 + 0.06 * rows[:, 0] - 0.03 * rows[:, 1] ** 2 + rng.normal(0, 0.03, n), 0, 1)
    failed = dice < np.quantile(dice, 0.1)
    return fit_dice_model(MAP_FEATURES, rows, dice, failed, list(range(n)), caught=0.8), rows, dice


def test_predicted_dice_is_near_the_truth_and_survives_json() -> None:
    model, rows, dice = fitted()
    again = DiceModel.model_validate_json(model.model_dump_json())
    judged = [again.judge(dict(zip(MAP_FEATURES, row, strict=True))) for row in rows]
    assert np.corrcoef([j.predicted_dice for j in judged], dice)[0, 1] > 0.85
    covered = np.mean([j.low <= d <= j.high for j, d in zip(judged, dice, strict=True)])
    assert 0.86 < covered < 0.97
    assert 0.8 <= model.figures["failures_flagged"] <= 0.85 and model.figures["others_flagged"] < 0.15
    assert all(j.needs_review == (j.predicted_dice <= model.review_below) for j in judged)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [(("features", 0), "moonlight", "no feature moonlight"), (("low",), [0.0], "one entry more")],
)
def test_a_dice_model_that_does_not_fit_together_is_refused(path: Any, value: Any, text: str) -> None:
    data: Any = fitted(80)[0].model_dump()
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=text):
        DiceModel.model_validate(data)


def test_catching_no_failure_does_not_flag_all() -> None:
    predicted, failed = np.linspace(0.5, 0.9, 40), np.arange(40) < 12
    assert review_threshold(predicted, failed, 0.0) == 0.5
    assert review_threshold(predicted, failed, 1.0) == predicted[11]
    assert review_threshold(predicted, np.arange(40) < 20, 0.55) == predicted[10]  # 11.000000000000002 of 20


def test_the_interval_leaves_out_exactly_what_it_may() -> None:
    predicted, residual = np.full(39, 0.5), np.linspace(-0.19, 0.19, 39)
    _, low, high = _interval(predicted, predicted + np.random.default_rng(0).permutation(residual))
    assert (low, high) == (pytest.approx([-0.18]), pytest.approx([0.18]))  # 36 of 40 gaps: 9 of 10


def test_an_interval_stays_a_share() -> None:
    model = fitted(80)[0].model_copy(update={"edges": [], "low": [2.0], "high": [3.0]})
    judged = model.judge(dict.fromkeys(MAP_FEATURES, 0.0))
    assert (judged.low, judged.high) == (1.0, 1.0)


def test_too_few_groups() -> None:
    with pytest.raises(DataError, match=r"2 patients or lesions are too few .* 10 is the least") as caught:
        fit_dice_model(["a"], np.zeros((40, 1)), np.ones(40), np.zeros(40, np.bool_), [0, 1] * 20)
    assert "--ratios" in str(caught.value.hint)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_features_exist_for_every_map(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random((height, width)).astype(np.float32)
    for mask in (p >= 0.5, np.zeros_like(p, np.bool_), np.ones_like(p, np.bool_)):
        values = map_features(p, mask, 0.5)
        assert tuple(values) == MAP_FEATURES and np.isfinite(list(values.values())).all()


def test_a_certain_map_is_expected_to_be_right() -> None:
    mask = np.zeros((200, 260), np.bool_)
    mask[60:140, 80:180] = True
    sure = map_features(mask.astype(np.float32), mask, 0.5)
    unsure = map_features(np.where(mask, 0.6, 0.3).astype(np.float32), mask, 0.5)
    assert sure["expected_dice"] > 0.97 > 0.5 > unsure["expected_dice"]
    assert sure["entropy_band"] < 0.25 < unsure["entropy_band"]
    assert sure["solidity"] > 0.95 and sure["border_share"] == 0


def test_weighted_figures_are_the_plain_ones_at_weight_one() -> None:
    rng = np.random.default_rng(3)
    a, b, one = rng.normal(0, 1, 50), rng.normal(0, 1, 50), np.ones(50)
    positive = b > 0.5
    assert float(weighted.pearson(one, a, b)) == pytest.approx(np.corrcoef(a, b)[0, 1])
    pairs = (a[positive][:, None] > a[~positive]).mean()
    assert float(weighted.auroc(one, a, positive)) == pytest.approx(pairs)
    assert float(weighted.refusal_gain(one, a, b)) == pytest.approx(b[np.argsort(a)[5:]].mean() - b.mean())
    assert float(weighted.median(one[:49], a[:49])) == np.median(a[:49])
    plain = estimate(a, [i // 2 for i in range(50)])
    found: Any = weighted.with_interval(lambda w: weighted.mean(w, a), [i // 2 for i in range(50)])
    assert found["value"] == pytest.approx(plain.mean) and found["ci95"] == pytest.approx(plain.bca, abs=0.03)
    flat: Any = weighted.with_interval(
        lambda w: weighted.mean(w, np.tile(a[:2], 25)), [i // 2 for i in range(50)]
    )
    assert flat["ci95"] is None  # each patient has the same two values: no width is no interval
    doubled = np.where(np.arange(50) < 10, 2.0, 1.0)
    assert float(weighted.mean(doubled, a)) == pytest.approx(np.r_[a, a[:10]].mean())
