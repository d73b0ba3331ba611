"""The cache holds what the files hold, is shared, and is whole or not there."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.data.cache import build_cache, cache_key, load_pair
from dermseg.data.index import IndexRow
from dermseg.errors import DataError, ImageError
from dermseg.images.resize import resize_image


def make_rows(folder: Path, n: int = 3) -> list[IndexRow]:
    rows = []
    for i in range(n):
        image = np.full((40, 60, 3), (0, 0, 40 * i), np.uint8)  # BGR for OpenCV: red
        mask = np.zeros((40, 60), np.uint8)
        mask[:, :30] = 255
        cv2.imwrite(str(folder / f"{i}.png"), image)
        cv2.imwrite(str(folder / f"{i}_mask.png"), mask)
        rows.append(IndexRow(str(i), f"{i}.png", (f"{i}_mask.png",), "d", sha256=f"{i:064x}", root=folder))
    return rows


def test_images_are_rgb_and_masks_hold_shares(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    cache = build_cache(rows, 32, tmp_path / "cache")
    assert cache.images.shape == (3, 32, 32, 3)
    assert cache.image_ids == ("0", "1", "2")
    assert (cache.images[2] == (80, 0, 0)).all()
    assert (cache.masks[:, :, :15] == 255).all()
    assert (cache.masks[:, :, 17:] == 0).all()
    again = build_cache(rows, 32, tmp_path / "cache")
    assert np.array_equal(cache.images, again.images)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_narrow_images_are_what_the_network_sees_and_masks_their_mean(tmp_path: Path) -> None:
    """One side is made smaller, the other larger: OpenCV's area method alone would skip most columns."""
    image = np.random.default_rng(0).integers(0, 256, (20, 320, 3)).astype(np.uint8)
    mask = np.zeros((20, 320), np.uint8)
    mask[:, ::2] = 255
    mask[:, 160:] = 0
    cv2.imwrite(str(tmp_path / "i.png"), image[..., ::-1])
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    pixels, soft = load_pair(IndexRow("i", "i.png", ("m.png",), "d", root=tmp_path), 32)
    assert np.array_equal(pixels, resize_image(image, 32, 32))
    assert np.abs(soft[:, :16].astype(int) - 127).max() <= 1 and not soft[:, 16:].any()


def test_the_name_depends_on_content_order_and_size(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    assert (
        len({cache_key(rows, 32), cache_key(rows, 64), cache_key(rows[::-1], 32), cache_key(rows[1:], 32)})
        == 4
    )


def test_a_corrected_mask_is_decoded_again(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    build_cache(rows, 32, tmp_path / "cache")
    cv2.imwrite(str(tmp_path / "1_mask.png"), np.full((40, 60), 255, np.uint8))
    assert (build_cache(rows, 32, tmp_path / "cache").masks[1] == 255).all()


def test_the_same_names_in_another_folder_are_another_data_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert cache_key(make_rows(tmp_path / "a"), 32) != cache_key(make_rows(tmp_path / "b"), 32)


def test_a_failed_or_killed_build_leaves_nothing_that_counts(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    folder = tmp_path / "cache"
    killed = folder / "abc.1.tmp"
    killed.mkdir(parents=True)
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(killed, (long_ago, long_ago))
    (tmp_path / "1.png").write_bytes(b"not a png")
    with pytest.raises(ImageError, match=r"1\.png"):
        build_cache(rows, 32, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot take the disk beforehand")
def test_a_disk_that_is_full_or_a_quota_is_said_before_an_image_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    rows = make_rows(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(DataError, match=r"Disk quota exceeded .*data\.cache_dir"):
        build_cache(rows, 32, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_another_run_moves_into_place_meanwhile_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "abc.1.tmp").symlink_to(tmp_path / "moved")  # listed, and gone when looked at
    assert len(build_cache(make_rows(tmp_path), 32, tmp_path / "cache")) == 3


def test_no_file_of_it_is_mapped_when_the_folder_gets_its_name(
    tmp_path: Path, unmapped_renames: list[Path]
) -> None:
    build_cache(make_rows(tmp_path), 32, tmp_path / "cache")
    assert len(unmapped_renames) == 1


def test_rows_without_masks_and_empty_selections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        build_cache([], 32, tmp_path)
    with pytest.raises(DataError, match="'x' has no mask"):
        build_cache([IndexRow("x", "x.png", root=tmp_path)], 32, tmp_path)
