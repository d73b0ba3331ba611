"""What happens to one image of a batch: decode, network, post-processing, encoding and writing.

Decisions
---------
- JPEGs are decoded at the scale the model asks for, whatever is saved, so that masks depend neither on
  ``--save`` nor on whether the command or the Python interface made them. Overlays are for the screen:
  they are drawn on these pixels (1072 x 712 for 12 megapixels), or on ones decoded again where these are
  too few to look at, at most 1800 wide or high. Masks always have the input's own size.
- Whatever goes wrong with one image, running out of memory included, becomes its row. Only a disk that
  cannot be written to ends the batch: every further image would fail for the same reason.
- Files of an image that fails half way are taken away again, so that a file on disk means a done image.
"""

from __future__ import annotations

import base64
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DermsegError, ImageError
from dermseg.files import atomic_write
from dermseg.images.load import LoadedImage, load_image, load_view
from dermseg.images.masks import encode, encode_mask
from dermseg.images.overlay import draw_overlay, encode_jpeg
from dermseg.images.resize import shrink
from dermseg.images.sources import ImageSource
from dermseg.inference.journal import RESUME_HINT, Entry
from dermseg.inference.outputs import DICOM_KINDS, ENCODED_KINDS, MAPS, MARGINS, failed_row, result_row
from dermseg.inference.pictures import (
    OVERLAY_SIDE,
    THUMBNAIL_QUALITY,
    THUMBNAIL_SIDE,
    draw_described,
    encode_probability,
    encode_uncertainty,
    resize_mask,
    thumbnail_of,
)
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result
from dermseg.uncertainty.margins import Margins, draw_margins
from dermseg.uncertainty.opinions import Opinions

if TYPE_CHECKING:
    from dermseg.inference.options import BatchOptions

STAGES = ("decode", "network", "postprocess", "write")
# Pictures above this are decoded one at a time: a worker needs up to 8 bytes a pixel.
BIG_PIXELS = 40_000_000
# Of errors that end a batch: the next image would meet them too.
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM})
_log = logging.getLogger(__name__)

Job = tuple[ImageSource, dict[str, str]]  # an image, and kind -> path of what is written for it
# Source, result, picture with outline, kind -> path of what is wanted; gives the content of each kind that it
# makes: LabelMe files, or DICOM files of DICOM inputs. The rooms that know these formats lie above this one.
Encoder = Callable[[ImageSource, Result, NDArray[np.uint8] | None, Mapping[str, str]], dict[str, bytes]]


class OutputError(DermsegError):
    """The output folder cannot be written to; the batch ends and can be resumed."""


