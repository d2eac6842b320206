"""The operations of the HTTP API, in an explicit table: what is not in it cannot be reached.

An operation gets the :class:`Api` and a :class:`Call`, and returns a response or raises. The OpenAPI description is made from the
same table; there is no second list.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from supervisord_async import __version__
from supervisord_async.control import answers, logs
from supervisord_async.control.commands import Outcome
from supervisord_async.control.goal import is_ready
from supervisord_async.control.message import Response, problem_response
from supervisord_async.control.operation import Api, Call, Operation, Parameter
from supervisord_async.control.problems import problem_json
from supervisord_async.control.stream import Stream
from supervisord_async.control.view import ProcessView, event_view
from supervisord_async.control.why import Why
from supervisord_async.errors import BusyError, FailedError, NotFoundError, UsageError
from supervisord_async.jsontext import iso, json_bytes
from supervisord_async.supervise.fleet.exit_when import has_failed
from supervisord_async.system.threads import in_thread
from supervisord_async.wire import API_VERSION
from supervisord_async.words import listed

TEXT = "text/plain; charset=utf-8"


def reply(value: Any, status: int = 200) -> Response:
    """``value`` as JSON."""
    return Response(json_bytes(value), status, "application/json")


def outcome_reply(outcome: Outcome, accepted: int = 200) -> Response:
    """The results; if not all are ok, as a problem document."""
    error = outcome.error
    if error is None:
        return reply(answers.Results(results=outcome.results), accepted)
    return problem_response(error, results=outcome.results, timed_out=outcome.timed_out)


# Queries


async def list_processes(api: Api, call: Call) -> Response:
    """The list of ``asupctl status --json``."""
    found = await api.commands.status_json(call.parameters.words("name"), figures=call.parameters.flag("figures", True))
    return Response(found, media="application/json")


async def get_process(api: Api, call: Call) -> Response:
    """The same object for one process."""
    return reply(await api.commands.status_of(call.path["name"]))


async def why_process(api: Api, call: Call) -> Response:
    """The explanation of its present state."""
    return reply(await api.commands.why(call.path["name"]))


async def process_history(api: Api, call: Call) -> Response:
    """Its runs, newest first."""
    name = call.path["name"]
    runs = await api.commands.history(name, call.parameters.count("limit", 50, least=1, most=10_000))
    store = api.commands.history_store
    totals = await store.totals(name) if store is not None else {}
    return reply(answers.HistoryAnswer(name=name, restarts_total=sum(totals.values()), restarts_by_cause=totals, runs=runs))


async def process_logs(api: Api, call: Call) -> Response | Stream:
    """What it printed: the last lines, or a stream."""
    parameters = call.parameters
    stream = parameters.text("stream") or "stdout"
    if stream not in ("stdout", "stderr"):
        raise UsageError(f"stream: expected stdout or stderr, found {stream!r}")
    name = call.path["name"]
    source = logs.source_of(api.commands.process(name), stream)

    def moved() -> bool:
        try:
            return logs.source_of(api.commands.process(name), stream).path != source.path
        except (NotFoundError, FailedError):
            return True

    lines, since, follow = parameters.count("lines", 100), parameters.at("since"), parameters.flag("follow", False)
    if not follow:
        return Response(await logs.last(source, lines, since), media=TEXT, headers=source.headers)
    return Stream(api.streams, lambda send: logs.follow(source, lines, since, send, moved), TEXT, source.headers)


async def list_dependencies(api: Api, _call: Call) -> Response:
    """What each program depends on."""
    programs = api.commands.supervisor.configuration.programs.values()
    return reply(answers.Dependencies(programs=[answers.Needs(name=one.name, depends_on=dict(one.depends_on)) for one in programs]))


async def stream_events(api: Api, call: Call) -> Response | Stream:
    """Events, as a stream or as a list of past ones."""
    parameters = call.parameters
    after = call.headers.one("last-event-id") or parameters.text("after")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 16):
        raise UsageError(f"Last-Event-ID: expected an event's number, found {after!r}")
    chosen = api.chosen(parameters.words("name"), parameters.words("type"))
    position, last = int(after) if after is not None else None, parameters.count("limit", 100, most=10_000)
    if not parameters.flag("follow", True):
        past = await api.events.past(chosen, after=position, last=last)
        return reply(answers.EventsAnswer(events=[event_view(record) for record in past]))
    return Stream(api.streams, partial(api.events.follow, chosen=chosen, after=position), "text/event-stream; charset=utf-8")


async def get_config(api: Api, call: Call) -> Response:
    """The effective configuration."""
    return reply(await api.commands.configuration(call.parameters.text("name")))


async def get_health(api: Api, _call: Call) -> Response:
    """The daemon's own state."""
    supervisor, store = api.commands.supervisor, api.commands.history_store
    return reply(
        answers.Health(
            name=supervisor.configuration.daemon.name,
            version=__version__,
            api=API_VERSION,
            pid=os.getpid(),
            started_at=iso(supervisor.started_at),
            uptime_seconds=round(supervisor.uptime_seconds, 3),
            shutting_down=supervisor.shutting_down,
            file=supervisor.configuration.file,
            run_dir=supervisor.configuration.daemon.run_dir,
            refused=[problem_json(problem) for problem in supervisor.refused],
            processes=len(supervisor.processes),
            failed=[process.name for process in supervisor.processes.values() if has_failed(process)],
            last_event_id=supervisor.bus.last_id,
            http_trouble=api.http_trouble,
            history_trouble=store.trouble if store is not None else None,
            history_dropped=store.dropped if store is not None else 0,
        )
    )


