"""The OpenAPI description says what really happens: schemathesis holds the running server to it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra [api]")


def test_examples_and_problems_are_described(client: Any) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operations = {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    for (path, _), operation in operations.items():
        assert operation["summary"]
        assert operation["responses"]["500"]["content"].keys() == {"application/problem+json"}
        assert bool(operation.get("security")) == (path not in ("/health", "/ready"))
    kinds = operations["/v1/segment", "post"]["requestBody"]["content"]
    assert {"image/jpeg", "image/png", "image/tiff", "multipart/form-data"} <= kinds.keys()
    answers = operations["/v1/segment", "post"]["responses"]["200"]["content"]
    assert {"application/json", "image/png", "image/jpeg"} <= answers.keys()
    assert {"200", "206", "416"} <= operations["/v1/jobs/{job_id}/result", "get"]["responses"].keys()
    schemas = document["components"]["schemas"]
    assert schemas["SegmentAnswer"]["properties"]["rle"] and "HTTPValidationError" not in schemas


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs schemathesis (dev group)")
def test_schemathesis_finds_nothing(client: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json"]
    command += ["--header", f"Authorization: {client.headers['Authorization']}"]
    command += [
        "--max-examples",
        "5",
        "--seed",
        "1",
        "--generation-deterministic",
        "--no-color",
        "--checks",
        "all",
    ]
    # Bytes that are no image, and an unknown id, fit their schemas and are refused all the same.
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(
        command,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_hooks.py"))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert client.get("/health").status_code == 200
