"""``/v1/jobs``: many images in a zip, worked on when there is time, the result fetched as a zip."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from dermseg.apps.api.body import content_type, declared_size, pieces
from dermseg.apps.api.job_files import INPUT, RESULT, list_images, remove_files
from dermseg.apps.api.job_store import UNFINISHED, Job
from dermseg.apps.api.problems import Problem
from dermseg.apps.api.ranged_file import RangedFile
from dermseg.apps.api.routes_segment import ModelQuery, make_ask
from dermseg.apps.api.services import MIN_FREE_BYTES, Services
from dermseg.apps.api.zip_check import check_directory
from dermseg.errors import DermsegError
from dermseg.files import sync_folder

router = APIRouter(tags=["jobs"], prefix="/v1/jobs")
_CHECK_BYTES = 16_000_000  # of a body, after which the room on the disk is looked at again
ZIP = "application/zip"
ZIP_TYPES = (ZIP, "application/x-zip-compressed", "application/octet-stream")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ID = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$", examples=["0f8e7c6d5b4a39281706f5e4d3c2b1a0"])]


class JobQuery(ModelQuery):
    """Parameters of a job. Masks are always made; overlays and probability maps on request."""

    overlays: bool = Field(default=True, description="Also outlined pictures")
    probabilities: bool = Field(default=False, description="Also 16-bit probability maps")


class JobAnswer(BaseModel):
    """A job as it stands. Times are UTC; unknown is null."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    images: int = Field(description="In the zip")
    done: int = Field(description="Finished so far")
    ok: int
    no_lesion: int
    failed: int = Field(description="Their rows in results.csv say why")
    review: int = Field(description="Once all are done: a person should look at them, see results.csv")
    reject: int = Field(description="Once all are done: not fit for the purpose")
    problem: str | None = Field(description="Why the whole job failed")
    options: dict[str, Any]
    input_sha256: str = Field(description="Of the zip")
    created: str
    started: str | None
    finished: str | None
    result: str | None = Field(description="Where to fetch the zip, once it is done")


class JobList(BaseModel):
    """The newest jobs of the key that asks, at most 100."""

    jobs: list[JobAnswer]


@router.post(
    "",
    status_code=202,
    summary="Submit a zip of images",
    response_model=JobAnswer,
    responses={
        200: {
            "model": JobAnswer,
            "description": "The same job was submitted before with this idempotency key",
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A zip of image files; folders inside are kept in the result",
            "content": {kind: _BINARY for kind in ZIP_TYPES},
        }
    },
)
async def submit(
    request: Request,
    query: Annotated[JobQuery, Query()],
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[A-Za-z0-9._:-]{1,128}$",
            description="The same key with the same zip and parameters gives the same job, however often",
        ),
    ] = None,
) -> Response:
    """Accept a job. The answer 202 means that it is on the disk and survives a restart."""
    services: Services = request.app.state.services
    ask = make_ask(services, query)
    _check_capacity(services)
    limit = round(services.settings.max_job_mb * 1e6)
    content_type(request, ZIP_TYPES)
    _check_disk(services, declared_size(request, limit) or 0)
    save = [
        "mask",
        *(["overlay"] if query.overlays else []),
        *(["probability"] if query.probabilities else []),
    ]
    options = {
        "model": ask.model, "threshold": ask.threshold, "lesions": ask.lesions, "tta": ask.tta, "save": save
    }  # fmt: skip
    job_id = uuid.uuid4().hex
    folder = services.runner.folder / job_id
    try:
        digest = await _receive(request, folder / INPUT, limit, services)
        images = await asyncio.to_thread(_count_images, folder / INPUT, services.settings.max_job_images)
        job = Job(
            job_id,
            request.state.client.id,
            idempotency_key,
            "queued",
            options,
            digest,
            images,
            created=time.time(),
        )
        kept = await asyncio.to_thread(services.store.add, job)
    except BaseException:
        remove_files(folder)
        raise
    new = kept.id == job_id
    if new:
        services.runner.wake()
    else:
        remove_files(folder)
        if kept.state == "deleted":
            raise Problem(409, "idempotency", "this idempotency key belongs to a job that was deleted")
        if kept.input_sha256 != digest:
            raise Problem(
                409,
                "idempotency",
                "this idempotency key belongs to a job with another zip",
                hint="send the same file again; a zip that is made anew may hold other times (zip -X: none)",
            )
        if kept.options != options:
            raise Problem(409, "idempotency", "this idempotency key belongs to a job with other parameters")
    request.state.log = {"job": kept.id, "images": kept.images}
    return _answer(kept, status=202 if new else 200, headers={"Location": f"/v1/jobs/{kept.id}"})


@router.head("", include_in_schema=False)
@router.get("", summary="List jobs", response_model=JobList)
async def list_jobs(request: Request) -> Response:
    """The jobs of this key, newest first."""
    services: Services = request.app.state.services
    jobs = await asyncio.to_thread(services.store.of, request.state.client.id)
    return JSONResponse({"jobs": [_described(job) for job in jobs]})


