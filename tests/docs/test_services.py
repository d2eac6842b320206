"""docs/services.md: the file that it shows is sound, and so is each setting that it names in passing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisord_async.config.load import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "services.md").read_text(encoding="utf-8")
SOUND = re.findall(r"<!-- sound -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
SETTINGS = re.findall(r"`((?:stop|restart|environment|notify|reload_signal): [^`]+)`", PAGE)


def test_the_file_of_the_page_is_sound(tmp_path: Path) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text(SOUND[0])
    programs = load(file, environ={}).configuration.programs
    assert {"nginx", "postgres", "redis", "wsgi", "asgi", "celery"} == programs.keys()
    assert int(programs["nginx"].environment["NGINX"].rstrip(";")) == 3  # the first of its sockets


@pytest.mark.parametrize("setting", sorted(set(SETTINGS)))
def test_settings_of_the_page_are_sound(setting: str, tmp_path: Path) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text(f"programs:\n  one:\n    command: 'true'\n    {setting}\n")
    assert load(file, environ={}).configuration.programs["one"]
