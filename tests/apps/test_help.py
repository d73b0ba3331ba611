"""What ``--help`` says: whole sentences, and words that are not Python's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from dermseg.apps.cli.main import VERBS


def commands() -> Iterator[tuple[list[str], Any]]:
    """Each verb, and each verb below a verb."""
    for verb, (module, _) in VERBS.items():
        command: Any = typer.main.get_command(import_module(module).app)
        yield [verb], command
        for name, below in getattr(command, "commands", {}).items():
            yield [verb, name], below


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_help(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    app = import_module(VERBS[words[0]][0]).app
    shown = CliRunner().invoke(app, [*words[1:], "--help"])
    assert shown.exit_code == 0
    listed = shown.output.partition("Commands:")[2]
    assert "..." not in listed, "a summary is cut off: make the first sentence of the docstring shorter"
    assert not re.search(r"--[\w-]+,? <", shown.output), "Python's type: give the option a metavar"
    assert "-\n" not in shown.output, "an option is torn apart at the end of a line"


def test_every_argument_and_option_is_explained() -> None:
    for words, command in commands():
        assert not [p.name for p in command.params if not getattr(p, "help", "")], words


def test_what_is_put_in_is_in_capitals() -> None:
    """As the tables of README have it; an argument's own name is Python's."""
    for words, command in commands():
        for argument in (p for p in command.params if p.param_type_name == "argument"):
            assert argument.metavar and argument.metavar.isupper(), (words, argument.name)


def test_older_typers_have_their_own_words_beside_an_option() -> None:
    """Before Typer 0.29 options have no ``display_type``: no verb started with those."""
    code = """
import typer.core
for kind in typer.core.TyperOption.__mro__:
    if "display_type" in vars(kind):
        del kind.display_type
import dermseg.apps.cli.common
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
