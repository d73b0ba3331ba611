"""SIGKILL of the REST server at random moments with work in flight: every accepted job is done exactly once.

In each round a server on the same state folder gets jobs (with idempotency keys, as a careful client sends
them) and a stream of single images, and is killed at a random moment. A job whose answer was lost is sent
again with its key. After the last kill all jobs are waited for. Then:

- each job's table has one row for each of its images, and its masks are those of ``dermseg segment``;
- the audit log verifies, and has exactly one record for each mask of a job;
- every single image that was answered has its record in the log.

    python benchmarks/api_kill.py [--kills 20] [--images 12] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from api_common import Answer, Connection, Server, command_masks, copy_model, write_images
from common import RESULTS, describe, save
from dermseg.audit import verify

ZIP = {"Content-Type": "application/zip"}
GONE = (OSError, asyncio.IncompleteReadError)
WAIT_S = 900.0


async def submit(server: Server, key: str, body: bytes) -> Answer:
    """Send a job until it is accepted."""
    connection = Connection(server)
    try:
        return await connection.ask("POST", "/v1/jobs?tta=true", body, {**ZIP, "Idempotency-Key": key})
    finally:
        connection.close()


async def stream(server: Server, images: list[bytes], receipts: list[str]) -> None:
    """Single images, one after the other, until the server is gone."""
    connection = Connection(server)
    try:
        while True:
            for data in images:
                answer = await connection.ask("POST", "/v1/segment", data, {"Accept": "image/png"})
                if answer.status == 200:
                    receipts.append(answer.headers["audit-record"])
    except GONE:
        connection.close()


async def round_of(
    server: Server, keys: list[str], body: bytes, images: list[bytes], *, receipts: list[str], delay: float
) -> dict[str, str | None]:
    """Work, and a kill after `delay`; the id of each accepted job, None where the answer was lost."""

    async def kill() -> None:
        await asyncio.sleep(delay)
        assert server.process is not None
        server.process.send_signal(signal.SIGKILL)

    async def send(key: str) -> str | None:
        try:
            answer = await submit(server, key, body)
        except GONE:
            return None
        return str(answer.json()["id"]) if answer.status in (200, 202) else None

    streams = [stream(server, images, receipts) for _ in range(2)]
    found = await asyncio.gather(asyncio.gather(*map(send, keys)), kill(), *streams)
    return dict(zip(keys, found[0], strict=True))


async def finish(server: Server, jobs: dict[str, str]) -> dict[str, bytes]:
    """Wait for every job; the result of each."""
    connection = Connection(server)
    results = {}
    deadline = time.monotonic() + WAIT_S
    for key, job in jobs.items():
        while True:
            state = (await connection.ask("GET", f"/v1/jobs/{job}")).json()
            if state["state"] not in ("queued", "running"):
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"job {key} is still {state}")
            await asyncio.sleep(0.2)
        answer = await connection.ask("GET", f"/v1/jobs/{job}/result")
        results[key] = answer.body if answer.status == 200 else b""
    connection.close()
    return results


def wrong_in(result: bytes, masks: dict[str, bytes]) -> list[str]:
    """What is not as it should be in a job's result."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(result))
    except zipfile.BadZipFile:
        return ["there is no result"]
    rows = Counter(row["file"] for row in csv.DictReader(io.StringIO(archive.read("results.csv").decode())))
    wrong = [f"{name}: {count} rows" for name, count in rows.items() if count != 1]
    if len(rows) != len(masks):
        wrong.append(f"{len(rows)} rows for {len(masks)} images")
    for name, mask in masks.items():
        stored = f"masks/{name}_segmentation.png"
        if stored not in archive.namelist() or archive.read(stored) != mask:
            wrong.append(f"{name}: another mask")
    return wrong


def experiment(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill, restart, finish, compare; the record as plain values."""
    rng = random.Random(args.seed)
    model = copy_model(args.model, folder)
    paths = write_images(folder / "images", args.images)
    masks, _ = command_masks(folder / "images", folder / "out", model, "--tta")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    body, images = buffer.getvalue(), [path.read_bytes() for path in paths]
    server = Server(folder / "state", model)
    accepted: dict[str, str] = {}
    receipts: list[str] = []
    lost: list[str] = []
    for kill in range(args.kills):
        server.start()
        keys = [*lost, f"job-{kill}-a", f"job-{kill}-b"]
        delay = rng.uniform(0.0, args.longest)
        found = asyncio.run(round_of(server, keys, body, images, receipts=receipts, delay=delay))
        assert server.process is not None
        server.process.wait()
        accepted |= {key: job for key, job in found.items() if job}
        lost = [key for key, job in found.items() if not job]
        print(f"kill {kill + 1}/{args.kills} after {delay:.2f} s, {len(lost)} answers lost", file=sys.stderr)
    server.start()
    for key in lost:
        accepted[key] = asyncio.run(submit(server, key, body)).json()["id"]
    results = asyncio.run(finish(server, accepted))
    server.end()
    problems = {key: wrong for key, result in results.items() if (wrong := wrong_in(result, masks))}
    audit = verify(folder / "state" / "audit.jsonl")
    records = [json.loads(line) for line in (folder / "state" / "audit.jsonl").read_text().splitlines()]
    jobs = Counter(r["subject"] for r in records if r["subject"].startswith("job/"))
    expected = {f"job/{job}/{n}" for job in accepted.values() for n in range(1, len(paths) + 1)}
    known = {f"{r['seq']}:{r['hash']}" for r in records}
    checks = {
        "every_job_once": not problems and len(set(accepted.values())) == len(accepted) == 2 * args.kills,
        "audit_verifies": audit.ok,
        "one_record_for_each_mask": set(jobs) == expected and set(jobs.values()) <= {1},
        "answered_images_recorded": set(receipts) <= known,
    }
    return {
        **describe(),
        "kills": args.kills,
        "jobs": len(accepted),
        "images_per_job": len(paths),
        "single_images_answered": len(receipts),
        "audit_records": audit.records,
        "audit_problem": audit.problem,
        "problems": problems,
        "passed": checks,
        "seed": args.seed,
    }


def main() -> None:
    """Run the experiment, write the JSON; exit code 1 where a job was lost, done twice or done wrongly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=12, help="in each job")
    parser.add_argument("--longest", type=float, default=4.0, help="seconds from ready to kill, at most")
    parser.add_argument("--model", default="default", help="name or path of a bundle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "api_kill.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = experiment(args, Path(folder))
    save(result, args.output)
    print(f"{result['kills']} kills, {result['jobs']} jobs of {result['images_per_job']}: {result['passed']}")
    sys.exit(0 if all(result["passed"].values()) else 1)


if __name__ == "__main__":
    main()
