"""How one photograph of a lesion lies on another: turned, moved, nearer or farther away.

Landmarks that look alike in both are paired; a turn, a shift and one scale that many pairs agree on is how
the second photograph lies on the first (RANSAC: Fischler and Bolles 1981, doi:10.1145/358669.358692).

The scale is the point. Two photographs without a ruler say nothing in millimetres, but where the skin around
the lesion is the same, they say how much the lesion has grown. Landmarks inside the lesion must have no part
in it: they move apart when it grows, and would make every change vanish. So there are two fits: one on all
landmarks, to lay the pictures on each other, and one on those of the skin, which alone gives a scale, and
only if they are many and far enough apart to pin it down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.measure.landmarks import Landmarks, apart, count_cells, share_of_cells, unmoved

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]

MATCHES = 12  # landmarks that must agree; photographs of different lesions reach at most half as many
SCALE_ERROR = 0.01  # standard error of the scale of the skin, beyond which it is not told
PAPER = 235  # grey of what a photograph does not show
_RATIO = 0.85  # distance of the best match to that of the next best
_START = 5  # landmarks of the skin that must agree before more are looked for
_NEAR, _RATIO_NEAR, _ALIKE = 0.02, 0.9, 0.8  # where to look, of the longer side; ratio; largest distance
_TOLERANCE, _SKIN_TOLERANCE = 0.01, 0.006  # of the longer side: how far off a landmark may lie
_MOST_SCALE = 4.0  # of what the photographs show, whatever their number of pixels
_PARTS = 6  # of 36 of a picture that must hold landmarks that agree: a logo, a line of text has fewer
_EVERYWHERE = 0.8  # share of the picture that has to agree, where it has not moved
_TURN, _SHIFT = 10.0, 0.25  # degrees, and diameters of the lesion, by which both fits may differ


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a second photograph lies on a first.

    Attributes
    ----------
    matrix
        ``float64 (2, 3)``: a point of the second (x, y, 1) to where it lies in the first, in pixels.
    matches
        Landmarks that agree on it.
    skin_matches
        Landmarks of the skin that agree with each other.
    scale
        Pixels of the first for each pixel of the second, by the skin alone; None where the skin does not
        tell.
    scale_error
        Its relative standard error, where there is a scale.
    """

    matrix: Matrix
    matches: int
    skin_matches: int
    scale: float | None
    scale_error: float | None

    @property
    def turn(self) -> float:
        """Degrees by which the second has to be turned clockwise to lie on the first, -180 to 180."""
        return _turn(self.matrix)


def align(first: Landmarks, second: Landmarks) -> Alignment | None:
    """How the second photograph lies on the first; None where too few landmarks agree.

    What has not moved in the picture may be the camera's: a stamp, a scale, dirt on the glass. It agrees
    better than skin, and says that the camera is as near as before. So it has no part; only where nothing
    else tells the scale may one lie on the other as it is, and then they must agree everywhere, as copies do.
    """
    one, two = _pairs(first, second)
    still = unmoved(first, second)
    moved = ~still[one, two]
    found = _laid(first, second, one[moved], two[moved], still)
    if found is not None and found.scale is not None:
        return found
    return _laid(first, second, one, two, None) or found


def _laid(
    first: Landmarks,
    second: Landmarks,
    one: NDArray[np.intp],
    two: NDArray[np.intp],
    still: Mask | None,
) -> Alignment | None:
    """The alignment by pairs, without those that are ``still``; None keeps them, if they are everywhere."""

    def everywhere(fit: _Fit, where: str) -> bool:
        return still is not None or share_of_cells(fit.places, first, second, where) >= _EVERYWHERE

    whole = _similarity(first, second, one, two, _TOLERANCE)
    if whole is None or whole.agreed < MATCHES or not everywhere(whole, "anywhere"):
        return None
    # What was written into both pictures agrees well wherever it is, and what looks alike by chance joins.
    on_first = whole.places @ whole.matrix[:, :2].T + whole.matrix[:, 2]
    if max(count_cells(on_first, first.size), count_cells(whole.places, second.size)) < _PARTS:
        return None
    skin = _of_skin(first, second, one, two, still)
    if skin is None:
        return Alignment(whole.matrix, whole.agreed, 0, None, None)
    # Hairs, a ruler or the glass may have moved with the camera: then the skin's word is not taken.
    sure = skin.agreed >= MATCHES and skin.error <= SCALE_ERROR and everywhere(skin, "skin")
    sure = sure and _agree(skin, whole, first, second)
    return Alignment(
        matrix=skin.matrix if sure else whole.matrix,
        matches=whole.agreed,
        skin_matches=skin.agreed,
        scale=skin.scale if sure else None,
        scale_error=skin.error if sure else None,
    )


