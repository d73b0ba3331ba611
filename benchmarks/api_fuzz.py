"""Damaged and hostile requests to the REST server: no 500, no crash, no hang, honest clients still served.

Bodies are real images (and zips and forms around them) with bits flipped, pieces cut out, doubled, swapped or
replaced, headers with wrong sizes, and plain noise; they go to /v1/segment and /v1/jobs with right and wrong
content types and parameters. An undamaged image among every hundred must get the mask it always gets.

    python benchmarks/api_fuzz.py [--bodies 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from api_common import Connection, Server, copy_model, write_images
from common import RESULTS, describe, save

TYPES = ("image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream")
BOUNDARY = "fuzz"
TIMEOUT_S = 120.0


def seeds(folder: Path) -> list[bytes]:
    """Small images in every format that is read, and two zips."""
    picture = Image.open(write_images(folder, 1)[0]).resize((160, 120))
    found = []
    for kind in ("JPEG", "PNG", "TIFF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        found.append(buffer.getvalue())
    for mode in ("L", "P", "CMYK"):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, "TIFF")
        found.append(buffer.getvalue())
    found.append(bytes(128) + b"DICM" + bytes(200))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for number, data in enumerate(found[:3]):
                archive.writestr(f"../{number}.png", data)
        found.append(buffer.getvalue())
    return found


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to four changes."""
    body = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not body:
            break
        at = rng.randrange(len(body))
        near = rng.randrange(min(len(body), 64))  # headers are at the beginning, and of zips at the end
        length = rng.randint(1, max(1, len(body) // 4))
        what = rng.randrange(9)
        if what == 0:
            body[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            body[near] = rng.randrange(256)
        elif what == 2:
            del body[at:]
        elif what == 3:
            del body[at : at + length]
        elif what == 4:
            body[at:at] = body[at : at + length]
        elif what == 5:
            body[at : at + length] = rng.randbytes(length)
        elif what == 6:
            body[near : near + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\xff\xff"])
        elif what == 7:
            body[-(near + 1) :] = rng.randbytes(near + 1)
        else:
            body += rng.randbytes(length)
    return bytes(body)


def request(data: bytes, rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers around a damaged body."""
    if rng.random() < 0.2:
        path = rng.choice(["/v1/jobs", "/v1/jobs?overlays=false", "/v1/jobs?probabilities=maybe"])
        return (
            "POST",
            path,
            data,
            {"Content-Type": rng.choice(["application/zip", "application/octet-stream"])},
        )
    # Most reach the decoder: what is refused for its parameters tells little about images.
    accept = rng.choice(["application/json", "image/png", "image/jpeg", "*/*"])
    options = rng.choice(
        ["", "", "?geometry=both&measure=true", "?lesions=all", "?threshold=1e-9", "?tta=true"]
    )
    if rng.random() < 0.05:
        accept, options = rng.choice(["a/b", "image/*;q=x", ";,;"]), rng.choice(["?x=1", "?threshold=nan"])
    if rng.random() < 0.3:
        name = rng.choice(["image", "image", "image", "file", "\x01"])
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
        form = head.encode("latin-1") + data + f"\r\n--{BOUNDARY}--\r\n".encode()
        if rng.random() < 0.5:
            form = damage(form, rng)
        return "POST", f"/v1/segment{options}", form, {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Accept": accept
        }  # fmt: skip
    return "POST", f"/v1/segment{options}", data, {"Content-Type": rng.choice(TYPES), "Accept": accept}


async def experiment(args: argparse.Namespace, server: Server, found: list[bytes]) -> dict[str, Any]:
    """Send everything; the record as plain values."""
    rng = random.Random(args.seed)
    statuses: Counter[int] = Counter()
    failures: list[dict[str, Any]] = []
    connection = Connection(server)
    honest = found[1]
    first = (await connection.ask("POST", "/v1/segment", honest, {"Accept": "image/png"})).body
    assert np.asarray(Image.open(io.BytesIO(first))).ndim == 2
    before = server.rss_mb()
    for number in range(args.bodies):
        data = rng.randbytes(rng.randrange(3000)) if rng.random() < 0.05 else damage(rng.choice(found), rng)
        asked = request(data, rng)
        try:
            answer = await asyncio.wait_for(connection.ask(*asked), TIMEOUT_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            failures.append({"number": number, "what": type(error).__name__})
            connection.close()
            if not server.alive():
                break
            continue
        statuses[answer.status] += 1
        if answer.status == 500 or answer.status > 503:
            failures.append({"number": number, "what": answer.status})
        if number % 100 == 99:
            again = await connection.ask("POST", "/v1/segment", honest, {"Accept": "image/png"})
            if again.body != first:
                failures.append({"number": number, "what": "an honest client got another answer"})
            print(f"{number + 1}: {dict(sorted(statuses.items()))}", file=sys.stderr)
    return {
        **describe(),
        "bodies": args.bodies,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "failures": failures,
        "rss_mb": {
            "before": round(before, 1),
            "after": round(server.rss_mb(), 1) if server.alive() else None,
        },
        "alive": server.alive(),
        "seed": args.seed,
    }


def main() -> None:
    """Run the experiment, write the JSON; exit code 1 where anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bodies", type=int, default=2000)
    parser.add_argument("--model", default="default", help="name or path of a bundle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "api_fuzz.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder / "state", copy_model(args.model, folder))
        server.start()
        try:
            result = asyncio.run(experiment(args, server, seeds(folder / "images")))
        finally:
            if server.alive():
                server.end()
    save(result, args.output)
    print(f"{result['bodies']} bodies: {result['statuses']}, {len(result['failures'])} failures")
    sys.exit(1 if result["failures"] or not result["alive"] else 0)


if __name__ == "__main__":
    main()
