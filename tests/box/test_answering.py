"""Whether a server answers, asked of real sockets on this machine."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from strixbox.box import _answering
from strixbox.box._answering import unanswered


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names; ComfyUI's has a body, and keeps connections."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """``/503``."""
        self.send_response(int(self.path[1:] or 200))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Of a server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/200", None),
        ("", None),
        ("/503", "status 503 Service Unavailable"),
        ("/302", "status 302 Found"),
    ],
)
def test_only_200_is_an_answer(url: str, path: str, told: str | None) -> None:
    assert unanswered(url + path) == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.1 200", None),
        (b"", "no HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP"),
        (b"\xff" * 5000, "no HTTP"),
        (b"HTTP/1.1", "status "),
        (None, "timed out"),
    ],
)
def test_what_is_no_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, said: bytes | None, told: str | None
) -> None:
    monkeypatch.setattr(_answering, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if said is None:
                    threading.Event().wait(0.5)
                else:
                    connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        assert unanswered(f"http://127.0.0.1:{server.getsockname()[1]}/") == told
        thread.join()


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in str(unanswered(f"http://127.0.0.1:{port}/"))
    assert unanswered("http://127.0.0.1:99999/")
