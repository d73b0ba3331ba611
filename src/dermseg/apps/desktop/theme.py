"""A dark look for dim rooms, and the colours of the classes."""

from __future__ import annotations

from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication

# Okabe and Ito 2008: told apart with every kind of colour vision; the first ones stand out on skin
CLASS_COLOURS = (
    (0, 200, 255),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
ONLY_FIRST, ONLY_SECOND = (0, 200, 255), (255, 60, 200)

_ROLES = {
    QPalette.ColorRole.Window: "#1e1e20",
    QPalette.ColorRole.WindowText: "#d8d8d8",
    QPalette.ColorRole.Base: "#161618",
    QPalette.ColorRole.AlternateBase: "#1b1b1e",
    QPalette.ColorRole.Text: "#d8d8d8",
    QPalette.ColorRole.PlaceholderText: "#8a8a8a",
    QPalette.ColorRole.Button: "#2a2a2d",
    QPalette.ColorRole.ButtonText: "#d8d8d8",
    QPalette.ColorRole.ToolTipBase: "#2a2a2d",
    QPalette.ColorRole.ToolTipText: "#d8d8d8",
    QPalette.ColorRole.Highlight: "#2f6f8f",
    QPalette.ColorRole.HighlightedText: "#ffffff",
    QPalette.ColorRole.Link: "#6cc0e5",
}


def apply_theme(app: QApplication) -> None:
    """The same dark look on every system."""
    app.setStyle("Fusion")
    palette = QPalette()
    for role, colour in _ROLES.items():
        palette.setColor(role, QColor(colour))
    for role in (QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText, QPalette.ColorRole.WindowText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor("#6a6a6a"))
    app.setPalette(palette)
    app.setStyleSheet(
        "QToolButton:checked { background: #2f6f8f; } QDockWidget::title { padding: 4px; }"
        " QStatusBar::item { border: none; }"
    )
