"""One of several lesions: a box or a click tells the model which."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import UsageError
from dermseg.inference.predictor import Model
from dermseg.labeling.editor.document import Document
from dermseg.labeling.editor.tools import Patch, Point, cut

_MARGIN = 0.35  # of the box's sides: the network was trained on lesions with skin around them


def segment_box(
    model: Model,
    pixels: NDArray[np.uint8],
    box: tuple[int, int, int, int],
    *,
    threshold: float | None = None,
) -> Patch:
    """The lesion inside a box: the model looks at the box with a margin, and only the box's pixels count.

    Parameters
    ----------
    pixels
        uint8 (H, W, 3) RGB.
    box
        x, y, width and height in pixels.

    Raises
    ------
    UsageError
        The box has no pixel of the image.
    """
    height, width = pixels.shape[:2]
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[0] + box[2], width), min(box[1] + box[3], height)
    if left >= right or top >= bottom:
        raise UsageError(f"the box {box} has no pixel of an image of {width}x{height}")
    dx, dy = round((right - left) * _MARGIN), round((bottom - top) * _MARGIN)
    x, y = max(left - dx, 0), max(top - dy, 0)
    view = pixels[y : min(bottom + dy, height), x : min(right + dx, width)]
    found = model.segment(np.ascontiguousarray(view), threshold=threshold, lesions="largest")
    return Patch(left, top, found.mask[top - y : bottom - y, left - x : right - x].copy())


def segment_click(
    model: Model, pixels: NDArray[np.uint8], at: Point, *, threshold: float | None = None
) -> Patch:
    """The lesion under a click, of all that the model finds; where it finds none there, it looks closer.

    Returns
    -------
    Patch
        The clicked lesion alone; without pixels where nothing is found.
    """
    height, width = pixels.shape[:2]
    column, row = min(max(round(at[0]), 0), width - 1), min(max(round(at[1]), 0), height - 1)
    labels = model.segment(pixels, threshold=threshold, lesions="all").labels
    if labels is not None and labels[row, column]:
        return cut(np.asarray(labels == labels[row, column]))
    side = max(min(height, width) // 3, 2)
    patch = segment_box(model, pixels, (column - side // 2, row - side // 2, side, side), threshold=threshold)
    _, parts = cv2.connectedComponents(patch.mask.view(np.uint8), connectivity=8)
    clicked = parts[row - patch.y, column - patch.x]
    found = cut(np.asarray((parts == clicked) & patch.mask))
    return Patch(found.x + patch.x, found.y + patch.y, found.mask)


def narrow(document: Document, name: str, label: str, patch: Patch, *, erase: bool = False) -> None:
    """One lesion was meant: what the model proposed in its class makes room for it, as one step of undo.

    What a person has drawn or approved stays, and so do the other classes. ``erase`` takes that lesion away
    instead, and all the rest stays.
    """
    document.settle()  # a stroke may be under way by now
    untouched = document.status == "proposed" and not erase
    if untouched:
        document.paint(label, cut(document.layer(label)), erase=True)
    if document.apply(name, label, patch, erase=erase) is None and untouched:
        document.set_status("corrected")  # a person has pointed at what the model had proposed
