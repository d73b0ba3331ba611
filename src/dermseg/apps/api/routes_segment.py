"""``POST /v1/segment``: one image in, its lesion out, in the form that ``Accept`` asks for."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from dermseg.apps.api import answers
from dermseg.apps.api.answers import Geometry, SegmentAnswer, config_sha256, negotiate
from dermseg.apps.api.body import (
    FIELD,
    MULTIPART,
    RAW_TYPES,
    content_type,
    declared_size,
    image_part,
    read_body,
)
from dermseg.apps.api.keys import Client
from dermseg.apps.api.problems import Problem
from dermseg.apps.api.services import Services
from dermseg.apps.api.task import Ask, Render, Segmented
from dermseg.audit import Entry, Receipt, verdict_of
from dermseg.inference.postprocess import Lesions
from dermseg.schema import Strict

router = APIRouter(tags=["images"])
_DICOM = all(find_spec(name) for name in ("pydicom", "highdicom"))
OFFERED = (answers.JSON, answers.PNG, answers.JPEG, *((answers.DICOM,) if _DICOM else ()))


class ModelQuery(Strict):
    """What shapes a mask. Unknown parameters are refused."""

    model: str | None = Field(
        default=None, max_length=128, description="One of the server's models; its first where none is named"
    )
    threshold: float | None = Field(
        default=None, gt=0, lt=1, description="Lesion is where the probability is at least this"
    )
    lesions: Lesions = Field(default="largest", description="Keep the largest lesion, or all of them")
    tta: bool = Field(default=False, description="Average over flips and turns: 8 times the network time")


class SegmentQuery(ModelQuery):
    """Parameters of a request for one image."""

    geometry: Geometry = Field(default="rle", description="How JSON carries the mask")
    measure: bool = Field(default=False, description="Also measure: area, perimeter, diameters")


_RAW: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": [FIELD],
        "additionalProperties": False,
        "properties": {FIELD: {"type": "string", "format": "binary"}},
    }
}
_RECEIPT = {
    "Audit-Record": {
        "description": "Number and hash of the audit record: note it to prove later that none was removed",
        "schema": {"type": "string", "pattern": "^[0-9]+:[0-9a-f]{64}$"},
    }
}


@router.post(
    "/v1/segment",
    summary="Find the lesion in one image",
    response_class=Response,
    responses={
        200: {
            "description": "By `Accept`: JSON, the mask as PNG, the outlined picture as JPEG, "
            "or of a DICOM image a DICOM Segmentation",
            "model": SegmentAnswer,
            "headers": _RECEIPT,
            "content": {kind: _RAW for kind in OFFERED if kind != answers.JSON},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The bytes of an image file, or a form with the file in the field `image`",
            "content": {**{kind: _RAW for kind in RAW_TYPES}, MULTIPART: _FORM},
        }
    },
)
async def segment(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
    """Send an image, get its lesion. The mask is the one that `dermseg segment` writes, byte for byte."""
    services: Services = request.app.state.services
    client: Client = request.state.client
    accepts = request.headers.getlist("accept")  # lines of one name are one list (RFC 9110, 5.3)
    media = negotiate(",".join(accepts) if accepts else "*/*", OFFERED)
    if media is None:
        raise Problem(406, "accept", "the answer cannot have this form", hint=f"Accept: {', '.join(OFFERED)}")
    kind = content_type(request, (*RAW_TYPES, MULTIPART))
    limit = body_limit(services, client)
    size = declared_size(request, limit)
    ask = make_ask(services, query, picture=media == answers.JPEG)
    services.engine.check_room()
    with services.budget.hold(limit if size is None else size):
        body = await read_body(request, limit, timeout_s=services.settings.body_timeout_s)
        data = image_part(body, kind) if kind.get_content_type() == MULTIPART else body
        del body
        work = services.engine.segment(data, ask, _renderer(media, query))
        found, answer = await _unless_gone(request, work)
    receipt = await services.auditor.record(_entry(request, found, ask))
    log: dict[str, Any] = {"bytes": len(data), "pixels": found.info.width * found.info.height}
    log |= {f"{stage}_ms": round(1000 * seconds, 1) for stage, seconds in found.seconds.items()}
    request.state.log = {**log, "audit": f"{receipt.seq}:{receipt.hash}"}
    return Response(answer, media_type=media, headers=_headers(found, receipt))


def make_ask(services: Services, query: ModelQuery, *, picture: bool = False) -> Ask:
    """The query as the engine takes it.

    Raises
    ------
    Problem
        404: the server has no such model.
    """
    names = list(services.engine.models)
    name = names[0] if query.model is None else query.model
    if name not in services.engine.models:
        raise Problem(404, "model", "this server has no such model", hint=f"it has {', '.join(names)}")
    return Ask(name, query.threshold, query.lesions, query.tta, picture)


def body_limit(services: Services, client: Client) -> int:
    """Bytes that the client may send for one image."""
    own = client.max_body_mb
    return services.settings.max_body if own is None else min(services.settings.max_body, round(own * 1e6))


def _renderer(media: str, query: SegmentQuery) -> Render:
    if media == answers.PNG:
        return answers.mask_answer
    if media == answers.JPEG:
        return answers.overlay_answer
    if media == answers.DICOM:
        from dermseg.apps.api.answers_dicom import segmentation_answer

        return segmentation_answer
    return partial(answers.json_answer, geometry=query.geometry, measure=query.measure)


async def _unless_gone(request: Request, work: Any) -> tuple[Segmented, bytes]:
    """The engine's answer; an image whose client hangs up while it waits is not worked on."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        result: tuple[Segmented, bytes] = working.result()
        return result
    finally:
        for task in (working, gone):
            task.cancel()


def _entry(request: Request, found: Segmented, ask: Ask) -> Entry:
    verdict, judged = found.result.verdict, found.result.judgement
    return Entry(
        "result",
        request.state.client.id,
        f"request/{request.state.request_id}",
        found.input_sha256,
        found.model.sha256,
        config_sha256(found.model, ask),
        found.output_sha256,
        verdict_of(
            found.result.status,
            None if verdict is None else verdict.level,
            None if judged is None else judged.needs_review,
        ),
    )


def _headers(found: Segmented, receipt: Receipt) -> dict[str, str]:
    return {
        "Audit-Record": f"{receipt.seq}:{receipt.hash}",
        "Dermseg-Status": found.result.status,
        "Dermseg-Confidence": f"{found.result.confidence:.4f}",
        "Vary": "Accept",
    }
