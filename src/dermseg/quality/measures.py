"""What can be measured about a photograph and the outline found in it, without having learnt anything.

Everything is computed on one copy with a long side of 256 px, about what the network sees: focus that is
lost at a finer scale costs the outline nothing, twelve megapixels cost what a small image costs, and a
figure means the same for both. Shares are of the frame inside the vignette unless said otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.components import components
from dermseg.images.resize import shrink

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

SIDE = 256
SECOND_LESION = 0.25  # a component at least this share of the largest is a lesion of its own
_CORNER_LUMA = 30  # of 255: a tube is nearly black, the darkest skin is not
# sRGB primaries to CIE XYZ, IEC 61966-2-1; white is the sum of the columns
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = 250
_GLARE_RISE, _GLARE_LEVEL = 35, 170  # above the surroundings, and in every channel


@dataclass(frozen=True, slots=True)
class Measures:
    """Measures of one photograph.

    Attributes
    ----------
    short_side
        Of the whole image, pixels.
    blur
        0 sharp to 1 blurred (`blur`).
    luma
        Mean luma of the frame, 0 to 255; of the image where all of it is dark.
    white_share
        Frame that is clipped to white.
    skin_a, skin_b
        Mean CIE a* and b* of the frame without the lesion; None where the lesion fills it.
    glare_share
        Frame under small reflections, as bubbles and wet skin throw them.
    vignette_share
        Image outside the round frame of a dermoscope.
    lesion_share
        Image under the outline.
    border_share
        Edge of the image that the lesion touches, without the vignette's.
    lesions
        Components of the outline that are not much smaller than the largest.
    """

    short_side: int
    blur: float
    luma: float
    white_share: float
    skin_a: float | None
    skin_b: float | None
    glare_share: float
    vignette_share: float
    lesion_share: float
    border_share: float
    lesions: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The measures by name."""
        return asdict(self)


def measure(pixels: Pixels, size: tuple[int, int], probability: Floats, threshold: float) -> Measures:
    """Measure a photograph and the outline found in it.

    Parameters
    ----------
    pixels
        ``uint8 (h, w, 3)`` RGB; may be a reduced decode.
    size
        Height and width of the whole image.
    probability
        ``float32 (a, b)`` in [0, 1], the network's map of the same view at any resolution.
    threshold
        Lesion is where the map is at least this.
    """
    image = shrink(pixels, SIDE)
    height, width = image.shape[:2]
    lesion, lesions = _lesion(probability, threshold)
    lesion = cv2.resize(lesion.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    frame = ~vignette(grey)
    seen = frame.view(np.uint8)
    n = max(1, cv2.countNonZero(seen))
    skin = (frame & ~lesion).view(np.uint8)
    a = b = None
    if cv2.countNonZero(skin) > 0.02 * n:
        # the mean colour, then its a* and b*: converting every pixel would cost more than all the rest
        a, b = _chroma(np.array(cv2.mean(image, skin)[:3]) / 255)
    white = cv2.inRange(image, (_WHITE,) * 3, (255,) * 3)
    return Measures(
        short_side=min(size),
        blur=blur(grey, frame),
        luma=cv2.mean(grey, seen)[0] if frame.any() else float(grey.mean()),
        white_share=cv2.countNonZero(cv2.bitwise_and(white, white, mask=seen)) / n,
        skin_a=a,
        skin_b=b,
        glare_share=cv2.countNonZero(cv2.bitwise_and(seen, glare(image, grey))) / n,
        vignette_share=1 - n / grey.size,
        lesion_share=float(lesion.mean()),
        border_share=_border_share(lesion, frame),
        lesions=lesions,
    )


def _chroma(rgb: NDArray[np.float64]) -> tuple[float, float]:
    """CIELAB a* and b* (D65) of one sRGB colour in [0, 1].

    Not OpenCV's: its first conversion to CIELAB builds tables for 0.1 s, a tenth of a cold start.
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = _TO_XYZ @ linear / _TO_XYZ.sum(axis=1)
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return float(500 * (x - y)), float(200 * (y - z))


def blur(grey: Pixels, frame: Mask | None = None) -> float:
    """How much of the variation between neighbours outlives another blurring: 0 sharp, 1 blurred.

    The worse of both axes. A sharp image loses most of its variation, a blurred one has little left to lose
    (Crete et al. 2007, doi:10.1117/12.702790). Outside of ``frame``, bool (h, w), and along its edge nothing
    counts.
    """
    values = grey.astype(np.float32)
    inside = None
    if frame is not None and not frame.all():
        inside = cv2.erode(frame.view(np.uint8), np.ones((13, 13), np.uint8)).astype(np.float32)
    scores = []
    for axis, kernel in ((0, (1, 11)), (1, (11, 1))):  # OpenCV says width, height
        if grey.shape[axis] < 2:
            scores.append(1.0)
            continue
        again = cv2.blur(values, kernel, borderType=cv2.BORDER_REPLICATE)
        before = _steps(values, axis)
        left = cv2.min(before, _steps(again, axis))
        if inside is not None:
            weight = inside[1:] if axis == 0 else inside[:, 1:]
            before, left = cv2.multiply(before, weight), cv2.multiply(left, weight)
        total = cv2.sumElems(before)[0]
        scores.append(1.0 if total == 0 else cv2.sumElems(left)[0] / total)
    return max(scores)


def _steps(values: Any, axis: int) -> Any:
    """How much neighbours along an axis differ."""
    return cv2.absdiff(values[1:], values[:-1]) if axis == 0 else cv2.absdiff(values[:, 1:], values[:, :-1])


def glare(image: Pixels, grey: Pixels) -> Pixels:
    """Small spots, nearly white and brighter than what surrounds them, ``uint8 (h, w)`` of 0 and 1."""
    bump = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((11, 11), np.uint8))
    red, green, blue = cv2.split(image)
    darkest = cv2.min(cv2.min(red, green), blue)
    found = (bump > _GLARE_RISE) & (darkest > _GLARE_LEVEL)
    out: Pixels = found.view(np.uint8)
    return out


def vignette(grey: Pixels) -> Mask:
    """Nearly black regions that hang together with a corner of the image, ``bool (h, w)``."""
    if cv2.minMaxLoc(grey)[0] >= _CORNER_LUMA:
        return np.zeros(grey.shape, np.bool_)
    dark = (cv2.blur(grey, (5, 5)) < _CORNER_LUMA).view(np.uint8)
    if not dark.any():
        return np.zeros(grey.shape, np.bool_)
    count, labels = cv2.connectedComponents(dark, connectivity=4)
    corners = np.zeros(count, np.bool_)
    corners[[labels[y, x] for y in (0, -1) for x in (0, -1)]] = True
    corners[0] = False
    out: Mask = corners[labels]
    return out


def _lesion(probability: Floats, threshold: float) -> tuple[Mask, int]:
    """The largest component of the map, and how many there are of its kind."""
    labels, areas = components((probability >= np.float32(threshold)).view(np.uint8))
    if not len(areas):
        return np.zeros(probability.shape, np.bool_), 0
    largest = 1 + int(areas.argmax())
    return labels == largest, int((areas >= SECOND_LESION * areas.max()).sum())


def _border_share(lesion: Mask, frame: Mask) -> float:
    """Share of the frame's outer edge that lies on the lesion."""
    edge = np.concatenate([lesion[0], lesion[-1], lesion[1:-1, 0], lesion[1:-1, -1]])
    seen = np.concatenate([frame[0], frame[-1], frame[1:-1, 0], frame[1:-1, -1]])
    return float((edge & seen).sum() / len(edge))
