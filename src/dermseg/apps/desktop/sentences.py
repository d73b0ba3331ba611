"""German for what other parts of dermseg say: what the gate finds, and errors, which carry values."""

from __future__ import annotations

import re

# what the gate finds; the English sentences are those of ``quality.verdict``
FINDINGS = {
    "not like the dermoscopic images the model knows": "anders als die dermatoskopischen Bilder des Modells",
    "not a picture of a skin lesion as far as the model can tell": "dem Modell nach kein Bild einer Läsion",
    "out of focus": "unscharf",
    "too dark": "zu dunkel",
    "overexposed, parts are plain white": "überbelichtet, Teile sind rein weiß",
    "strong colour cast": "starker Farbstich",
    "hair lies over the skin": "Haare liegen über der Haut",
    "a ruler or scale marks are in view": "ein Lineal oder Maßstab ist im Bild",
    "bubbles or reflections in the contact fluid": "Blasen oder Spiegelungen in der Kontaktflüssigkeit",
    "dark corners take up much of the image": "dunkle Ecken nehmen viel vom Bild ein",
    "too few pixels": "zu wenige Pixel",
    "the lesion is very small in the image": "die Läsion ist sehr klein im Bild",
    "the lesion reaches the edge of the image": "die Läsion reicht bis zum Bildrand",
    "no lesion was found": "keine Läsion gefunden",
    "several lesions": "mehrere Läsionen",
    "the outline is uncertain": "der Umriss ist unsicher",
}

