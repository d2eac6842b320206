"""Limits of programs of a real daemon."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_limits_show_in_proc_of_the_programs_own_process(daemon: Make) -> None:
    live = daemon("""
programs:
  a:
    command: [sleep, "1000"]
    start_seconds: 0
    limits: {open_files: 77, core_size: 0, nice: 9, ionice: idle, oom_score_adj: 500, cpu_affinity: [0], no_new_privileges: true}
""")
    pid = live.wait_for("a", "RUNNING")["pid"]
    proc = Path(f"/proc/{pid}")
    assert proc.joinpath("cmdline").read_bytes() == b"sleep\x001000\0"
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (77, 77)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == 9
    assert proc.joinpath("oom_score_adj").read_text().strip() == "500"
    assert os.sched_getaffinity(pid) == {0}
    assert "NoNewPrivs:\t1" in proc.joinpath("status").read_text()


def test_a_refused_limit_is_a_failure_to_spawn(daemon: Make) -> None:
    live = daemon(
        "programs: {a: {command: [sleep, '1'], limits: {cpu_affinity: [0, 4095]}, restart: {max_restarts: 1, backoff: {initial: 10ms}}}}"
    )
    assert live.wait_for("a", "FATAL")["run"] == 2
    assert "limits: the kernel refuses cpu_affinity" in live.do("why", "a")


def test_a_tree_above_its_memory_limit_is_restarted_and_another_is_not(daemon: Make) -> None:
    grow = "import os,time\nif os.environ['ASUP_RUN'] == '1' and os.fork() == 0: hog = bytearray(b'x' * (150 << 20))\ntime.sleep(1000)"
    live = daemon(f"""
programs:
  hog: {{command: [{sys.executable}, -c, {json.dumps(grow)}], start_seconds: 0, limits: {{memory: 100MiB}}, restart: {{backoff: {{initial: 10ms}}}}}}
  fine: {{command: [sleep, "1000"], start_seconds: 0, limits: {{memory: 100MiB}}}}
""")
    status = live.wait_for("hog", "RUNNING", run=2)
    assert (status["cause"], status["restarts"]) == ("memory_limit", 1)
    assert any(event.get("cause") == "memory_limit" and "limits.memory (100.0 MiB)" in event["message"] for event in live.events())
    assert live.process_of("fine")["run"] == 1


def test_a_new_memory_limit_holds_without_a_restart(daemon: Make) -> None:
    program = "programs: {a: {command: [sleep, '1000'], start_seconds: 0, restart: {backoff: {initial: 10ms}}, limits: {memory: %s}}}"
    live = daemon(program % "1GiB")
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.write(program % "2GiB")
    live.do("reload")
    assert live.process_of("a")["pid"] == pid
    live.write(program % "4KiB")
    live.do("reload")
    live.wait_until(lambda: live.process_of("a")["cause"] == "memory_limit", "the new limit is enforced")
