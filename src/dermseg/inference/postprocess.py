"""From logits to a mask at the image's own size. Pure functions on NumPy and OpenCV.

The definition, in order:

1. ``p = sigmoid(logit / temperature)`` at the network's size (``h x w`` nodes).
2. Smoothing (where the card asks for it): grey opening, then grey closing of ``p`` with a disc.
3. Lesion nodes are those with ``p >= threshold``.
4. Holes: background nodes with no 4-connected way to the edge of the image become lesion.
5. Components are 8-connected sets of lesion nodes. Those below ``min_area_fraction`` of the nodes are
   removed, then all but the largest where one lesion is wanted.
6. Nodes filled in (4) are raised to ``(1 + threshold) / 2``, removed ones lowered to ``threshold / 2``.
7. The map is interpolated bilinearly to the image's size (pixel centres at ``(i + 0.5) / n``, edges
   clamped), and the mask is where it is ``>= threshold``.

Steps 2 to 6 cost the same for every image because they run on the network's nodes, and nothing is lost
by that: each output pixel interpolates a cell of 2 x 2 nodes, nodes of one cell are 8-neighbours, so all
lesion nodes of a cell belong to one component. Hence every pixel of the mask has exactly one component,
and removing a component never moves the outline of another.

``probability`` as users see it is ``p`` of step 1, interpolated: what the network said, before editing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.components import components
from dermseg.inference.card import Postprocessing

Lesions = Literal["largest", "all"]
Floats = NDArray[np.float32]

MAX_LABELS = 255  # labels are uint8


@dataclass(frozen=True)
class Cleaned:
    """The network's map after steps 2 to 6.

    Parameters
    ----------
    map
        ``float32 (h, w)``; at least ``threshold`` exactly on the nodes that are kept.
    labels
        ``uint8 (h, w)``; 0 background, 1 the largest component, 2 the next ...
    count
        How many components are kept.
    removed
        How many were not.
    threshold
        The threshold that was used.
    """

    map: Floats
    labels: NDArray[np.uint8]
    count: int
    removed: int
    threshold: float


def to_probability(logits: Floats, temperature: float = 1.0) -> Floats:
    """``sigmoid(logits / temperature)``, ``float32`` in [0, 1], of any shape; never overflows."""
    half: Floats = np.tanh(np.asarray(logits, np.float32) * np.float32(0.5 / temperature))
    half += np.float32(1.0)
    half *= np.float32(0.5)
    return half


def upsample(probability: Floats, size: tuple[int, int]) -> Floats:
    """A map ``float32 (h, w)`` interpolated bilinearly to ``size = (height, width)``."""
    if probability.shape == tuple(size):
        return probability.copy()
    out: Floats = cv2.resize(probability, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return out


def clean(
    probability: Floats,
    post: Postprocessing,
    *,
    threshold: float | None = None,
    lesions: Lesions | None = None,
) -> Cleaned:
    """Steps 2 to 6 of the definition, on the network's map.

    Parameters
    ----------
    probability
        ``float32 (h, w)`` in [0, 1]; not changed.
    post
        Steps that are on, from the model's card.
    threshold
        Instead of the card's.
    lesions
        ``largest`` or ``all``; None does what the card says.
    """
    t = post.threshold if threshold is None else threshold
    level = np.float32(t)
    smoothed = smooth(probability, post.smooth_radius)
    nodes = (smoothed >= level).view(np.uint8)
    filled = fill_holes(nodes) if post.fill_holes else nodes
    largest = post.keep_largest if lesions is None else lesions == "largest"
    labels, found, kept = _select(filled, post.min_area_fraction, 1 if largest else MAX_LABELS)
    edited = smoothed.copy() if smoothed is probability else smoothed
    np.maximum(edited, np.float32((1.0 + t) / 2), out=edited, where=filled > nodes)
    np.minimum(edited, np.float32(t / 2), out=edited, where=(labels == 0) & (filled > 0))
    return Cleaned(edited, labels, kept, found - kept, t)


def smooth(probability: Floats, radius: float) -> Floats:
    """Grey opening then closing with a disc whose radius is a share of the map's shorter side.

    Grey morphology commutes with thresholding: it removes from the mask what an opening removes and
    closes what a closing closes, but leaves a map that still interpolates smoothly.
    """
    r = round(radius * min(probability.shape))
    if r < 1:
        return probability
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))
    opened = cv2.morphologyEx(probability, cv2.MORPH_OPEN, disc)
    out: Floats = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, disc)  # type: ignore[assignment]
    return out


def fill_holes(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A 0/1 mask with every background region filled that has no 4-connected way to the edge."""
    outside = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(outside, None, (0, 0), 2)
    filled: NDArray[np.uint8] = (outside[1:-1, 1:-1] != 2).view(np.uint8)
    return filled


