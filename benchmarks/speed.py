"""Everything side by side in one run: the bundles, U-Net and UNet++; network only, one image, a folder.

- **Network only**, at 256 and 512 px: each bundled network in ONNX Runtime (also at the input it was made
  for) and, where it is installed, in OpenVINO; U-Net (Ronneberger 2015) and UNet++ (Zhou 2018) with random
  weights, which do not change speed, in the same and in eager PyTorch (fp32; bf16 autocast, at 512 px only
  where the CPU has it). Eager networks get the faster memory layout and the best batch of 1 to 8; the
  runtimes get the better of one call with all threads and one call per CPU with one thread each, which is
  how ``dermseg segment`` uses them. Median of calls in turns.
- **One image**: milliseconds from the bytes of a native JPEG to its mask, p50 and p95. Here and below the
  default is also measured with ``--tta``, the most accurate choice.
- **A folder**: ``dermseg segment --save mask`` on the native images, beside what its parts allow:
  ``1 / (1/decode + 1/network + 1/write)``, each part measured alone on all CPUs in the same run: once over
  the images in a new process, as the command is one, and once more there, when memory and threads are warm.

Writes ``results/speed.json`` and the tables of ``docs/performance.md``; on a CPU with AMX, whose ratios are
others, ``results/speed-amx.json`` and tables of their own. ``--bundles`` leaves the first table, which takes
most of the time, as it is and measures the second one again.

    python benchmarks/speed.py [--quick] [--bundles]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from common import RESULTS, ROOT, describe, one_line, save, write_section
from dermseg.export.onnx import to_onnx
from dermseg.images.find import find_images
from dermseg.images.load import load_image
from dermseg.images.masks import save_mask
from dermseg.images.sources import ImageSource
from dermseg.inference.bundle import list_bundles
from dermseg.inference.partner import JointSession
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.runtimes import open_session
from dermseg.inference.runtimes_openvino import OpenVinoSession, openvino_installed
from dermseg.inference.session import OrtSession, Session
from dermseg.inference.threads import available_cpus
from dermseg.models import build_model
from throughput import NATIVE, run_segment

AVERAGED, TTA = "default", "default --tta"  # the most accurate choice that there is
SIZES = (256, 512)
PEERS = ("unet", "unetpp")
ORT, OPENVINO = "ONNX Runtime", "OpenVINO"
NAMES = {ORT: "onnxruntime", OPENVINO: "openvino"}
SESSIONS: dict[str, type[OrtSession] | type[OpenVinoSession]] = {ORT: OrtSession, OPENVINO: OpenVinoSession}
Opened = Callable[[int], Session]  # a network, ready to run on so many threads
PARTS = ("decode", "network", "write")
PAGE = ROOT / "docs" / "performance.md"
Inputs = NDArray[np.float32]


@dataclass
class Runner:
    """One way to run one network: seconds for one call, images per call."""

    name: str
    runtime: str
    size: int
    images: int
    call: Callable[[], object]
    setting: str = ""

    def rate(self) -> float:
        """Images/s of one timed call."""
        begin = time.perf_counter()
        self.call()
        return self.images / (time.perf_counter() - begin)


def inputs_of(n: int, size: int) -> Inputs:
    """Network inputs of one size; noise, because speed does not depend on what is in them."""
    return np.random.default_rng(0).standard_normal((n, 3, size, size), np.float32)


def bundled(model: Model, runtime: str) -> Opened:
    """The network of a bundle, with its partner where it has one."""
    return lambda threads: open_session(model.bundle, model.variant, NAMES[runtime], threads)


def session_runner(name: str, runtime: str, opened: Opened, size: int, pool: ThreadPoolExecutor) -> Runner:
    """The better of one call with every thread and one single-threaded call per CPU."""
    x, cpus = inputs_of(4, size), available_cpus()
    wide, narrow = opened(cpus), opened(1)
    own = wide.own if isinstance(wide, JointSession) else wide
    label = f"{runtime} {own.precision}" if isinstance(own, OpenVinoSession) else runtime
    options = [
        Runner(name, label, size, 4, lambda: wide(x), f"batch 4, {cpus} threads"),
        Runner(
            name,
            label,
            size,
            4 * cpus,
            lambda: list(pool.map(lambda _: [narrow(x[:1]) for _ in range(4)], range(cpus))),
            f"{cpus} calls at a time, 1 thread each",
        ),
    ]
    for option in options:
        option.rate()
    return max(options, key=lambda option: max(option.rate() for _ in range(3)))


def eager_runner(
    name: str, model: torch.nn.Module, size: int, precision: str, *, batches: Iterable[int], budget_s: float
) -> Runner | None:
    """The fastest layout and batch in eager PyTorch; None where a single image outlasts the budget."""
    begin = time.perf_counter()
    best: tuple[float, Runner] | None = None
    for channels_last in (True, False):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for batch in batches:
            if best and batch / best[0] > budget_s - (time.perf_counter() - begin):
                continue
            x = torch.from_numpy(inputs_of(batch, size)).to(memory_format=layout)

            def call(x: torch.Tensor = x, layout: Any = layout) -> None:
                model.to(memory_format=layout)  # type: ignore[call-overload]
                half = precision == "bf16"
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
                    model(x)

            setting = f"batch {batch}{', channels last' if channels_last else ''}"
            runner = Runner(name, f"PyTorch eager {precision}", size, batch, call, setting)
            rate = runner.rate()
            if best is None or rate > best[0]:
                best = (rate, runner)
    return best[1] if best else None


def in_turns(runners: list[Runner], rounds: int) -> list[float]:
    """Images/s of each runner, the median of calls in turns.

    Short calls are repeated in each turn: the first one after another network finds its weights in no cache,
    which a batch of images meets once.
    """
    rates: list[list[float]] = [[] for _ in runners]
    for _ in range(rounds):
        for runner, known in zip(runners, rates, strict=True):
            rate = max(known) if known else runner.rate()
            known += [runner.rate() for _ in range(max(1, min(8, round(rate / runner.images))))]
    return [median(known) for known in rates]


def network_only(
    bundles: list[Model], *, rounds: int, batches: list[int], budget_s: float
) -> list[dict[str, Any]]:
    """Images/s of every network at every size."""
    pool = ThreadPoolExecutor(available_cpus())
    runners: list[Runner] = []
    runtimes = [name for name in SESSIONS if name != OPENVINO or openvino_installed()]
    bf16 = describe()["machine"]["bf16_in_hardware"]
    for size in SIZES:
        runners += [
            session_runner(m.card.name, runtime, bundled(m, runtime), size, pool)
            for m in bundles
            for runtime in runtimes
        ]
        for peer in PEERS:
            torch.manual_seed(0)
            network = build_model(peer).eval()
            data = to_onnx(network, size)
            runners += [
                session_runner(peer, runtime, partial(SESSIONS[runtime], data), size, pool)
                for runtime in runtimes
            ]
            for precision in ("fp32", "bf16") if size == SIZES[0] or bf16 else ("fp32",):
                # emulated bf16 takes ten seconds and more for an image, whatever the batch
                tried = batches if precision == "fp32" or bf16 else batches[:1]
                found = eager_runner(peer, network, size, precision, batches=tried, budget_s=budget_s)
                runners += [found] if found else []
    rates = in_turns(runners, rounds)
    return [
        {
            "network": runner.name,
            "runtime": runner.runtime,
            "size": runner.size,
            "setting": runner.setting,
            "images_per_second": round(rate, 3),
        }
        for runner, rate in zip(runners, rates, strict=True)
    ]


def at_own_size(bundles: list[Model], rounds: int) -> dict[str, float]:
    """Images/s of the bundled networks, each at the input it was made for, in turns.

    With ``--tta`` a call takes the views of one image as its batch.
    """
    cpus = available_cpus()
    with ThreadPoolExecutor(cpus) as pool:
        runners = [
            session_runner(m.card.name, ORT, bundled(m, ORT), m.card.preprocessing.height, pool)
            for m in bundles
        ]
        names = [m.card.name for m in bundles]
        side = bundles[names.index(AVERAGED)].card.preprocessing.height
        narrow = load_model(AVERAGED, threads=1)
        x = inputs_of(1, side)

        def averaged() -> None:
            list(pool.map(lambda _: narrow.infer(x, tta=True), range(cpus)))

        runners.append(Runner(TTA, ORT, side, cpus, averaged))
        rates = in_turns(runners, rounds)
    return {name: round(rate, 2) for name, rate in zip([*names, TTA], rates, strict=True)}


def one_image(model: Model, sources: list[ImageSource], repeats: int, *, tta: bool) -> dict[str, float]:
    """Milliseconds from the bytes of an image to its mask, everything loaded."""
    data = [source.read_bytes() for source in sources]
    times = []
    for i in range(repeats + 1):
        begin = time.perf_counter()
        _ = model.segment(data[i % len(data)], tta=tta).mask
        times.append(1000 * (time.perf_counter() - begin))
    p50, p95 = np.percentile(times[1:], [50, 95])
    return {"p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1)}


def part(kind: str, images: str, model_name: str, tta: bool) -> tuple[float, float]:
    """Images/s of decoding, the network or writing, alone on all CPUs: the first time, and once more."""
    cv2.setNumThreads(1)
    cpus, sources = available_cpus(), find_images([images])
    model = load_model(model_name, threads=1)
    small: list[Inputs] = []
    masks: list[NDArray[np.bool_]] = []
    if kind == "network":
        loaded = (load_image(source, min_side=model.min_side) for source in sources)
        small = [model.prepare(image.pixels)[None] for image in loaded]
    elif kind == "write":
        masks = [model.segment(source).mask for source in sources]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cpus) as pool:
        work: dict[str, Callable[[int], object]] = {
            "decode": lambda i: load_image(sources[i], min_side=model.min_side),
            "network": lambda i: model.infer(small[i], tta=True) if tta else model.session(small[i]),
            "write": lambda i: save_mask(masks[i], Path(folder) / f"{i}.png"),
        }

        def rate() -> float:
            begin = time.perf_counter()
            list(pool.map(work[kind], range(len(sources))))
            return len(sources) / (time.perf_counter() - begin)

        return rate(), rate()


def parts(images: str, model_name: str, *, tta: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Images/s of each part in a process of its own, which has done nothing of the kind before; and warm."""
    both = {}
    for kind in PARTS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            both[kind] = fresh.submit(part, kind, images, model_name, tta).result()
    return {k: v[0] for k, v in both.items()}, {k: v[1] for k, v in both.items()}