@router.head("/{job_id}", include_in_schema=False)
@router.get("/{job_id}", summary="Look at a job", response_model=JobAnswer)
async def look(request: Request, job_id: _ID) -> Response:
    """State and progress of a job."""
    job = await _own(request, job_id)
    headers = {"Retry-After": "1"} if job.state in UNFINISHED else {}
    return _answer(job, headers=headers)


@router.delete("/{job_id}", summary="Cancel a job and remove its files", status_code=204)
async def delete(request: Request, job_id: _ID) -> Response:
    """Ends the job where it is, and removes what it has. Its audit records stay."""
    services: Services = request.app.state.services
    await asyncio.to_thread(services.runner.delete, await _own(request, job_id))
    return Response(status_code=204)


@router.head("/{job_id}/result", include_in_schema=False)
@router.get(
    "/{job_id}/result",
    summary="Fetch a job's result",
    response_class=RangedFile,
    responses={
        200: {
            "description": "masks/, overlays/, results.csv, report.html and run.json",
            "content": {ZIP: _BINARY},
        },
        206: {"description": "The part that `Range` asks for", "content": {ZIP: _BINARY}},
    },
)
async def result(request: Request, job_id: _ID) -> Response:
    """The files that `dermseg segment` would have written, as a zip."""
    services: Services = request.app.state.services
    job = await _own(request, job_id)
    path = services.runner.folder / job.id / RESULT
    if job.state in UNFINISHED:
        raise Problem(409, "unfinished", "the job is not done yet", retry_after=1)
    if job.state == "failed":
        raise Problem(410, "gone", "there is no result: the job failed", hint=job.problem)
    if not path.is_file():
        raise Problem(410, "gone", "the result was removed from the disk", hint="send the zip as a new job")
    return RangedFile(path, media_type=ZIP, filename=f"{job.id}.zip")


async def _own(request: Request, job_id: str) -> Job:
    services: Services = request.app.state.services
    job = await asyncio.to_thread(services.store.get, job_id)
    if job is None or job.state == "deleted" or job.owner != request.state.client.id:
        raise Problem(404, "not-found", "there is no such job")
    return job


def _check_capacity(services: Services) -> None:
    counts = services.store.counts()
    if sum(counts.get(state, 0) for state in UNFINISHED) >= services.settings.max_jobs:
        services.metrics.shed.labels("jobs").inc()
        raise Problem(503, "busy", "too many jobs are unfinished", retry_after=30)


def _check_disk(services: Services, size: int) -> None:
    # A job's results take up about as much as its images, and are in the folder and the zip for a moment.
    if shutil.disk_usage(services.settings.state).free < 3 * size + MIN_FREE_BYTES:
        services.metrics.shed.labels("disk").inc()
        raise Problem(507, "disk", "there is no room for the job", retry_after=300)


async def _receive(request: Request, path: Path, limit: int, services: Services) -> str:
    """Write the body to a file that is whole or not there, synced to the disk; its SHA-256.

    Raises
    ------
    Problem
        413, 408 as ``pieces``; 507: the disk is filling up, of which chunks had not told, or with other jobs.
    """
    digest = hashlib.sha256()
    temporary = path.with_name(f".{path.name}.tmp")
    await asyncio.to_thread(path.parent.mkdir, parents=True)
    unchecked = 0
    with temporary.open("xb") as file:
        async for piece in pieces(request, limit, idle_s=services.settings.body_timeout_s):
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
            unchecked += len(piece)
            if unchecked >= _CHECK_BYTES:
                unchecked = 0
                _check_disk(services, 0)
        await asyncio.to_thread(file.flush)
        await asyncio.to_thread(os.fsync, file.fileno())
    temporary.replace(path)
    for folder in (path.parent, path.parent.parent):  # the names too
        await asyncio.to_thread(sync_folder, folder)
    return digest.hexdigest()


def _count_images(path: Path, limit: int) -> int:
    """How many images the zip has.

    Raises
    ------
    Problem
        400: not a zip; 413: too many; 422: none.
    """
    try:
        check_directory(path)
        images = len(list_images(path))
    except Problem:
        raise
    except DermsegError:  # its text has the path, or the name of a member
        raise Problem(422, "zip", "there is no image in the zip") from None
    if images > limit:
        raise Problem(413, "too-many", f"{images} images are more than a job may have ({limit})")
    return images


def _described(job: Job) -> dict[str, Any]:
    done = job.ok + job.no_lesion + job.failed
    assert job.state != "deleted"
    return JobAnswer(
        id=job.id,
        state=job.state,
        images=job.images,
        done=done,
        ok=job.ok,
        no_lesion=job.no_lesion,
        failed=job.failed,
        review=job.review,
        reject=job.reject,
        problem=job.problem,
        options=job.options,
        input_sha256=job.input_sha256,
        created=_time(job.created) or "",
        started=_time(job.started),
        finished=_time(job.finished),
        result=f"/v1/jobs/{job.id}/result" if job.state == "done" else None,
    ).model_dump()


def _answer(job: Job, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(_described(job), status, headers)


def _time(seconds: float | None) -> str | None:
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )
