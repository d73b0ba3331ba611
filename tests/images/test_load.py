"""Image files of every kind come out as RGB uint8, or as an ImageError that says why."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack
from typing import Any

import cv2
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dermseg.errors import ImageError
from dermseg.images import ImageSource, find_images, load_image, load_mask
from dermseg.images.decode import reduction
from dermseg.images.load import load_view
from dermseg.images.tiff import exif_orientation

RGB = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (83, 61), interpolation=cv2.INTER_LINEAR
)
PICTURE = Image.fromarray(RGB)
GREY = RGB[..., 0]
PALETTE = PICTURE.quantize(16)
BILEVEL = Image.fromarray(GREY > 99)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def cv_encode(extension: str, array: np.ndarray) -> bytes:
    # OpenCV 4 packs floats with a loss unless told not to
    plain = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if extension.startswith(".tif") else []
    return cv2.imencode(extension, array, plain)[1].tobytes()


def grey3(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def with_alpha(alpha: int) -> Image.Image:
    image = PICTURE.copy()
    image.putalpha(alpha)
    return image


def with_transparent_level(png: bytes) -> bytes:
    """A grey PNG with a tRNS chunk after its header: level 0 is transparent."""
    chunk = b"tRNS\0\0"
    return png[:33] + pack(">I", 2) + chunk + pack(">I", zlib.crc32(chunk)) + png[33:]


def packed_tiff(values: np.ndarray, bits: int) -> bytes:
    """A grey TIFF with so many bits a value, nothing between them."""
    height, width = values.shape
    data = np.packbits((values[..., None] >> np.arange(bits)[::-1] & 1).reshape(height, -1), axis=1).tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 134), (277, 1)]
    tags += [(278, height), (279, len(data))]
    entries = b"".join(pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (pack("<4sIH", b"II*\0", 8, len(tags)) + entries).ljust(134, b"\0") + data


def tiff(values: np.ndarray, *, packed: bool = False, colours: int = 1, planes: bool = False) -> bytes:
    """A TIFF of any numbers in any byte order, ``packed`` by deflate, or each channel in its own plane."""
    order = values.dtype.str[0].replace("|", ">")  # of single bytes there is none
    height, width, samples = values.shape if values.ndim == 3 else (*values.shape, 1)
    data = (np.moveaxis(values, -1, 0) if planes else values).tobytes()
    data = zlib.compress(data) if packed else data
    tags = [
        (256, width),
        (257, height),
        (258, 8 * values.itemsize),
        (259, 8 if packed else 1),
        (262, colours),
    ]
    tags += [(273, 200), (277, samples), (278, height), (279, len(data)), (284, 1 + planes)]
    tags += [(339, {"u": 1, "i": 2, "f": 3}[values.dtype.kind])]
    if planes:  # where each begins and ends: in two lists behind the directory
        part = len(data) // samples
        lists = pack(f"{order}6I", *(200 + part * i for i in range(3)), *[part] * 3)
    entries = b"".join(
        pack(f"{order}HHII", tag, 4, 3, {273: 150, 279: 162}[tag])
        if planes and tag in (273, 279)
        else pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in tags
    )
    start = (b"II*\0" if order == "<" else b"MM\0*") + pack(f"{order}IH", 8, len(tags)) + entries
    return (start.ljust(150, b"\0") + (lists if planes else b"")).ljust(200, b"\0") + data


# OpenCV 4 has no such numbers: there these files are refused
OPENCV_5 = pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV reads such TIFFs since 5"
)
DEEP_WITH_TRNS = with_transparent_level(cv_encode(".png", GREY.astype(np.uint16) * 257))
ON_WHITE = np.rint(RGB * (128 / 255) + 255 * (127 / 255))
FLOATS = (RGB / 255).astype(np.float32)
STRETCHED = np.where(np.arange(GREY.size).reshape(GREY.shape) < 2, [[0, 255] * 41 + [0]], GREY).astype(
    np.uint8
)


@pytest.mark.parametrize(
    ("data", "expected", "mode", "note"),
    [
        (encode(PICTURE, "PNG"), RGB, "RGB", ""),
        (encode(PICTURE, "BMP"), RGB, "RGB", ""),
        (encode(PICTURE, "TIFF", compression="tiff_lzw"), RGB, "RGB", ""),
        (encode(PICTURE, "TIFF", big_tiff=True), RGB, "RGB", ""),
        (encode(PICTURE, "WEBP", lossless=True), RGB, "RGB", ""),
        (encode(Image.fromarray(GREY), "PNG"), grey3(GREY), "L", "grey"),
        (
            encode(PALETTE, "PNG"),
            np.asarray(PALETTE.convert("RGB")),
            "P",
            "palette",
        ),
        (encode(BILEVEL, "PNG"), grey3((GREY > 99) * 255), "1", "black and white"),
        (
            encode(BILEVEL, "TIFF", compression="group4"),
            grey3((GREY > 99) * 255),
            "1",
            "black",
        ),
        (encode(with_alpha(128), "PNG"), ON_WHITE, "RGBA", "white"),
        (encode(with_alpha(255), "TIFF"), RGB, "RGBA", "opaque"),
        (encode(with_alpha(0), "PNG"), RGB, "RGBA", "hides everything"),
        (encode(PICTURE.convert("CMYK"), "TIFF"), RGB, "CMYK", "CMYK"),
        (cv_encode(".png", GREY.astype(np.uint16) * 257), grey3(GREY), "I;16", "16-bit"),
        (DEEP_WITH_TRNS, grey3(GREY), "I;16", "16-bit"),
        (packed_tiff(np.rint(GREY / 255 * 4095).astype(np.uint16), 12), grey3(GREY), "I;16", "12-bit"),
        (cv_encode(".png", RGB[..., ::-1].astype(np.uint16) * 257), RGB, "RGB", "16 bits"),
        (cv_encode(".tif", RGB[..., ::-1].astype(np.uint16) * 257), RGB, "RGB", "16 bits"),
        (cv_encode(".tif", FLOATS[..., 0]), grey3(GREY), "F", "floating point"),
        (cv_encode(".tif", FLOATS[..., ::-1]), RGB, "RGB", "32 bits"),
        # What Pillow reads in the wrong order of bytes, or with a sign
        (tiff(FLOATS[..., 0].astype(">f4"), packed=True), grey3(GREY), "F", "floating point"),
        (tiff((GREY.astype(int) * 257).astype(">i4"), packed=True), grey3(GREY), "I", "integer"),
        (tiff((GREY.astype(int) * 128).astype(">i2"), packed=True), grey3(GREY // 2), "I", "integer"),
        (tiff((GREY // 2).astype(">i1"), packed=True), grey3(GREY // 2), "L", "grey"),
        (tiff(STRETCHED.astype("<u4") * 16843009), grey3(STRETCHED), "F", "grey"),
        pytest.param(tiff(GREY.astype("<i8") * 257), grey3(GREY), "I", "integer", marks=OPENCV_5),
        (encode(PICTURE, "TIFF", save_all=True, append_images=[PICTURE, PICTURE]), RGB, "RGB", "first of 3"),
    ],
)
def test_every_layout_becomes_rgb(data: bytes, expected: np.ndarray, mode: str, note: str) -> None:
    image = load_image(data)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == expected.shape
    assert np.abs(image.pixels.astype(int) - expected).max() <= 1
    assert image.info.mode == mode
    assert note in "; ".join(image.info.notes)
    assert (image.info.spacing_mm, image.scale) == (None, 1.0)


@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2"])
def test_a_tiff_in_which_zero_is_white_is_no_negative(dtype: str) -> None:
    top = np.iinfo(dtype).max
    values = np.tile(np.array([[0, top // 4, top]], dtype), (9, 5))
    order = dtype[0]
    tags = [(256, 15), (257, 9), (258, 8 * values.itemsize), (259, 1), (262, 0), (273, 134), (277, 1)]
    tags += [(278, 9), (279, values.nbytes)]
    entries = b"".join(pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    start = (b"II*\0" if order == "<" else b"MM\0*") + pack(f"{order}IH", 8, len(tags))
    data = (start + entries).ljust(134, b"\0") + values.tobytes()
    assert np.abs(load_image(data).pixels[0, :3, 0].astype(int) - [255, 191, 0]).max() <= 1
    mask = data[:134] + np.where(values > 0, top, 0).astype(dtype).tobytes()
    assert np.array_equal(load_mask(mask), values == 0)


@pytest.mark.parametrize(
    "dtype", [*(pytest.param(wide, marks=OPENCV_5) for wide in ("<i8", "<u8", ">u4")), "<f8"]
)
def test_masks_of_wide_numbers_are_not_empty(dtype: str) -> None:
    mask = GREY > 99
    assert np.array_equal(load_mask(tiff(mask.astype(dtype))), mask)


def test_twelve_bits_of_colour_in_sixteen_are_remarked_on() -> None:
    deep = (RGB.astype(np.uint16) << 4)[..., ::-1]
    for kind in (".tiff", ".png"):
        notes = "; ".join(load_image(cv_encode(kind, deep)).info.notes)
        assert "only a sixteenth" in notes
        assert "only a sixteenth" not in "; ".join(load_image(cv_encode(kind, deep << 4)).info.notes)


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow reads such TIFFs since 13")
def test_premultiplied_grey_is_laid_on_white() -> None:
    stored = encode(Image.fromarray(np.array([[[100, 255], [0, 0], [50, 128]]], np.uint8), "LA"), "TIFF")
    extra = pack("<HHIHH", 338, 3, 1, 2, 0)  # ExtraSamples, as unassociated alpha
    assert extra in stored
    image = load_image(stored.replace(extra, pack("<HHIHH", 338, 3, 1, 1, 0)))
    assert image.info.mode == "La"
    assert np.abs(image.pixels[0, :, 0].astype(int) - [100, 255, 177]).max() <= 1


def test_adobe_cmyk_jpeg_is_not_a_negative() -> None:
    data = encode(PICTURE.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert np.abs(load_image(data).pixels.astype(int) - RGB).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PICTURE, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    image = load_image(data)
    assert np.array_equal(image.pixels, expected)
    assert (image.info.height, image.info.width) == expected.shape[:2]
    assert image.info.orientation == orientation
    if kind == "JPEG":  # some programs add a block of their own
        more = Image.Exif()
        more[0x0131] = "a program"
        block = more.tobytes()
        start = data.index(b"\xff\xdb")
        data = data[:start] + b"\xff\xe1" + pack(">H", len(block) + 2) + block + data[start:]
        assert np.array_equal(load_image(data).pixels, expected)


@pytest.mark.parametrize(("tag", "value", "orientation"), [(0x0112, 6, 6), (0x0112, 9, 1), (0x0100, 6, 1)])
def test_exif_of_one_entry(tag: int, value: int, orientation: int) -> None:
    """As some cameras write it: without the offset of a next directory, and maybe without an orientation."""
    assert exif_orientation(b"II*\0" + pack("<IHHHIHH", 8, 1, tag, 3, 1, value, 0)) == orientation


@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_jpeg_keeps_full_size_in_info(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PICTURE.resize((1001, 600)), "JPEG", exif=exif)
    full, small = load_image(data), load_image(data, min_side=150)
    assert sorted(small.pixels.shape[:2]) == [150, 251]
    assert (small.info.width, small.info.height) == (full.info.width, full.info.height)
    assert small.scale == pytest.approx(small.pixels.shape[1] / full.pixels.shape[1])
    reduced = cv2.resize(full.pixels, small.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - small.pixels).mean() < 3  # not turned the wrong way, not shifted


def test_people_see_more_than_a_small_network() -> None:
    data = encode(PICTURE.resize((1200, 900)), "JPEG")
    loaded = load_image(data, min_side=200)
    assert loaded.pixels.shape == (225, 300, 3)
    assert load_view(data, loaded).shape == (450, 600, 3)
    enough = load_image(data, min_side=450)
    assert load_view(data, enough) is enough.pixels
    whole = load_image(encode(PICTURE, "PNG"), min_side=40)
    assert load_view(b"never read", whole) is whole.pixels


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 3000))
def test_reduction_never_goes_below_min_side(width: int, height: int, min_side: int) -> None:
    divisor = reduction(width, height, min_side)
    assert divisor == 1 or min(-(-width // divisor), -(-height // divisor)) >= min_side
    assert divisor == 8 or min(-(-width // (2 * divisor)), -(-height // (2 * divisor))) < min_side


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_one_pixel(kind: str) -> None:
    image = load_image(encode(Image.new("RGB", (1, 1), (200, 100, 50)), kind), min_side=256)
    assert image.pixels.shape == (1, 1, 3)
    assert np.abs(image.pixels[0, 0].astype(int) - (200, 100, 50)).max() < 8


FILES = {kind: encode(PICTURE, kind) for kind in ("JPEG", "PNG", "TIFF", "BMP", "WEBP")}
FILES["progressive"] = encode(PICTURE, "JPEG", progressive=True)


@pytest.mark.parametrize("kind", FILES)
def test_every_truncation_is_refused(kind: str) -> None:
    data = FILES[kind]
    for length in [*range(1, len(data), max(1, len(data) // 60)), len(data) - 2, len(data) - 1]:
        with pytest.raises(ImageError):
            load_image(data[:length])


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "BMP"])
def test_truncated_is_read_when_allowed(kind: str) -> None:
    data = FILES[kind]
    for length in [*range(len(data) * 3 // 4, len(data) - 1, 1 + len(data) // 300), len(data) - 2]:
        image = load_image(data[:length], allow_truncated=True)
        assert image.pixels.shape == RGB.shape
        assert "truncated" in "; ".join(image.info.notes)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
def test_damage_gives_pixels_or_image_error(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(FILES[kind])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    try:
        pixels = load_image(bytes(data), max_pixels=10_000_000).pixels
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


def test_png_checksum_is_checked() -> None:
    data = bytearray(FILES["PNG"])
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="checksum"):
        load_image(bytes(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_size_limit_holds_before_decoding(kind: str) -> None:
    with pytest.raises(ImageError, match="over the limit"):
        load_image(FILES[kind], max_pixels=83 * 61 - 1)
    load_image(FILES[kind], max_pixels=83 * 61)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))


def test_bombs_do_not_go_off() -> None:
    start = b"\x89PNG\r\n\x1a\n"
    huge = start + _chunk(b"IHDR", pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError, match=r"3,600\.0 megapixels"):
        load_image(huge + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""))
    head, rest = FILES["PNG"][:33], FILES["PNG"][33:]
    text = _chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(20_000_000)))
    assert np.array_equal(load_image(head + text + rest).pixels, RGB)  # metadata is not even looked at
    progressive = FILES["progressive"]
    scan = progressive.rfind(b"\xff\xda")
    with pytest.raises(ImageError, match="scans"):
        load_image(progressive[:scan] + progressive[scan:-2] * 200 + b"\xff\xd9")
    plain = bytearray(FILES["JPEG"])
    scan = plain.rfind(b"\xff\xda")
    plain[scan + 4] = 1  # a scan for each channel: the decoder waits for more of them
    with pytest.raises(ImageError, match="scans"):
        load_image(bytes(plain[:scan] + plain[scan:-2] * 200 + b"\xff\xd9"))


def test_what_stands_behind_a_jpeg_is_not_counted_as_scans() -> None:
    """Phones append a film ("motion photo"): among many megabytes any two bytes occur."""
    film = b"\xff\xda" * 200
    for kind in ("JPEG", "progressive"):
        assert np.array_equal(load_image(FILES[kind] + film).pixels, load_image(FILES[kind]).pixels)
    progressive = FILES["progressive"]
    scan = progressive.rfind(b"\xff\xda")
    comment = b"\xff\xfe\0\4\xff\xd9"  # an end marker inside a part is none
    with pytest.raises(ImageError, match="scans"):
        load_image(progressive[:scan] + (comment + progressive[scan:-2]) * 200 + b"\xff\xd9")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (bytes(500), "zeros"),
        (b"<html>not found</html>", "not an image"),
        (encode(PICTURE, "GIF"), "GIF"),
        (b"PK\x03\x04" + bytes(200), "zip"),
        (b"\0\0\0\x18ftypheic" + bytes(200), "HEIC"),
        (b"\0\0\0\x18ftypqt  " + bytes(200), "a film"),
        (b"RIFF\0\1\0\0AVI LIST" + bytes(200), "a film"),
        (b"\xff\x0a" + bytes(200), "JPEG XL"),
        (b"\0\0\0\x18ftypcrx " + bytes(200), "camera raw"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(200), "camera raw"),
        (b"FUJIFILMCCD-RAW " + bytes(200), "camera raw"),
        # Their first directory is a thumbnail, and an outline of that was taken for one of the photograph
        (encode(PICTURE, "TIFF", tiffinfo={254: 1}), "camera raw"),
        (encode(PICTURE, "TIFF", tiffinfo={50706: b"\1\4\0\0"}), "camera raw"),
        # Decoders take these for another picture, without an error
        (tiff(RGB.astype("<u2") * 257, colours=2, planes=True), "16 bits lie one after the other"),
        (tiff(FLOATS, colours=2, planes=True), "32 bits lie one after the other"),
        (tiff(RGB.astype("<u2") * 257, colours=8), "CIELAB is not read"),
    ],
)
def test_what_is_not_read_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(data)


def test_what_cannot_be_decoded_says_what_to_do_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        load_image(tiff(FLOATS.astype("<f2"), colours=2))
    assert caught.value.hint is not None
    assert capfd.readouterr() == ("", "")  # OpenCV's own lines would stand amid the bar and the JSON log


def test_errors_and_notes_name_the_file(tmp_path: Path) -> None:
    wrong = tmp_path / "picture.png"
    wrong.write_bytes(FILES["JPEG"])
    assert load_image(wrong).info.notes == ("named .png but holds JPEG",)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match="0 bytes"):
        load_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="does not exist"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="folder"):
        load_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_a_process_forked_amid_a_tiff_of_another_thread_reads_its_own() -> None:
    code = """
