"""The outline as a DICOM Segmentation: binary, or fractional for the probability (PS3.3 A.51, C.8.20).

>>> seg = write_segmentation(origin, masks)            # bool (n, H, W), one per lesion
>>> seg = write_probability(origin, probability)       # float (H, W) in [0, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dermseg.dicom.identity import Origin, equipment, parameters
from dermseg.dicom.source import put_back, reference
from dermseg.images.dicom import MANUFACTURER

SERIES_NUMBERS = {"dicom-seg": 9001, "dicom-probability": 9002, "dicom-sr": 9003, "dicom-sc": 9004}
_COLOUR = (45402, 49740, 44872)  # CIELab of a light orange, as PS3.3 C.10.7.1.1 scales it


def write_segmentation(origin: Origin, masks: NDArray[np.bool_]) -> Dataset:
    """A binary segmentation.

    Parameters
    ----------
    origin
        Image, model and moment.
    masks
        ``bool (n, H, W)``: one segment per lesion, the largest first. No lesion is one empty segment.

    Returns
    -------
    Dataset
        One frame per segment, uncompressed, one bit per pixel.
    """
    pixels = np.ascontiguousarray(np.moveaxis(masks, 0, -1)[None].astype(np.uint8))
    return _write(origin, pixels, "BINARY", "dicom-seg")


def write_probability(origin: Origin, probability: NDArray[np.floating[Any]]) -> Dataset:
    """A fractional segmentation: `probability` ``(H, W)`` in 255 steps, one byte per pixel."""
    pixels = np.asarray(probability, np.float32)[None, ..., None]
    return _write(origin, np.clip(pixels, 0.0, 1.0), "FRACTIONAL", "dicom-probability")


def _write(origin: Origin, pixels: NDArray[Any], form: str, kind: str) -> Dataset:
    source = reference(origin.image)
    spacing = source.get("PixelSpacing")
    measures = None if spacing is None else PixelMeasuresSequence(list(spacing), float(source.SliceThickness))
    made = Segmentation(
        [source],
        pixels,
        form,
        _segments(origin, pixels.shape[-1]),
        series_instance_uid=origin.series_uid(kind),
        series_number=SERIES_NUMBERS[kind],
        sop_instance_uid=origin.uid(kind),
        instance_number=origin.instance_number,
        omit_empty_frames=False,
        pixel_measures=measures,
        transfer_syntax_uid=ExplicitVRLittleEndian,  # packing would save little, and pydicom's RLE is slow
        content_label="SKIN_LESION",
        content_description="Outline of the skin lesion found by software",
        series_description=f"dermseg {'outline' if form == 'BINARY' else 'probability'}",
        **equipment(origin),
    )
    if "FrameOfReferenceUID" not in source:  # without a position the orientation must be there, if empty
        made.PatientOrientation = origin.image.get("PatientOrientation") or None
    put_back(made, origin)
    return made


def _segments(origin: Origin, count: int) -> Sequence[SegmentDescription]:
    algorithm = AlgorithmIdentificationSequence(
        name=f"{origin.model['name']}"[:64],
        family=codes.cid7162.ArtificialIntelligence,
        version=f"{origin.model['version']}"[:64],
        source=MANUFACTURER,
        parameters=parameters(origin),
    )
    described = []
    for number in range(1, count + 1):
        segment = SegmentDescription(
            segment_number=number,
            segment_label="Lesion" if count == 1 else f"Lesion {number}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.SkinLesion,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=origin.tracking_uid(number),
            tracking_id=f"Lesion {number}",
            anatomic_regions=[codes.SCT.Skin],
        )
        segment.RecommendedDisplayCIELabValue = list(_COLOUR)
        described.append(segment)
    return described
