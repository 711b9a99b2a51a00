"""A server that speaks OpenAI's chat completions and answers as a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, Any], dict[str, str]]
"""Status, body and headers."""
Asked = list[dict[str, Any]]


def said(content: str | None, reason: str = "stop", **message: Any) -> Reply:
    choice = {"message": {"content": content, **message}, "finish_reason": reason}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}, {}


@contextmanager
def serving(
    answer: Callable[[dict[str, Any]], Reply],
) -> Iterator[tuple[str, Asked]]:
    """The server's URL, and the requests that it got with their headers."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append({**body, "headers": headers, "path": self.path})
            status, found, more = answer(body)
            data = json.dumps(found).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **more}.items():
                self.send_header(name, value)
            with contextlib.suppress(OSError):  # the client may have left
                self.end_headers()
                self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            server.shutdown()
            thread.join()
