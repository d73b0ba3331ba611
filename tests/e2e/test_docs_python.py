"""The code in docs/python.md runs as it stands, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dermseg.data.sources.synthetic import write_synthetic
from dermseg.images import load_image, load_mask
from dermseg.images.overlay import encode_jpeg

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_synthetic(tmp_path, 3, seed=11, size=(96, 128))
    index = (tmp_path / "index.csv").read_text(encoding="utf-8").splitlines()
    column = index[0].split(",").index("split")
    rows = [line.split(",") for line in index[1:]]
    text = [index[0], *(",".join([*row[:column], "test", *row[column + 1 :]]) for row in rows)]
    (tmp_path / "index.csv").write_text("\n".join(text), encoding="utf-8")
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "images").iterdir():
        (tmp_path / "photos" / f"{path.stem}.jpg").write_bytes(encode_jpeg(load_image(path).pixels))
    (tmp_path / "photos" / "empty.jpg.part").write_bytes(b"")
    photo = sorted((tmp_path / "photos").glob("*.jpg"))[0]
    for name in ("photo", "visit1", "visit2"):
        (tmp_path / f"{name}.jpg").write_bytes(photo.read_bytes())

    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    said = capsys.readouterr().out
    assert "empty.jpg.part failed:" in said and "Evaluation(3 images" in said
    mask = load_mask(tmp_path / "mask.png")
    assert mask.shape == (96, 128) and mask.any()
    assert (tmp_path / "overlay.jpg").stat().st_size > 1000