def chain(first: Alignment, then: Alignment) -> Alignment | None:
    """A third photograph on a first, over a second that lies on the first and that the third lies on.

    None unless the skin gives a scale in both steps, sure enough together.
    """
    if first.scale is None or then.scale is None or first.scale_error is None or then.scale_error is None:
        return None
    error = math.hypot(first.scale_error, then.scale_error)
    if error > SCALE_ERROR:
        return None
    matrix = first.matrix @ np.vstack([then.matrix, [0, 0, 1]])
    return Alignment(
        matrix=matrix,
        matches=min(first.matches, then.matches),
        skin_matches=min(first.skin_matches, then.skin_matches),
        scale=first.scale * then.scale,
        scale_error=error,
    )


def lay(
    picture: NDArray[np.uint8],
    alignment: Alignment,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    shape: tuple[int, int],
    *,
    nearest: bool = False,
) -> NDArray[np.uint8]:
    """The second picture as it lies on the first.

    Parameters
    ----------
    picture
        ``uint8 (h, w)`` or ``(h, w, 3)`` of the second photograph, at any resolution.
    alignment
        What ``align`` gave.
    sizes
        Height and width of the first and of the second whole photograph.
    shape
        Height and width of the result, a reduced first photograph.
    nearest
        Take the nearest value instead of interpolating, for masks. They are 0 where the second photograph
        shows nothing, pictures are light grey there.
    """
    (height, width), second = sizes
    onto = _resample((height, width), shape)
    back = _resample(picture.shape[:2], second)
    matrix = onto @ np.vstack([alignment.matrix, [0, 0, 1]]) @ back
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    if not nearest and _scale(matrix) < 0.7:  # many pixels become one: without a blur they would flicker
        sigma = 0.4 / _scale(matrix)
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)
    paper = 0 if nearest else (PAPER,) * 3
    laid = cv2.warpAffine(picture, matrix[:2], (shape[1], shape[0]), flags=method, borderValue=paper)
    return np.asarray(laid, np.uint8)


