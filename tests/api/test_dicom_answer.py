"""A DICOM image in, a DICOM Segmentation out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra [api]")
pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")
highdicom = pytest.importorskip("highdicom", reason="needs the extra [dicom]")


def photograph() -> bytes:
    """A VL Photographic Image of a dark square, 0.05 mm a pixel."""
    generate_uid = pydicom.uid.generate_uid
    pixels = np.full((80, 100, 3), 200, np.uint8)
    pixels[20:60, 30:70] = 40
    image = pydicom.Dataset()
    image.SOPClassUID, image.SOPInstanceUID = pydicom.uid.VLPhotographicImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "A^B", "1", "", ""
    image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "20260101", "120000", "1", ""
    image.ReferringPhysicianName, image.Manufacturer, image.Modality = "", "", "XC"
    image.SeriesNumber, image.InstanceNumber = 1, 1
    image.Rows, image.Columns, image.SamplesPerPixel, image.PlanarConfiguration = 80, 100, 3, 0
    image.PhotometricInterpretation, image.PixelRepresentation = "RGB", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelSpacing = [0.05, 0.05]
    image.PixelData = pixels.tobytes()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, image, enforce_file_format=True)
    return buffer.getvalue()


def test_the_segmentation_has_the_mask_and_names_its_image(client: Any) -> None:
    data = photograph()
    answer = client.post(
        "/v1/segment?measure=true", content=data, headers={"Content-Type": "application/dicom"}
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["format"] == "DICOM" and found["spacing_mm"] == [0.05, 0.05]
    assert found["reading"]["area_mm2"] == pytest.approx(found["area_px"] * 0.05**2)
    made = client.post("/v1/segment", content=data, headers={"Accept": "application/dicom"})
    assert made.status_code == 200 and made.headers["content-type"] == "application/dicom"
    segmentation = highdicom.seg.segread(io.BytesIO(made.content))
    assert int(segmentation.pixel_array.sum()) == found["area_px"]
    assert segmentation.StudyInstanceUID == pydicom.dcmread(io.BytesIO(data)).StudyInstanceUID


def test_of_other_images_there_is_none(client: Any, encoded: Any) -> None:
    answer = client.post("/v1/segment", content=encoded(), headers={"Accept": "application/dicom"})
    assert answer.status_code == 422 and "DICOM" in answer.json()["detail"]
