"""A chat endpoint on loopback that behaves as badly as a test likes."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RATING = {"Rarity": 3, "Complexity": 4, "Informativeness": 7, "Overall rating": 8}


@dataclass(frozen=True)
class Reply:
    """What the server does with a request.

    Attributes:
        status: The status.
        body: The response's body.
        headers: More headers.
        delay_s: How long it waits first.
        hangs_up: Whether it closes the connection: "at once", or "midway" through the body.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hangs_up: str | None = None


def says(text: str | None, usage: tuple[int, int] | None = (100, 20), **more: Any) -> Reply:
    """A completion with a text."""
    document: dict[str, Any] = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]
    }
    if usage is not None:
        document["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Reply(body=json.dumps(document).encode(), **more)


def rates(**changed: Any) -> Reply:
    """A completion with a proper rating; its keys without blanks, such as ``Overall=9``."""
    names = {"Overall": "Overall rating"}
    values = {names.get(name, name): value for name, value in changed.items()}
    return says(json.dumps({**RATING, **values}))


@dataclass
class Request:
    """A request that came in, and when."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    at: float

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"]


Rule = Callable[[Request, int], Reply]
"""What is replied to a request, and to how many-th of its prompt (from 0) it is."""


class ChatServer:
    """The server; it keeps every request, and the most that were open at once."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.requests: list[Request] = []
        self.most_open = 0
        self._open = 0
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.http = _Http(("127.0.0.1", 0), _handler(self))

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            times = self._times[request.prompt]
            self._times[request.prompt] += 1
            self._open += 1
            self.most_open = max(self.most_open, self._open)
        try:
            found = self.rule(request, times)
            time.sleep(found.delay_s)
            return found
        finally:
            with self._lock:
                self._open -= 1


class _Http(ThreadingHTTPServer):
    request_queue_size = 128  # with the 5 of the library, connections at once are lost
    daemon_threads = True


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self._send(Reply(404, b'{"error": "no such path"}'))
                return
            self._send(server.reply(Request(body, dict(self.headers), time.monotonic())))

        def _send(self, reply: Reply) -> None:
            if reply.hangs_up == "at once":
                self.close_connection = True
                return
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply.body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                half = len(reply.body) // 2
                self.wfile.write(reply.body[:half] if reply.hangs_up else reply.body)
                self.close_connection = self.close_connection or reply.hangs_up is not None
            except OSError:  # a client that has gone
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def chat_server(rule: Rule) -> Iterator[ChatServer]:
    """A running server, stopped after the block."""
    server = ChatServer(rule)
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
