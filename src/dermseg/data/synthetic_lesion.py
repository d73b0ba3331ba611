"""The lesion of a synthetic image: an irregular outline with an exact mask, and the pigment inside it.

The mask is the definition and the picture follows from it: pigment density is a function of the signed
distance to the outline that passes ``EDGE_LEVEL`` there, however soft the edge is. The level is where people
draw: on 800 images of the training parts of ISIC 2018 and HAM10000, darkness at the reference outline is
0.25 and 0.22 of that of the lesion's core (medians), well outside the half level.

Colour is made as the eye finds it: by what absorbs light. Melanin near the surface is brown, deep melanin
scatters to blue-grey (Tyndall effect), blood is red. Absorbance is summed and taken from the skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.noise import Field, coordinates, fractal_noise, honeycomb, line_noise, ramp, smooth_noise

EDGE_LEVEL = 0.25
"""Pigment density at the outline, as a share of the density inside."""

MELANIN = (0.40, 0.76, 1.06)
BLOOD = (0.12, 0.70, 0.66)
DEEP_MELANIN = (1.00, 0.74, 0.48)
"""Absorbance of red, green and blue per unit of pigment."""

PATTERN_SHARES = {
    "network": 0.34,
    "globules": 0.16,
    "cobblestone": 0.05,
    "streaks": 0.09,
    "homogeneous": 0.25,
    "cysts": 0.08,
    "ridges": 0.03,
}
"""Pigment patterns and how often each is drawn."""

# name -> share, and ranges of melanin, blood and deep melanin; after the log ratios of lesion to skin in
# ISIC 2018 and HAM10000 (train): median -0.17, -0.48, -0.62 in R, G, B; 2 % are below -0.9, -1.5, -1.7.
_TINTS: dict[str, tuple[float, tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "tan": (0.18, (0.35, 0.65), (0.00, 0.08), (0.00, 0.00)),
    "brown": (0.46, (0.60, 1.20), (0.00, 0.20), (0.00, 0.12)),
    "dark": (0.20, (1.10, 2.00), (0.10, 0.45), (0.05, 0.45)),
    "red": (0.10, (0.10, 0.45), (0.30, 0.75), (0.00, 0.08)),
    "blue": (0.06, (0.30, 0.80), (0.00, 0.20), (0.50, 1.10)),
}
_FAINTEST = 0.26  # mean absorbance of the lesion: fainter would be a matter of opinion


@dataclass(frozen=True)
class Outline:
    """Where a lesion is.

    Attributes
    ----------
    mask
        bool (H, W), one component without holes.
    distance
        float32 (H, W), pixels to the outline, positive inside; at least 0.5 away from zero.
    rays
        float32 (H, W), radial stripes, about [-1, 1], where streaks were asked for, else None.
    radius
        Radius of a disc of the lesion's area, share of the shorter side.
    """

    mask: NDArray[np.bool_]
    distance: Field
    rays: Field | None
    radius: float


def draw_outline(rng: np.random.Generator, size: tuple[int, int], *, streaks: bool) -> Outline:
    """An irregular outline: one to three lobes, bent by noise, cut at the level that gives the wanted area.

    Area, position and roughness vary as in the real data; about one lesion in seven runs out of the frame.
    """
    height, width = size
    y, x = coordinates(size)
    area = float(np.clip(np.exp(rng.normal(np.log(0.17), 0.85)), 0.014, 0.60))
    radius = float(np.sqrt(area * height * width / np.pi)) / min(size)
    middle = rng.normal(0.0, 0.055, 2)
    if rng.random() < 0.06:  # runs out of one side
        middle[rng.integers(0, 2)] = rng.choice((-1.0, 1.0)) * (0.5 - 0.55 * radius)
    inside = np.full(size, -np.inf, np.float32)
    for lobe in range(int(rng.choice((1, 2, 3), p=(0.62, 0.28, 0.10)))):
        shift = rng.normal(0.0, 0.33 * radius, 2) if lobe else np.zeros(2)
        scale = radius * (1.0 if lobe == 0 else rng.uniform(0.55, 0.9))
        stretch, turn = np.exp(abs(rng.normal(0.0, 0.18))), rng.uniform(0, np.pi)
        dy, dx = y - np.float32(middle[0] + shift[0]), x - np.float32(middle[1] + shift[1])
        u = (np.float32(np.cos(turn)) * dx + np.float32(np.sin(turn)) * dy) / np.float32(scale * stretch)
        v = (np.float32(np.cos(turn)) * dy - np.float32(np.sin(turn)) * dx) / np.float32(scale / stretch)
        np.maximum(inside, np.float32(scale / radius) * (1 - cv2.magnitude(u, v)), out=inside)
    inside += np.float32(rng.uniform(0.02, 0.11)) * smooth_noise(rng, size, 0.9 * radius)
    rough = np.float32(rng.uniform(0.012, 0.055))
    inside += rough * fractal_noise(rng, size, max(0.30 * radius, 0.02), octaves=4, gain=0.6)

    rays = None
    if streaks:
        angle = np.arctan2(y - np.float32(middle[0]), x - np.float32(middle[1])) / np.float32(2 * np.pi)
        rays = _rays(rng, angle + np.float32(0.006) * smooth_noise(rng, size, 0.05))
        inside += np.float32(rng.uniform(0.02, 0.055)) * rays

    step = max(1, min(size) // 128)
    level = np.quantile(inside[::step, ::step], 1.0 - area)
    mask = _one_component(inside > level)
    solid = mask.astype(np.uint8)
    distance: Field = cv2.distanceTransform(solid, cv2.DIST_L2, cv2.DIST_MASK_5)  # type: ignore[assignment]
    distance -= cv2.distanceTransform(1 - solid, cv2.DIST_L2, cv2.DIST_MASK_5)
    distance -= np.where(mask, np.float32(0.5), np.float32(-0.5))
    share = float(np.sqrt(np.count_nonzero(mask) / np.pi)) / min(size)
    return Outline(mask, np.asarray(distance, np.float32), rays, share)


def draw_density(rng: np.random.Generator, outline: Outline, *, softness: float) -> Field:
    """How much pigment there is, float32 (H, W) in [0, 1]: above ``EDGE_LEVEL`` exactly on the mask.

    ``softness`` is the edge's width, share of the shorter side. It varies along the outline: melanomas often
    end abruptly on one side and fade on another.
    """
    size = outline.mask.shape
    width = softness * min(size) * np.exp(np.float32(0.45) * smooth_noise(rng, (size[0], size[1]), 0.3))
    np.clip(width, 0.6, max(0.6, 0.16 * outline.radius * min(size)), out=width)
    grainy = np.exp(np.float32(0.4) * fractal_noise(rng, (size[0], size[1]), 0.03, octaves=2))
    steepness = grainy * outline.distance / width + np.float32(np.log(EDGE_LEVEL / (1 - EDGE_LEVEL)))
    density: Field = 1 / (1 + np.exp(-np.clip(steepness, -30, 30)))
    return density


def draw_pigment(
    rng: np.random.Generator, outline: Outline, density: Field, pattern: str
) -> tuple[Field, Field, dict[str, object]]:
    """What the lesion takes from and adds to the skin's light.

    Returns
    -------
    tuple
        Absorbance float32 (3, H, W), whiteness float32 (H, W) in [0, 1], and what was chosen, for the record.
    """
    size = (density.shape[0], density.shape[1])
    side, radius = min(size), outline.radius
    names = list(_TINTS)
    tint = names[rng.choice(len(names), p=[share for share, *_ in _TINTS.values()])]
    melanin, blood, deep = (rng.uniform(*limits) for limits in _TINTS[tint][1:])
    core = ramp(outline.distance, 0.0, max(2.0, 0.65 * radius * side))  # 0 at the outline, 1 well inside

    clouds = fractal_noise(rng, size, max(0.7 * radius, 0.03), octaves=5, gain=0.6)
    brown = 1 + np.float32(rng.uniform(0.16, 0.42)) * clouds
    brown += np.float32(rng.choice((0.25, 0.7, -0.3), p=(0.45, 0.40, 0.15))) * (core - np.float32(0.4))
    brown *= 1 + _pattern(rng, outline, core, pattern)
    brown *= 1 + np.float32(rng.uniform(0.05, 0.14)) * fractal_noise(rng, size, 0.02, octaves=3, gain=0.8)
    np.clip(brown, 0.12, 2.6, out=brown)
    brown *= np.float32(melanin)
    red = np.float32(blood) * (
        1 + np.float32(0.4) * fractal_noise(rng, size, max(0.5 * radius, 0.02), octaves=3, gain=0.7)
    )
    blue = np.full(size, deep, np.float32)

    white = np.zeros(size, np.float32)
    regions: list[str] = []
    for region, chance in (
        ("dark area", 0.38),
        ("blue-grey veil", 0.14),
        ("regression", 0.12),
        ("red area", 0.14),
    ):
        if rng.random() >= chance:
            continue
        regions.append(region)
        field = smooth_noise(rng, size, max(1.0 * radius, 0.04)) + np.float32(0.3) * clouds
        start = rng.uniform(0.1, 0.7)
        share = ramp(field, start, start + rng.uniform(0.5, 1.4)) * (
            np.float32(0.25) + np.float32(0.75) * core
        )
        if region == "dark area":
            brown *= 1 + np.float32(rng.uniform(0.5, 1.3)) * share
        elif region == "blue-grey veil":
            blue += np.float32(rng.uniform(0.35, 0.9)) * share
            white += np.float32(0.12) * share
        elif region == "regression":
            brown *= 1 - np.float32(rng.uniform(0.4, 0.7)) * share * core
            white += np.float32(rng.uniform(0.1, 0.3)) * share * core
            grey = ramp(smooth_noise(rng, size, 0.012), 0.8, 1.8)  # "peppering" by melanophages
            blue += np.float32(0.5) * grey * share
        else:
            red += np.float32(rng.uniform(0.25, 0.6)) * share
    if pattern == "cysts":
        white += np.float32(rng.uniform(0.3, 0.6)) * ramp(smooth_noise(rng, size, 0.022), 1.9, 2.5) * core
    np.maximum(red, 0, out=red)
    golden = np.array((1.0, 1.0, rng.uniform(0.9, 1.45)))  # how yellow the thin pigment shines through
    absorbance = np.empty((3, *size), np.float32)
    for channel, (a, b, c) in enumerate(zip(golden * MELANIN, BLOOD, DEEP_MELANIN, strict=True)):
        absorbance[channel] = np.float32(a) * brown + np.float32(b) * red + np.float32(c) * blue
    mean = float(absorbance[:, outline.mask].mean())
    if mean < _FAINTEST:
        absorbance *= np.float32(_FAINTEST / max(mean, 1e-3))
    absorbance *= density
    white *= density
    return absorbance, np.clip(white, 0.0, 0.8), {"tint": tint, "regions": regions}


def _pattern(rng: np.random.Generator, outline: Outline, core: Field, pattern: str) -> Field:
    """Relative change of melanin by the pattern, float32 (H, W), zero for none."""
    size = (core.shape[0], core.shape[1])
    strength = np.float32(rng.uniform(0.2, 0.6))
    spacing = float(np.clip(outline.radius * rng.uniform(0.06, 0.11), 0.013, 0.025))
    uneven = np.float32(0.65) + np.float32(0.35) * smooth_noise(rng, size, max(outline.radius, 0.05))
    np.clip(uneven, 0.0, 1.3, out=uneven)
    if pattern == "network":
        cells = honeycomb(rng, size, spacing, rng.uniform(0.5, 0.9))
        lines = np.float32(1.0) - np.float32(2.0) * ramp(cells, -0.45, 0.55)
        network: Field = strength * uneven * lines * (1 - np.float32(0.5) * core)
        return network
    if pattern == "cobblestone":
        cells = honeycomb(rng, size, 1.5 * spacing, rng.uniform(0.6, 0.9))
        return (
            np.float32(0.7) * strength * uneven * (np.float32(1.6) * ramp(cells, 0.0, 0.6) - np.float32(0.4))
        )
    if pattern == "globules":
        dots = ramp(smooth_noise(rng, size, rng.uniform(0.010, 0.018)), 0.7, 1.7)
        rim = 1 - core if rng.random() < 0.4 else np.ones_like(core)
        return np.float32(1.6) * strength * dots * rim
    if outline.rays is not None:
        return np.float32(0.7) * strength * outline.rays * (1 - core)
    if pattern == "cysts":  # keratosis: sharp, dull, with dark plugs beside the pale cysts
        return strength * np.float32(1.3) * ramp(smooth_noise(rng, size, 0.026), 1.2, 1.7)
    if pattern == "ridges":
        stripes = line_noise(rng, size, 0.25, rng.uniform(0.016, 0.026), rng.uniform(0, np.pi))
        return np.float32(0.45) * strength * stripes
    return np.zeros_like(core)


def _rays(rng: np.random.Generator, turns: Field) -> Field:
    """Stripes along the radius: a periodic random function of the direction (in turns)."""
    count = int(rng.integers(44, 90))
    values = rng.standard_normal(count).astype(np.float32)
    at = (turns % np.float32(1.0)) * np.float32(count)
    index = at.astype(np.int32)
    share = at - index
    share = share * share * (np.float32(3) - np.float32(2) * share)
    index %= count
    result: Field = values[index] * (1 - share) + values[(index + 1) % count] * share
    return np.clip(result, -2.0, 2.0)


def _one_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected part with its holes filled."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    largest = 1 + int(np.argmax(statistics[1:count, cv2.CC_STAT_AREA]))
    part = (labels == largest).astype(np.uint8)
    outer, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(part.copy(), outer, -1, 1, cv2.FILLED)
    solid = filled.astype(bool)
    # Filling a ring around the frame would leave no skin; an outline with a hole is the lesser evil.
    chosen: NDArray[np.bool_] = part.astype(bool) if solid.all() else solid
    return chosen
