"""Images in, safely; masks, outlines and overlays out. Needs NumPy, OpenCV and Pillow only.

>>> from dermseg.images import find_images, load_image
>>> for source in find_images(["photos", "more.zip"]):
...     image = load_image(source, min_side=512)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dermseg.images.contours import Polygon, mask_to_polygons, polygons_to_mask
    from dermseg.images.find import find_images
    from dermseg.images.load import ImageInfo, LoadedImage, load_image
    from dermseg.images.masks import LoadedMask, encode_mask, load_mask, read_mask, save_mask
    from dermseg.images.overlay import draw_overlay, encode_jpeg, encode_png
    from dermseg.images.sources import DICOM_EXTENSIONS, IMAGE_EXTENSIONS, ImageSource, as_source
    from dermseg.images.zips import close_zips

__all__ = [
    "DICOM_EXTENSIONS",
    "IMAGE_EXTENSIONS",
    "ImageInfo",
    "ImageSource",
    "LoadedImage",
    "LoadedMask",
    "Polygon",
    "as_source",
    "close_zips",
    "draw_overlay",
    "encode_jpeg",
    "encode_mask",
    "encode_png",
    "find_images",
    "load_image",
    "load_mask",
    "mask_to_polygons",
    "polygons_to_mask",
    "read_mask",
    "save_mask",
]

# Loaded at first use: sources are found, and a network made ready, before OpenCV and Pillow are there.
_LAZY = {
    "contours": ("Polygon", "mask_to_polygons", "polygons_to_mask"),
    "find": ("find_images",),
    "load": ("ImageInfo", "LoadedImage", "load_image"),
    "masks": ("LoadedMask", "encode_mask", "load_mask", "read_mask", "save_mask"),
    "overlay": ("draw_overlay", "encode_jpeg", "encode_png"),
    "sources": ("DICOM_EXTENSIONS", "IMAGE_EXTENSIONS", "ImageSource", "as_source"),
    "zips": ("close_zips",),
}


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # as of the package itself: completion knows what is not loaded yet
