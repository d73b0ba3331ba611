"""The application: routes, the gate around them, and an OpenAPI description that says what really happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from starlette.middleware.cors import CORSMiddleware

from dermseg.apps.api import problems, routes_jobs, routes_segment, routes_service
from dermseg.apps.api.gate import PUBLIC, Gate
from dermseg.apps.api.problems import ProblemDetails
from dermseg.apps.api.services import Services
from dermseg.version import __version__

_DESCRIPTION = (
    "Finds the outline of a skin lesion in a photograph. Not a medical device: it says nothing about what a "
    "lesion is. Errors are `application/problem+json` (RFC 9457)."
)
_LINKS = {
    name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}}
    for name in ("look", "result", "delete")
}
_RETRY = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}}
# What any request may be answered with besides its own answers.
_COMMON = (401, 403, 422, 429, 500, 503)
_OF_ROUTE = {
    ("/v1/segment", "post"): (400, 404, 406, 408, 413, 415, 501),
    ("/v1/jobs", "post"): (400, 404, 408, 409, 413, 415, 507),
    ("/v1/jobs/{job_id}", "get"): (404,),
    ("/v1/jobs/{job_id}", "delete"): (404,),
    ("/v1/jobs/{job_id}/result", "get"): (404, 409, 410, 416),
    ("/v1/models/{name}", "get"): (404,),
    ("/v1/audit/{seq}/override", "post"): (400, 404, 408, 413),
}


def create_app(services: Services) -> FastAPI:
    """The ASGI application around running services; it stops them when the server ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(services.stop)

    # No pages with documentation, they would load programs from elsewhere. /openapi.json has the description.
    app = FastAPI(
        title="dermseg",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # would lead clients of a proxy with HTTPS to plain HTTP, their key too
        generate_unique_id_function=lambda route: route.name,  # short names for generated clients
    )
    app.state.services = services
    app.include_router(routes_service.public)
    key = [Depends(HTTPBearer(auto_error=False, scheme_name="key", description="An API key"))]
    for routes in (routes_segment, routes_jobs, routes_service):
        app.include_router(routes.router, dependencies=key)
    problems.install_handlers(app)
    app.add_middleware(
        Gate, keys=services.keys, metrics=services.metrics, origins=services.settings.cors_origins
    )
    if services.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=services.settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "If-Range",
                "Range",
                "X-Request-ID",
            ],
            expose_headers=[
                "Audit-Record",
                "Content-Range",
                "Dermseg-Status",
                "Dermseg-Confidence",
                "ETag",
                "Retry-After",
                "X-Request-ID",
                "Location",
            ],
        )
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with every problem that a route may answer with."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        schemas["Problem"] = ProblemDetails.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                common = (500, 503) if path in PUBLIC else _COMMON
                for status in (*common, *_OF_ROUTE.get((path, method), ())):
                    operation["responses"][str(status)] = _problem(status)
        document["paths"]["/v1/jobs"]["post"]["responses"]["202"]["links"] = _LINKS
        app.openapi_schema = document
    return app.openapi_schema


def _problem(status: int) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    example = {
        "type": "urn:dermseg:problem:example",
        "title": title,
        "status": status,
        "detail": "what is wrong",
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    answer: dict[str, Any] = {"description": title, "content": {problems.MEDIA_TYPE: content}}
    if status in (429, 503):
        answer["headers"] = _RETRY
    return answer
