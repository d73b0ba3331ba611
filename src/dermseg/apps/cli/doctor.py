"""``dermseg doctor``: what is installed, and whether the main job works on this machine."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dermseg.apps.cli.common import JsonOption, new_app, print_json
from dermseg.errors import DermsegError
from dermseg.version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = new_app()

# distribution -> module, for what the main job cannot do without
CORE = {
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL.Image",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "typer": "typer",
    "rich": "rich",
    "onnxruntime": "onnxruntime",
}
_RUNS = 5
_MARKS = {"ok": "ok     ", "missing": "missing", "old": "too old", "broken": "BROKEN "}


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis. ``missing`` and ``old`` are of something optional; ``broken`` fails the
    command.
    """

    name: str
    status: Literal["ok", "missing", "old", "broken"]
    detail: str
    hint: str | None = None


@app.command()
def doctor(
    model: Annotated[str, typer.Option(help="The bundle to try: a name, folder or zip.")] = "default",
    as_json: JsonOption = False,
) -> None:
    """Say what is installed and whether it works. Exit code 1 when something needed is broken."""
    needed = {_name(line): line for line in _requirements() if "extra" not in line.partition(";")[2]}
    checks = [check_core(name, module, needed.get(name, name)) for name, module in CORE.items()]
    tried: dict[str, Any] | None = None
    runtimes: dict[str, Any] | None = None
    if all(check.status == "ok" for check in checks):
        try:
            tried = try_model(model)
            detail = (
                f"{tried['name']} {tried['version']}: sha256 fits, {tried['milliseconds']:.0f} ms per image "
                f"of {tried['image']}, Dice {tried['dice']:.2f} on a drawn lesion"
            )
            checks.append(Check(f"model {model}", "ok", detail))
        except DermsegError as error:
            where = f"{error.file}: " if error.file else ""
            checks.append(Check(f"model {model}", "broken", where + error.message, error.hint))
        runtimes = describe_runtimes(model)
    extras = [check_extra(name, parts) for name, parts in extras_of_package().items()]
    ok = not any(check.status == "broken" for check in checks)
    system = describe_system()
    if as_json:
        print_json(
            {
                "ok": ok,
                "version": __version__,
                **system,
                "model": tried,
                "runtimes": runtimes,
                "checks": [asdict(check) for check in (*checks, *extras)],
            }
        )
    else:
        cpu = system["cpu"]
        lines = [
            f"dermseg {__version__}, Python {system['python']}, {system['platform']}",
            f"{cpu['name']}: {cpu['usable']} of {cpu['count']} CPUs usable",
            f"ONNX Runtime providers: {', '.join(system['providers']) or 'none'}",
            *runtime_lines(runtimes),
            *(f"{_MARKS[c.status]}  {c.name:<22}  {c.detail}" for c in (*checks, *extras)),
            *(f"  try: {c.hint}" for c in checks if c.status == "broken" and c.hint),
        ]
        sys.stdout.write("\n".join(lines) + "\n")
    raise typer.Exit(0 if ok else 1)


def check_core(distribution: str, module: str, requirement: str) -> Check:
    """Import a package of the everyday install, say its version, and whether it is the one required."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken wheel fails in ways of its own
        return Check(
            distribution, "broken", f"{type(error).__name__}: {error}", f"pip install {distribution}"
        )
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Check(distribution, "ok", "present (from another distribution)")
    if is_too_old(version, requirement):
        return Check(
            distribution,
            "broken",
            f"{version} is too old: {requirement}",
            f'pip install --upgrade "{requirement}"',
        )
    return Check(distribution, "ok", version)


def _requirements() -> list[str]:
    """What the installed package declares, one requirement a line."""
    try:
        return metadata.requires("dermseg") or []
    except metadata.PackageNotFoundError:
        return []


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def extras_of_package() -> dict[str, list[str]]:
    """Extra -> what it requires (``pyarrow>=17``), as the installed package declares it."""
    extras: dict[str, list[str]] = {}
    for line in _requirements():
        extra = re.search(r"""extra\s*==\s*["']([^"']+)""", line)
        if extra and extra[1] != "all":  # the others together
            extras.setdefault(extra[1], []).append(line.partition(";")[0].strip())
    return extras


def is_too_old(version: str, requirement: str) -> bool:
    """Whether a version is below the ``>=`` of a requirement, by their numbers: 2.6.0rc1 counts as 2.6.0.

    >>> is_too_old("16.1.0", "pyarrow>=17"), is_too_old("17", "pyarrow>=17.0"), is_too_old("1", "numpy")
    (True, False, False)
    """
    least = re.search(r">=\s*([0-9.]+)", requirement)
    if least is None:
        return False
    has, needs = _numbers(version), _numbers(least[1])
    return has + [0] * (len(needs) - len(has)) < needs


def _numbers(version: str) -> list[int]:
    """Those that a version begins with: of ``2.6.0rc1`` 2, 6 and 0."""
    return [int(part) for part in re.split(r"[^0-9.]", version)[0].split(".") if part]


def check_extra(extra: str, requirements: list[str]) -> Check:
    """Whether all that an extra requires is installed; nothing is imported (torch takes seconds)."""
    found, absent, old = [], [], []
    for requirement in requirements:
        name = _name(requirement)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
            continue
        found.append(f"{name} {version}")
        if is_too_old(version, requirement):
            old.append(f"{name} {version} ({requirement})")
    command = f'pip install "dermseg[{extra}]"'
    if absent:
        return Check(f"[{extra}]", "missing", f"without {', '.join(absent)}: {command}", command)
    if old:
        return Check(f"[{extra}]", "old", f"{', '.join(old)}: {command}", command)
    return Check(f"[{extra}]", "ok", ", ".join(found))


def describe_system() -> dict[str, Any]:
    """Python, platform, CPU and the execution providers of ONNX Runtime."""
    from dermseg.inference.machine import cpu_name
    from dermseg.inference.threads import available_cpus

    try:
        import onnxruntime as ort

        providers = list(ort.get_available_providers())
    except Exception:  # reported by its own check
        providers = []
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"name": cpu_name(), "count": os.cpu_count(), "usable": available_cpus()},
        "providers": providers,
    }


