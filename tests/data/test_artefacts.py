"""Artefacts: they change the picture, never its geometry, and keep off what they must not cover."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermseg.data.artefacts import (
    add_bubbles,
    add_gel,
    add_hair,
    add_ink,
    add_patch,
    add_ruler,
    add_vignette,
)
from dermseg.errors import UsageError

Artefact = Callable[[np.random.Generator, np.ndarray], np.ndarray]
EVERY: tuple[Artefact, ...] = (
    add_bubbles, add_gel, add_hair, add_ink, add_patch, add_ruler, add_vignette,
)  # fmt: skip


def skin(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), (214, 160, 148), np.uint8)


@pytest.mark.parametrize("add", EVERY)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 90), width=st.integers(1, 90))
@settings(max_examples=15, deadline=None)
def test_any_size_and_seed_gives_an_image_of_the_same_size(
    add: Artefact, seed: int, height: int, width: int
) -> None:
    image = skin(height, width)
    out = add(np.random.default_rng(seed), image)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert out is not image
    assert (image == skin(height, width)).all(), "the input was written to"


@pytest.mark.parametrize("add", EVERY)
def test_the_generator_decides_everything(add: Artefact) -> None:
    first, again, other = (add(np.random.default_rng(seed), skin(128, 160)) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("add", EVERY)
def test_each_is_visible_but_leaves_most_of_the_skin(add: Artefact) -> None:
    image = skin(192, 192)
    changed = [
        float((np.abs(add(np.random.default_rng(seed), image).astype(int) - image) > 6).any(axis=2).mean())
        for seed in range(20)
    ]
    assert max(changed) > 0.001
    assert np.median(changed) < 0.5


@pytest.mark.parametrize("add", [add_patch, add_ink])
def test_patch_and_ink_never_cover_what_they_must_avoid(
    add: Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray],
) -> None:
    avoid = np.zeros((160, 160), bool)
    avoid[20:140, 20:140] = True
    image = skin(160, 160)
    for seed in range(20):
        out = add(np.random.default_rng(seed), image, avoid)
        darkened = np.abs(out.astype(int) - image)[40:120, 40:120].max()  # a patch's soft shadow may reach in
        assert darkened <= 1, seed


def test_an_image_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="float64"):
        add_hair(np.random.default_rng(0), np.zeros((8, 8, 3)))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\(8, 8\)"):
        add_vignette(np.random.default_rng(0), np.zeros((8, 8), np.uint8))
