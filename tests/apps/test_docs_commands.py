"""Commands on the pages, in configurations and notebooks have the verbs and options they are shown with."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dermseg.apps.cli.main import VERBS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "configs/**/*.yaml", "notebooks/*.ipynb", "Makefile", "scripts/*.sh")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # tells of options that were
)
VERB = re.compile(r"\bdermseg (?=[a-z])([^`\n|#()\"]*)")


def options_of(verb: str, words: list[str]) -> tuple[str, set[str]]:
    """The command that is called, and what it takes."""
    command: Any = typer.main.get_command(import_module(VERBS[verb][0]).app)
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    for word in words[:1]:
        if below := getattr(command, "commands", {}).get(word):
            return f"{verb} {word}", {name for p in below.params for name in (*p.opts, *p.secondary_opts)}
    return verb, known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_options_exist(page: Path) -> None:
    if "train" in page.read_text(encoding="utf-8"):
        pytest.importorskip("torch", reason="its verbs need the extra [train]")
    for shown in VERB.findall(page.read_text(encoding="utf-8")):
        verb, *words = shown.split()
        if verb not in VERBS:
            continue  # prose
        name, known = options_of(verb, words)
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert not (used - known - {"-h", "--help"}), f"dermseg {name} has no {used - known}: {shown}"


def test_commands_of_a_page_do_not_refuse_each_other() -> None:
    """A folder with results is refused: whoever runs a page from top to bottom meets each name once."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        calls = re.findall(r"^dermseg (?:segment|track|train|evaluate|export) ([^\n#]*)", text, re.MULTILINE)
        folders = [
            found[1].rstrip("/")
            for words in calls
            if not re.search("--(resume|overwrite)", words) and (found := re.search(r"-o (\S+)", words))
        ]
        assert sorted(folders) == sorted(set(folders)), page


def test_readme_names_every_verb() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`dermseg {verb}" not in readme] == []
