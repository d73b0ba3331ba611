"""What all verbs have in common: an output that is a file, folders of images beside masks, Ctrl-C."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest

from dermseg.apps.cli import main as program
from dermseg.apps.cli.main import main
from dermseg.apps.cli.measure import reading_columns
from dermseg.apps.cli.progress import BarProgress, PlainProgress, make_progress
from dermseg.data.index import read_index
from dermseg.data.labelme import read_labelme
from dermseg.data.synthetic import synthesize
from dermseg.inference.journal import Entry
from dermseg.inference.outputs import Row
from dermseg.measure.geometry import measure_mask


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A photograph, its mask beside it, and an index of both."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image, mask, _ = synthesize(0, (120, 160))
    cv2.imwrite(str(folder / "a.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(folder / "a_mask.png"), mask.astype("uint8") * 255)
    (tmp_path / "index.csv").write_text(
        "image_id,image,masks,dataset,subject,lesion,group,split,width,height,licence,sha256\n"
        "a,photos/a.png,photos/a_mask.png,x,,,g,test,160,120,,\n"
    )
    return folder


def run(capture: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0), capture.readouterr().err


def fill(command: str, words: dict[str, Path]) -> list[str]:
    """The words of a command, with paths (which may have spaces) instead of names in capitals."""
    filled = command.split()
    for word, path in words.items():
        filled = [each.replace(word, str(path)) for each in filled]
    return filled


@pytest.mark.parametrize("place", ["file", "file/below"])
@pytest.mark.parametrize(
    "command",
    [
        "segment IMAGES -o OUT",
        "explain IMAGES -o OUT",
        "label propose IMAGES -o OUT",
        "label rank IMAGES -o OUT/rank.csv",
        "evaluate --data INDEX -o OUT",
        "score IMAGES IMAGES -o OUT",
        "measure IMAGES/a_mask.png -o OUT/table.csv",
        "track IMAGES IMAGES/a.png -o OUT",
        "data import folder --images IMAGES --masks IMAGES -o OUT/index.csv",
        "data split INDEX -o OUT/index.csv",
        "data export INDEX --format coco -o OUT",
        "data synth -n 1 -o OUT",
        "data download isic2016 -o OUT --mirror http://127.0.0.1:1",
        "dicom to-png DICOM -o OUT",
        "dicom deidentify IMAGES -o OUT",
    ],
)
def test_an_output_that_is_a_file_is_wrong_usage_before_any_work(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    if command.startswith("explain"):
        pytest.importorskip("torch", reason="needs the extra [train]")
    if command.startswith("dicom"):
        pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    words = {
        "DICOM": tmp_path / "a.dcm",
        "IMAGES": photographs,
        "INDEX": tmp_path / "index.csv",
        "OUT": tmp_path / place,
    }
    code, err = run(capsys, *fill(command, words))
    assert (code, err.count("a file, not a folder")) == (2, 1), err
    assert "try: choose another one with -o" in err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("empty", [["-o", ""], ["--output", ""], ["--output="]])
@pytest.mark.parametrize(
    "command",
    [
        "label propose IMAGES",
        "label rank IMAGES",
        "evaluate --data INDEX",
        "score IMAGES IMAGES",
        "measure IMAGES/a_mask.png",
        "track IMAGES IMAGES/a.png",
        "data import folder --images IMAGES --masks IMAGES",
        "data synth -n 1",
    ],
)
def test_an_empty_output_is_not_the_folder_that_one_is_in(
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    empty: list[str],
) -> None:
    """As of ``-o "$OUT"`` in a script that did not set it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = fill(command, {"IMAGES": photographs, "INDEX": tmp_path / "index.csv"})
    code, err = run(capsys, *words, *empty)
    assert (code, err.partition("\n")[0]) == (2, "error: -o is empty")
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "measure IMAGES/a_mask.png",
        "label rank IMAGES --overwrite",
        "data split INDEX --overwrite",
    ],
)
def test_a_table_that_is_a_folder_is_wrong_usage_before_any_work(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = tmp_path / "table.csv"
    folder.mkdir()
    words = fill(command, {"IMAGES": photographs, "INDEX": tmp_path / "index.csv"})
    code, err = run(capsys, *words, "-o", folder)
    assert (code, "table.csv: is a folder, and the output is a file" in err) == (2, True), err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("data split INDEX -o OUT.csv --ratios nan,nan,nan", "must be positive"),
        ("data split INDEX -o OUT.csv --ratios a=0.5,a=0.5,b=0.5", "every name once"),
        ("data split INDEX -o OUT.csv --ratios a=0.5,=0.5", "every name once"),
        ("data split INDEX -o OUT.csv --seed -1", "'--seed'"),
        ("label rank IMAGES -o OUT.csv --by random --seed -1", "'--seed'"),
        ("data download isic2016 -o OUT --timeout nan", "'--timeout'"),
        ("data download isic2016 -o OUT --timeout 0", "'--timeout'"),
        ("data download isic2016 -o OUT --backoff -1", "'--backoff'"),
    ],
)
def test_numbers_that_mean_nothing_are_wrong_usage(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    words = {"IMAGES": photographs, "INDEX": tmp_path / "index.csv", "OUT": tmp_path / "out"}
    code, err = run(capsys, *fill(command, words))
    assert code == 2 and said in err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_itself_ends_no_verb(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    (photographs / "loop.dcm").symlink_to("loop.dcm")
    for words in (
        ("segment", photographs, "-o", tmp_path / "out"),
        ("label", "rank", photographs, "-o", tmp_path / "rank.csv"),
        ("dicom", "to-png", photographs, "-o", tmp_path / "png"),
        ("dicom", "deidentify", photographs, "-o", tmp_path / "clean"),
    ):
        code, err = run(capsys, *words)
        assert (code, "loop.dcm: cannot be opened: Too many levels" in err) == (1, True), err
    assert len(list((tmp_path / "clean").rglob("*.png"))) == 2


def test_every_verb_leaves_masks_beside_photographs_out(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra [train]")
    commands = {
        "segment": ("segment", photographs, "-o", tmp_path / "out"),
        "explain": ("explain", photographs, "-o", tmp_path / "why"),
        "propose": ("label", "propose", photographs, "-o", tmp_path / "labels"),
        "rank": ("label", "rank", photographs, "-o", tmp_path / "rank.csv"),
    }
    for name, words in commands.items():
        code, err = run(capsys, *words)
        assert code == 0, name
        assert "1 file is left out: masks of other inputs, by name" in err, name
    assert [path.name for path in sorted((tmp_path / "why").iterdir())] == [
        "a.decoder_1.npy",
        "a.decoder_1.png",
    ]
    # nor are pictures of Grad-CAM photographs
    shutil.copytree(tmp_path / "why", photographs / "why")
    code, err = run(capsys, "label", "propose", photographs, "-o", tmp_path / "again")
    assert code == 0 and "1 file is left out: results of an earlier run" in err and "1 proposed" in err


def test_one_reason_for_one_broken_file(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra [train]")
    (photographs / "broken.jpg").write_bytes((photographs / "a.png").read_bytes()[:5000])
    reason = (
        "broken.jpg: the file is truncated: the PNG ends inside its IDAT part "
        "(copy it again from where it came, or save it anew in an image program)\n"
    )
    for words in (
        ("segment", photographs, "-o", tmp_path / "out"),
        ("explain", photographs, "-o", tmp_path / "why"),
        ("label", "propose", photographs, "-o", tmp_path / "labels"),
        ("label", "rank", photographs, "-o", tmp_path / "rank.csv"),
        ("measure", photographs / "broken.jpg"),
        ("track", photographs / "a.png", photographs / "broken.jpg"),
    ):
        code, err = run(capsys, *words)
        assert code == 1
        assert err.partition("broken.jpg")[2].startswith(reason.partition("broken.jpg")[2]), words


def test_what_holds_no_dicom_is_refused(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    code, err = run(capsys, "dicom", "to-png", photographs, "-o", tmp_path / "out")
    assert code == 2 and err.startswith("error: no DICOM file in ")


def test_ctrl_c_while_a_compiled_module_is_imported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(**_: object) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    def broken(**_: object) -> None:
        raise ImportError("initialization failed")

    monkeypatch.setattr(program, "import_module", lambda name: SimpleNamespace(app=interrupted))
    assert run(capsys, "segment") == (130, "")
    monkeypatch.setattr(program, "import_module", lambda name: SimpleNamespace(app=broken))
    with pytest.raises(ImportError):
        main(["segment"])

    def no_room(**_: object) -> None:
        raise ImportError("_imaging.so: failed to map segment from shared object")

    monkeypatch.setattr(program, "import_module", lambda name: SimpleNamespace(app=no_room))
    code, err = run(capsys, "segment")
    assert code == 1 and err.startswith("error: there is not enough memory\n")


def test_a_name_that_is_not_utf8_ends_no_verb(
    photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    odd = photographs / os.fsdecode(b"l\xe4sion.png")
    try:
        odd.write_bytes((photographs / "a.png").read_bytes())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for words in (
        ("segment", photographs, "-o", tmp_path / "out", "--save", "mask,labelme"),
        ("label", "propose", photographs),
        ("dicom", "deidentify", photographs, "-o", tmp_path / "clean", "--mapping", tmp_path / "who.csv"),
        ("label", "import", photographs, "-o", tmp_path / "index.csv", "--overwrite", "--proposals"),
    ):
        code, err = run(capfd, *words)
        assert code == 0, err
    saved = read_labelme(odd.with_suffix(".json").read_bytes())
    assert saved.image == odd.name, "the image that it belongs to is found again"
    assert len((tmp_path / "who.csv").read_text(encoding="utf-8").splitlines()) == 4
    assert [row.image_id for row in read_index(tmp_path / "index.csv")] == ["a"]
    assert "that is not UTF-8" in (tmp_path / "index.rejected.csv").read_text(encoding="utf-8")


def test_the_name_of_a_file_commands_no_terminal(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = photographs / "x\x1b[2J\x1b]0;title\x07.png"
    try:
        odd.write_bytes(b"junk")
    except OSError:
        pytest.skip("this file system has no such names")
    photograph = photographs / "a.png"
    for words in (
        ("score", odd, photographs / "a_mask.png"),
        ("segment", photographs, "-o", tmp_path / "out"),
        ("label", "propose", photographs),
        ("segment", photograph, "-o", odd),
    ):
        _, err = run(capsys, *words)
        assert "x_[2J" in err and not set(err) & set("\x1b\x07"), words


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dermseg.data.download.download", interrupted)
    code, err = run(capsys, "data", "download", "isic2016", "-o", tmp_path / "isic")
    # Rich before 15 ends the line of a bar that was not drawn
    assert (code, err.lstrip("\n")) == (130, "Stopped. The same command goes on from there.\n")


def test_readings_have_the_same_digits_in_tables_and_answers() -> None:
    reading = measure_mask(synthesize(0, (120, 160))[1], (0.0213, 0.0214))
    columns, plain = reading_columns(reading), reading.as_dict()
    for name in ("area_fraction", "perimeter_px", "perimeter_mm", "circularity", "area_mm2"):
        assert columns[name] == plain[name] == round(getattr(reading, name), 6), name
    assert (columns["centroid_x"], columns["centroid_y"]) == plain["centroid"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the folder that a program is in")
def test_a_working_folder_that_is_gone_is_said(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, err = run(capsys, "segment", photographs, "-o", "out")
    monkeypatch.chdir(tmp_path)
    assert (code, err) == (2, "error: the folder that you are in is gone\n  try: cd to another one\n")


@pytest.mark.parametrize(("term", "kind"), [("xterm", BarProgress), ("dumb", PlainProgress)])
def test_a_terminal_that_cannot_draw_a_bar_has_lines(
    term: str, kind: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a shell inside of Emacs a bar is not drawn at all: hours passed without a word."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    assert type(make_progress(3, log_json=False)) is kind


def test_a_narrow_terminal_shows_how_many_are_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    with BarProgress(1234) as progress:
        progress(None, Counter(ok=200))
        progress(Entry(Row("a.jpg", "failed"), (), {}), Counter(ok=200, failed=16))
    assert "216 of 1234 images, " in capsys.readouterr().err


@pytest.mark.parametrize("kind", [BarProgress, PlainProgress])
def test_what_follows_the_last_of_many_images_is_said(
    kind: type[PlainProgress], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 10,000 images table and report took 40 seconds, without a word."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: kind is BarProgress)
    monkeypatch.setenv("TERM", "xterm")
    with kind(10_000) as progress:
        progress(Entry(Row("a.jpg", "ok"), (), {}), Counter(ok=9999))
        assert "writing" not in capsys.readouterr().err
        progress(Entry(Row("b.jpg", "ok"), (), {}), Counter(ok=10_000))
    assert "writing table and report" in capsys.readouterr().err
