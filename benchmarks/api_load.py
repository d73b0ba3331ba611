"""Load on the REST server from a second process: throughput, latency, answers, memory, overload, recovery.

1. ``dermseg segment`` makes the masks to compare with, and its images per second are the yardstick.
2. Closed loop: so many clients send one image after the other until the wanted number is reached. Each mask
   must be the command's, byte for byte.
3. Overload: images come at ten times the rate just measured, whether answers come or not. The server must
   turn away what it cannot do (503 with Retry-After) with its memory within bounds.
4. Recovery: from the end of the overload to the first image answered as fast as 95 % were before.

    python benchmarks/api_load.py [--requests 10000] [--images FOLDER] [--count 400] [--clients 8]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from api_common import Connection, Server, command_masks, copy_model, percentile, write_images
from common import RESULTS, describe, save

PNG = {"Content-Type": "application/octet-stream", "Accept": "image/png"}
SHARE_OF_CLI, RECOVERY_S, FLAT = 0.6, 5.0, 1.10
Photographs = list[tuple[str, bytes]]


async def closed_loop(
    server: Server, photographs: Photographs, masks: dict[str, bytes], *, requests: int, clients: int
) -> dict[str, Any]:
    """So many clients, each with one image under way."""
    numbers = iter(range(requests))
    times: list[float] = []
    statuses: Counter[int] = Counter()
    memory: list[float] = []
    wrong = 0

    async def work() -> None:
        nonlocal wrong
        connection = Connection(server)
        for number in numbers:
            name, data = photographs[number % len(photographs)]
            start = time.perf_counter()
            answer = await connection.ask("POST", "/v1/segment", data, PNG)
            times.append(time.perf_counter() - start)
            statuses[answer.status] += 1
            wrong += answer.status == 200 and answer.body != masks[name]
            if number % max(1, requests // 50) == 0:
                memory.append(round(server.rss_mb(), 1))
        connection.close()

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    seconds = time.perf_counter() - start
    warm = memory[len(memory) // 5 :]
    return {
        "requests": requests,
        "clients": clients,
        "seconds": round(seconds, 2),
        "images_per_second": round(statuses[200] / seconds, 2),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "wrong": wrong,
        "ms": {f"p{round(100 * p)}": round(1000 * percentile(times, p), 1) for p in (0.5, 0.95, 0.99)},
        "rss_mb": {"after_a_fifth": warm[0], "at_the_end": memory[-1], "most": max(memory)},
    }


async def overload(
    server: Server, photographs: Photographs, masks: dict[str, bytes], *, rate: float, seconds: float
) -> dict[str, Any]:
    """Images at a fixed rate, each on its own; nobody waits for answers."""
    statuses: Counter[str] = Counter()
    wrong = without_retry = 0
    memory: list[float] = []
    idle: list[Connection] = []

    async def one(name: str, data: bytes) -> None:
        nonlocal wrong, without_retry
        connection = idle.pop() if idle else Connection(server)
        try:
            answer = await connection.ask("POST", "/v1/segment", data, PNG)
        except (OSError, asyncio.IncompleteReadError):
            statuses["no answer"] += 1
            return
        idle.append(connection)
        statuses[str(answer.status)] += 1
        wrong += answer.status == 200 and answer.body != masks[name]
        without_retry += answer.status == 503 and "retry-after" not in answer.headers

    start = time.perf_counter()
    tasks = []
    for number in itertools.count():
        due = start + number / rate
        if due > start + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(*photographs[number % len(photographs)])))
        if number % 50 == 0:
            memory.append(server.rss_mb())
    sent = time.perf_counter() - start
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return {
        "wanted_per_second": round(rate, 1),
        "sent_per_second": round(len(tasks) / sent, 1),
        "seconds": round(sent, 1),
        "statuses": dict(sorted(statuses.items())),
        "wrong": wrong,
        "refused_without_retry_after": without_retry,
        "rss_mb_most": round(max(memory), 1),
    }


async def recovery(server: Server, photographs: Photographs, masks: dict[str, bytes], good_s: float) -> float:
    """Seconds until an image is answered rightly and as fast as before."""
    connection = Connection(server)
    start = time.perf_counter()
    while time.perf_counter() - start < 60:
        began = time.perf_counter()
        answer = await connection.ask("POST", "/v1/segment", photographs[0][1], PNG)
        if (
            answer.status == 200
            and answer.body == masks[photographs[0][0]]
            and time.perf_counter() - began <= good_s
        ):
            break
        await asyncio.sleep(0.05)
    connection.close()
    return time.perf_counter() - start


def experiment(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All four steps; the record as plain values."""
    model = copy_model(args.model, folder)
    paths = write_images(folder / "images", args.count, args.images)
    masks, cli = command_masks(folder / "images", folder / "out", model)
    photographs = [(path.stem, path.read_bytes()) for path in paths]
    server = Server(folder / "state", model)
    ready = server.start()
    try:
        asyncio.run(closed_loop(server, photographs, masks, requests=2 * args.clients, clients=args.clients))
        steady = asyncio.run(
            closed_loop(server, photographs, masks, requests=args.requests, clients=args.clients)
        )
        rate = 10 * steady["images_per_second"]
        flood = asyncio.run(overload(server, photographs, masks, rate=rate, seconds=args.overload_seconds))
        back = asyncio.run(recovery(server, photographs, masks, steady["ms"]["p95"] / 1000))
    finally:
        code = server.end()
    share = steady["images_per_second"] / cli
    verdict = {
        "throughput": share >= SHARE_OF_CLI,
        "answers": steady["wrong"] == 0 and set(steady["statuses"]) == {"200"},
        "memory": steady["rss_mb"]["at_the_end"] <= FLAT * steady["rss_mb"]["after_a_fifth"],
        "sheds": set(flood["statuses"]) <= {"200", "503"} and flood["statuses"].get("503", 0) > 0
        and not flood["wrong"] and not flood["refused_without_retry_after"],
        "recovers": back <= RECOVERY_S,
        "ends": code in (0, -15),
    }  # fmt: skip
    return {
        **describe(),
        "images": len(photographs),
        "ready_seconds": round(ready, 2),
        "cli_images_per_second": round(cli, 2),
        "share_of_cli": round(share, 3),
        "steady": steady,
        "overload": flood,
        "recovery_seconds": round(back, 2),
        "passed": verdict,
    }


def main() -> None:
    """Run the experiment, write the JSON; exit code 2 where only the throughput fails, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--images", type=Path, help="folder of photographs; drawn ones without it")
    parser.add_argument("--count", type=int, default=400, help="different images")
    parser.add_argument("--overload-seconds", type=float, default=20.0)
    parser.add_argument("--model", default="default", help="name or path of a bundle")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "api_load.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = experiment(args, Path(folder))
    save(result, args.output)
    steady = result["steady"]
    print(
        f"{steady['images_per_second']} images/s, {100 * result['share_of_cli']:.0f} % of the command; "
        f"p95 {steady['ms']['p95']} ms; {steady['wrong']} of {steady['requests']} wrong; "
        f"overload {result['overload']['statuses']}; recovery {result['recovery_seconds']} s; "
        f"{result['passed']}"
    )
    rest = [ok for name, ok in result["passed"].items() if name != "throughput"]
    sys.exit(0 if all(result["passed"].values()) else 2 if all(rest) else 1)


if __name__ == "__main__":
    main()
