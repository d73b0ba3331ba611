"""Everything that is written about one photograph: from the model's result to the bytes of DICOM files.

``--save`` of ``dermseg segment``, the PACS listener and the API all come through `write_objects`.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite

from dermseg.dicom.capture import write_capture
from dermseg.dicom.identity import Origin, check_source
from dermseg.dicom.measurements import write_report
from dermseg.dicom.segmentation import write_probability, write_segmentation
from dermseg.errors import ImageError
from dermseg.images.dicom import read_dataset, spacing_of
from dermseg.images.headers import sniff
from dermseg.images.sources import ImageSource
from dermseg.inference.result import Result
from dermseg.measure.geometry import measure_mask

MAX_SEGMENT_PIXELS = 1 << 29  # each lesion takes a byte per pixel of the image while it is written


def write_objects(
    origin: Origin, result: Result, kinds: Collection[str], *, overlay: NDArray[np.uint8] | None = None
) -> dict[str, Dataset]:
    """The objects about one photograph.

    Parameters
    ----------
    origin
        Image, model and moment.
    result
        Of the model, at the image's size.
    kinds
        Of ``DICOM_KINDS``. A report (``dicom-sr``) refers to the segmentation and brings it along.
    overlay
        The picture with its outline, ``uint8 (h, w, 3)``; needed for ``dicom-sc``.

    Raises
    ------
    ImageError
        The photograph lacks an identifier that its results must name.
    """
    check_source(origin.image)
    made: dict[str, Dataset] = {}
    masks = lesion_masks(result)
    if "dicom-seg" in kinds or "dicom-sr" in kinds:
        made["dicom-seg"] = write_segmentation(origin, masks)
    if "dicom-probability" in kinds:
        made["dicom-probability"] = write_probability(origin, result.probability)
    if "dicom-sr" in kinds:
        spacing = spacing_of(origin.image)
        readings = [measure_mask(mask, spacing) for mask in masks] if result.status == "ok" else []
        made["dicom-sr"] = write_report(origin, result, readings, made["dicom-seg"])
    if "dicom-sc" in kinds:
        assert overlay is not None
        made["dicom-sc"] = write_capture(origin, overlay)
    return made


def lesion_masks(result: Result) -> NDArray[np.bool_]:
    """``bool (n, H, W)``: one mask per lesion, at least one; it is empty where nothing was found.

    Raises
    ------
    ImageError
        So many lesions in so large an image would fill the memory.
    """
    if result.labels is None or not result.labels.any():
        return result.mask[None]
    if int(result.labels.max()) * result.labels.size > MAX_SEGMENT_PIXELS:
        raise ImageError(
            f"{result.labels.max()} lesions of {result.width} x {result.height} pixels are too many segments",
            hint="--lesions largest",
        )
    numbers = np.arange(1, int(result.labels.max()) + 1, dtype=np.uint8)
    return np.asarray(result.labels[None] == numbers[:, None, None])


def to_bytes(dataset: Dataset) -> bytes:
    """The data set as a DICOM file."""
    out = io.BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


@dataclass(frozen=True)
class DicomEncoder:
    """Gives ``inference.stages.Segmenter`` the DICOM files of an image; picklable.

    Parameters
    ----------
    model
        Of ``inference.options.describe_model``.
    options
        Threshold, lesions, test-time augmentation.
    created
        Moment of the run.
    """

    model: Mapping[str, Any]
    options: Mapping[str, Any]
    created: datetime

    def __call__(
        self,
        source: ImageSource,
        result: Result,
        overlay: NDArray[np.uint8] | None,
        kinds: Collection[str],
    ) -> dict[str, bytes]:
        """The files by kind; none where the image is no DICOM file.

        Raises
        ------
        ImageError
            Its header does not allow what is asked for.
        """
        data = source.read_bytes()
        if sniff(data[:132]) != "DICOM":
            return {}
        image = read_dataset(data)
        del image.PixelData
        origin = Origin(image, self.model, self.options, self.created)
        try:
            made = write_objects(origin, result, kinds, overlay=overlay)
            return {kind: to_bytes(dataset) for kind, dataset in made.items() if kind in kinds}
        except ImageError:
            raise
        except Exception as error:  # highdicom refuses headers in many ways
            raise ImageError(f"no DICOM result can be written for this header: {error}") from error
