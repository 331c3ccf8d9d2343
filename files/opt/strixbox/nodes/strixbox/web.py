"""Routes of strixbox's packs: who may call them, what a body may be, how they answer.

Both packs hold this file, since neither may count on the other; a test keeps the two the same.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

BODY = 64 * 1024  # bytes; the bodies of these routes have a few dozen


class Refused(Exception):
    """A request that is not carried out: HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def trusted(remote: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request that changes something may do so.

    ComfyUI has no accounts. Its own middleware turns cross-site pages away only where the server
    is addressed by a loopback name. Here a page must come from this server, whatever its name, and
    what is no page (no Origin) must come from this machine.
    """
    origin = headers.get("Origin")
    if origin is not None:
        try:
            return bool(urlsplit(origin).netloc) and (
                urlsplit(origin).netloc.lower() == headers.get("Host", "").lower()
            )
        except ValueError:  # a bracket without its fellow
            return False
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1 on a dual-stack socket
    return bool((mapped or address).is_loopback)


def parse(raw: bytes, fields: Mapping[str, type]) -> dict[str, Any]:
    """The JSON object of a body, with known fields of the right type only; empty is ``{}``.

    Raises:
        Refused: with 400, naming what is wrong.
    """
    if not raw.strip():
        return {}
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON; send an object") from None
    if not isinstance(told, dict):
        raise Refused(400, f"the body is {type(told).__name__}; send an object")
    for name, value in told.items():
        if name not in fields:
            known = ", ".join(sorted(fields))
            raise Refused(400, f"no field {str(name)[:40]!r} is known here; known are: {known}")
        # An exact type: True is an int for isinstance.
        if value is not None and type(value) is not fields[name]:
            kinds = {bool: "true or false", str: "a string", int: "a whole number"}
            raise Refused(400, f"{name} must be {kinds[fields[name]]}")
    return {name: value for name, value in told.items() if value is not None}


def add(
    method: str,
    path: str,
    work: Callable[[dict[str, Any]], dict[str, Any]],
    fields: Mapping[str, type] | None = None,
) -> None:
    """Add a route (also under ``/api``) that answers with what ``work`` returns, as JSON.

    ``work`` gets the body's fields and runs in a thread: the event loop feeds progress to every
    browser and must not wait for torch.

    Raises:
        ImportError: outside of ComfyUI.
    """
    from aiohttp import web
    from server import PromptServer

    async def handler(request: web.Request) -> web.Response:
        try:
            words = {}
            if request.method == "POST":
                if not trusted(request.remote, request.headers):
                    raise Refused(403, "this route takes requests from this machine only")
                words = parse(await _body(request), fields or {})
            loop = asyncio.get_running_loop()
            return web.json_response(await loop.run_in_executor(None, work, words))
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        except Exception as error:
            logging.exception("strixbox: %s %s failed", request.method, path)
            sentence = f"{type(error).__name__}: {error}"[:500]
            return web.json_response({"error": sentence}, status=500)

    PromptServer.instance.routes.route(method, path)(handler)


async def _body(request: Any) -> bytes:
    if not request.body_exists:
        return b""
    if request.content_length is None or request.content_length > BODY:
        raise Refused(400, f"the body must tell its length, at most {BODY} bytes")
    return bytes(await request.read())
