"""What earlier versions saved stays readable, and is taken over with nothing lost.

Each file of former_versions/ is named after the commit whose daemon wrote it: the state that it had saved when it was killed, and what
``status --json`` had told just before. The same programs were in all states: a living one of each kind, one told to stop a moment ago,
failed ones, ended ones, one stopped by an operator, one scaled. They are never written anew: a change that makes one of these tests
fail needs a new version of the format, and a step from the former one (``persist.UPGRADES``).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisord_async.config.model import Heartbeat, Limits, Logs, Notify, Program, Socket
from supervisord_async.core.state import State
from supervisord_async.supervise.recovery import persist
from supervisord_async.supervise.recovery.persist import SavedProcess, SavedState
from supervisord_async.supervise.runs import run_spec
from supervisord_async.system import identity, procfs
from supervisord_async.wire import ENV_TAG
from tests.daemons import LiveDaemon, unbroken

SAMPLES = sorted((Path(__file__).parent / "former_versions").glob("*.json"))
#: What an earlier version saved, and none needs any more.
DROPPED = {"heartbeat_file"}
PROGRAMS = """
programs:
  plain: {command: [sleep, "1000"]}
  beats: {command: [sleep, "1000"], heartbeat: 1h}
  speaks: {command: [sleep, "1000"], notify: true}
  listens: {command: [sleep, "1000"], sockets: {web: "unix:web.sock"}}
  many: {command: [sleep, "1000"], replicas: 2, rolling: true, stop: {grace_period: 30s, signal: INT}}
  lines: {command: [sleep, "1000"], logs: {format: json}}
  flaky: {command: ["false"], restart: {backoff: {initial: 1h, max: 1h}, within: 2h}}
  fatal: {command: ["false"], restart: {policy: always, max_restarts: 0}}
  once: {command: ["true"]}
  killed: {command: ["false"], restart: never}
  stopped: {command: [sleep, "1000"]}
  stopping: {command: [sleep, "1000"], stop: {grace_period: 1h}}
  waits: {command: [sleep, "1000"], depends_on: {unborn: ready}}
  manual: {command: [sleep, "1000"], autostart: false}
  unborn: {command: [/no/such/program], restart: {backoff: {initial: 1h, max: 1h}}}
