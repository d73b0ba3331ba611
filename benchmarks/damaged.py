"""Soak: thousands of damaged and hostile files through ``load_image`` (and ``dermseg segment``).

    python benchmarks/damaged.py                      # 2,000 inputs, a minute or two
    python benchmarks/damaged.py --segment            # the command line over the same folder as well
    python benchmarks/damaged.py --images DIR_OR_ZIP  # damage real images too

Every input must end as pixels or as an ImageError with a reason: no other exception, no warning,
no crash, no hang, memory below a limit, and no file written outside. Results go to
``benchmarks/results/damaged.json``. Inputs follow from the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import io
import json
import os
import platform
import re
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dermseg.errors import ImageError
from dermseg.images import find_images, load_image

RESULTS = Path(__file__).parent / "results" / "damaged.json"
EXTENSIONS = ("jpg", "png", "tif", "bmp", "webp")
Rng = np.random.Generator


def picture(rng: Rng) -> Image.Image:
    """A blob on a noisy ground: enough structure that codecs have something to do."""
    height, width = (int(side) for side in rng.integers(40, 260, 2))
    ground = rng.integers(120, 230, 3)
    pixels = np.full((height, width, 3), ground, np.uint8)
    cv2.circle(pixels, (width // 2, height // 2), min(height, width) // 3, (90, 60, 50), -1)
    noise = rng.normal(0, 12, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A Pillow image as the bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def whole_file(rng: Rng, extension: str) -> bytes:
    """An undamaged file of a format, in varying flavours."""
    image = picture(rng)
    if extension == "jpg":
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9))
        mode = str(rng.choice(["RGB", "L", "CMYK"]))
        return encode(image.convert(mode), "JPEG", exif=exif, progressive=bool(rng.integers(2)))
    if extension == "png":
        mode = str(rng.choice(["RGB", "RGBA", "P", "LA", "1", "I;16"]))
        return encode(image.convert(mode), "PNG", compress_level=1)
    if extension == "tif":
        packing = (None, "tiff_lzw", "tiff_adobe_deflate")[int(rng.integers(3))]
        mode = str(rng.choice(["RGB", "L", "CMYK", "F"]))
        return encode(image.convert(mode), "TIFF", compression=packing)
    if extension == "bmp":
        return encode(image.convert(str(rng.choice(["RGB", "L", "1"]))), "BMP")
    return encode(image, "WEBP", lossless=bool(rng.integers(2)), method=0)


@functools.cache
def packed_zeros() -> bytes:
    """40 MB of nothing in 40 kB."""
    return zlib.compress(bytes(40_000_000), 9)


# Damages to single files: each takes the generator and a whole file, and gives (extension, bytes).


def truncated(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """Cut anywhere, the last byte included."""
    return extension, data[: int(rng.integers(1, len(data)))]


def bit_flipped(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """One to 64 bits, anywhere."""
    changed = bytearray(data)
    for position in rng.integers(0, len(data), int(2 ** rng.integers(0, 7))):
        changed[position] ^= 1 << int(rng.integers(8))
    return extension, bytes(changed)


def header_flipped(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """Bytes in the first 200 (or, for TIFF, also the last 200, where the directory stands)."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        position = int(rng.integers(2, min(200, len(data))))
        if extension == "tif" and rng.integers(2):
            position = len(data) - 1 - int(rng.integers(0, min(200, len(data) - 1)))
        changed[position] = int(rng.integers(256))
    return extension, bytes(changed)


