"""Margins of drawn lesions, where the distances are known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from dermseg.errors import ModelError, UsageError
from dermseg.uncertainty.margins import check_margins, draw_margins
from dermseg.uncertainty.trust import Line


class Promised:
    """The lines of a trust, without the rest."""

    outer = Line(alphas=[0.1], lambdas=[0.2])
    inner = Line(alphas=[0.1], lambdas=[0.1])


TRUST: Any = Promised()


def disc(size: tuple[int, int], radius: int) -> Any:
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (size[1] // 2, size[0] // 2), radius, 1, cv2.FILLED)
    return mask > 0


@pytest.mark.parametrize("size", [(160, 240), (900, 1200)])
def test_a_disc_grows_and_shrinks_by_the_stated_pixels(size: tuple[int, int]) -> None:
    radius = size[0] // 6
    mask = disc(size, radius)
    drawn = draw_margins(mask, TRUST, 0.1, spacing_mm=(0.02, 0.02))
    assert drawn.outer_px == pytest.approx(0.2 * np.sqrt(mask.sum()))
    assert drawn.outer_mm == pytest.approx(0.02 * drawn.outer_px) and drawn.inner_mm is not None
    node = max(1.0, max(size) / 256)
    for region, expected in (
        (drawn.outer, radius + drawn.outer_px),
        (drawn.inner, radius - (drawn.inner_px or 0)),
    ):
        assert np.sqrt(region.sum() / np.pi) == pytest.approx(expected, abs=0.5 * node)
    assert not (mask & ~drawn.outer).any() and not (drawn.inner & ~mask).any()


def test_edges_of_what_is_possible() -> None:
    empty = draw_margins(np.zeros((50, 70), np.bool_), TRUST)
    assert not empty.outer.any() and not empty.inner.any() and empty.outer_px is None
    full = draw_margins(np.ones((50, 70), np.bool_), TRUST)
    assert full.outer.all() and 0 < full.inner.sum() < 50 * 70
    oblong = draw_margins(disc((50, 70), 10), TRUST, spacing_mm=(0.02, 0.03))
    assert oblong.outer_px is not None and oblong.outer_mm is None
    cut = np.zeros((100, 100), np.bool_)
    cut[30:70, :40] = True  # the lesion goes on beyond the frame: the inner line does not keep away from it
    assert draw_margins(cut, TRUST).inner[50, 0]
    with pytest.raises(UsageError, match=r"no margin at level 0\.2"):
        check_margins(TRUST, 0.2, "x")
    with pytest.raises(ModelError, match="no margins were fitted"):
        check_margins(None, 0.1, "x")
