"""Any Pillow image to uint8 RGB, and the eight EXIF orientations.

Works in strips of about a megabyte: a 100 megapixel image then needs its decoded form and the result, not
three further copies of itself.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from dermseg.errors import ImageError
from dermseg.images.decode import value_range

Pixels = npt.NDArray[np.uint8]
_STRIP_PIXELS = 1 << 18
BACKGROUND = 255  # white, as browsers and viewers show transparent images
LAID_ON_WHITE = "transparent parts laid on white"


def to_rgb(image: Image.Image, bits: int = 16) -> tuple[Pixels, tuple[str, ...]]:
    """Convert to RGB.

    Parameters
    ----------
    bits
        Of a value of deep grey as the file says: of 12 the largest value is 4095, which then is white.

    Returns
    -------
    pixels
        uint8 (H, W, 3).
    notes
        What was converted, in plain words.

    Raises
    ------
    ImageError
        A colour space that is not read (such as CIELAB).
    """
    mode = image.mode
    deep = mode.startswith("I;16") or mode in ("I", "F")
    # Pillow cannot turn deep grey into RGBA without cutting values off: its transparent level is ignored
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or ("transparency" in image.info and not deep):
        return _without_alpha(image)
    if mode.startswith("I;16"):
        low, high = _extrema(image)
        bits = bits if 8 < bits < 16 else 16
        white = 2**bits - 1
        notes = [f"{bits}-bit grey scaled to 8-bit RGB"]
        if high < white / 16:
            notes.append(f"only values up to {high:.0f} of {white:,} are used, so it looks dark")
        return _strips(image, lambda part: _scaled(part, 0.0, float(white))), tuple(notes)
    if mode in ("I", "F"):
        low, high = value_range(*_extrema(image), integer=mode == "I")
        kind = "floating point" if mode == "F" else "integer"
        note = f"{kind} grey scaled to 8-bit RGB: {low:g} to 0, {high:g} to 255"
        return _strips(image, lambda part: _scaled(part, low, high)), (note,)
    if mode == "RGB":
        return _strips(image, _bytes), ()
    notes_by_mode = {
        "1": "black and white turned into RGB",
        "L": "grey turned into RGB",
        "P": "palette turned into RGB",
        "CMYK": "CMYK turned into RGB, without a colour profile",
        "YCbCr": "YCbCr turned into RGB",
        "RGBX": "the fourth channel is left out",
    }
    if mode not in notes_by_mode:
        raise ImageError(f"the colour mode {mode} is not read", hint="save it as RGB")
    return _strips(image, lambda part: _bytes(part.convert("RGB"))), (notes_by_mode[mode],)


def _strips(image: Image.Image, convert: Callable[[Image.Image], Pixels]) -> Pixels:
    width, height = image.size
    out = np.empty((height, width, 3), np.uint8)
    for top, bottom in _bands(image):
        out[top:bottom] = convert(image.crop((0, top, width, bottom)))
    return out


def _bands(image: Image.Image) -> list[tuple[int, int]]:
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _bytes(part: Image.Image) -> Pixels:
    return np.frombuffer(part.tobytes(), np.uint8).reshape(part.height, part.width, -1)


def _values(part: Image.Image) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):  # damaged floats may be signalling NaN
        values = np.asarray(part).astype(np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _extrema(image: Image.Image) -> tuple[float, float]:
    # Not Image.getextrema: it does not take every 16-bit mode, and NaN spoils it.
    low, high = np.inf, -np.inf
    for top, bottom in _bands(image):
        values = _values(image.crop((0, top, image.width, bottom)))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _scaled(part: Image.Image, low: float, high: float) -> Pixels:
    values = (_values(part) - low) * (255.0 / (high - low) if high > low else 0.0)
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _without_alpha(image: Image.Image) -> tuple[Pixels, tuple[str, ...]]:
    """Lay the image on white; leave the alpha channel out where it is opaque or empty everywhere."""
    if image.mode == "La":  # premultiplied; Pillow has no way from there to RGBA
        image = image.convert("LA")
    least, most = 255, 0

    def compose(part: Image.Image) -> Pixels:
        nonlocal least, most
        pixels = _bytes(part.convert("RGBA"))
        colour, alpha = pixels[..., :3], pixels[..., 3:]
        least, most = min(least, int(alpha.min())), max(most, int(alpha.max()))
        if alpha.min() == 255:
            return colour
        weight = alpha.astype(np.uint16)
        mixed = (colour * weight + BACKGROUND * (255 - weight) + 127) // 255
        return mixed.astype(np.uint8)

    pixels = _strips(image, compose)
    if most == 0:  # an alpha channel that hides everything was not meant as one
        return _strips(image, lambda part: _bytes(part.convert("RGBA"))[..., :3]), (
            "the alpha channel hides everything and is left out",
        )
    note = "opaque alpha channel left out" if least == 255 else LAID_ON_WHITE
    colours = {"P": "palette", "L": "grey", "1": "black and white"}.get(image.mode.rstrip("Aa"))
    return pixels, (note,) if colours is None else (f"{colours} turned into RGB", note)


def orient(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels as stored into the picture as meant (EXIF 2.32, tag 274).

    Parameters
    ----------
    pixels
        uint8 (H, W, 3).
    orientation
        1 to 8; 5 to 8 exchange height and width.
    """
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    # For 5 to 8 the flips are those that follow the transposition.
    flip = {2: 1, 3: -1, 4: 0, 5: None, 6: 1, 7: -1, 8: 0}[orientation]
    return pixels if flip is None else np.asarray(cv2.flip(pixels, flip), np.uint8)
