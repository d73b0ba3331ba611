"""Augmentation of somebody else, named by a dotted path in ``augmentation.name``.

It may be

- a transform (an object or a function) that is called with ``image=`` and ``mask=`` and gives a mapping with
  these keys, as a ``Compose`` of Albumentations does, and works unchanged; or
- a class, or a function without a parameter ``image``, that gives such a transform when called with
  ``augmentation.options``.
"""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.augment import Augmentation, Image
from dermseg.errors import ConfigError
from dermseg.images.resize import resize_image
from dermseg.registry import load_dotted
from dermseg.training.config import AugmentationConfig

Transform = Callable[[np.random.Generator, Image, Image, int], tuple[Image, Image]]


class KeywordTransform:
    """Calls ``transform(image=..., mask=...)`` in the place of our own augmentation.

    What it draws must depend on the image's own generator alone, or a resumed run would differ. So it is
    seeded for every image: through ``set_random_seed`` where it has one, else through the global
    generators of ``random`` and NumPy. Both are shared by the threads, so one image is transformed at a time.
    """

    def __init__(self, transform: Callable[..., Any], name: str) -> None:
        self.transform, self.name = transform, name
        self._lock = threading.Lock()

    def __call__(self, rng: np.random.Generator, image: Image, mask: Image, size: int) -> tuple[Image, Image]:
        """Transform ``image (H, W, 3)`` and ``mask (H, W)`` or ``(H, W, M)`` together to ``(size, size)``.

        Raises
        ------
        ConfigError
            What came back is not an image and a mask of one size.
        """
        seed = int(rng.integers(2**31))
        with self._lock:
            if hasattr(self.transform, "set_random_seed"):
                self.transform.set_random_seed(seed)
            else:
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002 (what such transforms draw from)
            # copies, because the cache is read-only and some transforms write in place
            result = self.transform(image=image.copy(), mask=mask.copy())
        try:
            image, mask = result["image"], result["mask"]
            if image.shape[:2] != mask.shape[:2] or image.dtype != np.uint8 or mask.dtype != np.uint8:
                raise TypeError
        except (TypeError, KeyError, IndexError, AttributeError):
            raise ConfigError(
                f"augmentation '{self.name}' gave no uint8 image and mask of one size",
                hint="it is called with image= and mask= and gives a mapping with these keys; "
                "leave normalisation and conversion to tensors out",
            ) from None
        return _to_size(image, size), _to_size(mask, size)


def _to_size(array: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if array.shape[:2] == (size, size):
        return np.ascontiguousarray(array)
    # OpenCV drops a last axis of length 1
    return resize_image(array, size, size).reshape(size, size, *array.shape[2:])


def build_augmentation(config: AugmentationConfig, side: int) -> Transform:
    """The augmentation of a configuration.

    Parameters
    ----------
    side
        Of the images that it is given, ``data.cache_size``: one of somebody else is tried on such an image,
        for crops of a fixed size need one that is large enough.

    Raises
    ------
    ConfigError
        The dotted path leads nowhere, or to nothing that can be called with an image and a mask.
    """
    if config.name is None:
        return Augmentation(**config.model_dump(exclude={"name", "options"}))
    found: Any = load_dotted(config.name)
    if inspect.isclass(found) or (
        inspect.isfunction(found) and "image" not in inspect.signature(found).parameters
    ):
        try:
            found = found(**config.options)
        except TypeError as error:
            raise ConfigError(f"augmentation '{config.name}': {error}") from error
        if not callable(found):
            raise ConfigError(f"augmentation '{config.name}' gave a {type(found).__name__}, not a transform")
    elif config.options:
        raise ConfigError(f"augmentation '{config.name}' is a transform already and takes no options")
    transform = KeywordTransform(found, config.name)
    probe = np.full((side, side, 3), 128, np.uint8)
    try:
        transform(np.random.default_rng(0), probe, np.zeros((side, side), np.uint8), 32)
    except ConfigError:
        raise
    except Exception as error:  # whatever somebody else's transform does
        raise ConfigError(
            f"augmentation '{config.name}' fails: {type(error).__name__}: {error}",
            hint=f"it is given images of {side} x {side} (data.cache_size)",
        ) from error
    return transform
