"""``dermseg segment --engine ray``: what is refused before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermseg.apps.cli.main import main


@pytest.mark.parametrize(
    ("given", "out"),
    [("a.jpg", "s3://clinic/out"), ("s3://clinic/a.jpg", "out"), ("S3://clinic/photos/", "out")],
)
def test_urls_are_for_ray(
    given: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(b"x")
    with pytest.raises(SystemExit) as caught:
        main(["segment", given, "-o", out])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "is a URL" in said and "try: URLs are for --engine ray" in said
    assert [path.name for path in Path().iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(
    ("arguments", "installed", "message"),
    [
        (["--engine", "ray"], False, 'pip install "dermseg[ray]"'),
        (["--engine", "spark"], True, "local or ray"),
        (["--engine", "ray", "--save", "mask,labelme"], True, "--save labelme does not go with --engine ray"),
    ],
)
def test_refusals(
    arguments: list[str],
    installed: bool,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dermseg.apps.cli.segment_ray.find_spec", lambda name: installed or None)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(SystemExit) as caught:
        main(["segment", str(tmp_path / "a.jpg"), "-o", str(tmp_path / "out"), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
