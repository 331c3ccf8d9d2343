"""A prompt under torch's profiler, in the server that renders: armed, run, fetched, shown.

The server's side is the pack files/opt/strixbox/nodes-extra/strixbox-profiler; its routes.py tells
what is sent. Recording needs no GPU: on a CPU build the times are the CPU's.
"""

from __future__ import annotations

import contextlib
import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from pydantic import Field, ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from boxtools.errors import Trouble
from boxtools.render import store
from boxtools.server import ANSWER, Event, Graph, Server
from boxtools.trace import Operator, Tables, heaviest, summarize

PATH = "/strixbox/profile"
EVALUATE = 600.0  # seconds that the server may take for tables and trace of a long recording
LOOK = 0.2  # seconds between two looks whether it is done
OPEN = "https://ui.perfetto.dev, or chrome://tracing in Chromium"


class Report(Tables):
    """A recorded prompt."""

    workflow: str | None = None
    prompt_id: str | None = None
    device: str = Field("cpu", description='"cuda" (which HIP too is called) or "cpu"')
    torch: str | None = None
    note: str | None = None
    trace: str | None = Field(None, description="the Chrome trace, on this box")


def record(
    server: Server,
    prompt: Graph,
    warmup: Graph | None,
    out: Path,
    name: str,
    *,
    options: dict[str, Any] | None = None,
    seen: Callable[[str, Event], None] = lambda phase, event: None,
) -> Report:
    """Run ``warmup`` as it is, then ``prompt`` under the profiler; the trace goes into ``out``.

    Both must differ in every input that shall be computed again: ComfyUI keeps what it has.

    Args:
        name: begin of the trace's name.
        options: ``memory``, ``shapes``, ``stack``: what is recorded beside the times.
        seen: gets every step, with "warm-up" or "profile".

    Raises:
        Trouble: where the pack is not there, a prompt fails, or the recording is of no use.
    """
    need_pack(server)
    if warmup is not None:
        server.run(warmup, lambda event: seen("warm-up", event))
    with _armed(server, options or {}):
        done = server.run(prompt, lambda event: seen("profile", event))
        told = _result(server)
    if told.get("prompt_id") not in (None, done.prompt_id):
        raise Trouble("the server recorded another prompt; is its profiler pack of this release?")
    place = told.get("trace")
    report = read(told).model_copy(update={"workflow": name})
    # The tables are worth showing even where ComfyUI has emptied its temporary directory.
    with contextlib.suppress(_NoTrace):
        path = _fetch(server, place, out, name)
        report = report.model_copy(update={"trace": str(path)})
        if not report.operators:  # the server leaves the tables of a long recording to us
            found = summarize(path)
            rows = {key: getattr(found, key) for key in ("operators", "kernels", "nodes")}
            report = report.model_copy(
                update={**rows, "note": None, "cut": report.cut or found.cut}
            )
    return report


def need_pack(server: Server) -> None:
    """See that the profiler pack runs in this server.

    Raises:
        Trouble: where it does not.
    """
    server.system_stats()  # tells what is wrong where no ComfyUI answers at all
    status, told = _ask(server, "GET", PATH)
    if status != 200 or not isinstance(told.get("state"), str):
        raise Trouble(
            f"ComfyUI at {server.url} has no profiler; set tools_profiler: true for this box and"
            " run the deploy once more"
        )


def read(told: Any) -> Report:
    """What the server's side handed out, without the place of its trace.

    Raises:
        Trouble: where it is something else.
    """
    plain = {key: told[key] for key in told if key != "trace"} if isinstance(told, dict) else told
    try:
        return Report.model_validate(plain)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        where = ".".join(str(part) for part in first["loc"])[:60] if first else "nested too deep"
        raise Trouble(
            f"the server's profile is not understood ({where}); deploy this box once more, so that"
            " its profiler pack and the tools are of one release"
        ) from None


@contextlib.contextmanager
def _armed(server: Server, options: dict[str, Any]) -> Iterator[None]:
    """Armed for the next prompt of this client; disarmed whatever happens."""
    body = {**options, "client_id": server.client_id}
    status, told = _ask(server, "POST", f"{PATH}/start", body)
    if status != 200:
        raise Trouble(f"the profiler cannot be armed: {_said(status, told)}")
    try:
        yield
    except BaseException:
        with contextlib.suppress(Trouble):
            _ask(server, "POST", f"{PATH}/stop")
        raise


def _result(server: Server) -> dict[str, Any]:
    until = time.monotonic() + EVALUATE
    while True:
        status, told = _ask(server, "POST", f"{PATH}/stop")
        state = told.get("state")
        if status == 200 and state == "done":
            return told
        if status != 200 or state == "failed":
            raise Trouble(f"the recording failed: {_said(status, told)}; see journalctl -u comfyui")
        if state not in ("recording", "writing"):
            raise Trouble("the server recorded nothing; was it restarted meanwhile? Try again")
        if time.monotonic() > until:
            raise Trouble(
                f"the server still evaluates after {EVALUATE:.0f} s; profile fewer --steps"
            )
        time.sleep(LOOK)


