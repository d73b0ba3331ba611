"""A batch keeps its promises: names, rows, journal, resume, refusals."""

from __future__ import annotations

import csv
import errno
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dermseg.errors import DermsegError, UsageError
from dermseg.images.find import find_images
from dermseg.images.roles import JOURNAL
from dermseg.inference import folder, stages
from dermseg.inference.batch import BatchResult, run_batch
from dermseg.inference.journal import Journal, read_entries
from dermseg.inference.options import BatchOptions
from dermseg.inference.outputs import COLUMNS, output_files, parse_save, plan_stems
from dermseg.inference.pipeline import Plan, plan_work
from dermseg.inference.predictor import Model, load_model
from dermseg.report.batch import write_batch_report

Batch = Callable[..., BatchResult]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return load_model(tiny_bundle, threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven files: five with a dark disc, one without, one that is no image."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(["a.png", "a.bmp", "b.jpg", "sub/c.png", "sub/d.png"]):
        write_disc(folder / name, radius=12 + 3 * index)
    cv2.imwrite(str(folder / "skin.png"), np.full((60, 90, 3), 210, np.uint8))
    (folder / "broken.jpg").write_bytes(b"not an image at all")
    return folder


def write_disc(path: Path, *, radius: int, size: tuple[int, int] = (90, 120)) -> None:
    image = np.full((*size, 3), 210, np.uint8)
    cv2.circle(image, (size[1] // 2, size[0] // 2), radius, (20, 30, 40), -1)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def batch(model: Model, photos: Path, tmp_path: Path) -> Batch:
    def run(out: str = "out", **arguments: object) -> BatchResult:
        options = arguments.pop("options", BatchOptions())
        plan = Plan(int(arguments.pop("processes", 1)), 2, 1)  # type: ignore[call-overload]
        return run_batch(model, find_images([photos]), tmp_path / out, options, plan=plan, **arguments)  # type: ignore[arg-type]

    return run


def snapshot(out: Path) -> dict[str, bytes]:
    """Every file and its content, with what is a time taken out."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "results.csv":
                rows = list(csv.DictReader(data.decode().splitlines()))
                data = json.dumps([{**row, "seconds": ""} for row in rows]).encode()
            elif path.name == "run.json":
                data = json.dumps({**json.loads(data), "timing": None}).encode()
            elif path.name == JOURNAL:
                lines = [json.loads(line) for line in data.splitlines()]
                for line in lines[1:]:
                    line["stages"], line["row"]["seconds"] = None, None
                data = json.dumps(lines).encode()
            found[path.relative_to(out).as_posix()] = data
    return found


def test_one_row_per_input_in_input_order(batch: Batch, tmp_path: Path) -> None:
    result = batch()
    with (tmp_path / "out/results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = {"images": 7, "ok": 5, "no_lesion": 1, "failed": 1, "review": 0, "reject": 0}  # no input gate
    assert result.counts == counts
    assert tuple(rows[0]) == COLUMNS
    assert [row["file"] for row in rows] == list(result.order)
    by_name = {row["file"]: row for row in rows}
    broken, skin, c = by_name["broken.jpg"], by_name["skin.png"], by_name["sub/c.png"]
    assert broken["status"] == "failed" and broken["message"] and not broken["mask"] and not broken["width"]
    assert (skin["status"], skin["area_px"], skin["bbox_x"]) == ("no_lesion", "0", "")
    assert (c["status"], c["width"], c["height"], c["touches_border"]) == ("ok", "120", "90", "false")
    mask = cv2.imread(str(tmp_path / "out" / c["mask"]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 120) and set(np.unique(mask)) == {0, 255}
    assert int(c["area_px"]) == np.count_nonzero(mask)
    assert int(c["area_px"]) == pytest.approx(np.pi * 21**2, rel=0.1)
    assert not cv2.imread(str(tmp_path / "out" / skin["mask"]), cv2.IMREAD_UNCHANGED).any()


def test_a_name_is_no_formula_in_the_table(batch: Batch, photos: Path, tmp_path: Path) -> None:
    names = ["=1+1.png", "@SUM(A1).png", "+1.png", "-1.png"]
    for name in names:
        write_disc(photos / name, radius=20)
    batch()
    out = tmp_path / "out"
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        files = [row["file"] for row in csv.DictReader(file)]
    assert {f"./{name}" for name in names} < set(files) and all((photos / name).is_file() for name in files)
    assert not any(name.startswith(("=", "@", "+", "-")) for name in files)
    assert set(names) < {entry.row.file for entry in read_entries(out)}  # else as they are


def test_shared_stems_keep_their_extension(batch: Batch, tmp_path: Path) -> None:
    batch()
    names = {path.name for path in (tmp_path / "out/masks").iterdir() if path.is_file()}
    assert names == {"a.png_segmentation.png", "a.bmp_segmentation.png", "b_segmentation.png"} | {
        "skin_segmentation.png"
    }


def test_stems_are_unique_where_case_does_not_count() -> None:
    names = ["A.jpg", "a.JPG", "a.jpg.tif", "x/a.png", "b.png"]
    stems = plan_stems(names)
    assert len({stem.casefold() for stem in stems.values()}) == len(names)
    assert (stems["x/a.png"], stems["b.png"], stems["A.jpg"]) == ("x/a", "b", "A-2.jpg")


def test_masks_lie_where_the_python_interface_puts_them(batch: Batch, model: Model, photos: Path) -> None:
    result = batch(options=BatchOptions(save=("mask", "probability"), lesions="all", tta=True))
    source = photos / "sub/d.png"
    expected = model.segment(source, lesions="all", tta=True)
    read = {
        kind: cv2.imread(str(result.out / kind / f"sub/{stem}.png"), cv2.IMREAD_UNCHANGED)
        for kind, stem in (("masks", "d_segmentation"), ("probabilities", "d"), ("labels", "d_labels"))
    }
    assert np.array_equal(read["masks"] == 255, expected.mask)
    assert np.array_equal(read["labels"], expected.labels)
    assert read["probabilities"].dtype == np.uint16
    assert np.allclose(read["probabilities"] / 65535, expected.probability, atol=1e-4)
    assert not (result.out / "overlays").exists()


def test_processes_change_nothing(batch: Batch, tmp_path: Path) -> None:
    batch("threads")
    batch("processes", processes=2)
    assert snapshot(tmp_path / "processes") == snapshot(tmp_path / "threads")


@pytest.mark.parametrize(
    ("images", "asked", "cpus", "expected"),
    [
        (1, {}, 8, (1, 1, 8)),  # all CPUs work inside the one call
        (1, {}, 64, (1, 1, 16)),  # more would not be awake in time
        (3, {}, 8, (1, 3, 2)),
        (10_000, {}, 2, (1, 2, 1)),
        (10_000, {}, 64, (8, 8, 1)),
        (500, {}, 64, (2, 32, 1)),  # too few images for eight processes to be worth their start
        (10_000, {"workers": 12}, 64, (2, 6, 5)),
        (10_000, {"processes": 4}, 4, (4, 1, 1)),
        (2, {"workers": 6, "processes": 3}, 4, (2, 1, 2)),
    ],
)
def test_cpus_are_shared_among_images(
    images: int, asked: dict[str, int], cpus: int, expected: tuple[int, int, int]
) -> None:
    assert plan_work(images, cpus=cpus, **asked) == Plan(*expected)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_resume_ends_with_the_files_of_an_undisturbed_run(
    batch: Batch, tmp_path: Path, stop_after: int
) -> None:
    batch("whole")
    stop, seen = threading.Event(), []

    def listener(entry: object, counts: object) -> None:
        seen.append(entry)
        if len(seen) > stop_after:
            stop.set()

    first = batch("cut", listener=listener, stop=stop)
    out = tmp_path / "cut"
    # What a kill leaves: a torn line, an unfinished file, a mask that no line knows of.
    with (out / JOURNAL).open("ab") as file:
        file.write(b'{"row":{"file":"sub/c.p')
    (out / "masks" / ".b_segmentation.png.0123456789ab.tmp").write_bytes(b"half")
    (out / "masks/sub").mkdir(exist_ok=True)
    second = batch("cut", resume=True)
    # (an early stop may find everything in flight already: then the images are simply done)
    assert second.counts["images"] == 7 and not second.interrupted
    assert second.processed <= 7 - first.processed + first.counts["failed"]
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_resume_redoes_what_is_missing_and_nothing_else(batch: Batch, tmp_path: Path) -> None:
    batch()
    out = tmp_path / "out"
    before = snapshot(out)
    (out / "overlays/b.jpg").unlink()
    kept = (out / "masks/sub/c_segmentation.png").stat().st_mtime_ns
    seen = []
    result = batch(resume=True, listener=lambda entry, counts: seen.append(entry))
    assert {entry.row.file for entry in seen if entry} == {"b.jpg", "broken.jpg"}  # failed: tried again
    assert result.processed == 2
    assert (out / "masks/sub/c_segmentation.png").stat().st_mtime_ns == kept
    assert snapshot(out) == before


def test_resume_refuses_another_run(batch: Batch, photos: Path) -> None:
    batch()
    with pytest.raises(UsageError, match=r"threshold was None, is 0\.3"):
        batch(resume=True, options=BatchOptions(threshold=0.3))
    write_disc(photos / "b.png", radius=9)  # both would be b_segmentation.png
    with pytest.raises(UsageError, match=r"1 new input \(b\.png\)"):
        batch(resume=True)
    (photos / "b.png").unlink()
    write_disc(photos / "b.jpg", radius=30)
    with pytest.raises(UsageError, match=r"1 changed input \(b\.jpg\)"):
        batch(resume=True)


def test_photographs_that_were_added_are_done_when_resuming(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    batch()
    out = tmp_path / "out"
    kept = (out / "masks/sub/c_segmentation.png").stat().st_mtime_ns
    write_disc(photos / "new.png", radius=9)
    foreign = out / "masks/new_segmentation.png"
    foreign.write_bytes(b"drawn by hand")
    with pytest.raises(UsageError, match=r"no run recorded there: masks/new_segmentation\.png"):
        batch(resume=True)
    foreign.unlink()
    assert batch(resume=True).processed == 2  # and the one that failed
    assert (out / "masks/sub/c_segmentation.png").stat().st_mtime_ns == kept
    batch("anew")
    assert snapshot(out) == snapshot(tmp_path / "anew")
    assert batch(resume=True).processed == 1


def test_resume_leaves_the_journal_of_a_later_version_alone(batch: Batch, tmp_path: Path) -> None:
    """Before, it was refused, and its lines cut off all the same: the later version had all to do again."""
    batch()
    journal = tmp_path / "out" / JOURNAL
    header, *lines = map(json.loads, journal.read_bytes().splitlines())
    header["version"] = "99.0"
    lines = [{**line, "row": {**line["row"], "column_of_later": 1}} for line in lines]
    journal.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in (header, *lines)))
    before = journal.read_bytes()
    with pytest.raises(UsageError, match=r"dermseg was 99\.0"):
        batch(resume=True)
    assert journal.read_bytes() == before


def test_a_file_that_failed_may_be_mended_before_resuming(batch: Batch, photos: Path, tmp_path: Path) -> None:
    whole, broken = (photos / "b.jpg").read_bytes(), photos / "broken.jpg"
    assert batch().counts["failed"] == 1
    broken.write_bytes(whole)
    for processed in (1, 0):
        result = batch(resume=True)
        assert (result.processed, result.counts["failed"]) == (processed, 0)
    batch("new")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "new")
    broken.write_bytes(b"broken")  # it is done now, and its mask is that of another file
    with pytest.raises(UsageError, match=r"1 changed input \(broken\.jpg\)"):
        batch(resume=True)


def test_a_file_that_was_not_done_may_be_gone_when_resuming(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    """Failed, or not begun when the run was stopped; not where other images would have other files for it."""
    stop = threading.Event()
    batch(stop=stop, listener=lambda entry, counts: stop.set() if entry else None)
    done = {entry.row.file for entry in read_entries(tmp_path / "out") if entry.row.status == "ok"}
    assert "sub/d.png" not in done
    (photos / "broken.jpg").unlink()
    (photos / "sub/d.png").unlink()
    assert batch(resume=True).counts == {**dict.fromkeys(("failed", "review", "reject"), 0),
                                         "images": 5, "ok": 4, "no_lesion": 1}  # fmt: skip
    batch("new")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "new")
    (tmp_path / "out/masks/a.png_segmentation.png").unlink()
    (photos / "a.png").unlink()
    with pytest.raises(UsageError, match=r"1 missing input \(a\.png\)"):
        batch(resume=True)


def test_overwrite_removes_what_we_wrote_and_nothing_else(batch: Batch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch()
    with pytest.raises(UsageError, match="holds an earlier run"):
        batch()
    (out / "masks/sub/my notes.txt").write_text("keep")
    (out / ".mine.tmp").write_text("keep")
    batch(overwrite=True, options=BatchOptions(save=("mask",)))
    assert (out / "masks/sub/my notes.txt").read_text() == (out / ".mine.tmp").read_text() == "keep"
    assert not (out / "overlays").exists()


def test_foreign_files_are_never_replaced(batch: Batch, tmp_path: Path) -> None:
    mask = tmp_path / "out/masks/b_segmentation.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"drawn by hand")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"no run recorded there: masks/b_segmentation\.png"):
            batch(overwrite=overwrite)
    assert mask.read_bytes() == b"drawn by hand"


def test_overwrite_that_is_refused_leaves_the_earlier_run(batch: Batch, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch()
    before = snapshot(out)
    write_disc(photos / "new.png", radius=20)
    (out / "masks/new_segmentation.png").write_bytes(b"drawn by hand")
    with pytest.raises(UsageError, match=r"no run recorded there: masks/new_segmentation\.png"):
        batch(overwrite=True)
    (out / "masks/new_segmentation.png").unlink()
    assert snapshot(out) == before


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [["../../victim.png", 1, 1]]},
        {"inputs": [["..\\..\\victim.png", 1, 1]]},
        {"inputs": [["/victim.png", 1, 1]]},
        {"inputs": 5},
        {"options": {}},
        {"options": {"lesions": "largest", "save": ["../.."]}},
        {"model": {}},
    ],
)
@pytest.mark.parametrize("mode", ["resume", "overwrite"])
def test_a_strangers_journal_removes_nothing_elsewhere(
    batch: Batch, tmp_path: Path, change: dict[str, Any], mode: str
) -> None:
    batch()
    journal, victims = tmp_path / "out" / JOURNAL, [tmp_path / "victim.jpg", tmp_path / "victim.png"]
    for victim in victims:
        victim.write_bytes(b"somebody's")
    first, _, rest = journal.read_bytes().partition(b"\n")
    journal.write_bytes(json.dumps({**json.loads(first), **change}).encode() + b"\n" + rest)
    with pytest.raises(UsageError, match="journal of the earlier run cannot be read"):
        batch(**{mode: True})
    assert all(victim.read_bytes() == b"somebody's" for victim in victims)


@pytest.mark.parametrize("place", ["thumbnail", "mask"])
def test_a_strangers_journal_puts_no_program_into_the_report(
    batch: Batch, tmp_path: Path, place: str
) -> None:
    batch()
    journal = tmp_path / "out" / JOURNAL
    header, *lines = map(json.loads, journal.read_bytes().splitlines())
    line = next(line for line in lines if line["row"]["status"] == "ok")
    (line if place == "thumbnail" else line["row"])[place] = "javascript:</script><script>alert(1)</script>"
    journal.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in (header, *lines)))
    write_batch_report(batch(resume=True))
    assert "alert(1)" not in (tmp_path / "out/report.html").read_text("utf-8")


def test_the_report_names_a_few_of_many_inputs(batch: Batch, tmp_path: Path) -> None:
    """A shell makes names of photos/*.jpg: thousands of them stood above the table."""
    write_batch_report(batch(inputs=[f"photo{number}.jpg" for number in range(2000)]))
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert "photo3.jpg, photo4.jpg and 1,995 more (all in run.json)<" in page and "photo5.jpg" not in page


def test_two_runs_cannot_share_a_folder(batch: Batch) -> None:
    refused = []

    def listener(entry: object, counts: object) -> None:
        if entry is None:
            with pytest.raises(UsageError, match="another dermseg"):
                batch(resume=True)
            refused.append(True)

    batch(listener=listener)
    assert refused


def test_a_batch_that_an_error_ends_writes_nothing_more(batch: Batch) -> None:
    """Its threads went on in a folder that was about to be removed, and images of patients stayed there."""

    def listener(entry: object, counts: object) -> None:
        if entry is not None:
            raise RuntimeError("the page was left")

    with pytest.raises(RuntimeError) as held:  # and with it all that its functions had in hand
        batch(listener=listener)
    assert held.tb and not [t.name for t in threading.enumerate() if t.name.startswith("dermseg")]


def test_a_drive_without_locks_is_written_to(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("dermseg.locks._lock", refuse)
    assert batch().counts["failed"] == batch(resume=True).processed == 1


def test_of_runs_that_begin_at_once_one_has_the_folder(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a journal that another process has just made is replaced, nor is one that is being removed."""
    refuse, remove = folder._refuse_foreign, folder._remove_leftovers
    entered = []

    def meanwhile(out: Path, plan: object, *own: object, **named: object) -> None:
        refuse(out, plan, *own, **named)  # type: ignore[arg-type]
        if not entered:
            entered.append(out)
            batch()

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_refuse_foreign", meanwhile)
        with pytest.raises(UsageError, match="just begun to write"):
            batch()

    def while_removing(out: Path, plan: object) -> None:
        with pytest.raises(UsageError, match="another dermseg is writing"):
            Journal.open(out / JOURNAL)
        entered.append(out)
        remove(out, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "_remove_leftovers", while_removing)
    batch(overwrite=True)
    assert len(entered) == 2


def test_an_error_in_one_image_stays_there(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(image: np.ndarray, mask: np.ndarray, **options: object) -> np.ndarray:
        if mask.sum() > 1_600:
            raise MemoryError
        return image

    monkeypatch.setattr(stages, "draw_overlay", draw)
    result = batch()
    rows = {entry.row.file: entry.row for entry in read_entries(result.out)}
    assert rows["sub/d.png"].status == "failed"
    assert rows["sub/d.png"].message == "not enough memory for this image"
    assert not (result.out / "masks/sub/d_segmentation.png").exists()
    assert rows["a.png"].status == "ok"


def test_names_too_long_for_the_disk_with_what_follows_are_cut() -> None:
    long, other = "x" * 245, "x" * 246
    stems = plan_stems([f"{long}.jpg", f"{other}.jpg", "皮" * 82 + ".jpg", "short.jpg"])
    files = [output_files(stem, ["mask"])["mask"] for stem in stems.values()]
    assert len(set(files)) == 4
    assert all(len(file.encode()) < 255 for file in files) and stems["short.jpg"] == "short"
    assert plan_stems(["..jpg", "a/.jpg"]) == {"..jpg": ".", "a/.jpg": "a/.jpg"}


def test_a_result_that_lost_its_content_is_made_again(batch: Batch) -> None:
    result = batch()
    lost = result.out / "masks/b_segmentation.png"
    whole = lost.read_bytes()
    lost.write_bytes(b"")
    assert batch(resume=True).processed == 2  # and the one that cannot be read
    assert lost.read_bytes() == whole


@pytest.mark.skipif(os.name == "nt", reason="an open file is not replaced there")
def test_a_journal_that_was_replaced_while_one_waited_is_opened_anew(batch: Batch) -> None:
    result = batch()
    path = result.out / JOURNAL
    first = Journal.open(path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Journal.open, path)
        time.sleep(0.1)
        first.sort(result.order[::-1])
        time.sleep(0.1)
        assert not waiting.done(), "the lock is on the file that is there now"
        first.close()
        second = waiting.result()
    assert [entry.row.file for entry in second.entries(result.order)] == list(result.order)
    second.close()


def test_a_full_disk_ends_the_batch_and_resume_goes_on(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = stages.atomic_write, []

    def full(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) > 5:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise DermsegError("cannot be written: No space left on device", file=path) from error
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "atomic_write", full)
        with pytest.raises(stages.OutputError, match="No space left"):
            batch()
    batch(resume=True)
    batch("whole")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_save_lists_what_exists() -> None:
    assert parse_save("overlay, MASK") == ("mask", "overlay")
    with pytest.raises(UsageError, match="masks") as caught:
        parse_save("mask,masks")
    assert "mask, overlay, probability" in str(caught.value)
