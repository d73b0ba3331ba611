"""The words of the window, in English and German. The English text is the key."""

from __future__ import annotations

import locale

from dermseg.apps.desktop.sentences import FINDINGS, german_error
from dermseg.errors import DermsegError

GERMAN = {
    "File": "Datei",
    "Edit": "Bearbeiten",
    "View": "Ansicht",
    "Tool": "Werkzeug",
    "Model": "Modell",
    "Open images…": "Bilder öffnen …",
    "Open folder…": "Ordner öffnen …",
    "Second reader…": "Zweite Beurteilung …",
    "Save": "Speichern",
    "Export mask as PNG…": "Maske als PNG exportieren …",
    "Export all as COCO…": "Alles als COCO exportieren …",
    "Camera": "Kamera",
    "Quit": "Beenden",
    "Undo": "Rückgängig",
    "Redo": "Wiederholen",
    "New class…": "Neue Klasse …",
    "Name of the class": "Name der Klasse",
    "Next class": "Nächste Klasse",
    "Grow": "Wachsen",
    "Shrink": "Schrumpfen",
    "Approve and go on": "Freigeben und weiter",
    "Next image": "Nächstes Bild",
    "Previous image": "Voriges Bild",
    "Next not approved": "Nächstes nicht freigegebenes",
    "No other image is left to approve": "Kein anderes Bild ist noch freizugeben",
    "Whole image": "Ganzes Bild",
    "Full size": "Volle Größe",
    "Zoom in": "Vergrößern",
    "Zoom out": "Verkleinern",
    "Show masks": "Masken zeigen",
    "More opaque": "Deckender",
    "More transparent": "Durchsichtiger",
    "Brush": "Pinsel",
    "Eraser": "Radierer",
    "Polygon": "Polygon",
    "Lasso": "Lasso",
    "Smart fill": "Zauberstab",
    "Model in box": "Modell im Rahmen",
    "Model at click": "Modell am Klick",
    "paint": "malen",
    "take away": "wegnehmen",
    "click its corners; the first again or Ctrl+Enter closes it, Escape drops it": (
        "seine Ecken anklicken; die erste noch einmal oder Strg+Eingabe schließt es, Esc verwirft es"
    ),
    "draw around an area": "um eine Fläche fahren",
    "click an area of like colour": "eine Fläche ähnlicher Farbe anklicken",
    "draw a box around one lesion": "einen Rahmen um eine Läsion ziehen",
    "click one lesion": "eine Läsion anklicken",
    "The right button takes away instead of adding": "Die rechte Taste nimmt weg, statt hinzuzufügen",
    "Wider": "Breiter",
    "Narrower": "Schmaler",
    "Propose": "Vorschlagen",
    "Higher threshold": "Höhere Schwelle",
    "Lower threshold": "Niedrigere Schwelle",
    "Images": "Bilder",
    "Classes": "Klassen",
    "Settings": "Einstellungen",
    "Opacity": "Deckkraft",
    "Threshold": "Schwelle",
    "Width": "Breite",
    "Tolerance": "Toleranz",
    "Measurements": "Messwerte",
    "Disagreement": "Abweichung",
    "Class": "Klasse",
    "Only here": "Nur hier",
    "Only there": "Nur dort",
    "new": "neu",
    "proposed": "vorgeschlagen",
    "corrected": "korrigiert",
    "approved": "freigegeben",
    "cannot be read": "nicht lesbar",
    "unsaved": "nicht gespeichert",
    "Area": "Fläche",
    "Share of the image": "Anteil am Bild",
    "Perimeter": "Umfang",
    "Largest diameter": "Größter Durchmesser",
    "Smallest diameter": "Kleinster Durchmesser",
    "Circularity": "Rundheit",
    "Parts": "Teile",
    "Expected Dice": "Erwarteter Dice",
    "Drop images or a folder here, or open them: Ctrl+O, Ctrl+Shift+O": (
        "Bilder oder einen Ordner hierher ziehen oder öffnen: Strg+O, Strg+Umschalt+O"
    ),
    "Images: {done} of {total} approved": "Bilder: {done} von {total} freigegeben",
    "Loading {name}": "{name} wird geladen",
    "The model looks at the image": "Das Modell betrachtet das Bild",
    "Saved: {name}": "Gespeichert: {name}",
    "Nothing found": "Nichts gefunden",
    "The drawing stays; P asks the model with this threshold": (
        "Die Zeichnung bleibt; P fragt das Modell mit dieser Schwelle"
    ),
    "Work that a crash had cut off was brought back": "Nach einem Absturz wiederhergestellt",
    "The other reader has drawn nothing on this image": "Die zweite Beurteilung enthält dieses Bild nicht",
    "Writing {name}": "{name} wird geschrieben",
    "Images written: {number}": "Geschriebene Bilder: {number}",
    "{number} left out: proposals, or of another image": (
        "{number} ausgelassen: Vorschläge oder zu einem anderen Bild"
    ),
    "Live: {rate:.0f} frames/s": "Live: {rate:.0f} Bilder/s",
    "Some files are left out": "Einige Dateien sind ausgelassen",
    "Not a medical device": "Kein Medizinprodukt",
    "The work on {name} is in no file": "Die Arbeit an {name} ist in keiner Datei",
    "Write over {name}?": "{name} überschreiben?",
    "{value}%": "{value}\u00a0%",
    **FINDINGS,
}


class Texts:
    """Words in one language: ``texts("Save")``, or a sentence ``texts("Saved: {name}", name=...)``.

    Parameters
    ----------
    language
        ``en`` or ``de``; None takes the system's.
    """

    def __init__(self, language: str | None = None) -> None:
        if language is None:
            system = locale.getlocale()[0] or ""
            language = "de" if system.lower().startswith(("de", "german")) else "en"
        self.language = language

    def __call__(self, key: str, **values: object) -> str:
        text = GERMAN.get(key, key) if self.language == "de" else key
        return text.format(**values) if values else text

    def error(self, error: Exception | str) -> str:
        """An error as one line."""
        if self.language != "de":
            return str(error) or type(error).__name__
        if isinstance(error, DermsegError):
            hint = german_error(error.hint) if error.hint else None
            return str(DermsegError(german_error(error.message), file=error.file, hint=hint))
        return german_error(str(error)) or type(error).__name__