async def get_ready(api: Api, _call: Call) -> Response:
    """200 if every autostart program is ready, else 503."""
    supervisor = api.commands.supervisor
    if supervisor.shutting_down:
        raise BusyError("the daemon is shutting down")
    waiting = [process.name for process in supervisor.processes.values() if process.program.autostart and not is_ready(process)]
    if not waiting:
        return reply(answers.Ready(ready=True, not_ready=[]))
    return problem_response(BusyError(f"not ready: {listed(waiting, 10)}"), ready=False, not_ready=waiting)


async def get_metrics(api: Api, _call: Call) -> Response:
    """Prometheus text."""
    if api.metrics is None:
        await in_thread(importlib.import_module, "supervisord_async.control.metrics")  # it takes some 30 ms
        from supervisord_async.control.metrics import Metrics

        api.metrics = Metrics(api.commands, api.streams, api.counters)
    body, media = await api.metrics.exposition()
    return Response(body, media=media)


async def get_description(api: Api, _call: Call) -> Response:
    """The OpenAPI description, made at the first request."""
    if api.description is None:
        from supervisord_async.control.openapi import describe

        api.description = msgspec.json.encode(describe(OPERATIONS))
    return Response(api.description, media="application/json")


async def page_address(api: Api, _call: Call) -> Response:
    """The page's address, with its token."""
    if api.http_trouble is not None:
        raise FailedError(f"there is no page: {api.http_trouble}; fix that, then `asupctl reexec`")
    if api.page_url is None:
        how = "set daemon.http, e.g. to 127.0.0.1:9001; it takes effect with `asupctl reexec`"
        raise FailedError(f"there is no page: the daemon does not answer over TCP ({how})")
    return reply(answers.Page(url=api.page_url))


# Actions


async def _act(call: Call, action: Callable[..., Awaitable[Outcome]]) -> Response:
    wait = call.parameters.flag("wait", True)
    outcome = await action(wait=wait, timeout=call.parameters.seconds("timeout"), by=call.by)
    return outcome_reply(outcome, 200 if wait else 202)


async def start_process(api: Api, call: Call) -> Response:
    """The selected processes are started."""
    return await _act(call, partial(api.commands.start, call.selectors))


