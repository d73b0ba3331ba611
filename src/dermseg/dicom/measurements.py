"""The readings as a TID 1500 Measurement Report (PS3.16 TID 1500, 1410, 1501; stored as Comprehensive SR).

Decisions
---------
- Millimetres only where the photograph is calibrated; else lengths and areas are in pixels, and say so.
- Each outline is the segment of the segmentation that is stored with the report (``dicom-seg``).
- Codes come from SNOMED CT, DCM and UCUM. What these do not have (share of the image, confidence, expected
  Dice) is in the private scheme 99DERMSEG, which the report identifies.
- Whether a person should check is the overall decision: the gate's verdict on image and outline where the
  model has a gate, else the outline's expected Dice alone. Verdict and reasons stand beside it as text.
- The report is neither complete nor verified: a person has to look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dermseg.dicom.identity import Origin, derive_uid, equipment, parameters
from dermseg.dicom.segmentation import SERIES_NUMBERS
from dermseg.dicom.source import frame_numbers, put_back, reference
from dermseg.images.dicom import MANUFACTURER
from dermseg.inference.result import Result
from dermseg.measure.geometry import Reading

SCHEME = "99DERMSEG"
_PIXEL, _PIXELS = Code("{pixel}", "UCUM", "pixels"), Code("{pixels2}", "UCUM", "pixels (area)")
_AREA_SHARE = Code("AREA_SHARE", SCHEME, "Share of the image's area")
_CIRCULARITY = Code("CIRCULARITY", SCHEME, "Circularity, 4 pi area / perimeter squared")
_CONFIDENCE = Code("CONFIDENCE", SCHEME, "Confidence in the outline")
_DICE = Code("EXPECTED_DICE", SCHEME, "Expected Dice coefficient of the outline")
_REVIEW = Code("REVIEW", SCHEME, "A person should check the outline")
_VERDICT = Code("VERDICT", SCHEME, "Whether image and outline can be used")
_REASON = Code("REASON", SCHEME, "Reason of the verdict")


def write_report(
    origin: Origin, result: Result, readings: Sequence[Reading], segmentation: Dataset
) -> Dataset:
    """A measurement report about one photograph.

    Parameters
    ----------
    origin
        Image, model and moment.
    result
        Of the model.
    readings
        One per lesion, the largest first; empty where none was found.
    segmentation
        The binary segmentation whose segments are the outlines.
    """
    groups: list[Any] = [
        _lesion(origin, result, reading, segmentation, number)
        for number, reading in enumerate(readings, start=1)
    ] or [_nothing(origin, result)]
    for group in groups:
        _add_verdict(group, result)
    device = DeviceObserverIdentifyingAttributes(
        uid=derive_uid("device", str(origin.model["sha256"])),
        name="dermseg",
        manufacturer_name=MANUFACTURER,
        model_name=f"{origin.model['name']} {origin.model['version']}",
    )
    source = reference(origin.image)
    report = MeasurementReport(
        ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        procedure_reported=_procedure(origin),
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    made = ComprehensiveSR(
        [source, segmentation],
        report,
        series_instance_uid=origin.series_uid("dicom-sr"),
        series_number=SERIES_NUMBERS["dicom-sr"],
        sop_instance_uid=origin.uid("dicom-sr"),
        instance_number=origin.instance_number,
        is_complete=False,
        is_final=False,
        is_verified=False,
        series_description="dermseg measurements",
        coding_schemes=[
            CodingSchemeIdentificationItem(
                SCHEME, name="dermseg codes", responsible_organization=MANUFACTURER
            )
        ],
        **equipment(origin),
    )
    put_back(made, origin)
    return made


def _procedure(origin: Origin) -> Code:
    dermoscopic = str(origin.image.SOPClassUID) == "1.2.840.10008.5.1.4.1.1.77.1.7"
    return codes.SCT.DermoscopicPhotography if dermoscopic else Code("72170-4", "LN", "Photographic image")


def _tracking(origin: Origin, number: int) -> TrackingIdentifier:
    return TrackingIdentifier(uid=origin.tracking_uid(number), identifier=f"Lesion {number}")


def _algorithm(origin: Origin) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=str(origin.model["name"]),
        version=str(origin.model["version"]),
        parameters=[f"{key}={value}" for key, value in parameters(origin).items()],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )


def _lesion(
    origin: Origin, result: Result, reading: Reading, segmentation: Dataset, number: int
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    image = origin.image
    # Not ReferencedSegmentationFrame.from_segmentation: in highdicom 0.28 it fails for a single segment.
    segment = ReferencedSegmentationFrame(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        frame_number=number,
        segment_number=number,
        source_image=SourceImageForSegmentation(
            image.SOPClassUID, image.SOPInstanceUID, frame_numbers(image)
        ),
    )
    # The frame alone says which segment it is, and must then stand alone (PS3.3 table 10-3).
    del segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
    measurements = _geometry(reading)
    if number == 1:  # the estimates are about the mask as a whole
        measurements += _estimates(result)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        _tracking(origin, number),
        referenced_segment=segment,
        finding_type=CodedConcept.from_code(codes.SCT.SkinLesion),
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        algorithm_id=_algorithm(origin),
        finding_sites=[FindingSite(codes.SCT.Skin)],
        measurements=measurements,
        qualitative_evaluations=_evaluations(result, found=True),
    )


def _nothing(origin: Origin, result: Result) -> MeasurementsAndQualitativeEvaluations:
    image = origin.image
    return MeasurementsAndQualitativeEvaluations(
        _tracking(origin, 1),
        finding_type=codes.SCT.SkinLesion,
        algorithm_id=_algorithm(origin),
        finding_sites=[FindingSite(codes.SCT.Skin)],
        qualitative_evaluations=_evaluations(result, found=False),
        source_images=[
            SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID, frame_numbers(image))
        ],
    )


def _geometry(reading: Reading) -> list[Measurement]:
    calibrated = reading.spacing_mm is not None
    length, area = (codes.UCUM.Millimeter, codes.UCUM.SquareMillimeter) if calibrated else (_PIXEL, _PIXELS)
    values = (
        (codes.SCT.Area, reading.area_mm2 if calibrated else reading.area_px, area),
        (codes.SCT.Perimeter, reading.perimeter_mm if calibrated else reading.perimeter_px, length),
        (codes.SCT.LongAxis, reading.feret_max_mm if calibrated else reading.feret_max_px, length),
        (codes.SCT.Width, reading.feret_min_mm if calibrated else reading.feret_min_px, length),
        (_AREA_SHARE, 100 * reading.area_fraction, codes.UCUM.Percent),
        (_CIRCULARITY, reading.circularity, codes.UCUM.NoUnits),
    )
    return [Measurement(name, _number(value), unit) for name, value, unit in values if value is not None]


def _estimates(result: Result) -> list[Measurement]:
    found = [Measurement(_CONFIDENCE, _number(result.confidence), codes.UCUM.NoUnits)]
    if result.judgement is not None:
        found.append(Measurement(_DICE, _number(result.judgement.predicted_dice), codes.UCUM.NoUnits))
    return found


def _evaluations(result: Result, *, found: bool) -> list[QualitativeEvaluation]:
    evaluations = [
        QualitativeEvaluation(codes.SCT.SkinLesion, codes.SCT.Present if found else codes.SCT.Absent)
    ]
    review = _should_be_checked(result)
    if review is not None:
        evaluations.append(QualitativeEvaluation(_REVIEW, codes.SCT.Yes if review else codes.SCT.No))
    return evaluations


def _should_be_checked(result: Result) -> bool | None:
    """Whether a person should look; None for a model that was fitted to say neither."""
    if result.verdict is not None:
        return result.verdict.level != "accept"
    return None if result.judgement is None else result.judgement.needs_review


def _add_verdict(group: Any, result: Result) -> None:
    """Verdict and reasons at the end of a group, as evaluations that are text (TID 1501)."""
    if result.verdict is not None:
        texts = [(_VERDICT, result.verdict.level), *((_REASON, text) for text in result.verdict.reasons)]
        group[0].ContentSequence.extend(
            TextContentItem(name, text, RelationshipTypeValues.CONTAINS) for name, text in texts
        )


def _number(value: float) -> float:
    """At most six significant digits: more than a mask holds, and short enough for a decimal string."""
    return float(f"{value:.6g}")
