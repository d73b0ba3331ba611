"""Pictures that are no lesions, to test the input gate with: photographs, pages, textures.

Photographs come with packages: scikit-image and scikit-learn (``pip install scikit-image scikit-learn``) and
Debian's wallpapers, downloaded and unpacked into a folder, not installed:

    for p in gnome-backgrounds mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \\
             plasma-workspace-wallpapers ukui-wallpapers sway-backgrounds; do
        (cd DEB && apt-get download $p) && dpkg-deb -x DEB/${p}_*.deb PICTURES/$p
    done
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DermsegError
from dermseg.images.load import load_image

Pixels = NDArray[np.uint8]
Picture = tuple[str, str, Pixels]  # kind, name, pixels

LONG_SIDE = 1024  # of a photograph as it is handed over; wallpapers have up to 8 megapixels
SAME = 3.0  # mean difference of two 16 x 16 thumbnails, grey levels, below which one is left out
SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".webp"}
# Pages and textures of a batch; with 130 photographs from the packages above they make 200 and more.
PAGES, TEXTURES = 50, 50
_SIZED = re.compile(r"\d{3,4}[x_]\d{3,4}|screenshot|thumbnail")
_WORDS = (  # noqa: SIM905
    "patient report contract name date of the and with was not for skin clinic visit number total page list "
    "invoice summary left right upper lower table figure method result value note address phone signature"
).split()


def photographs(folder: Path | None) -> Iterator[Picture]:
    """Bundled images of scikit-image and scikit-learn, and one image of each wallpaper below ``folder``."""
    files = []
    for module, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise SystemExit("error: pictures come with two packages: pip install scikit-image scikit-learn")
        root = Path(spec.origin).parent / inside
        files += [(module, path) for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES]
    if folder is not None:
        files += [("wallpaper", path) for path in _wallpapers(folder)]
    seen: list[NDArray[np.int16]] = []
    for kind, path in files:
        try:
            pixels = load_image(path, min_side=LONG_SIDE // 2).pixels
        except DermsegError:  # a stack of grey planes, say
            continue
        scale = LONG_SIDE / max(pixels.shape[:2])
        if scale < 1:
            pixels = np.asarray(
                cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
            )
        glance = cv2.resize(pixels, (16, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
        if any(np.abs(glance - other).mean() < SAME for other in seen):
            continue
        seen.append(glance)
        yield (
            kind,
            path.name if folder is None or kind != "wallpaper" else path.relative_to(folder).as_posix(),
            pixels,
        )


def _wallpapers(folder: Path) -> list[Path]:
    """One file for each picture: themes hold the same one in a dozen sizes."""
    chosen: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.is_symlink() or not path.is_file():
            continue
        if path.stem in ("screenshot", "thumbnail"):
            continue
        theme = path.parent if _SIZED.search(path.stem) else path.with_suffix("")
        key = re.sub(r"[_-]?\d{3,4}x\d{3,4}", "", str(theme))
        best = chosen.get(key)
        if best is None or path.stat().st_size > best.stat().st_size:
            chosen[key] = path
    return list(chosen.values())


def pages(count: int = PAGES, seed: int = 7_000_000) -> Iterator[Picture]:
    """Text, forms, tables, charts and screens, some photographed at an angle under a lamp."""
    for i in range(count):
        rng = np.random.default_rng(seed + i)
        height, width = ((880, 680), (680, 880), (720, 1000))[i % 3]
        paper = rng.uniform((225, 220, 205), (255, 255, 255))
        ink = rng.uniform(0, 90, 3)
        if i % 5 == 4:  # a dark screen
            paper, ink = rng.uniform(10, 50, 3), rng.uniform(170, 250, 3)
        page = np.empty((height, width, 3), np.uint8)
        page[:] = paper
        kind = (_text, _table, _chart)[i % 3]
        kind(rng, page, ink)
        if i % 2:
            page = _photographed(rng, page)
        yield "page", f"page-{i:02d}", page


def _text(rng: np.random.Generator, page: Pixels, ink: NDArray[np.float64]) -> None:
    height, width = page.shape[:2]
    size = rng.uniform(0.45, 1.1)
    step = int(30 * size) + 6
    y = 50
    while y < height - 30:
        line = ""
        while cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0] < width - 200:
            line += str(rng.choice(_WORDS)) + " "
        if rng.random() < 0.85:
            cv2.putText(
                page,
                line,
                (40, y),
                cv2.FONT_HERSHEY_SIMPLEX,
                size,
                ink.tolist(),
                1 + int(size > 0.8),
                cv2.LINE_AA,
            )
        y += step


def _table(rng: np.random.Generator, page: Pixels, ink: NDArray[np.float64]) -> None:
    height, width = page.shape[:2]
    rows, columns = int(rng.integers(6, 22)), int(rng.integers(3, 8))
    ys, xs = np.linspace(40, height - 40, rows + 1), np.linspace(40, width - 40, columns + 1)
    for y in ys:
        cv2.line(page, (40, round(y)), (width - 40, round(y)), ink.tolist(), 1)
    for x in xs:
        cv2.line(page, (round(x), 40), (round(x), height - 40), ink.tolist(), 1)
    for y in ys[:-1]:
        for x in xs[:-1]:
            word = str(rng.choice(_WORDS)) if rng.random() < 0.4 else f"{rng.uniform(0, 999):.1f}"
            cv2.putText(
                page,
                word,
                (round(x) + 5, round(y) + 22),
                cv2.FONT_HERSHEY_DUPLEX,
                0.5,
                ink.tolist(),
                1,
                cv2.LINE_AA,
            )


def _chart(rng: np.random.Generator, page: Pixels, ink: NDArray[np.float64]) -> None:
    height, width = page.shape[:2]
    cv2.line(page, (70, 40), (70, height - 60), ink.tolist(), 2)
    cv2.line(page, (70, height - 60), (width - 40, height - 60), ink.tolist(), 2)
    n = int(rng.integers(4, 14))
    xs = np.linspace(90, width - 60, n)
    ys = height - 60 - rng.uniform(0.1, 0.9, n) * (height - 110)
    colour = rng.uniform(20, 230, 3).tolist()
    if rng.random() < 0.5:
        for x, y in zip(xs, ys, strict=True):
            cv2.rectangle(page, (round(x), round(y)), (round(x) + width // (2 * n), height - 61), colour, -1)
    else:
        cv2.polylines(page, [np.stack((xs, ys), 1).round().astype(np.int32)], False, colour, 3, cv2.LINE_AA)
    for k in range(6):
        cv2.putText(
            page,
            str(k * 20),
            (20, height - 60 - k * (height - 110) // 6),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.5,
            ink.tolist(),
        )


def _photographed(rng: np.random.Generator, page: Pixels) -> Pixels:
    height, width = page.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + rng.normal(0, 0.05, (4, 2)).astype(np.float32) * width
    desk = rng.uniform((60, 40, 20), (190, 160, 140)).tolist()
    turned = cv2.warpPerspective(
        page,
        cv2.getPerspectiveTransform(corners, moved),
        (width, height),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=desk,
    )
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle = rng.uniform(0, 2 * np.pi)
    light = 0.85 + 0.15 * (x * np.cos(angle) + y * np.sin(angle))
    warm = rng.uniform((0.95, 0.85, 0.7), (1.0, 1.0, 1.0))
    return np.clip(turned * light[..., None] * warm, 0, 255).astype(np.uint8)


def textures(count: int = TEXTURES, seed: int = 8_000_000) -> Iterator[Picture]:
    """Noise, stripes, checks, wood, stone, cloth, plain colours; a third of them in the colours of skin."""
    makers = (_noise, _stripes, _checks, _rings, _cells, _weave, _ramp)
    for i in range(count):
        rng = np.random.default_rng(seed + i)
        height, width = ((512, 512), (480, 640), (640, 480))[i % 3]
        pattern = makers[i % len(makers)](rng, height, width)
        low, high = rng.uniform(0, 255, (2, 3))
        if i % 3 == 0:
            high = rng.uniform((150, 100, 70), (240, 200, 180))
            low = high * rng.uniform(0.3, 0.8)
        picture = (
            low + pattern[..., None] * (high - low) + rng.normal(0, rng.uniform(0, 8), (height, width, 3))
        )
        yield (
            "texture",
            f"texture-{i:02d}-{makers[i % len(makers)].__name__[1:]}",
            np.clip(picture, 0, 255).astype(np.uint8),
        )


Field = NDArray[np.float64]


def _grid(height: int, width: int) -> tuple[Field, Field]:
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    return x, y


def _noise(rng: np.random.Generator, height: int, width: int) -> Field:
    total = np.zeros((height, width))
    for octave in range(1, 8):
        cells = rng.random((2**octave + 1, 2**octave + 1))
        total += (
            cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
            * rng.uniform(0.4, 1.0) ** octave
        )
    return _stretch(total)


def _stripes(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    angle = rng.uniform(0, np.pi)
    wave = np.sin(2 * np.pi * rng.uniform(3, 40) * (x * np.cos(angle) + y * np.sin(angle)))
    return _stretch(np.sign(wave) if rng.random() < 0.5 else wave)


def _checks(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    n = rng.integers(2, 20)
    return ((np.floor(x * n) + np.floor(y * n)) % 2).astype(np.float64)


def _rings(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    cx, cy = rng.uniform(-0.5, 1.5, 2)
    bend = 0.1 * _noise(rng, height, width)
    return _stretch(np.sin(2 * np.pi * rng.uniform(5, 30) * (np.hypot(x - cx, 0.3 * (y - cy)) + bend)))


def _cells(rng: np.random.Generator, height: int, width: int) -> Field:
    seeds = rng.random((int(rng.integers(10, 300)), 2)) * (height, width)
    points = np.ones((height, width), np.uint8)
    rows, columns = seeds.astype(int).T
    points[rows, columns] = 0
    distance = cv2.distanceTransform(points, cv2.DIST_L2, 5).astype(np.float64)
    return _stretch(distance if rng.random() < 0.5 else np.sqrt(distance))


def _weave(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    n = rng.uniform(15, 70)
    over = np.sin(2 * np.pi * n * x) * np.sin(2 * np.pi * n * y)
    return _stretch(over + 0.5 * _noise(rng, height, width))


def _ramp(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    return _stretch(rng.normal() * x + rng.normal() * y + 1e-6 * x)


def _stretch(values: Field) -> Field:
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-9)
