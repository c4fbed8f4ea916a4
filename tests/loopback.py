"""A local web server for tests, with correct and faulty responses."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn


class Server(ThreadingMixIn, HTTPServer):
    """A server that answers every request with ``answer(handler, server)`` in a separate thread."""

    def __init__(self, answer: "Answer") -> None:
        self.paths: list[str] = []  # of all requests so far
        self.asked = threading.Event()  # set when the first request arrives
        self.closing = threading.Event()  # set at the end of the test; stalled answers wait for it

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.paths.append(self.path)
                server.asked.set()
                answer(self, server)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = self
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/corpus.txt"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect early."""


Answer = Callable[[BaseHTTPRequestHandler, Server], None]


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """Run a server, and stop it with all of its threads when the block ends."""
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        return int(placeholder.getsockname()[1])


def whole(data: bytes) -> Answer:
    """Return an answer that sends the complete file."""

    def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
        _begin(handler, length=len(data))
        handler.wfile.write(data)

    return answer


def without_length(data: bytes) -> Answer:
    """Return an answer that sends the file without its length and then closes the connection."""

    def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
        _begin(handler)
        handler.wfile.write(data)

    return answer


def cut(data: bytes) -> Answer:
    """Return an answer that sends half of the file and closes the connection."""

    def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
        _begin(handler, length=len(data))
        handler.wfile.write(data[: len(data) // 2])

    return answer


def cut_chunks(data: bytes) -> Answer:
    """Return an answer in chunked encoding that closes the connection within a chunk."""

    def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n" % len(data) + data[: len(data) // 2])
        handler.close_connection = True

    return answer


def stalled(data: bytes) -> Answer:
    """Return an answer that sends half of the file and then nothing more."""

    def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
        _begin(handler, length=len(data))
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        server.closing.wait()

    return answer


def dripping(data: bytes, *, header: bool = False) -> Answer:
    """Return an answer that sends a byte now and then, of the file or of a header, and never ends."""

    def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
        _begin(handler, length=len(data), end=not header)
        if header:
            handler.flush_headers()
            handler.wfile.write(b"X-Header: ")
        while not server.closing.wait(0.05):
            handler.wfile.write(data[:1])

    return answer


def endless_chunks(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Send chunks until the client disconnects."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not server.closing.is_set():
        handler.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")


def redirecting(location: str) -> Answer:
    """Return an answer that sends the client to another address."""

    def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()

    return answer


def silent(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Send nothing and keep the connection open."""
    server.closing.wait()


def hanging_up(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Close the connection without an answer."""


def missing(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Answer with status 404."""
    handler.send_error(404)


def garbage(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Send bytes that are not HTTP."""
    handler.wfile.write(b"\x00\x1b[31mSSH-2.0-OpenSSH_9.7\r\n\r\n" * 4)


def _begin(handler: BaseHTTPRequestHandler, length: int | None = None, *, end: bool = True) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    if end:
        handler.end_headers()
