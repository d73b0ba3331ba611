"""A lesion followed through photographs, some of which are of no use."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dermseg.images.load import LoadedImage
from dermseg.images.sources import as_source
from dermseg.inference import following
from dermseg.inference.following import VIEW, Followed, Photograph, Visit, compare, follow, look
from dermseg.inference.predictor import Model, load_model
from dermseg.measure.align import align
from dermseg.measure.landmarks import Landmarks
from dermseg.report.following import FollowingPage
from dermseg.report.visit_pictures import draw_visits
from dermseg.uncertainty.repeatability import Limits, Repeatability

SIDE = 320


def shot(
    folder: Path, name: str, radius: float, skin: int = 1, zoom: float = 1.0, shift: int = 0
) -> Photograph:
    """A dark disc with a pattern on patterned skin, photographed and written as a PNG."""
    rng = np.random.default_rng(skin)
    spots = sum(cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), s) * s for s in (1.2, 2.5, 5.0))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    grey = np.where(np.hypot(x, y) < radius, 60 + 10 * spots, 200 + 10 * spots)
    matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), 0, zoom)
    picture = np.clip(grey, 0, 255).astype(np.uint8)
    picture = cv2.warpAffine(picture, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    path = folder / f"{name}.png"
    cv2.imwrite(str(path), picture)
    return Photograph(as_source(path), "mole")


@pytest.fixture
def model(tiny_bundle: Path) -> Model:
    return load_model(tiny_bundle)


def test_size_is_compared_with_the_first_usable_photograph(model: Model, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    nothing = shot(tmp_path, "nothing", 0)
    first = shot(tmp_path, "first", 40)
    torn.write_bytes((tmp_path / "first.png").read_bytes()[:400])
    larger = shot(tmp_path, "larger", 40 * 1.2**0.5, zoom=0.8)
    done: list[None] = []
    found = follow(
        model,
        [Photograph(as_source(torn), "mole"), nothing, first, larger],
        progress=lambda: done.append(None),
    )
    assert found.lesion == "mole" and len(done) == 4
    assert [visit.status for visit in found.visits] == ["failed", "no_lesion", "ok", "ok"]
    assert found.visits[0].message and found.visits[0].reading is None
    (change,) = found.comparisons
    assert (change.first, change.second) == (2, 3)
    assert change.change.scale_from == "skin" and change.change.scale == pytest.approx(1.25, rel=0.01)
    assert change.change.area == pytest.approx(0.2, abs=0.06)
    assert change.change.exceeds is None  # nobody has measured how well this bundle repeats
    assert change.contrast is not None and change.contrast.change == pytest.approx(0, abs=1.5)
    assert change.contrast.exceeds is None
    # the smaller disc lies within the larger one
    assert change.overlap == pytest.approx(2 / (1 + 1.2), abs=0.03)


def test_over_another_visit_where_the_first_cannot_be_recognised(model: Model, tmp_path: Path) -> None:
    """Skin changes slowly: the third photograph has nothing in common with the first, the second has both."""
    first, last = shot(tmp_path, "first", 40, skin=1), shot(tmp_path, "last", 44, skin=2)
    halves = [cv2.imread(one.image.label) for one in (first, last)]
    halves[0][:, SIDE // 2 :] = halves[1][:, SIDE // 2 :]
    farther = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), 12, 0.9)
    both = cv2.warpAffine(halves[0], farther, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    cv2.imwrite(str(tmp_path / "between.png"), both)
    between = Photograph(as_source(tmp_path / "between.png"), "mole")
    direct = follow(model, [first, last]).comparisons[0]
    assert direct.alignment is None and direct.change.area is None and direct.overlap is None
    over = follow(model, [first, between, last]).comparisons[1]
    assert (over.first, over.second) == (0, 2) and over.change.scale == pytest.approx(1, rel=0.01)
    assert over.change.area == pytest.approx(1.21 - 1, abs=0.06)


def test_a_first_photograph_that_cuts_the_lesion_off_gives_way(model: Model, tmp_path: Path) -> None:
    """All later sizes were unknown, whatever the later photographs showed."""
    cut, whole, larger = (shot(tmp_path, name, r) for name, r in (("cut", 40), ("whole", 40), ("larger", 44)))
    pixels = cv2.imread(cut.image.label)
    cv2.imwrite(cut.image.label, pixels[:, : SIDE // 2 + 20])
    farther = cv2.warpAffine(
        cv2.imread(larger.image.label),
        cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 12, 0.9),
        (SIDE, SIDE),
        borderMode=cv2.BORDER_REFLECT,
    )
    cv2.imwrite(larger.image.label, farther)
    found = follow(model, [cut, whole, cut, larger])
    against_cut, cut_again, grown = found.comparisons
    assert [(c.first, c.second) for c in found.comparisons] == [(0, 1), (1, 2), (1, 3)]
    assert against_cut.change.area is None and against_cut.contrast is not None
    assert cut_again.change.area is None and grown.change.area == pytest.approx(0.21, abs=0.06)
    assert [picture.words[:18] for picture in draw_visits(found)][3] == "against whole.png:"
    page = FollowingPage()
    page.add(found)
    assert "against whole.png, the first that shows all of the lesion" in page.render()


def test_pixels_that_are_not_square(model: Model, tmp_path: Path) -> None:
    """Turned by 20 degrees, no turn lays one on the other unless their pixels are made square."""
    first, second = shot(tmp_path, "first", 40), shot(tmp_path, "second", 40, zoom=1.25)
    turn = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), 20, 1)
    pixels = cv2.imread(second.image.label)
    turned = cv2.warpAffine(pixels, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    cv2.imwrite(second.image.label, cv2.resize(turned, (SIDE, SIDE // 2), interpolation=cv2.INTER_AREA))
    flat = Photograph(second.image, "mole", spacing_mm=(0.16, 0.08))
    (found,) = follow(model, [replace(first, spacing_mm=(0.1, 0.1)), flat]).comparisons
    assert found.alignment is not None and found.alignment.scale is not None
    assert found.alignment.turn == pytest.approx(20, abs=0.5) and found.change.notes == ()
    assert found.change.area == pytest.approx(0, abs=0.03) and (found.overlap or 0) > 0.95


def test_millimetres_that_are_not_those_of_the_file_are_remarked(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of DICOM files, as in ``dermseg measure``: what is given goes before, and may be of another camera."""
    load = following.load_image

    def calibrated(*args: Any, **more: Any) -> LoadedImage:
        loaded = load(*args, **more)
        return replace(loaded, info=replace(loaded.info, spacing_mm=(0.02, 0.02)))

    monkeypatch.setattr(following, "load_image", calibrated)
    one, two = shot(tmp_path, "one", 40), shot(tmp_path, "two", 44)
    given = replace(two, spacing_mm=(0.05, 0.05))
    found = follow(model, [one, given])
    said = "the millimetres given were taken, the file says 0.02 and 0.02 (row and column)"
    assert [said in visit.message for visit in found.visits] == [False, True]
    assert f"this photograph: {said}" in found.comparisons[0].change.notes
    (same,) = follow(model, [one, replace(two, spacing_mm=(0.02, 0.02))]).comparisons
    assert same.change.scale_from == "spacing" and same.change.notes == ()


