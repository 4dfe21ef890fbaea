"""An HTTP proxy in front of an S3 server that forwards a request or injects a fault."""

import http.client
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

NO_RESPONSE = 0  # the request is not forwarded and the connection is closed
RESPONSE_LOST = -1  # the server handles the request, but no response is sent
TRUNCATED = -2  # half of the response's body is sent
# The fault of the next request: an HTTP status, one of these, or None to forward it.
NextFault = Callable[[], int | None]


@contextmanager
def faulty_proxy(endpoint: tuple[str, int], next_fault: NextFault) -> Iterator[str]:
    """The address of a proxy that runs until the end of the block."""
    attributes = {"endpoint": endpoint, "next_fault": staticmethod(next_fault)}
    handler = type("Handler", (_Handler,), attributes)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "http://{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    endpoint: tuple[str, int]
    next_fault: NextFault
    protocol_version = "HTTP/1.1"  # clients wait for `100 Continue` before a body

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.close_connection = True
        fault = self.next_fault()
        if fault == NO_RESPONSE:
            return
        if fault is not None and fault > 0:
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = dict(self.headers)
        response, content = _forward(self.endpoint, self.command, self.path, body, headers)
        if fault == RESPONSE_LOST:
            return
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == TRUNCATED else content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_request

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _forward(
    endpoint: tuple[str, int], command: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    """The server's response and its body."""
    connection = http.client.HTTPConnection(*endpoint)
    try:
        connection.request(command, path, body, headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()
