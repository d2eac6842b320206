"""Schedules: when they are due on the wall, over changes of its clock; and who is started then, under a virtual clock."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from supervisord_async.config.model import Schedule
from supervisord_async.core.inputs import StartRequested, StopRequested
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.fleet import schedule as schedules
from supervisord_async.supervise.fleet.schedule import local_zone, next_after
from supervisord_async.supervise.keep_running import keep_running
from supervisord_async.supervise.monitors.schedule import LATE_SECONDS, POLL_SECONDS, ScheduleWatch
from supervisord_async.supervise.process import Process
from tests.fake_host import FakeHost, program, shared_context
from tests.virtual_clock import run_virtually

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def series(line: str, start: float, count: int, zone: str = BERLIN) -> list[str]:
    """The next due times, each derived from the one before as a daemon does."""
    found, moment = [], start
    for _ in range(count):
        due = next_after(Schedule(at=line, timezone=zone), moment)
        assert due is not None and due > moment
        moment = due
        found.append(datetime.fromtimestamp(due, ZoneInfo(zone)).strftime("%d %H:%M%z"))
    return found


def test_a_daily_line_keeps_its_hour_over_both_changes_of_the_clock() -> None:
    assert series("0 6 * * *", at("2026-03-28 12:00"), 2) == ["29 06:00+0200", "30 06:00+0200"]
    assert series("0 6 * * *", at("2026-10-24 12:00"), 2) == ["25 06:00+0100", "26 06:00+0100"]


def test_a_time_that_spring_skips_is_due_right_after_the_gap() -> None:
    assert series("30 2 * * *", at("2026-03-28 12:00"), 2) == ["29 03:00+0200", "30 02:30+0200"]


def test_a_time_that_autumn_repeats_is_due_once() -> None:
    assert series("30 2 * * *", at("2026-10-24 12:00"), 2) == ["25 02:30+0200", "26 02:30+0100"]


def test_an_hourly_line_follows_time_itself_through_the_repeated_hour() -> None:
    assert series("0 * * * *", at("2026-10-25 01:30"), 4) == ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100", "25 04:00+0100"]
    assert series("*/30 * * * *", at("2026-10-25 02:30", fold=1), 2) == ["25 03:00+0100", "25 03:30+0100"]
    assert series("0 * * * *", at("2026-03-29 00:30"), 3) == ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]


def test_six_fields_begin_with_seconds_and_a_day_can_be_the_last_or_the_second_of_its_kind() -> None:
    assert [next_after(Schedule(at="*/20 * * * * *"), moment) for moment in (1_795_176_000.0, 1_795_176_020.0)] == [
        1_795_176_020.0,
        1_795_176_040.0,
    ]
    assert series("0 3 L * *", at("2026-11-22 12:00"), 2) == ["30 03:00+0100", "31 03:00+0100"]
    assert series("0 3 * * fri#2", at("2026-11-22 12:00"), 2) == ["11 03:00+0100", "08 03:00+0100"]


def test_every_is_due_at_multiples_whatever_the_clocks_on_walls_do() -> None:
    every = Schedule(at="@every 10m", every_seconds=600.0)
    assert next_after(every, 1200.0) == 1800.0
    assert next_after(every, 1799.999) == 1800.0
    tenth = Schedule(at="@every 100ms", every_seconds=0.1)
    moment = at("2026-11-21 00:00")
    for _ in range(50):
        due = next_after(tenth, moment)
        assert due is not None and due > moment
        moment = due


def test_the_machines_zone_is_a_zone_and_not_an_offset(tmp_path: Path) -> None:
    assert local_zone(":Europe/Berlin").key == "Europe/Berlin"
    assert local_zone("", str(tmp_path / "none")).key == "UTC"
    assert local_zone("No/Such", str(tmp_path / "none")).key == "UTC"
    localtime = tmp_path / "zoneinfo" / "Here" / "There"
    localtime.parent.mkdir(parents=True)
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)  # one kind of time, whose name has four bytes (RFC 8536)
    localtime.write_bytes(b"TZif" + bytes(16) + counts + struct.pack(">lBB", 5400, 0, 0) + b"XYZ\0")
    zone = local_zone("", str(localtime))
    assert (zone.key, datetime.fromtimestamp(0, zone).utcoffset()) == ("Here/There", timedelta(hours=1.5))


class Scene:
    """A watch over one process on a wall whose clock the test may set."""

    def __init__(self, run_dir: Path, begin: float, settings: dict[str, Any]) -> None:
        self.host = FakeHost()
        self.host.on_spawn = lambda child: None
        self.shared = shared_context(self.host)
        self.records: list[Record] = []
        self.shared.bus.listen(self.records.append)
        self.process = Process("job", 0, program("job", **settings), self.shared)
        self._offset = begin - anyio.current_time()
        self.threads = True  #: whether one can be had
        self.watch = ScheduleWatch(self.shared.bus, lambda: [self.process], str(run_dir), wall_clock=self.wall, off_the_loop=self._at_once)

    async def _at_once(self, function: Callable[..., None], *arguments: Any) -> None:
        """Instead of a thread, for which virtual time would not wait."""
        if not self.threads:
            raise BlockingIOError(11, "can't start new thread")
        function(*arguments)

    def wall(self) -> float:
        return anyio.current_time() + self._offset

    def set_clock(self, seconds: float) -> None:
        self._offset += seconds

    def told(self) -> list[str]:
        return [record.data["what"] for record in self.records if record.type == "schedule"]

    async def runs(self, count: int, seconds: float = 40 * 86400.0) -> None:
        with anyio.fail_after(seconds):
            while self.process.snapshot.run < count:
                await anyio.sleep(1)


async def _once(_what: str, run: Callable[[], Awaitable[None]]) -> None:
    await run()


def play(
    scene: Callable[[Scene], Awaitable[None]], run_dir: Path, begin: str, schedule: Schedule, *, survives: bool = False, **settings: Any
) -> None:
    async def main() -> None:
        play_in = Scene(run_dir, at(begin), {"schedule": schedule, "start_seconds": 0.0} | settings)
        async with anyio.create_task_group() as tasks:
            play_in.process.begin(tasks)
            tasks.start_soon(keep_running if survives else _once, "starting by schedule", play_in.watch.run)
            await scene(play_in)
            tasks.cancel_scope.cancel()

    run_virtually(main)


NIGHTLY = Schedule(at="30 2 * * *", timezone=BERLIN)


def test_a_job_is_started_when_due_with_the_schedule_as_cause(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        await anyio.sleep(0.1)
        assert s.process.scheduled_at == at("2026-10-25 02:30") and s.process.snapshot.state is State.STOPPED
        s.host.on_spawn = lambda child: child.end(code=0)
        await s.runs(1)
        assert at("2026-10-25 02:30") <= s.wall() < at("2026-10-25 02:30") + 2
        assert s.process.snapshot.cause in (Cause.SCHEDULE, Cause.EXITED)
        await s.runs(2)
        assert at("2026-10-26 02:30") <= s.wall() < at("2026-10-26 02:30") + 2  # 25 hours later: once in the repeated hour

    play(scene, tmp_path, "2026-10-24 12:00", NIGHTLY)


def test_what_still_runs_is_not_started_again(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        await s.runs(1)
        await anyio.sleep(3600)
        assert s.process.snapshot.run == 1 and s.told()[:3] == ["started", "overlap", "overlap"]
        s.host.child.end(code=0)
        await s.runs(2, 700)

    play(scene, tmp_path, "2026-11-21 00:01", Schedule(at="@every 10m", every_seconds=600.0))


def test_an_operators_stop_pauses_the_schedule_until_a_start(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        await s.runs(1)
        s.process.post(StopRequested())
        await anyio.sleep(3600)
        assert s.process.snapshot.state is State.STOPPED and s.process.snapshot.run == 1 and "paused" in s.told()
        s.process.post(StartRequested())
        await s.runs(2, 3)
        s.host.child.end(code=0)
        await s.runs(3, 700)

    play(scene, tmp_path, "2026-11-21 00:01", Schedule(at="@every 10m", every_seconds=600.0))


def test_without_a_thread_what_is_due_is_started_and_is_written_down_later(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.threads = False
        await anyio.sleep(30)
        s.threads = True
        await anyio.sleep(2)
        before = (tmp_path / schedules.FILE_NAME).read_text()
        s.threads = False
        await s.runs(1, 700)
        assert s.told() == ["started"] and (tmp_path / schedules.FILE_NAME).read_text() == before
        s.threads = True
        await anyio.sleep(POLL_SECONDS + 1)
        assert (tmp_path / schedules.FILE_NAME).read_text() != before

    play(scene, tmp_path, "2026-11-21 00:01", Schedule(at="@every 10m", every_seconds=600.0))


def test_a_bug_right_after_a_start_does_not_lead_to_a_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due was not written down yet; the task begins anew, as :mod:`.keep_running` has it."""

    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda child: child.end(code=0)
        await anyio.sleep(2)
        monkeypatch.setattr(s.watch, "_write", bug)
        await s.runs(1, 700)
        await anyio.sleep(LATE_SECONDS)
        assert s.told() == ["started"] and s.process.snapshot.run == 1
        await s.runs(2, 700)

    async def bug(_marks: bytes) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    play(scene, tmp_path, "2026-11-21 00:01", Schedule(at="@every 10m", every_seconds=600.0), survives=True)


