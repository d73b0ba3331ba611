"""How far measurements of an unchanged lesion differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dermseg.errors import ModelError
from dermseg.inference.bundle import load_bundle
from dermseg.uncertainty.repeatability import (
    FILE,
    LEVEL,
    Limits,
    Repeatability,
    fit_limits,
    load_repeatability,
)


def test_the_limit_is_the_conformal_quantile() -> None:
    ratios = [1.01, 0.98, 1.2, 0.7, 1.05, 1.0, 1.1, 0.95, 1.02]
    differences = [3.0, -1.0, 0.5, -6.5, 2.0, 1.0, 0.0, 4.0, -2.0, 0.1]
    assert fit_limits(ratios, [1.0] * 9, differences) == Limits(
        pairs=9, area=round(-np.log(0.7), 4), diameter=None, contrast_pairs=10, contrast=6.5
    )
    few = fit_limits(ratios[:8], ratios[:8], differences[:8])  # for nine in ten
    assert few.area is None and few.contrast is None and fit_limits([], [], []).area is None


def test_nine_of_ten_new_pairs_lie_within() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        *known, new = np.exp(rng.normal(0, 0.1, 41))
        limit = fit_limits(known, known, []).area
        assert limit is not None
        inside.append(abs(np.log(new)) <= limit)
    assert np.mean(inside) == pytest.approx(LEVEL, abs=0.04)


def test_nine_of_ten_doubtful_pairs_lie_within_their_own_limit() -> None:
    """Of pairs that are not both accepted far more lay beyond the limit of all pairs together."""
    rng = np.random.default_rng(1)
    of_all, of_others = [], []
    for _ in range(300):
        sure, doubtful = (list(np.exp(rng.normal(0, spread, n))) for spread, n in ((0.05, 60), (0.2, 26)))
        *doubtful, new = doubtful
        known = Repeatability(
            accepted=fit_limits(sure, sure, []),
            others=fit_limits(doubtful, doubtful, []),
            all=fit_limits(sure + doubtful, sure + doubtful, []),
        )
        assert known.others is not None and known.all.area is not None and known.others.area is not None
        assert known.of_pair(both_accepted=False) == known.others
        of_all.append(abs(np.log(new)) <= known.all.area)
        of_others.append(abs(np.log(new)) <= known.others.area)
    assert np.mean(of_all) < 0.8 and np.mean(of_others) == pytest.approx(LEVEL, abs=0.04)


def test_files_that_do_not_tell_the_doubtful_pairs_apart_are_read() -> None:
    """Those of 0.1.0: what they know of all pairs is the best there is."""
    limits = '{"pairs":85,"area":0.1883,"diameter":0.1325,"contrast_pairs":166,"contrast":7.0878}'
    text = f'{{"schema_version":1,"fitted":{{}},"accepted":{{"pairs":6}},"all":{limits}}}'
    known = Repeatability.model_validate_json(text)
    assert known.others is None and known.of_pair(both_accepted=False) == known.all
    assert known.of_pair(both_accepted=True).area is None


@pytest.mark.parametrize("name", ["default", "fast", "accurate"])
def test_the_bundled_models_know_theirs(name: str) -> None:
    known = load_repeatability(load_bundle(name))
    assert known is not None and known.accepted.pairs >= 30
    assert known.accepted.area is not None and known.all.area is not None
    assert 0.02 < known.accepted.area < known.all.area < 0.4
    assert known.accepted.contrast_pairs >= 50 and 2 < (known.accepted.contrast or 0) < 15


def test_a_changed_file_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    assert load_repeatability(load_bundle(tiny_bundle)) is None
    copy = tmp_path / "bundle"
    shutil.copytree(load_bundle("fast").path, copy)
    (copy / FILE).write_text((copy / FILE).read_text().replace("0.1", "0.2", 1))
    with pytest.raises(ModelError):
        load_repeatability(load_bundle(copy))
