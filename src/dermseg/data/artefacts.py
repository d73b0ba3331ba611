"""What lies on or around the skin in dermoscopic images: hair, rulers, bubbles, ink, patches, dark corners.

Every function takes ``(rng, image)``: the source of every choice, and a uint8 (H, W, 3) RGB image, which it
leaves as it is. It returns a new image of the same type and size; anything else is a ``UsageError``.
Masks stay valid, since none of these moves a lesion. They serve the synthetic generator and, one by one,
training augmentation, so each costs about a millisecond at 256 x 256. All lengths are shares of the shorter
side: the same picture at any size.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.painting import (
    SHIFT,
    Image,
    Mask,
    as_uint8,
    covered_points,
    fixed,
    grain,
    halve,
    image_size,
    jitter,
    line,
    near_edge,
    paint,
    relief,
)

Point = NDArray[np.float64]
_TRIES = 6  # places tried for things that should not cover the lesion


def _freest(points: Point, avoid: Mask | None, propose: Callable[[], Point]) -> Point:
    """Of a few proposed places that where ``points`` (N, 2) lie least on ``avoid``, or the first free one."""
    best, fewest = np.zeros(2), np.inf
    for _ in range(_TRIES):
        place = propose()
        covered = covered_points(avoid, points + place)
        if covered < fewest:
            best, fewest = place, covered
        if covered == 0:
            break
    return best


def add_hair(rng: np.random.Generator, image: Image) -> Image:
    """Lay hairs over the image: a few long dark ones, many thin ones, pale vellus hair, or shaved stubble."""
    height, width = image_size(image)
    side = min(height, width)
    kind = rng.choice(4, p=(0.38, 0.34, 0.12, 0.16))
    if kind == 0:  # long, dark, strongly curved
        count, reach, spread, thick = rng.integers(2, 9), (0.5, 1.5), 0.9, rng.uniform(0.003, 0.008)
        colour, opacity = jitter(rng, (38, 26, 22), 14), (0.75, 1.0)
    elif kind == 1:  # many, thin, brown
        count, reach, spread, thick = rng.integers(6, 26), (0.3, 1.0), 0.5, rng.uniform(0.0025, 0.0045)
        colour, opacity = jitter(rng, (92, 62, 46), 26), (0.4, 0.85)
    elif kind == 2:  # vellus: lighter than the skin
        count, reach, spread, thick = rng.integers(5, 20), (0.15, 0.6), 0.6, rng.uniform(0.0025, 0.0045)
        colour, opacity = jitter(rng, (226, 206, 186), 18), (0.25, 0.6)
    else:  # shaved: short, straight, one direction
        count, reach, spread, thick = rng.integers(15, 70), (0.02, 0.09), 0.35, rng.uniform(0.0025, 0.006)
        colour, opacity = jitter(rng, (48, 34, 30), 16), (0.6, 0.95)

    curves = _hair_curves(
        rng, int(count), (height, width), reach, spread=spread, bend=0.05 if kind == 3 else 0.22
    )
    strength = np.sort(rng.uniform(*opacity, count) * 255.0)  # faint first: later hairs lie on top
    thickness = np.maximum(1, np.round(2 * thick * side * rng.uniform(0.7, 1.3, count))).astype(int)
    cover = np.zeros((2 * height, 2 * width), np.uint8)
    points = np.round(curves * (2 << SHIFT)).astype(np.int32)
    tip = points.shape[1] * 2 // 3
    for curve, value, wide in zip(points, strength, thickness, strict=True):
        thin = max(1, int(wide) - 1)
        line(cover, curve[tip - 1 :], float(value), thin)  # hairs taper towards the tip
        line(cover, curve[:tip], float(value), int(wide))
    return paint(image, colour, halve(cover))


def add_vignette(rng: np.random.Generator, image: Image) -> Image:
    """Darken what lies outside a circle: corners only, or the full ring that a dermatoscope's tube leaves."""
    height, width = image_size(image)
    half = 0.5 * min(height, width)
    corner = float(np.hypot(height, width)) / 2 / half
    full = rng.random() < 0.15
    radius = rng.uniform(0.86, 1.0) if full else rng.uniform(0.72, 0.97) * corner
    soft = rng.uniform(0.01, 0.06) if rng.random() < 0.7 else rng.uniform(0.08, 0.35)
    reach = 0.05 if full else 0.10
    centre = (np.array((height, width)) - 1) / 2 + rng.uniform(-reach, reach, 2) * half
    down = ((np.arange(height, dtype=np.float32) - np.float32(centre[0])) / np.float32(half))[:, None]
    right = ((np.arange(width, dtype=np.float32) - np.float32(centre[1])) / np.float32(half))[None, :]
    distance = cv2.magnitude(np.repeat(down, width, 1), np.repeat(right, height, 0))
    outer = cv2.convertScaleAbs(distance - np.float32(radius - soft), alpha=255.0 / (2 * soft))
    outer[distance < radius - soft] = 0
    outer = as_uint8(cv2.LUT(outer, _SMOOTHSTEP))
    strength = 1.0 if soft < 0.07 else rng.uniform(0.5, 1.0)  # a sharp edge is the black tube itself
    colour = rng.uniform(2, 22) + rng.uniform(0, 8, 3)
    return paint(image, colour, outer, strength)


