"""A figure of the best, median and worst images, with the reference's and the model's outlines.

Drawn with OpenCV, so that the everyday install can make it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.evaluation.evaluate import Image, Mask
from dermseg.evaluation.table import Evaluation, ImageScore
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.images.sources import ImageSource

Predict = Callable[[ImageSource], Mask]
# Cyan and yellow differ in hue and lightness from skin, from lesions and, for colour-blind readers too,
# from each other; the black casing keeps both visible on light skin.
REFERENCE_RGB = (0, 229, 255)
PREDICTION_RGB = (255, 214, 0)
_SIDE, _GAP, _CAPTION, _TITLE, _LEGEND = 320, 12, 40, 30, 34
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _PAPER = (30, 30, 30), 255
_EACH = 4


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of the figure: uint8 RGB ``(H, W, 3)``, two bool ``(H, W)`` masks, two lines of text."""

    image: Image
    prediction: Mask
    reference: Mask
    title: str
    caption: str


def choose_examples(evaluation: Evaluation) -> list[tuple[str, list[ImageScore]]]:
    """The images with the best, median and worst Jaccard index, at most four per group, none twice.

    The worst come worst first. With several references per image the first one decides.
    """
    first: dict[tuple[str, str], ImageScore] = {}
    for score in evaluation.scores:
        first.setdefault(score.key, score)
    # The id breaks ties, so that the same scores always give the same figure.
    ranked = sorted(first.values(), key=lambda score: (-score.metrics["jaccard"], score.key))
    each = max(1, min(_EACH, len(ranked) // 3))
    if len(ranked) < 3:
        return [("All", ranked)] if ranked else []
    middle = max(each, min(len(ranked) // 2 - each // 2, len(ranked) - 2 * each))
    return [
        ("Best", ranked[:each]),
        ("Median", ranked[middle : middle + each]),
        ("Worst", ranked[: -each - 1 : -1]),
    ]


def draw_panels(predict: Predict, rows: Sequence[IndexRow], scores: Sequence[ImageScore]) -> list[Panel]:
    """A panel for each of the chosen images, which are segmented once more.

    Keeping every mask in memory until the ranking is known would cost more than a few dozen images do.

    Parameters
    ----------
    predict
        From an image file to its mask. (From the file, because a model may read a JPEG at reduced scale.)
    """
    table = {row.key: row for row in rows}
    called = Counter(row.image_id for row in rows)
    panels = []
    for score in scores:
        row = table[score.key]
        image = load_image(open_image(row), min_side=_SIDE).pixels  # dozens of large ones fill the memory
        values = score.metrics
        caption = f"Dice {values['dice']:.3f}  Jaccard {values['jaccard']:.3f}"
        title = row.image_id if called[row.image_id] == 1 else f"{row.dataset}/{row.image_id}"
        panels.append(Panel(image, predict(open_image(row)), load_mask(open_mask(row)), title, caption))
    return panels


def draw_examples(predict: Predict, rows: Sequence[IndexRow], evaluation: Evaluation) -> Image:
    """The figure of an evaluation, uint8 RGB: best, median and worst images."""
    groups = choose_examples(evaluation)
    return draw_gallery([(title, draw_panels(predict, rows, scores)) for title, scores in groups])


def draw_gallery(groups: Sequence[tuple[str, Sequence[Panel]]]) -> Image:
    """Lay panels out, one row per group, with a legend above; uint8 RGB ``(H, W, 3)``."""
    columns = max((len(panels) for _, panels in groups), default=1)
    width = columns * (_SIDE + _GAP) + _GAP
    row_height = _TITLE + _SIDE + _CAPTION
    canvas = np.full((_LEGEND + len(groups) * row_height + _GAP, width, 3), _PAPER, np.uint8)
    x = _GAP
    for name, colour in (("reference", REFERENCE_RGB), ("prediction", PREDICTION_RGB)):
        for thickness, shade in ((7, (0, 0, 0)), (4, colour)):
            cv2.line(canvas, (x, _LEGEND // 2 + 2), (x + 34, _LEGEND // 2 + 2), shade, thickness, cv2.LINE_AA)
        _write(canvas, name, (x + 44, _LEGEND // 2 + 7), 0.5)
        x += 150
    for i, (title, panels) in enumerate(groups):
        top = _LEGEND + i * row_height
        _write(canvas, title, (_GAP, top + 21), 0.65)
        for j, panel in enumerate(panels):
            left = _GAP + j * (_SIDE + _GAP)
            canvas[top + _TITLE : top + _TITLE + _SIDE, left : left + _SIDE] = draw_panel(panel)
            _write(canvas, panel.title, (left, top + _TITLE + _SIDE + 15), 0.45)
            _write(canvas, panel.caption, (left, top + _TITLE + _SIDE + 32), 0.45)
    return canvas


def draw_panel(panel: Panel, side: int = _SIDE) -> Image:
    """One image with both outlines, its aspect kept, centred on a ``side`` x ``side`` field."""
    height, width = panel.image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = np.ascontiguousarray(cv2.resize(panel.image, size, interpolation=shrink))
    outlines = [
        (_outline(panel.reference, size), REFERENCE_RGB),
        (_outline(panel.prediction, size), PREDICTION_RGB),
    ]
    # All casings first: otherwise the second outline's black would cut the first one's colour.
    for contours, _ in outlines:
        cv2.drawContours(picture, contours, -1, (0, 0, 0), 4, cv2.LINE_AA)
    for contours, colour in outlines:
        cv2.drawContours(picture, contours, -1, colour, 2, cv2.LINE_AA)
    field = np.full((side, side, 3), 235, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    field[top : top + size[1], left : left + size[0]] = picture
    return field


def _outline(mask: Mask, size: tuple[int, int]) -> Sequence[cv2.typing.MatLike]:
    grey = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours((grey >= 128).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return contours


def _write(canvas: Image, text: str, at: tuple[int, int], size: float) -> None:
    # OpenCV's stroke fonts hold ASCII only.
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(canvas, plain, at, _FONT, size, _INK, 1, cv2.LINE_AA)
