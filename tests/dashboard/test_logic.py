"""What the pages rest on, without a browser."""

from __future__ import annotations

import errno
import importlib
import io
import json
import shutil
import socket
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermseg.apps.dashboard import doubts, findings, server
from dermseg.apps.dashboard import uploads as uploads_room
from dermseg.apps.dashboard.calibration import spacing_from_points
from dermseg.apps.dashboard.comparing import compare_masks
from dermseg.apps.dashboard.looking import VIEW_SIDE, Look, look_at, outline
from dermseg.apps.dashboard.many import segment_uploads, sort_entries, thumbnail
from dermseg.apps.dashboard.measures import character_rows, lesion_rows, measurement_rows
from dermseg.apps.dashboard.pictures import draw_difference, draw_map, draw_result
from dermseg.apps.dashboard.samples import SAMPLES, sample
from dermseg.apps.dashboard.settings import Settings
from dermseg.apps.dashboard.uploads import (
    Place,
    Upload,
    bare_name,
    image_key,
    label_places,
    list_images,
    read_place,
)
from dermseg.apps.dashboard.visits import follow_uploads
from dermseg.data.synthetic import synthesize
from dermseg.errors import ImageError, MaskError, UsageError
from dermseg.evaluation.evaluate import evaluate_pairs
from dermseg.evaluation.output import METRICS_FILE, PER_IMAGE, summarise
from dermseg.evaluation.table import Evaluation, Failure
from dermseg.files import write_json
from dermseg.images import encode_jpeg, load_mask
from dermseg.images.overlay import encode_png
from dermseg.inference.options import BatchOptions
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.result import Result
from dermseg.inference.stages import OutputError
from dermseg.measure.geometry import measure_lesions, measure_mask
from dermseg.report.strata import best_interval
from dermseg.uncertainty.margins import Margins

BROKEN = Upload("broken.jpg", b"\xff\xd8 not a photograph")


