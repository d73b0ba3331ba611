"""The images that requests bring: a bounded queue, worker threads, and small batches for the network.

Decisions
---------
- A worker takes images from decoding to the rendered answer, as ``dermseg segment`` does, with the same calls
  in the same order and one thread in the network: masks are the command's, byte for byte. ONNX Runtime gives
  an image the same bits whether it is alone in a call or one of many; a test holds it to that.
- A worker that comes free takes its share of what waits, at most ``max_batch``, into one network call.
  Nothing waits for company: an idle server answers a single image as fast as it can.
- The queue is short and full is full: the next image is refused at once (503, Retry-After) instead of waiting
  behind work that its client may have given up on. Memory stays within what queue and body limits allow.
- An image whose client is gone before its turn is dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext

import cv2
import numpy as np

from dermseg.apps.api.limits import whole_seconds
from dermseg.apps.api.metrics import Metrics
from dermseg.apps.api.problems import Problem
from dermseg.apps.api.task import Ask, Outcome, Render, Segmented, Task, is_big
from dermseg.images.load import load_image, load_view, open_header
from dermseg.images.masks import encode_mask
from dermseg.images.resize import shrink
from dermseg.inference.pictures import OVERLAY_SIDE
from dermseg.inference.postprocess import Floats
from dermseg.inference.predictor import Model
from dermseg.inference.stages import timed

_log = logging.getLogger(__name__)


class Engine:
    """Worker threads around the server's models.

    Parameters
    ----------
    models
        By name; each runs its network calls on one thread.
    workers, max_batch, queue, max_pixels
        See ``Settings``.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        workers: int,
        max_batch: int,
        queue: int,
        max_pixels: int,
        metrics: Metrics,
    ) -> None:
        self.models = dict(models)
        self._max_batch, self._queue, self._max_pixels = max_batch, queue, max_pixels
        self._metrics = metrics
        self._waiting: deque[Task] = deque()
        self._ready = threading.Condition()
        self._stopping = False
        self._big = threading.Lock()
        self._image_seconds = 0.1  # a moving mean; the first images correct it
        cv2.setNumThreads(1)  # images run side by side already
        self._threads = [
            threading.Thread(target=self._run, name=f"segment-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every worker runs and the engine takes images."""
        return not self._stopping and all(thread.is_alive() for thread in self._threads)

    def check_room(self) -> None:
        """Raise before a body is read that would only be refused.

        Raises
        ------
        Problem
            503: the queue is full, or the server is about to stop.
        """
        if self._stopping:
            raise Problem(503, "stopping", "the server is about to stop", retry_after=5)
        waiting = len(self._waiting)
        if waiting >= self._queue:
            self._metrics.shed.labels("queue").inc()
            wait = (waiting + 1) * self._image_seconds / len(self._threads)
            raise Problem(
                503, "busy", "more images wait than can be worked on", retry_after=whole_seconds(wait)
            )

    async def segment(self, data: bytes, ask: Ask, render: Render) -> tuple[Segmented, bytes]:
        """Segment one image and render its answer, on a worker.

        Raises
        ------
        Problem
            503 as in `check_room`.
        ImageError
            The image cannot be read.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Segmented, bytes]] = loop.create_future()

        def settle(outcome: Outcome) -> None:
            if future.done():
                return
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        def tell(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(settle, outcome)

        task = Task(data, ask, render, tell)
        self.check_room()
        with self._ready:
            self._waiting.append(task)
            self._metrics.waiting.set(len(self._waiting))
            self._ready.notify()
        try:
            return await future
        finally:
            task.cancelled = True  # of no effect once it is done

    def stop(self) -> None:
        """Take no more, finish what was accepted, end the threads."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._take():
            start = time.perf_counter()
            try:
                self._work(batch)
            except BaseException as error:  # nothing may end a worker: every task gets its answer
                for task in batch:
                    task.tell(error)
            mean = (time.perf_counter() - start) / len(batch)
            self._image_seconds += 0.05 * (mean - self._image_seconds)

    def _take(self) -> list[Task]:
        with self._ready:
            while not self._waiting and not self._stopping:
                self._ready.wait()
            share = math.ceil(len(self._waiting) / len(self._threads))
            batch = [self._waiting.popleft() for _ in range(min(share, self._max_batch))]
            self._metrics.waiting.set(len(self._waiting))
            return batch

    def _work(self, batch: list[Task]) -> None:
        ready = [task for task in batch if not task.cancelled and self._decode(task)]
        groups: dict[tuple[str, bool], list[Task]] = {}
        for task in ready:
            groups.setdefault((task.ask.model, task.ask.tta), []).append(task)
        for (name, tta), tasks in groups.items():
            model = self.models[name]
            self._metrics.batch_size.observe(len(tasks))
            start = time.perf_counter()
            try:
                inputs = np.stack([task.input for task in tasks if task.input is not None])
                maps, features = model.look(inputs, tta=tta)
            except Exception as error:  # too little memory for eight views, say: not the fault of the others
                for task in tasks:
                    self._fail(task, error)
                continue
            share = (time.perf_counter() - start) / len(tasks)
            for i, (task, probability) in enumerate(zip(tasks, maps, strict=True)):
                task.seconds["network"] = share
                self._finish(task, model, probability, None if features is None else features[i])

    def _decode(self, task: Task) -> bool:
        task.seconds["queue"] = time.perf_counter() - task.created
        model = self.models[task.ask.model]
        try:
            with timed(task.seconds, "decode"):
                header = open_header(task.data, self._max_pixels)
                with self._big if is_big(header.width, header.height) else nullcontext():
                    loaded = load_image(task.data, min_side=model.min_side, max_pixels=self._max_pixels)
                    task.input = model.prepare(loaded.pixels)
                    task.gate_view = model.gate_view(loaded.pixels)
                    task.info = loaded.info
                    if task.ask.picture:
                        view = load_view(task.data, loaded, max_pixels=self._max_pixels)
                        task.picture = shrink(view, OVERLAY_SIDE)
        except Exception as error:
            self._fail(task, error)
            return False
        return True

    def _finish(self, task: Task, model: Model, probability: Floats, features: Floats | None) -> None:
        ask, info = task.ask, task.info
        assert info is not None
        try:
            with self._big if task.big else nullcontext():
                with timed(task.seconds, "postprocess"):
                    result = model.finish(
                        probability, (info.height, info.width), threshold=ask.threshold, lesions=ask.lesions
                    )
                    result = model.judge(result, task.gate_view, features)
                with timed(task.seconds, "render"):
                    png = encode_mask(result.mask)
                    segmented = Segmented(
                        task.data,
                        ask,
                        model,
                        result,
                        info,
                        png,
                        hashlib.sha256(task.data).hexdigest(),
                        hashlib.sha256(png).hexdigest(),
                        task.picture,
                        task.seconds,
                    )
                    answer = task.render(segmented)
        except Exception as error:
            self._fail(task, error)
            return
        self._metrics.images.labels(result.status).inc()
        for stage, seconds in task.seconds.items():
            self._metrics.stage_seconds.labels(stage).observe(seconds)
        task.tell((segmented, answer))

    def _fail(self, task: Task, error: Exception) -> None:
        self._metrics.images.labels("failed").inc()
        task.tell(error)
