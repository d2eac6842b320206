"""docs/migration.md: the files that it shows are sound, and words of other supervisors are answered as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisord_async.config.load import load
from supervisord_async.errors import ConfigError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
SOUND = re.findall(r"<!-- sound -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_there_is_one_file_for_each_that_one_comes_from() -> None:
    assert len(SOUND) == PAGE.count("\n## From ")


@pytest.mark.parametrize("text", SOUND)
def test_files_of_the_page_are_sound(text: str, tmp_path: Path) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text(text)
    assert load(file, environ={}).configuration.programs


def test_a_word_of_another_supervisor_is_answered_as_shown(tmp_path: Path) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text("programs:\n  web:\n    command: sleep 60\n    autorestart: true\n")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={}, name="programs.yaml")
    assert str(caught.value.problems[0]) in PAGE.splitlines()
