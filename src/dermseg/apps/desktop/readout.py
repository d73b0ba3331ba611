"""What is measured on the open image, and how a second reader's outline differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer

from dermseg.apps.desktop.panels import disagreement_heads, disagreement_rows, reading_rows
from dermseg.apps.desktop.worker import Worker
from dermseg.measure.geometry import Reading, measure_mask

if TYPE_CHECKING:
    from dermseg.apps.desktop.window import Window

_PAUSE_MS = 250  # after the last stroke, before measuring


class Readout:
    """Measures in a thread of its own, once the hand rests.

    Attributes
    ----------
    worker
        The thread.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self.worker = Worker(window)
        self._pause = QTimer(window)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(self._measure)

    def soon(self) -> None:
        """The outline has changed."""
        self._pause.start()

    def forget(self) -> None:
        """Another image is about to be opened."""
        self.worker.cancel()
        self._pause.stop()

    def clear(self) -> None:
        """Show no figures."""
        self._window.readings.show_rows([])
        self._window.differences.show_rows([])

    def _measure(self) -> None:
        opened = self._window.session.opened
        if opened is None:
            return
        mask = opened.document.layer(self._window.session.label).copy()
        spacing = opened.info.spacing_mm
        self.worker.submit(lambda: measure_mask(mask, spacing), self._measured)
        self._window.guarded(self.compare)

    def _measured(self, reading: Reading) -> None:
        window = self._window
        result, opened = window.session.result, window.session.opened
        judged = None if result is None else result.judgement
        if opened is not None and opened.document.status == "new":  # nobody has outlined anything yet
            window.readings.show_rows([])
            return
        fresh = judged is not None and opened is not None and opened.document.status == "proposed"
        dice = judged.predicted_dice if fresh and judged is not None else None
        window.readings.show_rows(reading_rows(reading, dice, window.texts))

    def compare(self) -> None:
        """Show how the second reader differs, if there is one."""
        window = self._window
        if window.session.second is None or window.session.opened is None:
            return
        found = window.session.compare()
        window.differences.show_heads(disagreement_heads(window.texts))
        window.difference_dock.show()
        if not window.other.isVisible():
            window.other.show()
            half = window.splitter.width()
            window.splitter.setSizes([half, half])  # of equal width: both show the same part
            window.canvas.fit()
        if found is None:
            window.differences.show_rows([])
            window.other.set_layers([])
            nothing = window.texts("The other reader has drawn nothing on this image")
            if nothing not in (said := window.message.text()):  # beside what is wrong, with saving say
                window.say("; ".join(filter(None, (said, nothing))))
            return
        disagreements, layers = found
        window.differences.show_rows(disagreement_rows(disagreements, window.texts))
        window.other.set_layers(layers)
        window.other.follow(window.canvas)
