import errno
import json
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermseg.data.coco import read_coco
from dermseg.data.labelme import Annotation, Shape, draw_labels, read_labelme, write_labelme
from dermseg.data.synthetic import synthesize
from dermseg.errors import DataError, DermsegError
from dermseg.inference.predictor import load_model
from dermseg.labeling.editor import files, tools
from dermseg.labeling.editor.claim import Claim
from dermseg.labeling.editor.compare import compare_layers
from dermseg.labeling.editor.document import Document
from dermseg.labeling.editor.journal import Journal, journal_path, recover
from dermseg.labeling.editor.narrow import narrow, segment_box, segment_click
from dermseg.labeling.propose import annotate, propose, saved_by_person

SIZE = (300, 520)
SQUARE = [(100.0, 60.0), (400.0, 60.0), (400.0, 220.0), (100.0, 220.0)]


def empty() -> Document:
    return Document(Annotation("a.png", SIZE[1], SIZE[0]), "new")


def drawn(document: Document, label: str = "lesion") -> np.ndarray:
    return draw_labels(read_labelme(write_labelme(document.to_annotation())), [label])


def test_brush_covers_what_is_near_the_line_and_stays_inside() -> None:
    patch = tools.brush((-5, 10), (40, 10), 4, (30, 50))
    mask = np.zeros((30, 50), bool)
    mask[patch.region] = patch.mask
    assert mask[10, :45].all() and not mask[10, 45:].any()
    assert mask[6:15, 20].all() and mask[:, 20].sum() == 9
    assert tools.brush((7, 7), (7, 7), 0.1, (30, 50)).mask.sum() == 1
    assert not tools.brush((-90, -90), (-80, -80), 3, (30, 50)).mask.any()


def test_grow_then_shrink_is_a_closing_by_a_disc() -> None:
    disc = tools.brush((50, 50), (50, 50), 20, (100, 100))
    mask = np.zeros((100, 100), bool)
    mask[disc.region] = disc.mask
    ring = tools.grow(mask, 5)
    mask[ring.region] |= ring.mask
    assert mask[50].sum() == 2 * 25 + 1
    rim = tools.shrink(mask, 5)
    mask[rim.region] &= ~rim.mask
    assert abs(int(mask.sum()) - int(disc.mask.sum())) < 30
    assert not tools.grow(np.zeros((5, 5), bool), 3).mask.size


def test_smart_fill_takes_the_lesion_it_was_put_in() -> None:
    image = np.full((1500, 2200, 3), (220, 180, 160), np.uint8)
    cv2.ellipse(image, (900, 700), (300, 200), 20, 0, 360, (110, 60, 50), -1)
    truth = image[..., 0] == 110
    image[680:720, 880:920] = (220, 180, 160)  # a hole, as a reflection makes it
    patch = tools.smart_fill(image, (750, 650), 12)
    found = np.zeros_like(truth)
    found[patch.region] = patch.mask
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.98


