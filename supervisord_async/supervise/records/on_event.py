"""``daemon.on_event``: commands and webhooks that are called when a program is in trouble.

Nothing waits for them. Each hook has a bounded queue of its own, and a task while the queue is not empty; an event that a webhook
does not accept is sent again after growing pauses, and dropped in the end. A hook's failure is reported once, and its recovery once.
The program's secrets are masked in what is sent, and of a webhook's URL only scheme and host are logged.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup

from supervisord_async import wire
from supervisord_async.config.model import Configuration, EventHook, Program
from supervisord_async.config.secrets import masked_text, secret_values
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, Health, State
from supervisord_async.errors import HookRefusedError, SpawnError
from supervisord_async.jsontext import iso
from supervisord_async.supervise.host import Host
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.supervise.runs.command_output import command_output
from supervisord_async.supervise.runs.run_spec import tag_of
from supervisord_async.system.spawn import SpawnSpec
from supervisord_async.system.threads import DaemonThreads

_log = logging.getLogger(__name__)

#: How many events may wait for one hook; beyond, the oldest are dropped.
QUEUE_EVENTS = 256
#: A command that takes longer is killed.
COMMAND_SECONDS = 60.0
#: The pauses between attempts at a webhook; after one more failure the event is dropped.
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
#: How many webhooks may be called at a time; each call takes a thread.
WEBHOOK_THREADS = 4


def events_of(record: Record) -> list[str]:
    """The events of ``on_event`` that a record stands for, the most specific first."""
    if record.type == "state" and record.to == State.FATAL:
        return ["restart_limit", "fatal"] if record.cause == Cause.RESTART_LIMIT else ["fatal"]
    if record.type == "state" and "failed" in record.data:
        return ["failed"]
    if record.type == "flapping" and record.to == "true":
        return ["flapping"]
    if record.type == "health" and record.to == Health.UNHEALTHY:
        return ["unhealthy"]
    return []


class EventHooks:
    """The hooks of one daemon: :meth:`on_record` listens to the bus, :meth:`run` delivers."""

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        program_of: Callable[[str], Program | None],
        host: Host,
        *,
        instance: str,
        null_fd: int,
        post: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """``program_of`` maps a process's name to its program; ``post`` sends a body to a URL, blocking."""
        self._configuration = configuration
        self._program_of = program_of
        self._host = host
        self._instance = instance
        self._null_fd = null_fd
        self._post = post or _post
        self._queues: dict[EventHook, deque[tuple[str, bytes]]] = {}
        self._troubled: set[EventHook] = set()
        self._tasks: TaskGroup | None = None
        self._idle = anyio.Event()
        self._webhooks = DaemonThreads(WEBHOOK_THREADS, "webhook")

    def on_record(self, record: Record) -> None:
        """A listener of the bus: queue ``record`` for the hooks that want it; never waits."""
        events = events_of(record)
        if not events or self._tasks is None:
            return
        for hook in self._configuration().daemon.on_event:
            event = next((event for event in events if event in hook.events), None)
            if event is not None:
                self._enqueue(hook, event, self._body(event, record))

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._queues.clear()
        async with anyio.create_task_group() as self._tasks:
            await anyio.sleep_forever()

    async def drain(self, seconds: float) -> None:
        """All events so far are delivered, or ``seconds`` have passed."""
        with anyio.move_on_after(seconds):
            while self._queues:
                self._idle = anyio.Event()
                await self._idle.wait()

    def _enqueue(self, hook: EventHook, event: str, body: bytes) -> None:
        queue = self._queues.get(hook)
        if queue is None:
            queue = self._queues[hook] = deque()
            assert self._tasks is not None  # noqa: S101  asked by on_record
            self._tasks.start_soon(self._deliver_all, hook, queue, name="on_event")
        if len(queue) >= QUEUE_EVENTS:
            queue.popleft()
            self._trouble(hook, f"too slow: more than {QUEUE_EVENTS} events wait; the oldest are dropped")
        queue.append((event, body))

    def _body(self, event: str, record: Record) -> bytes:
        program = self._program_of(record.name or "")
        configuration = self._configuration()
        told: dict[str, Any] = {
            "event": event,
            "id": record.id,
            "at": iso(record.at),
            "daemon": configuration.daemon.name,
            "host": socket.gethostname(),
            "name": record.name,
            "program": program.name if program is not None else None,
            "group": program.group if program is not None else None,
            "type": record.type,
            "from": record.from_,
            "to": record.to,
            "cause": record.cause,
            "run": record.run,
            "exit_status": record.data.get("exit", record.data.get("failed")),
            "restarts": record.data.get("restarts"),
            "message": masked_text(record.message, secret_values(program) if program is not None else ()),
        }
        return json.dumps(told, ensure_ascii=False).encode(errors="replace")

    async def _deliver_all(self, hook: EventHook, queue: deque[tuple[str, bytes]]) -> None:
        try:
            while queue:
                event, body = queue[0]
                try:
                    await (self._run_command(hook.command, event, body) if hook.command is not None else self._call(hook.url or "", body))
                except HookRefusedError as error:
                    self._trouble(hook, str(error))
                except Exception as error:
                    self._trouble(hook, repr(error))
                else:
                    if hook in self._troubled:
                        self._troubled.discard(hook)
                        _log.info("on_event %s works again", _name(hook))
                if queue and queue[0] == (event, body):
                    queue.popleft()
        finally:
            del self._queues[hook]
            self._idle.set()

    def _trouble(self, hook: EventHook, words: str) -> None:
        if hook not in self._troubled:
            self._troubled.add(hook)
            _log.warning("on_event %s: %s; further failures are not logged until it works again", _name(hook), words)

    async def _run_command(self, command: tuple[str, ...], event: str, body: bytes) -> None:
        """Run the command with the event on its stdin; raises HookRefusedError unless it exits with 0."""
        configuration = self._configuration()
        directory = os.path.dirname(configuration.file)
        record = json.loads(body)
        environment = os.environ | {
            "PWD": directory,
            wire.ENV_TAG: tag_of(self._instance, "#on_event", record["id"]),
            wire.ENV_SOCKET: configuration.daemon.socket,
            wire.ENV_NAME: record["name"] or "",
            wire.ENV_EVENT: event,
        }
        given = os.memfd_create("asup-event", os.MFD_CLOEXEC)
        try:
            os.write(given, body + b"\n")  # a whole line, for a shell's `read`, and for files to which they are appended
            os.lseek(given, 0, os.SEEK_SET)
            async with command_output(self._null_fd, None) as (writing, tail):
                spec = SpawnSpec(argv=command, directory=directory, environment=environment, stdin=given, stdout=writing, stderr=writing)
                code = await self._host.run_command(spec, COMMAND_SECONDS)
        except SpawnError as error:
            raise HookRefusedError(f"cannot be run: {error}") from error
        finally:
            os.close(given)
        if code != 0:
            said = tail.decode(errors="replace").strip()
            words = f"exited with {code}" if code is not None else f"did not end by itself within {COMMAND_SECONDS:g} s"
            raise HookRefusedError(f"{words}: {said}" if said else words)

    async def _call(self, url: str, body: bytes) -> None:
        """Post the event until the webhook accepts it; raises HookRefusedError after the last attempt."""
        for pause in (*RETRY_SECONDS, None):
            try:
                await retry_on_shortage("call a webhook", lambda: self._webhooks.run(self._post, url, body))
            except HookRefusedError as error:
                if pause is None or error.final:
                    raise HookRefusedError(f"{error}; given up") from error
                await anyio.sleep(pause)
            else:
                return


def _post(url: str, body: bytes) -> None:
    from supervisord_async.supervise.records.webhook import post_json

    post_json(url, body)


def _name(hook: EventHook) -> str:
    """The hook's name for logs; of a URL, the part that has no secrets in it."""
    if hook.command is not None:
        return hook.command[0]
    parts = urlsplit(hook.url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
