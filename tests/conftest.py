"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real images, named by the environment variable DERMSEG_DATA."""
    value = os.environ.get("DERMSEG_DATA")
    if not value:
        pytest.skip("DERMSEG_DATA is not set: the real images are not here")
    path = Path(value)
    if not path.is_dir():
        pytest.skip(f"DERMSEG_DATA={value} is not a folder")
    return path