def test_smart_fill_begins_in_the_pixel_under_the_point() -> None:
    image = np.full((40, 40, 3), 220, np.uint8)
    image[:, 20:] = 60
    patch = tools.smart_fill(image, (19.7, 10.0), 5)  # nearer to the centre of column 20 than of 19
    assert patch.x == 20


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["brush", "erase", "polygon", "undo", "redo", "new class"]),
            st.integers(0, 519),
            st.integers(0, 299),
            st.integers(1, 60),
        ),
        max_size=15,
    )
)
def test_undo_and_redo_and_the_journal_bring_back_every_state(
    actions: list[tuple[str, int, int, int]],
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ".a.json.journal"
        document = empty()
        Journal(path, document)
        label, states, undone = "lesion", [np.zeros(SIZE, bool)], []
        for kind, x, y, r in actions:
            if kind == "undo":
                if document.undo():
                    undone.append(states.pop())
            elif kind == "redo":
                if document.redo():
                    states.append(undone.pop())
            elif kind == "new class":
                document.layer("second")
            else:
                if kind == "polygon":
                    patch = tools.polygon([(x, y), (x + r, y), (x, y + r)], SIZE)
                else:
                    patch = tools.brush((x, y), (y, x), r, SIZE)
                if document.apply(kind, label, patch, erase=kind == "erase"):
                    states.append(document.layer(label).copy())
                    undone.clear()
            assert np.array_equal(document.layer(label), states[-1])
        again = recover(path)
        if again is not None:
            assert np.array_equal(again.layer(label), document.layer(label))
            assert again.status == document.status
            assert (again.can_undo, again.can_redo) == (document.can_undo, document.can_redo)
        while document.can_undo:
            document.undo()
        assert not document.layer(label).any() and document.status == "new"


def test_a_damaged_end_costs_the_last_record_only(tmp_path: Path) -> None:
    path = tmp_path / ".a.json.journal"
    document = empty()
    Journal(path, document)
    document.apply("polygon", "lesion", tools.polygon(SQUARE, SIZE))
    before = document.layer("lesion").copy()
    whole = path.stat().st_size
    document.apply("brush", "lesion", tools.brush((10, 10), (20, 20), 5, SIZE))
    for length in range(whole, path.stat().st_size, 7):
        copy = tmp_path / f"{length}.journal"
        copy.write_bytes(path.read_bytes()[:length])
        again = recover(copy)
        assert again is not None and np.array_equal(again.layer("lesion"), before)
        assert copy.stat().st_size == whole
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(DataError, match="not a journal"):
        recover(tmp_path / "other")


def test_a_journal_that_could_not_be_written_has_everything_once_it_can_be(tmp_path: Path) -> None:
    folder, aside = tmp_path / "out", tmp_path / "aside"
    document = empty()
    journal = Journal(folder / ".a.json.journal", document)

    def draw(x: int) -> None:
        document.apply("brush", "lesion", tools.brush((x, 10), (x, 200), 5, SIZE))

    draw(10)
    assert journal.problem is None and not journal.lost
    folder.rename(aside)
    folder.touch()  # not even root can write below a file
    draw(50)
    assert journal.lost and "cannot be written" in str(journal.problem) and "-o" in str(journal.problem)
    assert document.changed and document.at_risk, "the work goes on"
    folder.unlink()
    aside.rename(folder)
    document.undo()
    document.redo()
    assert journal.problem is None and not journal.lost
    draw(90)
    again = recover(journal.path)
    assert again is not None and again.changed and again.status == "corrected"
    assert np.array_equal(again.layer("lesion"), document.layer("lesion"))
    assert again.undo() and not again.layer("lesion")[100, 90] and again.layer("lesion")[100, 50]
    assert [path.name for path in folder.iterdir()] == [".a.json.journal"]


def test_what_a_journal_that_was_begun_anew_brings_back_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a full disk and a crash the work was dropped, without a question, where it could not be saved."""
    draw_visits(tmp_path, "a.png")
    (entry,) = files.list_images([tmp_path])
    draw_and_approve(entry)
    opened = files.open_image(entry)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dermseg.labeling.editor.journal._write", full)
        opened.document.apply("brush", "lesion", tools.brush((5, 50), (30, 50), 4, (240, 320)))
    assert opened.journal.lost
    opened.document.apply("brush", "lesion", tools.brush((5, 90), (30, 90), 4, (240, 320)))
    for _ in range(2):  # and after another crash
        again = files.open_image(entry)
        assert again.recovered and again.document.at_risk and not again.document.can_undo
        assert again.document.layer("lesion")[[5, 50, 90], 20].all()
    files.save(again)  # no other program has changed the file
    assert not again.document.at_risk and not entry.unsaved
    assert np.array_equal(files.open_image(entry).document.layer("lesion"), opened.document.layer("lesion"))


def test_what_is_at_risk_is_what_a_person_did() -> None:
    document = empty()
    circle = Shape("lesion", "circle", np.array([[50.0, 50], [60, 50]]))
    document.propose(Annotation("a.png", SIZE[1], SIZE[0], (circle,)))
    assert document.changed and not document.at_risk
    document.set_status("approved")
    assert document.at_risk
    document.mark_saved()
    assert not document.at_risk
    document.apply("brush", "lesion", tools.brush((5, 5), (30, 5), 4, SIZE))
    assert document.at_risk
    document.undo()
    assert not document.at_risk, "as it is in the file"


def test_kill_minus_nine_loses_at_most_the_stroke_under_way(tmp_path: Path) -> None:
    code = """
import sys
import zipfile
from pathlib import Path
from dermseg.data.labelme import Annotation
from dermseg.labeling.editor import tools
from dermseg.labeling.editor.document import Document
from dermseg.labeling.editor.journal import Journal
document = Document(Annotation("a.png", 520, 300), "new")
Journal(Path(sys.argv[1]), document)
for number in range(1000):
    document.apply("brush", "lesion", tools.brush((number % 520, 0), (number % 520, 299), 0.5, (300, 520)))
    print(number, flush=True)
"""
    path = tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(20):
            last = int(process.stdout.readline())
        process.kill()
        last = max([last, *(int(line) for line in process.stdout.read().split())])
    document = recover(path)
    assert document is not None and document.layer("lesion")[:, : last + 1].all()
    assert int(document.layer("lesion")[0].sum()) in (last + 1, last + 2)


def test_an_unchanged_class_keeps_its_shapes_and_a_changed_one_its_unknown_fields() -> None:
    raw = {
        "version": "5.5.0",
        "flags": {"good": True},
        "hospital": {"ward": 3},
        "imageData": None,
        "imagePath": "a.png",
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
        "shapes": [
            {
                "label": "lesion",
                "points": SQUARE,
                "group_id": 7,
                "shape_type": "polygon",
                "flags": {},
                "note": "x",
            },
            {
                "label": "naevus",
                "points": [[450, 250], [470, 250]],
                "group_id": None,
                "shape_type": "circle",
                "flags": {},
                "other_field": [1],
            },
            {"label": "spot", "points": [[5, 5]], "group_id": None, "shape_type": "point", "flags": {}},
        ],
    }
    document = Document(read_labelme(json.dumps(raw).encode()))
    assert document.status == "corrected" and list(document.layers) == ["lesion", "naevus"]
    document.apply("brush", "lesion", tools.brush((100, 60), (90, 50), 9, SIZE))
    written = json.loads(write_labelme(document.to_annotation()))
    assert written["hospital"] == {"ward": 3} and written["flags"] == {"good": True}
    lesion, naevus, spot = written["shapes"]
    assert lesion["note"] == "x" and lesion["group_id"] == 7 and len(lesion["points"]) > 4
    assert naevus["shape_type"] == "circle" and naevus["other_field"] == [1]
    assert naevus["points"] == raw["shapes"][1]["points"] and spot["shape_type"] == "point"
    assert np.array_equal(drawn(document), document.layer("lesion"))
    document.undo()
    assert json.loads(write_labelme(document.to_annotation()))["shapes"][0]["points"] == [
        list(p) for p in SQUARE
    ]


def test_holes_survive() -> None:
    document = empty()
    document.apply("polygon", "lesion", tools.polygon(SQUARE, SIZE))
    document.apply("eraser", "lesion", tools.brush((250, 140), (260, 140), 20, SIZE), erase=True)
    assert np.array_equal(drawn(document), document.layer("lesion"))


def test_the_work_on_an_image_from_proposal_to_approval(tmp_path: Path) -> None:
    image, _, _ = synthesize(3, (240, 320))
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (entry,) = files.list_images([tmp_path])
    assert files.look(entry)[0] == "new"
    opened = files.open_image(entry)
    model = load_model()
    proposal = annotate(model, model.segment(opened.pixels), image="a.png")
    opened.document.propose(proposal)
    assert opened.document.layer("lesion").any() and opened.document.status == "proposed" and entry.unsaved
    files.save(opened)
    assert files.look(entry)[0] == "proposed" and not entry.unsaved
    opened.document.apply("brush", "lesion", tools.brush((5, 5), (30, 5), 4, (240, 320)))
    assert opened.document.status == "corrected" and opened.document.changed
    after_a_crash = files.open_image(entry)
    assert after_a_crash.recovered
    assert np.array_equal(after_a_crash.document.layer("lesion"), opened.document.layer("lesion"))
    files.save(after_a_crash)
    after_a_crash.document.undo()  # what was done before the save, in a journal that began after it
    again = files.open_image(entry).document
    assert not again.layer("lesion")[5, 5:30].any() and again.status == "proposed" and again.can_redo
    after_a_crash.document.redo()
    after_a_crash.document.set_status("approved")
    files.save(after_a_crash)
    assert files.look(entry)[0] == "approved" and not journal_path(entry.annotation).exists()
    saved = json.loads(entry.annotation.read_bytes())
    assert saved["dermseg"]["model"] == model.card.name and saved["flags"] == {"approved": True}
    assert files.export_coco([entry], tmp_path / "coco.json") == (1, 0)
    (row,) = read_coco((tmp_path / "coco.json").read_bytes())
    assert np.array_equal(row.draw(["lesion"]), after_a_crash.document.layer("lesion"))


def test_what_was_taken_back_leaves_no_file_that_says_there_is_no_lesion(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((240, 320, 3), 200, np.uint8))
    (entry,) = files.list_images([tmp_path])
    opened = files.open_image(entry)
    square = Shape("lesion", "polygon", np.array([(20.0, 20.0), (90.0, 20.0), (90.0, 80.0)]))
    opened.document.propose(Annotation("a.png", 320, 240, (square,)))
    opened.document.undo()
    files.save(opened)
    assert files.look(entry)[0] == "new" and not entry.annotation.exists() and not entry.unsaved
    opened.document.redo()
    files.save(opened)  # and what was saved in between goes with it
    assert files.look(entry)[0] == "proposed"
    opened.document.undo()
    files.save(opened)
    assert not entry.annotation.exists() and not opened.document.changed
    opened.document.set_status("approved")  # that there is no lesion is said by approving
    files.save(opened)
    assert files.look(entry)[0] == "approved"


def test_another_threshold_replaces_the_proposal() -> None:
    document = empty()
    small = Annotation(
        "a.png", SIZE[1], SIZE[0], (Shape("lesion", "circle", np.array([[50.0, 50], [60, 50]])),)
    )
    large = Annotation(
        "a.png", SIZE[1], SIZE[0], (Shape("lesion", "circle", np.array([[50.0, 50], [80, 50]])),)
    )
    document.propose(small)
    document.propose(large)
    assert document.layer("lesion")[50, 75] and document.undo() and not document.layer("lesion").any()
    assert not document.can_undo


def test_another_threshold_that_finds_nothing_leaves_nothing_of_a_proposal_from_a_file() -> None:
    circle = Shape("lesion", "circle", np.array([[50.0, 50], [60, 50]]))
    document = Document(Annotation("a.png", SIZE[1], SIZE[0], (circle,), {"flags": {"proposed": True}}))
    document.propose(Annotation("a.png", SIZE[1], SIZE[0]))
    assert not document.layer("lesion").any() and document.status == "proposed"
    document.undo()
    assert document.layer("lesion")[50, 55]


def test_a_proposal_beside_what_a_person_drew_does_not_make_it_a_proposal(tmp_path: Path) -> None:
    """`label propose` would write over it, imports would leave it out, another threshold would clear it."""
    image, _, _ = synthesize(3, (240, 320))
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (entry,) = files.list_images([tmp_path])
    opened = files.open_image(entry)
    opened.document.apply("brush", "network", tools.brush((5, 5), (30, 5), 4, (240, 320)))
    circle = Shape("lesion", "circle", np.array([[50.0, 50], [60, 50]]))
    opened.document.propose(Annotation("a.png", 320, 240, (circle,), {"flags": {"proposed": True}}))
    after_a_crash = files.open_image(entry).document
    for document in (opened.document, after_a_crash):
        assert document.status == "corrected" and document.may_propose_anew
        document.undo()
        assert document.status == "corrected" and not document.may_propose_anew
        document.redo()
    files.save(opened)
    (kept,) = propose(load_model(), [entry.source])
    assert kept.status == "kept" and files.open_image(entry).document.layer("network")[5, 20]
    opened.document.apply("eraser", "network", tools.brush((5, 5), (30, 5), 4, (240, 320)), erase=True)
    opened.document.propose(Annotation("a.png", 320, 240, (circle, circle)))
    assert opened.document.status == "corrected"  # nothing is new in it
    square = Shape("lesion", "rectangle", np.array([[50.0, 50], [60, 60]]))
    opened.document.propose(Annotation("a.png", 320, 240, (square,)))
    assert opened.document.status == "proposed", "nothing of a person's is left"


def test_after_a_crash_what_another_program_wrote_is_not_written_over(tmp_path: Path) -> None:
    image, _, _ = synthesize(3, (240, 320))
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (entry,) = files.list_images([tmp_path])
    entry.annotation.write_text(
        '{"shapes": [], "note": "mine", "imagePath": "a.png", "imageHeight": 240, "imageWidth": 320}'
    )
    stroke = tools.brush((5, 5), (30, 5), 4, (240, 320))
    files.open_image(entry).document.apply("brush", "lesion", stroke)
    unchanged = files.open_image(entry)
    assert unchanged.recovered
    files.save(unchanged)
    unchanged.document.apply("eraser", "lesion", stroke, erase=True)
    entry.annotation.write_bytes(entry.annotation.read_bytes().replace(b'"mine"', b'"theirs"'))
    changed = files.open_image(entry)
    assert changed.recovered
    with pytest.raises(files.ChangedError):
        files.save(changed)
    files.save(changed, over=True)
    assert b'"mine"' in entry.annotation.read_bytes() and not entry.unsaved


def test_shapes_that_no_layer_has_stay_in_the_file() -> None:
    corners = [[20, 20], [60, 30], [50, 70], [10, 60]]
    shapes = [
        {"label": "lesion", "points": SQUARE, "shape_type": "polygon"},
        {"label": "", "points": corners, "shape_type": "polygon"},
        {"label": "hole", "points": corners, "shape_type": "polygon", "group_id": 9},
        {"label": "ruler", "points": corners, "shape_type": "oriented_rectangle"},  # LabelMe 6
    ]
    raw = {"shapes": shapes, "imagePath": "a.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    document = Document(read_labelme(json.dumps(raw).encode()))
    assert list(document.layers) == ["lesion", "ruler"] and document.layer("ruler")[40, 40]
    document.apply("brush", "lesion", tools.brush((300, 150), (310, 280), 9, SIZE))
    written = json.loads(write_labelme(document.to_annotation()))["shapes"]
    assert [shape["label"] for shape in written] == ["lesion", "ruler", "", "hole"]
    assert [shape["points"] for shape in written[1:]] == [corners] * 3


def test_a_file_with_many_shapes_takes_the_memory_of_one() -> None:
    size = (2000, 3000)
    document = Document(Annotation("a.png", size[1], size[0]), "new")
    for number in range(40):
        at = (70.0 * number + 100, 50.0 * number + 20)
        document.apply("brush", "lesion", tools.brush(at, at, 15, size))
    again = Document(document.to_annotation())
    again.apply("brush", "lesion", tools.brush((2900, 50), (2900, 50), 15, size))
    tracemalloc.start()
    written = again.to_annotation()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(written.shapes) == 41 and peak < 10 * size[0] * size[1]


def test_two_readers() -> None:
    first, second = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    first[10:20, 10:20] = second[10:20, 15:20] = True
    lesion, same = compare_layers({"lesion": first, "same": first}, {"lesion": second, "same": first})
    assert (lesion.label, lesion.only_first, lesion.only_second) == ("lesion", 50, 0)
    assert lesion.dice == pytest.approx(2 / 3) and same.dice == 1
    assert compare_layers({"x": first}, {})[0].dice == 0


def test_a_box_or_a_click_picks_one_of_two_lesions() -> None:
    left, mask, _ = synthesize(3, (240, 240))
    image = np.concatenate([left, left[:, ::-1]], axis=1)
    truth = np.zeros(image.shape[:2], bool)
    truth[:, 240:] = mask[:, ::-1]
    model = load_model()
    y, x = (int(v.mean()) for v in np.nonzero(truth))
    for patch in (segment_click(model, image, (x, y)), segment_box(model, image, (240, 0, 240, 240))):
        found = np.zeros_like(truth)
        found[patch.region] = patch.mask
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8


def draw_visits(folder: Path, *names: str) -> list[Path]:
    """Another photograph for each name, as cameras count those of every visit from 1."""
    paths = [folder / name for name in names]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), synthesize(seed, (240, 320))[0])
    return paths


def draw_and_approve(entry: files.Entry) -> None:
    opened = files.open_image(entry)
    opened.document.apply("brush", "lesion", tools.brush((5, 5), (30, 5), 4, (240, 320)))
    opened.document.set_status("approved")
    files.save(opened)


def test_one_lesion_of_several_takes_the_place_of_what_the_model_proposed_in_its_class() -> None:
    circles = [Shape("lesion", "circle", np.array([[x, 50.0], [x + 20, 50]])) for x in (50.0, 200.0)]
    proposed = Annotation("a.png", SIZE[1], SIZE[0], tuple(circles), {"flags": {"proposed": True}})
    second = tools.brush((200, 50), (200, 50), 25, SIZE)
    for document in (Document(proposed), empty()):  # of `label propose`, and asked for now
        if document.status == "new":
            document.propose(proposed)
        narrow(document, "click", "ruler", tools.brush((400, 250), (400, 250), 9, SIZE))
        assert document.layer("lesion")[50, 50] and document.layer("ruler")[250, 400]
        document.undo()
        document.paint("lesion", tools.brush((5, 290), (9, 290), 3, SIZE))  # under way when the model answers
        narrow(document, "click", "lesion", second)
        assert document.layer("lesion")[[290, 50, 50], [7, 50, 200]].all() and document.status == "corrected"
        document.undo()
        document.undo()
        assert document.status == "proposed"
        narrow(document, "click", "lesion", second)
        assert not document.layer("lesion")[50, 50] and document.layer("lesion")[50, 200]
        document.undo()
        assert document.layer("lesion")[50, 50] and document.status == "proposed", (
            "one step, to be taken back"
        )
        narrow(document, "click", "lesion", second, erase=True)  # with the right button
        assert document.layer("lesion")[50, 50] and not document.layer("lesion")[50, 200]
        document.undo()
        narrow(document, "click", "lesion", tools.cut(document.layer("lesion")))
        assert document.status == "corrected", "a person has pointed at it"


@pytest.mark.parametrize("saved", [True, False])
def test_of_an_image_that_was_turned_the_file_that_does_not_fit_is_named(tmp_path: Path, saved: bool) -> None:
    (path,) = draw_visits(tmp_path, "a.png")
    (entry,) = files.list_images([path])
    opened = files.open_image(entry)
    opened.document.apply("brush", "lesion", tools.brush((5, 5), (30, 5), 4, (240, 320)))
    if saved:
        files.save(opened)
    cv2.imwrite(str(path), np.rot90(synthesize(1, (240, 320))[0]))
    with pytest.raises(DataError, match="turn or scale the image back, or move") as caught:
        files.open_image(entry)
    assert caught.value.file == str(entry.annotation if saved else opened.journal.path)


def test_one_output_folder_for_two_visits_never_mixes_their_annotations(tmp_path: Path) -> None:
    first, _ = draw_visits(tmp_path, "visit1/IMG_1.png", "visit2/IMG_1.png")
    out = tmp_path / "linked"
    (tmp_path / "disk" / "deep" / "out").mkdir(parents=True)
    out.symlink_to(tmp_path / "disk" / "deep" / "out")
    (one,) = files.list_images([tmp_path / "visit1"], out)
    draw_and_approve(one)
    saved = one.annotation.read_bytes()
    (two,) = files.list_images([tmp_path / "visit2"], out)
    assert two.annotation == one.annotation and files.look(two)[0] == "new"
    with pytest.raises(DataError, match=r"belongs to '.*visit1/IMG_1.png'.* -o"):
        files.open_image(two)
    assert one.annotation.read_bytes() == saved
    assert files.export_coco([one, two], tmp_path / "coco.json") == (1, 1)
    # a link to the photograph and a copy of it are the same image
    (tmp_path / "link").symlink_to(tmp_path / "visit1")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "IMG_1.png").write_bytes(first.read_bytes())
    for name in ("visit1", "link", "copy"):
        (entry,) = files.list_images([tmp_path / name], out)
        assert files.open_image(entry).document.status == files.look(entry)[0] == "approved"


def test_an_annotation_goes_with_its_moved_image_and_names_it_anew(tmp_path: Path) -> None:
    draw_visits(tmp_path, "visit/IMG_1.png")
    (entry,) = files.list_images([tmp_path / "visit"], tmp_path / "out")
    draw_and_approve(entry)
    (tmp_path / "visit").rename(tmp_path / "archive")
    (moved,) = files.list_images([tmp_path / "archive"], tmp_path / "out")
    opened = files.open_image(moved)
    assert opened.document.status == "approved"
    opened.document.apply("brush", "lesion", tools.brush((5, 50), (30, 50), 4, (240, 320)))
    after_a_crash = files.open_image(moved)
    files.save(after_a_crash)  # nobody else has changed it
    assert read_labelme(moved.annotation.read_bytes()).image == "../archive/IMG_1.png"
    (tmp_path / "visit").mkdir()  # the camera begins again with 1
    cv2.imwrite(str(tmp_path / "visit" / "IMG_1.png"), synthesize(9, (240, 320))[0])
    with pytest.raises(DataError, match=r"belongs to '../archive/IMG_1.png'"):
        files.open_image(entry)


def test_images_of_two_zips_do_not_share_an_annotation(tmp_path: Path) -> None:
    for seed, name in enumerate(("visit1.zip", "visit2.zip")):
        done, data = cv2.imencode(".png", synthesize(seed, (240, 320))[0])
        assert done
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("photos/IMG_1.png", data.tobytes())
            archive.writestr(
                "photos/IMG_1.bmp", cv2.imencode(".bmp", synthesize(7, (240, 320))[0])[1].tobytes()
            )
    bmp, png = files.list_images([tmp_path / "visit1.zip"], tmp_path / "out")
    assert bmp.annotation == png.annotation
    draw_and_approve(png)
    written = json.loads(png.annotation.read_bytes())
    with zipfile.ZipFile(tmp_path / "visit1.zip") as archive:
        archive.extractall(tmp_path / "out")
    seen_by_labelme = png.annotation.parent / written["imagePath"]
    assert seen_by_labelme == tmp_path / "out" / "photos" / "IMG_1.png" and seen_by_labelme.is_file()
    assert written["imageZip"] == "../../visit1.zip!photos/IMG_1.png"
    assert files.open_image(png).document.status == "approved" and files.look(bmp)[0] == "new"
    with pytest.raises(DataError, match=r"belongs to '../../visit1.zip!photos/IMG_1.png'"):
        files.open_image(files.list_images([tmp_path / "visit2.zip"], tmp_path / "out")[1])
    # unpacked, it is the same image
    (unpacked,) = draw_visits(tmp_path, "photos/IMG_1.png")
    (entry,) = files.list_images([tmp_path / "photos"], tmp_path / "out" / "photos")
    assert entry.annotation == png.annotation and files.look(entry)[0] == "approved"
    unpacked.write_bytes(unpacked.read_bytes() + b"\0")
    with pytest.raises(DataError, match="belongs to"):
        files.open_image(entry)


def test_coco_holds_what_people_drew_on_its_own_image_alone(tmp_path: Path) -> None:
    draw_visits(tmp_path, "a.bmp", "a.png", "p.png", "new.png")
    entries = files.list_images([tmp_path])
    own, other, _, proposed = entries
    assert [entry.name for entry in entries] == ["a.bmp", "a.png", "new.png", "p.png"]
    opened = files.open_image(proposed)
    circle = Shape("lesion", "circle", np.array([[50.0, 50], [80, 50]]))
    opened.document.propose(Annotation("p.png", 320, 240, (circle,)))
    files.save(opened)
    with pytest.raises(DataError, match="no image has an outline that a person corrected or approved"):
        files.export_coco(entries, tmp_path / "coco.json")
    draw_and_approve(own)
    assert files.look(other)[0] == "new"
    assert files.export_coco(entries, tmp_path / "coco.json") == (1, 2)
    assert [row.file_name for row in read_coco((tmp_path / "coco.json").read_bytes())] == ["a.bmp"]
    # so it is with a second reader's files, and with what need not be labelled any more
    assert files.read_second(own, tmp_path) is not None and files.read_second(proposed, tmp_path) is None
    with pytest.raises(DataError, match=r"belongs to 'a.bmp'"):
        files.read_second(other, tmp_path)
    assert [saved_by_person(entry.source) for entry in entries] == [True, False, False, False]


def test_coco_takes_the_memory_of_one_image(tmp_path: Path) -> None:
    height, width = 1000, 1500
    square = Shape("lesion", "rectangle", np.array([(20.0, 20.0), (900.0, 800.0)]))
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((height, width), np.uint8))
        annotation = Annotation(f"{number}.png", width, height, (square,))
        (tmp_path / f"{number}.json").write_bytes(write_labelme(annotation))
    entries = files.list_images([tmp_path])
    tracemalloc.start()
    assert files.export_coco(entries, tmp_path / "coco.json") == (12, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * height * width


def test_saving_in_mid_stroke_leaves_a_journal_that_brings_back_the_whole_stroke(tmp_path: Path) -> None:
    draw_visits(tmp_path, "a.png")
    (entry,) = files.list_images([tmp_path])
    opened = files.open_image(entry)
    document = opened.document
    document.paint("lesion", tools.brush((20, 20), (60, 20), 9, (240, 320)))
    files.save(opened)
    document.paint("lesion", tools.brush((60, 20), (60, 90), 9, (240, 320)))
    document.finish("brush")
    after_a_crash = files.open_image(entry)
    assert after_a_crash.recovered
    assert np.array_equal(after_a_crash.document.layer("lesion"), document.layer("lesion"))


def test_an_output_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """Neither by opening the next image nor by saving it."""
    draw_visits(tmp_path, "photos/a.png", "photos/sub/b.png")
    out, aside = tmp_path / "out", tmp_path / "aside"
    one, two = files.list_images([tmp_path / "photos"], out)
    Claim(one.annotation, one.root).release()
    draw_and_approve(one)
    out.rename(aside)
    claim = Claim(two.annotation, two.root)
    opened = files.open_image(two)
    assert "nothing can be saved here: No such file" in str(opened.journal.problem)
    opened.document.apply("brush", "lesion", tools.brush((5, 5), (30, 5), 4, (240, 320)))
    with pytest.raises(DermsegError, match="cannot be written: No such file or directory"):
        files.save(opened)
    assert not out.exists() and opened.journal.lost
    aside.rename(out)
    files.save(opened)
    claim.release()
    assert files.look(one)[0] == "approved" and files.look(two)[0] == "corrected"
