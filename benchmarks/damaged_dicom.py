"""Soak: thousands of damaged and hostile DICOM files, and planted identities that must not survive.

    python benchmarks/damaged_dicom.py            # 2,000 damaged files, 200 de-identified ones

Every damaged file must end as pixels or as an ImageError with a reason: no other exception, no warning, no
crash, no hang, memory below a limit. The same files go through de-identification, whose outcome must be a
file that can be read or a reason. Results go to ``benchmarks/results/damaged_dicom.json``; inputs follow from
the seed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dermseg.dicom.deidentify import deidentify
from dermseg.dicom.find import find_files
from dermseg.dicom.pseudonyms import Pseudonyms
from dermseg.errors import DermsegError, ImageError
from dermseg.images.load import load_image
from dermseg.images.sources import ImageSource

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "damaged_dicom.json"
ENCODINGS = ("explicit", "implicit", "deflated", "jpeg", "jpeg2000", "rle")
COLOURS = ("RGB", "YBR_FULL", "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
KINDS = ("dermoscopic", "photographic", "capture", "multiframe")
MEMORY, SECONDS, CHUNK = 4 << 30, 20, 50
Rng = np.random.Generator


def _made() -> Any:
    """The module that makes DICOM photographs for the tests."""
    spec = importlib.util.spec_from_file_location("dicom_files", ROOT / "tests" / "dicom" / "files.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def whole(rng: Rng, made: Any) -> bytes:
    """An undamaged file."""
    encoding = str(rng.choice(ENCODINGS))
    colours = "RGB" if encoding == "jpeg2000" else str(rng.choice(COLOURS))
    if encoding == "jpeg" and colours == "PALETTE COLOR":
        colours = "MONOCHROME2"
    ds = made.photograph(
        made.lesion(48, 64),
        kind=str(rng.choice(KINDS)),
        encoding=encoding,
        colours=colours,
        spacing=(0.1, 0.1),
    )
    made.plant(ds, rng)
    return bytes(made.to_bytes(ds))


# Damages: each takes the generator and a whole file and gives a damaged one.


def truncated(rng: Rng, data: bytes) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def bit_flipped(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(0, len(data), int(2 ** rng.integers(0, 8))):
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def header_flipped(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(132, min(2500, len(data)), int(rng.integers(1, 12))):
        changed[position] = int(rng.integers(256))
    return bytes(changed)


def lengths_changed(rng: Rng, data: bytes) -> bytes:
    """Huge, undefined or odd lengths where lengths stand."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        position = int(rng.integers(140, len(data) - 4))
        value = int(rng.choice([0, 1, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]))
        changed[position : position + 4] = struct.pack("<I", value)
    return bytes(changed)


def sizes_changed(rng: Rng, data: bytes) -> bytes:
    """Other rows, columns, bits, samples or frames than there are."""
    changed = bytearray(data)
    for tag in (b"\x28\x00\x10\x00", b"\x28\x00\x11\x00", b"\x28\x00\x02\x00", b"\x28\x00\x00\x01"):
        at = data.find(tag)
        if at > 0 and rng.integers(2) and at + 10 <= len(data):
            value = int(rng.choice([0, 1, 3, 7, 255, 4096, 32768, 65535]))
            changed[at + 8 : at + 10] = struct.pack("<H", value)
    return bytes(changed)


