"""How long the dashboard takes to start, and from a dropped photograph to its outline, in a real browser.

Each round starts the installed program anew, opens the page in Debian's Chromium, drops a photograph of 3000
x 2000 pixels and waits until the browser has drawn the picture with the outline; then a second photograph.

    python benchmarks/dashboard_start.py [--rounds 5]

Limits of the project: 4 s to start, 1.5 s from the drop to the outline, on two cores that do nothing else.
Needs the extra 'dashboard', playwright and chromium. Writes ``results/dashboard_start.json``.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import sync_playwright

from common import RESULTS, describe, one_line, save
from dermseg.data.synthetic import synthesize

LIMITS = {"start": 4.0, "first_overlay": 1.5}


def one_round(browser: Any, photographs: list[Path]) -> dict[str, float]:
    """Seconds from the command to the first answer, to a page that is drawn, and to outlines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "dermseg.apps.cli.main", "dashboard", "--no-browser", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urlopen(f"{address}/_stcore/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.02)
        found = {"start": time.perf_counter() - begin}
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        begin = time.perf_counter()
        page.goto(address)
        page.get_by_text("Find the lesion").wait_for()
        found["first_page"] = time.perf_counter() - begin
        for name, photograph in zip(("first_overlay", "second_overlay"), photographs, strict=True):
            if name == "second_overlay":
                page.reload()
                page.get_by_text("Find the lesion").wait_for()
            page.wait_for_timeout(2000)  # nobody drops a file sooner
            begin = time.perf_counter()
            page.locator('input[type="file"]').first.set_input_files(str(photograph))
            page.locator("img.after").wait_for()
            page.locator("img.after").evaluate("picture => picture.decode()")
            found[name] = time.perf_counter() - begin
        page.close()
        return found
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "dashboard_start.json")
    args = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        photographs = []
        for seed in (1, 2):
            photographs.append(Path(name) / f"{seed}.jpg")
            Image.fromarray(synthesize(seed, (2000, 3000))[0]).save(photographs[-1], quality=92)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        rounds = [one_round(browser, photographs) for _ in range(args.rounds)]
        browser.close()
    seconds = {key: round(median(r[key] for r in rounds), 3) for key in rounds[0]}
    result = {**describe(), "rounds": args.rounds, "seconds": seconds, "limits": LIMITS}
    save(result, args.output)
    for key, value in seconds.items():
        print(f"{key:<16}{value:6.2f} s{f', limit {LIMITS[key]} s' if key in LIMITS else ''}")
    print(one_line(result))


if __name__ == "__main__":
    main()
