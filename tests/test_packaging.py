"""What people install: a whole wheel that starts without torch and finds its model anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread

import pytest

import dermseg

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = "dermseg/bundles/"
BUNDLE_LIMIT, ALL_LIMIT = 12_000_000, 25_000_000

# Imports every module of the everyday install in an interpreter where what only [train] and the dev group
# bring cannot be imported.
IMPORT_CORE = """
import importlib, pkgutil, sys
for name in "torch safetensors onnx onnxscript scipy matplotlib tensorboard pandas pytest fastapi".split():
    sys.modules[name] = None
import dermseg
rooms = "models", "training", "export", "explain", "experiments", "apps.api", "apps.dashboard", "apps.desktop"
rooms += tuple(f"apps.cli.{verb}" for verb in ("train", "suite", "export"))
skipped = tuple(f"dermseg.{room}" for room in rooms)
names = [m.name for m in pkgutil.walk_packages(dermseg.__path__, "dermseg.", onerror=lambda name: None)]
for name in names:
    if not name.startswith(skipped):
        importlib.import_module(name)
print(len(names))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the build backend itself: no network, no isolated environment."""
    pytest.importorskip("hatchling", reason="hatchling (dev group) builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_source_archive_is_the_whole_project(tmp_path: Path) -> None:
    """Its tests pass as well: they read the web page, the locks and the papers of the project."""
    pytest.importorskip("hatchling", reason="hatchling (dev group) builds the archive")
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: nothing says which files belong to the project")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        n for n in listed.splitlines() if not n.startswith((".ci/", ".github/")) and (ROOT / n).exists()
    }
    assert not wanted - names


def test_a_clone_on_windows_has_the_bytes_that_the_cards_know() -> None:
    """Git for Windows changes the line ends of text where nothing forbids it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    for name in ("src/dermseg/bundles/default/trust.json", "containers/install.sh"):
        command = ["git", "-c", "core.autocrlf=true", "cat-file", "--filters", f":{name}"]
        content = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
        assert b"\n" in content and b"\r" not in content


def test_other_systems_run_the_tests_that_make_test_runs() -> None:
    """Those of ``tests/system`` need Debian's packages, /proc and SIGKILL."""
    for file in ("Makefile", ".github/workflows/ci.yml"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if "pytest -n" in line]
        assert found and all("--ignore=tests/system" in line for line in found)


def test_commands_for_the_small_torch_find_everything_else_where_it_is() -> None:
    """PyTorch's index alone has neither the versions in constraints.txt nor uv."""
    for file in ("Makefile", ".github/workflows/ci.yml", "CONTRIBUTING.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert "--extra-index-url https://download.pytorch.org" in text and " --index-url" not in text


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder outside the repository; dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the unpacked package's program in an empty place."""
    code = "import sys; sys.modules['torch'] = None; from dermseg.apps.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert {"dermseg/py.typed", "dermseg/report/report.html", f"{BUNDLES}default/card.json"} <= names
        folders = [name.removesuffix("card.json") for name in names if name.endswith("/card.json")]
        for folder in folders:
            for variant in json.loads(archive.read(f"{folder}card.json"))["variants"].values():
                content = archive.read(folder + variant["file"])
                assert hashlib.sha256(content).hexdigest() == variant["sha256"]
    information = next(name.split("/")[0] for name in names if ".dist-info/" in name)
    assert {f"{information}/licenses/{name}" for name in ("LICENSE", "THIRD_PARTY_LICENSES.md")} <= names
    assert all(name.startswith(("dermseg/", f"{information}/")) for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".pt", ".safetensors", ".tmp"))]
    for folder in folders:
        assert sum(size for name, size in sizes.items() if name.startswith(folder)) <= BUNDLE_LIMIT
    assert sum(size for name, size in sizes.items() if name.startswith(BUNDLES)) <= ALL_LIMIT


def test_the_installed_package_finds_its_model_outside_the_repository(installed: Path) -> None:
    done = run_installed(installed, "doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert Path(report["model"]["path"]).is_relative_to(installed)
    assert report["model"]["dice"] > 0.5  # on a drawn lesion: the model is one, not noise


def test_everyday_modules_do_not_import_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_CORE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def test_help_and_version_agree_with_the_metadata() -> None:
    program = [sys.executable, "-m", "dermseg.apps.cli.main"]
    text = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(verb in text for verb in ("segment", "train", "doctor"))
    version = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True).stdout
    assert version == f"dermseg {dermseg.__version__}\n"
    assert metadata.version("dermseg") == dermseg.__version__


