"""The picture on the screen: shows a ``Renderer``, zooms and moves it, draws again only what changed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPointF, QRect, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QWidget

from dermseg.apps.desktop.render import BACKGROUND, Layer, Renderer
from dermseg.labeling.editor.document import Box


class View(QWidget):
    """One image with its layers.

    Signals
    -------
    moved
        Another part is shown; another view may follow with ``follow``.
    resized
        Another size; what followed another view must follow it anew.
    """

    moved = Signal()
    resized = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.renderer: Renderer | None = None
        self._shown: QImage | None = None
        self._fitted = True
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setMinimumSize(320, 240)

    def show_image(self, renderer: Renderer | None) -> None:
        """Show an image, or nothing."""
        self.renderer = renderer
        self.fit()

    def set_layers(self, layers: Sequence[Layer]) -> None:
        """Other layers on the same image."""
        if self.renderer is not None:
            self.renderer.layers = layers
            self.refresh()

    def refresh(self, boxes: Sequence[Box] | None = None) -> None:
        """Compose and show the layers anew: everywhere, or where boxes of the image lie."""
        if self.renderer is None:
            return
        height, width = self.renderer.frame.shape[:2]
        areas = [(0, 0, width, height)] if boxes is None else [self.renderer.screen_box(b) for b in boxes]
        for x, y, w, h in areas:
            self.renderer.compose(x, y, w, h)
            self._update(QRectF(x, y, w, h))

    def redraw(self) -> None:
        """Everything anew: the view changed."""
        if self.renderer is not None:
            self.renderer.draw()
        self.update()

    def fit(self) -> None:
        """Show the whole image."""
        self._fitted = True
        self._adopt_size()
        if self.renderer is not None:
            self.renderer.fit()
        self.redraw()
        self.moved.emit()

    def zoom(self, factor: float, at: QPointF | None = None) -> None:
        """Zoom in or out, keeping a point where it is (else the middle)."""
        if self.renderer is not None:
            self.zoom_to(self.renderer.scale * factor, at)

    def zoom_to(self, scale: float, at: QPointF | None = None) -> None:
        """Zoom to so many screen pixels per pixel of the image."""
        if self.renderer is None:
            return
        self._fitted = False
        at = (QPointF(self.rect().center()) if at is None else at) * self.devicePixelRatioF()
        self.renderer.zoom(scale, at.x(), at.y())
        self.redraw()
        self.moved.emit()

    def pan(self, by: QPointF) -> None:
        """Move the image by a distance on the screen."""
        if self.renderer is None:
            return
        self._fitted = False
        by = by * self.devicePixelRatioF()
        self.renderer.pan(by.x(), by.y())
        self.redraw()
        self.moved.emit()

    def uncover(self, beyond: QPointF) -> None:
        """Show what lies so far beyond the edges of the screen, as far as there is more of the image."""
        if self.renderer is None or beyond.isNull():
            return
        (height, width), (rows, columns) = self.renderer.frame.shape[:2], self.renderer.size
        left, top = self.renderer.to_screen(-0.5, -0.5)
        right, bottom = self.renderer.to_screen(columns - 0.5, rows - 0.5)
        ratio = self.devicePixelRatioF()
        x = min(max(beyond.x() * ratio, min(left, 0.0)), max(right - width, 0.0))
        y = min(max(beyond.y() * ratio, min(top, 0.0)), max(bottom - height, 0.0))
        if abs(x) > 0.01 or abs(y) > 0.01:
            self.pan(QPointF(-x, -y) / ratio)

    def follow(self, other: View) -> None:
        """Show the same place as another view, its middle in the middle."""
        mine, theirs = self.renderer, other.renderer
        if mine is None or theirs is None:
            return
        (h, w), (oh, ow) = mine.frame.shape[:2], theirs.frame.shape[:2]
        mine.scale = theirs.scale
        mine.left = theirs.left + (ow - w) / 2 / theirs.scale
        mine.top = theirs.top + (oh - h) / 2 / theirs.scale
        self._fitted = False
        self.redraw()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """Copy the changed part of the frame to the screen."""
        painter = QPainter(self)
        ratio = self.devicePixelRatioF()
        for rect in event.region():  # type: ignore[attr-defined]  # missing in Qt's stubs
            if self._shown is None or self.renderer is None:
                painter.fillRect(rect, QColor(*BACKGROUND[::-1]))
            else:
                source = QRectF(
                    rect.x() * ratio, rect.y() * ratio, rect.width() * ratio, rect.height() * ratio
                )
                painter.drawImage(QRectF(rect), self._shown, source)
        painter.end()

    def _update(self, area: QRectF) -> None:
        ratio = self.devicePixelRatioF()
        x, y = math.floor(area.x() / ratio), math.floor(area.y() / ratio)
        right, bottom = math.ceil(area.right() / ratio), math.ceil(area.bottom() / ratio)
        self.update(QRect(x, y, right - x, bottom - y))

    def _adopt_size(self) -> None:
        if self.renderer is None:
            self._shown = None
            return
        ratio = self.devicePixelRatioF()
        self.renderer.line = max(1, round(ratio))
        self.renderer.resize(max(1, round(self.width() * ratio)), max(1, round(self.height() * ratio)))
        frame = self.renderer.frame
        self._shown = QImage(
            frame.data, frame.shape[1], frame.shape[0], frame.strides[0], QImage.Format.Format_RGB32
        )

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        """Another size, with as many pixels as the screen has there."""
        self._fill()

    def event(self, event: QEvent) -> bool:
        """On a finer or coarser screen the same size has another number of pixels."""
        if event.type() == QEvent.Type.DevicePixelRatioChange:
            self._fill()
        return super().event(event)

    def _fill(self) -> None:
        """Keep showing the whole image, if that is what was shown."""
        self._adopt_size()
        if self._fitted:
            self.fit()
        else:
            self.redraw()
        self.resized.emit()
