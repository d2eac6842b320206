"""Restarts the process from scratch when its source changes, and carries its state over.

On a change: check that the changed sources compile, wait ``restart_delay`` for further changes, shut the components down,
save the state, and replace the process by a new one with the same PID (``os.execve``) and ``--restart``. Nothing of the old
process survives: no thread, no object, and only inheritable descriptors. ``atexit`` functions do not run; register what has
to be cleaned up as a component.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import cache_from_source
from typing import Any, Final, Self

from supervisord_async.app.shutdown import GracefulShutdownManager, PreparedCall
from supervisord_async.app.state import ENV_FRESH_START, StateSerializer, get_state_serializer
from supervisord_async.app.watcher import FileChangeWatcher

log = logging.getLogger(__name__)

RESTART_FLAG: Final = "--restart"
#: ``PID:TIME:CAUGHT``: when this process was replaced (ns since 1970), and whether that was to catch up with a late change.
_ENV_REPLACED: Final = "ASUP_APP_REPLACED"
#: How long saving the state may take before the restart goes on without it.
SAVE_TIMEOUT_SECONDS: Final = 60.0
#: The exit code of a process that has been shut down but cannot be replaced; EX_OSERR of sysexits.h.
EXIT_CANNOT_REPLACE: Final = 71


class ProcessRestarter:
    """Watches sources and replaces the process when they change, or on request."""

    def __init__(
        self,
        watch_paths: Iterable[str | os.PathLike[str]],
        shutdown_timeout: float = 10.0,
        restart_delay: float = 1.0,
        *,
        ignore_patterns: Iterable[str] = (),
        include_patterns: Iterable[str] = (),
        poll_interval: float = 0.5,
        require_state: bool = False,
        state_serializer: StateSerializer | None = None,
        shutdown_manager: GracefulShutdownManager | None = None,
    ) -> None:
        """Restart after changes of ``watch_paths``, ``restart_delay`` seconds (0 or more) after the last of them.

        The whole shutdown takes at most ``shutdown_timeout`` seconds. With ``require_state`` there is no restart unless the
        state can be saved: it is saved a first time while everything still runs, and the components are shut down only if
        that worked. Patterns are FileChangeWatcher's; the state's own files and the heartbeat's are ignored.
        """
        if restart_delay < 0:
            raise ValueError(f"restart_delay must not be negative, but is {restart_delay}")
        self.restart_delay = restart_delay
        self.require_state = require_state
        self.serializer = state_serializer or get_state_serializer()
        self.shutdown_manager = shutdown_manager or GracefulShutdownManager(shutdown_timeout)
        own_files = (f"{self.serializer.path.name}*", f".{self.serializer.path.name}*", *_heartbeat_names())
        self.watcher = FileChangeWatcher(watch_paths, (*ignore_patterns, *own_files), poll_interval, include_patterns=include_patterns)
        self.watcher.set_change_callback(self._on_change)
        self.save_state_callback: Callable[[], Any] | None = None
        self.load_state_callback: Callable[..., Any] | None = None
        self.restart_command: list[str] = _same_command()
        self._directory = os.getcwd()
        self._signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self._broken: dict[str, str] = {}
        self._lock = threading.Lock()
        self._changed_at = 0.0
        self._changed: set[str] = set()
        self._watching = False
        self._pending: threading.Thread | None = None
        self._cancelled = threading.Event()

    def set_callbacks(
        self,
        save_state_callback: Callable[[], Any] | None = None,
        load_state_callback: Callable[..., Any] | None = None,
        restart_command: Sequence[str] | None = None,
    ) -> None:
        """Set the functions that save and restore the state, and the command of the new process.

        ``save_state_callback()`` has failed if it returns False or raises. ``load_state_callback`` takes either no
        argument, and loads the state itself, or the loaded dictionary. ``restart_command`` is the present command by
        default; ``--restart`` is added once.
        """
        self.save_state_callback = save_state_callback
        self.load_state_callback = load_state_callback
        self.restart_command = _with_flag(_same_command() if restart_command is None else restart_command)

    def register_component(
        self,
        component_name: str,
        shutdown_func: Callable[[], Any],
        join_func: Callable[[], Any] | None = None,
        timeout: float = 5.0,
    ) -> None:
        """As GracefulShutdownManager.register_component; components are stopped before the state is saved."""
        self.shutdown_manager.register_component(component_name, shutdown_func, join_func, timeout)

    def start(self) -> None:
        """From now on changes lead to restarts. In a restarted process the state is restored first, unless it was already."""
        if self.load_state_callback is not None and is_restart() and not self.serializer.loaded:
            self.load_state()
        replaced = _take_replaced()
        self._watching = True
        self._cancelled.clear()
        self.watcher.start()
        if replaced is not None:
            self._catch_up(replaced)

    def stop(self) -> None:
        """Changes no longer lead to restarts; a restart that is already shutting components down goes on."""
        self._watching = False
        self._cancelled.set()
        self.watcher.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def load_state(self) -> bool:
        """``load_state_callback`` has restored the state; if it takes the dictionary, the state's file was removed.

        Returns False, with a warning and never an exception, if there is no state or the callback failed: a fresh start.
        """
        callback = self.load_state_callback
        if callback is None:
            return False
        source = ""
        try:
            if not _takes_state(callback):
                taken = callback() is not False
            else:
                source = f" from {self.serializer.path}"
                state = self.serializer.load_restart_state()
                taken = state is not None and callback(state) is not False
                if taken:
                    self.serializer.cleanup_restart_state()
        except Exception:
            log.exception("cannot take up the saved state")
            taken = False
        if not taken:
            log.warning("no saved state was taken up%s: starting fresh", source)
        return taken

    def request_restart(self, reason: str = "requested") -> bool:
        """A restart has begun, in its own thread and without the delay; False if one is under way already, or is not possible.

        It is not possible while a changed source does not compile, if the command does not exist, or if no thread can be started.
        """
        if self._broken:
            log.error("not restarting (%s): %s", reason, "; ".join(self._broken.values()))
            return False
        if _executable(self.restart_command, self._directory) is None:
            log.error("not restarting (%s): cannot find %s", reason, self.restart_command[0])
            return False
        return self._begin(reason, 0.0)

    # The steps of a restart

    def _on_change(self, changed: list[str], *, caught_up: bool = False) -> None:
        self._changed_at = time.monotonic()
        self._changed.update(changed)
        self._check(changed)
        if self._broken:
            log.error("not restarting, waiting for the next change: %s", "; ".join(self._broken.values()))
            return
        if self._watching:
            self._begin(f"changed: {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''}", self.restart_delay, caught_up=caught_up)

    def _check(self, changed: Iterable[str]) -> None:
        """``_broken`` has those of the ``changed`` and of the formerly broken sources that do not compile."""
        for path in {*changed, *self._broken}:
            complaint = _complaint(path)
            if complaint is None:
                self._broken.pop(path, None)
            else:
                self._broken[path] = complaint

    def _begin(self, reason: str, delay: float, *, caught_up: bool = False) -> bool:
        with self._lock:
            if self._pending is not None and self._pending.is_alive():
                return False
            # A thread that only waits for the delay is a daemon; the restart itself must outlive the main thread, which may end
            # when the components have stopped.
            thread = threading.Thread(target=self._restart, args=(reason, delay, caught_up), name="restart", daemon=delay > 0)
            return self._go_on_in(thread, reason)

    def _go_on_in(self, thread: threading.Thread, reason: str) -> bool:
        """The restart goes on in ``thread``; False if that cannot be started: at a limit, or when the interpreter is ending."""
        self._pending = thread
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("not restarting (%s): %s", reason, error)
            return False
        return True

    def _restart(self, reason: str, delay: float, caught_up: bool) -> None:
        if delay > 0:
            self._wait_until_quiet(delay)
            if self._cancelled.is_set() or self._broken:
                return
            with self._lock:
                # Until here this was a daemon thread, so that waiting did not keep a finished program from ending.
                self._go_on_in(threading.Thread(target=self._replace, args=(reason, caught_up), name="restart", daemon=False), reason)
            return
        self._replace(reason, caught_up)

    def _wait_until_quiet(self, delay: float) -> None:
        while not self._cancelled.is_set():
            left = self._changed_at + delay - time.monotonic()
            if left <= 0:
                return
            self._cancelled.wait(left)

    def _replace(self, reason: str, caught_up: bool) -> None:
        """The process has been replaced; returns only if that is not possible, with everything as it was."""
        executable = _executable(self.restart_command, self._directory)
        if executable is None:
            log.error("not restarting (%s): cannot find %s", reason, self.restart_command[0])
            return
        log.warning("restarting: %s", reason)
        saved_before = False
        if self.require_state:
            saved_before = _Saving(self.save_state_callback).run(SAVE_TIMEOUT_SECONDS)
            if not saved_before:
                log.error("not restarting (%s): the state cannot be saved, and require_state is set", reason)
                return
        saving = _Saving(self.save_state_callback)
        if not self.shutdown_manager.initiate_shutdown():
            log.error("restarting although not every component stopped cleanly")
        saved = saving.run(SAVE_TIMEOUT_SECONDS)
        if not saved and saved_before:
            log.error("restarting with the state from just before the shutdown")
        elif not saved:
            log.error("restarting without saved state: the new process starts fresh")
        self._execute(executable, saved or saved_before, caught_up)

    def _execute(self, executable: str, saved: bool, caught_up: bool) -> None:
        """Become the new process. If that fails, end this one, since its components are already stopped."""
        environ = dict(os.environ)
        environ.pop(ENV_FRESH_START, None)
        if not saved:
            environ[ENV_FRESH_START] = str(os.getpid())
        environ[_ENV_REPLACED] = f"{os.getpid()}:{time.time_ns()}:{int(caught_up)}"
        _forget_bytecode(self._changed)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        for handler in logging.getLogger().handlers:
            with contextlib.suppress(Exception):
                handler.flush()
        try:
            with contextlib.suppress(OSError):
                os.chdir(self._directory)
            # The new process inherits this thread's signal mask.
            signal.pthread_sigmask(signal.SIG_SETMASK, self._signal_mask)
            os.execve(executable, self.restart_command, environ)  # noqa: S606 - the program's own command
        except OSError as error:
            log.critical("cannot run %s: %s; ending with code %d", executable, error, EXIT_CANNOT_REPLACE)
            os._exit(EXIT_CANNOT_REPLACE)

    def _catch_up(self, replaced: tuple[int, bool]) -> None:
        """A source that changed between the replacement and the start of the watching may have been imported before: restart again."""
        at, was_catching_up = replaced
        if was_catching_up:
            return
        late = []
        for path in _loaded_sources():
            with contextlib.suppress(OSError):
                if self.watcher.covers(path) and os.stat(path).st_mtime_ns > at:
                    late.append(path)
        if late:
            self._on_change(sorted(late), caught_up=True)


class _Saving:
    """A call of the callback that saves the state, in a thread that is started now."""

    def __init__(self, callback: Callable[[], Any] | None) -> None:
        self._saved = False
        self._call = PreparedCall(partial(self._save, callback), "save-state") if callback is not None else None

    def run(self, seconds: float) -> bool:
        """Whether the callback saved the state within ``seconds``; True without a callback, as the program then saves it itself."""
        if self._call is None:
            return True
        if not self._call.run(seconds):
            log.error("saving the state takes more than %g s", seconds)
            return False
        return self._saved

    def _save(self, callback: Callable[[], Any]) -> None:
        try:
            self._saved = callback() is not False
        except BaseException:
            log.exception("saving the state failed")


def _loaded_sources() -> set[str]:
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {os.path.abspath(file) for file in files if isinstance(file, str) and file.endswith(".py")}


def _forget_bytecode(paths: Iterable[str]) -> None:
    """The sources will be compiled again. An import only compares whole seconds and the size, so it may miss a quick second save."""
    for path in list(paths):
        if path.endswith(".py"):
            with contextlib.suppress(OSError, NotImplementedError):
                os.unlink(cache_from_source(path))


def _complaint(path: str) -> str | None:
    """Why the source cannot be compiled; None if it can, if it is gone, or if it is not a Python source."""
    if not path.endswith((".py", ".pyw")):
        return None
    try:
        with open(path, "rb") as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except FileNotFoundError:
        return None
    except SyntaxError as error:
        return f"{path}:{error.lineno or 0}: {error.msg}"
    except Exception as error:  # null bytes, unreadable, nested too deep
        return f"{path}: {type(error).__name__}: {error}"
    return None


def _takes_state(callback: Callable[..., Any]) -> bool:
    """Whether the callback takes the loaded state as its argument."""
    try:
        signature = inspect.signature(callback)
        signature.bind({})
    except (TypeError, ValueError):
        return False
    return True


def _same_command() -> list[str]:
    """The command that started this process, with the same interpreter and ``--restart``."""
    return _with_flag([sys.executable or sys.orig_argv[0], *sys.orig_argv[1:]])


def _with_flag(command: Sequence[str]) -> list[str]:
    """``command`` with ``--restart`` exactly once, at the end. Raises ValueError for an empty one."""
    if not command:
        raise ValueError("restart_command is empty")
    return [*(str(word) for word in command if word != RESTART_FLAG), RESTART_FLAG]


def _executable(command: Sequence[str], directory: str) -> str | None:
    """The path of the executable that ``command`` names; None if there is none."""
    name = command[0]
    if os.sep in name:
        name = os.path.join(directory, name)
    return shutil.which(name)


def _heartbeat_names() -> list[str]:
    path = os.environ.get("ASUP_HEARTBEAT_FILE")
    return ["heartbeat.txt", *([os.path.basename(path)] if path else [])]


def _take_replaced() -> tuple[int, bool] | None:
    """When this process was replaced, and whether that was to catch up; None if it was not, or at a second call."""
    try:
        pid, at, caught_up = (int(part) for part in os.environ.pop(_ENV_REPLACED, "").split(":"))
    except ValueError:
        return None
    return (at, bool(caught_up)) if pid == os.getpid() else None


def is_restart(argv: Sequence[str] | None = None) -> bool:
    """Whether this process continues an earlier one: it has ``--restart``, or is a later run under a supervisor.

    ``argv`` is ``sys.argv`` by default. Under a supervisor, ASUP_RUN is above 1 for a later run.
    """
    if RESTART_FLAG in (sys.argv if argv is None else argv):
        return True
    try:
        return int(os.environ.get("ASUP_RUN", "0")) > 1
    except ValueError:
        return False


def load_restart_state_if_available(serializer: StateSerializer | None = None) -> dict[str, Any] | None:
    """The saved state, if this is a restart and there is a sound one. Its file is then removed, so that it is used only once."""
    if not is_restart():
        return None
    serializer = serializer or get_state_serializer()
    state = serializer.load_restart_state()
    if state is not None:
        serializer.cleanup_restart_state()
    return state


class _Shared:
    """The program's one restarter."""

    lock = threading.Lock()
    restarter: ProcessRestarter | None = None


def get_process_restarter(watch_paths: Iterable[str | os.PathLike[str]] | None = None, **options: Any) -> ProcessRestarter:
    """The program's one ProcessRestarter, created at the first call with these arguments.

    Without ``watch_paths`` it watches the Python files in the main script's directory and below. Raises ValueError
    for arguments at a later call, which would have no effect.
    """
    with _Shared.lock:
        if _Shared.restarter is None:
            if watch_paths is None:
                main = getattr(sys.modules.get("__main__"), "__file__", None)
                watch_paths = [os.path.dirname(os.path.abspath(main)) if main else os.getcwd()]
                options.setdefault("include_patterns", ("*.py",))
            _Shared.restarter = ProcessRestarter(watch_paths, **options)
        elif watch_paths is not None or options:
            raise ValueError("the program's ProcessRestarter exists already: get it without arguments")
        return _Shared.restarter