def syntax_changed(rng: Rng, data: bytes) -> bytes:
    """Another transfer syntax than the pixels have."""
    at = data.find(b"1.2.840.10008.1.2")
    other = str(rng.choice(["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
                            "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.102",
                            "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]))  # fmt: skip
    length = struct.unpack_from("<H", data, at - 2)[0]
    return data[:at] + other.encode().ljust(length, b"\0")[:length] + data[at + length :]


def nested(rng: Rng, data: bytes) -> bytes:
    """Sequences within sequences, far deeper than anything real."""
    depth = int(rng.integers(50, 5000))
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item
    return data[:132] + sequence * depth


def deflate_bomb(rng: Rng, data: bytes) -> bytes:
    """Megabytes of one element in a kilobyte."""
    head = syntax_changed(np.random.default_rng(0), data)
    end = 144 + int.from_bytes(head[140:144], "little")
    meta = head[:end].replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return meta + packer.compress(bytes(int(rng.integers(1 << 20, 1 << 25)))) + packer.flush()


def foreign(rng: Rng, data: bytes) -> bytes:
    """Anything at all behind the magic word."""
    return bytes(128) + b"DICM" + rng.bytes(int(rng.integers(1, 4000)))


DAMAGES: tuple[Callable[[Rng, bytes], bytes], ...] = (
    truncated, bit_flipped, bit_flipped, header_flipped, header_flipped, lengths_changed, lengths_changed,
    sizes_changed, syntax_changed, nested, deflate_bomb, foreign,
)  # fmt: skip


def attempt(job: tuple[str, bytes]) -> tuple[str, str, str, float, int]:
    """Damage, outcome, reason, seconds and peak memory (MB) for one file."""
    name, data = job
    started = time.perf_counter()
    signal.alarm(SECONDS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", module="pydicom")
        try:
            load_image(data)
            outcome, reason = "pixels", ""
        except ImageError as error:
            outcome, reason = "refused", error.message[:60]
        except DermsegError as error:
            outcome, reason = "other error", str(error)[:200]
        except BaseException as error:
            outcome, reason = "crash", repr(error)[:200]
    signal.alarm(0)
    if caught:
        outcome, reason = "warning", str(caught[0].message)[:200]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return name, outcome, reason, time.perf_counter() - started, peak


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def soak(number: int, seed: int) -> dict[str, Any]:
    """Read damaged files in a process of its own."""
    made, rng = _made(), np.random.default_rng(seed)
    originals = [whole(rng, made) for _ in range(60)]
    jobs = []
    for i in range(number):
        damage = DAMAGES[i % len(DAMAGES)]
        jobs.append((damage.__name__, damage(rng, originals[int(rng.integers(len(originals)))])))
    outcomes: Counter[str] = Counter()
    by_damage: dict[str, Counter[str]] = {}
    bad: list[dict[str, str]] = []
    slowest, peak = 0.0, 0
    with multiprocessing.get_context("spawn").Pool(1, _limit) as pool:
        for name, outcome, reason, seconds, memory in pool.imap(attempt, jobs, CHUNK):
            outcomes[outcome] += 1
            by_damage.setdefault(name, Counter())[outcome] += 1
            slowest, peak = max(slowest, seconds), max(peak, memory)
            if outcome not in ("pixels", "refused"):
                bad.append({"damage": name, "outcome": outcome, "reason": reason})
    cleaned = soak_cleaning(jobs[:: max(1, number // 400)])
    return {
        "files": number,
        "seed": seed,
        "outcomes": dict(outcomes),
        "by_damage": {name: dict(counts) for name, counts in sorted(by_damage.items())},
        "bad": bad,
        "slowest_seconds": round(slowest, 2),
        "peak_memory_mb": peak,
        "deidentified": cleaned,
    }


def soak_cleaning(jobs: list[tuple[str, bytes]]) -> dict[str, int]:
    """Some of the damaged files through de-identification: cleaned or left out, and never a crash."""
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for number, (_, data) in enumerate(jobs):
            path = Path(folder, f"{number}.dcm")
            path.write_bytes(data)
            sources.append(ImageSource(path.name, path))
        run = deidentify(sources, Path(folder, "out"), Pseudonyms(bytes(32)))
        unreadable = 0
        for path in Path(folder, "out").rglob("*.dcm"):
            try:
                load_image(path)
            except ImageError:
                unreadable += 1
        return {"files": len(jobs), "left_out": run.failed, "cleaned_but_without_pixels": unreadable}


def planted(number: int, seed: int) -> dict[str, int]:
    """Identities planted in whole files; how many of their pieces are found after cleaning."""
    made, rng = _made(), np.random.default_rng(seed)
    secrets: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs, out = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        for i in range(number):
            ds = made.photograph(
                made.lesion(48, 64),
                kind=KINDS[i % 4],
                encoding=ENCODINGS[i % 6],
                frames=2 if i % 4 == 3 else 1,
            )
            secrets += made.plant(ds, rng)
            (inputs / f"{i}.dcm").write_bytes(made.to_bytes(ds))
        run = deidentify(find_files([inputs]), out, Pseudonyms(bytes(range(32))))
        content = b"".join(
            path.read_bytes() + str(path).encode() for path in out.rglob("*") if path.is_file()
        )
        survived = sum(secret in content for secret in secrets)
        return {"files": number, "left_out": run.failed, "planted": len(secrets), "survived": survived}


def main() -> None:
    """Run both and write the result; exit code 1 if anything is bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-n", "--number", type=int, default=2000)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "damaged": soak(arguments.number, arguments.seed),
        "planted": planted(arguments.planted, arguments.seed),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if result["damaged"]["bad"] or result["planted"]["survived"] or result["planted"]["left_out"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
