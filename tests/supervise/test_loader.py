"""The file is read without looking for garbage meanwhile, which is looked for again whatever became of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.config import load as configuration_load
from supervisord_async.config.model import Configuration
from supervisord_async.errors import ConfigError
from supervisord_async.supervise import loading
from supervisord_async.supervise.loading import loader
from supervisord_async.supervise.options import Options

pytestmark = pytest.mark.anyio


@pytest.fixture
def looks() -> Iterator[list[str]]:
    """Each look for garbage from now on; there would be many."""
    found: list[str] = []

    def note(phase: str, _information: dict[str, int]) -> None:
        found.append(phase)

    usual = gc.get_threshold()
    gc.collect()
    gc.callbacks.append(note)
    gc.set_threshold(5_000)
    yield found
    gc.set_threshold(*usual)
    gc.callbacks.remove(note)


async def test_a_file_is_read_without_a_look_for_garbage(tmp_path: Path, looks: list[str]) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text("programs:\n" + "".join(f"  p{number}: {{command: [a, b, c]}}\n" for number in range(400)))
    load = loader(Options(file=str(file)))
    await load()  # what is kept of the programs is made
    gc.collect()
    looks.clear()
    loaded = await load()
    assert looks == []
    assert gc.isenabled()
    assert len(loaded.configuration.programs) == 400
    assert not loaded.origins, "nothing of the text's tree is kept"


async def test_garbage_is_looked_for_again_after_a_file_that_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text("programs: {a: {comand: x}}\n")
    with pytest.raises(ConfigError, match="comand"):
        await loader(Options(file=str(file)))()
    assert gc.isenabled()


async def test_a_file_whose_disk_hangs_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text("programs: {a: {command: x}}\n")
    go = threading.Event()

    def hang(configuration: Configuration) -> Configuration:
        go.wait(30)
        return configuration

    monkeypatch.setattr(loading, "LOAD_SECONDS", 0.05)
    load = loader(Options(file=str(file), adjust=hang))
    try:
        with pytest.raises(ConfigError, match=r"could not be read within 0\.05 s"):
            await load()
        assert gc.isenabled()
    finally:
        go.set()
    monkeypatch.setattr(loading, "LOAD_SECONDS", 30.0)
    assert "a" in (await load()).configuration.programs


async def test_a_file_that_was_mended_is_read_although_the_load_before_still_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LOAD_SECONDS", 0.05)
    file, answers, load = tmp_path / "programs.yaml", threading.Event(), configuration_load.load
    file.write_text("programs: {a: {command: x}}\n")

    def hanging(*arguments: Any, **settings: Any) -> configuration_load.Loaded:
        answers.wait(30)
        return load(*arguments, **settings)

    read = loader(Options(file=str(file)))
    try:
        monkeypatch.setattr(configuration_load, "load", hanging)
        with pytest.raises(ConfigError, match=r"could not be read within 0\.05 s"):
            await read()
        monkeypatch.setattr(configuration_load, "load", load)
        monkeypatch.setattr(loading, "LOAD_SECONDS", 30.0)
        assert set((await read()).configuration.programs) == {"a"}
    finally:
        answers.set()
