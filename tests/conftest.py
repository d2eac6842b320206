"""What every folder of tests shares: the loops to run on, a free port, and the look for leaks after real processes."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from importlib import util
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import holdings, left_behind
from tests.strangers import STRANGER

#: A little less than pytest-timeout allows a test, see pyproject.toml.
ASYNC_TEST_SECONDS = 110

# Machines are shared and noisy: no test fails for being slow once. CI replays the same examples each time.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("house")

# What the tests start has its modules compiled once, as for a user, and not anew with each of a thousand processes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Who runs the tests in the background of a shell, or by nohup, has them ignore signals, and children inherit that.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def _uvloop_factory() -> Any:
    """Our own loop, the one that spawns properly, on uvloop; None where there is no uvloop."""
    if util.find_spec("uvloop") is None:
        return None
    try:
        from supervisord_async.system.loop import new_event_loop
    except ImportError:
        return None
    new_event_loop().close()  # libuv opens a pipe for signals with its first loop and keeps it: no test's leak
    return new_event_loop


def loop_backends() -> list[Any]:
    """The parameters of ``anyio_backend``: the stock loop, and ours on uvloop where it is installed."""
    backends = [pytest.param(("asyncio", {"loop_factory": asyncio.new_event_loop}), id="asyncio")]
    if (factory := _uvloop_factory()) is not None:
        backends.append(pytest.param(("asyncio", {"loop_factory": factory}), id="uvloop"))
    return backends


@pytest.fixture(params=loop_backends())
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Tests marked ``anyio`` run on every loop that the daemon can run on."""
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """An async test is cancelled when it takes too long: what pytest-timeout raises for that in its signal's handler, uvloop only logs."""
    if iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _bounded(pyfuncitem.obj)


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*arguments: Any, **named: Any) -> None:
        with anyio.fail_after(ASYNC_TEST_SECONDS):
            await test(*arguments, **named)

    return run


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of a stranger's."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    return folder


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user can reach, and write to.

    Not below ``tmp_path``, whatever is done to its parents: every other run of pytest by this user closes their root again.
    """
    with tempfile.TemporaryDirectory(prefix="asup-open-") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test marked ``real`` that leaves a child, a descriptor or a thread behind."""
    if request.node.get_closest_marker("real") is None:
        yield
        return
    if request.node.get_closest_marker("anyio") is not None:
        request.getfixturevalue("anyio_backend")  # set up before, torn down after: its loop is no leak
    gc.collect()
    gc.freeze()  # what is there now is no test's leak: the next looks need not go through all that pytest keeps, 0.1 s each
    before = holdings()
    yield
    gc.collect()
    if found := left_behind(before):
        pytest.fail("left behind:\n  " + "\n  ".join(found), pytrace=False)
