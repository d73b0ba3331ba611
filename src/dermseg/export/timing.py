"""How long a stored network takes, for its card."""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from dermseg.inference.card import Latency
from dermseg.inference.runtimes import time_calls
from dermseg.inference.session import Session

BATCHES = (1, 4)
_WARM_UP, _RUNS, _SECONDS = 2, 15, 3.0
_ROUNDS = 9


def latency(session: Session, size: tuple[int, int]) -> list[Latency]:
    """Median time of a call at batch 1 and 4, for images of ``size = (height, width)``."""
    rows = []
    for batch in BATCHES:
        images = _noise(batch, size)
        taken: list[float] = []
        begun = time.perf_counter()
        for i in range(_WARM_UP + _RUNS):
            start = time.perf_counter()
            session(images)
            if i >= _WARM_UP:
                taken.append(time.perf_counter() - start)
            if taken and time.perf_counter() - begun > _SECONDS:
                break
        p50 = round(1000 * median(taken), 3)
        rows.append(Latency(runtime=session.runtime, batch=batch, threads=session.threads, p50_ms=p50))
    return rows


def speedup(reference: Session, candidate: Session, size: tuple[int, int]) -> float:
    """How many times as many images per second as ``reference``, batch 4, both timed in turns."""
    images = _noise(BATCHES[-1], size)
    best = time_calls(
        {"reference": lambda: reference(images), "candidate": lambda: candidate(images)}, _ROUNDS
    )
    return best["reference"] / best["candidate"]


def _noise(batch: int, size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((batch, 3, *size), np.float32)