def describe_runtimes(name: str) -> dict[str, Any] | None:
    """What can run a network here, and which one ``dermseg segment`` takes for many images; None without a
    bundle. OpenVINO and CUDA are timed where that was not done before, which takes some seconds."""
    from dermseg.inference.bundle import load_bundle
    from dermseg.inference.runtimes import FEW_IMAGES, choose_runtime, known_choice, obstacles

    try:
        bundle = load_bundle(name)
        chosen = choose_runtime(bundle)
        measured = known_choice(bundle)
    except DermsegError:
        return None  # the check of the model says why
    return {
        "obstacles": obstacles(),
        "chosen": chosen,
        "milliseconds": measured["milliseconds"] if measured else None,
        "failed": measured.get("failed", {}) if measured else {},
        "few_images": FEW_IMAGES,
    }


def runtime_lines(runtimes: dict[str, Any] | None) -> list[str]:
    """The same for people."""
    if runtimes is None:
        return []
    times = runtimes["milliseconds"] or {}
    lines = []
    for name, obstacle in (runtimes["obstacles"] | runtimes["failed"]).items():
        detail = obstacle or "can be used"
        if name in times:
            detail += f", {times[name]:.1f} ms per image on one thread"
        lines.append(f"{_MARKS['missing' if obstacle else 'ok']}  {f'runtime {name}':<22}  {detail}")
    taken = runtimes["chosen"]
    if taken != "onnxruntime":
        taken += f" (from {runtimes['few_images']} images on; below, and in Python, onnxruntime)"
    lines.append(f"         taken by itself         {taken}")
    return lines


def try_model(name: str) -> dict[str, Any]:
    """Load a bundle (its hash is checked) and segment a drawn lesion.

    Raises
    ------
    ModelError
        The bundle is missing or damaged, or its model does not run.
    """
    from dermseg.inference.predictor import load_model

    started = time.perf_counter()
    model = load_model(name)
    loaded = time.perf_counter()
    image, truth = draw_lesion(768, 1024)
    seconds = []
    for _ in range(_RUNS):
        begun = time.perf_counter()
        result = model.segment(image)
        seconds.append(time.perf_counter() - begun)
    both = int((result.mask & truth).sum())
    return {
        "name": model.card.name,
        "version": model.card.version,
        "path": str(model.bundle.path),
        "variant": model.variant,
        "sha256": model.sha256,
        "threads": model.session.threads,
        "load_milliseconds": round(1000 * (loaded - started), 1),
        "milliseconds": round(1000 * median(seconds), 1),
        "image": f"{image.shape[1]} x {image.shape[0]}",
        "status": result.status,
        "dice": round(2 * both / (result.area_px + int(truth.sum())), 4),
    }


def draw_lesion(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A brown ellipse with a soft border on skin, and its mask: enough to see that a model works."""
    import cv2
    import numpy as np

    center, axes = (width // 2, height // 2), (width // 5, height // 4)
    disc = np.zeros((height, width), np.uint8)
    cv2.ellipse(disc, center, axes, 20.0, 0.0, 360.0, 255, cv2.FILLED)
    blend = cv2.GaussianBlur(disc, (0, 0), height / 60).astype(np.float32)[..., None] / 255
    skin, pigment = (np.array(c, np.float32) for c in ((224, 178, 152), (104, 62, 44)))
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 1)).astype(np.float32)
    image = np.clip(skin * (1 - blend) + pigment * blend + grain, 0, 255).astype(np.uint8)
    return image, disc > 0
