"""Optional preprocessing of images, the same in training and at inference.

A filter takes and gives ``uint8 (H, W, 3)`` RGB. It works on the network's own grid (about 256 px), so it
costs the same for every photograph; lengths are shares of the shorter side. A name stands for one fixed
computation, because cards record the name alone: other settings are another name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.filter_names import FilterName

Pixels = NDArray[np.uint8]

_NORM = 6  # Minkowski norm that Finlayson and Trezzi found best
_HAIR_LINE = 0.045  # length of the lines of the closing
_HAIR_CONTRAST = 14  # grey levels that a hair is darker than the skin beside it
_HAIR_RUN = 0.05  # a hair is straight over this length
_HAIR_LENGTH = 0.10  # what is shorter is a dot or a piece of pigment network
_HAIR_WIDTH = 0.022  # what is wider, area over extent, is pigment or several hairs
_HAIR_FILL = 0.22  # several hairs fill less than this share of their convex hull
_CUTOFF = 0.35  # of the Nyquist frequency
_PAD = 16


def apply_filters(image: Pixels, names: Sequence[FilterName]) -> Pixels:
    """The image after every filter of ``names``, in their order."""
    for name in names:
        image = FILTERS[name](image)
    return image


def shades_of_grey(image: Pixels) -> Pixels:
    """Colour constancy: the light's colour, estimated by a Minkowski mean, becomes grey.

    Finlayson and Trezzi 2004, "Shades of grey and colour constancy". The light's strength is kept.
    """
    counts = [np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)]
    powers = np.linspace(0, 1, 256) ** _NORM
    light = np.array([float(count @ powers) / image[..., 0].size for count in counts]) ** (1 / _NORM)
    if light.min() <= 0:  # a channel that is black everywhere says nothing about the light
        return image
    gain = np.linalg.norm(light) / (np.sqrt(3) * light)
    table = np.clip(np.arange(256)[:, None] * gain, 0, 255).round().astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def dullrazor(image: Pixels) -> Pixels:
    """Dark hairs replaced by the skin beside them (DullRazor).

    Lee, Ng, Gallagher, Coldman and McLean 1997, doi:10.1016/S0010-4825(97)00020-6: a closing by lines in
    several directions finds what is thin and dark, long thin pieces of it are hair. Two departures: what is
    long and thin is found by openings with lines and by the extent, area and hull of pieces, and it is filled
    by inpainting from all sides (Telea 2004, doi:10.1080/10867651.2004.10487596).
    """
    mask = find_hair(image)
    if not mask.any():
        return image
    return np.asarray(cv2.inpaint(image, mask.view(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)


def find_hair(image: Pixels) -> NDArray[np.bool_]:
    """Where dark hairs lie, with their soft edges: ``bool (H, W)``."""
    side = min(image.shape[:2])
    closed = image
    for line in _lines(max(5, round(_HAIR_LINE * side)) | 1, 4):
        closed = np.maximum(closed, cv2.morphologyEx(image, cv2.MORPH_CLOSE, line))
    dark = ((closed - image).max(axis=2) > _HAIR_CONTRAST).astype(np.uint8)
    # a hair runs straight for a while at each of its points, pigment network does not
    straight = np.zeros_like(dark)
    for line in _lines(max(5, round(_HAIR_RUN * side)) | 1, 12):
        straight |= cv2.morphologyEx(dark, cv2.MORPH_OPEN, line, borderType=cv2.BORDER_REPLICATE)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(straight, connectivity=8)
    extent = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    keep = extent >= _HAIR_LENGTH * side
    keep[0] = False  # what is not dark
    for i in range(1, count):
        if keep[i] and stats[i, cv2.CC_STAT_AREA] > _HAIR_WIDTH * side * extent[i]:
            keep[i] = _fills_little((labels == i).astype(np.uint8), int(stats[i, cv2.CC_STAT_AREA]))
    hair = keep[labels].astype(np.uint8)
    return np.asarray(cv2.dilate(hair, np.ones((3, 3), np.uint8)), np.bool_)


def _lines(length: int, directions: int) -> list[NDArray[np.uint8]]:
    """Lines of ``length`` pixels through the centre of a square, as structuring elements."""
    lines = []
    centre = np.full(2, length // 2)
    for angle in np.arange(directions) * np.pi / directions:
        canvas = np.zeros((length, length), np.uint8)
        end = np.rint((length // 2) * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        cv2.line(canvas, tuple(centre - end), tuple(centre + end), 1)
        lines.append(canvas)
    return lines


def _fills_little(piece: NDArray[np.uint8], area: int) -> bool:
    """Whether a wide piece is crossing hairs: they leave most of what they enclose free."""
    contours, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return area < _HAIR_FILL * cv2.contourArea(cv2.convexHull(contours[0]))


def fft_denoise(image: Pixels) -> Pixels:
    """Fine noise taken away by a low-pass filter on the Fourier transform of each channel.

    Butterworth filter of order 2 (Butterworth 1930), half the amplitude at about a third of the Nyquist
    frequency. The image is mirrored at its edges first, so that opposite sides do not leak into each other.
    """
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_REFLECT)
    spectrum = np.fft.rfft2(padded.astype(np.float32), axes=(0, 1))
    rows, columns = np.fft.fftfreq(padded.shape[0]), np.fft.rfftfreq(padded.shape[1])
    frequency = np.hypot(rows[:, None], columns[None, :]) / 0.5
    keep = 1 / (1 + (frequency / _CUTOFF) ** 4)
    smooth = np.fft.irfft2(spectrum * keep[..., None], s=padded.shape[:2], axes=(0, 1))
    inner = smooth[_PAD : _PAD + height, _PAD : _PAD + width]
    return np.clip(inner, 0, 255).round().astype(np.uint8)


FILTERS: dict[FilterName, Callable[[Pixels], Pixels]] = {
    "shades_of_grey": shades_of_grey,
    "dullrazor": dullrazor,
    "fft_denoise": fft_denoise,
}