def test_what_goes_wrong_with_one_photograph_is_its_row(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, calls = following.landmarks, iter([1, 2, 3])

    def too_large_once(*args: Any, **more: Any) -> Landmarks:
        if next(calls) == 2:
            raise MemoryError
        return find(*args, **more)

    monkeypatch.setattr(following, "landmarks", too_large_once)
    found = follow(model, [shot(tmp_path, str(n), 40) for n in range(3)])
    assert [visit.status for visit in found.visits] == ["ok", "failed", "ok"]
    assert "memory" in found.visits[1].message and len(found.comparisons) == 1


def test_outlines_in_different_places_are_not_one_lesion(model: Model, tmp_path: Path) -> None:
    """Of two lesions in the first photograph the smaller one is left in the second."""
    both, one = shot(tmp_path, "both", 40), shot(tmp_path, "one", 0, zoom=0.9)
    for photograph, place, radius in ((both, 60, 25), (one, 70, 22)):
        pixels = cv2.imread(photograph.image.label)
        cv2.imwrite(photograph.image.label, cv2.circle(pixels, (place, place), radius, (60, 60, 60), -1))
    (found,) = follow(model, [both, one]).comparisons
    assert found.alignment is not None and found.alignment.scale is not None
    assert found.overlap == 0 and found.change.area is None and found.contrast is None
    assert "another lesion" in found.change.notes[0]


def test_photographs_in_the_wrong_order_are_noticed(model: Model, tmp_path: Path) -> None:
    """As the files of a DICOM series, whose names are numbers without a meaning."""
    one, two = shot(tmp_path, "one", 40), shot(tmp_path, "two", 44)
    days = date(2026, 3, 1), date(2026, 1, 1)
    (found,) = follow(model, [replace(one, taken=days[0]), replace(two, taken=days[1])]).comparisons
    assert found.change.notes == ("taken before the first photograph: check the order",)


def test_a_change_is_shown_with_the_doubts_of_its_outline(model: Model, tmp_path: Path) -> None:
    visits = [look(model, shot(tmp_path, name, 40)) for name in ("one", "two")]
    second = replace(visits[1], verdict="review", message="the outline is uncertain")
    assert visits[0].marks is not None and second.marks is not None
    found = compare(visits[0], second, (0, 1), None, align(visits[0].marks, second.marks))
    _, (_, _, words) = draw_visits(Followed("mole", (visits[0], second), (found,)))
    assert words == "area +0.0 %; verdict review: the outline is uncertain"


def test_the_range_is_that_of_pairs_with_such_verdicts(model: Model, tmp_path: Path) -> None:
    """Pairs that are not both accepted had the range of all pairs, most of which are."""
    first, second = (
        replace(look(model, shot(tmp_path, name, radius)), verdict="accept")
        for name, radius in (("one", 40), ("two", 43))
    )
    sure, doubtful, mixed = (Limits(pairs=30, area=a, contrast=c) for a, c in ((0.1, 3), (0.4, 9), (0.2, 5)))
    known = Repeatability(accepted=sure, others=doubtful, all=mixed)

    def width(later: Visit, known: Repeatability) -> tuple[float, float]:
        assert first.marks is not None and later.marks is not None
        found = compare(first, later, (0, 1), known, align(first.marks, later.marks))
        assert found.change.area_range is not None and found.contrast is not None and found.contrast.range
        low, high = found.change.area_range
        return np.log((1 + high) / (1 + low)) / 2, (found.contrast.range[1] - found.contrast.range[0]) / 2

    assert width(second, known) == pytest.approx((0.1, 3))
    doubted = replace(second, verdict="review")
    assert width(doubted, known) == pytest.approx((0.4, 9))
    assert width(doubted, Repeatability(accepted=sure, all=mixed)) == pytest.approx((0.2, 5))  # older bundles
    few = Repeatability(accepted=sure, others=Limits(pairs=5), all=mixed)
    assert first.marks is not None and doubted.marks is not None
    change = compare(first, doubted, (0, 1), few, align(first.marks, doubted.marks)).change
    assert change.area is not None and change.area_range is None and change.exceeds is None
    assert change.notes == ("no range: the model was fitted on too few pairs with such verdicts",)


def test_an_outline_by_a_person_takes_the_place_of_the_models(model: Model, tmp_path: Path) -> None:
    photograph = shot(tmp_path, "a", 40)
    mask: NDArray[np.uint8] = np.zeros((SIDE, SIDE), np.uint8)
    mask[100:150, 100:150] = 255
    cv2.imwrite(str(tmp_path / "a_segmentation.png"), mask)
    drawn = Photograph(
        photograph.image, "mole", spacing_mm=(0.1, 0.1), mask=as_source(tmp_path / "a_segmentation.png")
    )
    visit = look(model, drawn)
    assert visit.reading is not None and visit.reading.area_mm2 == pytest.approx(25)
    assert visit.verdict is None and visit.usable
    # nor is there a verdict where the model has no gate, as a bundle of one's own: nobody has drawn that
    by_model = look(model, replace(drawn, mask=None))
    words = [next(draw_visits(Followed("mole", (one,), ()))).words for one in (visit, by_model)]
    assert words == ["outline by a person", "outline by the model"]
    cv2.imwrite(str(tmp_path / "a_segmentation.png"), mask[:100])
    wrong = look(model, drawn)
    assert wrong.status == "failed" and "a_segmentation.png" in wrong.message


def test_a_large_photograph_is_kept_small(model: Model, tmp_path: Path) -> None:
    photograph = shot(tmp_path, "a", 60)
    large = cv2.resize(cv2.imread(photograph.image.label), (1600, 1200), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "a.jpg"), large)
    visit = look(model, Photograph(as_source(tmp_path / "a.jpg")))
    assert visit.reading is not None and (visit.reading.width, visit.reading.height) == (1600, 1200)
    assert visit.view is not None and visit.lesion is not None and visit.marks is not None
    assert visit.view.shape == (*visit.lesion.shape, 3) and max(visit.view.shape) <= VIEW
    assert visit.marks.size == (1200, 1600) and visit.marks.points[:, 0].max() > 1200
    assert visit.lesion.mean() == pytest.approx(visit.reading.area_fraction, rel=0.01)


def test_what_the_gate_rejects_is_not_compared(tmp_path: Path) -> None:
    page = np.full((400, 400, 3), 255, np.uint8)
    for line in range(30, 380, 18):
        cv2.putText(
            page, "all happy families are alike", (8, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1
        )
    cv2.imwrite(str(tmp_path / "page.png"), page)
    visit = look(load_model(), Photograph(as_source(tmp_path / "page.png")))
    assert visit.verdict == "reject" and not visit.usable
