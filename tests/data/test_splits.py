"""No group is ever torn apart, whatever ties its images together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermseg.data.duplicates import Pair
from dermseg.data.index import IndexRow
from dermseg.data.sources.tables import read_splits
from dermseg.data.splits import (
    apply_splits,
    assign_groups,
    exclude_leaks,
    find_leaks,
    fold_groups,
    regroup,
    split_groups,
)
from dermseg.data.stats import describe
from dermseg.errors import DataError


def row(image_id: str, **known: str) -> IndexRow:
    return IndexRow(image_id=image_id, image=f"{image_id}.jpg", **({"dataset": "d"} | known))


def test_group_is_patient_else_lesion_else_duplicate_else_image() -> None:
    rows = [
        row("a", subject="p", lesion="l1"),
        row("b", lesion="l1"),
        row("c", lesion="l2"),
        row("d"),
        row("e"),
        row("f"),
    ]
    groups = [r.group for r in assign_groups(rows, [Pair(3, 4, 0, 1.0)])]
    assert groups == ["d/subject/p", "d/subject/p", "d/lesion/l2", "d/d", "d/d", "d/f"]


def test_groups_that_are_older_than_the_patients_are_made_anew() -> None:
    """Patients noted in an index that was made without: each image was a draw of its own in intervals."""
    made = assign_groups([row(name) for name in "abcd"], [Pair(2, 3, 0, 1.0)])
    noted = [replace(r, subject="p" if r.image_id in "abc" else "") for r in made]
    assert [r.group for r in regroup(noted)] == ["d/subject/p"] * 4
    for known in (made, assign_groups(noted), [replace(r, group="") for r in noted]):
        assert regroup(known) == known
    assert describe(noted, areas=False)["groups"] == 1


def test_ties_across_data_sets() -> None:
    rows = [
        row("ISIC_0000001", dataset="isic2018"),
        row("ISIC_0000001", dataset="crops"),
        row("1", dataset="x", sha256="aa"),
        row("2", dataset="y", sha256="aa"),
        row("3", dataset="x", subject="IP_0000001"),
        row("4", dataset="y", subject="IP_0000001"),
        row("5", dataset="x", subject="7"),
        row("5", dataset="y", subject="7"),  # patient 7 of another hospital, another image 5
    ]
    groups = [r.group for r in assign_groups(rows)]
    assert groups[0] == groups[1] == "ISIC_0000001"
    assert groups[2] == groups[3]
    assert groups[4] == groups[5] == "IP_0000001"
    assert len(set(groups)) == 5


ROWS = st.lists(
    st.tuples(st.sampled_from("pqrstuvw "), st.sampled_from("lmnop "), st.sampled_from("de")),
    min_size=30,
    max_size=120,
).map(
    lambda facts: [
        row(f"i{n}", subject=s.strip(), lesion=x.strip(), dataset=d) for n, (s, x, d) in enumerate(facts)
    ]
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(0, 5), st.randoms())
def test_splits_never_leak_and_do_not_depend_on_order(
    rows: list[IndexRow], seed: int, shuffler: object
) -> None:
    rows = assign_groups(rows)
    try:
        done = split_groups(rows, seed=seed)
    except DataError:
        assert len({r.group for r in rows}) < 3
        return
    assert find_leaks(done) == []
    shuffled = list(rows)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    again = {r.key: r.split for r in split_groups(shuffled, seed=seed)}
    assert again == {r.key: r.split for r in done}


def test_ratios_hold_in_every_data_set() -> None:
    rows = [row(f"{i}", dataset="ab"[i % 3 == 0], lesion=str(i // 2)) for i in range(1200)]
    done = split_groups(assign_groups(rows), seed=3)
    for dataset in "ab":
        counts = Counter(r.split for r in done if r.dataset == dataset)
        total = counts.total()
        assert {name: round(n / total, 2) for name, n in counts.items()} == {
            "train": 0.70,
            "val": 0.15,
            "test": 0.15,
        }
    assert [r.split for r in done] != [r.split for r in split_groups(assign_groups(rows), seed=4)]


def test_every_image_is_tested_once_in_k_folds() -> None:
    rows = assign_groups([row(f"{i}", lesion=str(i // 3)) for i in range(90)])
    tables = fold_groups(rows, 5, seed=1)
    tested = [r.image_id for table in tables for r in table if r.split == "test"]
    assert sorted(tested) == sorted(r.image_id for r in rows)
    for table in tables:
        assert find_leaks(table) == []
        assert {r.split for r in table} == {"train", "val", "test"}
    with pytest.raises(DataError, match="nothing to train on"):
        fold_groups(rows, 2)


def test_an_image_without_a_group_is_one_of_its_own() -> None:
    rows = [row(f"{i}") for i in range(20)]
    tested = [[r.image_id for r in table if r.split == "test"] for table in fold_groups(rows, 5)]
    assert [len(ids) for ids in tested] == [4] * 5


@pytest.mark.parametrize("ratios", [{"train": 1.0}, {"train": 0.9, "test": 0.2}, {"train": 1.0, "test": 0.0}])
def test_bad_ratios(ratios: dict[str, float]) -> None:
    with pytest.raises(DataError, match="ratios"):
        split_groups(assign_groups([row("a"), row("b")]), ratios)


def test_leaks_are_found_whatever_the_group_column_says() -> None:
    rows = [
        row("a", subject="p", group="one", split="train"),
        row("b", subject="p", group="two", split="test"),
        row("c", subject="p", split="excluded"),
        row("d", split="val"),
        row("e", subject="p"),  # in no split yet
    ]
    (leak,) = find_leaks(rows)
    assert leak.splits == ("test", "train")
    assert leak.images == ("d/a", "d/b")
    fixed, changed = exclude_leaks(assign_groups(rows))
    assert [r.split for r in fixed] == ["excluded", "test", "excluded", "val", ""]
    assert [r.image_id for r in changed] == ["a"]
    assert find_leaks(fixed) == []


@pytest.mark.parametrize(
    ("kept", "lost"), [("test", "val"), ("val", "calib"), ("calib", "train"), ("train", "extra")]
)
def test_the_split_that_is_reported_on_first_keeps_its_images(kept: str, lost: str) -> None:
    rows = [row(name, group="g", split=name) for name in (lost, kept)]
    assert [r.split for r in exclude_leaks(rows)[0]] == ["excluded", kept]


def test_split_file(tmp_path: Path) -> None:
    file = tmp_path / "splits.csv"
    file.write_text(
        "dataset,image_id,group,split,split_random\n"
        "isic2018,ISIC_0000001,g1,test,train\nisic2018,ISIC_0000002,g1,train,\nmine,x,,val,\n"
    )
    rows = [
        row("ISIC_0000001", dataset="isic2018"),
        row("ISIC_0000001", dataset="crops"),  # another view, found by its ISIC id
        row("x", dataset="yours"),  # not the x of 'mine'
    ]
    done = apply_splits(rows, read_splits(file))
    assert [(r.split, r.group) for r in done] == [("test", "g1"), ("test", "g1"), ("", "")]
    assert [r.split for r in apply_splits(rows, read_splits(file, "split_random"))] == ["train", "train", ""]
    with pytest.raises(DataError, match="no column 'fold'"):
        read_splits(file, "fold")
    file.write_text("image_id,group,split\nx,NA,train\ny,NA,NA\n")  # R's way to say that it is not known
    assert [r.split for r in apply_splits([row("x"), row("y")], read_splits(file))] == ["train", ""]
    assert read_splits(file).rows["", "x"].group == ""
    file.write_text("image_id,split\nx,train\nx.jpg,test\n")
    with pytest.raises(DataError, match="twice"):
        read_splits(file)


def test_rows_keep_everything_else() -> None:
    one = row("a", subject="s", lesion="l", licence="CC-0", sha256="ff")
    assert replace(split_groups(assign_groups([one, row("b"), row("c")]))[0], split="", group="") == one
