"""What a result looks like to a client: JSON with run lengths or polygons, a PNG mask, a JPEG overlay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from dermseg.apps.api.task import Ask, Segmented
from dermseg.data.coco import count_runs
from dermseg.images.contours import mask_to_polygons
from dermseg.images.overlay import encode_jpeg
from dermseg.inference.options import describe_model
from dermseg.inference.outputs import result_row
from dermseg.inference.pictures import draw_described, resize_mask
from dermseg.inference.predictor import Model
from dermseg.measure.geometry import measure_lesions, measure_mask
from dermseg.version import __version__

Geometry = Literal["rle", "polygons", "both", "none"]
JSON, PNG, JPEG, DICOM = "application/json", "image/png", "image/jpeg", "application/dicom"


class ModelUsed(BaseModel):
    """Which network made a mask."""

    name: str = Field(examples=["default"])
    version: str = Field(examples=["1"])
    variant: str = Field(examples=["fp32"])
    runtime: str = Field(examples=["onnxruntime"])
    sha256: str = Field(description="Of the network's file")
    card_sha256: str = Field(description="Of the card, which has threshold and post-processing")


class Rle(BaseModel):
    """Run lengths as in COCO: down the columns, beginning with background; they sum to height times width."""

    size: tuple[int, int] = Field(description="Height and width", examples=[[4, 3]])
    counts: list[int] = Field(examples=[[4, 2, 1, 2, 3]])


class Region(BaseModel):
    """One outline through the outermost pixels of a region, and its holes; x and y of pixel centres."""

    outer: list[tuple[float, float]] = Field(examples=[[[1, 0], [2, 0], [2, 1], [1, 1]]])
    holes: list[list[tuple[float, float]]] = Field(examples=[[]])


class SegmentAnswer(BaseModel):
    """The result for one image. Unknown is null. Coordinates are pixels of the upright image."""

    status: Literal["ok", "no_lesion"]
    width: int
    height: int
    format: str = Field(description="Of the file, by its content", examples=["JPEG"])
    area_px: int
    area_fraction: float
    bbox: tuple[int, int, int, int] | None = Field(description="x, y, width, height")
    centroid: tuple[float, float] | None = Field(description="x, y")
    touches_border: bool
    components_removed: int
    lesions: int = Field(description="How many are in the mask")
    threshold: float
    confidence: float
    predicted_dice: float | None
    predicted_dice_low: float | None
    predicted_dice_high: float | None
    needs_review: bool | None = Field(
        description="Whether the outline's expected Dice is at or below the model's threshold for review; "
        "nothing else goes in: the overall decision is the verdict"
    )
    verdict: str | None = Field(
        description="accept, review or reject: the overall decision whether image and outline can be used; "
        "anything but accept is for a person to check"
    )
    findings: list[dict[str, Any]] = Field(description="What the verdict rests on, with reason and remedy")
    spacing_mm: tuple[float, float] | None = Field(description="Row and column, only of calibrated files")
    reading: dict[str, Any] | None = Field(
        description="Measurements of the mask as a whole, where they were asked for"
    )
    readings: list[dict[str, Any]] | None = Field(
        description="With lesions=all, the measurements of each lesion, with its number; 1 is the largest"
    )
    notes: list[str] = Field(description="What was converted or is odd about the file")
    model: ModelUsed
    input_sha256: str
    output_sha256: str = Field(description="Of the mask as PNG")
    rle: Rle | None
    polygons: list[Region] | None
    seconds: dict[str, float] = Field(description="Time in each stage")


def json_answer(found: Segmented, *, geometry: Geometry, measure: bool) -> bytes:
    """The answer as JSON."""
    result, info = found.result, found.info
    row = result_row("", result, files={}, notes=info.notes, seconds=0.0)
    reading = readings = None
    if measure:
        reading = measure_mask(result.mask, info.spacing_mm).as_dict()
        if result.labels is not None:
            each = measure_lesions(result.labels, info.spacing_mm)
            readings = [{"lesion": number, **one.as_dict()} for number, one in each.items()]
    answer = SegmentAnswer(
        status=result.status,
        width=result.width,
        height=result.height,
        format=info.format,
        area_px=result.area_px,
        area_fraction=row.area_fraction or 0.0,
        bbox=result.bbox,
        centroid=None if row.centroid_x is None else (row.centroid_x, row.centroid_y or 0.0),
        touches_border=result.touches_border,
        components_removed=result.components_removed,
        lesions=row.lesions or 0,
        threshold=result.threshold,
        confidence=row.confidence or 0.0,
        predicted_dice=row.predicted_dice,
        predicted_dice_low=row.predicted_dice_low,
        predicted_dice_high=row.predicted_dice_high,
        needs_review=row.needs_review,
        verdict=row.verdict,
        findings=[finding.as_dict() for finding in result.verdict.findings] if result.verdict else [],
        spacing_mm=info.spacing_mm,
        reading=reading,
        readings=readings,
        notes=list(info.notes),
        model=model_used(found.model),
        input_sha256=found.input_sha256,
        output_sha256=found.output_sha256,
        rle=encode_rle(result.mask) if geometry in ("rle", "both") else None,
        polygons=_regions(result.mask) if geometry in ("polygons", "both") else None,
        seconds={stage: round(seconds, 4) for stage, seconds in found.seconds.items()},
    )
    return answer.model_dump_json().encode()


def mask_answer(found: Segmented) -> bytes:
    """The mask as 8-bit grey PNG, the file that ``dermseg segment`` writes."""
    return found.mask_png


def overlay_answer(found: Segmented) -> bytes:
    """The outline on the picture as JPEG, the file that ``dermseg segment`` writes."""
    assert found.picture is not None
    mask = resize_mask(found.result.mask, found.picture.shape[:2])
    return encode_jpeg(draw_described(found.picture, mask, found.result, found.model))


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """A mask ``bool (H, W)`` as run lengths."""
    return Rle(size=(mask.shape[0], mask.shape[1]), counts=count_runs(mask))


def _regions(mask: NDArray[np.bool_]) -> list[Region]:
    return [
        Region(outer=polygon.outer.tolist(), holes=[hole.tolist() for hole in polygon.holes])
        for polygon in mask_to_polygons(mask)
    ]


@lru_cache(maxsize=16)
def model_used(model: Model) -> ModelUsed:
    """Name, version and hashes of a model."""
    return ModelUsed(**describe_model(model))


@lru_cache(maxsize=1024)
def config_sha256(model: Model, ask: Ask) -> str:
    """Hash of everything but the network's file and the image that shapes a mask."""
    described = model_used(model).model_dump(exclude={"sha256"})
    options = {"threshold": ask.threshold, "lesions": ask.lesions, "tta": ask.tta}
    text = json.dumps({"dermseg": __version__, "model": described, "options": options}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def negotiate(accept: str, offered: Sequence[str]) -> str | None:
    """The offered media type that an ``Accept`` header likes best (RFC 9110, 12.5.1); None if none."""
    best: tuple[float, int, int] | None = None
    chosen = None
    for position, media in enumerate(offered):
        match: tuple[int, float] | None = None  # the most specific range decides its quality
        for part in accept.lower().split(","):
            kind, *parameters = (piece.strip() for piece in part.split(";"))
            specific = {media: 2, f"{media.partition('/')[0]}/*": 1, "*/*": 0}.get(kind)
            if specific is not None and (match is None or specific > match[0]):
                match = specific, _quality(parameters)
        if match is not None and match[1] > 0:
            rank = match[1], match[0], -position
            if best is None or rank > best:
                best, chosen = rank, media
    return chosen


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
