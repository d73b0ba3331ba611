"""Which runtime runs a network, and how one is opened.

The rule of ``auto``:

1. A variant in OpenVINO's own format runs in OpenVINO.
2. Below ``FEW_IMAGES`` images, and where nothing else is installed, ONNX Runtime: the others take seconds to
   start.
3. Else the candidates that are installed (OpenVINO, ONNX Runtime with CUDA) are timed once against ONNX
   Runtime on this model and this machine. One that is at least ``WORTH`` times as fast is taken, and the
   answer is kept in the cache folder (``DERMSEG_CACHE``, else ``~/.cache/dermseg``).

torch is never taken by itself. It is named here as text, because this room does not know the rooms above.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dermseg.errors import DermsegError, ModelError, UsageError
from dermseg.files import write_json
from dermseg.inference.bundle import Bundle
from dermseg.inference.machine import cpu_name
from dermseg.inference.partner import JointSession, find_partner
from dermseg.inference.runtimes_openvino import OpenVinoSession, openvino_installed
from dermseg.inference.session import CUDA_HINT, OrtSession, Session
from dermseg.inference.threads import available_cpus

RUNTIMES = ("onnxruntime", "openvino", "cuda", "torch")
AUTO = "auto"
FEW_IMAGES = 200
WORTH = 1.15
_TORCH_MODULE = "dermseg.export.torch_session"
_PROBE_BATCH, _PROBE_ROUNDS = 2, 7


def check_runtime(name: str) -> str:
    """``name``, where it is ``auto`` or a runtime.

    Raises
    ------
    UsageError
        It is not.
    """
    if name not in (AUTO, *RUNTIMES):
        raise UsageError(f"unknown runtime '{name}'", hint=f"one of {', '.join((AUTO, *RUNTIMES))}")
    return name


def obstacles() -> dict[str, str | None]:
    """Every runtime, with None where it can be used and else what to do about it."""
    return {
        "onnxruntime": None,
        "openvino": None if openvino_installed() else 'pip install "dermseg[openvino]"',
        "cuda": None if _has_cuda() and cuda_devices() else CUDA_HINT,
        "torch": None if find_spec("torch") and find_spec("onnx") else 'pip install "dermseg[train]"',
    }


def select_variant(bundle: Bundle, variant: str | None, runtime: str | None) -> str:
    """The variant that a runtime runs: the one named, else OpenVINO's own for OpenVINO, else the default.

    Raises
    ------
    ModelError
        There is no such variant, or it takes pixels and gives masks: that is for other programs.
    """
    card = bundle.card
    if variant is None and runtime == "openvino":
        own = [name for name, v in card.variants.items() if v.format == "openvino"]
        variant = own[0] if own else None
    name = card.default_variant if variant is None else variant
    if card.variant(name).interface != "logits":
        usable = [key for key, v in card.variants.items() if v.interface == "logits"]
        raise ModelError(
            f"variant '{name}' holds the whole way from pixels to mask, for use by other programs",
            file=bundle.path,
            hint=f"dermseg runs {usable}",
        )
    return name


def open_session(
    bundle: Bundle, variant: str, runtime: str | None = None, threads: int | None = None
) -> Session:
    """The network of a bundle, with its partner where it has one, ready to run.

    Parameters
    ----------
    variant
        As ``select_variant`` gives it.
    runtime
        A name of ``RUNTIMES``; None takes OpenVINO for its own format and else ONNX Runtime.
    threads
        Threads inside one call; None takes what the process may use.

    Raises
    ------
    UsageError
        The runtime is not installed, or cannot run this variant.
    ModelError
        The file is damaged or does not run, or its partner is not in this package.
    """
    partner = bundle.card.variant(variant).partner
    if partner is None:
        return _open_network(bundle, variant, runtime, threads)
    other = find_partner(bundle, partner)
    seen = other.card.preprocessing
    own, second = (
        _open_network(whose, name, runtime, threads)
        for whose, name in ((bundle, variant), (other, partner.variant))
    )
    return JointSession(own, second, (seen.height, seen.width))


def _open_network(bundle: Bundle, variant: str, runtime: str | None, threads: int | None) -> Session:
    entry = bundle.card.variant(variant)
    size = bundle.card.preprocessing
    image, logits = size.input_name, size.output_name
    own = "openvino" if entry.format == "openvino" else "onnxruntime"
    name = own if runtime is None else runtime
    if entry.format == "openvino" and name != "openvino":
        raise UsageError(
            f"variant '{variant}' is in OpenVINO's format, runtime '{name}' cannot read it",
            file=bundle.path,
            hint="--runtime openvino, or another variant",
        )
    if name == "torch":
        if obstacle := obstacles()[name]:
            raise UsageError("runtime 'torch' is not installed", hint=obstacle)
        opened: Session = import_module(_TORCH_MODULE).TorchSession(bundle, variant, threads)
        return opened
    data = bundle.read_model(variant)
    if name == "openvino":
        return OpenVinoSession(
            data, threads, weights=bundle.read_weights(variant), input_name=image, output_name=logits
        )
    return OrtSession(
        data, threads, device="cuda" if name == "cuda" else "cpu", input_name=image, output_name=logits
    )


def choose_runtime(bundle: Bundle, variant: str | None = None, images: int | None = None) -> str:
    """What ``auto`` means for this bundle, machine and number of images (None: many). See above."""
    entry = bundle.card.variant(variant)
    if entry.format == "openvino":
        return "openvino"
    candidates = [name for name in ("openvino", "cuda") if obstacles()[name] is None]
    if not candidates or (images is not None and images < FEW_IMAGES):
        return "onnxruntime"
    key = _key(entry.sha256)
    kept = _read_cache()
    decision = kept.get(key)
    if decision is None or decision.get("runtime") not in ("onnxruntime", *candidates):
        decision = probe(bundle, variant or bundle.card.default_variant, candidates)
        _write_cache({**kept, key: decision})
    return str(decision["runtime"])


def known_choice(bundle: Bundle) -> dict[str, Any] | None:
    """What was measured earlier for this model on this machine, or None."""
    return _read_cache().get(_key(bundle.card.variant().sha256))


def probe(bundle: Bundle, variant: str, candidates: list[str]) -> dict[str, Any]:
    """Time each runtime on the same input, in turn, one thread each; a second or two and the start-up.

    Returns
    -------
    dict
        ``runtime``, the fastest by enough; ``milliseconds`` per image of each that runs the network;
        ``failed``, why the others do not.
    """
    size = bundle.card.preprocessing
    batch = np.random.default_rng(0).standard_normal((_PROBE_BATCH, 3, size.height, size.width), np.float32)
    sessions: dict[str, Session] = {"onnxruntime": open_session(bundle, variant, "onnxruntime", 1)}
    failed = {}
    for name in candidates:
        try:
            session = open_session(bundle, variant, name, 1)
            session(batch)
            sessions[name] = session
        except DermsegError as error:  # installed, but unable to run this
            failed[name] = error.message
    best = time_calls({name: lambda s=s: s(batch) for name, s in sessions.items()}, _PROBE_ROUNDS)  # type: ignore[misc]
    own = best["onnxruntime"]
    fastest = min(best, key=lambda name: best[name])
    return {
        "runtime": fastest if own >= WORTH * best[fastest] else "onnxruntime",
        "milliseconds": {name: round(1000 * t / _PROBE_BATCH, 3) for name, t in best.items()},
        "failed": failed,
    }


def time_calls(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The shortest time of each call in seconds, taken in turns so that a busy moment hits all alike."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()  # the first call allocates
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


@cache
def _has_cuda() -> bool:
    import onnxruntime as ort

    return "CUDAExecutionProvider" in ort.get_available_providers()


@cache
def cuda_devices() -> int:
    """How many CUDA devices the driver lets this process use; 0 without a driver.

    ONNX Runtime with CUDA is installed on machines without a device too: login nodes, other nodes of a
    cluster, a workstation after its driver was updated.
    """
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def _key(sha256: str) -> str:
    """Hash of what decides: the model, processor, CPUs and CUDA devices in use, versions of the runtimes."""
    versions = []
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    devices = [f"{cuda_devices()} CUDA devices"] if _has_cuda() else []
    parts = [sha256, cpu_name(), str(available_cpus()), *devices, *versions]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]


def _cache_file() -> Path:
    return Path(os.environ.get("DERMSEG_CACHE") or Path.home() / ".cache" / "dermseg") / "runtimes.json"


def _read_cache() -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # the last: there is no home
        return {}
    return {k: v for k, v in kept.items() if isinstance(v, dict)} if isinstance(kept, dict) else {}


def _write_cache(kept: dict[str, dict[str, Any]]) -> None:
    try:
        write_json(_cache_file(), kept)
    except (OSError, RuntimeError, DermsegError):
        return  # a read-only home costs a measurement each time, no more
