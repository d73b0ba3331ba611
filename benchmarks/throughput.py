"""Images per second of ``dermseg segment``, beside the classic U-Net in eager PyTorch in the same run.

Timed in turns, so that the drift of a shared machine falls on all of them alike:

- ``dermseg segment`` as a user runs it (a process of its own), masks only, and masks with overlays;
- the bundled network alone in ONNX Runtime, as that runs it: one call per CPU, one thread each;
- the U-Net of Ronneberger et al. 2015 (31.0 M parameters; random weights, which do not change its speed)
  alone in eager PyTorch on the same inputs, in fp32 and under bf16 autocast, each in the faster memory
  layout and at the fastest batch size.

Both networks get as many threads as there are usable CPUs. Figures are medians over the rounds; the raw
values are in the JSON.

    python benchmarks/throughput.py [--images 'FOLDER, ZIP or ZIP!images/*'] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import RESULTS, ROOT, describe, one_line, save, write_section
from dermseg.images.find import find_images
from dermseg.images.load import load_image
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.stages import STAGES
from dermseg.inference.threads import available_cpus
from dermseg.models import build_model, count_parameters

RESULT = RESULTS / "throughput.json"
NATIVE = "ISIC_native_resolution.zip!images/*"  # below $DERMSEG_DATA; the zip holds masks as well
SAVES = {"masks": "mask", "masks and overlays": "mask,overlay"}
Inputs = NDArray[np.float32]
# Linux counts the memory of the parent at the fork as the child's peak, so a small process stands between.
_MEASURE = """
import subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
if sys.platform != "win32":
    import resource
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class UnetSetting:
    """One way to run the U-Net."""

    precision: str  # "fp32" or "bf16"
    channels_last: bool
    batch: int


class Unet:
    """The classic U-Net in eager PyTorch, as people run it: eval mode, no gradients."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.model = build_model("unet").eval()
        self.parameters = count_parameters(self.model)
        self._layout = torch.contiguous_format

    def seconds(self, inputs: Inputs, setting: UnetSetting) -> float:
        """Time of one forward pass of one batch."""
        layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        if layout != self._layout:
            self.model.to(memory_format=layout)  # type: ignore[call-overload]
            self._layout = layout
        x = torch.from_numpy(repeat(inputs, setting.batch)).to(memory_format=layout)
        half = setting.precision == "bf16"
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            start = time.perf_counter()
            self.model(x)
            return time.perf_counter() - start


def repeat(inputs: Inputs, n: int) -> Inputs:
    """``n`` network inputs, starting over where there are fewer."""
    return np.ascontiguousarray(inputs[np.arange(n) % len(inputs)])


def network_rate(model: Model, inputs: Inputs, seconds: float) -> float:
    """Images/s of the network, one image to a call, as many calls at a time as there are CPUs."""
    cpus = available_cpus()

    def work(number: int) -> int:
        done, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            model.session(inputs[[(number + done) % len(inputs)]])
            done += 1
        return done

    with ThreadPoolExecutor(cpus) as pool:
        begin = time.perf_counter()
        return sum(pool.map(work, range(cpus))) / (time.perf_counter() - begin)


def best_unet_setting(
    unet: Unet, inputs: Inputs, precision: str, batches: Sequence[int], budget_s: float
) -> tuple[UnetSetting, list[dict[str, Any]]]:
    """The fastest way to run the U-Net in this precision, and everything that was tried.

    The memory layout is chosen at the smallest batch. A batch that would not fit what is left of the budget
    is listed without a figure: bf16 is emulated, and slow, on CPUs without instructions for it.
    """
    deadline = time.perf_counter() + budget_s
    tried: list[dict[str, Any]] = []
    rates: dict[UnetSetting, float] = {}

    def attempt(setting: UnetSetting) -> None:
        seconds = unet.seconds(inputs, setting)
        if 2 * seconds < deadline - time.perf_counter():  # the first pass also prepares kernels
            seconds = min(seconds, unet.seconds(inputs, setting))
        rates[setting] = setting.batch / seconds
        tried.append({**vars(setting), "images_per_second": round(rates[setting], 4)})

    for channels_last in (True, False):
        attempt(UnetSetting(precision, channels_last, min(batches)))
    layout = max(rates, key=lambda s: rates[s]).channels_last
    for n in sorted(batches)[1:]:
        setting = UnetSetting(precision, layout, n)
        if n / max(rates.values()) > deadline - time.perf_counter():
            tried.append({**vars(setting), "images_per_second": None, "why": "time budget"})
        else:
            attempt(setting)
    return max(rates, key=lambda s: rates[s]), tried


def run_segment(images: str, model: str, kinds: str, *words: str) -> dict[str, Any]:
    """One ``dermseg segment`` in a process of its own: ``run.json``, wall time and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "dermseg.apps.cli.main", "segment", images]
        command += ["-o", str(out), "--model", model, "--save", kinds, "--log-json", *words]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, *command], capture_output=True, text=True, check=False
        )
        wall = time.perf_counter() - start
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        peak = int(done.stdout) * (1 if sys.platform == "darwin" else 1024) if done.stdout else None
        record = json.loads((out / "run.json").read_text())
    timing = record["timing"]
    return {
        "images": timing["images"],
        "images_per_second": timing["images"] / timing["wall_seconds"],
        "command_seconds": wall,
        "peak_memory_bytes": peak,
        "stage_seconds": timing["stage_seconds"],
        "workers": timing["workers"],
        "network_threads": timing["network_threads"],
    }


