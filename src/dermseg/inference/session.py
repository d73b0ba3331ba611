"""One ONNX Runtime session: model bytes in, a callable from images to logits out.

``session.set_denormal_as_zero`` stays off: it changes the calling thread's floating point mode, and with
it what NumPy computes for the rest of the program.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from dermseg.errors import ModelError, UsageError
from dermseg.inference.threads import available_cpus

_FATAL_ONLY = 4


class OrtSession:
    """A network on the CPU. Safe to call from several threads at once.

    Parameters
    ----------
    model_bytes
        The ONNX model. It comes from memory, so what runs is what was hashed.
    threads
        Threads inside one call; None takes what the process may use (affinity, cgroup limits).
    input_name, output_name
        Tensors to feed and fetch; None takes the model's first.
    spinning
        Let idle threads spin for work between operators. Saves some microseconds per operator when
        nothing else runs, and takes a whole CPU from whatever does (decoding, writing).

    Raises
    ------
    ModelError
        Not a model that ONNX Runtime can run, or without tensors of these names.
    UsageError
        ``threads`` below 1.
    """

    def __init__(
        self,
        model_bytes: bytes,
        threads: int | None = None,
        *,
        input_name: str | None = None,
        output_name: str | None = None,
        spinning: bool = False,
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}")
        self.threads = available_cpus() if threads is None else threads
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = _FATAL_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
        try:
            self._session = ort.InferenceSession(
                model_bytes, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises types of its own C++ module
            raise ModelError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from None
        self.input_name = _pick("input", [i.name for i in self._session.get_inputs()], input_name)
        self.output_name = _pick("output", [o.name for o in self._session.get_outputs()], output_name)

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits ``float32 (N, C, h, w)`` for images ``float32 (N, 3, H, W)``.

        Raises
        ------
        ModelError
            The model does not take this shape, or does not return four dimensions.
        """
        try:
            (logits,) = self._session.run([self.output_name], {self.input_name: batch})
        except Exception as error:  # as above
            raise ModelError(f"the model fails on input {batch.shape}: {_first_line(error)}") from None
        out: NDArray[np.float32] = np.asarray(logits, dtype=np.float32)
        if out.ndim != 4 or out.shape[0] != batch.shape[0]:
            raise ModelError(f"the model returns shape {out.shape} for input {batch.shape}, not (N, C, h, w)")
        return out


def _pick(kind: str, names: list[str], wanted: str | None) -> str:
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise ModelError(f"the model has no {kind} '{wanted}'", hint=f"it has {names}")
    return wanted


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
