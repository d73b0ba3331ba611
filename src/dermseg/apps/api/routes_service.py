"""Around the work: is the server well, what does it have, what did it count, what did people decide."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from dermseg.apps.api import metrics
from dermseg.apps.api.answers import ModelUsed, model_used
from dermseg.apps.api.problems import Problem
from dermseg.apps.api.services import Services
from dermseg.audit import Entry
from dermseg.version import __version__

# What answers GET answers HEAD too (RFC 9110, 9.1).
public = APIRouter(tags=["service"])
router = APIRouter(tags=["service"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str = Field(examples=["0.1.0"])


class Ready(BaseModel):
    """The server takes images."""

    ready: Literal[True] = True


class ModelEntry(ModelUsed):
    """A model of this server."""

    summary: str
    licence: str
    default: bool


class ModelList(BaseModel):
    """The models of this server, the default one first."""

    models: list[ModelEntry]


class AuditHead(BaseModel):
    """The last record of the audit log. Noted elsewhere, it shows later that nothing was removed."""

    seq: int
    hash: str


class Override(BaseModel):
    """What a person decided about a result."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"decision": "accepted"}]})

    decision: Literal["accepted", "rejected", "replaced"]
    output_sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="Of the mask that replaces it, as PNG"
    )


@public.head("/health", include_in_schema=False)
@public.get("/health", summary="Is the process alive", response_model=Health)
async def health() -> Health:
    """Answers as long as the process runs. For a container's health check; needs no key."""
    return Health(version=__version__)


@public.head("/ready", include_in_schema=False)  # some load balancers ask for no body
@public.get("/ready", summary="Does the server take images", response_model=Ready)
async def ready(request: Request) -> Ready:
    """503 while it cannot: stopping, disk full or read-only, log gone. For a load balancer; needs no key."""
    services: Services = request.app.state.services
    obstacles = await asyncio.to_thread(services.obstacles)
    if obstacles:
        raise Problem(503, "not-ready", "; ".join(obstacles), retry_after=5)
    return Ready()


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {metrics.MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def read_metrics(request: Request) -> Response:
    """In Prometheus' text format. Prometheus sends the key with `authorization: credentials_file`."""
    services: Services = request.app.state.services
    counts = await asyncio.to_thread(services.store.counts)
    for state in ("queued", "running", "done", "failed", "deleted"):
        services.metrics.jobs.labels(state).set(counts.get(state, 0))
    return Response(services.metrics.text(), headers={"Content-Type": metrics.MEDIA_TYPE})


@router.head("/v1/models", include_in_schema=False)
@router.get("/v1/models", summary="List the models", response_model=ModelList)
async def list_models(request: Request) -> ModelList:
    """What this server can segment with."""
    services: Services = request.app.state.services
    return ModelList(
        models=[
            ModelEntry(
                **model_used(model).model_dump(),
                summary=model.card.summary,
                licence=model.card.licence,
                default=number == 0,
            )
            for number, model in enumerate(services.engine.models.values())
        ]
    )


@router.head("/v1/models/{name}", include_in_schema=False)
@router.get("/v1/models/{name}", summary="Read a model's card", response_model=dict[str, Any])
async def card(request: Request, name: Annotated[str, Path(max_length=128)]) -> Response:
    """Everything known about a model: use, limits, training data, licence, measured accuracy."""
    services: Services = request.app.state.services
    model = services.engine.models.get(name)
    if model is None:
        raise Problem(404, "model", "this server has no such model")
    return JSONResponse(model.card.model_dump(mode="json"))


@router.head("/v1/audit", include_in_schema=False)
@router.get("/v1/audit", summary="Read the head of the audit log", response_model=AuditHead)
async def audit_head(request: Request) -> AuditHead:
    """For a system that notes it at times: `dermseg audit verify --expect SEQ:HASH` checks against it."""
    last = request.app.state.services.auditor.log.last
    return AuditHead(seq=last.seq, hash=last.hash)


@router.post(
    "/v1/audit/{seq}/override", summary="Record a decision", status_code=201, response_model=AuditHead
)
async def override(
    request: Request, seq: Annotated[int, Path(ge=1, le=2**53)], decision: Override
) -> AuditHead:
    """Record that a person confirmed, rejected or replaced a result. Number `seq` is in `Audit-Record`."""
    services: Services = request.app.state.services
    record = await asyncio.to_thread(services.auditor.log.get, seq)
    if record is None or record["event"] != "result":
        raise Problem(404, "not-found", "there is no result with this number")
    receipt = await services.auditor.record(
        Entry(
            "override",
            request.state.client.id,
            f"seq/{seq}",
            input_sha256=record["input_sha256"],
            output_sha256=decision.output_sha256,
            verdict=record["verdict"],
            override=decision.decision,
        )
    )
    return AuditHead(seq=receipt.seq, hash=receipt.hash)
