"""A session: a network that is ready to run. ``Session`` says what one is, ``OrtSession`` is the usual one.

``session.set_denormal_as_zero`` stays off: it changes the calling thread's floating point mode, and with
it what NumPy computes for the rest of the program.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from contextlib import redirect_stdout
from typing import Literal, Protocol
from weakref import WeakSet

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from dermseg.errors import ModelError, UsageError
from dermseg.inference.threads import MOST_THREADS, available_cpus

_FATAL_ONLY = 4
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CUDA_HINT = 'with an NVIDIA driver: pip uninstall onnxruntime, then pip install "onnxruntime-gpu[cuda,cudnn]"'
_SOURCE = re.compile(r"/\S+\.(?:cc|h):\d+ .*?\)(?: const)? ")
_TOO_NEW = re.compile(r"IR version|ir_version|[Oo]pset \d+ is under development")
_TOO_NEW_HINT = "pip install --upgrade onnxruntime, or export the network with an older opset or IR version"
# Name of a graph's output of pooled encoder features, where it has one.
FEATURES = "features"
_sessions: WeakSet[Session] = WeakSet()


class Session(Protocol):
    """What every runtime offers: images in, logits out, from any number of threads at once."""

    @property
    def runtime(self) -> str:
        """Name of the runtime, as ``--runtime`` takes it."""
        ...

    @property
    def threads(self) -> int:
        """Threads inside one call."""
        ...

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits ``float32 (N, C, h, w)`` for normalised images ``float32 (N, 3, H, W)``."""
        ...

    def with_features(
        self, batch: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits, and the pooled features ``float32 (N, D)``; None where this runtime or graph has none."""
        ...


class OrtSession:
    """A network in ONNX Runtime, on the CPU or on a CUDA device. Safe to call from several threads at once.

    Parameters
    ----------
    model_bytes
        The ONNX model. It comes from memory, so what runs is what was hashed.
    threads
        Threads inside one call, see ``resolve_threads``.
    input_name, output_name
        Tensors to feed and fetch; None takes the model's first.
    device
        ``cpu`` or ``cuda``.

    Raises
    ------
    ModelError
        Not a model that ONNX Runtime can run, or without tensors of these names.
    UsageError
        ``threads`` below 1, or this ONNX Runtime has no CUDA or cannot start it.
    """

    def __init__(
        self,
        model_bytes: bytes,
        threads: int | None = None,
        *,
        input_name: str | None = None,
        output_name: str | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        self.threads = resolve_threads(threads)
        self.runtime = "onnxruntime" if device == "cpu" else device
        if _PROVIDERS[device] not in ort.get_available_providers():
            raise UsageError("this ONNX Runtime has no CUDA", hint=CUDA_HINT)
        if device == "cuda" and hasattr(ort, "preload_dlls"):
            with redirect_stdout(sys.stderr):  # it prints what it does not find
                ort.preload_dlls()  # the CUDA libraries of pip's packages, which no loader finds by itself
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = _FATAL_ONLY
        # Threads that spin for work save microseconds per operator, and take a CPU from decoding and writing
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [_PROVIDERS["cpu"]] if device == "cpu" else [_PROVIDERS[device], _PROVIDERS["cpu"]]
        try:
            self._session = ort.InferenceSession(model_bytes, sess_options=options, providers=providers)
        except Exception as error:  # ONNX Runtime raises types of its own C++ module
            raise ModelError(
                f"ONNX Runtime cannot load the model: {first_line(error)}", hint=hint_if_too_new(error)
            ) from None
        if self._session.get_providers()[0] != _PROVIDERS[device]:
            # Without its libraries the provider is left out, and everything would silently run on the CPU.
            raise UsageError(
                "ONNX Runtime cannot start CUDA: driver or CUDA libraries missing", hint=CUDA_HINT
            )
        self.input_name = pick("input", [i.name for i in self._session.get_inputs()], input_name)
        outputs = [o.name for o in self._session.get_outputs()]
        self.output_name = pick("output", outputs, output_name)
        self._fetched = [self.output_name, *([FEATURES] if FEATURES in outputs else [])]
        keep_when_forked(self)

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits ``float32 (N, C, h, w)`` for images ``float32 (N, 3, H, W)``.

        Raises
        ------
        ModelError
            The model does not take this shape, or does not return four dimensions.
        """
        return self.with_features(batch)[0]

    def with_features(
        self, batch: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits, and the pooled features ``float32 (N, D)`` where the graph has this output."""
        try:
            logits, *features = self._session.run(self._fetched, {self.input_name: batch})
        except Exception as error:  # as above
            raise ModelError(f"the model fails on input {batch.shape}: {first_line(error)}") from None
        pooled = np.asarray(features[0], np.float32) if features else None
        return check_logits(np.asarray(logits, dtype=np.float32), batch), pooled


def keep_when_forked(session: Session) -> None:
    """Never take this one down in a forked child.

    Its threads are not there, and taking it down waits for them: the child would not end (a worker of a web
    server that loads before it forks, say).
    """
    _sessions.add(session)


def _keep() -> None:
    for session in list(_sessions):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)


def resolve_threads(threads: int | None) -> int:
    """The number asked for; None takes the CPUs that the process may use, at most ``MOST_THREADS``.

    Raises
    ------
    UsageError
        Below 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    return min(available_cpus(), MOST_THREADS) if threads is None else threads


def check_logits(logits: NDArray[np.float32], batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits, once they have four dimensions and one entry for each image.

    Raises
    ------
    ModelError
        They have not.
    """
    if logits.ndim != 4 or logits.shape[0] != batch.shape[0]:
        raise ModelError(f"the model returns shape {logits.shape} for input {batch.shape}, not (N, C, h, w)")
    return logits


def pick(kind: str, names: list[str], wanted: str | None) -> str:
    """``wanted`` if it is among the ``names`` of a model's inputs or outputs; None takes the first.

    Raises
    ------
    ModelError
        It is not; the hint lists what there is.
    """
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise ModelError(f"the model has no {kind} '{wanted}'", hint=f"it has {names}")
    return wanted


def first_line(error: Exception, lines: int = 1) -> str:
    """The first line (or lines, joined) of what a runtime's exception says, shortened.

    ONNX Runtime says first in which line and function of its source it is.
    """
    text = " ".join(line.strip() for line in str(error).strip().splitlines()[:lines])
    return _SOURCE.sub("", text)[:300]


def hint_if_too_new(error: Exception) -> str | None:
    """What to do where ONNX Runtime says that a file is of a later version of ONNX than it knows."""
    return _TOO_NEW_HINT if _TOO_NEW.search(str(error)) else None
