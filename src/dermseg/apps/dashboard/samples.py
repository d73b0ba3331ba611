"""Images that come with the program: drawn, so nobody's skin."""

from __future__ import annotations

from functools import lru_cache

from dermseg.apps.dashboard.uploads import Upload
from dermseg.data.synthetic import synthesize
from dermseg.images import encode_jpeg

SIZE = (600, 800)
SAMPLES = {"Drawn lesion 1": 11, "Drawn lesion 2": 23, "Drawn lesion 3": 37}


@lru_cache(maxsize=len(SAMPLES))
def sample(name: str) -> Upload:
    """One of the `SAMPLES` as a file."""
    image, _, _ = synthesize(SAMPLES[name], SIZE)
    return Upload(f"{name.replace(' ', '-').lower()}.jpg", encode_jpeg(image))
