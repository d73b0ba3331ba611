"""The picture that is worked on: a view that passes mouse and keys to a ``Pen`` and draws the tool's mark."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from PySide6.QtCore import QPoint, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QEnterEvent,
    QFocusEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
    QWheelEvent,
)

from dermseg.apps.desktop.render import Renderer
from dermseg.apps.desktop.view import View
from dermseg.errors import DermsegError
from dermseg.labeling.editor.document import Box
from dermseg.labeling.editor.pen import Pen
from dermseg.labeling.editor.tools import Point

_ARROWS = {
    Qt.Key.Key_Left: (-1, 0),
    Qt.Key.Key_Right: (1, 0),
    Qt.Key.Key_Up: (0, -1),
    Qt.Key.Key_Down: (0, 1),
}
_NEAR = 6.0  # screen pixels around the first corner of a polygon, where a click closes it


class Canvas(View):
    """One image with its layers, and a tool on it.

    Signals
    -------
    edited
        A stroke ended, or a tool did something.
    pressed
        The tool is about to be put down.
    problem
        An error.
    """

    edited = Signal()
    pressed = Signal()
    problem = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.pen: Pen | None = None
        self.frame_times: deque[float] = deque(maxlen=2000)  # seconds from a mouse move to its pixels
        self._cursor = QPointF(-1, -1)
        self._grabbed: QPointF | None = None
        self._key_down = False
        self._space_pans = False
        self._asked: float | None = None
        # Of the tool, as chosen by the user: a share of the image's longer side.
        self._width: float | None = None
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def show_image(self, renderer: Renderer | None, pen: Pen | None = None) -> None:
        """Show an image, or nothing; without a pen it can only be looked at."""
        self.pen, self._key_down = pen, False
        if pen is not None and self._width is not None:
            pen.radius = max(self._width * max(pen.document.size), 0.5)
        super().show_image(renderer)

    # -- drawing

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """What is under way goes on top of the picture."""
        super().paintEvent(event)
        if self.renderer is not None and self.pen is not None:
            painter = QPainter(self)
            self._draw_pen(painter, self.pen, self.renderer)
            painter.end()
        if self._asked is not None:
            self.frame_times.append(time.perf_counter() - self._asked)
            self._asked = None

    def _draw_pen(self, painter: QPainter, pen: Pen, renderer: Renderer) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for colour, width in ((QColor(0, 0, 0, 160), 3.0), (QColor(255, 255, 255), 1.2)):
            painter.setPen(QPen(colour, width))
            if pen.tool in ("polygon", "lasso") and pen.points:
                ahead = [self._cursor] if self._cursor.x() >= 0 else []  # elsewhere while the mouse is away
                painter.drawPolyline(QPolygonF([self._on_screen(p) for p in pen.points] + ahead))
                if pen.unclosed:
                    painter.drawEllipse(self._on_screen(pen.points[0]), _NEAR, _NEAR)
            elif pen.tool == "box" and len(pen.points) == 2:
                painter.drawRect(QRectF(self._on_screen(pen.points[0]), self._on_screen(pen.points[1])))
            elif pen.tool in ("brush", "eraser") and self._cursor.x() >= 0:
                radius = pen.radius * renderer.scale / self.devicePixelRatioF()
                painter.drawEllipse(self._cursor, radius, radius)
            elif self._cursor.x() >= 0:
                painter.drawLine(self._cursor - QPointF(7, 0), self._cursor + QPointF(7, 0))
                painter.drawLine(self._cursor - QPointF(0, 7), self._cursor + QPointF(0, 7))

    def _on_screen(self, point: tuple[float, float]) -> QPointF:
        if self.renderer is None:
            return QPointF()
        return QPointF(*self.renderer.to_screen(*point)) / self.devicePixelRatioF()

    def _near(self, point: Point) -> bool:
        away = self._on_screen(point) - self._cursor
        return math.hypot(away.x(), away.y()) <= _NEAR

    def _update_cursor(self) -> None:
        """The tool's mark lies on top of the frame: what it covers must be copied again."""
        if self.pen is None or self.renderer is None:
            return
        if self.pen.tool in ("polygon", "lasso", "box") and self.pen.points:
            self.update()
            return
        radius = 9.0
        if self.pen.tool in ("brush", "eraser"):
            radius = self.pen.radius * self.renderer.scale / self.devicePixelRatioF() + 3
        x, y = self._cursor.x(), self._cursor.y()
        self.update(QRectF(x - radius, y - radius, 2 * radius, 2 * radius).toAlignedRect())

    # -- mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Left: the tool. Right: the tool takes away. Another, or one with the space bar: move the image."""
        self._cursor = event.position()
        if self._moves_image(event):
            self._grabbed = event.position()
        elif self.pen is not None and self.pen.unclosed and self._near(self.pen.points[0]):
            self.close_shape()  # as in LabelMe
        elif self.pen is not None:
            self.pressed.emit()
            erase = event.button() == Qt.MouseButton.RightButton
            self._act(lambda pen, at: pen.press(at, erase=erase))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Go on with what the button does."""
        began = time.perf_counter()
        self._move_cursor(event.position())
        if self._grabbed is not None:
            self.pan(event.position() - self._grabbed)
            self._grabbed = event.position()
        elif self.pen is not None and self.pen.busy:
            if self._asked is None:
                self._asked = began
            self._act(lambda pen, at: pen.move(at), ends=False)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """End the stroke."""
        if self._grabbed is not None:
            self._grabbed = None
        elif self.pen is not None:
            self._act(lambda pen, at: pen.release())

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Close the polygon."""
        if self.pen is not None and self.pen.tool == "polygon" and not self._moves_image(event):
            self.close_shape()
        else:
            self.mousePressEvent(event)

    def _moves_image(self, event: QMouseEvent) -> bool:
        # A mouse has more buttons at its side, which a hand presses unawares.
        return (
            event.button() not in (Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton) or self._space_pans
        )

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        """Zoom; with Ctrl, the tool's width."""
        turn = event.angleDelta().y() / 120
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.widen(1.2**turn)
        else:
            self.zoom(1.25**turn, event.position())

    def enterEvent(self, event: QEnterEvent) -> None:  # noqa: N802
        """Keys go to the picture under the mouse: in the list of classes the space bar would hide one."""
        if self.pen is not None:
            self.setFocus(Qt.FocusReason.MouseFocusReason)
        super().enterEvent(event)

    def leaveEvent(self, event: object) -> None:  # noqa: N802
        """The tool's mark goes with the mouse."""
        self._move_cursor(QPointF(-1, -1))

    # -- keyboard

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        """Arrows move the tool, Enter is the mouse button, Ctrl+Enter closes a polygon, Escape drops it."""
        key = Qt.Key(event.key())
        if key in _ARROWS and self.renderer is not None:
            far = 1 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 10
            start = QPointF(self.rect().center()) if self._cursor.x() < 0 else self._cursor
            to = start + QPointF(*_ARROWS[key]) * far
            inside = QPointF(QPoint(*self._inside(to)))
            self.uncover(to - inside)
            self._move_cursor(inside)
            if self._key_down:
                self._act(lambda pen, at: pen.move(at), ends=False)
        elif key == Qt.Key.Key_Space:
            self._space_pans = True
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.pen is not None:
            if event.isAutoRepeat():
                return
            if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
                self.close_shape()
            elif self._key_down and self.pen.busy:  # else it was dropped by an undo
                self._key_down = False
                self._act(lambda pen, at: pen.release())
            else:
                self.pressed.emit()
                self._key_down = self.pen.tool in ("brush", "eraser", "lasso", "box")
                self._act(lambda pen, at: pen.press(at))
        elif key == Qt.Key.Key_Escape and self.pen is not None:
            self._key_down = False
            self._act(lambda pen, at: pen.cancel())
        else:
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        """The space bar was let go."""
        if event.key() == Qt.Key.Key_Space and not event.isAutoRepeat():
            self._space_pans = False
        super().keyReleaseEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:  # noqa: N802
        """Where keys go elsewhere, nobody says that the space bar was let go."""
        self._space_pans = False
        super().focusOutEvent(event)

    # -- the tool

    def close_shape(self) -> None:
        """Close the polygon under way."""
        self._act(lambda pen, at: pen.close())

    def widen(self, factor: float) -> None:
        """Make the tool wider or narrower."""
        if self.pen is not None:
            self._update_cursor()
            longest = max(self.pen.document.size)
            self.pen.radius = min(max(self.pen.radius * factor, 0.5), longest / 4)
            self._width = self.pen.radius / longest
            self._update_cursor()
            self.edited.emit()

    def _inside(self, point: QPointF) -> tuple[int, int]:
        x, y = round(point.x()), round(point.y())
        return min(max(x, 0), self.width() - 1), min(max(y, 0), self.height() - 1)

    def _move_cursor(self, to: QPointF) -> None:
        self._update_cursor()
        self._cursor = to
        self._update_cursor()

    def _act(self, action: Callable[[Pen, Point], list[Box]], *, ends: bool = True) -> None:
        """Let the pen do something at the cursor, show what changed, and say so when a stroke has ended."""
        if self.pen is None or self.renderer is None:
            return
        ratio = self.devicePixelRatioF()
        at = self.renderer.to_image(self._cursor.x() * ratio, self._cursor.y() * ratio)
        drawn = bool(self.pen.points)
        try:
            boxes = action(self.pen, at)
        except DermsegError as error:
            self.problem.emit(error)
            return
        self.refresh(boxes)
        if drawn and not self.pen.points:
            self.update()
        if ends:
            self.edited.emit()
