"""Kept views say what new ones would."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec.structs import replace

from supervisord_async.config.model import Logs, Program
from supervisord_async.control.view import ProcessView, process_view
from supervisord_async.control.view_cache import ViewCache
from supervisord_async.core.state import Cause, ExitStatus, Snapshot, State
from supervisord_async.supervise.records.figures import Figures

RUNNING = Snapshot(state=State.RUNNING, pid=7, run=1, run_since=100.0, cause=Cause.AUTOSTART)


def a_process(**fields: Any) -> Any:
    program = Program(name="web", command=("/bin/true",), group="web", directory="/", logs=Logs(stdout="none"))
    about = {"name": "web", "program": program, "snapshot": RUNNING, "status_text": "", "output": SimpleNamespace(trouble=None)}
    about |= {"next_at": None, "scheduled_at": None, "waits_for": ""}
    return SimpleNamespace(**{**about, **fields})


def test_a_kept_view_is_what_a_new_one_would_be_whatever_changed() -> None:
    views, process = ViewCache(), a_process()
    changes: list[dict[str, Any]] = [
        {},
        {"snapshot": replace(RUNNING, run=2, restarts=1, exit=ExitStatus(code=1))},
        {"snapshot": replace(RUNNING, state=State.BACKOFF, pid=None, exit=ExitStatus(code=1)), "next_at": 130.0},
        {"snapshot": RUNNING, "next_at": None},
        {
            "program": Program(
                name="web", command=("/bin/true",), group="shops", directory="/", logs=Logs(stdout="none"), description="the shop"
            )
        },
        {"name": 'a"uptime_seconds":null,"cpu_percent":null},{ 5 % of "it"\n'},
        {"name": "web", "status_text": "warming up"},
        {"status_text": ""},
        {"output": SimpleNamespace(trouble="No space left on device")},
        {"output": SimpleNamespace(trouble=None)},
        {"scheduled_at": 1_700_000_000.0},
    ]
    for number, change in enumerate(changes):
        vars(process).update(change)
        for figures in ({}, {"web": Figures(cpu_percent=1.5, cpu_seconds=2.5, memory_bytes=4096 * number, processes=1, threads=1)}):
            for now in (120.0 + number, 120.5 + number):
                found = msgspec.json.decode(views.json([process], now, 1e9 + now, figures), type=list[ProcessView])
                assert found == [process_view(process, now, 1e9 + now, figures.get(process.name))]


def test_figures_of_a_run_that_has_ended_since_are_nobodys() -> None:
    figures = Figures(cpu_percent=90.0, cpu_seconds=2.5, memory_bytes=4096, processes=1, threads=1)
    stopped = process_view(a_process(snapshot=replace(RUNNING, state=State.STOPPED, pid=None)), 120.0, 1e9, figures)
    assert (stopped.cpu_percent, stopped.memory_bytes) == (None, None)
    assert process_view(a_process(), 120.0, 1e9, figures).memory_bytes == 4096


def test_views_of_many_are_those_of_each_whoever_comes_goes_and_changes_among_them() -> None:
    views, pick = ViewCache(), random.Random(7)
    processes = [a_process(name=f"p{number}") for number in range(6)]
    figures: dict[str, Figures] = {}
    for now in range(200, 500):
        one = pick.choice(processes) if processes else None
        match pick.randrange(8):
            case 0 if one is not None:
                processes.remove(one)
            case 1:
                processes.insert(pick.randrange(len(processes) + 1), a_process(name=f"p{now}"))
            case 2 if one is not None:
                one.snapshot = replace(RUNNING, run=now, run_since=now - 0.25)
            case 3 if one is not None:
                one.snapshot, one.next_at = replace(RUNNING, state=State.BACKOFF, pid=None), now + 5.0
            case 4 if one is not None:
                one.status_text = "busy" if not one.status_text else ""
            case 5:
                figures = {
                    process.name: Figures(cpu_percent=now / 10, cpu_seconds=0.0, memory_bytes=now, processes=1, threads=1)
                    for process in processes[::2]
                }
            case 6:
                pick.shuffle(processes)
        found = msgspec.json.decode(views.json(processes, now, 1e9 + now, figures), type=list[ProcessView])
        assert found == [process_view(process, now, 1e9 + now, figures.get(process.name)) for process in processes]


def test_views_of_processes_that_are_gone_are_not_kept() -> None:
    views, process = ViewCache(), a_process()
    views.json([process, process], 120.0, 1e9, {})
    views.json([process], 121.0, 1e9, {})
    assert len(views._made_of) == len(views._since) == 1
    assert views.json([], 121.0, 1e9, {}) == b"[]"


def test_a_cause_stands_for_a_description_in_words() -> None:
    going = replace(RUNNING, state=State.STOPPING, cause=Cause.DAEMON_STOP)
    assert process_view(a_process(snapshot=going), 120.0, 1e9).description == "daemon stop"


def test_a_run_is_not_told_to_have_the_fault_of_the_one_before() -> None:
    snapshot = replace(RUNNING, run=2, cause=Cause.SPAWN_FAILED, detail="exec: ./late: No such file or directory")
    assert process_view(a_process(snapshot=snapshot), 120.0, 1e9).description == "run 2; before it: exec: ./late: No such file or directory"
    asked = replace(RUNNING, run=2, cause=Cause.FILE_CHANGED, detail="app.py changed")
    assert process_view(a_process(snapshot=asked), 120.0, 1e9).description == "app.py changed"


def test_what_is_wrong_is_told_of_a_program_with_a_description_of_its_own_as_well() -> None:
    shop = replace(a_process().program, description="the shop")
    assert process_view(a_process(program=shop), 120.0, 1e9).description == "the shop"
    lost = replace(RUNNING, state=State.BACKOFF, pid=None, cause=Cause.SPAWN_FAILED, detail="exec: no such file")
    assert process_view(a_process(program=shop, snapshot=lost), 120.0, 1e9).description == "exec: no such file"
    ended = replace(RUNNING, state=State.BACKOFF, pid=None, cause=Cause.EXITED, exit=ExitStatus(code=3))
    assert process_view(a_process(program=shop, snapshot=ended), 120.0, 1e9).description == "exited with 3"


def test_what_an_operator_stopped_is_not_announced_by_its_schedule() -> None:
    due = 1_700_000_000.0
    for cause, told in ((Cause.OPERATOR, None), (None, "2023-11-14T22:13:20.000Z")):
        process = a_process(snapshot=Snapshot(state=State.STOPPED, cause=cause), scheduled_at=due)
        assert process_view(process, 120.0, 1e9).next_at == told


def test_what_has_no_process_uses_nothing_whatever_the_last_look_saw() -> None:
    figures = Figures(cpu_percent=1.5, cpu_seconds=2.5, memory_bytes=4096, processes=1, threads=1)
    ended = a_process(snapshot=replace(RUNNING, state=State.BACKOFF, pid=None, exit=ExitStatus(code=1)))
    view = process_view(ended, 120.0, 1e9, figures)
    assert (view.cpu_percent, view.memory_bytes) == (None, None)
    assert process_view(a_process(), 120.0, 1e9, figures).memory_bytes == 4096
