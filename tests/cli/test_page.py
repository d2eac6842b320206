"""docs/asupctl.md names every verb, option and exit code that there is."""

from __future__ import annotations

import re

import click
import pytest

from supervisord_async.cli.group import VERBS, cli
from tests.cli.conftest import ROOT

PAGE = (ROOT / "docs" / "asupctl.md").read_text()


@pytest.mark.parametrize("name", sorted(VERBS))
def test_page_names_each_verb_with_its_options(name: str) -> None:
    assert re.search(rf"^\| `[^|]*\b{name}\b", PAGE, re.MULTILINE)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not {"--config", "--socket"} & set(parameter.opts):
            spellings = [*parameter.opts, *parameter.secondary_opts]
            assert any(f"`{option}" in PAGE or f" {option}" in PAGE for option in spellings), spellings


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 130, 141])
def test_page_explains_each_exit_code(code: int) -> None:
    assert f"\n| {code} | " in PAGE