"""


def sealed(document: dict[str, Any]) -> bytes:
    """The file that a daemon of that version wrote."""
    body = json.dumps(document["state"]).encode()
    return f"asupd-state {document['version']} {hashlib.sha256(body).hexdigest()}\n".encode() + body


@pytest.fixture(params=SAMPLES, ids=[sample.stem for sample in SAMPLES])
def sample(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(request.param.read_text())
    return document


def test_a_state_of_an_earlier_version_has_all_that_it_had(sample: dict[str, Any]) -> None:
    state = persist.decode(sealed(sample))
    for process in state.processes:
        told, snapshot = sample["status"][process.name], process.snapshot
        assert [snapshot.state, snapshot.pid, snapshot.run, snapshot.restarts] == [told[key] for key in ("state", "pid", "run", "restarts")]
        assert (snapshot.exit.code if snapshot.exit is not None else None) == (told["exit_status"] or {}).get("code")
    assert len(state.processes) == len(sample["status"])
    assert lost(sample["state"], json.loads(persist.encode(state).partition(b"\n")[2])) == []


def lost(before: Any, after: Any, place: str = "") -> list[str]:
    """Where ``after`` does not have what ``before`` has; it may have more."""
    if isinstance(before, dict):
        return [each for key in before.keys() - DROPPED for each in lost(before[key], after.get(key, "nothing"), f"{place}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        return [each for number, value in enumerate(before) for each in lost(value, after[number], f"{place}.{number}")]
    return [] if before == after else [f"{place}: {before} is {after}"]


@pytest.mark.real
def test_a_daemon_takes_over_what_an_earlier_version_left(sample: dict[str, Any], tmp_path: Path) -> None:
    live = LiveDaemon(tmp_path, PROGRAMS)
    children = adoptable(sample, live)
    (tmp_path / ".asupd").mkdir()
    (tmp_path / ".asupd" / persist.FILE_NAME).write_bytes(sealed(sample))
    try:
        with live:
            living = {name for name, told in sample["status"].items() if told["pid"] is not None}
            live.wait_until(lambda: living <= {each["name"] for each in live.events() if each["type"] == "adopted"}, "all are taken over")
            now = live.status()
            assert {name: {key: now[name][key] for key in told} for name, told in sample["status"].items()} == sample["status"]
            assert now.keys() == sample["status"].keys()
            assert "cannot use" not in live.text()
            unbroken(live)
    finally:
        for child in children:
            child.kill()
            child.wait()


def adoptable(sample: dict[str, Any], live: LiveDaemon) -> list[subprocess.Popen[bytes]]:
    """The sample is of this boot and of this daemon's run_dir; each of its PIDs is that of a living child, which are returned."""
    state, children = sample["state"], []
    state |= {"boot_id": identity.boot_id(), "instance": live.instance}
    for process in state["processes"]:
        snapshot = process["snapshot"]
        process["settings"] = ""  # the file is in another folder than it was then
        snapshot["since"] = snapshot["run_since"] = time.monotonic()
        if snapshot["pid"] is None:
            continue
        tag = run_spec.tag_of(live.instance, process["name"], snapshot["run"])
        child = subprocess.Popen(["sleep", "1000"], env={**os.environ, ENV_TAG: tag}, start_new_session=True)
        children.append(child)
        found = procfs.stat(child.pid)
        assert found is not None
        snapshot["pid"], process["start_ticks"] = child.pid, found.start_ticks
        sample["status"][process["name"]]["pid"] = child.pid
    return children


def test_what_this_version_saves_is_in_a_sample() -> None:
    """Else a later version cannot know that it has to read it: add the file of a daemon that has it, named after its commit."""
    saved = {key for sample in SAMPLES for key in json.loads(sample.read_text())["state"]}
    of_a_reexec = {"descriptors", "unwritten", "recent", "watched_until_ns", "open_files"}
    assert set(SavedState.__struct_encode_fields__) - of_a_reexec <= saved
    of_processes = {key for sample in SAMPLES for process in json.loads(sample.read_text())["state"]["processes"] for key in process}
    assert set(SavedProcess.__struct_encode_fields__) <= of_processes
    snapshots = [process["snapshot"] for sample in SAMPLES for process in json.loads(sample.read_text())["state"]["processes"]]
    assert {snapshot["state"] for snapshot in snapshots} == set(State) - {State.STARTING, State.UNKNOWN}  # which do not last


def test_the_digest_of_settings_is_what_it_was() -> None:
    """Else an upgrade would restart every program, for settings that nobody has changed."""
    plain = Program(name="a", command=("sleep", "1000"), group="a", directory="/srv", logs=Logs(stdout="none"))
    assert run_spec.settings_digest(plain) == "f0379a042de61cd7ded4"
    assert run_spec.has_digest(plain, "64c61ff8f8cb9473")
    rich = msgspec.structs.replace(
        plain,
        environment={"PORT": "1"},
        own_variables=("PORT",),
        heartbeat=Heartbeat(file="/srv/beat"),
        notify=Notify(),
        user="www-data",
        group_name="adm",
        umask=0o22,
        shell=True,
        limits=Limits(
            open_files=1,
            processes=2,
            core_size_bytes=3,
            memory_bytes=4,
            nice=5,
            ionice="idle",
            oom_score_adj=6,
            cpu_affinity=(0, 1),
            no_new_privileges=True,
        ),
        sockets=(
            Socket(name="w", kind="tcp", host="127.0.0.1", port=80),
            Socket(name="u", kind="unix", path="/run/u", user="root"),
        ),
    )
    assert run_spec.settings_digest(rich) == "2df021a6cd6b3d044d3a"
    assert run_spec.has_digest(rich, "98736d2698365f35")
