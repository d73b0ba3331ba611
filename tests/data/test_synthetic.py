"""Synthetic images: exact masks, one seed one picture, and the variety the documentation promises."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermseg.data.synthetic import synthesize
from dermseg.data.synthetic_lesion import EDGE_LEVEL, PATTERN_SHARES, draw_density, draw_outline
from dermseg.errors import UsageError


def digest(seed: int, size: tuple[int, int]) -> str:
    image, mask, _ = synthesize(seed, size)
    return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


@given(seed=st.integers(0, 2**63), height=st.integers(32, 200), width=st.integers(32, 200))
@settings(max_examples=60, deadline=None)
def test_the_mask_is_one_component_without_holes_and_leaves_skin(seed: int, height: int, width: int) -> None:
    image, mask, parameters = synthesize(seed, (height, width))
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (height, width)
    assert mask.dtype == np.bool_
    assert mask.any()
    assert not mask.all()
    assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] == 2
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert (cv2.drawContours(mask.astype(np.uint8), contours, -1, 1, cv2.FILLED) == mask).all()
    assert json.loads(json.dumps(parameters, allow_nan=False)) == parameters
    assert parameters["area_fraction"] == pytest.approx(mask.mean(), abs=1e-5)


@pytest.mark.parametrize("pattern", PATTERN_SHARES)
def test_the_mask_is_where_pigment_passes_the_edge_level_at_any_softness(pattern: str) -> None:
    for seed, softness in enumerate((0.001, 0.008, 0.05)):
        rng = np.random.default_rng(seed)
        outline = draw_outline(rng, (120, 150), streaks=pattern == "streaks")
        density = draw_density(rng, outline, softness=softness)
        assert ((density > EDGE_LEVEL) == outline.mask).all()


def test_a_seed_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from dermseg.data.synthetic import synthesize;"
        "i, m, _ = synthesize(11, (96, 128)); print(hashlib.sha256(i.tobytes() + m.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(11, (96, 128))
    assert digest(12, (96, 128)) != digest(11, (96, 128))


def test_one_seed_shows_one_lesion_at_any_size() -> None:
    for seed in range(8):
        small = synthesize(seed, (96, 128))[1]
        large = cv2.resize(
            synthesize(seed, (288, 384))[1].astype(np.float32), (128, 96), interpolation=cv2.INTER_AREA
        )
        overlap = 2 * (small & (large > 0.5)).sum() / (small.sum() + (large > 0.5).sum())
        assert overlap > 0.85, seed


def test_every_lesion_is_visible() -> None:
    for seed in range(40):
        image, mask, parameters = synthesize(seed, (160, 160))
        lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        reach = np.ones((25, 25), np.uint8)
        ring = cv2.dilate(mask.astype(np.uint8), reach).astype(bool) & ~cv2.dilate(
            mask.astype(np.uint8), np.ones((9, 9), np.uint8)
        ).astype(bool)
        difference = np.linalg.norm(np.median(lab[mask], axis=0) - np.median(lab[ring], axis=0))
        assert difference > 6, (seed, parameters)


def test_the_images_vary_as_promised() -> None:
    drawn = [synthesize(seed, (64, 80))[2] for seed in range(300)]
    assert {p["pattern"] for p in drawn} == set(PATTERN_SHARES)
    assert {p["fitzpatrick"] for p in drawn} == {"I", "II", "III", "IV", "V", "VI"}
    assert {name for p in drawn for name in p["artefacts"]} == {
        "patch", "ink", "hair", "ruler", "gel", "bubbles", "vignette",
    }  # fmt: skip
    assert 0.05 < np.mean([p["touches_border"] for p in drawn]) < 0.4
    areas = [p["area_fraction"] for p in drawn]
    assert min(areas) < 0.05
    assert max(areas) > 0.45


def test_senseless_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="seed -1"):
        synthesize(-1)
    with pytest.raises(UsageError, match="16 x 300"):
        synthesize(0, (16, 300))
