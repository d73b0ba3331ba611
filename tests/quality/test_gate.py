"""The Gaussian, the verdict, and a gate as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from dermseg.quality.familiar import Familiar, fit_familiar, pack, unpack
from dermseg.quality.gate import CHECKS, Gate, Head, Limit, Skin
from dermseg.quality.verdict import WORDS, Finding, Verdict, make_verdict

SIZE = 6


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(SIZE, SIZE)) * np.array([10, 5, 1, 1, 0.1, 0.1])
    return (rng.normal(size=(4000, SIZE)) @ mixing + 3).astype(np.float32)


@pytest.fixture
def gate(features: np.ndarray) -> Gate:
    limits = {name: Limit() for name in CHECKS}
    limits |= {
        "unfamiliar": Limit(review=3, reject=6),
        "blur": Limit(review=0.8),
        "small_image": Limit(review=96, reject=32, below=True),
        "no_lesion": Limit(review=0.5),
        "hair": Limit(note=0.0),
    }
    return Gate(
        size=SIZE,
        familiar=fit_familiar(features, keep=5),
        heads={"hair": Head(weights=pack(np.eye(SIZE)[0]), bias=-100.0)},
        skin=Skin(mean=(12, 16), precision=((0.1, 0), (0, 0.1))),
        limits=limits,
    )


def test_strangeness_is_the_mahalanobis_distance(features: np.ndarray) -> None:
    keep_all = fit_familiar(features, keep=SIZE - 1)
    scale = features.std(axis=0)
    z = (features - features.mean(axis=0)) / scale
    precision = np.linalg.inv(np.cov(z.T, bias=True) + 1e-12 * np.eye(SIZE))
    values = np.linalg.eigvalsh(np.cov(z.T, bias=True))
    expected = np.einsum("ij,jk,ik->i", z, precision, z) / SIZE
    if values[0] < 1e-3:  # the floor of `rest`
        expected -= ((z @ np.linalg.eigh(np.cov(z.T))[1][:, 0]) ** 2) * (1 / values[0] - 1e3) / SIZE
    np.testing.assert_allclose(keep_all.strangeness(features), expected, rtol=2e-2, atol=2e-2)
    assert abs(keep_all.strangeness(features).mean() - 1) < 0.1
    assert keep_all.strangeness(features[:1] + 20 * scale)[0] > 10


def test_weights_make_groups_count_the_same() -> None:
    rng = np.random.default_rng(1)
    many, few = rng.normal(0, 1, (900, 4)), rng.normal(6, 1, (100, 4))
    weights = np.r_[np.full(900, 1 / 900), np.full(100, 1 / 100)]
    found = fit_familiar(np.concatenate([many, few]), weights, keep=2)
    np.testing.assert_allclose(unpack(found.mean), 3, atol=0.4)


def test_packed_arrays_are_exact_and_checked(features: np.ndarray) -> None:
    assert np.array_equal(unpack(pack(features[0])), features[0])
    good = fit_familiar(features, keep=2)
    again = Familiar.model_validate_json(good.model_dump_json())
    assert np.array_equal(again.strangeness(features[:9]), good.strangeness(features[:9]))
    for broken in (
        {"mean": pack(features[0][:-1])},
        {"variances": pack(np.array([-1.0, 1]))},
        {"scale": "AAA"},
    ):
        with pytest.raises(ValidationError):
            Familiar.model_validate(good.model_dump() | broken)


def test_the_verdict_is_the_worst_finding_and_says_what_to_do() -> None:
    note, review = Finding("ruler", "accept", 1, 0), Finding("blur", "review", 0.9, 0.8)
    assert Verdict().level == "accept" and Verdict().reasons == ()
    verdict = make_verdict([note, review])
    assert verdict.level == "review" and verdict.reasons[0].startswith("out of focus: retake")
    assert verdict.with_findings([Finding("unfamiliar", "reject", 9, 6)]).as_dict()["verdict"] == "reject"
    assert make_verdict([note]).level == "accept"
    assert all(reason and remedy for reason, remedy in WORDS.values())


def test_limits() -> None:
    limit = Limit(note=1, review=2, reject=3)
    assert [[f.level for f in limit.judge("blur", v)] for v in (1, 1.5, 2.5, 9)] == [
        [], ["accept"], ["review"], ["reject"],
    ]  # fmt: skip
    assert [f.level for f in Limit(review=96, reject=32, below=True).judge("small_image", 20)] == ["reject"]


def test_a_gate_judges_features_and_pixels(gate: Gate, features: np.ndarray) -> None:
    pixels = np.random.default_rng(2).integers(60, 220, (120, 160, 3), np.uint8)
    probability = np.zeros((32, 32), np.float32)
    probability[10:20, 10:20] = 1
    usual = features.mean(axis=0)
    assert gate.judge(pixels, (120, 160), probability, 0.5, usual).level == "accept"
    strange = gate.judge(pixels, (120, 160), probability, 0.5, usual + 30 * features.std(axis=0))
    assert strange.level == "reject" and strange.findings[0].check == "unfamiliar"
    smooth = np.full_like(pixels, 150)  # without any detail, so out of focus as far as can be told
    blurred = gate.judge(smooth, (120, 160), probability, 0.5, usual + 30 * features.std(axis=0))
    assert [finding.check for finding in blurred.findings] == ["blur", "unfamiliar"]
    assert gate.judge(smooth, (120, 160), probability, 0.5, usual).level == "review"
    assert gate.judge(pixels, (120, 160), probability, 0.5, None).level == "accept"
    assert gate.judge(pixels, (120, 160), 0 * probability, 0.5, usual).findings[0].check == "no_lesion"
    assert gate.judge(pixels[:20], (20, 160), probability, 0.5, usual).level == "reject"


def test_a_detector_and_the_colour_of_skin_by_hand(gate: Gate, features: np.ndarray) -> None:
    head = Head(weights=pack(np.arange(SIZE)), bias=-2.0)
    assert head(np.full(SIZE, 0.5, np.float32)) == pytest.approx(0.5 * 15 - 2)
    skin = Skin(mean=(12, 16), precision=((0.25, 0), (0, 1)))
    assert skin.distance(12, 16) == 0 and skin.distance(16, 13) == pytest.approx((4 + 9) ** 0.5)
    hairy = gate.model_copy(update={"heads": {"hair": Head(weights=pack(np.zeros(SIZE)), bias=1.0)}})
    tinted = np.full((120, 160, 3), (90, 90, 220), np.uint8)
    limits = gate.limits | {"cast": Limit(review=5)}
    probability = np.zeros((32, 32), np.float32)
    probability[10:20, 10:20] = 1
    found = hairy.model_copy(update={"limits": limits}).judge(
        tinted, (120, 160), probability, 0.5, features.mean(axis=0)
    )
    assert {"hair", "cast"} <= {finding.check for finding in found.findings}
    assert Finding("unfamiliar", "reject", 9, 6).reason.startswith("not a picture")
    assert Finding("unfamiliar", "review", 4, 3).reason.startswith("not like the dermoscopic")


def test_a_gate_that_does_not_fit_is_refused(gate: Gate) -> None:
    again = Gate.model_validate_json(gate.to_json())
    assert again == gate
    data = gate.model_dump()
    for broken in (
        {"size": SIZE + 1},
        {"limits": {k: v for k, v in data["limits"].items() if k != "blur"}},
        {"limits": data["limits"] | {"moon": {}}},
        {"schema_version": 2},
    ):
        with pytest.raises(ValidationError):
            Gate.model_validate(data | broken)