def add_ruler(rng: np.random.Generator, image: Image, avoid: Mask | None = None) -> Image:
    """Lay a millimetre scale on the image: a thin drawn one with its "mm", or bare ticks along a side.

    ``avoid``, bool (H, W), is what the scale should rather not cover.
    """
    height, width = image_size(image)
    side = min(height, width)
    drawn = rng.random() < 0.65
    ticks = int(rng.integers(9, 24))
    length = rng.uniform(0.35, 0.62) * width if drawn else rng.uniform(0.8, 1.5) * side
    angle = rng.normal(0.0, 0.22) if drawn else rng.choice((0.0, np.pi / 2)) + rng.normal(0.0, 0.08)
    along = np.array((np.cos(angle), np.sin(angle)))
    across = np.array((along[1], -along[0]))  # the ticks' direction: upwards for a level ruler
    tall = (rng.uniform(0.012, 0.022) if drawn else rng.uniform(0.02, 0.04)) * side
    bend = 0.0 if drawn else rng.normal(0.0, 0.04)
    at = np.linspace(-0.5, 0.5, ticks)[:, None]
    share = np.where(np.arange(ticks) % 5 == 0, 1.8, 1.0)[:, None]
    foot = at * length * along + (bend * length * (at * at)) * across

    def propose() -> Point:
        edge = 1.0 if rng.random() < 0.7 else -1.0
        offset = edge * rng.uniform(0.30, 0.46) * (1.0 if drawn or abs(along[0]) > 0.5 else 0.9)
        cross = rng.uniform(-0.12, 0.12)
        place = (offset, cross) if abs(along[0]) > 0.5 else (cross, offset)
        return np.array(((0.5 + place[1]) * width, (0.5 + place[0]) * height))

    foot = foot + _freest(foot, avoid, propose)
    head = foot + across * tall * share
    cover = np.zeros((2 * height, 2 * width), np.uint8)
    segments = np.round(np.stack((foot, head), 1) * (2 << SHIFT)).astype(np.int32)
    wide = max(1, round(side * rng.uniform(0.003, 0.006)))
    for segment in segments:
        line(cover, segment, 255.0, wide)
    if drawn:
        line(cover, np.round(foot * (2 << SHIFT)).astype(np.int32), 255.0, wide)
        text = foot[0] - across * 0.030 * side
        where = (round(2 * text[0]), round(2 * text[1]))
        cv2.putText(cover, "mm", where, cv2.FONT_HERSHEY_SIMPLEX, side / 512, 230, 1, cv2.LINE_AA)
    colour = jitter(rng, (44, 40, 40), 18) if rng.random() < 0.93 else jitter(rng, (236, 236, 236), 12)
    return paint(image, colour, halve(cover), rng.uniform(0.65, 0.95))


