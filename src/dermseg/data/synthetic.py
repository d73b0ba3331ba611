"""Synthetic dermoscopic images with exact masks: for the demonstration, tests and augmentation.

One image is skin (tone, relief, blood, light), a lesion (`synthetic_lesion`), what lies on both
(`artefacts`), and a camera (focus, white balance, noise, JPEG). Each stage draws from its own stream of the
seed, so a change to one leaves the others as they were, and one seed shows one scene at any size.
No image or statistic of a person is inside: colour ranges were set by eye and by medians over public sets.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from dermseg.data.artefacts import (
    add_bubbles,
    add_gel,
    add_hair,
    add_ink,
    add_patch,
    add_ruler,
    add_vignette,
)
from dermseg.data.noise import Field, coordinates, fractal_noise, line_noise, ramp, smooth_noise
from dermseg.data.painting import Image, Mask, as_uint8
from dermseg.data.synthetic_lesion import (
    BLOOD,
    MELANIN,
    PATTERN_SHARES,
    draw_density,
    draw_outline,
    draw_pigment,
)
from dermseg.errors import UsageError

SMALLEST_SIDE = 32

# Individual typology angle, degrees, at which Fitzpatrick-like classes I to V begin (Chardon et al. 1991,
# doi 10.1111/j.1467-2494.1991.tb00561.x); below the last is VI.
_ITA_CLASSES = ((55.0, "I"), (41.0, "II"), (28.0, "III"), (10.0, "IV"), (-30.0, "V"))
# White balance of cameras and light, gains of R, G, B.
_CASTS: dict[str, tuple[float, tuple[float, float, float]]] = {
    "neutral": (0.42, (1.00, 1.00, 1.00)),
    "pink": (0.24, (1.08, 0.82, 0.88)),
    "orange": (0.12, (1.07, 0.84, 0.74)),
    "blue": (0.12, (0.86, 0.97, 1.18)),
    "yellow": (0.10, (1.02, 1.01, 0.84)),
}


def synthesize(seed: int, size: tuple[int, int] = (256, 256)) -> tuple[Image, Mask, dict[str, Any]]:
    """Draw one dermoscopic image and its exact mask.

    The same seed and size give the same arrays in every process. Across platforms a pixel may differ by a
    grey level where the platforms' exponential functions round differently.

    Parameters
    ----------
    seed
        Any integer from 0.
    size
        Height and width in pixels, each at least 32.

    Returns
    -------
    image
        uint8 (H, W, 3) RGB.
    mask
        bool (H, W): one component without holes, neither empty nor the whole frame.
    parameters
        What was drawn, ready for JSON: skin tone (ITA in degrees, Fitzpatrick class), tint, pattern, edge
        width (share of the shorter side), contrast, area fraction, artefacts and camera.

    Raises
    ------
    UsageError
        The seed is negative or a side is shorter than 32 pixels.
    """
    if seed < 0:
        raise UsageError(f"seed {seed} was given", hint="seeds start at 0")
    if min(size) < SMALLEST_SIDE:
        raise UsageError(
            f"size {size[0]} x {size[1]} was given", hint=f"each side needs {SMALLEST_SIDE} pixels"
        )
    streams = [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(6)]
    shape_rng, edge_rng, pigment_rng, skin_rng, artefact_rng, camera_rng = streams

    pattern = str(shape_rng.choice(list(PATTERN_SHARES), p=list(PATTERN_SHARES.values())))
    outline = draw_outline(shape_rng, size, streaks=pattern == "streaks")
    softness = float(np.exp(edge_rng.uniform(np.log(0.0045), np.log(0.022))))
    if pattern == "cysts":
        softness = min(softness, 0.006)
    density = draw_density(edge_rng, outline, softness=softness)
    absorbance, white, chosen = draw_pigment(pigment_rng, outline, density, pattern)

    colour, skin = _skin_colour(skin_rng)
    scene = _skin(skin_rng, size, colour, absorbance, white)
    contrast = float(absorbance[:, outline.mask].mean())
    scene, artefacts = _lay_on(artefact_rng, scene, outline.mask)
    image, camera = _photograph(camera_rng, scene)

    mask = outline.mask
    border = np.concatenate((mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    parameters: dict[str, Any] = {
        "seed": int(seed),
        "height": int(size[0]),
        "width": int(size[1]),
        **skin,
        "pattern": pattern,
        **chosen,
        "edge_width": round(softness, 5),
        "absorbance": round(contrast, 4),
        "area_fraction": round(float(mask.mean()), 5),
        "touches_border": bool(border.any()),
        "artefacts": artefacts,
        **camera,
    }
    return image, mask, parameters


def _skin_colour(rng: np.random.Generator) -> tuple[Field, dict[str, Any]]:
    """Colour of clear skin as photographed, float32 (3,) in [0, 1], from tone, exposure and white balance."""
    # Public dermoscopy is mostly of light skin; every class is there.
    ita = float(rng.uniform(28, 70) if rng.random() < 0.72 else rng.uniform(-50, 28))
    yellow = rng.uniform(9.0, 17.0)
    lightness = 50.0 + yellow * np.tan(np.radians(ita))
    lab = np.array((np.clip(lightness, 26, 88), rng.uniform(6, 15), yellow), np.float32)
    rgb = cv2.cvtColor(lab[None, None], cv2.COLOR_LAB2RGB)[0, 0]
    names = list(_CASTS)
    cast = names[rng.choice(len(names), p=[share for share, _ in _CASTS.values()])]
    gains = np.array(_CASTS[cast][1]) ** (
        rng.uniform(0.5, 1.35) if ita > 10 else rng.uniform(0.1, 0.6)
    ) * np.exp(rng.normal(0.0, 0.025, 3))
    lit = rgb * gains
    brightest = rng.uniform(0.72, 1.06) if ita > 10 else rng.uniform(0.45, 0.78)  # above 1: overexposed
    lit *= brightest / lit.max()
    grey = lit @ np.array((0.30, 0.59, 0.11))
    colour = np.asarray(np.clip(grey + rng.uniform(0.5, 1.45) * (lit - grey), 0.05, 1.08), np.float32)
    fitzpatrick = next((name for start, name in _ITA_CLASSES if ita > start), "VI")
    return colour, {"ita": round(ita, 1), "fitzpatrick": fitzpatrick, "cast": cast}


def _skin(
    rng: np.random.Generator, size: tuple[int, int], colour: Field, absorbance: Field, white: Field
) -> Image:
    """The lesion in skin with its relief, blood and light, uint8 (H, W, 3)."""
    melanin = np.float32(rng.uniform(0.008, 0.035)) * fractal_noise(rng, size, 0.3, octaves=5, gain=0.75)
    blood = np.float32(rng.uniform(0.008, 0.042)) * fractal_noise(rng, size, 0.2, octaves=5, gain=0.85)
    if rng.random() < 0.35:  # sun-damaged skin: pale, diffuse freckles, far fainter than the faintest lesion
        freckles = ramp(smooth_noise(rng, size, rng.uniform(0.02, 0.05)), 1.0, 2.4)
        melanin += np.float32(rng.uniform(0.03, 0.10)) * freckles
    if rng.random() < 0.3:  # erythema around the lesion
        lump = cv2.blur(absorbance[1], (2 * (min(size) // 12) + 1,) * 2)
        blood += np.float32(rng.uniform(0.03, 0.12)) * np.asarray(lump, np.float32)
    angle = rng.uniform(0, np.pi)
    width = rng.uniform(0.006, 0.014)
    furrows = np.abs(line_noise(rng, size, 6 * width, width, angle))
    furrows += np.abs(line_noise(rng, size, 5 * width, width, angle + rng.uniform(0.8, 1.6)))
    furrows *= ramp(
        smooth_noise(rng, size, 0.12), -1.2, 1.6
    )  # seldom even: pressed flat by the contact plate
    relief = np.float32(rng.uniform(0.004, 0.020)) * furrows
    relief += np.float32(rng.uniform(0.004, 0.014)) * fractal_noise(rng, size, 0.024, octaves=3, gain=0.8)
    if rng.random() < 0.25:  # follicles
        relief -= np.float32(rng.uniform(0.05, 0.14)) * ramp(smooth_noise(rng, size, 0.02), 1.7, 2.5)

    y, x = coordinates(size)
    tilt = rng.normal(0.0, 0.07, 2)
    light = np.float32(rng.uniform(0.0, 0.45)) * (x * x + y * y)
    light += np.float32(tilt[0]) * y + np.float32(tilt[1]) * x
    relief += light

    pale = np.float32(0.35) * colour + np.float32(0.65) * np.float32(colour.max())
    scene = np.empty((*size, 3), np.uint8)
    for channel in range(3):  # planes: three times as fast as interleaved colours
        total = absorbance[channel] + np.float32(MELANIN[channel]) * melanin
        total += np.float32(BLOOD[channel]) * blood
        total += relief
        plane = colour[channel] * np.exp(-total)
        plane += white * (pale[channel] - plane)
        plane *= np.float32(255.0)
        scene[..., channel] = np.clip(plane + np.float32(0.5), 0.0, 255.0).astype(np.uint8)
    return scene


def _lay_on(rng: np.random.Generator, scene: Image, mask: Mask) -> tuple[Image, list[str]]:
    """Hair, marks, fluid and the field of view, each with the chance it has in public dermoscopy."""
    artefacts: list[str] = []
    draws = rng.random(7)
    streams = rng.spawn(7)
    for name, chance, draw, stream in zip(
        ("patch", "ink", "hair", "ruler", "gel", "bubbles", "vignette"),
        (0.05, 0.06, 0.36, 0.24, 0.12, 0.12, 0.30),
        draws,
        streams,
        strict=True,
    ):
        if draw >= chance:
            continue
        before = scene
        if name in ("patch", "ink", "ruler"):
            near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
            add = {"patch": add_patch, "ink": add_ink, "ruler": add_ruler}[name]
            scene = add(stream, scene, near)
        else:
            scene = {"hair": add_hair, "gel": add_gel, "bubbles": add_bubbles, "vignette": add_vignette}[
                name
            ](stream, scene)
        if name == "vignette" and _hidden(before, scene, mask) > 0.01:
            scene = before  # part of the lesion would be in the dark: its mask would no longer be exact
            continue
        artefacts.append(name)
    return scene, artefacts


def _hidden(before: Image, after: Image, mask: Mask) -> float:
    """Share of the lesion that lost more than a third of its light."""
    old = before[mask].sum(axis=1, dtype=np.int32)
    new = after[mask].sum(axis=1, dtype=np.int32)
    return float(np.mean(3 * new < 2 * old))


def _photograph(rng: np.random.Generator, scene: Image) -> tuple[Image, dict[str, Any]]:
    """Focus, sensor noise and JPEG."""
    height, width = scene.shape[:2]
    blur = float(np.exp(rng.uniform(np.log(0.0012), np.log(0.0045)))) * min(height, width)
    noise = float(np.exp(rng.uniform(np.log(0.5), np.log(4.0))))
    quality = int(rng.integers(62, 96))
    sharp = cv2.GaussianBlur(scene, (0, 0), max(0.35, blur))
    grain = rng.standard_normal((height, width, 1), dtype=np.float32)
    tinted = rng.standard_normal((-(-height // 2), -(-width // 2), 3), dtype=np.float32)
    grain = np.float32(noise) * (
        np.float32(0.8) * grain + np.float32(0.5) * cv2.resize(tinted, (width, height))
    )
    noisy = np.clip(sharp + grain + np.float32(0.5), 0.0, 255.0).astype(np.uint8)
    coded = cv2.imencode(".jpg", noisy[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    image = as_uint8(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1].copy()
    camera = {"blur": round(blur, 3), "noise": round(noise, 3), "jpeg_quality": quality}
    return image, camera
