"""The last output in `why`: the lines of the run that ended, of no other run, and without secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from supervisord_async.config.model import Logs
from supervisord_async.control import last_output
from supervisord_async.control.last_output import last_lines
from supervisord_async.control.logs import Source
from supervisord_async.supervise.runs.output import RunOffsets
from tests.control.conftest import playing, swift


@pytest.mark.anyio
async def test_last_output_shows_no_secret(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("connecting with hunter2-and-more\n")
    web = swift("web", environment={"DB_PASSWORD": "hunter2-and-more"})
    async with playing(web, daemon=None) as scene:
        await scene.commands.stop(["web"])
        process = scene.supervisor.processes["web"]
        process.program = replace(process.program, logs=Logs(stdout=str(log)))
        process.output.run_offsets = ()  # it began under an earlier daemon
        why = await scene.commands.why("web")
        assert why.output[0].lines[0].startswith("connecting with ")
        assert "hunter2" not in "\n".join(why.lines)


def test_last_words_are_those_of_the_run_that_died(tmp_path: Path) -> None:
    raw = tmp_path / "raw.log"
    raw.write_bytes(b"old\n" + b"first\nTraceback\n" + b"second run\n")
    source = Source(str(raw), "raw")
    assert last_lines(source, 1, None, skip=len(b"second run\n"), own=len(b"first\nTraceback\n")) == ["first", "Traceback"]
    assert last_lines(source, 1, None, skip=10**9, own=5) == []
    assert last_lines(Source(str(tmp_path / "none.log"), "raw"), 1, None, skip=0, own=5) == []
    lines = [{"at": "2026-11-20T12:00:00.000Z", "name": "web", "stream": "stdout", "run": run, "line": f"of {run}"} for run in (1, 1, 2)]
    (tmp_path / "json.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert last_lines(Source(str(tmp_path / "json.log"), "json"), 1, None, skip=0, own=0) == ["of 1", "of 1"]
    (tmp_path / "stamp.log").write_text("2026-11-20T12:00:00.000Z early\n2026-11-20T12:00:09.000Z late\n")
    stamped = Source(str(tmp_path / "stamp.log"), "timestamp")
    assert last_lines(stamped, 1, 1_795_176_003.0, skip=0, own=0) == ["2026-11-20T12:00:00.000Z early"]
    assert last_lines(stamped, 1, None, skip=0, own=0, since=1_795_176_003.0) == ["2026-11-20T12:00:09.000Z late"]
    assert last_lines(Source(str(tmp_path / "json.log"), "json"), 1, None, skip=0, own=0, since=1_795_176_003.0) == []


def test_a_fifo_is_not_opened_for_its_last_words(tmp_path: Path) -> None:
    """Whoever opens it takes what is meant for its reader, and where nobody writes waits for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert last_lines(Source(str(fifo), "raw"), 1, None, skip=0, own=5) == []


@pytest.mark.anyio
async def test_last_words_of_a_first_run_are_none_of_an_earlier_daemon(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    path.write_bytes(b"of an earlier daemon\nof this one\n")
    output = SimpleNamespace(run_offsets=(RunOffsets(1, {}),), written=lambda: {str(path): len(b"of this one\n")})
    process: Any = SimpleNamespace(
        name="web",
        replica=0,
        output=output,
        program=SimpleNamespace(logs=SimpleNamespace(stdout=str(path), stderr="stdout", format="raw")),
    )
    [own] = await last_output.of(process, 1, 1000.5)
    assert own.lines == ["of this one"]
    output.run_offsets = ()  # it was adopted
    [adopted] = await last_output.of(process, 1, 900.0)
    assert adopted.lines == ["of an earlier daemon", "of this one"]


@pytest.mark.anyio
async def test_last_words_of_an_earlier_daemons_run_are_none_of_the_present_one(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    path.write_bytes(b"of an earlier daemon\nof this one\n")
    process: Any = SimpleNamespace(
        name="web",
        replica=0,
        output=SimpleNamespace(run_offsets=(RunOffsets(1, {}),), written=lambda: {str(path): len(b"of this one\n")}),
        program=SimpleNamespace(logs=SimpleNamespace(stdout=str(path), stderr="stdout", format="raw")),
    )
    [earlier] = await last_output.of(process, 1, 900.0, 950.0, next_run=1)
    assert (earlier.lines, earlier.earlier_daemon) == (["of an earlier daemon"], True)
    process.output.run_offsets = ()  # the present run was adopted: nobody knows where in a raw file it began
    assert await last_output.of(process, 1, 900.0, 950.0, next_run=1) == []
    process.program.logs.format = "json"
    lines = [{"at": f"2026-11-20T12:00:0{n}.000Z", "run": 1, "line": f"at {n}"} for n in (1, 5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    [earlier] = await last_output.of(process, 1, 1_795_176_000.0, 1_795_176_003.0, next_run=1)
    assert earlier.lines == ["at 1"]


@pytest.mark.anyio
@pytest.mark.parametrize("next_run", [2, 5])
async def test_what_an_adopted_run_prints_are_no_last_words_of_the_run_before(tmp_path: Path, next_run: int) -> None:
    """After a re-exec the numbers go on, and nobody knows where in a raw file the adopted run began."""
    path = tmp_path / "web.log"
    path.write_bytes(b"of the one before\nof the adopted one\n")
    process: Any = SimpleNamespace(
        name="web",
        replica=0,
        output=SimpleNamespace(run_offsets=(), written=dict),
        program=SimpleNamespace(logs=SimpleNamespace(stdout=str(path), stderr="stdout", format="raw")),
    )
    assert await last_output.of(process, 1, 900.0, 950.0, next_run=next_run) == []
    process.program.logs.format = "timestamp"
    path.write_text("2026-11-20T12:00:01.000Z before\n2026-11-20T12:00:05.000Z adopted\n")
    [before] = await last_output.of(process, 1, 1_795_176_000.0, 1_795_176_003.0, next_run=next_run)
    assert before.lines == ["2026-11-20T12:00:01.000Z before"]
    process.program.logs.format = "raw"
    path.write_bytes(b"of this daemon's run\n")
    process.output = SimpleNamespace(run_offsets=(RunOffsets(1, {}),), written=lambda: {str(path): 21})
    [own] = await last_output.of(process, 1, 900.0, 950.0, next_run=next_run)  # the next one could not be started and printed nothing
    assert own.lines == ["of this daemon's run"]
