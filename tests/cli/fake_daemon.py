"""A daemon that is none: the standard library's HTTP server on a unix socket, answering the contract from a dictionary.

It keeps real enough state for tests of the client and of asupctl: actions change the processes' states, streams stay open
until they are ended, every request is remembered.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from supervisord_async.errors import NotFoundError
from tests.cli.selecting import select

Document = dict[str, Any]


def process(name: str, state: str = "RUNNING", **fields: Any) -> Document:
    """A status object with every key of the contract."""
    running = state in ("RUNNING", "STARTING", "STOPPING")
    document: Document = {
        "name": name, "program": name.partition(":")[0], "group": name.partition(":")[0], "state": state, "health": "none",
        "pid": 4242 if running else None, "run": 1, "uptime_seconds": 12.5 if running else None, "restarts": 0, "flapping": False,
        "exit_status": None, "cause": "autostart", "next_at": None, "description": "", "cpu_percent": None, "memory_bytes": None,
    }  # fmt: skip
    return document | fields


class RefusalError(Exception):
    """Answered as a problem document."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"type": "about:blank", "title": "no", "status": status, "detail": detail, **more}


class FakeDaemon:
    """Serves on ``socket_path`` from ``start`` to ``stop``; a second ``start`` serves there again."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.processes: dict[str, Document] = {}
        self.health: Document = {
            "status": "ok",
            "pid": 2**22 + 1,
            "version": "9.9",
            "started_at": "2026-11-20T12:00:00.000Z",
            "uptime_seconds": 60.0,
            "file": None,
            "refused": [],
            "failed": [],
        }
        self.logs: dict[tuple[str, str], list[bytes]] = {}
        self.log_formats: dict[str, str] = {}  # raw where nothing is said
        self.shared_stderr: set[str] = set()  # names whose standard error goes to standard output's log
        self.events: list[Document] = []
        self.answers: dict[str, Any] = {}  # "POST /v1/reload" → document, RefusalError, or a function of (query, body)
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.failing: dict[str, str] = {}  # process name → message of the action that fails
        self.late: set[str] = set()
        self.news = threading.Condition()
        self.generation = 0  # raised by end_streams: those that are open end
        self.stopping = False
        self._server: _Server | None = None

    def add(self, *documents: Document) -> None:
        self.processes.update({document["name"]: document for document in documents})

    def start(self) -> FakeDaemon:
        self.socket_path.unlink(missing_ok=True)
        self.stopping = False
        self._server = _Server(str(self.socket_path), _Conversation)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._thread.join()
        with self.news:
            self.stopping = True  # also for a stream that is just about to begin
            self.news.notify_all()
        self._server.server_close()  # joins the conversations
        self._server = None
        self.socket_path.unlink(missing_ok=True)

    def end_streams(self) -> None:
        """Open streams end, the daemon stays."""
        with self.news:
            self.generation += 1
            self.news.notify_all()

    def log(self, name: str, *lines: str | bytes, stream: str = "stdout") -> None:
        with self.news:
            raw = [line.encode() if isinstance(line, str) else line for line in lines]
            self.logs.setdefault((name, stream), []).extend(raw)
            self.news.notify_all()

    def event(self, **fields: Any) -> None:
        with self.news:
            self.events.append({"id": len(self.events) + 1, "at": "2026-11-21T12:00:00.000Z", "message": "", "data": {}, **fields})
            self.news.notify_all()

    def asked(self, method: str, path: str) -> list[tuple[dict[str, str], Any]]:
        """Query and body of every request for that path."""
        return [(query, body) for a_method, a_path, query, body in self.requests if (a_method, a_path) == (method, path)]

    def selected(self, selectors: str) -> list[Document]:
        try:
            return select(list(self.processes.values()), selectors.split(","))
        except NotFoundError as error:
            raise RefusalError(404, str(error), kind="not_found") from error

    def act(self, action: str, selectors: str, query: dict[str, str], body: Any) -> tuple[int, Document]:
        becomes = {"start": "RUNNING", "restart": "RUNNING", "stop": "STOPPED"}
        results = []
        for one in self.selected(selectors):
            name = one["name"]
            if name in self.failing or name in self.late:
                message = self.failing.get(name, "not there in time")
                results.append({"name": name, "ok": False, "state": one["state"], "cause": one["cause"], "message": message})
                continue
            if action in becomes:
                one.update(process(name, becomes[action], cause="operator", run=one["run"] + (action != "stop")))
            words = f"sent {body['signal']}" if action == "signal" else f"{action} done"
            results.append({"name": name, "ok": True, "state": one["state"], "cause": "operator", "message": words})
        late = [result["name"] for result in results if result["name"] in self.late]
        status = 202 if query.get("wait") == "false" else 200
        if any(not result["ok"] for result in results):
            status = 504 if len(late) == sum(not result["ok"] for result in results) else 409
            return status, {"type": "about:blank", "status": status, "detail": "no", "results": results, "timed_out": late}
        return status, {"results": results}


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64
    fake: FakeDaemon


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 5  # an idle kept connection does not hold stop() up for longer

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, how: Callable[[FakeDaemon, str, dict[str, str], Any], Any]) -> None:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        fake = self.server.fake
        with fake.news:
            fake.requests.append((self.command, parts.path, query, body))
            fake.news.notify_all()
        try:
            given = fake.answers.get(f"{self.command} {parts.path}")
            if callable(given):
                given = given(query, body)
            if isinstance(given, RefusalError):
                raise given
            found = (200, given) if given is not None else how(fake, parts.path, query, body)
        except RefusalError as problem:
            found = (problem.status, problem.document)
        if found is not None:
            status, document = found
            kind = "application/problem+json" if status >= 400 else "application/json"
            self._send(status, kind, document if isinstance(document, bytes) else json.dumps(document).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def _get(self, fake: FakeDaemon, path: str, query: dict[str, str], _: Any) -> tuple[int, Any] | None:
        match path.split("/")[2:]:
            case ["processes"]:
                return 200, fake.selected(query.get("name", "all"))
            case ["health"]:
                return 200, fake.health
            case ["events"] if query.get("follow") == "false":
                return 200, fake.events[-int(query.get("limit", 100)) :]
            case ["events"]:
                self._stream_events(fake)
                return None
            case ["processes", name, "logs"]:
                self._stream_log(fake, unquote(name), query)
                return None
            case ["processes", name]:
                return 200, fake.selected(unquote(name))[0]
        raise RefusalError(404, f"nothing at {path}", kind="not_found")

    def _post(self, fake: FakeDaemon, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        match path.split("/")[2:]:
            case ["processes", selectors, action]:
                return fake.act(action, unquote(selectors), query, body)
            case ["reexec" | "shutdown"]:
                return 202, {"message": "will do"}
        raise RefusalError(404, f"nothing at {path}", kind="not_found")

    def _begin(self, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _stream(self, fake: FakeDaemon, rest: Callable[[int], list[bytes]], position: int) -> None:
        """What ``rest(position)`` gives is sent as it comes, until streams are ended or the reader is gone."""
        generation = fake.generation
        try:
            while True:
                with fake.news:
                    while not (over := fake.stopping or fake.generation != generation) and not rest(position) and fake.news.wait(30):
                        pass
                    fresh = rest(position)
                for piece in fresh:
                    self._chunk(piece)
                position += len(fresh)
                if over:
                    self._chunk(b"")
                    return
        except (BrokenPipeError, ConnectionResetError):
            return

    def _stream_log(self, fake: FakeDaemon, name: str, query: dict[str, str]) -> None:
        fake.selected(name)
        stream = "stdout" if name in fake.shared_stderr else query.get("stream", "stdout")
        lines = fake.logs.setdefault((name, stream), [])
        start = max(0, len(lines) - int(query.get("lines", 100)))
        self._begin("text/plain", {"asup-log-format": fake.log_formats.get(name, "raw"), "asup-log-stream": stream})
        if query.get("follow") != "true":
            for line in lines[start:]:
                self._chunk(line + b"\n")
            self._chunk(b"")
            return
        self._stream(fake, lambda at: [line + b"\n" for line in lines[at:]], start)

    def _stream_events(self, fake: FakeDaemon) -> None:
        self._begin("text/event-stream")
        self._chunk(b": hello\n\n")
        last = self.headers.get("Last-Event-ID")
        start = len(fake.events) if last is None else int(last)

        def rest(at: int) -> list[bytes]:
            return [f"id: {one['id']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in fake.events[at:]]

        self._stream(fake, rest, start)