def test_versions_in_the_documents_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {dermseg.__version__}\n" in citation


def test_the_everyday_install_does_not_require_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = " ".join(project["dependencies"])
    assert not [name for name in ("torch", "scipy", "pandas", "matplotlib") if name in required]


def test_the_extra_all_is_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    (everything,) = extras.pop("all")
    assert everything == f"dermseg[{','.join(extras)}]"


def test_constraints_hold_a_plain_version_for_every_requirement() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(pin.count("==") == 1 and "+" not in pin and "/" not in pin for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*document["project"]["dependencies"], *document["project"]["optional-dependencies"]["train"]]
    wanted += document["dependency-groups"]["dev"]
    names = {wish.partition(">")[0].lower().replace("_", "-") for wish in wanted}
    assert names <= pinned


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_clean_keeps_a_trained_bundle(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    made = ["dist/dermseg-1.whl", "dist/dermseg-1.tar.gz", "web/dist/a", "web/node_modules/a", "build/a"]
    kept = ["dist/isic/card.json", "dist/isic.zip", "web/src/a"]
    for name in made + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"Makefile", *kept}


@pytest.mark.skipif(os.name == "nt" or shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", ["make venv", "sh scripts/demo.sh"])
def test_an_environment_that_could_not_be_made_is_made_again(command: str, tmp_path: Path) -> None:
    """Debian's Python leaves one behind where python3-venv is missing; that was installed then, in vain."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    python = tmp_path / "python"
    python.write_text(
        """#!/bin/sh
        case $2 in
        import*) test ! -e too-old ;;
        venv) echo venv >>made; mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp has-python3-venv "$3/pip" ;;
        pip) test -e "$(dirname "$0")/../pip" ;;
        esac
        """
    )
    python.chmod(0o755)
    # What 'make test' was called with is handed on to every make below it, its environment among it.
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS")) and k != "VENV"}

    def run() -> str:
        return subprocess.run(
            command.split(),
            cwd=tmp_path,
            env={**ours, "PYTHON": str(python)},
            check=False,
            capture_output=True,
            text=True,
        ).stderr

    (tmp_path / "too-old").touch()
    assert "is older than Python 3.11" in run() and not (tmp_path / "made").exists()
    (tmp_path / "too-old").unlink()
    run()
    (tmp_path / "has-python3-venv").touch()
    run()
    assert (tmp_path / "made").read_text() == "venv\n" * 2


@pytest.mark.parametrize(
    ("program", "module", "port"),
    [("api", "serve", "DERMSEG_PORT=8000"), ("dashboard", "dashboard", "DERMSEG_PORT=8501")],
)
def test_each_image_starts_the_program_that_is_in_it(program: str, module: str, port: str) -> None:
    """Before, that of the dashboard started the server, whose packages it does not have."""
    stages = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")
    (stage,) = [text for text in stages if text.startswith(f"base AS image-{program}\n")]
    (command,) = [json.loads(line[4:]) for line in stage.splitlines() if line.startswith("CMD ")]
    assert command[0] == module and port in stage and f"EXPOSE {port[-4:]}" in stage
    assert stages[-1].strip() == "image-${PROGRAM}"
    assert (ROOT / "requirements" / f"{program}.txt").exists()
    if program == "dashboard":
        health = re.search(r"DERMSEG_HEALTH: (\S+)", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
        assert health is not None and f"DERMSEG_HEALTH={health[1]}" in stage and "8501" in command


def test_the_health_check_of_the_image_asks_the_container_itself() -> None:
    """Container engines put a clinic's proxy into the environment; it knows nothing of the container."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            proxy = {"http_proxy": "http://127.0.0.1:9"}
            codes = [
                subprocess.run(
                    [sys.executable, ROOT / "containers" / "health.py"],
                    env={
                        **os.environ,
                        **proxy,
                        "DERMSEG_PORT": str(server.server_port),
                        "DERMSEG_HEALTH": path,
                    },
                    check=False,
                ).returncode
                for path in ("/health", "/ready")
            ]
        finally:
            server.shutdown()
    assert codes == [0, 1]