def add_bubbles(rng: np.random.Generator, image: Image) -> Image:
    """Put air bubbles into the contact fluid: thin rims with a highlight, in loose clusters."""
    height, width = image_size(image)
    side = min(height, width)
    count = int(rng.integers(3, 18))
    anchor = rng.uniform(0.0, 1.0, (3, 2)) * (width, height)
    centre = anchor[rng.integers(0, 3, count)] + rng.normal(0.0, 0.12 * side, (count, 2))
    radius = side * (0.006 + 0.030 * rng.random(count) ** 3)
    light_from = rng.uniform(0.0, 360.0)
    light, dark = np.zeros((2, 2 * height, 2 * width), np.uint8)
    strength = rng.uniform(0.35, 1.0, count)
    for (x, y), size, value in zip(2 * centre, 2 * radius, strength, strict=True):
        spot = fixed(x, y)
        axes = fixed(size, size * rng.uniform(0.9, 1.1))
        inner = fixed(0.72 * size, 0.72 * size)
        cv2.ellipse(dark, spot, axes, 0, 0, 360, 105 * value, 2, cv2.LINE_AA, SHIFT)
        cv2.ellipse(light, spot, inner, 0, 0, 360, 60 * value, 1, cv2.LINE_AA, SHIFT)
        cv2.ellipse(light, spot, inner, light_from, -50, 50, 235 * value, 2, cv2.LINE_AA, SHIFT)
    return relief(image, halve(light), halve(dark))


def add_gel(rng: np.random.Generator, image: Image) -> Image:
    """Show the contact plate: the faint edge of the fluid under the glass and small specular specks."""
    height, width = image_size(image)
    side = min(height, width)
    light, dark = np.zeros((2, 2 * height, 2 * width), np.uint8)
    if rng.random() < 0.6:  # an edge a little smaller than the field of view
        axes = side * rng.uniform(0.42, 0.60, 2) * (width / side) ** 0.5
        middle = np.array((width, height)) / 2 + rng.normal(0.0, 0.03 * side, 2)
        turn, begin, sweep = rng.uniform(0, 360), rng.uniform(0, 360), rng.uniform(120, 360)
        for layer, grow, value in ((light, 1.0, rng.uniform(14, 50)), (dark, 1.012, rng.uniform(10, 45))):
            centre = fixed(*(2 * middle))
            size = fixed(*(2 * grow * axes))
            cv2.ellipse(layer, centre, size, turn, begin, begin + sweep, value, 3, cv2.LINE_AA, SHIFT)
    if rng.random() < 0.5:
        spot = rng.uniform(0.0, 1.0, 2) * (width, height)
        specks = spot + rng.normal(0.0, 0.10 * side, (int(rng.integers(4, 30)), 2))
        for x, y in 2 * specks:
            size = fixed(*(side * rng.uniform(0.002, 0.010, 2)))
            turn = rng.uniform(0, 180)
            cv2.ellipse(light, fixed(x, y), size, turn, 0, 360, rng.uniform(90, 240), -1, cv2.LINE_AA, SHIFT)
    return relief(image, halve(light), halve(dark))


