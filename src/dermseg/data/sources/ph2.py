"""PH2 of the Hospital Pedro Hispano, in its official folders (one folder per image, BMP files)."""

from __future__ import annotations

import re

from dermseg.data.sources.base import Layout

PH2 = Layout(
    name="ph2",
    summary="PH2 (200 dermoscopic images with lesion masks)",
    image=re.compile(r"/IMD\d+_Dermoscopic_Image/(?P<id>IMD\d+)\.bmp$", re.I),
    # The folder also holds a JPEG rendering of the mask and colour regions: neither is the mask.
    mask=re.compile(r"/IMD\d+_lesion/(?P<id>IMD\d+)_lesion\.bmp$", re.I),
    licence="research and education only",
    citation="Mendonca et al. 2013, doi 10.1109/EMBC.2013.6610779",
)