def _pairs(first: Landmarks, second: Landmarks) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of landmarks that look alike, and more alike than any others do."""
    empty = np.empty(0, np.intp)
    if len(first.points) < 2 or len(second.points) < 2:
        return empty, empty
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first.descriptors, second.descriptors, k=2)
    good = [best for best, next_best in found if best.distance < _RATIO * next_best.distance]
    if not good:
        return empty, empty
    one, two = np.array([(match.queryIdx, match.trainIdx) for match in good], np.intp).T
    return one, two


@dataclass(frozen=True, eq=False)
class _Fit:
    """Turn, shift and scale, the landmarks of the second that agree, relative standard error of the scale."""

    matrix: Matrix
    places: NDArray[np.float32]
    error: float

    @property
    def agreed(self) -> int:
        return len(self.places)

    @property
    def scale(self) -> float:
        return _scale(self.matrix)


def _of_skin(
    first: Landmarks,
    second: Landmarks,
    one: NDArray[np.intp],
    two: NDArray[np.intp],
    still: Mask | None,
) -> _Fit | None:
    """The fit on the skin: on the few landmarks that can be told apart anywhere, then on all that they find.

    The first step must not lean on the lesion. If its landmarks said where to look, what looks alike by
    chance would be found around the place that an unchanged lesion predicts, and growth by half would become
    growth by a tenth (measured on photographs in which the lesion was enlarged).
    """
    skin = first.on_skin[one] & second.on_skin[two]
    start = _similarity(first, second, one[skin], two[skin], _SKIN_TOLERANCE)
    if start is None or start.agreed < _START:
        return start
    return _similarity(first, second, *_guided(first, second, start.matrix, still), _SKIN_TOLERANCE)


def _guided(
    first: Landmarks, second: Landmarks, matrix: Matrix, still: Mask | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of landmarks of the skin that look alike, near where a first fit expects them.

    Pores look much the same all over: among thousands few are told apart, among those of one place many are.
    """
    one, two = np.flatnonzero(first.on_skin), np.flatnonzero(second.on_skin)
    there = (second.points[two] @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    far = apart(first.points[one], there) > _NEAR * max(first.size)
    distance = np.sqrt(np.maximum(0.0, 2 - 2 * first.descriptors[one] @ second.descriptors[two].T))
    distance[far] = np.inf
    if still is not None:
        distance[still[np.ix_(one, two)]] = np.inf
    best = distance.argmin(axis=1)
    rows = np.arange(len(one))
    nearest = distance[rows, best]
    mutual = distance.argmin(axis=0)[best] == rows
    distance[rows, best] = np.inf
    good = mutual & (nearest < _ALIKE) & (nearest < _RATIO_NEAR * distance.min(axis=1))
    return one[good], two[best[good]]


def _similarity(
    first: Landmarks, second: Landmarks, one: NDArray[np.intp], two: NDArray[np.intp], tolerance: float
) -> _Fit | None:
    """What most landmarks agree on; None where there are too few, or the scale is out of reason."""
    if len(one) < 4:
        return None
    source, target = second.points[two], first.points[one]
    found, inliers = cv2.estimateAffinePartial2D(
        source,
        target,
        method=cv2.RANSAC,
        ransacReprojThreshold=tolerance * max(first.size),
        maxIters=5000,
        confidence=0.999,
    )
    if found is None:
        return None
    matrix = np.asarray(found, np.float64)
    nearer = _scale(matrix) * max(second.size) / max(first.size)
    if not 1 / _MOST_SCALE <= nearer <= _MOST_SCALE:
        return None
    agreed = inliers.ravel() > 0
    # Several landmarks at one place (SIFT gives one for each direction) are one witness.
    places = np.unique(np.rint(source[agreed]), axis=0)
    if len(places) < 4:
        return _Fit(matrix, places, math.inf)
    moved = source[agreed] @ matrix[:, :2].T + matrix[:, 2]
    variance = float(((moved - target[agreed]) ** 2).mean())
    spread = float(((places - places.mean(axis=0)) ** 2).sum()) * _scale(matrix) ** 2
    # least squares: the variance of the scale is that of one coordinate over the sum of squared distances
    freedom = 2 * len(places) / (2 * len(places) - 4)
    error = math.sqrt(variance * freedom / spread) if spread else math.inf
    return _Fit(matrix, places, error)


def _agree(skin: _Fit, whole: _Fit, first: Landmarks, second: Landmarks) -> bool:
    """Whether both fits lay the second photograph on the first in about the same way."""
    turned = abs((_turn(skin.matrix) - _turn(whole.matrix) + 180) % 360 - 180)
    center = np.array([*second.center, 1.0])
    shift = float(np.linalg.norm((skin.matrix - whole.matrix) @ center))
    return turned <= _TURN and shift <= _SHIFT * first.diameter


def _scale(matrix: Matrix) -> float:
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def _turn(matrix: Matrix) -> float:
    return math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))


def _resample(source: tuple[int, ...], target: tuple[int, ...]) -> Matrix:
    """Pixel centres of a picture of one height and width to those of the same picture at another."""
    y, x = target[0] / source[0], target[1] / source[1]
    return np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5], [0, 0, 1.0]])
