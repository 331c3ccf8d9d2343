"""The lab's mirror: files with ranges, git over HTTP, and faults on request. Standard library only.

PUT /_faults takes a JSON list of {"path_prefix", "kind", "count"?}; kinds are status:N, truncate:N,
html, slow:BYTES_PER_SECOND, hang and reset. DELETE /_faults ends them. GET /_log tells what was
served since the last DELETE /_log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else "/srv/mirror")
CHUNK = 1 << 16
KINDS = re.compile(r"(status|truncate|slow):\d+|html|hang|reset")


class Mirror(ThreadingHTTPServer):
    """The server with its faults and its log."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.lock = threading.Lock()
        self.faults: list[dict[str, Any]] = []
        self.served: list[dict[str, Any]] = []

    def fault(self, path: str) -> str | None:
        """The fault that this request meets, counting it."""
        with self.lock:
            for fault in self.faults:
                if path.startswith(unquote(fault["path_prefix"])) and fault.get("count", 1) > 0:
                    if "count" in fault:
                        fault["count"] -= 1
                    fault["met"] = fault.get("met", 0) + 1
                    return str(fault["kind"])
        return None


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Mirror
    protocol_version = "HTTP/1.1"
    # Small answers at once: Nagle costs 40 ms a request on a kept connection.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Serve a file, the log, or git."""
        path = unquote(urlsplit(self.path).path)
        if path == "/_log":
            self._json(self.server.served)
        elif path.startswith("/git/"):
            self._git(path)
        else:
            self._file(path)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Only git posts."""
        self._git(unquote(urlsplit(self.path).path))

    def do_PUT(self) -> None:
        """Set the faults."""
        length = int(self.headers.get("Content-Length", 0))
        faults = json.loads(self.rfile.read(length))
        if any(not KINDS.fullmatch(fault["kind"]) for fault in faults):
            self._send(400, b"no such kind of fault\n", "text/plain")
            return
        self.server.faults = faults
        self._json(faults)

    def do_DELETE(self) -> None:
        """Forget the log, or the faults, telling how often each was met."""
        if self.path == "/_log":
            self.server.served = []
            self._json([])
        else:
            faults, self.server.faults = self.server.faults, []
            self._json(faults)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Quiet: the log is served at /_log."""

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _note(self, path: str, status: int, sent: int) -> None:
        entry = {
            "method": self.command,
            "path": path,
            "range": self.headers.get("Range"),
            "status": status,
            "bytes": sent,
        }
        with self.server.lock:
            self.server.served.append(entry)

    def _broken(self, path: str, fault: str) -> bool:
        """Answer as the fault says; False where the file itself is to be sent, cut or slowed."""
        kind, _, value = fault.partition(":")
        if kind == "status":
            self._note(path, int(value), 0)
            self._send(int(value), b"fault\n", "text/plain")
        elif kind == "html":
            self._note(path, 200, 0)
            self._send(200, b"<!DOCTYPE html><title>Sign in</title>\n", "text/html")
        elif kind == "reset":
            self._note(path, 0, 0)
            self.close_connection = True
        elif kind == "hang":
            time.sleep(60)
            self.close_connection = True
        else:
            return False
        return True

    def _file(self, path: str) -> None:
        fault = self.server.fault(path) or ""
        if fault and self._broken(path, fault):
            return
        file = (ROOT / path.lstrip("/")).resolve()
        if file.is_dir():
            file = file / "index.html"
        if not file.is_relative_to(ROOT.resolve()) or not file.is_file():
            self._note(path, 404, 0)
            self._send(404, b"no such file\n", "text/plain")
            return
        size = file.stat().st_size
        tag = f'"{size:x}-{file.stat().st_mtime_ns:x}"'
        first = self._first(size, tag)
        if first >= size > 0:
            self._note(path, 416, 0)
            self._send(416, b"", "text/plain")
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Content-Type", "text/html" if file.suffix == ".html" else "binary/octet")
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        sent = 0 if self.command == "HEAD" else self._stream(file, first, fault)
        self._note(path, 206 if first else 200, sent)

    def _first(self, size: int, tag: str) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not wanted or self.headers.get("If-Range", tag) != tag:
            return 0
        return int(wanted.group(1))

    def _stream(self, file: Path, first: int, fault: str) -> int:
        kind, _, value = fault.partition(":")
        left = int(value) if kind == "truncate" else None
        sent = 0
        with file.open("rb") as stream:
            stream.seek(first)
            while chunk := stream.read(CHUNK if kind != "slow" else max(1, int(value) // 10)):
                if left is not None:
                    chunk = chunk[: left - sent]
                    if not chunk:
                        break
                try:
                    self.wfile.write(chunk)
                except OSError:
                    break
                sent += len(chunk)
                if kind == "slow":
                    time.sleep(0.1)
        if left is not None:
            self.close_connection = True
        return sent

    def _git(self, path: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(path)
        if fault and self._broken(path, fault):
            return
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(ROOT / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path.removeprefix("/git"),
            "QUERY_STRING": urlsplit(self.path).query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        answer = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
        )
        head, _, content = answer.stdout.partition(b"\r\n\r\n")
        headers = dict(
            line.decode().split(": ", 1) for line in head.split(b"\r\n") if b": " in line
        )
        status = int(headers.pop("Status", "200").split()[0])
        self._note(path, status, len(content))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    Mirror(("0.0.0.0", 80)).serve_forever()  # noqa: S104 - inside the lab's own network
