"""``dermseg segment --engine ray``: what is refused before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermseg.apps.cli.main import main


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