def allowed(rates: dict[str, float]) -> float:
    """Images/s of one part after the other."""
    return 1 / sum(1 / rate for rate in rates.values())


def folder(images: str, model_name: str, rounds: int, *, tta: bool) -> dict[str, Any]:
    """``dermseg segment --save mask`` beside what its parts allow."""
    runs, alone = [], []
    for _ in range(rounds):
        alone.append(parts(images, model_name, tta=tta))
        runs.append(run_segment(images, model_name, "mask", *(["--tta"] if tta else [])))

    def share(way: int) -> float:
        shares = (run["images_per_second"] / allowed(p[way]) for run, p in zip(runs, alone, strict=True))
        return float(median(shares))

    peaks = [run["peak_memory_bytes"] for run in runs if run["peak_memory_bytes"]]
    return {
        "images_per_second": round(median(run["images_per_second"] for run in runs), 2),
        "parts_images_per_second": {k: round(median(p[0][k] for p in alone), 1) for k in PARTS},
        "warm_parts_images_per_second": {k: round(median(p[1][k] for p in alone), 1) for k in PARTS},
        "share_of_allowed": round(share(0), 3),
        "share_of_warm": round(share(1), 3),
        "peak_memory_mib": round(max(peaks) / 2**20, 1) if peaks else None,
    }