def add_ink(rng: np.random.Generator, image: Image, avoid: Mask | None = None) -> Image:
    """Draw a surgical pen's mark beside the lesion: strokes in violet, blue or green, broken by skin lines.

    ``avoid``, bool (H, W), is what the ink should not cover.
    """
    height, width = image_size(image)
    side = min(height, width)
    turn = np.cumsum(rng.normal(0.0, 0.35, 10)) + rng.uniform(0, 2 * np.pi)
    steps = np.stack((np.cos(turn), np.sin(turn)), 1) * side * rng.uniform(0.015, 0.05)
    path = np.cumsum(steps, 0)
    path -= path.mean(0)
    origin = _freest(path, avoid, lambda: near_edge(rng, height, width, rng.uniform(0.0, 0.16)))
    cover = np.zeros((2 * height, 2 * width), np.uint8)
    wide = max(2, round(2 * side * rng.uniform(0.012, 0.035)))
    line(cover, np.round((path + origin) * (2 << SHIFT)).astype(np.int32), 255.0, wide)
    cover = halve(cover)
    fibre = grain(rng, height, width, max(1, side // 160))
    cover = as_uint8(cv2.multiply(cv2.blur(cover, (3, 3)), fibre, scale=1.0 / 255.0))
    if avoid is not None:
        cover[avoid] = 0
    palette = ((92, 62, 160), (70, 70, 170), (44, 84, 190), (60, 60, 90), (50, 130, 120))
    return paint(image, jitter(rng, palette[rng.integers(0, 5)], 14), cover, rng.uniform(0.55, 0.9))


def add_patch(rng: np.random.Generator, image: Image, avoid: Mask | None = None) -> Image:
    """Stick a coloured round patch at the image's edge, as the photographs of children in ISIC show them.

    ``avoid``, bool (H, W), is what the patch must not cover: it is left out where there is no such place.
    """
    height, width = image_size(image)
    side = min(height, width)
    cover = np.zeros((height, width), np.uint8)
    for _ in range(_TRIES):
        centre = near_edge(rng, height, width, rng.uniform(-0.18, 0.04))
        axes = side * rng.uniform(0.16, 0.34) * rng.uniform(0.85, 1.15, 2)
        cover[:] = 0
        spot, size = fixed(*centre), fixed(*axes)
        cv2.ellipse(cover, spot, size, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, SHIFT)
        if avoid is None or not bool(cover[avoid].any()):
            break
    else:
        return image.copy()
    palette = ((30, 70, 190), (50, 175, 175), (225, 170, 50), (70, 150, 70), (205, 205, 212))
    colour = jitter(rng, palette[rng.integers(0, 5)], 14)
    blur = max(1, side // 90) | 1
    shadow = as_uint8(cv2.blur(cover, (2 * blur + 1, 2 * blur + 1)))
    shaded = paint(image, np.array((70.0, 55.0, 50.0)), shadow, 0.35)
    covered = paint(shaded, colour, as_uint8(cv2.blur(cover, (blur, blur))))
    weave = as_uint8(cv2.bitwise_and(grain(rng, height, width, 1) >> 4, cover))
    return relief(covered, weave, np.zeros_like(cover))


_STEP = np.arange(256) / 255.0
_SMOOTHSTEP = np.round(255 * _STEP * _STEP * (3 - 2 * _STEP)).astype(np.uint8)


def _hair_curves(
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    reach: tuple[float, float],
    *,
    spread: float,
    bend: float,
) -> NDArray[np.float64]:
    """Curves (count, 24, 2) x, y in pixels: cubic Bezier lines with one prevailing direction."""
    height, width = size
    side = min(height, width)
    angle = rng.uniform(0, 2 * np.pi) + rng.normal(0.0, spread, count)
    length = side * rng.uniform(*reach, count)
    along = np.stack((np.cos(angle), np.sin(angle)), 1) * length[:, None]
    across = np.stack((-along[:, 1], along[:, 0]), 1)
    bow = rng.normal(0.0, bend, (count, 1))
    wave = rng.normal(0.0, bend / 2, (count, 1))
    middle = rng.uniform(0.0, 1.0, (count, 2)) * (width, height)
    ends = middle - along / 2, middle + along / 2
    first = middle - along / 6 + across * (bow + wave)
    second = middle + along / 6 + across * (bow - wave)
    t = np.linspace(0.0, 1.0, 24)[None, :, None]
    s = 1.0 - t
    controls = [point[:, None] for point in (ends[0], first, second, ends[1])]
    curve: NDArray[np.float64] = (
        s**3 * controls[0] + 3 * s * s * t * controls[1] + 3 * s * t * t * controls[2] + t**3 * controls[3]
    )
    return curve
