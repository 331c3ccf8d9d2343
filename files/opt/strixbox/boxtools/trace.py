"""Tables of a Chrome trace that torch's profiler wrote: operators, GPU kernels, nodes.

A trace has hundreds of megabytes, so it is read piece by piece: of every event only its times and
the index of its name are kept. The form: "Trace Event Format" (Chromium), as libkineto writes it
(output_json.cpp): complete events ("ph": "X") with ``cat``, ``ts`` and ``dur`` in microseconds, and
in ``args`` an ``External id`` that ties a kernel to the operator that launched it.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict

from boxtools.errors import Trouble

CHUNK = 1 << 20  # characters read at once
LARGEST = 16 << 20  # characters of one JSON value; an event has some hundred
EVENTS = 3_000_000  # operators and kernels that are looked at, some 40 bytes each
PIECES = 50_000_000  # events of any kind; a bomb has more

OPERATORS = ("cpu_op", "user_annotation")
KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")
NODE = re.compile(r"node: (.*) \((.*)\)", re.DOTALL)  # what the profiler pack marks a node with


class Part(BaseModel):
    """Frozen; what a newer profiler pack adds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Operator(Part):
    """An operator; times in microseconds, the ones without ``self`` with what it called."""

    name: str
    calls: int
    self_cpu: float
    cpu: float = 0.0
    self_device: float = 0.0
    device: float = 0.0
    cpu_memory: int = 0  # bytes
    device_memory: int = 0  # bytes


class Kernel(Part):
    """A kernel or copy on the GPU."""

    name: str
    calls: int
    device: float  # microseconds


class Node(Part):
    """A node's share."""

    node: str
    kind: str
    calls: int
    cpu: float  # microseconds from its start to its end
    device: float  # microseconds of the GPU that it caused
    operators: tuple[Operator, ...] = ()


class Tables(Part):
    """What took the time, the most costly first."""

    operators: tuple[Operator, ...]
    kernels: tuple[Kernel, ...]
    nodes: tuple[Node, ...]
    events: int | None = None
    seconds: float = 0.0
    cut: bool = False  # not everything is in the tables


def summarize(path: Path) -> Tables:
    """Read a trace, packed with gzip or plain.

    Raises:
        Trouble: where it cannot be read or is no trace.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            return _tables(io.TextIOWrapper(stream, "utf-8", errors="replace"))
    except Malformed as error:
        raise Trouble(
            f"{path} is no trace of torch's profiler ({error}); record one with strixbox profile"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Trouble(f"{path} is damaged or cut off; record it once more") from None
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}; name a trace file") from None


class Malformed(Exception):
    """Why something is no trace."""


class _Text:
    """JSON values one after the other from a stream that is never whole in memory."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = ""
        self.at = 0
        self.decode = json.JSONDecoder().raw_decode

    def more(self) -> bool:
        """Read on, at least as much as is waiting: what is long is not looked at too often."""
        new = self.stream.read(max(CHUNK, len(self.text) - self.at))
        self.text = self.text[self.at :] + new
        self.at = 0
        return bool(new)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n\ufeff":
                    return self.text[self.at]
                self.at += 1
            if not self.more():
                return ""

    def take(self, character: str) -> None:
        """Pass a character that must come next."""
        if self.peek() != character:
            raise Malformed(f"no {character!r} where one must be")
        self.at += 1

    def value(self) -> Any:
        """The next JSON value."""
        self.peek()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except RecursionError:
                raise Malformed("nested too deep") from None
            except ValueError:
                if len(self.text) - self.at > LARGEST or not self.more():
                    raise Malformed("not the JSON of a trace") from None
                continue
            # A number at the end of the piece may go on in the next.
            if end == len(self.text) and not isinstance(value, str | dict | list) and self.more():
                continue
            self.at = end
            return value


def read_events(stream: TextIO) -> Iterator[Any]:
    """Every item of ``traceEvents``, or of the list that is the whole file.

    Raises:
        Malformed: where it is something else.
    """
    text = _Text(stream)
    if text.peek() == "[":
        yield from _items(text)
        return
    if text.peek() != "{":
        raise Malformed("no JSON object")
    text.take("{")
    found = False
    while text.peek() != "}":
        key = text.value()
        text.take(":")
        if key == "traceEvents" and text.peek() == "[":
            found = True
            yield from _items(text)
        else:
            text.value()
        if text.peek() != "}":
            text.take(",")
    if not found:
        raise Malformed("it has no traceEvents")


def _items(text: _Text) -> Iterator[Any]:
    text.take("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() != "]":
            text.take(",")
    text.take("]")


@dataclass
class _Thread:
    """Operators of one thread, in columns."""

    start: array[float] = field(default_factory=lambda: array("d"))
    length: array[float] = field(default_factory=lambda: array("d"))
    name: array[int] = field(default_factory=lambda: array("q"))
    external: array[int] = field(default_factory=lambda: array("q"))


@dataclass
class _Open:
    """An operator whose end has not come yet in the sweep."""

    end: float
    name: int
    length: float
    device: float  # its own
    node: int  # index of the name of the mark it lies in, -1 outside of all
    below: float = 0.0
    device_below: float = 0.0