class _NoTrace(Exception):
    """The trace is not there any more."""


def _fetch(server: Server, place: Any, out: Path, name: str) -> Path:
    """Copy the trace out of ComfyUI's temporary directory."""
    if not isinstance(place, dict) or not isinstance(place.get("filename"), str):
        raise _NoTrace
    try:
        content = server.view(place)
    except Trouble:
        raise _NoTrace from None
    if content[:2] != b"\x1f\x8b":  # unpacked on its way: a Content-Encoding header does that
        content = gzip.compress(content, compresslevel=5)
    return store(content, f"{name}-{Path(place['filename']).name}", out)


def _ask(
    server: Server, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a call to the pack, whose errors are sentences worth showing."""
    try:
        answer = server.http.request(method, server.url + path, json=body, timeout=ANSWER)
        told = answer.json()
    except requests.JSONDecodeError:
        told = None
    except requests.RequestException:
        raise Trouble(
            f"ComfyUI at {server.url} no longer answers; see journalctl -u comfyui"
        ) from None
    except (ValueError, RecursionError):
        told = None
    return answer.status_code, told if isinstance(told, dict) else {}


def _said(status: int, told: dict[str, Any]) -> str:
    error = told.get("error")
    return " ".join(str(error).split())[:300] if error else f"the server answers {status}"


def view(report: Report, top: int) -> Group:
    """The report for people."""
    gpu = any(row.self_device for row in report.operators) or bool(report.kernels)
    parts: list[Any] = [_head(report, gpu)]
    if report.nodes:
        parts += [Text(), _nodes(report, gpu)]
    if report.operators:
        parts += [Text(), _operators(report, top, gpu)]
    if report.kernels:
        parts += [Text(), _kernels(report, top)]
    if report.note:
        parts += [Text(), Text(report.note)]
    if report.trace:
        parts += [Text(), Text(f"Trace: {report.trace}"), Text(f"Open it in {OPEN}.")]
    return Group(*parts)


def _head(report: Report, gpu: bool) -> Text:
    words = [f"{report.seconds:.2f} s"]
    if report.events is not None:
        words.append(f"{report.events} events")
    words.append("GPU and CPU" if gpu else "CPU only")
    if report.torch:
        words.append(f"torch {report.torch}")
    if report.cut:
        words.append("cut short: what came later is not in the tables")
    return Text(f"{report.workflow or 'trace'}: {', '.join(words)}")


def _nodes(report: Report, gpu: bool) -> Table:
    table = Table(title="Nodes", title_justify="left", box=None)
    table.add_column("node", overflow="fold")
    columns = ["time", "share", *(["GPU"] if gpu else [])]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("most of its own time", overflow="fold")
    total = sum(node.cpu for node in report.nodes) or 1
    for node in report.nodes:
        first = node.operators[0].name if node.operators else ""
        row = [f"{node.kind} ({node.node})", duration(node.cpu), f"{100 * node.cpu / total:.1f} %"]
        row += [duration(node.device)] if gpu else []
        table.add_row(*(Text(cell) for cell in (*row, first)))
    return table


def _operators(report: Report, top: int, gpu: bool) -> Table:
    rows = heaviest(list(report.operators))
    total = sum(_own(row, gpu) for row in rows) or 1
    title = f"Operators by their own {'GPU' if gpu else 'CPU'} time"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("operator", overflow="fold")
    for column in ("share", *(["GPU"] if gpu else []), "own CPU", "CPU", "calls"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows[:top]:
        cells = [row.name, f"{100 * _own(row, gpu) / total:.1f} %"]
        cells += [duration(row.self_device)] if gpu else []
        cells += [duration(row.self_cpu), duration(row.cpu), str(row.calls)]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _own(row: Operator, gpu: bool) -> float:
    return row.self_device if gpu else row.self_cpu


def _kernels(report: Report, top: int) -> Table:
    total = sum(row.device for row in report.kernels) or 1
    table = Table(title="GPU kernels", title_justify="left", box=None)
    table.add_column("kernel", overflow="fold", max_width=100)
    for column in ("share", "GPU", "calls"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.kernels[:top]:
        share = f"{100 * row.device / total:.1f} %"
        table.add_row(Text(row.name), share, duration(row.device), str(row.calls))
    return table


def duration(microseconds: float) -> str:
    """A time in the unit that suits it."""
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:.3f} s"
    if microseconds >= 1e3:
        return f"{microseconds / 1e3:.1f} ms"
    return f"{microseconds:.0f} us"