import io, os, signal, threading, warnings
from PIL import Image
from dermseg.images import load_image
warnings.simplefilter("ignore")
out = io.BytesIO()
Image.new("RGB", (2000, 2000)).save(out, "TIFF", compression="tiff_lzw")
data, ended = out.getvalue(), threading.Event()
def read():
    while not ended.is_set():
        load_image(data)
thread = threading.Thread(target=read)
thread.start()
codes = []
for _ in range(4):
    if not (child := os.fork()):
        signal.alarm(20)
        load_image(data)
        os._exit(Image.MAX_IMAGE_PIXELS is None)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
ended.set()
thread.join()
assert codes == [0] * 4, codes
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_agree() -> None:
    kinds = sorted(FILES) * 20
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda kind: load_image(FILES[kind]).pixels, kinds))
    for kind, pixels in zip(kinds, pictures, strict=True):
        assert np.array_equal(pixels, pictures[kinds.index(kind)])


def test_import_is_light() -> None:
    code = "import sys, dermseg.images; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnxruntime", "scipy", "pandas", "pydantic", "typer"} & set(done.stdout.split())


@pytest.mark.data
def test_native_images_match_opencv(data_dir: Path) -> None:
    sources = find_images([f"{data_dir / 'ISIC_native_resolution.zip'}!images/*"])
    assert len(sources) == 49
    source: ImageSource
    for source in sources[::12]:
        data = np.frombuffer(source.read_bytes(), np.uint8)
        expected = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        assert np.array_equal(load_image(source).pixels, expected)
        small = load_image(source, min_side=256)
        assert min(small.pixels.shape[:2]) >= 256
        assert (small.info.height, small.info.width) == expected.shape[:2]