class Segmenter:
    """From a source to its files and its row, for one model, one set of options and one output folder.

    Thread-safe. Call it with an `ImageSource` and the files to write (kind -> path relative to ``out``).
    """

    def __init__(
        self,
        model: Model,
        out: Path,
        options: BatchOptions,
        *,
        opinions: Opinions | None,
        encoders: Sequence[Encoder],
    ) -> None:
        self.model = model
        self.out = out
        self.options = options
        self.opinions = opinions
        self.encoders = encoders
        self._max_pixels = round(options.max_megapixels * 1e6)
        self._overlays = "overlay" in options.save or "dicom-sc" in options.save
        self._big = threading.Lock()

    def __call__(self, job: Job) -> Entry:
        """Segment one image and write its files; what goes wrong becomes its row.

        Raises
        ------
        OutputError
            The disk is full or cannot be written to.
        """
        source, files = job
        stages: dict[str, float] = {}
        written: list[Path] = []
        try:
            return self._segment(source, files, stages, written)
        except OutputError:
            raise
        except Exception as error:
            _log.debug("%s failed", source.name, exc_info=True)
            for path in written:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            row = failed_row(source.name, reason_of(error), seconds=sum(stages.values()))
            return Entry(row, (), stages)

    def _segment(
        self, source: ImageSource, files: dict[str, str], stages: dict[str, float], written: list[Path]
    ) -> Entry:
        with timed(stages, "decode"):
            loaded = self._load(source)
            info = loaded.info
            network_input = self.model.prepare(loaded.pixels)
            gate_view = self.model.gate_view(loaded.pixels)
            # what overlay and thumbnail are drawn on
            if self._overlays:
                seen = load_view(
                    source,
                    loaded,
                    max_pixels=self._max_pixels,
                    allow_truncated=self.options.allow_truncated,
                )
            elif gate_view is not None and max(gate_view.shape) >= THUMBNAIL_SIDE:
                seen = gate_view
            else:
                seen = loaded.pixels
            pixels = shrink(seen, OVERLAY_SIDE) if self._overlays else thumbnail_of(seen)
            del loaded, seen
        with timed(stages, "network"):
            (probability,), features = self.model.look(network_input[None], tta=self.options.tta)
            maps = None if self.opinions is None else self.opinions(network_input)
        size = (info.height, info.width)
        with self._big if size[0] * size[1] > BIG_PIXELS else nullcontext():
            with timed(stages, "postprocess"):
                result = self.model.finish(
                    probability, size, threshold=self.options.threshold, lesions=self.options.lesions
                )
                result = self.model.judge(result, gate_view, None if features is None else features[0])
                margins = None
                level = self.options.margin
                if maps is not None and self.model.trust is not None and level is not None:
                    margins = draw_margins(result.mask, self.model.trust, level, spacing_mm=info.spacing_mm)
            with timed(stages, "write"):
                view_mask = resize_mask(result.mask, pixels.shape[:2])
                made, notes = self._call_encoders(source, result, pixels, view_mask, files)
                files = {k: name for k, name in files.items() if k not in ENCODED_KINDS or k in made}
                for kind, name in files.items():
                    data = made.get(kind) or (
                        encode_uncertainty(kind, size, maps, margins)
                        if kind in (*MAPS, *MARGINS)
                        else self._encode(kind, result, pixels, view_mask, margins)
                    )
                    written.append(self.out / name)
                    self._write(self.out / name, data)
                small = thumbnail_of(pixels)
                outlined = draw_overlay(small, resize_mask(view_mask, small.shape[:2]))
                thumbnail = encode_jpeg(outlined, THUMBNAIL_QUALITY)
        seconds = sum(stages.values())
        row = result_row(
            source.name, result, files=files, notes=(*info.notes, *notes), seconds=seconds, margins=margins
        )
        return Entry(row, tuple(files.values()), stages, base64.b64encode(thumbnail).decode())

    def _load(self, source: ImageSource) -> LoadedImage:
        def load(limit: int) -> LoadedImage:
            return load_image(
                source,
                min_side=self.model.min_side,
                max_pixels=limit,
                allow_truncated=self.options.allow_truncated,
            )

        if self._max_pixels <= BIG_PIXELS:
            return load(self._max_pixels)
        try:
            return load(BIG_PIXELS)
        except ImageError:  # too large for side by side, or damaged: the second try tells
            with self._big:
                return load(self._max_pixels)

    def _encode(
        self,
        kind: str,
        result: Result,
        pixels: NDArray[np.uint8],
        view_mask: NDArray[np.bool_],
        margins: Margins | None,
    ) -> bytes:
        if kind == "mask":
            return encode_mask(result.mask)
        if kind == "overlay":
            return encode_jpeg(draw_described(pixels, view_mask, result, self.model, margins))
        if kind == "labels":
            assert result.labels is not None
            return encode(".png", result.labels, [])
        return encode_probability(result.probability)

    def _call_encoders(
        self,
        source: ImageSource,
        result: Result,
        pixels: NDArray[np.uint8],
        view_mask: NDArray[np.bool_],
        files: dict[str, str],
    ) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """LabelMe and DICOM files, and a remark where there can be no DICOM; masks come all the same."""
        wanted = {kind: name for kind, name in files.items() if kind in ENCODED_KINDS}
        overlay = None
        if "dicom-sc" in wanted:
            overlay = draw_described(pixels, view_mask, result, self.model)
        made: dict[str, bytes] = {}
        notes: list[str] = []
        for encoder in self.encoders if wanted else ():  # `open_segmenter` has seen to it that there are some
            try:
                made |= encoder(source, result, overlay, wanted)
            except ImageError as error:
                notes.append(reason_of(error))
        dicom = set(DICOM_KINDS)
        if not notes and wanted.keys() & dicom and not made.keys() & dicom:
            notes.append("not DICOM, so there are no DICOM results")
        return made, tuple(notes)

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        try:
            atomic_write(path, data)
        except DermsegError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in FULL_DISK:
                raise
            raise OutputError(error.message, file=path, hint=RESUME_HINT) from cause


@contextmanager
def timed(stages: dict[str, float], stage: str) -> Iterator[None]:
    """Note the seconds of a stage."""
    start = time.perf_counter()
    try:
        yield
    finally:
        stages[stage] = time.perf_counter() - start


def reason_of(error: Exception) -> str:
    """Why an image failed, for its row. The file's name stands in the row already."""
    if isinstance(error, DermsegError):
        return error.reason
    if isinstance(error, MemoryError):
        return "not enough memory for this image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"unexpected {type(error).__name__}: {error}"
