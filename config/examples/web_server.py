"""A tiny web server: answers / and /healthz on 127.0.0.1:$PORT (8123), and finishes its requests when it is stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED = time.monotonic()


class Pages(BaseHTTPRequestHandler):
    """Two pages and a 404."""

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path == "/healthz":
            self._answer(200, "ok\n")
        elif self.path == "/":
            name = os.environ.get("ASUP_NAME", "nobody")
            run = os.environ.get("ASUP_RUN", "?")
            self._answer(200, f"Hello from {name}, run {run}, PID {os.getpid()}, up {time.monotonic() - STARTED:.1f} s\n")
        else:
            self._answer(404, "no such page\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """One line a request on stdout."""
        print(f"{self.address_string()} {format % args}", flush=True)


class Server(ThreadingHTTPServer):
    """A server that at its end waits for the requests under way."""

    daemon_threads = False
    block_on_close = True


def main() -> None:
    """Serve until TERM or INT; ends with code 0 then."""
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8123"))), Pages)

    def stop(signum: int, _frame: object) -> None:
        # shutdown() waits for serve_forever, which runs in this very thread: ask from another one.
        print(f"received {signal.Signals(signum).name}, finishing", flush=True)
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with server:
        print(f"serving on http://127.0.0.1:{server.server_address[1]}/", flush=True)
        server.serve_forever(poll_interval=0.2)
    print("finished", flush=True)


if __name__ == "__main__":
    main()