async def stop_process(api: Api, call: Call) -> Response:
    """The selected processes are stopped."""
    return await _act(call, partial(api.commands.stop, call.selectors))


async def restart_process(api: Api, call: Call) -> Response:
    """The selected processes are restarted."""
    return await _act(call, partial(api.commands.restart, call.selectors))


async def signal_process(api: Api, call: Call) -> Response:
    """A signal was sent to the selected processes."""
    return outcome_reply(await api.commands.signal(call.selectors, call.parameters.signum("signal")))


async def scale_process(api: Api, call: Call) -> Response:
    """The program has another number of replicas."""
    replicas = call.parameters.count("replicas", None, most=10_000)
    return await _act(call, partial(api.commands.scale, call.path["name"], replicas))


async def wait_process(api: Api, call: Call) -> Response:
    """The selected processes have reached a state; nothing was done to bring that about."""
    for_, timeout = call.parameters.text("for") or "ready", call.parameters.seconds("timeout")
    return outcome_reply(await api.commands.wait(call.selectors, for_, timeout=timeout))


async def reload_config(api: Api, call: Call) -> Response:
    """The file is applied; or, with ``plan``, only the plan is returned."""
    if call.parameters.flag("plan", False):
        plan = await api.commands.plan()
        return reply(answers.Reload(applied=False, lines=list(plan.describe()), plan=plan.to_json(), results=[]))
    wait = call.parameters.flag("wait", True)
    plan, outcome = await api.commands.reload(wait=wait, timeout=call.parameters.seconds("timeout"), by=call.by)
    done = answers.Reload(applied=True, lines=list(plan.describe()), plan=plan.to_json(), results=outcome.results)
    if outcome.error is None:
        return reply(done, 200 if wait else 202)
    return problem_response(outcome.error, **msgspec.structs.asdict(done), timed_out=outcome.timed_out)


async def reexec_daemon(api: Api, _call: Call) -> Response:
    """The daemon will replace itself in place."""
    await api.commands.reexec()
    return reply(answers.Accepted(accepted=True), 202)


async def shutdown_daemon(api: Api, call: Call) -> Response:
    """The daemon will stop everything and end."""
    api.commands.shutdown(call.by)
    return reply(answers.Accepted(accepted=True), 202)


async def reopen_logs(api: Api, _call: Call) -> Response:
    """Every log is reopened at its path."""
    api.commands.reopen_logs()
    return reply(answers.Accepted(accepted=True), 202)


