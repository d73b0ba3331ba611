"""HEIC: the photographs of phones, read by libheif."""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermseg.errors import ImageError
from dermseg.images.find import find_images
from dermseg.images.load import load_image

# Four colours in 120 x 80 pixels: red, green, blue, yellow in reading order.
TURNED = base64.b64decode(  # in tiles of 64 pixels, turned to the right, with EXIF that says so once more
    b"AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAApxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    b"AAAAABBpZGF0AAABAQB4AFAAAACIaWxvYwEAAABEQAAGAAEAAQAAAAAAAAABAAAAAAAAAAgAAgAAAAAAAALAAAEAAAAAAAAA"
    b"fgADAAAAAAAAAz4AAQAAAAAAAAAvAAQAAAAAAAADbQABAAAAAAAAAHYABQAAAAAAAAPjAAEAAAAAAAAAHgAGAAAAAAAABAEA"
    b"AQAAAAAAAAAkAAAAjGlpbmYAAAAAAAYAAAAVaW5mZQIAAAAAAQAAZ3JpZAAAAAAVaW5mZQIAAAEAAgAAaHZjMQAAAAAVaW5m"
    b"ZQIAAAEAAwAAaHZjMQAAAAAVaW5mZQIAAAEABAAAaHZjMQAAAAAVaW5mZQIAAAEABQAAaHZjMQAAAAAVaW5mZQIAAAEABgAA"
    b"RXhpZgAAAAAOcGl0bQAAAAAAAQAAAQ9pcHJwAAAA1GlwY28AAAAUaXNwZQAAAAAAAAB4AAAAUAAAAHhodmNDAQNwAAAAkAAA"
    b"AAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    b"SSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAA"
    b"ABBwaXhpAAAAAAMICAgAAAAJaXJvdAMAAAAzaXBtYQAAAAAAAAAFAAEEAYUDhgACBIIDBAUAAwSCAwQFAAQEggMEBQAFBIID"
    b"BAUAAAAuaXJlZgAAAAAAAAAUZGltZwABAAQAAgADAAQABQAAAA5jZHNjAAYAAQABAAABbW1kYXQAAAB6KAGvCeDHsi8A5nLq"
    b"v//yYv//4xG5D9iw+j07gA5l9jw9ZRz1xKKQwhAs8Bv72PhqE6wDrHwSY2A5L6S4ixjw3kdmcUn855/h/bdWTueif5PyP3TK"
    b"/35tM7ZddTqFyD7dXMOy3rIgsf9+h/wH4GE0nE2zo2P6gAf630AAAAArKAGvCeAhOXVfX/c9f//y0t//5qVxvp3N+prsitx6"
    b"RfJq36btuj8v5/jMmAAAAHIoAa8J4OO/nLqv//5zb97/Lcn//PDikkgW1WEA19ie3uD1cPK32IvboVAnS/bFXBFC8xZIrGiX"
    b"Y80DmetOXTb2uw1Rq2fEVmhHni8nrT6EeH0qE2O8NRrsUAi5hHq1Edrj865B1F4cU3ysbegwF5psz5gAAAAaKAGvCeAhOXVf"
    b"X/5OZ///fPvyHkS8dBzD1+AAAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="
)
DEEP = base64.b64decode(  # 10 bits per channel
    b"AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAVNtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    b"AAAAACJpbG9jAAAAAERAAAEAAQAAAAABdwABAAAAAAAAAIYAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAA"
    b"AA5waXRtAAAAAAABAAAA02lwcnAAAAC0aXBjbwAAAHVodmNDAQQIAAAAnbgAAAAAHvAA/P36+gAADwNgAAEAF0ABDAH//wQI"
    b"AAADAJ24AAADAAAeugJAYQABAClCAQEECAAAAwCduAAAAwAAHqA8gUTZbqSSmubgIaDAgAAADIAAAAMAhGIAAQAHRAHBcrAi"
    b"QAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAAB4AAAAUAAAABBwaXhpAAAAAAMKCgoAAAAXaXBtYQAAAAAAAAAB"
    b"AAEEgQIDBAAAAI5tZGF0AAAAgigBrwng8cPRrqmcvef//Y6v//6L25D+RvuR8t2SKSBe6j6yFGnAfksi7Sk7HijD7u/PC9Bu"
    b"Wkf7miR9jr88/0iDjvPLfsP+STEgTavAxzCee1MHRl0Ly9zIuQoJ6KWFVzaFiVOaF/PYaMoNIAH51rdGkPyAAAAExl4h/nj4"
    b"JXwfBKQ="
)
RED, GREEN, BLUE, YELLOW = (220, 60, 50), (60, 200, 80), (60, 70, 210), (230, 220, 120)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    places = [(8, 8), (8, -8), (-8, 8), (-8, -8)]
    return [tuple(int(value) for value in pixels[place]) for place in places]


@pytest.fixture(autouse=True)
def reader() -> None:
    pytest.importorskip("pi_heif", reason="needs the extra [heic]")


def test_a_photograph_is_as_it_was_held(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001.HEIC").write_bytes(TURNED)
    (source,) = find_images([tmp_path])
    loaded = load_image(source, min_side=10)
    info = loaded.info
    assert (info.format, info.width, info.height, info.bits, info.notes) == ("HEIC", 80, 120, 8, ())
    assert loaded.pixels.shape == (120, 80, 3)
    assert np.allclose(corners(loaded.pixels), [BLUE, RED, YELLOW, GREEN], atol=4)


def test_ten_bits_are_scaled_to_eight() -> None:
    loaded = load_image(DEEP)
    assert loaded.info.notes == ("10 bits per channel scaled to 8",)
    assert np.allclose(corners(loaded.pixels), [RED, GREEN, BLUE, YELLOW], atol=4)


def test_what_is_cut_off_is_not_taken_for_the_whole() -> None:
    """libheif leaves the tiles that are missing grey."""
    for data in (TURNED, DEEP):
        for end in (60, len(data) // 2, len(data) - 1):
            with pytest.raises(ImageError, match="truncated: the end of the HEIC is missing"):
                load_image(data[:end])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(16, len(TURNED) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_is_an_error_and_never_the_end_of_the_process(changes: list[tuple[int, int]]) -> None:
    data = bytearray(TURNED)
    for place, value in changes:
        data[place] = value
    with suppress(ImageError):
        load_image(bytes(data))


def test_a_name_that_is_no_text_does_not_reach_the_library() -> None:
    """pi-heif 1.4 ends the process on it."""
    with pytest.raises(ImageError, match="the HEIC header is damaged"):
        load_image(TURNED.replace(b"\0\0Exif\0", b"\0\0Exi\xff\0", 1))


def test_the_coded_picture_may_hold_what_looks_like_a_name() -> None:
    inside = b"\0\0\0\x20infe" + bytes([2]) + b"\xff" * 23
    more = (8 + len(inside)).to_bytes(4, "big") + b"mdat" + inside
    assert load_image(TURNED + more).info.height == 120


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermseg.images.heic.heic_installed", lambda: False)
    with pytest.raises(ImageError, match="reading HEIC needs an optional dependency") as caught:
        load_image(TURNED)
    assert caught.value.hint is not None and 'pip install "dermseg[heic]"' in caught.value.hint
    with pytest.raises(ImageError, match="AVIF files are not read"):
        load_image(TURNED.replace(b"heic", b"avif"))
