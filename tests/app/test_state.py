"""State that outlives a restart: whole or not at all, whatever happens to the file, the disk or the process."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import random
import re
import signal
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.app import StateSerializer, encoding, get_state_serializer, state
from tests.app.conftest import Launch
from tests.mounting import small_disk
from tests.waiting import wait_until_sync


class Colour(Enum):
    RED = 1


class Word(StrEnum):
    YES = "yes"


class Rank(IntEnum):
    HIGH = 7


@dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)


class Mood:
    def __init__(self, energy: float) -> None:
        self.energy = energy

    def to_dict(self) -> dict[str, Any]:
        return {"energy": self.energy}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Mood:
        return cls(data["energy"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mood) and other.energy == self.energy

    def __hash__(self) -> int:
        return hash(self.energy)


@pytest.fixture
def serializer(tmp_path: Path) -> StateSerializer:
    return StateSerializer(tmp_path / "data" / "restart_state.json")


def test_what_is_saved_is_what_is_loaded(serializer: StateSerializer) -> None:
    assert serializer.save_restart_state({"counter": 3, "text": "größer"}, [{"type": "noise"}], {"dev": True})
    assert serializer.load_restart_state() == {
        "self_state": {"counter": 3, "text": "größer"},
        "event_queue": [{"type": "noise"}],
        "config": {"dev": True},
    }


def test_the_file_is_json_with_marker_version_time_and_checksum(serializer: StateSerializer) -> None:
    assert serializer.save_restart_state({"a": 1}, [], {})
    document = json.loads(serializer.path.read_text())
    assert document["is_restart"] is True
    assert document["version"] == 1
    assert document["checksum"].startswith("sha256:")
    assert datetime.fromisoformat(document["saved_at"]).tzinfo is not None
    assert document["state"]["self_state"] == {"a": 1}
    assert serializer.path.stat().st_mode & 0o077 == 0


def test_objects_become_dictionaries_and_queues_lists(serializer: StateSerializer) -> None:
    events: queue.Queue[Any] = queue.Queue()
    for number in range(3):
        events.put(Point(number))
    assert serializer.save_restart_state(Mood(0.5), events, {"window": deque([1, 2], maxlen=5), "pair": (1, 2)})
    assert events.qsize() == 3
    loaded = serializer.load_restart_state()
    assert loaded is not None
    assert loaded["self_state"] == {"energy": 0.5}
    assert loaded["event_queue"][2] == {"x": 2, "y": 0, "tags": []}
    assert loaded["config"] == {"window": [1, 2], "pair": [1, 2]}


def test_known_classes_come_back_as_objects(tmp_path: Path) -> None:
    serializer = StateSerializer(tmp_path / "s.json", classes=[Mood, Point])
    serializer.register(Colour)
    assert serializer.save_restart_state(Mood(0.25), [Point(1, 2, ["a"]), Colour.RED], {"nested": {"mood": Mood(1)}})
    loaded = serializer.load_restart_state()
    assert loaded == {
        "self_state": Mood(0.25),
        "event_queue": [Point(1, 2, ["a"]), Colour.RED],
        "config": {"nested": {"mood": Mood(1)}},
    }
    with pytest.raises(ValueError, match="two classes are named Mood"):
        serializer.register(type("Mood", (), {}))


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset({"a"}),
        b"\x00\xff",
        datetime(2026, 1, 20, 12, tzinfo=UTC),
        date(2026, 1, 20),
        timedelta(days=1, microseconds=5),
        Path("/tmp/x"),
        UUID(int=5),
        Decimal("1.10"),
        {1: "a", None: "b", (1, 2): "c"},
        {(1, 2), (3, (4, 5)), frozenset({(6,)})},
        {"$type": "set", "value": [1]},
        {"deep": [{"er": {3: {4}}}]},
    ],
)
def test_values_beyond_json_come_back_as_they_were(serializer: StateSerializer, value: Any) -> None:
    assert serializer.save_restart_state(value, [], {})
    loaded = serializer.load_restart_state()
    assert loaded is not None
    assert loaded["self_state"] == value
    assert type(loaded["self_state"]) is type(value) or isinstance(value, Path)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001  a naive one
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        time(2, 30, fold=1),
        time(2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    ],
)
def test_a_time_keeps_its_zone_and_its_place_in_a_repeated_hour(value: datetime | time) -> None:
    """A naive one was an hour off after a restart; one of a zone was so once the clocks had changed."""
    found = encoding.decode(json.dumps(encoding.encode(value)))
    assert repr(found) == repr(value)


def test_subclasses_of_plain_types_become_plain() -> None:
    counted = [Counter("aa"), OrderedDict(a=1), defaultdict(int, b=2), Word.YES, Rank.HIGH, True, 1.5, None]
    assert encoding.encode(counted) == [{"a": 2}, {"a": 1}, {"b": 2}, "yes", 7, True, 1.5, None]
    assert [type(item) for item in encoding.encode(counted)[3:5]] == [str, int]


def test_every_kind_of_queue_gives_its_items_and_keeps_them() -> None:
    lifo: queue.LifoQueue[int] = queue.LifoQueue()
    ranked: queue.PriorityQueue[int] = queue.PriorityQueue()
    simple: queue.SimpleQueue[int] = queue.SimpleQueue()
    looped: asyncio.Queue[int] = asyncio.Queue()
    for number in (3, 1, 2):
        lifo.put(number)
        ranked.put(number)
        simple.put(number)
        looped.put_nowait(number)
    for _ in range(2):
        assert encoding.encode([lifo, ranked, simple, looped]) == [[3, 1, 2], [1, 2, 3], [3, 1, 2], [3, 1, 2]]


KEYS = st.recursive(st.integers() | st.text() | st.binary(), lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.just("$type") | KEYS, inner) | st.sets(KEYS),
    max_leaves=20,
)


@given(JSON)
def test_any_plain_value_survives_the_way_to_text_and_back(value: Any) -> None:
    assert encoding.decode(json.dumps(encoding.encode(value))) == value


def loop_value() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class Raising:
    def to_dict(self) -> dict[str, Any]:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: None,
        threading.Lock(),
        {"a": [object()]},
        Colour.RED,
        loop_value(),
        Raising(),
        "\ud800",
        {Mood(1)},
        {(1, Mood(1)): 2},
    ],
)
def test_what_cannot_be_saved_gives_false_and_leaves_the_file(
    serializer: StateSerializer, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert serializer.save_restart_state({"good": 1}, [], {})
    before = serializer.path.read_bytes()
    assert serializer.save_restart_state(value, [], {}) is False
    assert serializer.path.read_bytes() == before
    assert "cannot save the state" in caplog.text
    assert sorted(path.name for path in serializer.path.parent.iterdir()) == [".restart_state.json.lock", "restart_state.json"]


def test_the_log_says_where_the_unsaveable_value_is(serializer: StateSerializer, caplog: pytest.LogCaptureFixture) -> None:
    assert not serializer.save_restart_state({"a": [1, {"b": object()}]}, [], {})
    assert "self_state.a[1].b: cannot save a builtins.object" in caplog.text


def test_without_a_file_there_is_nothing_to_load_and_no_complaint(serializer: StateSerializer, caplog: pytest.LogCaptureFixture) -> None:
    assert serializer.load_restart_state() is None
    serializer.cleanup_restart_state()
    assert not caplog.records
    assert not serializer.loaded


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data[:-1],
    "noise": lambda data: random.Random(3).randbytes(500),
    "another key in the state": lambda data: data.replace(b'"good":', b'"gold":'),
    "deep nesting": lambda data: b"[" * 100_000,
    "foreign json": lambda data: b'{"counter": 5}',
    "a json list": lambda data: b"[1, 2]",
    "foreign marker": lambda data: data.replace(state.FORMAT.encode(), b"some.other.format"),
    "newer version": lambda data: data.replace(b'"version": 1', b'"version": 2'),
    "newer version, other layout": lambda data: json.dumps(json.loads(data) | {"version": 99}).encode(),
}


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "a directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(CONTENTS[how](data))


DAMAGES = ["empty", "truncated", "last byte lost", "noise", "another key in the state", "deep nesting", "a directory"]
NOT_OURS = ["foreign json", "a json list", "foreign marker", "newer version", "newer version, other layout"]


@pytest.mark.parametrize("how", DAMAGES + NOT_OURS)
def test_a_file_that_is_not_what_was_saved_gives_none_and_a_warning(
    serializer: StateSerializer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert serializer.save_restart_state({"good": 1}, [], {})
    damage(serializer.path, how)
    assert serializer.load_restart_state() is None
    assert any(record.levelname == "WARNING" for record in caplog.records)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_gives_the_copy_before_it(serializer: StateSerializer, how: str, caplog: pytest.LogCaptureFixture) -> None:
    assert serializer.save_restart_state({"good": 1}, [], {})
    assert serializer.save_restart_state({"good": 2}, [], {})
    damage(serializer.path, how)
    loaded = serializer.load_restart_state()
    assert loaded is not None
    assert loaded["self_state"] == {"good": 1}
    assert "using the copy before it" in caplog.text


def test_a_damaged_newest_does_not_push_the_good_copy_out(serializer: StateSerializer) -> None:
    serializer.save_restart_state({"good": 1}, [], {})
    serializer.save_restart_state({"good": 2}, [], {})
    damage(serializer.path, "truncated")
    assert serializer.save_restart_state({"good": 3}, [], {})
    damage(serializer.path, "truncated")
    loaded = serializer.load_restart_state()
    assert loaded is not None
    assert loaded["self_state"] == {"good": 1}


def test_every_truncation_of_the_file_is_noticed(serializer: StateSerializer) -> None:
    serializer.save_restart_state({"good": list(range(20))}, ["x"], {})
    data = serializer.path.read_bytes()
    for length in range(len(data)):
        serializer.path.write_bytes(data[:length])
        assert serializer.load_restart_state() is None


def test_cleaning_up_leaves_only_the_lock(serializer: StateSerializer) -> None:
    serializer.save_restart_state(1, [], {})
    serializer.save_restart_state(2, [], {})
    (serializer.path.parent / ".restart_state.json.123.456.tmp").touch()
    serializer.cleanup_restart_state()
    assert [path.name for path in serializer.path.parent.iterdir()] == [".restart_state.json.lock"]
    assert serializer.load_restart_state() is None


def test_file_systems_without_hard_links_are_served(serializer: StateSerializer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert all(serializer.save_restart_state(number, [], {}) for number in range(3))
    damage(serializer.path, "empty")
    loaded = serializer.load_restart_state()
    assert loaded is not None
    assert loaded["self_state"] == 1


def test_saves_of_many_threads_each_leave_a_whole_state(serializer: StateSerializer) -> None:
    others = [serializer, serializer, StateSerializer(serializer.path), StateSerializer(serializer.path)]
    results: list[bool] = []

    def save(mine: StateSerializer, number: int) -> None:
        results.extend(mine.save_restart_state({"number": number, "filler": "x" * 5000}, [], {}) for _ in range(10))

    threads = [threading.Thread(target=save, args=(mine, number)) for number, mine in enumerate(others)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        loaded = serializer.load_restart_state()
        assert loaded is None or loaded["self_state"]["number"] in range(4)
    for thread in threads:
        thread.join()
    assert results == [True] * 40
    assert serializer.load_restart_state() is not None
    assert not list(serializer.path.parent.glob("*.tmp"))


SAVER = """
import sys
from supervisord_async.app import StateSerializer
serializer = StateSerializer("state.json")
for number in range(int(sys.argv[1])):
    if not serializer.save_restart_state({"number": number, "filler": "x" * int(sys.argv[2])}, [], {}):
        sys.exit(f"save {number} failed")
    print(number, flush=True)
