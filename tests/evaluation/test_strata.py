"""Groups of images: who belongs where, who is too few."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dermseg.errors import DataError
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.failures import describe_difficulty, describe_failure, failure_rows
from dermseg.evaluation.metadata import attach, read_metadata
from dermseg.evaluation.strata import skin_tone_summary, stratify, stratum_figures
from dermseg.evaluation.table import Evaluation, Fact, ImageScore, read_per_image


def score(i: int, group: str = "", **facts: Fact) -> ImageScore:
    return ImageScore(f"img{i:03}", Counts(60 + i, 10, 10, 900), "d", group, facts)


def groups(evaluation: Evaluation, name: str) -> dict[str, tuple[int, int]]:
    """Images and independent images of each group."""
    (stratum,) = [stratum for stratum in stratify(evaluation) if stratum.name == name]
    return {group.name: (len(group.keys), group.independent) for group in stratum.groups}


def test_groups_by_limits_and_text() -> None:
    facts: list[dict[str, Fact]] = [
        {"reference_area_fraction": 0.019, "age": 19.0, "reference_touches_border": True},
        {"reference_area_fraction": 0.02, "age": 20.0, "reference_touches_border": False},
        {"reference_area_fraction": 0.6, "age": 85.0, "reference_touches_border": False, "sex": "female"},
        {"reference_area_fraction": 0.6, "age": None, "reference_touches_border": False, "ita": 50.0},
    ]
    evaluation = Evaluation([score(i, **f) for i, f in enumerate(facts)])
    assert groups(evaluation, "size") == {"below 2 %": (1, 1), "2-5 %": (1, 1), "50 % and more": (2, 2)}
    assert groups(evaluation, "age") == {"below 20": (1, 1), "20-39": (1, 1), "80 and more": (1, 1)}
    assert groups(evaluation, "touches_border") == {"no": (3, 3), "yes": (1, 1)}
    assert groups(evaluation, "skin_tone") == {"light": (1, 1)}
    assert {s.name: s.unknown for s in stratify(evaluation)}["sex"] == 3
    assert "dataset" not in {s.name for s in stratify(evaluation)}  # one group would repeat the means


def test_contrast_is_cut_into_tenths() -> None:
    evaluation = Evaluation([score(i, contrast=float(i)) for i in range(100)])
    assert [n for n, _ in groups(evaluation, "contrast").values()] == [10] * 10


def test_few_patients_are_refused_however_many_images() -> None:
    many = [score(i, f"p{i % 5}", sex="male") for i in range(50)]
    enough = [score(100 + i, f"q{i}", sex="female") for i in range(10)]
    (sex,) = stratum_figures(Evaluation([*many, *enough]))
    male, female = sex["groups"][1], sex["groups"][0]  # type: ignore[index]
    assert (male["n"], male["independent"], male["refused"], "dice" in male) == (50, 5, True, False)
    assert (female["refused"], female["dice"]["n"]) == (False, 10)


def test_the_table_is_enough(tmp_path: Path) -> None:
    scores = [
        score(i, contrast=i / 3, ita=None if i % 4 else 20.0, ita_reason="dark" if i % 4 else "", sex="male")
        for i in range(40)
    ]
    evaluation = Evaluation(scores)
    evaluation.write_csv(tmp_path / "t.csv")
    back = read_per_image(tmp_path / "t.csv")
    assert stratum_figures(back) == stratum_figures(evaluation)
    expected = {"n": 40, "failed": 30, "failure_rate": 0.75, "reasons": {"dark": 30}}
    assert skin_tone_summary(back) == skin_tone_summary(evaluation) == expected


def test_metadata_of_known_tables(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text(
        "isic_id,age_approx,sex,anatom_site_general,diagnosis_3,annotations\n"
        "img000,55.0,female,,Nevus,A04/T3/S1\n"
        "img001,,unknown,head/neck,,A04/T3/S1;A02/T1/S1;MV/MV/MV\n"
        "img002,70,male,torso,nv,ST/ST/ST\n"
        ",1,male,torso,nv,\n"
        ",2,female,torso,nv,\n"
    )
    table = read_metadata(file)
    assert table["", "img000"] == {
        "diagnosis": "Nevus", "site": None, "age": 55.0, "sex": "female", "annotation_style": "T3"
    }  # fmt: skip
    assert (table["", "img001"]["sex"], table["", "img001"]["annotation_style"]) == (None, "several")
    assert (table["", "img002"]["diagnosis"], table["", "img002"]["annotation_style"]) == ("nevus", None)
    file.write_text("image_id,age_approximate,sex\nimg000,55,female\n")  # of the ISIC 2017 challenge
    assert read_metadata(file) == {("", "img000"): {"age": 55.0, "sex": "female"}}
    file.write_text("image_id;age;sex\nimg000;55,0;female\n")  # the same where commas are decimal signs
    assert read_metadata(file) == {("", "img000"): {"age": 55.0, "sex": "female"}}
    attached = attach(Evaluation([score(0, sex="?"), score(7)]), table)
    assert [s.facts.get("sex") for s in attached.scores] == ["female", None]
    file.write_text("image,sex\nimg000.jpg,male\n")  # as of 'data import --metadata', a file is an image too
    assert attach(Evaluation([score(0)]), read_metadata(file)).scores[0].facts["sex"] == "male"
    file.write_text("Filename,Age approx,Patient ID\nsub/img000.jpg,55,x\n")  # and its columns are columns
    assert read_metadata(file) == {("", "sub/img000"): {"age": 55.0}}
    with pytest.raises(DataError, match="names none of the 1 images"):
        attach(Evaluation([score(9)]), table)


def test_metadata_of_one_data_set_is_not_that_of_another(tmp_path: Path) -> None:
    """A/img0 to A/img2 and B/img0 to B/img2: B's images got the sex of A's."""
    both = Evaluation([replace(score(i), dataset=dataset) for dataset in "AB" for i in range(3)])
    file = tmp_path / "m.csv"
    file.write_text("image_id,sex\nimg000,male\nimg001,female\n")
    with pytest.raises(DataError, match=r"2 names .* such as 'img000' \('A', 'B'\)") as refused:
        attach(both, read_metadata(file))
    assert "each data set by itself" in str(refused.value.hint)

    def sexes() -> list[object]:
        return [each.facts.get("sex") for each in attach(both, read_metadata(file)).scores]

    file.write_text("image_id,dataset,sex\nimg000,A,male\nimg000,B,female\nimg001,A,male\nimg002,,female\n")
    with pytest.raises(DataError, match=r"1 names .* such as 'img002'"):
        sexes()  # whose the third is, is not said
    file.write_text("image_id,dataset,sex\nimg000,A,male\nimg000,B,female\nimg001,A,male\n")
    assert sexes() == ["male", "male", None, "female", None, None]
    # a column of that name that holds clinics, as HAM10000's does, says nothing of the index's data sets
    file.write_text("image_id,dataset,sex\nimg000,rosendahl,male\n")
    with pytest.raises(DataError, match="such as 'img000'"):
        sexes()
    alone = Evaluation([each for each in both.scores if each.dataset == "B"])
    first = attach(alone, read_metadata(file)).scores[0].facts
    assert (first["sex"], first["source"]) == ("male", "rosendahl")
    file.write_text("image_id,dataset,sex\nimg000,rosendahl,male\nimg000,vidir,female\n")
    with pytest.raises(DataError, match=r"'img000' twice and differently.* column 'dataset'.*: B"):
        attach(alone, read_metadata(file))
    apart = attach(Evaluation(alone.scores[1:]), {("", "img001"): {"sex": "female"}, **read_metadata(file)})
    assert apart.scores[0].facts["sex"] == "female", "of images that are not here nothing is asked"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column names the images"),
        ("image_id,b\n1,2\n", "no column that can be used"),
        ("image_id,sex\nx,male\nx,female\n", "named twice and differently"),
    ],
)
def test_metadata_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_metadata(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (Counts(80, 10, 10, 0), "close to the reference"),
        (Counts(0, 0, 50, 50), "nothing found"),
        (Counts(0, 50, 0, 50), "an outline where the reference has none"),
        (Counts(0, 30, 30, 40), "another place outlined"),
        (Counts(20, 0, 80, 0), "too small: 80% of the lesion missed"),
        (Counts(50, 100, 0, 0), "too large: 3.0 times the reference"),
        (Counts(50, 50, 50, 0), "shifted: 50% of the lesion missed, 50% of the outline beside it"),
    ],
)
def test_failures_in_words(counts: Counts, words: str) -> None:
    assert describe_failure(counts) == words


def test_only_failures_are_listed() -> None:
    bad = ImageScore("bad", Counts(1, 0, 9, 90), facts={"contrast": 3.0, "reference_area_fraction": 0.01})
    rows = failure_rows(Evaluation([score(1), bad]))
    assert [row["image_id"] for row in rows] == ["bad"]
    assert describe_difficulty(bad) == rows[0]["difficulty"] == "small, low contrast"
