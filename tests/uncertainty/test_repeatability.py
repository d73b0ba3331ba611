"""How far measurements of an unchanged lesion differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dermseg.errors import ModelError
from dermseg.inference.bundle import load_bundle
from dermseg.uncertainty.repeatability import FILE, LEVEL, Limits, fit_limits, load_repeatability


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


@pytest.mark.parametrize("name", ["default", "fast"])
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
