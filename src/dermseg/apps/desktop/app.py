"""Start the program."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QLibraryInfo, QLocale, QSize, QTimer, QTranslator
from PySide6.QtWidgets import QApplication, QWidget

from dermseg.apps.desktop.session import Session
from dermseg.apps.desktop.texts import Texts
from dermseg.apps.desktop.theme import apply_theme
from dermseg.apps.desktop.window import Window


def speak(app: QApplication, language: str) -> QTranslator:
    """Qt's own words too, such as the buttons of dialogs, where it has them in this language."""
    QLocale.setDefault(QLocale(language))
    words = QTranslator(app)
    if words.load(f"qtbase_{language}", QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)):
        app.installTranslator(words)
    return words


def fit_screen(window: QWidget) -> None:
    """Make a window no larger than its screen: below the edge of a laptop's lie the messages."""
    frame = QSize(16, 48)  # about as much as systems take; it is known when the window is shown
    window.resize(window.size().boundedTo(window.screen().availableSize() - frame))


def run(
    inputs: Sequence[str],
    *,
    model: str,
    output: Path | None,
    second: Path | None,
    camera: str | None,
    language: str | None,
) -> int:
    """Show the window until it is closed; gives the exit code.

    Raises
    ------
    DermsegError
        The inputs name no image.
    """
    app = QApplication(sys.argv[:1])
    app.setApplicationName("dermseg")
    apply_theme(app)
    texts = Texts(language)
    speak(app, texts.language)
    window = Window(Session(model, output, second), texts)
    if inputs:
        window.open_inputs(inputs)
    fit_screen(window)
    window.show()
    if camera is not None:
        window.toggle_camera(int(camera) if camera.isdigit() else camera)
    # Ctrl-C in the terminal closes the window. Python looks at signals only when it runs: wake it up.
    signal.signal(signal.SIGINT, lambda *_: window.close())
    awake = QTimer()
    awake.timeout.connect(lambda: None)
    awake.start(200)
    return app.exec()
