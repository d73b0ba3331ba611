"""A result as DICOM Segmentation. Imported where the extra [dicom] is installed."""

from __future__ import annotations

from datetime import datetime

from dermseg.apps.api.answers import model_used
from dermseg.apps.api.task import Segmented
from dermseg.dicom.identity import Origin
from dermseg.dicom.write import to_bytes, write_objects
from dermseg.errors import ImageError
from dermseg.images.dicom import read_dataset

KIND = "dicom-seg"


def segmentation_answer(found: Segmented) -> bytes:
    """The mask as a DICOM Segmentation that refers to the photograph.

    Raises
    ------
    ImageError
        The image is no DICOM file, or its header lacks what a Segmentation must name.
    """
    if found.info.format != "DICOM":
        raise ImageError("only of a DICOM image can a DICOM Segmentation be made", hint="Accept: image/png")
    image = read_dataset(found.data)
    del image.PixelData
    options = {"threshold": found.ask.threshold, "lesions": found.ask.lesions, "tta": found.ask.tta}
    origin = Origin(image, model_used(found.model).model_dump(), options, datetime.now())
    try:
        return to_bytes(write_objects(origin, found.result, [KIND])[KIND])
    except ImageError:
        raise
    except Exception as error:  # highdicom refuses headers in many ways, and may quote them
        raise ImageError("no DICOM Segmentation can be written for this header") from error
