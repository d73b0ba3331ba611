"""Random fields: the irregularity of skin and pigment at every scale.

Lengths are shares of the image's shorter side, and coarse fields draw as many random numbers at any size, so
that one seed gives one picture whether it is drawn at 128 or at 1024 pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""float32 (H, W)."""


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cell: float) -> Field:
    """Gaussian noise, about zero mean and unit variance, with bumps ``cell`` wide (share of the side)."""
    return _stretched(rng, size, cell, cell)


def fractal_noise(
    rng: np.random.Generator, size: tuple[int, int], cell: float, octaves: int = 4, gain: float = 0.5
) -> Field:
    """Noise with detail from ``cell`` down by halves, each octave ``gain`` as strong; unit variance."""
    # Each octave is added on its own coarse grid and the sum enlarged: one step at full size, not one each.
    side, power = min(size), 1.0
    total = rng.standard_normal(_grid(size, cell, cell), dtype=np.float32)
    for octave in range(1, octaves):
        rows, columns = _grid(size, cell / 2**octave, cell / 2**octave)
        detail = rng.standard_normal((rows, columns), dtype=np.float32)
        total = _resized(total, (rows, columns)) + np.float32(0.85 * gain**octave) * detail
        power += gain ** (2 * octave)
        if side in (rows, columns):
            break  # a finer grid than the pixels adds nothing
    total = _resized(total, size)
    total *= np.float32(1.2 * power**-0.5)
    return total


def line_noise(
    rng: np.random.Generator, size: tuple[int, int], length: float, width: float, angle: float
) -> Field:
    """Noise drawn out along ``angle`` (radians): bumps ``length`` long and ``width`` wide."""
    height, wide = size
    reach = int(np.ceil(np.hypot(height, wide)))  # a square that covers the image however it is turned
    scale = min(size) / reach
    straight = _stretched(rng, (reach, reach), width * scale, length * scale)
    matrix = cv2.getRotationMatrix2D((reach / 2, reach / 2), float(np.degrees(angle)), 1.0)
    matrix[:, 2] += np.array([(wide - reach) / 2, (height - reach) / 2])
    turned: Field = cv2.warpAffine(straight, matrix, (wide, height), borderMode=cv2.BORDER_REFLECT)  # type: ignore[assignment]
    return turned


def honeycomb(rng: np.random.Generator, size: tuple[int, int], spacing: float, warp: float) -> Field:
    """An irregular hexagonal grid, about -0.5 on its lines and 1 in its cells.

    Three plane waves at 60 degrees make the grid; noise bends their coordinates by ``warp`` cells.
    """
    y, x = coordinates(size)
    bend = np.float32(warp * spacing)
    x = x + bend * smooth_noise(rng, size, 4 * spacing)
    y = y + bend * smooth_noise(rng, size, 4 * spacing)
    turn, shift = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi, 3)
    total = np.zeros(size, np.float32)
    wave = 2 * np.pi / (spacing * np.sqrt(3) / 2)
    for step, phase in enumerate(shift):
        angle = turn + step * np.pi / 3
        total += np.cos(
            np.float32(wave * np.cos(angle)) * x + np.float32(wave * np.sin(angle)) * y + np.float32(phase)
        )
    return total / np.float32(3)


def coordinates(size: tuple[int, int]) -> tuple[Field, Field]:
    """Rows and columns, float32 (H, W) each, zero in the middle, in shares of the shorter side."""
    height, width = size
    side = np.float32(min(size))
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2)) / side
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) / side
    return np.repeat(y[:, None], width, 1), np.repeat(x[None, :], height, 0)


def ramp(field: Field, low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, smooth between."""
    share = np.clip((field - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    result: Field = share * share * (np.float32(3.0) - np.float32(2.0) * share)
    return result


def _grid(size: tuple[int, int], down: float, across: float) -> tuple[int, int]:
    """Rows and columns of the random grid; one finer than the pixels would only cost time."""
    height, width = size
    side = min(size)
    return min(height, int(np.ceil(height / side / down)) + 2), min(
        width, int(np.ceil(width / side / across)) + 2
    )


def _resized(field: Field, size: tuple[int, int]) -> Field:
    if field.shape == size:
        return field
    result: Field = cv2.resize(field, size[::-1], interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    return result


def _stretched(rng: np.random.Generator, size: tuple[int, int], down: float, across: float) -> Field:
    grid = rng.standard_normal(_grid(size, down, across), dtype=np.float32)
    field = _resized(grid, size)
    return field if field is grid else field * np.float32(1.25)  # what interpolation takes from the variance
