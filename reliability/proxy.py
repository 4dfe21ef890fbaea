"""A proxy before an S3 store: a request is passed on, or answered as a store in trouble would answer."""

import http.client
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

HANG_UP = 0  # without a word, and without passing it on
LOST = -1  # the store does it, but its answer gets lost
CUT = -2  # half of the answer's body, then the line is cut
Answer = Callable[
    [], int | None
]  # of the next request: a status, one of these, or None for the store's own


@contextmanager
def troubled(endpoint: tuple[str, int], answer: Answer) -> Iterator[str]:
    """The address of a proxy that lives as long as the block."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # who sends a body waits for a word to go on

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.close_connection = True
            given = answer()
            if given == HANG_UP:
                return
            if given is not None and given > 0:
                self.send_response(given)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            response, content = _ask(endpoint, self.command, self.path, body, dict(self.headers))
            if given == LOST:
                return
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if given == CUT else content)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on

        def log_message(self, *_: Any) -> None:
            """Not into the output of whoever runs us."""

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "http://{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
            thread.join()


def _ask(
    endpoint: tuple[str, int], command: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    """Of the store itself."""
    onward = http.client.HTTPConnection(*endpoint)
    try:
        onward.request(command, path, body, headers)
        response = onward.getresponse()
        return response, response.read()
    finally:
        onward.close()
