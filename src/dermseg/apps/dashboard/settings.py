"""What ``dermseg dashboard`` was started with, handed to the pages as one argument of their script."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from dermseg.schema import Strict


class Settings(Strict):
    """Options of the program.

    Parameters
    ----------
    models
        Names or paths of bundles that people may choose from, the first one is chosen at the start.
    results
        Folder below which runs, suites and evaluations are looked for; None shows none.
    max_upload_mb, max_megapixels
        Larger files and pictures are refused.
    """

    models: tuple[str, ...] = Field(default=("default",), min_length=1)
    results: Path | None = None
    max_upload_mb: int = Field(default=200, ge=1, le=4096)
    max_megapixels: float = Field(default=100.0, gt=0, le=10_000)

    @property
    def max_pixels(self) -> int:
        """``max_megapixels`` in pixels."""
        return round(self.max_megapixels * 1e6)


@lru_cache(maxsize=1)
def current() -> Settings:
    """The settings of this program; the defaults where it was started as a bare script."""
    return Settings.model_validate_json(sys.argv[1]) if len(sys.argv) > 1 else Settings()