def _tables(stream: TextIO) -> Tables:
    names: dict[str, int] = {}
    threads: dict[str, _Thread] = defaultdict(_Thread)
    kernels: dict[int, list[float]] = defaultdict(lambda: [0, 0.0])
    caused: dict[int, float] = defaultdict(float)  # external id -> microseconds on the GPU
    first, last, count, seen = math.inf, -math.inf, 0, 0
    for event in read_events(stream):
        seen += 1
        if count >= EVENTS or seen >= PIECES:
            break
        if not isinstance(event, dict) or event.get("ph") != "X":
            continue
        kind = event.get("cat")
        start, length = _time(event.get("ts")), _time(event.get("dur"))
        if kind not in (*OPERATORS, *KERNELS) or start is None or length is None or length < 0:
            continue
        count += 1
        first, last = min(first, start), max(last, start + length)
        name = names.setdefault(str(event.get("name"))[:500], len(names))
        external = _external(event.get("args"))
        if kind in KERNELS:
            kernels[name][0] += 1
            kernels[name][1] += length
            if external >= 0:
                caused[external] += length
            continue
        thread = threads[f"{event.get('pid')}/{event.get('tid')}"[:100]]
        thread.start.append(start)
        thread.length.append(length)
        thread.name.append(name)
        thread.external.append(external)
    rows = _Rows(list(names))
    for thread in threads.values():
        rows.sweep(thread, caused)
    return Tables(
        operators=heaviest(rows.operators()),
        kernels=tuple(
            Kernel(name=rows.names[name], calls=int(calls), device=length)
            for name, (calls, length) in sorted(kernels.items(), key=lambda one: -one[1][1])
        ),
        nodes=rows.nodes(),
        events=count,
        seconds=max(0.0, last - first) / 1e6 if count else 0.0,
        cut=count >= EVENTS or seen >= PIECES,
    )


class _Rows:
    """Sums by name, and by node and name."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.marks = {index: mark for index, name in enumerate(names) if (mark := mark_of(name))}
        self.sums: dict[int, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0.0])
        self.of_node: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])

    def sweep(self, thread: _Thread, caused: dict[int, float]) -> None:
        """Add a thread: who lies in whom follows from the times."""
        order = sorted(
            range(len(thread.start)), key=lambda index: (thread.start[index], -thread.length[index])
        )
        stack: list[_Open] = []
        for index in order:
            start, length, name = thread.start[index], thread.length[index], thread.name[index]
            while stack and stack[-1].end <= start:
                self._close(stack)
            node = name if name in self.marks else stack[-1].node if stack else -1
            device = caused.get(thread.external[index], 0.0)
            stack.append(_Open(start + length, name, length, device, node))
        while stack:
            self._close(stack)

    def _close(self, stack: list[_Open]) -> None:
        one = stack.pop()
        device = one.device + one.device_below
        if stack:
            stack[-1].below += one.length
            stack[-1].device_below += device
        # Clocks differ by nanoseconds between a call and what it called.
        own = max(0.0, one.length - one.below)
        # An operator that only calls another overload of itself is one call, as in torch's tables.
        inner = bool(stack) and stack[-1].name == one.name
        calls, length, whole = (0, 0.0, 0.0) if inner else (1, one.length, device)
        row = self.sums[one.name]
        for column, value in enumerate((calls, own, length, one.device, whole)):
            row[column] += value
        if one.node >= 0 and one.name != one.node:
            part = self.of_node[one.node, one.name]
            for column, value in enumerate((calls, own, one.device)):
                part[column] += value

    def operators(self) -> list[Operator]:
        """All that are no node's mark."""
        return [
            Operator(
                name=self.names[name],
                calls=int(row[0]),
                self_cpu=row[1],
                cpu=row[2],
                self_device=row[3],
                device=row[4],
            )
            for name, row in self.sums.items()
            if name not in self.marks
        ]

    def nodes(self) -> tuple[Node, ...]:
        """Every node, with its most costly operators."""
        parts: dict[int, list[Operator]] = defaultdict(list)
        for (mark, name), row in self.of_node.items():
            parts[mark].append(
                Operator(
                    name=self.names[name], calls=int(row[0]), self_cpu=row[1], self_device=row[2]
                )
            )
        found = []
        for index, (kind, node) in self.marks.items():
            if index in self.sums:
                calls, _, cpu, _, device = self.sums[index]
                found.append(
                    Node(
                        node=node,
                        kind=kind,
                        calls=int(calls),
                        cpu=cpu,
                        device=device,
                        operators=heaviest(parts[index])[:20],
                    )
                )
        return tuple(sorted(found, key=lambda node: -max(node.cpu, node.device)))


def mark_of(name: str) -> tuple[str, str] | None:
    """Class and id of the node that a mark's name tells."""
    found = NODE.fullmatch(name)
    return (found[1], found[2]) if found else None


def heaviest(rows: list[Operator]) -> tuple[Operator, ...]:
    """By their own time: the GPU's where any has some, else the CPU's."""
    on_device = any(row.self_device for row in rows)
    return tuple(sorted(rows, key=lambda row: -(row.self_device if on_device else row.self_cpu)))


def _time(value: Any) -> float | None:
    """Microseconds; None for what is no time. Kineto's are unix time, some 1e15."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e18 < value < 1e18 else None  # NaN fails both comparisons


def _external(arguments: Any) -> int:
    """The id that ties a kernel to its operator; -1 where there is none."""
    value: Any = arguments.get("External id") if isinstance(arguments, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)  # as older libkineto writes it
    if isinstance(value, bool) or not isinstance(value, int):
        return -1
    return value if 0 <= value < 2**63 else -1
