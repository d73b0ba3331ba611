"""One photograph laid on another: where what is known is exactly how they lie."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dermseg.measure.align import PAPER, Alignment, align, chain, lay
from dermseg.measure.landmarks import Landmarks, landmarks

SIDE = 320
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def texture(seed: int, side: int) -> NDArray[np.float32]:
    """Spots of several sizes, the same for the same seed."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), s) * s for s in (1.2, 2.5, 5.0)]
    return np.sum(layers, axis=0).astype(np.float32)


def photograph(
    seed: int = 1, growth: float = 1.0, *, size: float = 50, skin: float = 12
) -> tuple[Pixels, Mask]:
    """Skin with a lesion that has grown over it, its own pattern with it; the skin stays where it is.

    ``skin`` is the contrast of the skin; below 12 only its left and right quarter show any.
    """
    radius, center = size * growth**0.5, (SIDE - 1) / 2
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - np.float32(center)
    lesion = np.hypot(x, y) < radius
    inside = cv2.remap(
        texture(seed + 100, SIDE),
        (x / growth**0.5 + center).astype(np.float32),
        (y / growth**0.5 + center).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    spots = skin * texture(seed, SIDE) * ((np.abs(x) > SIDE / 4) | (skin >= 12))
    grey = np.where(lesion, 90 + 25 * inside, 190 + spots)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2), lesion