def _select(mask: NDArray[np.uint8], min_fraction: float, limit: int) -> tuple[NDArray[np.uint8], int, int]:
    """Labels of the components kept, largest first, and how many were found and kept."""
    raw, areas = components(mask)
    # stable: of two equal components the one that comes first in reading order is the larger
    order = np.argsort(-areas, kind="stable")[:limit]
    order = order[areas[order] >= min_fraction * mask.size]
    table = np.zeros(len(areas) + 1, np.uint8)
    table[order + 1] = np.arange(1, len(order) + 1)
    return table[raw], len(areas), len(order)


def upsample_mask(cleaned: Cleaned, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Step 7: ``bool (H, W)``, without ever holding a float map of the image's size.

    Where the nodes above and below, interpolated along x, are on one side of the threshold, so are the pixels
    between them: whole rows are copied, and only the few pixels where the two differ are interpolated along
    y. 100 megapixels need one byte per pixel.
    """
    height, width = size
    level = np.float32(cleaned.threshold)
    mask = np.zeros(size, np.bool_)
    rows, _ = window(cleaned, size)
    if rows.start == rows.stop:  # no lesion, or an output so coarse that no pixel meets it
        return mask
    inside = mask[rows]
    position, fraction = _positions(height, cleaned.map.shape[0])
    first = int(position[rows.start])
    node = position[rows] - first
    strip = np.ascontiguousarray(cleaned.map[first : first + int(node[-1]) + 2])
    # bilinear is two linear steps: along x here for the few rows of nodes, along y below
    wide = upsample(strip, (len(strip), width))
    lesion = wide >= level
    np.take(lesion, node, axis=0, out=inside, mode="clip")  # any other mode copies once more
    before, column = np.divmod(np.flatnonzero(lesion[1:] != lesion[:-1]), width)
    begin = np.searchsorted(node, np.arange(len(wide) + 1))  # the first output row after each row of nodes
    times = np.diff(begin)[before]
    row = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times - begin[before], times)
    above, below = wide[before, column], wide[before + 1, column]
    value = fraction[rows][row] * np.repeat(below - above, times)
    value += np.repeat(above, times)
    inside[row, np.repeat(column, times)] = value >= level
    return mask


def window(cleaned: Cleaned, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the output that meet a lesion node: no pixel outside of them is lesion."""
    x, y, width, height = cv2.boundingRect(cleaned.labels)
    if not width:
        return slice(0, 0), slice(0, 0)
    ends = []
    for target, source, begin, extent in (
        (size[0], cleaned.map.shape[0], y, height),
        (size[1], cleaned.map.shape[1], x, width),
    ):
        first, last = np.searchsorted(_positions(target, source)[0], (begin - 1, begin + extent))
        ends.append(slice(int(first), int(last)))
    return ends[0], ends[1]


def upsample_labels(cleaned: Cleaned, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """``uint8 (H, W)``: the component of each pixel of ``mask``, 0 outside it; numbers without a gap."""
    nodes = cleaned.labels
    if cleaned.count <= 1:
        return mask.view(np.uint8).copy()
    # The label of a cell is that of its lesion nodes; they all have the same one.
    right = np.maximum(nodes, np.concatenate([nodes[:, 1:], nodes[:, -1:]], axis=1))
    cells = np.maximum(right, np.concatenate([right[1:], right[-1:]]))
    row, _ = _positions(mask.shape[0], nodes.shape[0])
    column, _ = _positions(mask.shape[1], nodes.shape[1])
    labels: NDArray[np.uint8] = np.take(np.take(cells, column, axis=1), row, axis=0)
    labels *= mask.view(np.uint8)
    held = np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256]))
    held = held[held > 0]
    if len(held) and held[-1] > len(held):  # a node just above the threshold may lie between the pixels
        numbers = np.zeros(256, np.uint8)
        numbers[held] = np.arange(1, len(held) + 1)
        labels = numbers[labels]
    return labels


def _positions(target: int, source: int) -> tuple[NDArray[np.intp], Floats]:
    """For each of ``target`` pixels the node before it and how far it is towards the next one."""
    at = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    node = at.astype(np.intp)
    return node, (at - node).astype(np.float32)


def boundary_confidence(probability: Floats, cleaned: Cleaned) -> float:
    """How sharply the network tells the lesion from what lies just outside it, in [0, 1].

    Mean probability over the kept nodes, minus the mean over the other nodes within ``r`` of them, with
    ``r = max(2, 0.1 * sqrt(number of kept nodes))`` nodes. The width follows the lesion, so a small
    lesion is not judged by distant skin. Measured at the network's size, where the probabilities were
    made. Without any kept node it is 0; where the lesion fills the image the threshold stands for
    the missing outside.
    """
    inside = cleaned.labels > 0
    n = int(np.count_nonzero(inside))
    if n == 0:
        return 0.0
    distance = cv2.distanceTransform((~inside).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    ring = (distance <= max(2.0, 0.1 * n**0.5)) & ~inside
    outside = float(probability[ring].mean()) if ring.any() else cleaned.threshold
    return float(np.clip(float(probability[inside].mean()) - outside, 0.0, 1.0))
