"""A server of one model that can misbehave, for both programs that download."""

from __future__ import annotations

import hashlib
import random
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEADER = b'{"x":{"dtype":"U8","shape":[3000000],"data_offsets":[0,3000000]}}'
CONTENT = struct.pack("<Q", len(HEADER)) + HEADER
CONTENT += random.Random(3).randbytes(3_000_000)  # noqa: S311 - the same bytes every time
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Files(ThreadingHTTPServer):
    """It serves one content with an ETag and ranges, and the faults that a test asks for."""

    daemon_threads = True
    content = CONTENT
    tag = '"v1"'
    date = ""
    status = 200
    kind = "application/octet-stream"
    told_length = True
    wrong_range = False
    broken = 0  # answers of 503 to come

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []  # bytes of the body after which the next answers end
        self.asked: list[tuple[str | None, str | None]] = []  # Range, If-Range

    def handle_error(self, *_: object) -> None:
        """Clients that go away are meant here."""

    @property
    def url(self) -> str:
        """Address of the model."""
        return f"http://127.0.0.1:{self.server_port}/models/x.safetensors?token=secret"

    @property
    def ranges(self) -> list[str | None]:
        """Range of every request."""
        return [wanted for wanted, _ in self.asked]


class Handler(BaseHTTPRequestHandler):
    """One answer."""

    server: Files

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """The content, or what is asked of it."""
        server, size = self.server, len(self.server.content)
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        server.asked.append((wanted, condition))
        begin = 0
        status = server.status
        if server.broken:
            server.broken -= 1
            status = 503
        elif status == 200 and wanted and condition in (server.tag or None, server.date or None):
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            status = 416 if begin >= size else 206
        body = b"" if status in (204, 416) else server.content[begin:]
        self.send_response(status)
        self.send_header("Content-Type", server.kind)
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.date:
            self.send_header("Last-Modified", server.date)
        if status == 206:
            told = begin + 1 if server.wrong_range else begin
            self.send_header("Content-Range", f"bytes {told}-{size - 1}/{size}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{size}")
        if server.told_length and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts and body else body)


@contextmanager
def serving() -> Iterator[Files]:
    """A running server."""
    with Files() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