def disc(height: int, width: int) -> np.ndarray:
    """Light skin with a dark disc."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(x - width / 2, y - height / 2) < min(height, width) / 4
    return np.where(inside[..., None], 60, 210).repeat(3, axis=2).astype(np.uint8)


def packed(**members: bytes) -> Upload:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/") + ".jpg", content)
    return Upload("many.zip", data.getvalue())


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return load_model(tiny_bundle)


def test_the_network_runs_once_for_all_thresholds(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_jpeg(disc(300, 400))
    look = look_at(model, "a.jpg", data, 10**7)
    monkeypatch.setattr(model, "look", None)  # a further call would fail
    areas = [outline(model, look, threshold=t).area_px for t in (0.1, 0.5, 0.9)]
    assert areas == sorted(areas, reverse=True)
    monkeypatch.undo()
    assert np.array_equal(outline(model, look).mask, model.segment(data).mask)
    assert look.mask_name == "a_segmentation.png"


def test_a_large_photograph_is_sharp_on_the_page_and_full_in_the_mask(model: Model) -> None:
    look = look_at(model, "large.jpg", encode_jpeg(disc(2400, 3200)), 10**8)
    assert max(look.picture.shape) == VIEW_SIDE
    assert outline(model, look).mask.shape == (2400, 3200)
    with pytest.raises(ImageError, match="pixels"):
        look_at(model, "large.jpg", encode_jpeg(disc(2400, 3200)), 10**6)


def test_uploads_are_listed_and_read_wherever_they_are() -> None:
    one, two = encode_jpeg(disc(40, 60)), encode_jpeg(disc(50, 60))
    uploads = [Upload("a.jpg", one), packed(b=one, sub__a=two), Upload("bad.zip", b"PK"), BROKEN]
    places, _ = list_images(uploads)
    assert [p.label for p in places if p.zip != "bad.zip" and p.name != "bad.zip"] == [
        "a.jpg",
        "many.zip: b.jpg",
        "many.zip: sub/a.jpg",
        "broken.jpg",
    ]
    assert [read_place(uploads, p, 10**6) for p in places[:3]] == [one, one, two]
    hint = "a zip holds JPEG, PNG, TIFF, BMP, WebP or DICOM files"
    assert list_images([Upload("none.zip", packed().data)]) == (
        [],
        [f"there is no image in none.zip ({hint})"],
    )


def test_margins_promise_nothing_at_another_threshold() -> None:
    mask = np.ones((4, 4), bool)
    margins = Margins(mask, mask, 0.1, 10.2, 4.8, None, None)
    own = doubts.margin_words(margins, 0.5563, 0.5563)
    assert own is not None and own.startswith("White lines: 10 px outside and 5 px inside")
    assert "At most 10% of the lesion" in own
    other = doubts.margin_words(margins, 0.9, 0.5563)
    assert other is not None and "0.56; with 0.90 nothing is promised" in other and "At most" not in other
    assert doubts.margin_words(Margins(mask, mask, 0.1, None, None, None, None), 0.9, 0.9) is None


def test_margins_that_few_images_do_not_allow_are_not_offered() -> None:
    """Their switch ended the page in a traceback."""
    trust = load_model().trust
    assert trust is not None and doubts.no_margins(trust) == ""
    few = trust.outer.model_copy(update={"lambdas": [None] * len(trust.outer.alphas)})
    assert "allow none of level 0.1" in doubts.no_margins(trust.model_copy(update={"outer": few}))
    assert "dermseg uncertainty fit" in doubts.no_margins(None)


def test_a_full_disk_is_said_without_the_words_of_the_command_line() -> None:
    shared = pytest.importorskip("dermseg.apps.dashboard.shared", reason="needs the extra 'dashboard'")
    full = OSError(errno.ENOSPC, "No space left on device")
    in_a_batch = OutputError("cannot be written", hint="run the same command with --resume")
    in_a_batch.__cause__ = full
    for error in (full, in_a_batch):
        assert "No space left on device. Try: give fewer files at once" in shared.words_of(error)
    assert shared.words_of(ImageError("the file is empty", hint="copy it")) == (
        "the file is empty. Try: copy it."
    )
    assert shared.words_of(OSError("of nobody's making")) is None


def test_where_nobody_can_listen_is_said_in_words() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"cannot listen on 127\.0\.0\.1:{port}") as error:
            server.check_address("127.0.0.1", port)
    assert "--port" in str(error.value)
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.77:8501"):  # RFC 5737: of no machine
        server.check_address("192.0.2.77", 8501)
    server.check_address("127.0.0.1", port)


def test_a_zip_that_the_disk_has_no_room_for_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads_room, "lay_out", refuse)
    uploads = [packed(a=encode_jpeg(disc(40, 60))), Upload("b.jpg", b"")]
    places, messages = list_images(uploads)
    assert [place.name for place in places] == ["b.jpg"]
    assert messages == ["many.zip: cannot be looked into: No space left on device"]


def test_a_table_has_numbers_where_its_columns_have_them() -> None:
    """The browser sorts what it gets: as texts, 9 was above 10."""
    rows = findings.parse_table("file,code,px,share,note\n1.jpg,007,10,0.5,\n2.jpg,1,9,1,\nbad.jpg,2,,,x\n")
    assert rows == [
        {"file": "1.jpg", "code": "007", "px": 10, "share": 0.5, "note": ""},
        {"file": "2.jpg", "code": "1", "px": 9, "share": 1.0, "note": ""},
        {"file": "bad.jpg", "code": "2", "px": None, "share": None, "note": "x"},
    ]
    assert findings.parse_table("") == [] and findings.parse_table("a\n1,2\n") == [{"a": 1, None: ["2"]}]


def test_images_of_one_name_have_keys_and_labels_of_their_own() -> None:
    one, two = encode_jpeg(disc(40, 60)), encode_jpeg(disc(50, 60))
    uploads = [Upload("a.jpg", one), Upload("a.jpg", two), packed(a=one, sub__a=one), packed(a=two)]
    places, _ = list_images(uploads)
    keys = [image_key(uploads, place) for place in places]
    assert len(set(keys)) == len(places) == 5
    labels = ["a.jpg", "a.jpg (2)", "many.zip: a.jpg", "many.zip: sub/a.jpg", "many.zip: a.jpg (2)"]
    assert list(label_places(places).values()) == labels
    damaged = list_images([Upload("cut.zip", b"PK\3\4")])[0]
    assert [place.label for place in damaged] == ["cut.zip"]
    clash = [Place("a", 0), Place("a", 1), Place("a (2)", 2)]
    assert list(label_places(clash).values()) == ["a", "a (3)", "a (2)"]
    more = [Upload("new.jpg", two), *uploads]
    assert [image_key(more, place) for place in list_images(more)[0]][1:] == keys


@pytest.mark.parametrize("name", ["../../etc/a.jpg", "C:\\photos\\a.jpg", "/a.jpg"])
def test_names_of_uploads_never_leave_their_folder(name: str) -> None:
    assert bare_name(name) == "a.jpg"


def test_long_names_of_uploads_are_cut(model: Model) -> None:
    """Before: an error page. Two of one name need room for a number."""
    data = encode_jpeg(disc(40, 60))
    names = ["\u75e3" * 100 + ".jpg", "a" * 251 + ".jpg", "a" * 251 + ".jpg", ".."]
    finished = segment_uploads(model, [Upload(name, data) for name in names], BatchOptions())
    assert finished.counts["failed"] == 0 and finished.counts["images"] == 4
    assert bare_name("b" * 170 + ".jpg") == "b" * 170 + ".jpg"


def test_a_batch_gives_what_the_command_writes(model: Model) -> None:
    pictures = {f"{i}": encode_jpeg(disc(90 + i, 120)) for i in range(3)}
    seen: list[tuple[int, int, str]] = []
    finished = segment_uploads(
        model, [packed(**pictures), BROKEN], BatchOptions(), lambda *args: seen.append(args)
    )
    assert finished.counts.items() >= {"images": 4, "ok": 3, "no_lesion": 0, "failed": 1}.items()
    assert seen[-1][:2] == (4, 4)
    with zipfile.ZipFile(io.BytesIO(finished.archive)) as archive:
        names = set(archive.namelist())
        mask = load_mask(archive.read("masks/1_segmentation.png"))
    assert {"results.csv", "report.html", "run.json", "overlays/2.jpg"} <= names
    assert "journal.jsonl" not in names
    assert np.array_equal(mask, model.segment(pictures["1"]).mask)
    first = sort_entries(finished.entries, "Least sure first")[0]
    assert first.row.status == "failed" and thumbnail(first) is None
    numbered = [
        replace(e, row=replace(e.row, file=f"IMG_{n}"))
        for n, e in zip((10, 9, 2, 1), finished.entries, strict=True)
    ]
    assert [e.row.file for e in sort_entries(numbered, "Name")] == ["IMG_1", "IMG_2", "IMG_9", "IMG_10"]
    sure = [e.row.confidence for e in sort_entries(finished.entries, "Surest first")[:3]]
    assert sure == sorted(sure, reverse=True)


@given(
    st.tuples(st.floats(0, 0.4), st.floats(0, 0.4)),
    st.tuples(st.floats(0.6, 1), st.floats(0.6, 1)),
    st.floats(0.1, 100),
)
def test_two_clicks_give_the_scale(a: tuple[float, float], b: tuple[float, float], mm: float) -> None:
    size = (600, 800)
    row, column = spacing_from_points([a, b], mm, size)
    length = np.hypot((b[0] - a[0]) * size[1], (b[1] - a[1]) * size[0])
    assert row == column == pytest.approx(mm / length)


@pytest.mark.parametrize(
    ("points", "mm"), [([(0.1, 0.1)], 10.0), ([(0.1, 0.1), (0.1, 0.1)], 10.0), ([(0, 0), (1, 1)], 0.0)]
)
def test_what_is_no_scale_is_refused(points: list[tuple[float, float]], mm: float) -> None:
    with pytest.raises(UsageError):
        spacing_from_points(points, mm, (600, 800))


def test_millimetres_only_where_the_scale_is_known() -> None:
    mask = disc(100, 100)[..., 0] < 100
    assert not any("Millimetres" in row for row in measurement_rows(measure_mask(mask)))
    rows = measurement_rows(measure_mask(mask, (0.1, 0.1)))
    assert rows[0]["Millimetres"].endswith("mm²")


def test_each_of_several_lesions_is_measured_on_its_own() -> None:
    labels = np.zeros((60, 90), np.uint8)
    labels[5:45, 5:45], labels[10:30, 60:80] = 1, 2
    areas = [row for row in lesion_rows(measure_lesions(labels)) if row["Measure"] == "Area"]
    assert [(row["Lesion"], row["Pixels"]) for row in areas] == [("1", "1,600"), ("2", "400")]
    assert not any(
        "Lesion" in row for row in lesion_rows(measure_lesions(np.minimum(labels, 1) * (labels < 2)))
    )


def test_shape_and_colour_of_each_lesion() -> None:
    photograph = disc(100, 100)
    mask = photograph[..., 0] < 100
    alone = {row["Measure"]: row["Value"] for row in character_rows(photograph, mask, None, None)}
    assert alone["Solidity (no dents: 1)"] == "1.00" and float(alone["Contrast to the skin, ΔE"]) > 10
    labels = mask.astype(np.uint8)
    labels[:5, :5] = 2
    rows = character_rows(photograph, labels > 0, labels, None)
    assert {row["Lesion"] for row in rows} == {"1", "2"} and len(rows) == 2 * len(alone)


def test_agreement_of_two_masks() -> None:
    a, b = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    a[:4], b[2:6] = True, True
    found = compare_masks(a, b)
    assert (found.dice, found.only_first, found.only_second) == (0.5, 0.2, 0.2)
    with pytest.raises(MaskError):
        compare_masks(a, b[:5])


def test_pictures_show_what_they_should() -> None:
    picture = disc(120, 160)
    mask = picture[..., 0] < 100
    assert np.array_equal(draw_result(picture, mask, outline=False), picture)
    filled = draw_result(picture, mask, outline=False, fill=0.5)
    assert np.array_equal((filled != picture).any(axis=2), mask)
    clear = draw_map(picture, np.zeros((8, 8), np.float32))
    assert np.array_equal(clear, picture)  # a grey picture stays as it is where the map is 0
    assert draw_difference(picture, mask, mask).shape == picture.shape


def test_uncertainty_layers_fit_the_scale(model: Model) -> None:
    look = look_at(model, "a.jpg", encode_jpeg(disc(100, 120)), 10**7)
    maps, how = doubts.doubt(model, look)
    for name in doubts.MAPS:
        layer = doubts.uncertainty_layer(maps, name, how)
        assert layer.values.min() >= 0 and layer.values.max() <= layer.peak and how in layer.caption


def test_results_are_found_and_read(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    run.mkdir(parents=True)
    lines = [
        {"event": "train", "step": 1, "loss": 2.0},
        {"event": "val", "step": 1, "epoch": 0, "dice": 0.5},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    (found,) = findings.find_results(tmp_path)
    assert found.label == "deep/run (training)"
    assert findings.read_curves(found.path) == {
        "train": [{"step": 1, "loss": 2.0}],
        "val": [{"step": 1, "epoch": 1, "dice": 0.5}],
    }


def test_an_evaluation_has_intervals_and_failures_of_its_own_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = np.random.default_rng(0).random((2, 6, 8, 8)) < 0.5
    pairs = [(f"{i}", *pair) for i, pair in enumerate(zip(*masks, strict=True))]
    scores = [
        replace(score, group=f"patient {i // 2}") for i, score in enumerate(evaluate_pairs(pairs).scores)
    ]
    evaluation = Evaluation(scores, [Failure("broken", "does not exist", "drawn")])
    summary = summarise(evaluation)
    write_json(tmp_path / METRICS_FILE, summary)
    evaluation.write_csv(tmp_path / PER_IMAGE)
    (tmp_path / "failures.jpg").write_bytes(encode_jpeg(disc(40, 60)))
    shown = {row["metric"]: (row["low"], row["high"]) for row in findings.read_summary(tmp_path)}
    assert shown["Dice"] == tuple(best_interval(summary["dice"]) or ()) != tuple(summary["dice"]["ci95"])
    assert "HD95, pixels" in shown, "the names of its page too"
    testing = pytest.importorskip("streamlit.testing.v1", reason="needs the extra 'dashboard'")
    page_results = importlib.import_module("dermseg.apps.dashboard.page_results")
    monkeypatch.setattr(page_results, "current", lambda: Settings(results=tmp_path))
    pictures: list[str] = []
    monkeypatch.setattr(page_results, "show_image", lambda _, alt, caption: pictures.append(alt))
    page = testing.AppTest.from_string("from dermseg.apps.dashboard import page_results as p; p.draw()").run()
    assert not page.exception and "Not scored" in [each.value for each in page.header]
    assert [*page.dataframe[-1].value.iloc[0]] == ["broken", "drawn", "does not exist"]
    assert pictures == [f"failures.jpg of {tmp_path.name}"], "for those who do not see it"


def test_a_folder_of_results_that_is_gone_has_none(tmp_path: Path) -> None:
    assert findings.find_results(tmp_path / "gone") == []


def test_models_of_one_folder_name_have_labels_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = pytest.importorskip("dermseg.apps.dashboard.shared", reason="needs the extra 'dashboard'")
    models = ("default", "a/mine", "b/mine", "c/other", "x/default")
    monkeypatch.setattr(shared, "current", lambda: Settings(models=models))
    assert [shared.short_name(name) for name in models] == [
        "default", "a/mine", "b/mine", "other", "x/default",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "files",
    [
        {"metrics.json": "{bad", "per_image.csv": "a,b\n"},
        {"metrics.json": "[1]", "per_image.csv": "a,b\n"},
        {"metrics.jsonl": "[1, 2]\n"},
        {"results.csv": f"a\n{'1' * 200_000}\n", "runs/a": ""},
    ],
)
def test_damaged_results_are_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    testing = pytest.importorskip("streamlit.testing.v1", reason="needs the extra 'dashboard'")
    page_results = importlib.import_module("dermseg.apps.dashboard.page_results")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(page_results, "current", lambda: Settings(results=tmp_path))
    page = testing.AppTest.from_string("from dermseg.apps.dashboard import page_results as p; p.draw()")
    page.run()
    assert not page.exception
    assert "cannot be read" in page.error[0].value and "reload the page" in page.error[0].value


def image_page(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, clicked: Sequence[tuple[float, float]] = ()
) -> tuple[Any, Any]:
    """The page of one image with one model, and its module; ``clicked`` are the points in its picture."""
    testing = pytest.importorskip("streamlit.testing.v1", reason="needs the extra 'dashboard'")
    shared = importlib.import_module("dermseg.apps.dashboard.shared")
    page_image = importlib.import_module("dermseg.apps.dashboard.page_image")
    for module in (shared, page_image):
        monkeypatch.setattr(module, "current", lambda: Settings(models=(str(bundle),)))
    monkeypatch.setattr(page_image, "show_pictures", lambda *_, **__: list(clicked))  # needs a browser
    text = "from dermseg.apps.dashboard import page_image as p; p.draw()"
    page = testing.AppTest.from_string(text, default_timeout=60)
    return page, page_image


@pytest.mark.parametrize(("own", "start"), [(0.5563, 0.56), (0.003, 0.01), (0.5, 0.5)])
def test_the_slider_comes_back_to_the_threshold_of_the_model(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float, start: float
) -> None:
    """Its steps are hundredths; from there on every outline was one of another threshold."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    card = json.loads((bundle / "card.json").read_text())
    card["postprocessing"]["threshold"] = own
    (bundle / "card.json").write_text(json.dumps(card))
    asked: list[float | None] = []

    def seen(model: Model, look: Look, **options: Any) -> Result:
        asked.append(options["threshold"])
        return outline(model, look, **options)

    page, page_image = image_page(monkeypatch, bundle)
    monkeypatch.setattr(page_image, "outline", seen)
    page.session_state["sample"] = next(iter(SAMPLES))
    page.run()
    assert not page.exception and page.slider[0].value == start
    page.slider[0].set_value(0.7).run()
    page.slider[0].set_value(start).run()
    assert asked == [None, 0.7, None]