def wrong_extension(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """A good file under another format's name, DICOM's too."""
    return str(rng.choice([*(other for other in EXTENSIONS if other != extension), "dcm", "heic"])), data


def spliced(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """A piece left out, doubled, or replaced by zeros or noise."""
    first, last = sorted(int(place) for place in rng.integers(0, len(data), 2))
    piece = data[first:last]
    middle = (b"", piece * 2, bytes(len(piece)), rng.bytes(len(piece)))[int(rng.integers(4))]
    return extension, data[:first] + middle + data[last:]


def no_image(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """Nothing, zeros, noise, noise after a good signature, text."""
    size = int(rng.integers(1, 5000))
    noise = rng.bytes(size)
    return extension, (b"", bytes(size), noise, data[:12] + noise, b"<html>404 not found</html>")[
        int(rng.integers(5))
    ]


def huge_header(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """A small file that says it has gigapixels, with checksums put right."""
    side = int(rng.choice([0, 10_001, 16_383, 60_000, 65_535, 2**31 - 1, 2**32 - 1]))
    changed = bytearray(data)
    short = struct.pack(">H", min(side, 65_535))
    if extension == "png":
        changed[16:24] = struct.pack(">II", side, side)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    elif extension == "bmp":
        changed[18:26] = struct.pack("<II", side, side)
    elif extension == "jpg":
        place = next(i for i in range(2, len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
        changed[place + 5 : place + 9] = short + short
    elif extension == "tif":
        start = struct.unpack_from("<I", data, 4)[0]
        for place in range(start + 2, start + 26, 12):  # width and height are the first two entries
            changed[place + 2 : place + 4] = struct.pack("<H", 4)
            changed[place + 8 : place + 12] = struct.pack("<I", side)
    else:
        return "webp", _webp_canvas(data)
    return extension, bytes(changed)


def _webp_canvas(data: bytes) -> bytes:
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\xff\xff" * 2
    body = b"WEBP" + extended + data[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bomb(rng: Rng, extension: str, data: bytes) -> tuple[str, bytes]:
    """Small files that grow: zlib in PNG pixels and texts; scans in JPEG; loops and tiles in TIFF."""
    zeros = packed_zeros()
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(8 * 25))
    end = _chunk(b"IEND", b"")
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    which = int(rng.integers(6))
    if which == 0:
        return "png", start + _chunk(b"IDAT", zeros) + end
    if which == 1:
        body = _chunk(b"iCCP", b"x\0\0" + zeros) + _chunk(b"zTXt", b"x\0\0" + zeros)
        return "png", start + body + _chunk(b"IDAT", pixels) + end
    if which == 2:
        return "png", start + _chunk(b"tEXt", b"") * 600_000 + _chunk(b"IDAT", pixels) + end
    if which == 3:
        jpeg = encode(picture(rng), "JPEG", progressive=True)
        scan = jpeg.rfind(b"\xff\xda")
        return "jpg", jpeg[:scan] + jpeg[scan:-2] * 3000 + b"\xff\xd9"
    tiff = bytearray(encode(picture(rng), "TIFF"))
    place = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, place)[0]
    if which == 4:  # the next directory is this directory
        struct.pack_into("<I", tiff, place + 2 + 12 * count, place)
    else:  # tiles of four billion pixels in place of two harmless tags
        struct.pack_into("<HHII", tiff, place + 2 + 12 * (count - 2), 322, 4, 1, 65_536)
        struct.pack_into("<HHII", tiff, place + 2 + 12 * (count - 1), 323, 4, 1, 65_536)
    return "tif", bytes(tiff)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


Damage = Callable[[Rng, str, bytes], tuple[str, bytes]]
# kind of damage -> share of the inputs
DAMAGES: dict[Damage, int] = {
    truncated: 22,
    bit_flipped: 22,
    header_flipped: 16,
    spliced: 10,
    wrong_extension: 8,
    no_image: 6,
    huge_header: 10,
    bomb: 2,
}
HOSTILE_NAMES = (
    "../../dermseg-escaped.jpg",
    "/etc/dermseg-escaped.jpg",
    "C:\\Windows\\dermseg-escaped.jpg",
    "..\\..\\dermseg-escaped.jpg",
    "a\\b\\c.jpg",
    "con.jpg",
    "x" * 3000 + ".jpg",
    "a/" * 2000 + "deep.jpg",
    "new\nline.jpg",
    'quo"te<>|?*.jpg',
    "twice.jpg",
    "twice.jpg",
    "TWICE.jpg",
    ".jpg",
    "..jpg",
    "\u202egpj.exe.jpg",
)


def hostile_zip(rng: Rng, path: Path) -> None:
    """A zip with bad names, bombs, lies about sizes, links, encryption, bad checksums."""
    good = encode(picture(rng), "JPEG")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in HOSTILE_NAMES:
            _write(archive, name, good)
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        with archive.open(zipfile.ZipInfo("zeros.jpg"), "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(1 << 20))
        png_bomb = bomb(rng, "png", good)[1]
        _write(archive, "bomb.png", png_bomb)
        _write(archive, "nested.zip", b"PK\x03\x04")
        for name in ("encrypted.jpg", "method.jpg", "lie-small.jpg", "lie-large.jpg", "crc.jpg", "local.jpg"):
            _write(archive, name, good)
    data = bytearray(path.read_bytes())
    for name, offset, value in (  # fields of the central directory, APPNOTE 4.3.12
        (b"encrypted.jpg", 8, struct.pack("<H", 1)),
        (b"method.jpg", 10, struct.pack("<H", 9)),
        (b"lie-small.jpg", 24, struct.pack("<I", 100)),
        (b"lie-large.jpg", 24, struct.pack("<I", 4_000_000_000)),
        (b"crc.jpg", 16, b"\1\2\3\4"),
        (b"local.jpg", 42, struct.pack("<I", 7)),
    ):
        place = data.rfind(name) - 46
        data[place + offset : place + offset + len(value)] = value
    path.write_bytes(data)


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # set afterwards, as ZipInfo would tidy it
    info.compress_type = zipfile.ZIP_DEFLATED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names that occur twice are meant
        archive.writestr(info, data)


def make_inputs(folder: Path, count: int, seed: int, real: list[bytes]) -> list[str]:
    """Write `count` damaged inputs; returns what to hand to ``find_images``."""
    rng = np.random.default_rng(seed)
    files = folder / "files"
    files.mkdir(parents=True)
    hostile_zip(rng, folder / "hostile.zip")
    whole = (folder / "hostile.zip").read_bytes()
    (folder / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.zip").write_bytes(rng.bytes(5000))
    inputs = [str(files), *(str(path) for path in sorted(folder.glob("*.zip")))]
    (files / "broken-link.jpg").symlink_to("nowhere.jpg")
    (files / "loop.jpg").symlink_to("loop.jpg")
    (files / "self").symlink_to(".", target_is_directory=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(files / "pipe-named.jpg")
    (files / "folder.png").mkdir()
    todo = count - len(find_images(inputs))
    damages, weights = list(DAMAGES), np.array(list(DAMAGES.values()), float)
    for number in range(todo):
        damage = damages[int(rng.choice(len(damages), p=weights / weights.sum()))]
        extension = EXTENSIONS[int(rng.integers(len(EXTENSIONS)))]
        data = b"" if damage is bomb else whole_file(rng, extension)
        if real and extension == "jpg" and rng.integers(2):
            data = real[int(rng.integers(len(real)))]
        extension, data = damage(rng, extension, data)
        (files / f"{damage.__name__}-{number:05d}.{extension}").write_bytes(data)
    return inputs


def work(inputs: list[str]) -> Iterator[dict[str, Any]]:
    """Load everything; one record per input."""
    for source in find_images(inputs):
        began, status, message = time.perf_counter(), "image", ""
        try:
            image = load_image(source, min_side=256)
            load_image(source, allow_truncated=True)
            assert image.pixels.shape[2] == 3
        except ImageError as error:
            status, message = "refused", error.message
            try:
                load_image(source, allow_truncated=True)
            except ImageError:
                pass
            except Exception as other:
                status, message = "WRONG", f"allow_truncated: {type(other).__name__}: {other}"
        except Exception as error:  # what this soak looks for
            status, message = "WRONG", f"{type(error).__name__}: {error}"
        safe = not (source.name.startswith("/") or ".." in source.name.split("/") or "\\" in source.name)
        if not safe or (status == "refused" and not message):
            status, message = "WRONG", f"name or message: {source.name!r} {message!r}"
        kind = "zip" if source.member is not None else source.name.partition("-")[0]
        yield {"kind": kind, "status": status, "message": message, "seconds": time.perf_counter() - began}


def watched(
    command: list[str], limit_s: float
) -> tuple[subprocess.CompletedProcess[str], float, float | None]:
    """Run a command; returns its result, seconds, and the peak of its memory in MB (Linux only)."""
    began, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        statm = Path(f"/proc/{process.pid}/statm")
        while process.poll() is None:
            with contextlib.suppress(OSError, IndexError):
                peak = max(peak, int(statm.read_text().split()[1]))
            if time.perf_counter() - began > limit_s:
                process.kill()
                process.wait()
            time.sleep(0.02)
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())
    return done, time.perf_counter() - began, peak * 4096 / 1e6 if peak else None


def run_segment(inputs: list[str], folder: Path, model: str, limit_s: float) -> dict[str, Any]:
    """``dermseg segment`` over the same inputs: one row each, and failures have a reason."""
    out = folder / "out"
    program = [sys.executable, "-m", "dermseg.apps.cli.main", "segment", *inputs]
    program += ["-o", str(out), "--model", model, "--json"]
    done, seconds, memory = watched(program, limit_s)
    rows = (
        list(csv.DictReader((out / "results.csv").open(encoding="utf-8", newline="")))
        if (out / "results.csv").exists()
        else []
    )
    silent = [row["file"] for row in rows if row["status"] == "failed" and not row["message"]]
    wanted = len(find_images(inputs))
    return {
        "exit_code": done.returncode,
        "seconds": round(seconds, 1),
        "peak_memory_mb": None if memory is None else round(memory),
        "inputs": wanted,
        "rows": len(rows),
        "status": dict(Counter(row["status"] for row in rows)),
        "traceback": "Traceback" in done.stderr,
        "passed": done.returncode in (0, 1)
        and len(rows) == wanted
        and not silent
        and "Traceback" not in done.stderr,
    }


def read_real(paths: list[str], limit: int = 40) -> list[bytes]:
    """JPEG files to damage, from folders or zips."""
    found = [source for source in find_images(paths) if source.name.lower().endswith((".jpg", ".jpeg"))]
    return [source.read_bytes() for source in found[:limit]]


def main() -> None:
    """Make the inputs, run the worker, judge, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--images", nargs="*", default=[], help="folders or zips of real images to damage too"
    )
    parser.add_argument(
        "--segment", action="store_true", help="run 'dermseg segment' over the inputs as well"
    )
    parser.add_argument("--model", default="default", help="the bundle that --segment uses")
    parser.add_argument("--limit-seconds", type=float, default=1800.0)
    parser.add_argument("--limit-memory-mb", type=float, default=2000.0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="make the inputs here and keep them")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        for record in work(options.worker):
            print(json.dumps(record), flush=True)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        inputs = make_inputs(
            folder, options.count, options.seed, read_real(options.images) if options.images else []
        )
        before = sorted(folder.rglob("*"))
        command = [sys.executable, "-W", "error", __file__, "--worker", *inputs]
        done, seconds, memory = watched(command, options.limit_seconds)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for record in records:
            table[record["kind"]][record["status"]] += 1
        wrong = [record for record in records if record["status"] == "WRONG"]
        unpacked = sorted(folder.rglob("*")) != before or any(
            list(parent.glob("dermseg-escaped*")) for parent in folder.resolve().parents
        )
        report = {
            "inputs": options.count,
            "seed": options.seed,
            "real_images": bool(options.images),
            "results": {kind: dict(sorted(counts.items())) for kind, counts in sorted(table.items())},
            "wrong": wrong[:20],
            "exit_code": done.returncode,
            "seconds": round(seconds, 1),
            "slowest_seconds": round(max((record["seconds"] for record in records), default=0.0), 2),
            "peak_memory_mb": None if memory is None else round(memory),
            # Pillow lets libtiff say on stderr what is wrong with a TIFF; a word from Python fails.
            "stderr_lines": len(done.stderr.splitlines()),
            "wrote_files": bool(unpacked),
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        passed = (
            done.returncode == 0
            and len(records) == options.count
            and not wrong
            and not re.search("Traceback|Warning|Error:", done.stderr)
            and not unpacked
            and (memory is None or memory < options.limit_memory_mb)
        )
        report["passed"] = passed
        if options.segment:
            report["segment"] = run_segment(inputs, Path(temporary), options.model, options.limit_seconds)
            passed = passed and report["segment"]["passed"]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
