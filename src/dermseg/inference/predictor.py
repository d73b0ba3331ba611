"""The main job: a model that is loaded once and finds the lesion in any number of images.

>>> model = load_model()
>>> result = model.segment("photo.jpg")
>>> result.status, result.confidence, result.mask.shape

``segment`` and ``segment_batch`` are made of ``prepare`` (pixels to network input), ``infer`` (one session
call) and ``finish`` (logits to result). A batch runner may call these three from threads of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import UsageError
from dermseg.images.check import check_image
from dermseg.images.load import LoadedImage, load_image
from dermseg.images.resize import shrink
from dermseg.images.sources import ImageSource
from dermseg.inference import postprocess
from dermseg.inference.bundle import DEFAULT, Bundle, load_bundle
from dermseg.inference.card import ModelCard
from dermseg.inference.postprocess import Floats, Lesions
from dermseg.inference.preprocess import to_input
from dermseg.inference.result import Result
from dermseg.inference.runtimes import AUTO, check_runtime, choose_runtime, open_session, select_variant
from dermseg.inference.session import Session
from dermseg.inference.tta import merge_views, stack_views
from dermseg.measure.basics import describe
from dermseg.quality.gate import read_gate
from dermseg.quality.measures import SIDE
from dermseg.quality.verdict import Finding
from dermseg.uncertainty.features import map_features
from dermseg.uncertainty.predicted_dice import NO_OUTLINE
from dermseg.uncertainty.repeatability import Repeatability, load_repeatability
from dermseg.uncertainty.trust import load_trust

_NAMED = (LoadedImage, ImageSource, bytes, str, PathLike)  # what pixels are read from
Image = NDArray[np.uint8] | LoadedImage | ImageSource | bytes | str | PathLike[str]


class Model:
    """A bundle with its session. Create it with ``load_model``; threads may share it.

    Parameters
    ----------
    bundle
        The checked bundle.
    variant
        Which of its variants; None takes the card's default.
    threads
        Threads inside one session call; None takes what the process may use.
    runtime
        What runs the network, see ``runtimes``; None takes ONNX Runtime (for ONNX files).
    session
        The network of this bundle, opened already with ``variant``, ``threads`` and ``runtime``.

    Attributes
    ----------
    bundle, variant
        What was opened, and the name of its variant in use.
    trust
        What was fitted of its uncertainty: expected Dice and margins; None where nothing was.
    gate
        What judges photographs; None for a bundle without one.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        variant: str | None = None,
        threads: int | None = None,
        runtime: str | None = None,
        session: Session | None = None,
    ) -> None:
        self.bundle = bundle
        self._place = bundle.path.absolute()  # a process elsewhere may have another working folder
        if runtime is not None and check_runtime(runtime) == AUTO:
            runtime = choose_runtime(bundle, variant)
        self.variant = select_variant(bundle, variant, runtime)
        self._threads = threads
        self._session = open_session(bundle, self.variant, runtime, threads) if session is None else session
        self._process = os.getpid()
        self.trust = load_trust(bundle)
        self.gate = read_gate(bundle)

    def __reduce__(self) -> tuple[Any, ...]:
        # A session cannot be pickled; a worker process opens and checks the bundle again.
        options = {"variant": self.variant, "runtime": self._session.runtime}
        return partial(load_model, self._place, threads=self._threads, **options), ()

    def __repr__(self) -> str:
        return f"Model({self.card.name} {self.card.version}, {self.variant}, {self.bundle.path})"

    @property
    def session(self) -> Session:
        """The network.

        Raises
        ------
        UsageError
            This process was forked from the one that opened it, and it is not in ONNX Runtime: of the threads
            that the others have none is here, and a call would wait for them for ever.
        """
        if self._process != os.getpid() and self._session.runtime != "onnxruntime":
            raise UsageError(
                f"a model in runtime '{self._session.runtime}' does not work in a forked process",
                hint="multiprocessing.get_context('spawn'), or runtime='onnxruntime'",
            )
        return self._session

    @cached_property
    def repeatability(self) -> Repeatability | None:
        """How well measurements of its outlines repeat; None for a bundle that it was not fitted for."""
        return load_repeatability(self.bundle)

    @property
    def card(self) -> ModelCard:
        """The bundle's card."""
        return self.bundle.card

    @property
    def sha256(self) -> str:
        """The hash of the model file in use."""
        return self.card.variant(self.variant).sha256

    @property
    def min_side(self) -> int:
        """JPEGs may be decoded smaller as long as both sides keep at least this many pixels.

        Twice the network's size: on 49 native ISIC images the masks then agree with those of a full
        decode to Dice 0.997 (0.984 at once the size, and 0.8 points further from the references), for
        2.4 ms more.
        """
        return 2 * max(self.card.preprocessing.height, self.card.preprocessing.width)

    def segment(
        self,
        image: Image,
        *,
        threshold: float | None = None,
        lesions: Lesions | None = None,
        tta: bool = False,
    ) -> Result:
        """Find the lesion in one image.

        Parameters
        ----------
        image
            ``uint8 (H, W, 3)`` RGB, or a path, or the bytes of an image file, or a ``LoadedImage``.
        threshold
            Instead of the card's, in (0, 1).
        lesions
            ``largest`` keeps one component; ``all`` keeps each and gives ``labels``; None does what the
            card says.
        tta
            Average over flips and quarter turns (see ``tta``): up to 8 times the time.

        Raises
        ------
        ImageError
            The image cannot be read or is not an RGB image.
        UsageError
            ``threshold`` or ``lesions`` out of range.
        """
        return self.segment_batch([image], threshold=threshold, lesions=lesions, tta=tta)[0]

    def segment_batch(
        self,
        images: Sequence[Image],
        *,
        threshold: float | None = None,
        lesions: Lesions | None = None,
        tta: bool = False,
    ) -> list[Result]:
        """``segment`` for several images with one session call (one per image with ``tta``).

        Memory grows with their number: of thousands give some dozens at a time.

        Raises
        ------
        ImageError
            One of them cannot be read or is not an RGB image; none is segmented then.
        UsageError
            ``threshold`` or ``lesions`` out of range, or one image instead of several.
        """
        if isinstance(images, _NAMED) or (isinstance(images, np.ndarray) and images.ndim == 3):
            # a text is a sequence of texts, an image one of rows
            raise UsageError("segment_batch takes a list of images, got one", hint="segment(image)")
        _check_choices(threshold, lesions)  # before the network has run
        if not len(images):
            return []
        size = self.card.preprocessing
        batch = np.empty((len(images), 3, size.height, size.width), np.float32)
        sizes, views = [], []
        for slot, image in zip(batch, images, strict=True):
            pixels, full = self._pixels(image)
            self.prepare(pixels, out=slot)
            sizes.append(full)
            views.append(self.gate_view(pixels))
        maps, features = self.look(batch, tta=tta)
        return [
            self.judge(
                self.finish(p, full, threshold=threshold, lesions=lesions),
                view,
                None if features is None else features[i],
            )
            for i, (p, full, view) in enumerate(zip(maps, sizes, views, strict=True))
        ]

    def prepare(self, pixels: NDArray[np.uint8], *, out: Floats | None = None) -> Floats:
        """The network's input ``float32 (3, h, w)`` for ``uint8 (H, W, 3)`` RGB."""
        return to_input(pixels, self.card.preprocessing, out=out)

    def infer(self, batch: Floats, *, tta: bool = False) -> Floats:
        """Probabilities of lesion ``float32 (N, h, w)`` for inputs ``float32 (N, 3, H, W)``.

        One session call, or with ``tta`` one per image, whose views are the batch.
        """
        return self.look(batch, tta=tta)[0]

    def look(self, batch: Floats, *, tta: bool = False) -> tuple[Floats, Floats | None]:
        """``infer``, and features ``float32 (N, D)`` that the gate judges by; None where there are none."""
        if tta:
            seen = [self.look(stack_views(image)) for image in batch]
            features = [f[0] for _, f in seen if f is not None]  # of the image as it is
            maps = np.stack([merge_views(p) for p, _ in seen])
            return maps, np.stack(features) if features else None
        logits, pooled = self.session.with_features(batch)
        return postprocess.to_probability(logits[:, 0], self.card.postprocessing.temperature), pooled

    def finish(
        self,
        probability: Floats,
        size: tuple[int, int],
        *,
        threshold: float | None = None,
        lesions: Lesions | None = None,
    ) -> Result:
        """From the network's map ``float32 (h, w)`` to the result at ``size = (height, width)``.

        Raises
        ------
        UsageError
            ``threshold`` or ``lesions`` out of range.
        """
        _check_choices(threshold, lesions)
        cleaned = postprocess.clean(
            probability, self.card.postprocessing, threshold=threshold, lesions=lesions
        )
        mask = postprocess.upsample_mask(cleaned, size)
        found = describe(mask, postprocess.window(cleaned, size))
        height, width = size
        judgement = None
        if self.trust is not None:
            judgement = NO_OUTLINE
            if found.area:
                features = map_features(probability, cleaned.labels > 0, cleaned.threshold)
                judgement = self.trust.dice.judge(features)
            confidence = judgement.predicted_dice
        else:
            confidence = postprocess.boundary_confidence(probability, cleaned) if found.area else 0.0
        return Result(
            mask=mask,
            status="ok" if found.area else "no_lesion",
            confidence=confidence,
            area_px=found.area,
            area_fraction=found.area / (height * width),
            width=width,
            height=height,
            bbox=found.box,
            centroid=found.centroid,
            components_removed=cleaned.removed,
            touches_border=found.touches_border,
            labels=postprocess.upsample_labels(cleaned, mask) if lesions == "all" else None,
            threshold=cleaned.threshold,
            network_probability=probability,
            judgement=judgement,
        )

    def gate_view(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The small copy of an image that ``judge`` needs; None where the bundle has no gate."""
        return None if self.gate is None else shrink(pixels, SIDE)

    def judge(self, result: Result, view: NDArray[np.uint8] | None, features: Floats | None) -> Result:
        """The result with the gate's verdict on its image; as it is where the bundle has no gate.

        Parameters
        ----------
        view
            What ``gate_view`` made of the pixels.
        features
            ``float32 (D,)`` from ``look``.
        """
        if self.gate is None or view is None:
            return result
        verdict = self.gate.judge(
            view, (result.height, result.width), result.network_probability, result.threshold, features
        )
        judged = result.judgement
        if judged is not None and judged.needs_review and self.trust is not None and result.status == "ok":
            doubt = Finding("uncertain", "review", judged.predicted_dice, self.trust.dice.review_below)
            verdict = verdict.with_findings([doubt])
        return replace(result, verdict=verdict)

    def _pixels(self, image: Image) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Pixels, perhaps decoded at reduced scale, and the full ``(height, width)`` of the image."""
        if not isinstance(image, _NAMED):
            check_image(image)
            return image, (image.shape[0], image.shape[1])
        if not isinstance(image, LoadedImage):
            source = Path(image) if isinstance(image, PathLike) else image
            image = load_image(source, min_side=self.min_side)
        return image.pixels, (image.info.height, image.info.width)


def _check_choices(threshold: float | None, lesions: Lesions | None) -> None:
    if threshold is not None and not 0.0 < threshold < 1.0:
        raise UsageError(f"threshold must lie between 0 and 1, got {threshold}")
    if lesions not in (None, "largest", "all"):
        raise UsageError(f"lesions must be 'largest' or 'all', got '{lesions}'")


def load_model(
    name_or_path: str | PathLike[str] = DEFAULT,
    *,
    variant: str | None = None,
    threads: int | None = None,
    runtime: str | None = None,
) -> Model:
    """Open a bundle, check the hash of its model and make it ready to run.

    Parameters
    ----------
    name_or_path
        The name of a bundle inside the package, or the path of a folder or zip.
    variant
        Which variant of the bundle; None takes the card's default.
    threads
        Threads inside one session call; None takes what the process may use.
    runtime
        ``onnxruntime``, ``openvino``, ``cuda`` or ``torch``; ``auto`` takes what was measured to be fastest
        here, see ``runtimes``; None takes ONNX Runtime, so that results are the same everywhere.

    Raises
    ------
    ModelError
        The bundle is missing or damaged, or its model cannot run.
    UsageError
        The runtime is unknown or not installed.
    """
    return Model(load_bundle(name_or_path), variant=variant, threads=threads, runtime=runtime)