@pytest.mark.parametrize(("catch_up", "runs"), [("once", 1), ("none", 0)])
def test_what_was_missed_while_the_daemon_was_down(tmp_path: Path, catch_up: Any, runs: int) -> None:
    schedule = Schedule(at="0 * * * *", timezone=BERLIN, catch_up=catch_up)

    async def before(s: Scene) -> None:
        await anyio.sleep(1)

    async def after(s: Scene) -> None:
        await anyio.sleep(60)
        assert s.process.snapshot.run == runs
        assert s.process.scheduled_at == at("2026-11-21 18:00")
        assert s.told() == (["started"] if runs else ["missed"])

    play(before, tmp_path, "2026-11-21 10:30", schedule)
    play(after, tmp_path, "2026-11-21 17:30", schedule)  # seven were missed


@pytest.mark.parametrize(("catch_up", "runs"), [("once", 1), ("none", 0)])
def test_a_clock_set_forward_over_due_times_is_noticed_within_a_minute(tmp_path: Path, catch_up: Any, runs: int) -> None:
    async def scene(s: Scene) -> None:
        await anyio.sleep(30)
        s.set_clock(7 * 3600.0)
        await anyio.sleep(POLL_SECONDS + 1)
        assert s.process.snapshot.run == runs
        assert s.process.scheduled_at == at("2026-11-21 18:00")

    play(scene, tmp_path, "2026-11-21 10:30", Schedule(at="0 * * * *", timezone=BERLIN, catch_up=catch_up))


