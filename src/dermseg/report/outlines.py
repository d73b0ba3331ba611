"""The worst images as a line drawing: two outlines on paper and not one pixel of a photograph.

Data sets for research seldom allow their photographs to be published again; a model card that is part of a
repository shows what went wrong without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from dermseg.evaluation.figure import Panel
from dermseg.images.contours import mask_to_polygons

_SIDE, _GAP, _CAPTION, _LEGEND = 180, 14, 34, 30
# Told apart by lightness and dash as well as by hue.
_REFERENCE = 'fill="#1f6fb2" fill-rule="evenodd" fill-opacity="0.14" stroke="#1f6fb2" stroke-width="2"'
_PREDICTION = 'fill="none" stroke="#c2571a" stroke-width="2" stroke-dasharray="5 3"'


def draw_outlines(panels: Sequence[Panel], columns: int = 4) -> str:
    """An SVG with the frame, the reference's and the predicted outline of each image, its aspect kept.

    Parameters
    ----------
    panels
        As ``evaluation.figure.draw_panels`` gives them; their photographs are not used.
    columns
        Images beside each other.
    """
    columns = max(1, min(columns, len(panels)))
    rows = -(-len(panels) // columns)
    width = max(_GAP + columns * (_SIDE + _GAP), 2 * _SIDE)
    height = _LEGEND + rows * (_SIDE + _CAPTION + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11" fill="#222" role="img">',
        "<title>Outlines of the worst images: reference and prediction</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<rect x="{_GAP}" y="8" width="26" height="14" {_REFERENCE}/>',
        f'<text x="{_GAP + 34}" y="19">reference</text>',
        f'<rect x="{_GAP + 110}" y="8" width="26" height="14" {_PREDICTION}/>',
        f'<text x="{_GAP + 144}" y="19">prediction</text>',
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        parts += _panel(panel, _GAP + column * (_SIDE + _GAP), _LEGEND + row * (_SIDE + _CAPTION + _GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    height, width = panel.reference.shape
    scale = _SIDE / max(height, width)
    x, y = left + (_SIDE - width * scale) / 2, top + (_SIDE - height * scale) / 2
    return [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width * scale:.1f}" height="{height * scale:.1f}" '
        'fill="#fafafa" stroke="#bbb"/>',
        *(
            f'<path d="{path}" {style}/>'
            for mask, style in ((panel.reference, _REFERENCE), (panel.prediction, _PREDICTION))
            if (path := _path(mask, scale, x, y))
        ),
        f'<text x="{left}" y="{top + _SIDE + 14}">{escape(panel.title)}</text>',
        f'<text x="{left}" y="{top + _SIDE + 28}" fill="#555">{escape(panel.caption)}</text>',
    ]


def _path(mask: NDArray[np.bool_], scale: float, x: float, y: float) -> str:
    """Every outline of a mask, holes too, as one path; a third of a drawn pixel is not to be seen."""
    lines = [
        line
        for polygon in mask_to_polygons(mask, epsilon=0.35 / scale)
        for line in (polygon.outer, *polygon.holes)
    ]
    points = [(line + 0.5) * scale + (x, y) for line in lines]
    return " ".join("M" + " ".join(f"{px:.1f},{py:.1f}" for px, py in line) + "Z" for line in points)
