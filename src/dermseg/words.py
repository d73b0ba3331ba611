"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts.

    Parameters
    ----------
    one, many
        What follows 1, and what follows any other number; by default ``one`` with an ``s``.

    >>> counted(1, "image"), counted(1200, "image"), counted(2, "image is", "images are")
    ('1 image', '1200 images', '2 images are')
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
