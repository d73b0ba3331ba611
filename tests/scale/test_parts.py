"""Manifests, parts and the worker, without a cluster."""
# ruff: noqa: E402 - what is tested needs packages of the extra [ray]

from __future__ import annotations

import contextlib
import csv
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow", reason="needs the extra [ray]")
pytest.importorskip("fsspec", reason="needs the extra [ray]")

import pyarrow.parquet

from dermseg.errors import DataError, DermsegError, ImageError, UsageError
from dermseg.images.find import find_images
from dermseg.inference.batch import run_batch
from dermseg.inference.options import BatchOptions, describe_model
from dermseg.inference.outputs import Row
from dermseg.inference.pipeline import Plan
from dermseg.inference.predictor import Model, load_model
from dermseg.scale import ray_engine, storage
from dermseg.scale.cluster import connect
from dermseg.scale.manifest import Listed, list_inputs, name_images, read_manifest
from dermseg.scale.parts import (
    JOB,
    MIN_PART,
    SCHEMA,
    TABLE,
    check_files,
    claim,
    count_try,
    describe_job,
    forget_all_tries,
    part_size,
    read_done,
    read_failures,
    write_part,
)
from dermseg.scale.storage import RemoteImage, Store
from dermseg.scale.worker import PartWorker, Work
from dermseg.version import __version__


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return load_model(tiny_bundle, threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photographs in two folders and a file that is none."""
    folder = tmp_path / "photos"
    for index, name in enumerate(["a.png", "a.jpg", "b.png", "sub/a.png", "sub/c.png"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((90, 120, 3), 210, np.uint8)
        cv2.circle(image, (60, 45), 12 + 3 * index, (20, 30, 40), -1)
        assert cv2.imwrite(str(path), image)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def work_on(listed: list[Listed], model: Model, out: str, **options: object) -> dict[str, object]:
    """One part with all images, as Ray hands it to a worker."""
    from dermseg.scale.ray_engine import _tables

    chosen = BatchOptions(save=("mask",), **options)  # type: ignore[arg-type]
    bundle, described = str(model.bundle.path), describe_model(model)
    work = Work(__version__, bundle, model.variant, model.session.runtime, described, chosen, out)
    (row,) = PartWorker(work)(_tables(listed, [0], len(listed))[0]).to_pylist()
    return dict(row)


@pytest.mark.parametrize("remote", [False, True])
def test_a_part_gives_what_the_local_engine_gives(
    photos: Path, model: Model, tmp_path: Path, remote: bool
) -> None:
    expected = tmp_path / "expected"
    run_batch(model, find_images([photos]), expected, BatchOptions(save=("mask",)), plan=Plan(1, 2, 1))
    listed = list_inputs([str(photos)])
    place = str(tmp_path / "out")
    if remote:  # file:// goes the way of s3:// through fsspec
        listed = [Listed(f"file://{image.location}", image.name) for image in listed]
        place = f"file://{place}"
    assert work_on(listed, model, place) == {
        "part": 0, "ok": 5, "no_lesion": 0, "failed": 1, "error": None
    }  # fmt: skip

    def masks(out: Path) -> dict[str, bytes]:
        return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / "masks").rglob("*.png")}

    assert masks(tmp_path / "out") == masks(expected) and len(masks(expected)) == 5
    table = pyarrow.parquet.read_table(tmp_path / "out" / TABLE).to_pylist()
    with (expected / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in table] == [row["file"] for row in rows]
    assert [row["area_px"] for row in table] == [
        int(row["area_px"]) if row["area_px"] else None for row in rows
    ]
    assert [row["location"] for row in table] == [image.location for image in listed]
    assert read_done(Store(place)) == {0: {"ok": 5, "failed": 1}}


def test_a_store_that_refuses_is_reported(
    photos: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dermseg.scale.worker.WAIT_S", 0.0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/masks").write_text("a file where a folder should be")
    row = work_on(list_inputs([str(photos / "a.png")]), model, f"file://{tmp_path}/out")
    assert row["ok"] == 0 and "cannot be written" in str(row["error"])


def test_a_part_that_kills_workers_is_given_up(photos: Path, model: Model, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    listed = list_inputs([str(photos / "a.png")])
    for before in range(4):
        assert count_try(store, 0) == before
    assert "ended its worker 4 times" in str(work_on(listed, model, store.place)["error"])
    forget_all_tries(store)
    assert work_on(listed, model, store.place)["error"] is None
    assert store.names(TABLE) == ["part-000000.parquet"]


def test_manifests_say_the_same_in_every_format(photos: Path, tmp_path: Path) -> None:
    locations = ["photos/a.png", "photos/sub/c.png", "s3://bucket/x.jpg", str(photos / "b.png")]
    (tmp_path / "list.txt").write_text("# photographs\n" + "\n".join(locations) + "\n\n")
    (tmp_path / "list.csv").write_text("image_id,image\n" + "".join(f"1,{at}\n" for at in locations))
    pyarrow.parquet.write_table(pa.table({"path": locations}), tmp_path / "list.parquet")
    rows = [read_manifest(str(tmp_path / f"list.{kind}")) for kind in ("txt", "csv", "parquet")]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0][0] == (str(photos / "a.png"), None) and rows[0][2] == ("s3://bucket/x.jpg", None)
    semicolons = "\ufeffimage;name\r\n" + "".join(f"{at};\r\n" for at in locations)
    tabs = "image\tname\n" + "".join(f"{at}\t\n" for at in locations)
    for name, text, encoding in (  # as Excel and PowerShell save them
        ("excel.csv", semicolons, "utf-8"),
        ("unicode.csv", tabs, "utf-16"),
        ("powershell.txt", "\r\n".join(locations), "utf-16"),
    ):
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert name_images(read_manifest(str(tmp_path / name))) == name_images(rows[0]), name
    (tmp_path / "bad.csv").write_text("subject\n1\n")
    with pytest.raises(DataError, match=r"no column of image, path, url, file.*subject"):
        read_manifest(str(tmp_path / "bad.csv"))
    with pytest.raises(DataError, match="does not exist"):
        read_manifest(str(tmp_path / "none.txt"))
    (tmp_path / "twice.csv").write_text("image,image\na.png,b.png\n")
    with pytest.raises(DataError, match="several columns are called 'image'"):
        read_manifest(str(tmp_path / "twice.csv"))
    pyarrow.parquet.write_table(
        pa.table({"image": [{"bytes": b"", "path": "a"}]}), tmp_path / "other.parquet"
    )
    with pytest.raises(DataError, match="holds no paths, but struct"):
        read_manifest(str(tmp_path / "other.parquet"))
    with pytest.raises(UsageError, match="do not go together"):
        list_inputs([str(tmp_path / "list.txt"), str(photos)])


def test_heads_of_tables_may_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image, name\na.jpg, p1/left.jpg\nb.jpg, \n")
    rows = [(str(tmp_path / "a.jpg"), "p1/left.jpg"), (str(tmp_path / "b.jpg"), "")]
    assert read_manifest(str(tmp_path / "list.csv")) == rows
    (tmp_path / "turned.csv").write_text("name, image \n007.jpg, a.jpg\n")
    assert read_manifest(str(tmp_path / "turned.csv")) == [(str(tmp_path / "a.jpg"), "007.jpg")]


@pytest.mark.parametrize(
    "inputs",
    [
        ["s3://clinic/photos/"],
        ["s3://clinic/photos/*.jpg"],
        ["gs://clinic/photo?.jpg"],
        ["s3://clinic/a.jpg", "photos"],
        ["photos/*.png", "s3://clinic/a.jpg"],
        ["s3://clinic/a.jpg", "photos.zip"],
        ["s3://clinic/a.jpg", "photos.zip!b*"],
    ],
)
def test_urls_are_not_searched(photos: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    with pytest.raises(UsageError, match=r"(no URL of one image|not one image).*in a manifest"):
        list_inputs(inputs)


def test_files_stand_beside_urls(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    listed = list_inputs(["https://host/a.jpg?key=1", "photos/b.png", "photos.zip!c.png"])
    assert [image.location for image in listed] == [
        "https://host/a.jpg?key=1",
        str(photos / "b.png"),  # for workers in other folders
        f"{photos}.zip!c.png",
    ]
    assert [image.name for image in listed] == ["a.jpg_key=1", "photos/b.png", "photos.zip/c.png"]


SIGNED = [
    ("https://b.s3.amazonaws.com/p/a.jpg?X-Amz-Credential=KEY%2F1&X-Amz-Signature=SECRET", "a.jpg"),
    ("https://b.s3.amazonaws.com/p/b.jpg?AWSAccessKeyId=KEY&Signature=SECRET&Expires=1", "b.jpg"),
    ("https://acc.blob.core.windows.net/p/c.jpg?sv=2024&se=2030&sr=b&sp=r&sig=SECRET", "c.jpg"),
    ("https://storage.googleapis.com/p/d.jpg?X-Goog-Algorithm=A&X-Goog-Signature=SECRET", "d.jpg"),
    ("https://user:SECRET@host/p/e.jpg", "e.jpg"),
    ("https://host/view?id=7&token=SECRET", "view_id=7"),
]


@pytest.mark.parametrize(("url", "name"), SIGNED)
def test_what_signs_a_url_is_never_written_down(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = list_inputs([url])
    assert (image.location, image.name) == (url, name)
    assert "SECRET" not in image.place and "KEY" not in image.place
    later = list_inputs([url.replace("SECRET", "ANOTHER")])
    options: dict[str, Any] = {}
    assert describe_job({}, options, [image]).digest == describe_job({}, options, later).digest

    class Refuses:
        def open(self, path: str, *_: Any, **__: Any) -> Any:
            raise PermissionError(f"403, url={path}")

    monkeypatch.setattr(storage, "open_filesystem", lambda url: (Refuses(), url))
    with pytest.raises(ImageError, match="cannot be read: PermissionError") as caught:
        image.source().read_bytes()
    assert "SECRET" not in str(caught.value) and image.place in str(caught.value)


def test_parameters_that_tell_images_apart_stay() -> None:
    urls = [f"https://host/view?id={number}&st=x" for number in (1, 2)]
    assert [image.place for image in list_inputs(urls)] == urls
    again = [f"https://host/a.jpg?sig={when}&sv=1" for when in (1, 2)]
    assert [image.location for image in list_inputs(again)] == again[:1], "one image, signed twice"


def test_names_leave_out_what_all_locations_share() -> None:
    rows = [("s3://b/site/v1/a.jpg", None), ("s3://b/site/v2/a.jpg", None), ("s3://b/site/v1/a.jpg", None)]
    assert [image.name for image in name_images(rows)] == ["v1/a.jpg", "v2/a.jpg"]
    assert [image.name for image in name_images([("/x/a.jpg", None)])] == ["a.jpg"]
    named = name_images(
        [("s3://b/1", "p1/left.jpg"), ("gs://c/2", "p1/LEFT.jpg"), ("s3://b/3", "../../up.jpg")]
    )
    assert [image.name for image in named] == ["p1/left.jpg", "p1/p1/LEFT.jpg", "up.jpg"]
    twice = name_images(
        [("s3://b/1", "p1/left.jpg"), ("s3://b/1", "p2/left.jpg"), ("s3://b/1", "p1/left.jpg")]
    )
    assert [image.name for image in twice] == ["p1/left.jpg", "p2/left.jpg"]


@given(st.lists(st.text(alphabet="ab/.!:\\", min_size=1, max_size=12), min_size=1, max_size=20))
def test_names_are_unique_and_stay_inside(locations: list[str]) -> None:
    names = [image.name for image in name_images([(f"s3://b/{at}", None) for at in locations])]
    assert len({name.casefold() for name in names}) == len(names) == len(set(locations))
    assert not any(name.startswith("/") or ".." in name.split("/") for name in names)


def test_a_folder_belongs_to_one_job(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    images = [Listed("/a.jpg", "a.jpg")]
    job = describe_job({"name": "m"}, {"tta": False}, images)
    claim(store, job, resume=True)
    claim(store, job, resume=True)
    with pytest.raises(UsageError, match="--resume"):
        claim(store, job, resume=False)
    other = describe_job({"name": "m"}, {"tta": True}, [*images, Listed("/b.jpg", "b.jpg")])
    with pytest.raises(UsageError, match="list of images is another; tta was False, is True"):
        claim(store, other, resume=True)
    (tmp_path / "local").mkdir()
    (tmp_path / "local/journal.jsonl").touch()
    with pytest.raises(UsageError, match="another run"):
        claim(Store(str(tmp_path / "local")), job, resume=True)


def test_a_replaced_photograph_is_another_job(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(photos / "b.png", "m.png")
    listed = [
        *list_inputs([str(photos), str(tmp_path / "more.zip")]),
        Listed("memory://bucket/x.jpg", "x.jpg"),  # not asked for its size and time
        Listed(str(tmp_path / "none.jpg"), "none.jpg"),
    ]
    store = Store(str(tmp_path / "out"))

    def resume(*done: int) -> None:
        job = describe_job({"name": "m"}, {}, listed)
        claim(store, job, resume=True)
        check_files(store, job, done)

    def refused() -> None:
        with pytest.raises(UsageError, match="cannot be resumed: images have changed since"):
            resume(0)

    resume()
    resume(0)
    for replaced in (photos / "b.png", tmp_path / "more.zip"):
        whole, status = replaced.read_bytes(), replaced.stat()
        replaced.write_bytes(whole + b"\0")
        os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns))
        refused()
        replaced.write_bytes(whole)
        os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        refused()
        os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns))
        resume(0)
    listed += [Listed(str(photos / "b.png"), f"{i}.png") for i in range(2 * MIN_PART)]  # b.png: all 3 parts
    store = Store(str(tmp_path / "more"))
    resume()
    cv2.imwrite(str(tmp_path / "none.jpg"), np.zeros((60, 80, 3), np.uint8))  # it was missing: mended
    refused()
    resume(1, 2)
    resume(0, 1, 2)  # its part is done now, and it stays what it is
    (tmp_path / "none.jpg").unlink()
    refused()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:70000"])
def test_a_cluster_that_does_not_answer_is_said_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(DermsegError, match=f"no Ray at {address}: "), connect(1, quiet=True):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # of zipfile
def test_members_of_one_name_are_two_images(photos: Path, model: Model, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twins.zip", "w") as archive:
        archive.write(photos / "a.png", "x.png")
        archive.write(photos / "sub/c.png", "x.png")
    listed = list_inputs([str(tmp_path / "twins.zip")])
    assert work_on(listed, model, str(tmp_path / "out"))["ok"] == 2
    table = pyarrow.parquet.read_table(tmp_path / "out" / TABLE)
    small, large = sorted(table["area_px"].to_pylist())
    assert small < large / 2


@pytest.mark.parametrize("left", [0, 100])
def test_a_part_whose_table_lost_its_content_is_done_again(tmp_path: Path, left: int) -> None:
    """As a power cut leaves it. Before, no run with --resume got past it: a traceback."""
    store = Store(str(tmp_path))
    for part in (0, 1):
        write_part(store, part, [("/a.jpg", Row("a.jpg", "ok", verdict="accept"))])
    table = tmp_path / TABLE / "part-000001.parquet"
    table.write_bytes(table.read_bytes()[:left])
    assert read_done(store) == {0: {"ok": 1}}
    write_part(store, 1, [("/a.jpg", Row("a.jpg", "ok", verdict="review"))])
    assert read_done(store, "verdict") == {0: {"accept": 1}, 1: {"review": 1}}


def test_images_that_failed_are_named(photos: Path, model: Model, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert work_on(list_inputs([str(photos)]), model, out)["failed"] == 1
    ((name, reason),) = read_failures(Store(out), [0], 5)
    assert name == "broken.jpg" and "not an image" in reason
    assert read_failures(Store(out), [0], 0) == []


def test_a_start_that_fails_leaves_the_folder_free(
    photos: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(workers: int | None, *, quiet: bool) -> None:
        assert store.read(JOB) is not None  # others keep out meanwhile
        raise DermsegError("no Ray at auto")

    monkeypatch.setattr(ray_engine, "connect", refuse)
    store = Store(str(tmp_path / "out"))
    listed = list_inputs([str(photos)])

    def run(*, resume: bool = False) -> None:
        ray_engine.run_on_ray(
            model, str(model.bundle.path), listed, store.place, BatchOptions(), resume=resume
        )

    with pytest.raises(DermsegError, match="no Ray at auto"):
        run()
    assert store.read(JOB) is None
    with pytest.raises(DermsegError, match="no Ray at auto"):
        run()
    options = BatchOptions(margin=0.1)  # the level that is taken where none is given
    claim(store, describe_job(describe_model(model), options.as_dict(), listed), resume=False)
    with pytest.raises(DermsegError, match="no Ray at auto"):
        run(resume=True)
    assert store.read(JOB) is not None  # of a run before


def test_results_on_the_disk_of_another_machine_end_the_job(
    photos: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, all of it was computed, and the end was a KeyError."""
    listed, out = list_inputs([str(photos)]), tmp_path / "out"
    elsewhere = str(tmp_path / "elsewhere")

    @contextlib.contextmanager
    def connected(workers: int | None, *, quiet: bool) -> Iterator[int]:
        yield 1

    def work(tables: object, work: object, workers: int) -> Iterator[dict[str, object]]:
        yield work_on(listed, model, place)

    monkeypatch.setattr(ray_engine, "connect", connected)
    monkeypatch.setattr(ray_engine, "_map", work)
    bundle = str(model.bundle.path)
    place = elsewhere
    with pytest.raises(DermsegError, match=r"has another folder .*that all machines share, or a URL"):
        ray_engine.run_on_ray(model, bundle, listed, str(out), BatchOptions(save=("mask",)))
    place = str(out)
    done = ray_engine.run_on_ray(model, bundle, listed, str(out), BatchOptions(save=("mask",)))
    assert done.counts["images"] == done.images == len(listed)

    given_up = {"part": 0, "error": "its worker died"}
    monkeypatch.setattr(ray_engine, "_map", lambda *_: iter([given_up, given_up]))
    told: list[int | None] = []
    lost = ray_engine.run_on_ray(
        model,
        bundle,
        listed,
        str(tmp_path / "lost"),
        BatchOptions(),
        listener=lambda part, _: told.append(part),
    )
    assert (lost.unfinished, lost.problems, told) == (len(listed), ("its worker died",), [None])


def test_parts_are_few_and_small() -> None:
    assert [part_size(n) for n in (1, 10_000, 500_000, 10_000_000, 100_000_000)] == [
        16,
        16,
        500,
        1024,
        10_000,
    ]
    assert SCHEMA.names == ["location", *Row.__dataclass_fields__]


@pytest.mark.parametrize(
    ("protocol", "package"),
    [("https", "aiohttp"), ("abfss", "adlfs"), ("s3", "s3fs"), ("smb", "SMB requires smbprotocol")],
)
def test_a_protocol_without_its_package_says_which_one_it_is(
    protocol: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str) -> None:
        raise ImportError("SMB requires smbprotocol")

    monkeypatch.setattr("fsspec.url_to_fs", refuse)
    with pytest.raises(UsageError) as refused:
        Store(f"{protocol}://clinic").read("list.txt")
    assert str(refused.value.hint).removeprefix("pip install ") == package


@pytest.mark.parametrize("protocol", ["s3", "gs", "abfs", "abfss", "az"])
def test_no_bucket_is_made_of_a_misspelt_name(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Cloud:
        def pipe_file(self, path: str, data: bytes) -> None:
            written.append(path)

    monkeypatch.setattr("fsspec.url_to_fs", lambda url: (Cloud(), "clinic/out"))
    Store(f"{protocol}://clinic/out").write("masks/a.png", b"")
    assert written == ["clinic/out/masks/a.png"]


def test_remote_images_have_the_limits_of_local_ones(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "big.jpg").write_bytes(bytes(1000))

    def read(name: str) -> bytes:
        image = RemoteImage(name, Path(name), url=f"file://{tmp_path}/{name}")
        return image.read_bytes(2000, inspect=lambda head: 500)

    for name, reason in (("none.jpg", "not exist"), ("empty.jpg", "empty"), ("big.jpg", r"have \(500\)")):
        with pytest.raises(ImageError, match=reason):
            read(name)
    with pytest.raises(UsageError, match="cannot be used"):
        Store("nonsense://x").read("y")
