"""Splits that do not leak: whole groups of patient, lesion and near-duplicates stay on one side.

Decisions
- Groups are the connected parts of one graph over patients, lesions, given groups, images with the same
  id or the same bytes, and near-duplicates. So two views of one image in two data sets are one group.
- Ids of the ISIC archive (IP_, IL_, HAM_, ISIC_) are the same thing in every data set; any other id is
  known only inside its own data set.
- With k folds each fold is the test split of one index and the validation split of another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dermseg.data.duplicates import Pair
from dermseg.data.index import EXCLUDED, IndexRow
from dermseg.data.sources.base import GLOBAL_ID, GLOBAL_NAME
from dermseg.data.sources.tables import SplitTable
from dermseg.errors import DataError
from dermseg.words import counted

DEFAULT_RATIOS = {"train": 0.70, "val": 0.15, "test": 0.15}
# Who keeps its images when a group lies in several splits: the one that is reported on first.
PRECEDENCE = ("test", "val", "calib", "train")


@dataclass(frozen=True)
class Leak:
    """A group that lies in several splits."""

    group: str
    splits: tuple[str, ...]
    images: tuple[str, ...]


class _Union:
    """Union-find over names (Tarjan 1975, with path halving)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        parent = self._parent
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        a, b = self.find(first), self.find(second)
        if a != b:
            self._parent[max(a, b)] = min(a, b)


def image_name(row: IndexRow) -> str:
    """What the image is known by: an id of the ISIC archive everywhere, any other id in its data set."""
    return row.image_id if GLOBAL_ID.fullmatch(row.image_id) else f"{row.dataset}/{row.image_id}"


def _local(row: IndexRow, kind: str, name: str) -> str:
    return name if GLOBAL_NAME.fullmatch(name) else f"{row.dataset}/{kind}/{name}"


def assign_groups(rows: Sequence[IndexRow], pairs: Iterable[Pair] = ()) -> list[IndexRow]:
    """Write the ``group`` of every row.

    Parameters
    ----------
    rows
        A group that a row already has joins it with the other rows of that group.
    pairs
        Near-duplicates, as positions in ``rows``.

    Returns
    -------
    list of IndexRow
        Named by the patient, else the lesion, else the group given, else the first image.
    """
    union = _Union()
    names: list[tuple[str, str, str, str]] = []  # subject, lesion, given group, image
    for row in rows:
        image = image_name(row)
        subject = _local(row, "subject", row.subject) if row.subject else ""
        lesion = _local(row, "lesion", row.lesion) if row.lesion else ""
        names.append((subject, lesion, row.group, image))
        for name in (subject, lesion, row.group, f"sha256:{row.sha256}" if row.sha256 else ""):
            if name:
                union.join(image, name)
    for pair in pairs:
        union.join(names[pair.first][3], names[pair.second][3])
    best: dict[str, tuple[int, str]] = {}
    for kinds in names:
        root = union.find(kinds[3])
        label = min((rank, name) for rank, name in enumerate(kinds) if name)
        best[root] = min(best.get(root, label), label)
    return [replace(row, group=best[union.find(kinds[3])][1]) for row, kinds in zip(rows, names, strict=True)]


def regroup(rows: Sequence[IndexRow]) -> list[IndexRow]:
    """The rows, their groups made anew where what they say of patients and lesions goes beyond them.

    People note patients in an index that was made without; its groups are then older than they.
    """
    fresh = assign_groups(rows)
    stale = any(new.group != old.group for new, old in zip(fresh, rows, strict=True) if old.group)
    return fresh if stale else list(rows)


def keep_known(
    old: Iterable[IndexRow], new: Sequence[IndexRow], *, splits: bool, masks: bool, assumed: str = ""
) -> list[IndexRow]:
    """Rows of an import, with what only the rows say that an index has of the same images already.

    Parameters
    ----------
    splits
        Whether the import was told the splits. Otherwise an image stays in the one it has, under whatever id
        of its data set: what was tested on must not be trained on because it was imported again.
    masks
        Whether the import says which images have none, as COCO does. Otherwise those of the index stay where
        no file was found.
    assumed
        The licence that images have about which nothing is said: less than what the index says.
    """
    before: dict[tuple[str, str], IndexRow] = {}
    for row in old:
        before[row.key] = row
        if row.sha256:
            before.setdefault((row.dataset, f"sha256:{row.sha256}"), row)

    def kept(row: IndexRow) -> IndexRow:
        was = before.get(row.key) or before.get((row.dataset, f"sha256:{row.sha256}"))
        if was is None:
            return row
        facts = {name: getattr(row, name) or getattr(was, name) for name in ("subject", "lesion", "licence")}
        if row.licence == assumed and was.licence:
            facts["licence"] = was.licence
        same = (facts["subject"], facts["lesion"]) == (was.subject, was.lesion)
        group = row.group or (was.group if same else "")
        drawn = row.masks
        if not (masks or drawn) and row.key == was.key and row.sha256 == was.sha256:
            drawn = was.rebased(row.root).masks
        split = row.split if splits else was.split or row.split
        return replace(row, **facts, masks=drawn, group=group, split=split, extra=was.extra)

    return [kept(row) for row in new]


