"""Bodies for schemathesis: real images for the image types, which JSON Schema cannot describe."""

import io
import zipfile

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _image(kind: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.new("RGB", (40, 30), (200, 170, 160))
    picture.paste((60, 40, 30), (10, 10, 25, 20))
    picture.save(buffer, kind)
    return buffer.getvalue()


for name in ("jpeg", "png", "tiff", "bmp", "webp"):
    schemathesis.openapi.media_type(f"image/{name}", st.just(_image(name)))
_bytes = st.binary(max_size=300)
for media in ("application/octet-stream", "application/dicom"):
    schemathesis.openapi.media_type(media, _bytes)
_zip = io.BytesIO()
with zipfile.ZipFile(_zip, "w") as _archive:
    _archive.writestr("a.png", _image("png"))
for media in ("application/zip", "application/x-zip-compressed"):
    schemathesis.openapi.media_type(media, st.just(_zip.getvalue()))
