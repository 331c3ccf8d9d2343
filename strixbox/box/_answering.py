"""Part of programs: whether a server on this box answers.

By hand: the imports of urllib.request take longer than all that is asked of a box besides.
"""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

PATIENCE = 5  # seconds, in all


def unanswered(url: str) -> str | None:
    """Why a URL of plain HTTP is not answered with 200; None where it is."""
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
    try:
        place = (parts.hostname or "", parts.port or 80)
        end = time.monotonic() + PATIENCE
        with socket.create_connection(place, timeout=PATIENCE) as connection:
            connection.sendall(request.encode())
            said = b""
            while b"\n" not in said and len(said) < 100:
                connection.settimeout(max(end - time.monotonic(), 0.01))
                piece = connection.recv(100)
                if not piece:
                    break
                said += piece
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    words = said.partition(b"\n")[0].decode(errors="replace").split()
    if not words or not words[0].startswith("HTTP/"):
        return "no HTTP"
    return None if words[1:2] == ["200"] else f"status {' '.join(words[1:])}"
