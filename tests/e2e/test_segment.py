"""User stories of `dermseg segment`: the program as people and scripts call it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.main import main


def dermseg(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as it is installed."""
    command = [sys.executable, "-m", "dermseg.apps.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def write_photo(path: Path, *, radius: int = 20, size: tuple[int, int] = (90, 120)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*size, 3), 210, np.uint8)
    cv2.circle(image, (size[1] // 2, size[0] // 2), radius, (20, 30, 40), -1)
    assert cv2.imwrite(str(path), image)


def test_a_zip_with_one_broken_file(tiny_bundle: Path, tmp_path: Path) -> None:
    """A zip from a colleague: backslashes, a path that wants out, a broken file; all but that is done."""
    write_photo(tmp_path / "photo.jpg")
    data = (tmp_path / "photo.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("visit\\one.jpg", "../../out.jpg", "two.jpg"):
            archive.writestr(name, data)
        archive.writestr("broken.jpg", data[: len(data) // 3])
        archive.writestr("notes.txt", "not an image")
    done = dermseg("segment", "in.zip", "-o", "res", "--model", tiny_bundle, "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["ok"], summary["failed"]) == (4, 3, 1)
    assert summary["outputs"] == "res" and summary["images_per_second"] > 0
    assert len(summary["model"]["sha256"]) == 64
    assert "broken.jpg: " in done.stderr and str(tmp_path) not in done.stderr
    assert "Traceback" not in done.stderr
    masks = sorted(p.relative_to(tmp_path / "res/masks").as_posix() for p in tmp_path.rglob("*_segm*.png"))
    assert masks == ["out_segmentation.png", "two_segmentation.png", "visit/one_segmentation.png"]
    with (tmp_path / "res/results.csv").open(newline="", encoding="utf-8") as file:
        assert {row["file"]: row["status"] for row in csv.DictReader(file)}["broken.jpg"] == "failed"
    report = (tmp_path / "res/report.html").read_text("utf-8")
    assert "4 images: lesion found in 3, 1 failed." in report
    assert not (tmp_path.parent / "out_segmentation.png").exists()
    (tmp_path / "broken.jpg").write_bytes(data[: len(data) // 3])
    done = dermseg("segment", "broken.jpg", "-o", "none", "--model", tiny_bundle, cwd=tmp_path)
    assert "none/report.html" in done.stderr and "none/masks" not in done.stderr  # nothing is there


def test_it_says_how_many_need_a_look(tmp_path: Path) -> None:
    """With the bundled model: in the terminal, in the report, and again where nothing was left to do."""
    write_photo(tmp_path / "in/a.jpg")
    write_photo(tmp_path / "in/b.png", radius=70)
    for more in ((), ("--resume",)):
        done = dermseg("segment", "in", "-o", "res", "--json", *more, cwd=tmp_path)
        with (tmp_path / "res/results.csv").open(newline="", encoding="utf-8") as file:
            verdicts = [row["verdict"] for row in csv.DictReader(file)]
        review, reject = verdicts.count("review"), verdicts.count("reject")
        assert review + reject, "a disc on grey is no photograph that the model knows"
        summary = json.loads(done.stdout)
        assert (summary["review"], summary["reject"]) == (review, reject)
        assert f"{review} to review, {reject} rejected" in done.stderr
        report = (tmp_path / "res/report.html").read_text("utf-8")
        assert (f", {review} to review" in report or not review) and (
            f", {reject} rejected" in report or not reject
        )


def test_json_logs_and_a_second_run(tiny_bundle: Path, tmp_path: Path) -> None:
    """A script: every line of the log is JSON; the folder is not overwritten by accident."""
    for name in ("a.png", "sub/b.png"):
        write_photo(tmp_path / "in" / name)
    arguments = ("segment", "in", "-o", "res", "--model", tiny_bundle)
    done = dermseg(*arguments, "--log-json", "--save", "mask", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["start", "image", "image", "end"]
    again = dermseg(*arguments, cwd=tmp_path)
    assert again.returncode == 2 and "--resume" in again.stderr and "--overwrite" in again.stderr
    assert dermseg(*arguments, "--resume", cwd=tmp_path).returncode == 2  # --save differs
    refused = dermseg(*arguments, "--log-json", cwd=tmp_path)
    (event,) = map(json.loads, refused.stderr.splitlines())
    assert (refused.returncode, event["event"], event["file"]) == (2, "error", "res")
    assert "earlier run" in event["message"] and "--resume" in event["hint"]
    write_photo(tmp_path / "in/a_mask.png")
    noted = dermseg(*arguments, "--resume", "--save", "mask", "--log-json", cwd=tmp_path)
    assert "1 file is left out" in json.loads(noted.stderr.splitlines()[0])["message"]
    same = dermseg(*arguments, "--resume", "--save", "mask", "--json", cwd=tmp_path)
    assert same.returncode == 0 and json.loads(same.stdout)["processed"] == 0


def test_a_model_without_margins_gives_the_maps_alone(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photo(tmp_path / "in/a.png")
    command = ["segment", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(tiny_bundle)]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--uncertainty", "--margin", "0.1"])
    assert ended.value.code == 1 and "no margins were fitted" in capsys.readouterr().err
    for more in ([], ["--resume"]):  # nothing that it should have written is missing
        with pytest.raises(SystemExit) as ended:
            main([*command, "--uncertainty", *more])
        told = capsys.readouterr().err
        assert (ended.value.code, "No margins: none were fitted for this model" in told) == (0, True), told
    assert "0 of them now" in told
    assert (tmp_path / "out/uncertainty/a_mean.png").exists() and not (tmp_path / "out/margins").exists()
    assert "no margins" in (tmp_path / "out/report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jpg"], "does not exist"),
        (["in", "--save", "masks"], "mask, overlay, probability, labelme"),
        (["in", "--threshold", "1.5"], "between 0 and 1"),
        (["in", "--lesions", "both"], "largest or all"),
        (["in", "--workers", "0"], "at least 1"),
        (["in", "--model", "nowhere"], "there is no bundle 'nowhere'"),
        (["in", "--resume", "--overwrite"], "exclude each other"),
        (["in", "--variant", "int9"], "has no variant 'int9'"),
        (["in", "--margin", "0.05"], "add --uncertainty"),
        (["in", "-o", ""], "-o is empty"),
        (["index.csv"], "lists of images are read by --engine ray"),
    ],
)
def test_wrong_usage_says_what_to_do(
    arguments: list[str],
    said: str,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "in/a.png")
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(tiny_bundle)]
    with pytest.raises(SystemExit) as ended:
        main(["segment", "-o", "res", *arguments])
    assert said in capsys.readouterr().err
    assert ended.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_outputs_inside_the_inputs_are_not_inputs(tiny_bundle: Path, tmp_path: Path) -> None:
    write_photo(tmp_path / "in/a.png")
    arguments = ("segment", "in", "-o", "in/results", "--model", tiny_bundle, "--json")
    assert dermseg(*arguments, cwd=tmp_path).returncode == 0
    again = dermseg(*arguments, "--resume", cwd=tmp_path)
    assert again.returncode == 0 and json.loads(again.stdout)["images"] == 1
    assert dermseg("segment", "in", "-o", "in", "--model", tiny_bundle, cwd=tmp_path).returncode == 2


def test_results_beside_the_photographs(tiny_bundle: Path, tmp_path: Path) -> None:
    """``-o .`` with a file, a folder, a glob; results are no inputs of the next run, nor removed."""
    for name in ("one.png", "in/a.png", "in/b.png"):
        write_photo(tmp_path / name)
    arguments = ("--model", tiny_bundle, "--json")
    for named, out, images in (("one.png", ".", 1), ("in", ".", 2), ("*", ".", 3), ("in/*", "in", 2)):
        done = dermseg("segment", named, "-o", out, "--overwrite", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        again = dermseg("segment", named, "-o", out, "--resume", *arguments, cwd=tmp_path)
        assert json.loads(again.stdout)["images"] == images and json.loads(again.stdout)["processed"] == 0
    refused = dermseg("segment", "in/masks", "-o", "in", "--overwrite", *arguments, cwd=tmp_path)
    assert refused.returncode == 2 and "results would go into 'in/masks'" in refused.stderr
    assert list((tmp_path / "in/masks").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows have no such names")
def test_a_folder_whose_name_is_not_utf8(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(b"caf\xe9"))
    write_photo(tmp_path / "a.png")
    (tmp_path / folder).mkdir()
    (tmp_path / "a.png").rename(tmp_path / folder / "a.png")
    done = dermseg("segment", folder, "-o", "res", "--model", tiny_bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "caf_" in (tmp_path / "res/report.html").read_text("utf-8")
    assert json.loads((tmp_path / "res/run.json").read_bytes())["inputs"] == ["caf_"]


@pytest.mark.skipif(os.name == "nt", reason="no limits on files there")
def test_a_full_disk_is_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    """Wherever it happens; here the journal is the first file that is too large."""
    for index in range(12):
        write_photo(tmp_path / f"in/{index}.png")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000));"
    command = [sys.executable, "-c", f"{limited} from dermseg.apps.cli.main import main; main(sys.argv[1:])"]
    arguments = ["segment", "in", "-o", "res", "--save", "mask", "--model", str(tiny_bundle)]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "journal.jsonl: cannot be written" in done.stderr
    assert "--resume" in done.stderr and "Traceback" not in done.stderr
    done = dermseg(*arguments, "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0 and 0 < json.loads(done.stdout)["processed"] < 12


@pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")
def test_without_streams_the_work_is_done(tiny_bundle: Path, tmp_path: Path) -> None:
    """As a service or ``pythonw`` runs it; also by ``python -m dermseg``."""
    write_photo(tmp_path / "a.png")
    command = f"'{sys.executable}' -m dermseg segment a.png -o res --json --model '{tiny_bundle}' >&- 2>&-"
    assert subprocess.run(command, cwd=tmp_path, shell=True, check=False).returncode == 0
    assert (tmp_path / "res/report.html").is_file()
    if Path("/dev/full").exists():
        command = command.replace(">&- 2>&-", "--resume >/dev/full")
        for unbuffered in ("", "1"):  # what is buffered meets the full disk only at the very end
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
                shell=True,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1 and done.stderr.endswith("error: No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes are closed in another way there")
@pytest.mark.parametrize("more", [[], ["--log-json"]])
def test_nobody_listening_ends_no_batch(more: list[str], tiny_bundle: Path, tmp_path: Path) -> None:
    """What reads the log has ended, or the terminal was closed: all images are done, and the code says so."""
    write_photo(tmp_path / "a.png")
    command = [sys.executable, "-m", "dermseg", "segment", "a.png", "-o", "res", *more]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*command, "--model", tiny_bundle], cwd=tmp_path, stderr=write, timeout=120, check=False
        )
    finally:
        os.close(write)
    assert done.returncode == 0
    assert (tmp_path / "res/report.html").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="the encoding of file names is the locale's")
def test_names_that_this_system_cannot_write(tiny_bundle: Path, tmp_path: Path) -> None:
    """From a zip, in a locale of 8 bits: one line that says what to set."""
    write_photo(tmp_path / "photo.jpg")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "photo.jpg", "\u65e5.jpg")
    narrow = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "dermseg", "segment", "in.zip", "-o", "res", "--model", str(tiny_bundle)]
    done = subprocess.run(command, cwd=tmp_path, env=narrow, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 2), done.stderr
    assert "\\u65e5" in done.stderr and "PYTHONUTF8=1" in done.stderr
    done = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, env={**narrow, "PYTHONUTF8": "1"}, check=False
    )
    assert done.returncode == 0 and (tmp_path / "res/masks/\u65e5_segmentation.png").is_file()


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_interrupted_and_resumed(number: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """Ctrl-C ends politely, and so does what a container is stopped with; a kill does not.

    --resume gives the same masks either way.
    """
    for index in range(60):
        write_photo(tmp_path / f"in/{index}.png", radius=10 + index, size=(600, 800))
    arguments = ("segment", "in", "--model", tiny_bundle, "--workers", "1", "-o")
    assert dermseg(*arguments, "whole", cwd=tmp_path).returncode == 0
    # On a slow disk: the signal does not come after the end, however busy the machine is.
    slowly = (
        "import time; from dermseg.apps.cli.main import run; from dermseg.inference import stages as s; "
        "write = s.atomic_write; s.atomic_write = lambda *a: (time.sleep(0.04), write(*a)); run()"
    )
    command = [sys.executable, "-c", slowly, *map(str, arguments), "res"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    journal, limit = tmp_path / "res/journal.jsonl", time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 5) and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(getattr(signal, number))
    _, said = process.communicate(timeout=60)
    if number != "SIGKILL":
        assert process.returncode == 130 and "--resume" in said
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "res/results.csv").exists()
    done = dermseg(*arguments, "res", "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["processed"] < 60
    files = {p.relative_to(tmp_path / "whole"): p for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path / "res") for p in (tmp_path / "res").rglob("*") if p.is_file()} == set(
        files
    )
    for relative, path in files.items():
        if path.suffix in (".png", ".jpg"):
            assert (tmp_path / "res" / relative).read_bytes() == path.read_bytes(), relative