"""


@pytest.mark.real
def test_saves_of_several_processes_do_not_disturb_each_other(tmp_path: Path, launch: Launch) -> None:
    (tmp_path / "saver.py").write_text(SAVER)
    processes = [launch("saver.py", "25", "20000", output=f"out{number}") for number in range(3)]
    serializer = StateSerializer(tmp_path / "state.json")
    while any(process.poll() is None for process in processes):
        loaded = serializer.load_restart_state()
        assert loaded is None or len(loaded["self_state"]["filler"]) == 20000
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert serializer.load_restart_state() is not None


@pytest.mark.real
def test_a_kill_in_the_middle_of_a_save_loses_nothing_that_was_acknowledged(tmp_path: Path, launch: Launch) -> None:
    (tmp_path / "saver.py").write_text(SAVER)
    serializer = StateSerializer(tmp_path / "state.json")
    chance = random.Random(7)
    for attempt in range(8):
        serializer.cleanup_restart_state()
        said = tmp_path / f"out{attempt}"
        process = launch("saver.py", "100000", "300000", output=said.name)
        enough = chance.randint(1, 12)
        wait_until_sync(lambda said=said, enough=enough: said.read_text().count("\n") >= enough)  # type: ignore[misc]
        threading.Event().wait(chance.random() * 0.02)  # somewhere within the next save
        process.send_signal(signal.SIGKILL)
        process.wait()
        acknowledged = int(re.findall(r"^\d+$", said.read_text(), re.MULTILINE)[-1])
        loaded = serializer.load_restart_state()
        assert loaded is not None
        assert loaded["self_state"]["number"] in {acknowledged, acknowledged + 1}
        assert len(loaded["self_state"]["filler"]) == 300000
    assert serializer.save_restart_state("after", [], {})
    assert not list(tmp_path.glob(".state.json.*.tmp"))


def test_a_lock_that_others_hold_makes_a_save_fail_in_time(tmp_path: Path) -> None:
    import fcntl

    serializer = StateSerializer(tmp_path / "s.json", lock_timeout=0.05)
    assert serializer.save_restart_state(1, [], {})
    with open(serializer.lock_path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert serializer.save_restart_state(2, [], {}) is False
    assert serializer.save_restart_state(3, [], {})


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as disk:
        yield disk


def test_a_full_disk_gives_false_and_keeps_the_earlier_state(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    serializer = StateSerializer(tiny_disk / "state.json")
    assert serializer.save_restart_state({"good": 1}, [], {})
    assert serializer.save_restart_state({"filler": "x" * 200_000}, [], {}) is False
    assert "No space left on device" in caplog.text
    loaded = serializer.load_restart_state()
    assert loaded is not None
    assert loaded["self_state"] == {"good": 1}
    assert not list(tiny_disk.glob("*.tmp"))
    assert serializer.save_restart_state({"good": 2}, [], {})


def test_a_place_that_cannot_be_written_gives_false(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    serializer = StateSerializer(tmp_path / "file" / "state.json")
    assert serializer.save_restart_state(1, [], {}) is False
    assert serializer.load_restart_state() is None
    serializer.cleanup_restart_state()


def test_a_restart_without_state_does_not_take_up_an_older_one(
    serializer: StateSerializer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serializer.save_restart_state({"old": 1}, [], {})
    monkeypatch.setenv(state.ENV_FRESH_START, str(os.getpid()))
    assert serializer.load_restart_state() is None
    assert "starting fresh" in caplog.text
    monkeypatch.setenv(state.ENV_FRESH_START, str(os.getpid() + 1))  # meant for our parent
    assert serializer.load_restart_state() is not None


def test_the_program_has_one_serializer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state._Shared, "serializer", None)
    monkeypatch.chdir(tmp_path)
    first = get_state_serializer()
    assert first.path == tmp_path / "data" / "restart_state.json"
    assert get_state_serializer() is first
    assert get_state_serializer(first.path) is first
    assert get_state_serializer("other.json").path == tmp_path / "other.json"