def test_the_image_on_show_stays_when_files_come_and_go(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, page_image = image_page(monkeypatch, tiny_bundle)
    given = [Upload(f"{n}.png", encode_png(disc(40, 50 + n))) for n in range(4)]
    monkeypatch.setattr(page_image, "ask_files", lambda *_, **__: [given[n] for n in chosen])
    chosen = [0, 1, 2]
    page.run()
    assert page.subheader[0].value == "0\\.png"
    page.selectbox(key="place").set_value(page.selectbox(key="place").options[1]).run()
    for chosen, seen in (([0, 1, 2, 3], 1), ([1, 2, 3], 1), ([2, 1], 1), ([1], 1), ([2, 3], 2)):
        page.run()
        assert not page.exception and page.subheader[0].value == f"{seen}\\.png", chosen


def test_the_distance_on_a_ruler_stays_with_its_points(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off and on again, and the same two points were 10 mm apart: every length was that of another scale."""
    page, _ = image_page(monkeypatch, tiny_bundle, clicked=[(0.1, 0.5), (0.6, 0.5)])
    page.session_state["sample"] = next(iter(SAMPLES))
    page.run()

    def scale() -> list[str]:
        assert not page.exception
        return [each.value for each in page.caption if "mm wide" in each.value]

    page.toggle(key="measuring").set_value(True).run()
    ten = scale()
    page.number_input[0].set_value(25.0).run()
    mine = scale()
    page.toggle(key="measuring").set_value(False).run()
    assert not scale()
    page.toggle(key="measuring").set_value(True).run()
    assert page.number_input[0].value == 25 and scale() == mine != ten
    page.session_state["sample"] = list(SAMPLES)[1]
    page.run()
    assert page.number_input[0].value == 10, "of another image"


def test_a_card_fetches_no_picture(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    testing = pytest.importorskip("streamlit.testing.v1", reason="needs the extra 'dashboard'")
    shared = importlib.import_module("dermseg.apps.dashboard.shared")
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    card = json.loads((bundle / "card.json").read_text())
    card["summary"] = "a fine model ![](http://evil.example/seen.png)"
    (bundle / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(shared, "current", lambda: Settings(models=(str(bundle),)))
    page = testing.AppTest.from_string("from dermseg.apps.dashboard import page_model as p; p.draw()").run()
    assert not page.exception
    (text,) = page.markdown
    assert "a fine model" in text.value and "![" not in text.value


def test_a_gallery_of_several_pages_says_how_many() -> None:
    testing = pytest.importorskip("streamlit.testing.v1", reason="needs the extra 'dashboard'")
    text = (
        "from dermseg.apps.dashboard.page_batch import PAGE, Entry, _draw_gallery\n"
        "from dermseg.inference.outputs import Row\n"
        "_draw_gallery([Entry(Row(f'{n}.jpg', 'failed'), (), {}) for n in range(2 * PAGE + 1)])"
    )
    page = testing.AppTest.from_string(text).run()
    assert not page.exception and page.number_input[0].label == "Page, of 3"
    assert len(page.number_input[0].set_value(3).run().caption) == 1


def test_web_pages_of_other_places_get_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("streamlit", reason="needs the extra 'dashboard'")
    from streamlit import config, net_util
    from streamlit.web import bootstrap
    from streamlit.web.server import server_util

    monkeypatch.setattr(bootstrap, "run", lambda *arguments: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".streamlit").mkdir()
    opened = 'enableCORS = false\ncorsAllowedOrigins = ["http://evil.example"]\n'
    (tmp_path / ".streamlit" / "config.toml").write_text(f"[server]\n{opened}")
    monkeypatch.setattr(net_util, "get_external_ip", lambda: pytest.fail("it asks a web service"))
    server.serve(Settings(), host="127.0.0.1", port=8501, browser=False)
    assert not server_util.is_url_from_allowed_origins("http://evil.example")
    if "allowedHosts" in config.get_options_for_section("server"):
        assert config.get_option("server.allowedHosts") == ["localhost", "127.0.0.1", "::1"]
        assert config.get_option("client.allowedOrigins") == []


def test_settings_survive_the_trip_to_the_script() -> None:
    settings = Settings(models=("default", "other"), results=Path("runs"), max_upload_mb=5)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_samples_are_images_the_default_model_outlines() -> None:
    default = load_model()
    for name in SAMPLES:
        assert outline(default, look_at(default, name, sample(name).data, 10**7)).status == "ok"


def test_photographs_of_one_lesion_are_followed() -> None:
    first = synthesize(3, (240, 320))[0]
    later = cv2.warpAffine(
        first,
        cv2.getRotationMatrix2D((160, 120), 20, 0.9),
        (320, 240),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    uploads = [
        Upload("b.png", encode_png(np.ascontiguousarray(later))),
        Upload("a.png", encode_png(first)),
        Upload("c.png", b"no image"),
    ]
    done: list[tuple[int, int]] = []
    series = follow_uploads(load_model(), uploads, 0.1, lambda *count: done.append(count))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert [row["Photograph"] for row in series.rows] == ["a.png", "b.png", "c.png"]
    assert [row["Scale by"] for row in series.rows] == ["", "millimetres", ""]
    assert series.rows[0]["Area"].endswith("mm²") and series.rows[2]["Verdict"] == "failed"
    assert len(series.failures) == 1 and series.failures[0].startswith("c.png: ")
    assert len(series.pictures) == 2 and b"Lesions over time" in series.page
    assert b"first usable photograph" in series.page  # a rejected one may come before it
    # the scale that was given for both is wrong for one: the skin says so
    assert "by the skin around the lesion the scale is" in series.pictures[1][2]
    by_skin = follow_uploads(load_model(), uploads[:2], None).rows[1]
    assert by_skin["Scale by"] == "skin" and abs(float(by_skin["Change"][1:-2])) < 8
    with pytest.raises(UsageError, match="two photographs"):
        follow_uploads(load_model(), uploads[:1], None)
