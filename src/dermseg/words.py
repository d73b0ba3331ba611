"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "", *, sep: str = "") -> str:
    """A number and what it counts.

    Parameters
    ----------
    one, many
        What follows 1, and what follows any other number; by default ``one`` with an ``s``.
    sep
        Between thousands; pages have a comma.

    >>> counted(1, "image"), counted(1200, "image", sep=","), counted(2, "image is", "images are")
    ('1 image', '1,200 images', '2 images are')
    """
    return f"{number:{sep}} {one if number == 1 else many or f'{one}s'}"