def summarize_segment(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds; shares of the time that the stages took together."""
    seconds = {stage: median(run["stage_seconds"][stage] for run in runs) for stage in STAGES}
    total = sum(seconds.values())
    peaks = [run["peak_memory_bytes"] for run in runs if run["peak_memory_bytes"] is not None]
    return {
        "images": runs[0]["images"],
        "images_per_second": round(median(run["images_per_second"] for run in runs), 3),
        "command_seconds": round(median(run["command_seconds"] for run in runs), 3),
        "peak_memory_mib": round(max(peaks) / 2**20, 1) if peaks else None,
        "share": {stage: round(value / total, 4) for stage, value in seconds.items()},
        "stage_seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "workers": runs[0]["workers"],
        "network_threads": runs[0]["network_threads"],
        "rounds": [round(run["images_per_second"], 3) for run in runs],
    }


def measure(
    images: str, model_name: str, *, batches: Sequence[int], rounds: int, unet_budget_s: float
) -> dict[str, Any]:
    """Everything this benchmark reports, as plain values."""
    started = time.perf_counter()
    threads = available_cpus()
    sources = find_images([images])
    model = load_model(model_name, threads=1)
    loaded = [load_image(source, min_side=model.min_side) for source in sources[: max(batches)]]
    inputs = np.stack([model.prepare(image.pixels) for image in loaded])
    size = model.card.preprocessing

    network_rate(model, inputs, 0.5)
    unet = Unet(threads)
    chosen, tried = {}, []
    for precision in ("fp32", "bf16"):
        chosen[precision], attempts = best_unet_setting(unet, inputs, precision, batches, unet_budget_s / 2)
        tried += attempts

    segment_runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SAVES}
    onnx_rounds: list[float] = []
    unet_rounds: dict[str, list[float]] = {precision: [] for precision in chosen}
    for _ in range(rounds):
        for name, kinds in SAVES.items():
            segment_runs[name].append(run_segment(images, model_name, kinds))
        onnx_rounds.append(network_rate(model, inputs, 2.0))
        for precision, setting in chosen.items():
            spent = sum(setting.batch / rate for rate in unet_rounds[precision])
            if spent < unet_budget_s / 4:
                unet_rounds[precision].append(setting.batch / unet.seconds(inputs, setting))

    end_to_end = {name: summarize_segment(runs) for name, runs in segment_runs.items()}
    onnx_rate = median(onnx_rounds)
    unet_rates = {precision: median(values) for precision, values in unet_rounds.items()}
    return {
        **describe(),
        "seconds": round(time.perf_counter() - started, 1),
        "rounds": rounds,
        "images": {"input": Path(images.partition("!")[0]).name, "count": len(sources)},
        "end_to_end": end_to_end,
        "network": {
            "name": f"{model.card.name} {model.card.version}",
            "sha256": model.sha256,
            "architecture": model.card.architecture,
            "parameters": model.card.parameters,
            "input": [size.height, size.width],
            "calls": threads,
            "images_per_second": round(onnx_rate, 3),
            "rounds": [round(value, 3) for value in onnx_rounds],
        },
        "unet": {
            "parameters": unet.parameters,
            "weights": "random",
            "input": [size.height, size.width],
            **{
                precision: {
                    **vars(setting),
                    "images_per_second": round(unet_rates[precision], 4),
                    "rounds": [round(value, 4) for value in unet_rounds[precision]],
                }
                for precision, setting in chosen.items()
            },
            "tried": tried,
        },
        "ratios": {
            **{f"network / unet {p}": round(onnx_rate / rate, 1) for p, rate in unet_rates.items()},
            **{
                f"end to end, {name} / unet {p} alone": round(e["images_per_second"] / rate, 1)
                for name, e in end_to_end.items()
                for p, rate in unet_rates.items()
            },
        },
    }


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    network, unet = result["network"], result["unet"]
    rates = {precision: unet[precision]["images_per_second"] for precision in ("fp32", "bf16")}

    def row(name: str, rate: float, memory: float | None = None) -> str:
        ratios = " | ".join(f"{rate / rates[p]:.1f} x" for p in rates)
        return f"| {name} | {rate:.2f} | {ratios} | {'' if memory is None else f'{memory:.0f} MiB'} |"

    lines = [
        "| | images/s | beside U-Net fp32 | beside U-Net bf16 | peak memory |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, e in result["end_to_end"].items():
        lines.append(
            row(f"`dermseg segment`, {name}, end to end", e["images_per_second"], e["peak_memory_mib"])
        )
    side = "{} x {} px".format(*network["input"])
    calls = f"{network['calls']} calls at a time, 1 thread each"
    lines.append(row(f"its network alone, ONNX Runtime, {side}, {calls}", network["images_per_second"]))
    for precision, rate in rates.items():
        setting = unet[precision]
        layout = "channels last" if setting["channels_last"] else "contiguous"
        name = f"classic U-Net alone, eager PyTorch, {side}, {precision}, batch {setting['batch']}, {layout}"
        lines.append(row(name, rate))
    lines += [
        "",
        "| share of the stages' time | " + " | ".join(STAGES) + " |",
        "|---|" + "---:|" * len(STAGES),
    ]
    for name, e in result["end_to_end"].items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * e['share'][s]:.0f} %" for s in STAGES) + " |")
    images = result["images"]
    lines += [
        "",
        f"{images['count']} images of {images['input']}; median of {result['rounds']} rounds; "
        + one_line(result),
    ]
    if not result["machine"]["bf16_in_hardware"]:
        lines.append("This CPU has no bf16 instructions: PyTorch emulates them.")
    return "\n".join(lines)


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help=f"what to segment; default: {NATIVE} below $DERMSEG_DATA")
    parser.add_argument("--model", default="default", help="bundle to measure")
    parser.add_argument("--batches", default="1,2,4,8", help="batch sizes to try with the U-Net")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--unet-budget", type=float, default=100.0, help="seconds to choose the U-Net's setting"
    )
    parser.add_argument("--quick", action="store_true", help="one round, batch 1 only: a check, not a figure")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    images = args.images
    if images is None:
        if not os.environ.get("DERMSEG_DATA"):
            parser.error("DERMSEG_DATA must name the folder with the data sets, or give --images")
        images = str(Path(os.environ["DERMSEG_DATA"]) / NATIVE)
    batches = [1] if args.quick else sorted({int(n) for n in args.batches.split(",")})
    result = measure(
        images,
        args.model,
        batches=batches,
        rounds=1 if args.quick else args.rounds,
        unet_budget_s=args.unet_budget,
    )
    save(result, args.output)
    text = table(result)
    print(text)
    if args.output == RESULT and not args.quick:
        write_section(ROOT / "README.md", "throughput", text)


if __name__ == "__main__":
    main()