_WAITING = (
    Parameter("wait", "boolean", "false: answer 202 at once instead of with the result"),
    Parameter("timeout", "duration", "how long to wait for the result"),
)
_ACTION: dict[str, Any] = {"answer": answers.Results, "parameters": _WAITING, "statuses": (202, 404, 409, 503, 504), "until_gone": True}
_SELECTOR = "/v1/processes/{selector}"
_NAME = "/v1/processes/{name}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET",
        "/v1/processes",
        list_processes,
        "All processes",
        answer=list[ProcessView],
        parameters=(
            Parameter("name", "selectors", "only those that these selectors name"),
            Parameter("figures", "boolean", "false: without CPU and memory"),
        ),
        statuses=(404,),
    ),
    Operation("GET", _NAME, get_process, "One process", answer=ProcessView, statuses=(404,)),
    Operation("GET", "/v1/dependencies", list_dependencies, "Which programs depend on which", answer=answers.Dependencies),
    Operation("POST", f"{_SELECTOR}/start", start_process, "Start, and wait until RUNNING", **_ACTION),
    Operation("POST", f"{_SELECTOR}/stop", stop_process, "Stop, and wait until STOPPED", **_ACTION),
    Operation("POST", f"{_SELECTOR}/restart", restart_process, "Restart, and wait until a newer run is RUNNING", **_ACTION),
    Operation(
        "POST",
        f"{_SELECTOR}/signal",
        signal_process,
        "Send a signal to the main process",
        answer=answers.Results,
        parameters=(Parameter("signal", "signal", "its name or number"),),
        statuses=(404, 409, 503),
        required=("signal",),
    ),
    Operation(
        "POST",
        f"{_NAME}/scale",
        scale_process,
        "Change the number of replicas",
        answer=answers.Results,
        parameters=(Parameter("replicas", "replicas", "how many"), *_WAITING),
        statuses=(202, 404, 409, 503, 504),
        required=("replicas",),
        until_gone=True,
    ),
    Operation(
        "POST",
        f"{_SELECTOR}/wait",
        wait_process,
        "Wait until processes have reached a state, without asking anything of them",
        answer=answers.Results,
        parameters=(Parameter("for", "wait_for", "what to wait for"), Parameter("timeout", "duration", "how long")),
        statuses=(404, 409, 503, 504),
        until_gone=True,
    ),
    Operation("GET", f"{_NAME}/why", why_process, "Why it is in its state", answer=Why, statuses=(404,)),
    Operation(
        "GET",
        f"{_NAME}/history",
        process_history,
        "Its runs, newest first",
        answer=answers.HistoryAnswer,
        parameters=(Parameter("limit", "limit", "how many"),),
        statuses=(404, 503),
    ),
    Operation(
        "GET",
        f"{_NAME}/logs",
        process_logs,
        "What it printed",
        media="text/plain",
        parameters=(
            Parameter("lines", "count", "how many from the end, 100 without"),
            Parameter("stream", "stream", "stdout or stderr"),
            Parameter("since", "moment", "nothing older, as far as the log's format tells"),
            Parameter("follow", "boolean", "go on with what it prints"),
        ),
        statuses=(404, 409, 503),
    ),
    Operation(
        "GET",
        "/v1/events",
        stream_events,
        "Changes, as server-sent events",
        media="text/event-stream",
        parameters=(
            Parameter("after", "event_id", "resume behind this number, as Last-Event-ID does"),
            Parameter("name", "selectors", "only of those that these selectors name"),
            Parameter("type", "types", "only of these types"),
            Parameter("follow", "boolean", "false: not a stream but what is past, as JSON"),
            Parameter("limit", "limit", "how many past ones at most, 100 without; of follow=false"),
        ),
        statuses=(404, 503),
    ),
    Operation(
        "GET",
        "/v1/config",
        get_config,
        "The effective configuration, secrets masked",
        answer=dict[str, Any],
        parameters=(Parameter("name", "name", "of this program alone"),),
        statuses=(404,),
    ),
    Operation(
        "POST",
        "/v1/reload",
        reload_config,
        "Apply the configuration file and wait until what that touched has settled, or say what it would do",
        answer=answers.Reload,
        parameters=(Parameter("plan", "boolean", "true: only say what it would do"), *_WAITING),
        statuses=(202, 409, 422, 503, 504),
    ),
    Operation("POST", "/v1/reexec", reexec_daemon, "Replace the daemon in place", answer=answers.Accepted, statuses=(202, 409, 503)),
    Operation("POST", "/v1/shutdown", shutdown_daemon, "Stop everything and end the daemon", answer=answers.Accepted, statuses=(202,)),
    Operation("POST", "/v1/reopen", reopen_logs, "Reopen all logs", answer=answers.Accepted, statuses=(202,)),
    Operation("GET", "/v1/health", get_health, "The daemon's own life", answer=answers.Health),
    Operation("GET", "/v1/ready", get_ready, "Whether all autostart programs are ready", answer=answers.Ready, statuses=(503,)),
    Operation("GET", "/v1/web", page_address, "The page's address, with its token", answer=answers.Page, statuses=(409,)),
    Operation("GET", "/metrics", get_metrics, "Prometheus text", media="text/plain"),
    Operation("GET", "/v1/openapi.json", get_description, "This description", answer=dict[str, Any]),
)
