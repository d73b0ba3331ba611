"""Two networks as one: the logits of a variant and of its partner, a bundle of the package, are averaged.

Networks of different kinds err in different places, so their mean is better than either. The partner is named
and not stored a second time; its hash is in the card, so that what runs is what was measured. Each network
sees the image at its own size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import ModelError
from dermseg.images.resize import resize_image
from dermseg.inference.bundle import BUNDLED, Bundle, load_bundle
from dermseg.inference.card import Partner, Preprocessing
from dermseg.inference.session import Session

Floats = NDArray[np.float32]
_SAME = ("resize", "filters", "mean", "std", "layout")


def find_partner(bundle: Bundle, partner: Partner) -> Bundle:
    """The bundle that a partner is in.

    Raises
    ------
    ModelError
        The package has no such bundle, or its network is another than the one that was measured.
    """
    hint = "use the dermseg that the bundle was made with, or export it again"
    try:
        found = load_bundle(BUNDLED / partner.bundle)
    except ModelError:
        raise ModelError(
            f"model '{bundle.card.name}' works together with '{partner.bundle}', which this dermseg lacks",
            file=bundle.path,
            hint=hint,
        ) from None
    stored = found.card.variants.get(partner.variant)
    if stored is None or stored.sha256 != partner.sha256:
        raise ModelError(
            f"model '{bundle.card.name}' works together with another version of '{partner.bundle}' than this "
            "dermseg has",
            file=bundle.path,
            hint=hint,
        )
    check_partner(bundle.card.preprocessing, found)
    return found


def check_partner(own: Preprocessing, partner: Bundle) -> None:
    """Refuse a partner that sees images otherwise than in another size, or that has a partner of its own.

    Raises
    ------
    ModelError
        It is one.
    """
    other = partner.card.preprocessing
    if differing := [name for name in _SAME if getattr(own, name) != getattr(other, name)]:
        raise ModelError(
            f"'{partner.card.name}' prepares images in another way ({', '.join(differing)})",
            file=partner.path,
        )
    if any(variant.partner for variant in partner.card.variants.values()):
        raise ModelError(f"'{partner.card.name}' has a partner itself", file=partner.path)


class JointSession:
    """The session of a network and that of its partner, as one.

    Parameters
    ----------
    own, partner
        Their sessions; runtime, threads and pooled features are those of ``own``.
    size
        Height and width of what the partner sees.
    """

    def __init__(self, own: Session, partner: Session, size: tuple[int, int]) -> None:
        self.own, self._partner, self._size = own, partner, size
        self.runtime, self.threads = own.runtime, own.threads

    def __call__(self, batch: Floats) -> Floats:
        """Mean logits ``float32 (N, C, h, w)`` for images ``float32 (N, 3, H, W)``."""
        return self.with_features(batch)[0]

    def with_features(self, batch: Floats) -> tuple[Floats, Floats | None]:
        """Mean logits on the grid of ``own``, and its pooled features."""
        logits, pooled = self.own.with_features(batch)
        return mean_logits(logits, self._partner(resize_batch(batch, self._size))), pooled


def mean_logits(own: Floats, partner: Floats) -> Floats:
    """The mean of logits ``(N, C, h, w)`` and a partner's ``(N, C, h', w')``, on the grid of the first.

    Raises
    ------
    ModelError
        Their numbers of maps differ.
    """
    if own.shape[1] != partner.shape[1]:
        raise ModelError(f"a network of {own.shape[1]} maps cannot work with one of {partner.shape[1]}")
    mean: Floats = (own + resize_batch(partner, (own.shape[2], own.shape[3]))) / np.float32(2)
    return mean


def resize_batch(batch: Floats, size: tuple[int, int]) -> Floats:
    """``float32 (N, C, H, W)`` at another height and width, each channel as ``resize_image`` does it."""
    height, width = size
    if batch.shape[2:] == size:
        return batch
    resized = np.empty((*batch.shape[:2], height, width), np.float32)
    for image, out in zip(batch, resized, strict=True):
        for channel, into in zip(image, out, strict=True):
            into[:] = resize_image(channel, height, width)
    return resized