# what stands for ``{why}`` is translated too
_ERRORS = {
    "nothing can be saved here: {why}": "hier kann nichts gespeichert werden: {why}",
    "cannot be written: {why}": "kann nicht geschrieben werden: {why}",
    "cannot be read: {why}": "kann nicht gelesen werden: {why}",
    "cannot be opened: {why}": "kann nicht geöffnet werden: {why}",
    "make room or the folder writable, or name another one with -o": (
        "Platz schaffen, Ordner beschreibbar machen oder mit -o einen anderen nennen"
    ),
    "annotations cannot be written below '{folder}': '{part}' is a file": (
        "unter '{folder}' können keine Annotationen geschrieben werden: '{part}' ist eine Datei"
    ),
    "name a folder with -o": "mit -o einen Ordner nennen",
    "name one with -o": "mit -o einen nennen",
    "an image in a zip has no folder to write to": "ein Bild in einem Zip hat keinen Ordner zum Schreiben",
    "no image found in {given}": "kein Bild gefunden in {given}",
    "name files, folders or zips with JPEG, PNG, TIFF, BMP, WebP or DICOM images": (
        "Dateien, Ordner oder Zips mit JPEG-, PNG-, TIFF-, BMP-, WebP- oder DICOM-Bildern nennen"
    ),
    "no photograph in what was named": "kein Foto in dem, was genannt ist",
    "1 file is left out: {why}": "1 Datei ist ausgelassen: {why}",
    "{number} files are left out: {why}": "{number} Dateien sind ausgelassen: {why}",
    "masks of other inputs, by name ({names})": "dem Namen nach Masken anderer ({names})",
    "results of an earlier run ({names})": "Ergebnisse eines früheren Laufs ({names})",
    "1 linked folder is not looked into unless named: {names}": (
        "in 1 verlinkten Ordner wird nur geschaut, wenn er genannt ist: {names}"
    ),
    "{number} linked folders are not looked into unless named: {names}": (
        "in {number} verlinkte Ordner wird nur geschaut, wenn sie genannt sind: {names}"
    ),
    "no image has an outline that a person corrected or approved": (
        "kein Bild hat einen Umriss, den jemand korrigiert oder freigegeben hat"
    ),
    "save one first": "zuerst eine speichern",
    "does not exist": "gibt es nicht",
    "the file is empty (0 bytes)": "die Datei ist leer (0 Byte)",
    "the file is not an image of a kind that is read (JPEG, PNG, TIFF, BMP, WebP)": (
        "die Datei ist kein lesbares Bild (JPEG, PNG, TIFF, BMP, WebP)"
    ),
    "camera raw files are not read": "Rohdaten von Kameras werden nicht gelesen",
    "reading HEIC needs an optional dependency": "HEIC zu lesen braucht ein weiteres Paket",
    'pip install "dermseg[heic]"; or save it as JPEG with an image program': (
        'pip install "dermseg[heic]"; oder mit einem Bildprogramm als JPEG speichern'
    ),
    "{kind} files are not read": "{kind} wird nicht gelesen",
    "save it as JPEG, PNG or TIFF with an image program; another name alone changes nothing": (
        "mit einem Bildprogramm als JPEG, PNG oder TIFF speichern; ein anderer Name allein genügt nicht"
    ),
    "save it as JPEG with the program that came with the camera": (
        "mit dem Programm der Kamera als JPEG speichern"
    ),
    "is a film, not a photograph": "ist ein Film, kein Foto",
    "save a still picture of it as JPEG or PNG": "ein Einzelbild daraus als JPEG oder PNG speichern",
    "the colour mode {mode} is not read": "der Farbmodus {mode} wird nicht gelesen",
    "save it as RGB": "als RGB speichern",
    "the file is truncated: {how}": "die Datei ist abgeschnitten: {how}",
    "copy it again from where it came, or save it anew in an image program": (
        "erneut von der Quelle kopieren oder in einem Bildprogramm neu speichern"
    ),
    "the {format} cannot be decoded: {how}": "das {format} lässt sich nicht dekodieren: {how}",
    "save it anew with interleaved channels, or with 8 bits per channel": (
        "mit verschränkten Kanälen oder mit 8 Bit je Kanal neu speichern"
    ),
    "the {format} header is damaged": "der Kopf des {format} ist beschädigt",
    "not enough memory for {what}": "nicht genug Arbeitsspeicher für {what}",
    "unexpected {kind}: {why}": "unerwarteter Fehler {kind}: {why}",
    "not a JSON file": "keine JSON-Datei",
    "move it away, or name another folder with -o": "die Datei verschieben oder mit -o einen Ordner nennen",
    "not a LabelMe file: it has no list 'shapes'": "keine LabelMe-Datei: die Liste 'shapes' fehlt",
    "is for an image of {found} pixels, not {size}": "gehört zu einem Bild von {found} Pixeln, nicht {size}",
    "turn or scale the image back, or move the file away to begin anew": (
        "das Bild zurückdrehen oder -skalieren, oder die Datei verschieben, um neu zu beginnen"
    ),
    "belongs to '{other}', not to this image": "gehört zu '{other}', nicht zu diesem Bild",
    "rename one of the two images, put it into another folder, or name another one with -o": (
        "eines der beiden Bilder umbenennen, in einen anderen Ordner legen oder mit -o einen anderen nennen"
    ),
    "'{label}' is no name for a class: in LabelMe files it means a hole in another one": (
        "'{label}' ist kein Name für eine Klasse: in LabelMe-Dateien heißt so ein Loch in einer anderen"
    ),
    "give it another name": "einen anderen Namen geben",
    "a polygon is under way": "ein Polygon ist angefangen",
    "Ctrl+Enter closes it, Escape drops it": "Strg+Eingabe schließt es, Esc verwirft es",
    "is open in another window": "ist in einem anderen Fenster offen",
    "close it there to work on it here": "dort schließen, um hier daran zu arbeiten",
    "was changed by another program since it was opened": (
        "wurde seit dem Öffnen von einem anderen Programm geändert"
    ),
    "undo your changes and open the image again to see it": (
        "die eigenen Änderungen zurücknehmen und das Bild neu öffnen, um es zu sehen"
    ),
    "not a journal of dermseg": "kein Journal von dermseg",
    "move it away to open the image without it": "die Datei verschieben, um das Bild ohne sie zu öffnen",
    "camera {source} cannot be opened": "Kamera {source} lässt sich nicht öffnen",
    "camera {source} gives no more pictures": "Kamera {source} liefert keine Bilder mehr",
    "Permission denied": "keine Berechtigung",
    "Operation not permitted": "nicht erlaubt",
    "Read-only file system": "schreibgeschützter Datenträger",
    "No space left on device": "kein Platz mehr auf dem Datenträger",
    "No such file or directory": "Datei oder Ordner gibt es nicht",
    "Not a directory": "kein Ordner",
    "File name too long": "Dateiname zu lang",
}
_PATTERNS = {
    re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(english)), re.DOTALL): german
    for english, german in _ERRORS.items()
}


def german_error(text: str) -> str:
    """The German of a part of an error, as far as it is known; else the text as it is."""
    for pattern, german in _PATTERNS.items():
        if found := pattern.fullmatch(text):
            values = found.groupdict()
            if "why" in values:
                values["why"] = german_error(values["why"])
            return german.format(**values)
    return text