def group_of(row: IndexRow) -> str:
    """The row's group; one of its own where none is known."""
    return row.group or f"{row.dataset}/{row.image_id}"


def find_leaks(rows: Iterable[IndexRow]) -> list[Leak]:
    """Groups that lie in more than one split.

    Groups are computed anew from what the rows say (patient, lesion, group, image id, sha256), so an
    index with wrong groups is found out. Rows without a split and excluded rows do not count.
    """
    of_group: dict[str, list[IndexRow]] = defaultdict(list)
    for row in assign_groups(list(rows)):
        if row.split and row.split != EXCLUDED:
            of_group[row.group].append(row)
    leaks = []
    for group, members in of_group.items():
        splits = {row.split for row in members}
        if len(splits) > 1:
            images = tuple(f"{row.dataset}/{row.image_id}" for row in members)
            leaks.append(Leak(group, tuple(sorted(splits)), images))
    return leaks


def exclude_leaks(rows: Sequence[IndexRow]) -> tuple[list[IndexRow], list[IndexRow]]:
    """Mark as ``excluded`` what shares a group with a split that goes before (test, val, calib, train).

    Returns
    -------
    tuple
        All rows, and those that were changed.
    """
    kept: dict[str, str] = {}
    for row in rows:
        if row.split and row.split != EXCLUDED:
            group = group_of(row)
            kept[group] = min(kept.get(group, row.split), row.split, key=_precedence)
    result, changed = [], []
    for row in rows:
        if row.split and row.split != EXCLUDED and kept[group_of(row)] != row.split:
            row = replace(row, split=EXCLUDED)  # noqa: PLW2901
            changed.append(row)
        result.append(row)
    return result, changed


def _precedence(split: str) -> tuple[int, str]:
    return (PRECEDENCE.index(split) if split in PRECEDENCE else len(PRECEDENCE), split)


def split_groups(
    rows: Sequence[IndexRow], ratios: Mapping[str, float] = DEFAULT_RATIOS, *, seed: int = 0
) -> list[IndexRow]:
    """Share the groups out at random, so that every data set is split in the given ratios of images.

    The same rows, ratios and seed give the same splits, in whatever order the rows come.

    Raises
    ------
    DataError
        Ratios that are not positive or do not add up to 1, or fewer groups than splits.
    """
    positive = all(value > 0 for value in ratios.values())  # false of "nan", too
    if len(ratios) < 2 or not positive or abs(sum(ratios.values()) - 1) > 1e-6:
        text = ", ".join(f"{name}={value:g}" for name, value in ratios.items())
        raise DataError(f"ratios must be positive and add up to 1, got {text}")
    sizes = Counter(group_of(row) for row in rows)
    if len(sizes) < len(ratios):
        raise DataError(
            f"{counted(len(rows), 'image')} in {counted(len(sizes), 'group')}: too few for "
            f"{counted(len(ratios), 'split')}",
            hint="rows of one patient, lesion or near-duplicate group stay together",
        )
    of_group: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        of_group[group_of(row)].add(row.dataset)
    strata: dict[str, list[str]] = defaultdict(list)
    for group in sorted(sizes):
        strata[min(of_group[group])].append(group)
    chosen: dict[str, str] = {}
    rng = np.random.default_rng(seed)
    for stratum in sorted(strata):
        groups = [strata[stratum][i] for i in rng.permutation(len(strata[stratum]))]
        groups.sort(key=lambda group: -sizes[group])  # stable: large groups first, else at random
        total = sum(sizes[group] for group in groups)
        missing = {name: share * total for name, share in ratios.items()}
        for group in groups:
            # The split that lacks most of its share gets the next group, so that large groups are spread
            # as evenly as single images; where a group fits nowhere, the largest gap takes it.
            fitting = [split for split, gap in missing.items() if gap >= sizes[group]]
            if fitting:
                name = max(fitting, key=lambda split: missing[split] / ratios[split])
            else:
                name = max(missing, key=lambda split: missing[split])
            chosen[group] = name
            missing[name] -= sizes[group]
    return [replace(row, split=chosen[group_of(row)]) for row in rows]


def fold_groups(rows: Sequence[IndexRow], k: int, *, seed: int = 0) -> list[list[IndexRow]]:
    """``k`` indexes for cross-validation: in the i-th, fold i is ``test``, fold i+1 ``val``, the rest train.

    Every image is in ``test`` exactly once.

    Raises
    ------
    DataError
        Fewer than 3 folds, or fewer groups than folds.
    """
    if k < 3:
        raise DataError(f"{k} folds leave nothing to train on beside val and test", hint="--k-folds 5")
    folds = split_groups(rows, {str(i): 1 / k for i in range(k)}, seed=seed)
    result = []
    for i in range(k):
        names = {str(i): "test", str((i + 1) % k): "val"}
        result.append([replace(row, split=names.get(row.split, "train")) for row in folds])
    return result


def apply_splits(rows: Sequence[IndexRow], table: SplitTable) -> list[IndexRow]:
    """The splits and groups of a split file; an image that the file does not name is in no split."""
    result = []
    for row in rows:
        given = table.find(row.dataset, row.image_id)
        result.append(
            replace(row, split=given.split, group=given.group or row.group)
            if given
            else replace(row, split="")
        )
    return result
