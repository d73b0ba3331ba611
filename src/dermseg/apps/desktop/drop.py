"""Files and folders that are dragged onto the window are opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QWidget


class Drop(QObject):
    """Lets a window take files.

    Parameters
    ----------
    window
        On which, or on whatever of it, they are dropped.
    take
        Called with their paths.
    """

    def __init__(self, window: QWidget, take: Callable[[Sequence[str]], object]) -> None:
        super().__init__(window)
        self._take = take
        window.setAcceptDrops(True)
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Accept what has files on this machine; other events are not looked at."""
        if not isinstance(event, QDropEvent):
            return super().eventFilter(watched, event)
        copy = Qt.DropAction.CopyAction  # of what was moved the file manager removes its own
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if not paths or copy not in event.possibleActions():
            event.ignore()
            return True
        event.setDropAction(copy)
        event.accept()
        if event.type() == QEvent.Type.Drop:
            # behind the event: the program that it came from waits for its end
            QTimer.singleShot(0, lambda: self._take(paths))
        return True
