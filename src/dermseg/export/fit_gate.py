"""Fit the input gate of a bundle, on images that show skin and on nothing else.

In this order:

1. the ONNX files get the ``features`` output, where they have none;
2. one Gaussian over the features of dermoscopic images (``train`` and ``val``, each index counting the same,
   half of them as another camera would show them) and of close-ups made from them (``data.closeups``);
3. limits from ``calib``, for each index by itself; the largest counts, so that the promise holds for each;
4. linear detectors of hair and rulers: the same images with and without the artefact painted on.

No picture of anything else is used: what is refused is what is unlike skin, not what is like some examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.artefacts import add_hair, add_ruler, add_vignette
from dermseg.data.closeups import close_up
from dermseg.data.index import IndexRow, open_image, open_mask, read_index, short_names
from dermseg.errors import DataError, ModelError
from dermseg.export.features import add_features
from dermseg.export.fit_trust import SPLIT_FIRST
from dermseg.export.write import add_attachment, open_folder, write_card
from dermseg.files import atomic_write
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.images.resize import resize_image, shrink
from dermseg.inference.bundle import Bundle, load_bundle
from dermseg.inference.card import ModelCard
from dermseg.inference.predictor import Model
from dermseg.inference.session import OrtSession
from dermseg.quality.familiar import fit_familiar, pack
from dermseg.quality.gate import ATTACHMENT, FILE, Gate, Head, Limit, Skin
from dermseg.quality.measures import SIDE, Measures, measure
from dermseg.version import __version__

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Report = Callable[[str], None]

IMAGES = 400  # of each split of an index, evenly drawn
CLOSE_UPS = 400
PAINTED = 200  # images that get each artefact
DIRECTIONS = 64
REVIEW_SHARE, REJECT_SHARE = 0.05, 0.005  # of calib images that are stranger than the limits
FLAGGED_WITHOUT = 0.02  # images without a painted artefact in which its detector sees one
HEAVY = 0.75  # hair above this quantile of painted hair asks for review
PAINTERS = {"hair": add_hair, "ruler": add_ruler}
# What a photograph must be like, whatever the network; units as in ``quality.measures``.
LIMITS = {
    "small_image": Limit(review=96, reject=32, below=True),
    "dark": Limit(review=35, reject=12, below=True),  # the darkest skin, well lit, lies above
    "bright": Limit(review=0.15, reject=0.6),
    "vignette": Limit(note=0.2, review=0.55),
    "small_lesion": Limit(review=0.002, below=True),
    "border": Limit(note=0.02, review=0.25),
    "no_lesion": Limit(review=0.5),
    "several": Limit(review=1.5),
}
_RIDGE = 0.1
_FRAMED = 0.4  # of other cameras: a dermoscope's round frame is in view
_SHARPNESS_SIDE = 256  # sharpness changes at the scale of this many pixels along the longer side


@dataclass(frozen=True)
class Seen:
    """Images as the gate meets them: features ``(N, D)``, and what was measured."""

    features: Floats
    measures: list[Measures]


def fit_bundle_gate(path: Path, indexes: Sequence[Path], *, report: Report = lambda _: None) -> ModelCard:
    """Fit the gate of a bundle and write it into the bundle; one that was fitted before is replaced.

    Parameters
    ----------
    path
        The folder of the bundle.
    indexes
        Index files of dermoscopic images with the splits ``train``, ``val`` and ``calib``.

    Raises
    ------
    UsageError
        The bundle is a zip.
    ModelError
        The network has no encoder whose maps could be used.
    DataError
        An index has no images of a split, or no image of ``train`` has a mask (a few may have none).
    """
    bundle = _with_features(open_folder(path))
    model = Model(bundle)
    size = model.card.preprocessing
    if model.look(np.zeros((1, 3, size.height, size.width), np.float32))[1] is None:
        raise ModelError("the network has no encoder whose maps a gate could use", file=path)
    rng = np.random.default_rng(0)
    known: dict[str, Seen] = {}
    calib: dict[str, Seen] = {}
    train: list[IndexRow] = []
    for name, index in zip(short_names(indexes), indexes, strict=True):
        splits = {split: _rows(index, split) for split in ("train", "val", "calib")}
        report(f"{name}: {sum(map(len, splits.values()))} images")
        known[name] = _see(model, _cameras(rng, _pixels(model, splits["train"] + splits["val"])))
        calib[name] = _see(model, _pixels(model, splits["calib"]))
        train += splits["train"]
    masked = [row for row in train if row.masks]
    if not masked:
        raise DataError(
            "no image of split 'train' has a mask", file=indexes[0], hint="close-ups are made from lesions"
        )
    masked, painted_on = _evenly(masked, CLOSE_UPS), _evenly(train, PAINTED)
    report(f"{len(masked)} close-ups")
    close = _see(model, _cameras(rng, _close_ups(rng, model, masked)))
    report(f"{len(painted_on)} images with hair and rulers")
    base = [shrink(pixels, SIDE) for pixels in _pixels(model, painted_on)]
    plain = _see(model, base).features
    painted = {
        name: _see(model, (paint(rng, image) for image in base)).features for name, paint in PAINTERS.items()
    }
    gate = fit_gate(known, calib, close.features, plain, painted)
    return add_attachment(bundle, ATTACHMENT, FILE, gate.to_json())


def fit_gate(
    known: dict[str, Seen], calib: dict[str, Seen], close: Floats, plain: Floats, painted: dict[str, Floats]
) -> Gate:
    """Fit the gate from what was seen.

    Parameters
    ----------
    known, calib
        For each index: images to fit on, and images to set limits with.
    close
        Features of close-ups.
    plain, painted
        Features of the same images without and with each artefact.
    """
    parts = [*(seen.features for seen in known.values()), close]
    weights = np.concatenate([np.full(len(part), 1 / len(part)) for part in parts])
    familiar = fit_familiar(np.concatenate(parts), weights, keep=DIRECTIONS)
    strange = {name: familiar.strangeness(seen.features) for name, seen in calib.items()}
    skin = _fit_skin([m for seen in known.values() for m in seen.measures])
    casts = {
        name: np.array([c for m in s.measures if (c := skin.of(m)) is not None]) for name, s in calib.items()
    }
    blurs = {name: np.array([m.blur for m in seen.measures]) for name, seen in calib.items()}
    glares = {name: np.array([m.glare_share for m in seen.measures]) for name, seen in calib.items()}
    limits = {
        "unfamiliar": Limit(review=_largest(strange, REVIEW_SHARE), reject=_largest(strange, REJECT_SHARE)),
        "blur": Limit(review=_largest(blurs, REJECT_SHARE)),
        "cast": Limit(review=_largest(casts, REJECT_SHARE)),
        "bubbles": Limit(note=_largest(glares, REVIEW_SHARE)),
        **LIMITS,
    }
    heads, found = {}, {}
    for name, features in painted.items():
        head, found[name] = _fit_head(plain, features)
        heads[name] = head
        limits[name] = Limit(note=0.0)
    if "hair" in heads:
        strength = painted["hair"] @ heads["hair"].vector + heads["hair"].bias
        limits["hair"] = Limit(note=0.0, review=_rounded(max(0.0, float(np.quantile(strength, HEAVY)))))
    fitted: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dermseg": __version__,
        "images": {name: len(seen.features) for name, seen in known.items()},
        "calib": {name: len(seen.features) for name, seen in calib.items()},
        "close_ups": len(close),
        "painted": len(plain),
        "painted_found": found,
    }
    return Gate(fitted=fitted, size=familiar.size, familiar=familiar, heads=heads, skin=skin, limits=limits)


def _fit_head(without: Floats, with_it: Floats) -> tuple[Head, float]:
    """A ridge discriminant (Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x), 0 at `FLAGGED_WITHOUT`.

    Returns it with the share of artefacts found among the quarter of the images that a first fit left out.
    """
    out = np.arange(len(without)) % 4 == 0
    weights, limit = _discriminant(without[~out], with_it[~out])
    found = float((with_it[out] @ weights > limit).mean())
    weights, limit = _discriminant(without, with_it)
    return Head(weights=pack(weights), bias=-limit), round(found, 4)


def _discriminant(without: Floats, with_it: Floats) -> tuple[Floats, float]:
    """Direction in raw features, in spreads of the images without, and the limit on it."""
    scale = np.maximum(without.std(axis=0), 1e-6).astype(np.float64)
    x, y = without / scale, with_it / scale
    covariance = np.cov(x.T)
    size = len(covariance)
    covariance = (1 - _RIDGE) * covariance + _RIDGE * np.trace(covariance) / size * np.eye(size)
    weights = np.linalg.solve(covariance, (y - x).mean(axis=0)) / scale
    weights /= (without @ weights).std()
    direction: Floats = weights.astype(np.float32)
    return direction, float(np.quantile(without @ direction, 1 - FLAGGED_WITHOUT))


def _fit_skin(measures: Sequence[Measures]) -> Skin:
    known = [(m.skin_a, m.skin_b) for m in measures if m.skin_a is not None and m.skin_b is not None]
    colours = np.array(known, np.float64)
    (a, b), precision = colours.mean(axis=0).tolist(), np.linalg.inv(np.cov(colours.T)).tolist()
    return Skin(mean=(a, b), precision=(tuple(precision[0]), tuple(precision[1])))


def _largest(values: dict[str, Floats], share: float) -> float:
    """What at most ``share`` of the images of any index lie above."""
    return _rounded(max(float(np.quantile(found, 1 - share)) for found in values.values()))


def _rounded(value: float) -> float:
    return round(value, 4)


# What is looked at


def _rows(index: Path, split: str) -> list[IndexRow]:
    rows = [row for row in read_index(index) if row.split == split]
    if not rows:
        raise DataError(f"no images of split '{split}'", file=index, hint=SPLIT_FIRST)
    return _evenly(rows, IMAGES)


def _evenly(rows: Sequence[IndexRow], count: int) -> list[IndexRow]:
    step = max(1, -(-len(rows) // count))
    return list(rows[::step])


def _pixels(model: Model, rows: Iterable[IndexRow]) -> Iterator[Pixels]:
    for row in rows:
        yield load_image(open_image(row), min_side=model.min_side).pixels


def _cameras(rng: np.random.Generator, images: Iterable[Pixels]) -> Iterator[Pixels]:
    """The images, every other one as another camera would show it: light, white balance, sharpness, frame."""
    for i, image in enumerate(images):
        if i % 2 == 0:
            yield image
            continue
        values = image.astype(np.float32)
        soft = cv2.GaussianBlur(values, (0, 0), max(0.5, max(image.shape) / _SHARPNESS_SIDE))
        values += np.float32(rng.uniform(-0.7, 1.0)) * (values - soft)
        values *= (rng.uniform(0.75, 1.15) * rng.uniform(0.9, 1.1, 3)).astype(np.float32)
        seen = np.clip(values, 0, 255).astype(np.uint8)
        yield add_vignette(rng, seen) if rng.random() < _FRAMED else seen


def _close_ups(rng: np.random.Generator, model: Model, rows: Iterable[IndexRow]) -> Iterator[Pixels]:
    for row in rows:
        image = shrink(load_image(open_image(row), min_side=model.min_side).pixels, SIDE)
        mask = load_mask(open_mask(row))
        height, width = image.shape[:2]
        small = resize_image(mask.view(np.uint8)[..., None] * np.uint8(255), height, width)
        yield close_up(rng, image, small.reshape(height, width) > 127)


def _see(model: Model, images: Iterable[Pixels]) -> Seen:
    features, measures = [], []
    post = model.card.postprocessing
    for pixels in images:
        probability, pooled = model.look(model.prepare(pixels)[None])
        assert pooled is not None, "the graph has the output"
        features.append(pooled[0])
        measures.append(measure(pixels, pixels.shape[:2], probability[0], post.threshold))
    return Seen(np.stack(features), measures)


# What is written


def _with_features(bundle: Bundle) -> Bundle:
    """The bundle on disk with the output in each of its ONNX files that gives logits.

    Nothing is written before all of them are known to run.
    """
    card = bundle.card
    variants, files = dict(card.variants), {}
    for name, variant in card.variants.items():
        if variant.format != "onnx" or variant.interface != "logits":
            continue
        old = bundle.read_model(name)
        data = add_features(old, card.preprocessing.height)
        if data is not old:
            OrtSession(data, 1)
            files[variant.file] = data
            changed = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            variants[name] = variant.model_copy(update=changed)
    for file, data in files.items():
        atomic_write(bundle.path / file, data)
    if files:
        write_card(bundle.path, card.model_copy(update={"variants": variants}))
    return load_bundle(bundle.path)