def tables(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    base = {
        (row["size"], precision): row["images_per_second"]
        for row in result["network"]
        for precision in ("fp32", "bf16")
        if row["network"] == "unet" and row["runtime"] == f"PyTorch eager {precision}"
    }
    lines = [
        "| network only | runtime | px | images/s | beside U-Net fp32 | beside U-Net bf16 | how |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in sorted(result["network"], key=lambda row: (row["size"], -row["images_per_second"])):
        ratios = [
            f"{row['images_per_second'] / base[row['size'], p]:.1f} x" if (row["size"], p) in base else ""
            for p in ("fp32", "bf16")
        ]
        lines.append(
            f"| {row['network']} | {row['runtime']} | {row['size']} | {row['images_per_second']:.2f} | "
            f"{ratios[0]} | {ratios[1]} | {row['setting']} |"
        )
    lines += [
        "",
        "| bundle | px | size | network only | beside default | one image p50 / p95 | folder, masks only | "
        "of its parts, new / warm | memory |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    usual = result["bundles"]["default"]["network_images_per_second"]
    for name, row in result["bundles"].items():
        one, many = row["one_image"], row["folder"]
        lines.append(
            f"| {name} | {row['input']} | {row['bytes'] / 1e6:.1f} MB | "
            f"{row['network_images_per_second']:.1f} images/s | "
            f"{row['network_images_per_second'] / usual:.2f} x | "
            f"{one['p50_ms']:.0f} / {one['p95_ms']:.0f} ms | "
            f"{many['images_per_second']:.1f} images/s | {100 * many['share_of_allowed']:.0f} / "
            f"{100 * many['share_of_warm']:.0f} % | "
            f"{many['peak_memory_mib']:.0f} MiB |"
        )
    lines += [
        "",
        f"{result['images']} native ISIC images; {result['rounds']} rounds in turns; the first table is of "
        f"{result['network_date']}; {one_line(result)}.",
    ]
    if not result["machine"]["bf16_in_hardware"]:
        lines.append("This CPU has no bf16 instructions: PyTorch emulates them.")
    return "\n".join(lines)


def in_short(result: dict[str, Any]) -> str:
    """The ratios that README quotes."""
    rates = {
        (r["network"], r["runtime"]): r["images_per_second"] for r in result["network"] if r["size"] == 256
    }
    slow = rates["unet", "PyTorch eager fp32"]
    times = f"{rates['default', ORT] / slow:.1f} times the images/s of the U-Net in eager fp32"
    for (name, runtime), rate in rates.items():
        if name == "default" and runtime.startswith(OPENVINO):
            times += f" ({rate / slow:.1f} in {runtime})"
    default, fast = (result["bundles"][name] for name in ("default", "fast"))
    faster = fast["network_images_per_second"] / default["network_images_per_second"]
    return (
        f"Network only on an {result['machine']['cpu']} ({result['machine']['vectors']}; "
        "`benchmarks/speed.py`, [performance](docs/performance.md)): "
        f"at 256 px the default has {times}; "
        f"`fast` at its own {fast['input']} px has {faster:.2f} times those of the default "
        f"at its {default['input']}."
    )


def main() -> None:
    """Measure, write the JSON and the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help=f"what to segment; default: {NATIVE} below $DERMSEG_DATA")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundles", action="store_true", help="the second table only")
    parser.add_argument("--quick", action="store_true", help="a check that it runs, not a figure")
    args = parser.parse_args()
    if args.images is None and not os.environ.get("DERMSEG_DATA"):
        parser.error("DERMSEG_DATA must name the folder with the data sets, or give --images")
    images = args.images or str(Path(os.environ["DERMSEG_DATA"]) / NATIVE)
    rounds = 1 if args.quick else args.rounds
    sources = find_images([images])
    names = [bundle.card.name for bundle in list_bundles()]
    bundles = [load_model(name) for name in names]
    own = at_own_size(bundles, rounds)
    about = describe()
    kind = "-amx" if "AMX" in about["machine"]["vectors"] else ""
    stored = RESULTS / f"speed{kind}.json"
    if args.bundles:
        kept = json.loads(stored.read_text(encoding="utf-8"))
        date, network = kept["network_date"], kept["network"]
    else:
        batches = [1] if args.quick else [1, 2, 4, 8]
        date = about["date"]
        network = network_only(bundles, rounds=rounds, batches=batches, budget_s=5 if args.quick else 60)
    few = 5 if args.quick else 3 * len(sources)
    choices = [(model.card.name, model, False) for model in bundles]
    choices.append((TTA, bundles[names.index(AVERAGED)], True))
    result: dict[str, Any] = {
        **about,
        "rounds": rounds,
        "images": len(sources),
        "network_date": date,
        "network": network,
        "bundles": {
            name: {
                "input": model.card.preprocessing.height,
                "network_images_per_second": own[name],
                "bytes": sum(f.stat().st_size for f in Path(model.bundle.path).iterdir()),
                "one_image": one_image(model, sources, few, tta=tta),
                "folder": folder(images, model.card.name, rounds, tta=tta),
            }
            for name, model, tta in choices
        },
    }
    text = tables(result)
    print(text)
    if not args.quick:
        save(result, stored)
        write_section(PAGE, f"speed{kind}", text)
        write_section(ROOT / "README.md", f"network{kind}", in_short(result))


if __name__ == "__main__":
    main()
