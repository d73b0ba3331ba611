"""The picture with its outline as a Secondary Capture in the same study, for viewers that show only these."""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit

from dermseg.dicom.identity import Origin, equipment
from dermseg.dicom.segmentation import SERIES_NUMBERS
from dermseg.dicom.source import put_back, reference


def write_capture(origin: Origin, overlay: NDArray[np.uint8]) -> Dataset:
    """A Secondary Capture image, JPEG, of the drawn `overlay` ``uint8 (h, w, 3)`` RGB.

    It may be smaller than the photograph; then it has no spacing of its own that holds, so none is written.
    """
    image = origin.image
    made = SCImage.from_ref_dataset(
        reference(image),
        overlay,
        photometric_interpretation="YBR_FULL_422",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_instance_uid=origin.series_uid("dicom-sc"),
        series_number=SERIES_NUMBERS["dicom-sc"],
        sop_instance_uid=origin.uid("dicom-sc"),
        instance_number=origin.instance_number,
        transfer_syntax_uid=JPEGBaseline8Bit,
        series_description="dermseg overlay",
        **equipment(origin),
    )
    side = str(image.get("Laterality") or "")[:1].upper()
    values: dict[str, Any] = {
        "PatientOrientation": image.get("PatientOrientation") or None,
        "Laterality": side if side in ("L", "R") else None,
    }
    for name, value in values.items():
        setattr(made, name, value)
    made.ImageType = ["DERIVED", "SECONDARY", "OVERLAY"]
    made.DerivationDescription = "Outline drawn by software; reduced in size; not for diagnosis"
    source = Dataset()
    source.ReferencedSOPClassUID = image.SOPClassUID
    source.ReferencedSOPInstanceUID = image.SOPInstanceUID
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    source.PurposeOfReferenceCodeSequence = [purpose]
    made.SourceImageSequence = [source]
    made.LossyImageCompression = "01"
    made.LossyImageCompressionMethod = "ISO_10918_1"
    burned_in = str(image.get("BurnedInAnnotation") or "")
    if burned_in in ("YES", "NO"):  # the outline adds no identity, and takes none away
        made.BurnedInAnnotation = burned_in
    put_back(made, origin)
    return made