def moved(
    pixels: Pixels, mask: Mask, turn: float, scale: float, shift: tuple[float, float]
) -> tuple[Pixels, Mask]:
    """The same scene by a camera that is turned, nearer or farther, and aside."""
    matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), turn, scale)
    matrix[:, 2] += shift
    size = (SIDE, SIDE)
    picture = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    outline = cv2.warpAffine(mask.view(np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
    return picture, outline > 0


def marks(pair: tuple[Pixels, Mask]) -> Landmarks:
    return landmarks(*pair)


PHOTOGRAPH = photograph()
FIRST = marks(PHOTOGRAPH)


@settings(max_examples=10)
@given(
    turn=st.floats(-180, 180),
    scale=st.floats(0.75, 1.35),
    shift=st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
)
def test_turn_scale_and_shift_are_found(turn: float, scale: float, shift: tuple[float, float]) -> None:
    found = align(FIRST, marks(moved(*PHOTOGRAPH, turn, scale, shift)))
    assert found is not None and found.scale is not None
    assert found.scale == pytest.approx(1 / scale, rel=0.01)
    # OpenCV's angle turns the picture anticlockwise; the second has to be turned back.
    assert (found.turn - turn + 180) % 360 - 180 == pytest.approx(0, abs=0.7)


@pytest.mark.parametrize("growth", [0.75, 0.9, 1.15])
def test_a_lesion_that_grows_does_not_change_the_scale(growth: float) -> None:
    """Most landmarks are the lesion's, and they say that the second photograph was taken closer."""
    first = marks(photograph(size=75, skin=6))
    second = marks(moved(*photograph(growth=growth, size=75, skin=6), 20, 0.95, (3, -5)))
    found = align(first, second)
    assert found is not None and found.scale is not None
    assert found.scale == pytest.approx(1 / 0.95, rel=0.01)
    whole = replace(first, on_skin=~first.on_skin), replace(second, on_skin=~second.on_skin)
    by_the_lesion = align(*whole)
    assert by_the_lesion is not None and by_the_lesion.scale == pytest.approx(growth**-0.5 / 0.95, rel=0.01)


def stamped(pixels: Pixels) -> Pixels:
    """What a camera or a program writes on every photograph, at the same place."""
    out = pixels.copy()
    for text, row in (("Clinic 2019 sample", 28), ("dermatoscope no. 7", 306)):
        cv2.putText(out, text, (12, row), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255,) * 3, 2, cv2.LINE_AA)
    return out


@pytest.mark.parametrize(("turn", "scale"), [(0, 0.8), (25, 1.3)])
def test_what_moves_with_the_camera_does_not_give_the_scale(turn: float, scale: float) -> None:
    """A stamp agrees with itself better than skin does, and says that nobody has come closer."""
    pixels, lesion = photograph()
    second, outline = moved(pixels, lesion, turn, scale, (3, -5))
    found = align(landmarks(stamped(pixels), lesion), landmarks(stamped(second), outline))
    assert found is not None and found.scale == pytest.approx(1 / scale, rel=0.01)
    bare = [np.where(mask[..., None], [90] * 3, 190).astype(np.uint8) for mask in (lesion, outline)]
    nothing = align(landmarks(stamped(bare[0]), lesion), landmarks(stamped(bare[1]), outline))
    assert nothing is None or nothing.scale is None


def test_a_photograph_and_its_copy_have_one_scale() -> None:
    pixels, lesion = photograph()
    copy = np.clip(0.9 * pixels + np.random.default_rng(1).normal(0, 3, pixels.shape), 0, 255)
    found = align(FIRST, landmarks(copy.astype(np.uint8), lesion))
    assert found is not None and found.scale == pytest.approx(1, rel=1e-3)


def test_a_camera_of_many_more_pixels_is_no_reason_against_a_scale() -> None:
    found = align(FIRST, landmarks(*photograph(), (10 * SIDE, 10 * SIDE)))
    assert found is not None and found.scale == pytest.approx(0.1, rel=1e-3)
    moved_too = align(FIRST, landmarks(*moved(*photograph(), 20, 0.9, (4, 4)), (10 * SIDE, 10 * SIDE)))
    assert moved_too is not None and moved_too.scale == pytest.approx(0.1 / 0.9, rel=0.01)


def test_other_skin_does_not_match() -> None:
    assert align(FIRST, marks(photograph(seed=7))) is None


def test_the_same_lesion_on_skin_that_shows_nothing_has_no_scale() -> None:
    pixels, lesion = photograph()
    bare = np.where(lesion[..., None], pixels, np.uint8(190))
    found = align(FIRST, marks(moved(bare, lesion, 15, 1, (6, -4))))
    assert found is not None and found.matches >= 12
    assert found.scale is None and found.scale_error is None


def test_a_plain_picture_has_no_landmarks() -> None:
    plain = landmarks(np.full((64, 64, 3), 180, np.uint8), np.eye(64, dtype=np.bool_))
    assert len(plain.points) == 0 and plain.descriptors.shape == (0, 128)
    assert align(plain, FIRST) is None and align(FIRST, plain) is None


def test_nothing_is_looked_for_outside_of_the_frame() -> None:
    pixels, lesion = photograph()
    frame = np.zeros_like(lesion)
    frame[:, : SIDE // 2] = True
    found = landmarks(pixels, lesion, frame=frame)
    assert len(found.points) > 100 and found.points[:, 0].max() < SIDE // 2


def test_places_are_those_of_the_whole_photograph() -> None:
    pixels, lesion = photograph()
    twice = cv2.resize(pixels, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    found = align(FIRST, landmarks(pixels, lesion, twice.shape[:2]))
    assert found is not None and found.scale == pytest.approx(0.5, rel=1e-3)
    # the centre of the top left pixel of the small one lies between those of the large one
    assert found.matrix[:, 2] == pytest.approx([-0.25, -0.25], abs=0.1)
    assert FIRST.center == pytest.approx(((SIDE - 1) / 2,) * 2, abs=0.5)
    assert FIRST.diameter == pytest.approx(100, rel=0.02)


def test_the_second_is_laid_on_the_first() -> None:
    second = moved(*photograph(), 35, 1.2, (8, 4))
    found = align(FIRST, marks(second))
    assert found is not None
    sizes = ((SIDE, SIDE), (SIDE, SIDE))
    laid = lay(second[0], found, sizes, (SIDE, SIDE))
    seen = lay(np.ones((SIDE, SIDE), np.uint8), found, sizes, (SIDE, SIDE), nearest=True) > 0
    inside = cv2.erode(seen.view(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert np.abs(laid[inside].astype(int) - photograph()[0][inside]).mean() < 4
    assert (laid[0, 0] == PAPER).all() and not seen[0, 0]
    outline = lay(second[1].view(np.uint8), found, sizes, (SIDE // 2, SIDE // 2), nearest=True) > 0
    small = (
        cv2.resize(photograph()[1].view(np.uint8), (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA) > 0
    )
    assert 2 * (outline & small).sum() / (outline.sum() + small.sum()) > 0.97


def test_a_chain_is_one_after_the_other() -> None:
    second = moved(*photograph(), 30, 0.9, (5, 0))
    third = moved(*photograph(), -20, 1.1, (0, 6))
    links = align(FIRST, marks(second)), align(marks(second), marks(third))
    assert links[0] is not None and links[1] is not None
    found, direct = chain(*links), align(FIRST, marks(third))
    assert found is not None and direct is not None
    assert found.scale == pytest.approx(direct.scale, rel=0.01)
    assert found.matrix == pytest.approx(direct.matrix, abs=1.0)
    unsure = Alignment(links[1].matrix, 20, 3, None, None)
    assert chain(links[0], unsure) is None


@pytest.mark.parametrize("side", [SIDE, 400])
def test_what_was_written_into_both_pictures_is_no_skin(side: int) -> None:
    """A name and a date, at another place of the picture or in one that was exported at another size."""
    written = []
    for seed, size, place in ((1, SIDE, (30, 20)), (2, side, (60, side - 40))):
        pixels, lesion = photograph(seed)
        pixels = cv2.resize(pixels, (size, size))
        for line, text in enumerate(("Clinic 0815", "26-03-14 10:42")):
            where = (place[0], place[1] + 20 * line)
            cv2.putText(pixels, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        written.append(marks((pixels, cv2.resize(lesion.view(np.uint8), (size, size)) > 0)))
    assert align(*written) is None
