"""HAM10000 with the lesion masks of Tschandl et al. 2020, as the Harvard Dataverse serves them."""

from __future__ import annotations

import re

from dermseg.data.sources.base import Layout

HAM10000 = Layout(
    name="ham10000",
    summary="HAM10000 with lesion masks (10,015 images of 7,470 lesions; metadata name the lesion)",
    image=re.compile(r"(?:^|/)HAM10000_images[^/]*/(?:[^/]+/)*(?P<id>ISIC_\d{7})\.jpe?g$", re.I),
    mask=re.compile(
        r"(?:^|/)HAM10000_segmentations[^/]*/(?:[^/]+/)*(?P<id>ISIC_\d{7})_segmentation\.png$", re.I
    ),
    licence="CC-BY-NC-4.0",
    citation=(
        "Tschandl, Rosendahl, Kittler 2018, doi 10.1038/sdata.2018.161; "
        "masks: Tschandl et al. 2020, doi 10.1038/s41591-020-0942-0"
    ),
)
