"""The live picture in the window: starts and stops the camera, and shows its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dermseg.apps.desktop.camera import Camera
from dermseg.apps.desktop.render import Layer, Renderer
from dermseg.apps.desktop.theme import CLASS_COLOURS

if TYPE_CHECKING:
    from dermseg.apps.desktop.window import Window


class Live:
    """The camera, while it runs.

    Attributes
    ----------
    before
        Row of the image that was open when it was started; -1 without one.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._camera: Camera | None = None
        self.before = -1

    @property
    def on(self) -> bool:
        """Whether it runs."""
        return self._camera is not None

    def start(self, source: int | str) -> None:
        """Show a camera, or a film, and no image of the list."""
        self.before = self._window.file_list.currentRow()
        self._window.file_list.setCurrentRow(-1)
        self._camera = Camera(source, self._window.session.model, self._window)
        self._camera.frame.connect(self._show)
        self._camera.failed.connect(self._failed)
        self._camera.start()

    def stop(self) -> None:
        """Show nothing more."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.stop()
            self._window.menus.camera.setChecked(False)
            self._window.canvas.show_image(None)
            self._window.say("")

    def _failed(self, why: str) -> None:
        """Without a picture the list stands where it was; of a film that has ended the last one is seen."""
        if self._camera is not None and self._window.canvas.renderer is None:
            self.stop()
            self._window.file_list.put_back(self.before)
        self._window.report(why)

    def _show(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], rate: float) -> None:
        if self._camera is None:
            return
        renderer = Renderer(pixels)
        renderer.opacity = self._window.sliders.value("Opacity")
        renderer.layers = [Layer(mask, CLASS_COLOURS[0])]
        self._window.canvas.show_image(renderer)
        self._window.say(self._window.texts("Live: {rate:.0f} frames/s", rate=rate))
        self._camera.shown()
