"""A session in OpenVINO: from an ONNX file or an OpenVINO IR, on the CPU.

Design decisions:

- One stream for each call that may run at once: with ``threads=1`` on 8 CPUs, 8 threads can be in a call
  side by side. A single stream would queue them.
- The network is compiled once more for each shape of input that comes, up to ``_SHAPES`` of them: for a shape
  that is known it is a quarter to a half faster than for any. Further shapes take the one that takes any.
- Threads are not pinned to CPUs: decoding and writing run beside the network.
- Arithmetic is what OpenVINO takes for the CPU: bfloat16 where it has the instructions (AMX, AVX-512 BF16),
  else float32. ``precision`` tells which.
- The first call of a process runs alone. It fills static variables of the bindings, and two first calls at
  once can wait for each other for ever: one holds the variable and waits for the interpreter lock, one the
  reverse (OpenVINO 2026.4, one of ten starts with two threads).
- **Nothing is sent anywhere.** ``import openvino`` reports to a web service when the package
  ``openvino_telemetry`` can be imported, which pip installs with it. It is hidden during the import;
  OpenVINO then takes the stand-in that it has for this case.
"""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import MissingExtraError, ModelError
from dermseg.inference.session import (
    FEATURES,
    check_logits,
    first_line,
    keep_when_forked,
    pick,
    resolve_threads,
)
from dermseg.inference.threads import available_cpus

_TELEMETRY = "openvino_telemetry"
_SHAPES = 4  # one image and the views of one image, each also with a last, smaller batch
_import_lock = threading.Lock()
_starting, _started = threading.Lock(), threading.Event()


def openvino_installed() -> bool:
    """Whether the package is there; nothing is imported."""
    return find_spec("openvino") is not None


def import_openvino() -> Any:
    """The package ``openvino``, imported without its telemetry.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    with _import_lock:
        hidden = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # importing it now fails
        try:
            import openvino
        except ModuleNotFoundError:
            raise MissingExtraError("runtime 'openvino'", "openvino") from None
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]
    return openvino


class OpenVinoSession:
    """A network in OpenVINO. Safe to call from several threads at once.

    Parameters
    ----------
    model_bytes
        An ONNX file, or the XML of an IR.
    weights
        The binary of the IR; None for ONNX.
    threads
        Threads inside one call; None takes what the process may use.
    input_name, output_name
        Tensors to feed and fetch; None takes the model's first.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    ModelError
        Not a model that OpenVINO can run, or without tensors of these names.
    UsageError
        ``threads`` below 1.
    """

    runtime = "openvino"

    def __init__(
        self,
        model_bytes: bytes,
        threads: int | None = None,
        *,
        weights: bytes | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        self.threads = resolve_threads(threads)
        ov = import_openvino()
        streams = max(1, available_cpus() // self.threads)
        self._settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * self.threads,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._core = ov.Core()
            if weights is None:
                self._model = self._core.read_model(model_bytes)
            else:
                self._weights = ov.Tensor(np.frombuffer(weights, np.uint8))  # the model reads from it
                self._model = self._core.read_model(model_bytes, self._weights)
            self._compiled = self._core.compile_model(self._model, "CPU", self._settings)
        except Exception as error:  # OpenVINO raises RuntimeError and types of its own
            raise ModelError(f"OpenVINO cannot load the model: {first_line(error)}") from None
        self.input_name = pick("input", _names(self._compiled.inputs), input_name)
        outputs = _names(self._compiled.outputs)
        self.output_name = pick("output", outputs, output_name)
        self._has_features = FEATURES in outputs
        self._shaped: dict[tuple[int, ...], Any] = {}
        self._compiling = threading.Lock()
        self._local = threading.local()
        keep_when_forked(self)

    @property
    def precision(self) -> str:
        """Type of the arithmetic: ``f32``, ``bf16`` or ``f16``."""
        return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())

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
        if _started.is_set():
            return self._infer(batch)
        with _starting:
            found = self._infer(batch)
            _started.set()
        return found

    def _infer(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        try:
            found = self._request(batch.shape).infer(
                {self.input_name: np.ascontiguousarray(batch, np.float32)}
            )
        except Exception as error:  # as above
            raise ModelError(f"the model fails on input {batch.shape}: {first_line(error)}") from None
        # a copy: the next call of this thread writes into the same memory
        pooled = np.array(found[FEATURES], np.float32) if self._has_features else None
        return check_logits(np.array(found[self.output_name], np.float32), batch), pooled

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The request of this thread for inputs of ``shape``: one is one call at a time."""
        try:
            requests = self._local.requests
        except AttributeError:
            requests = self._local.requests = {}
        compiled = self._for_shape(shape)
        if compiled not in requests:
            requests[compiled] = compiled.create_infer_request()
        return requests[compiled]

    def _for_shape(self, shape: tuple[int, ...]) -> Any:
        """The network compiled for ``shape``, or the one for any shape."""
        with self._compiling:
            if shape not in self._shaped:
                if len(self._shaped) == _SHAPES or not self._model.is_dynamic():
                    return self._compiled
                model = self._model.clone()
                model.reshape({self.input_name: list(shape)})
                self._shaped[shape] = self._core.compile_model(model, "CPU", self._settings)
            return self._shaped[shape]


def _names(ports: Any) -> list[str]:
    """All names of inputs or outputs; several of one where a step beside it changes nothing."""
    return [name for port in ports for name in sorted(port.get_names())]
