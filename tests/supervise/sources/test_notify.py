"""sd_notify without a daemon: what a message is, what is stored, and when a watchdog was missed."""

from __future__ import annotations

import array
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from supervisord_async.config.model import Daemon, Heartbeat, Logs, Notify, Program
from supervisord_async.core.inputs import BecameReady, Faulted, HealthReported, Input, TimeoutExtended
from supervisord_async.core.state import Cause, Health, Snapshot, State
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.monitors.watchdog import monitor_watchdog
from supervisord_async.supervise.sources.fdstore import STORE_LIMIT, DescriptorStore
from supervisord_async.supervise.sources.notify import BATCH, RECORDS_PER_RUN, STATUS_CHARACTERS, NotifySocket, parse
from supervisord_async.supervise.sources.notify_state import NotifyState
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.datagrams import MESSAGE_BYTES
from supervisord_async.system.identity import identify
from supervisord_async.system.tree import Tree
from tests.fake_host import FakeHost, shared_context
from tests.virtual_clock import run_virtually


class Slot:
    """A notify socket whose run is this very process, with what was posted and told."""

    def __init__(
        self, folder: Path, *, main: int | None = None, access: Any = "main", name: str = "a", user: Credentials | None = None
    ) -> None:
        self.posts: list[Input] = []
        self.records: list[Any] = []
        self.shared = shared_context(FakeHost(), daemon=Daemon(name="t", run_dir=str(folder), socket=str(folder / "s")))
        self.shared.bus.listen(self.records.append)
        settings: dict[str, Any] = {"logs": Logs(stdout="none"), "notify": Notify(access=access), "environment": {"API_TOKEN": "sesame"}}
        program = Program(name="a", command=("a",), group="a", directory="/", **settings)
        self.notify_socket = NotifySocket(name, self.shared)
        self.address = self.notify_socket.open(program, user)
        self.peer = self.address.replace("@", "\0", 1)  #: the address as the kernel takes it
        pid = main or os.getpid()
        child = SimpleNamespace(pid=pid, identity=identify(pid))
        state = Snapshot(state=State.STARTING, run=3, pid=pid)
        given = {"name": "a", "run": 3, "program": program, "post": self.posts.append, "snapshot": lambda: state, "child": child}
        context = RunContext(**(dict.fromkeys(RunContext.__struct_fields__) | given))
        self.run: Any = SimpleNamespace(context=context, child=child, ended=None, tree=Tree(child.identity, "x/a/3", ours=True))

    def say(self, *messages: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """The messages are sent and received."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            for message in messages:
                client.sendmsg([message], rights, 0, self.peer)
                self.receive()

    def receive(self) -> None:
        async def drain() -> None:
            while await self.notify_socket.drain(self.run):
                pass

        run_virtually(drain)


@pytest.fixture
def slot(tmp_path: Path) -> Any:
    made = Slot(tmp_path)
    yield made
    made.notify_socket.close()
    assert not (tmp_path / "notify" / "a.sock").exists()


def test_ready_is_posted_once_and_status_is_fit_for_a_terminal(slot: Slot) -> None:
    slot.say(b"READY=1\nSTATUS=up \x1b[2J and\trunning", b"READY=1")
    assert slot.posts == [BecameReady(3)]
    assert slot.notify_socket.state.text == "up  [2J and running"
    slot.say(b"STATUS=" + b"x" * 1000)
    assert len(slot.notify_socket.state.text) == STATUS_CHARACTERS


@pytest.mark.parametrize("before", ["logged in with ", "x" * (STATUS_CHARACTERS - 3)])
def test_a_status_shows_no_secret_not_even_a_part_of_one(slot: Slot, before: str) -> None:
    slot.say(f"STATUS={before}sesame".encode())
    assert slot.notify_socket.state.text == f"{before}********"[:STATUS_CHARACTERS]


def test_reloading_and_stopping_show_before_the_status(slot: Slot) -> None:
    slot.say(b"STATUS=42 clients", b"RELOADING=1")
    assert slot.notify_socket.state.text == "reloading: 42 clients"
    slot.say(b"READY=1", b"STOPPING=1")
    assert slot.notify_socket.state.text == "stopping: 42 clients"


GARBAGE = (b"", b"no assignment", b"A=\xff\xfe", b"READY=1\0", b"\xc3\x28=1", b"READY=1\n" + b"x" * 2 * MESSAGE_BYTES)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_ignored_and_told_once(slot: Slot, garbage: bytes) -> None:
    slot.say(garbage, garbage, garbage)
    assert (slot.notify_socket.state.ignored, slot.posts) == (True, [])
    assert sum("ignored a message" in record.message for record in slot.records) == 1


def test_a_process_that_is_not_the_main_one_is_not_heard(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as other:
        for access in ("main", "all"):
            slot = Slot(tmp_path, main=other.pid, access=access)
            slot.say(b"READY=1\nSTATUS=forged")
            assert (slot.posts, slot.notify_socket.state.text, slot.notify_socket.state.ignored) == ([], "", True)
            slot.notify_socket.close()
        other.kill()


def test_a_sender_that_is_gone_is_not_called_a_stranger(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as other:
        slot = Slot(tmp_path, main=other.pid, access="all")
        address = slot.address.replace("@", "\0", 1)
        code = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', {address!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        slot.receive()
        assert slot.posts == []
        assert "its sender had ended" in slot.records[-1].message
        slot.notify_socket.close()
        other.kill()


@pytest.mark.parametrize(("access", "heard"), [("main", 0), ("all", 1)])
def test_another_process_of_the_run_is_heard_where_all_may_speak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access: str, heard: int
) -> None:
    monkeypatch.setattr(Tree, "includes", lambda *_: True)
    with subprocess.Popen(["sleep", "1000"]) as other:
        slot = Slot(tmp_path, main=other.pid, access=access)
        try:
            slot.say(b"READY=1")
            assert (slot.notify_socket.state.ignored, len(slot.posts)) == (not heard, heard)
        finally:
            slot.notify_socket.close()
            other.kill()


def test_numbers_that_are_none_are_ignored(slot: Slot) -> None:
    slot.say(b"MAINPID=-1", b"MAINPID=9999999999999999999999", b"ERRNO=x", b"EXTEND_TIMEOUT_USEC=", b"WATCHDOG_USEC=0", b"MAINPID=1")
    assert slot.posts == []
    assert slot.notify_socket.state.watchdog_seconds is None
    assert slot.notify_socket.state.failure_text == ""


def test_extensions_are_bounded_and_told_to_the_machine(slot: Slot) -> None:
    slot.say(b"EXTEND_TIMEOUT_USEC=5000000", b"EXTEND_TIMEOUT_USEC=5000000", b"EXTEND_TIMEOUT_USEC=99999999999999999")
    assert [post.until - 1000.0 for post in slot.posts if isinstance(post, TimeoutExtended)] == [5.0, 86400.0]


def test_records_about_one_run_are_bounded(slot: Slot) -> None:
    slot.say(*(b"ERRNO=%d" % (1 + number % 2) for number in range(200)))
    assert len(slot.records) == RECORDS_PER_RUN
    assert "errno" in slot.notify_socket.state.failure_text


def test_many_descriptors_are_all_closed(slot: Slot) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as null:
        slot.say(b"STATUS=gifts", b"", b"BARRIER=1", descriptors=(null.fileno(),) * 253)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_is_bounded_and_gives_back_by_name(slot: Slot) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as null:
        slot.say(b"FDSTORE=1\nFDNAME=b:d", descriptors=(null.fileno(),))
        slot.say(b"FDSTORE=1\nFDNAME=many", descriptors=(null.fileno(),) * 200)
        assert [each.name for each in slot.notify_socket.store.saved()] == ["many"] * STORE_LIMIT
        slot.say(b"FDSTOREREMOVE=1\nFDNAME=other", b"FDSTOREREMOVE=1\nFDNAME=many")
        assert slot.notify_socket.store.saved() == ()
        slot.say(b"FDSTORE=1", descriptors=(null.fileno(),))
        assert [each.name for each in slot.notify_socket.store.saved()] == ["stored"]
    slot.say(b"FDSTOREREMOVE=1")
    assert slot.notify_socket.store.saved() == ()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_same_socket_is_stored_once() -> None:
    store = DescriptorStore()
    left, right = socket.socketpair()
    with left, right:
        copies = [os.dup(left.fileno()) for _ in range(2)]
        assert store.take("a", copies) == (copies[1],)
        os.close(copies[1])
        store.clear()


def test_a_batch_is_bounded(slot: Slot) -> None:
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        try:
            while sent < 10 * BATCH:
                client.sendto(b"WATCHDOG=1", slot.peer)
                sent += 1
        except BlockingIOError:
            pass  # the kernel holds the sender back
    counts: list[int] = []

    async def drain() -> None:
        counts.append(await slot.notify_socket.drain(slot.run))

    run_virtually(drain)
    assert counts == [min(sent, BATCH)]  # the kernel may hold fewer (net.unix.max_dgram_qlen)
    slot.receive()
    assert slot.notify_socket.state.beats == sent


def test_messages_are_kept_while_no_descriptor_is_free_and_that_is_no_silence(slot: Slot) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    heard: list[int] = []

    async def drain() -> None:
        heard.append(await slot.notify_socket.drain(slot.run))

    async def starve() -> None:
        try:
            async with anyio.create_task_group() as tasks:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                tasks.start_soon(drain)
                await anyio.sleep(5)
                assert not slot.posts and slot.notify_socket.state.beats > 1
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))
        client.sendmsg([b"READY=1\nFDSTORE=1"], [rights], 0, slot.peer)
        run_virtually(starve)
    assert (heard, slot.posts, len(slot.notify_socket.store.saved())) == ([1], [BecameReady(3)], 1)


@pytest.mark.parametrize("name", ["a", "long" * 25])
def test_a_deep_run_dir_means_an_abstract_address(tmp_path: Path, name: str) -> None:
    slot = Slot(tmp_path / ("deep" * 30), name=name)
    assert slot.address.startswith("@asupd/")
    slot.say(b"STATUS=heard")
    assert slot.notify_socket.state.text == "heard"
    slot.notify_socket.close()


@pytest.mark.parametrize("place", ["notify", "notify/a.sock"])
def test_where_no_socket_can_be_made_the_address_is_an_abstract_one(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("something else")
    slot = Slot(tmp_path)
    assert slot.address.startswith("@asupd/")
    slot.say(b"STATUS=heard")
    assert slot.notify_socket.state.text == "heard"
    slot.notify_socket.close()
    assert (tmp_path / place).read_text() == "something else"


def test_the_last_assignment_of_a_name_counts() -> None:
    assert parse(b"STATUS=a\nnonsense\nSTATUS=b=c\n") == {"STATUS": "b=c"}


@pytest.mark.parametrize("message", [b"", b"READY=1\0", b"nonsense", b"READY=1\nSTATUS=\xff", b"\xff=1\nREADY=1"])
def test_what_is_no_message_says_nothing_at_all(message: bytes) -> None:
    assert parse(message) is None


def watch(life: Callable[[Any], Any], heartbeat: Heartbeat | None) -> tuple[float, list[Input]]:
    """When the monitor ended by itself while the program lived ``life``, and what it posted."""
    posts: list[Input] = []

    async def main() -> float:
        state = NotifyState()
        program = Program(name="a", command=("a",), group="a", directory="/", logs=Logs(stdout="none"), heartbeat=heartbeat)
        given: dict[str, Any] = {"run": 3, "program": program, "post": posts.append, "notify_state": state}
        context = RunContext(**({name: cast("Any", None) for name in RunContext.__struct_fields__} | given))
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(life, state)
            await monitor_watchdog(context)
            ended = anyio.current_time()
            tasks.cancel_scope.cancel()
        return ended - began

    return run_virtually(main), posts


def test_a_watchdog_without_beats_is_missed_in_time() -> None:
    async def beat(state: NotifyState) -> None:
        for _ in range(10):
            state.beats += 1
            await anyio.sleep(15)

    ended, posts = watch(beat, Heartbeat(timeout_seconds=20))
    assert 9 * 15 + 20 <= ended <= 9 * 15 + 25
    assert posts[0] == HealthReported(3, "heartbeat", Health.HEALTHY)
    assert isinstance(posts[-1], Faulted)
    assert posts[-1].cause is Cause.HEARTBEAT_MISSED


def test_the_initial_delay_of_a_watchdog_comes_before_its_timeout() -> None:
    async def silent(_: NotifyState) -> None:
        await anyio.sleep(1000)

    assert 120 <= watch(silent, Heartbeat(timeout_seconds=20, initial_delay_seconds=100))[0] <= 125


def test_only_where_all_may_speak_others_reach_the_socket(open_path: Path) -> None:
    user = Credentials(65501, 65501, (65501,), "stranger", "/") if os.geteuid() == 0 else None
    for access, mode in (("main", 0o600), ("all", 0o666)):
        slot = Slot(open_path / access, access=access, user=user)
        try:
            assert os.stat(slot.address).st_mode & 0o777 == mode
        finally:
            slot.notify_socket.close()


def test_a_watchdog_blames_nobody_for_the_time_in_which_nobody_listened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon was stopped, or the machine slept, for an hour."""
    true_time, slept = anyio.current_time, 0.0
    monkeypatch.setattr("supervisord_async.supervise.monitors.watchdog.anyio.current_time", lambda: true_time() + slept)

    async def live(state: NotifyState) -> None:
        nonlocal slept
        state.beats += 1
        await anyio.sleep(5)
        slept = 3600.0
        for _ in range(10):
            await anyio.sleep(5)
            state.beats += 1
        await anyio.sleep(1000)

    ended, _ = watch(live, Heartbeat(timeout_seconds=20))
    assert ended - 3600.0 >= 55 + 20


def test_a_run_may_choose_its_watchdog_and_trigger_it() -> None:
    async def choose(state: NotifyState) -> None:
        await anyio.sleep(100)
        state.watchdog_seconds = 2.0
        state.heard.notify()

    assert 102 <= watch(choose, None)[0] <= 103

    async def trigger(state: NotifyState) -> None:
        await anyio.sleep(5)
        state.triggered = True
        state.heard.notify()

    assert watch(trigger, Heartbeat(timeout_seconds=600))[0] == 5