def test_a_clock_set_back_a_little_repeats_nothing(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda child: child.end(code=0)
        await s.runs(1)
        s.set_clock(-1800.0)
        await anyio.sleep(1900)
        assert s.process.snapshot.run == 1
        await s.runs(2, 3600)

    play(scene, tmp_path, "2026-11-21 10:30", Schedule(at="0 * * * *", timezone=BERLIN))


@pytest.mark.parametrize("line", ["*/5 * * * *", "@every 5m"])
def test_what_is_often_due_does_not_rest_while_a_clock_set_back_comes_up_again(tmp_path: Path, line: str) -> None:
    every = 300.0 if line.startswith("@") else None

    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda child: child.end(code=0)
        await s.runs(1)
        s.set_clock(-3600.0)
        await s.runs(2, 400)
        s.set_clock(-200.0)  # less than it rests for: nothing is repeated
        await anyio.sleep(400)
        assert s.process.snapshot.run == 2
        await s.runs(3, 200)

    play(scene, tmp_path, "2026-11-21 10:30", Schedule(at=line, timezone=BERLIN, every_seconds=every))


def test_times_close_together_once_a_day_are_not_repeated(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda child: child.end(code=0)
        await s.runs(1, 700)  # at 11:00, and not yet at 11:05
        s.set_clock(-1200.0)
        await anyio.sleep(1250)
        assert s.process.snapshot.run == 1
        await s.runs(2, 400)

    play(scene, tmp_path, "2026-11-21 10:50", Schedule(at="0,5 11 * * *", timezone=BERLIN))


def test_a_clock_set_back_by_days_begins_anew(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda child: child.end(code=0)
        await s.runs(1)
        s.set_clock(-5 * 86400.0)
        await s.runs(2, 3700)

    play(scene, tmp_path, "2026-11-21 10:30", Schedule(at="0 * * * *", timezone=BERLIN))


def test_an_edited_line_catches_nothing_up(tmp_path: Path) -> None:
    async def before(s: Scene) -> None:
        await anyio.sleep(1)

    async def after(s: Scene) -> None:
        await anyio.sleep(60)
        assert s.process.snapshot.run == 0

    play(before, tmp_path, "2026-11-21 10:30", Schedule(at="0 3 * * *", timezone=BERLIN, catch_up="once"))
    play(after, tmp_path, "2026-11-21 17:30", Schedule(at="0 12 * * *", timezone=BERLIN, catch_up="once"))


@pytest.mark.parametrize("text", ['{"job": 3}', '{"job": ["0 * * * * Europe/Berlin", NaN]}', '{"job": ["0 * * * * Europe/Berlin", 1e999]}'])
def test_a_damaged_file_of_marks_stops_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / schedules.FILE_NAME).write_text(text)

    async def scene(s: Scene) -> None:
        await s.runs(1)

    play(scene, tmp_path, "2026-11-21 10:30", Schedule(at="0 * * * *", timezone=BERLIN, catch_up="once"))
