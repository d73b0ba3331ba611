"""What a run over 10 million images takes: hours, cost, storage, from what was measured.

Reads ``results/soak_batch.json`` (10,000 images on one machine: images/s, bytes of an image and of its mask,
memory) and writes the table of ``docs/scale-out.md``. Prices are assumptions, and options:

    python benchmarks/size_run.py [--images 10000000] [--cpu-hour 0.045] ...
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, one_line, write_section

PAGE = ROOT / "docs" / "scale-out.md"
CPUS = (16, 64, 256, 1024)
ROW_BYTES = 150  # of the Parquet table, compressed
USEFUL = 0.85  # share of the time in which a worker of a cluster computes: starts, stragglers, storage


@dataclass(frozen=True, slots=True)
class Prices:
    """In US dollars; defaults are about what the large clouds list for one region, on demand."""

    cpu_hour: float = 0.045
    gigabyte_month: float = 0.023
    thousand_writes: float = 0.005
    thousand_reads: float = 0.0004


def table(measured: dict[str, Any], images: int, prices: Prices) -> str:
    """The figures as Markdown, with the formulas that they follow from."""
    cpus, rate = measured["machine"]["threads"], measured["images_per_second"]
    cpu_seconds = cpus / rate
    cpu_hours = images * cpu_seconds / 3600 / USEFUL
    sizes = measured["bytes_per_image"]
    inputs, masks = images * sizes["input"] / 1e9, images * (sizes["mask"] + ROW_BYTES) / 1e9
    requests = images / 1000 * (prices.thousand_writes + prices.thousand_reads)
    memory = measured["median_mib"]["at_the_end"]
    size_in, size_out = f"{sizes['input'] / 1e6:.2f} MB", f"{sizes['mask'] / 1e3:.1f} kB"
    cost = cpu_hours * prices.cpu_hour
    lines = [
        f"Measured: {rate:.1f} images/s on {cpus} CPUs, so {cpu_seconds:.3f} CPU seconds an image "
        f"({size_in} in, {size_out} of mask out, {memory:.0f} MiB of memory).",
        "",
        f"| {images:,} images | | how |",
        "|---|---:|---|",
        f"| CPU hours | {cpu_hours:,.0f} | images x {cpu_seconds:.3f} s / 3600 / {USEFUL:g} |",
        f"| cost of computing | {cost:,.0f} USD | x {prices.cpu_hour:g} USD per CPU hour |",
        *(f"| hours on {n} CPUs | {cpu_hours / n:,.1f} | CPU hours / {n} |" for n in CPUS),
        f"| read from storage | {inputs:,.0f} GB | images x {size_in} |",
        f"| written: masks and table | {masks:,.0f} GB | images x ({size_out} + {ROW_BYTES} B) |",
        f"| keeping what was written | {masks * prices.gigabyte_month:,.1f} USD a month | "
        f"x {prices.gigabyte_month:g} USD per GB and month |",
        f"| requests to the store | {requests:,.0f} USD | one read and one write an image |",
        "",
        f"From `benchmarks/results/soak_batch.json`: {one_line(measured)}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Compute, write the page, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000_000)
    for name, value in Prices.__dataclass_fields__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value.default, help="USD")
    parser.add_argument("--measured", type=Path, default=RESULTS / "soak_batch.json")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    args = parser.parse_args()
    prices = Prices(**{name: getattr(args, name) for name in Prices.__dataclass_fields__})
    text = table(json.loads(args.measured.read_text(encoding="utf-8")), args.images, prices)
    write_section(args.output, "size", text)
    print(text)


if __name__ == "__main__":
    main()
