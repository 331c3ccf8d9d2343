"""Reading traces: sums against hand-made ones, and whatever else a file may hold."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from boxtools import trace
from boxtools.errors import Trouble
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def event(
    name: str, start: float, length: float, kind: str = "cpu_op", thread: Any = 1, **arguments: Any
) -> dict[str, Any]:
    """A complete event as libkineto writes it."""
    return {
        "ph": "X", "cat": kind, "name": name, "pid": 7, "tid": thread, "ts": start, "dur": length,
        "args": {key.replace("_", " "): value for key, value in arguments.items()},
    }  # fmt: skip


# A node that encodes: linear calls mm, mm launches a kernel; conv outside of it, on another thread.
EVENTS = [
    {"ph": "M", "name": "process_name", "pid": 7, "args": {"name": "python"}},
    event("node: VAEDecode (4)", 1000.0, 100.0, "user_annotation"),
    event("aten::mm", 1020.0, 30.0, External_id=5),
    event("aten::linear", 1010.0, 50.0, External_id=4),
    event("aten::mm", 1070.0, 10.0, External_id=6),
    event("aten::conv2d", 1010.0, 5.0, thread="other"),
    event("gemm", 1040.0, 200.0, "kernel", thread=70, External_id=5),
    event("gemm", 1240.0, 50.0, "kernel", thread=70, External_id=6),
    event("copy", 1300.0, 7.0, "gpu_memcpy", thread=70),
    event("hipLaunchKernel", 1025.0, 2.0, "cuda_runtime", External_id=5),
    {"ph": "f", "id": 5, "ts": 1040.0},
]


def written(path: Path, value: Any, packed: bool = False) -> Path:
    raw = json.dumps(value).encode() if not isinstance(value, bytes) else value
    path.write_bytes(gzip.compress(raw) if packed else raw)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_the_tables(tmp_path: Path, packed: bool, bare: bool) -> None:
    whole = {"schemaVersion": 1, "deviceProperties": [{}], "traceEvents": EVENTS, "traceName": "x"}
    told = trace.summarize(written(tmp_path / "t", EVENTS if bare else whole, packed))
    rows = {row.name: row for row in told.operators}
    assert set(rows) == {"aten::mm", "aten::linear", "aten::conv2d"}
    linear, mm = rows["aten::linear"], rows["aten::mm"]
    assert (linear.calls, linear.self_cpu, linear.cpu) == (1, 20.0, 50.0)
    assert (linear.self_device, linear.device) == (0.0, 200.0)
    assert (mm.calls, mm.self_cpu, mm.self_device) == (2, 40.0, 250.0)
    assert told.operators[0].name == "aten::mm"
    assert [(row.name, row.calls, row.device) for row in told.kernels] == [
        ("gemm", 2, 250.0),
        ("copy", 1, 7.0),
    ]
    (node,) = told.nodes
    assert (node.kind, node.node, node.cpu, node.device) == ("VAEDecode", "4", 100.0, 250.0)
    assert {row.name: row.self_cpu for row in node.operators} == {
        "aten::linear": 20.0,
        "aten::mm": 40.0,
    }
    assert told.seconds == pytest.approx(307e-6) and told.events == 8 and not told.cut


def test_pieces_of_any_length_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"a": [1.5e3, "traceEvents"], "n": 12345, "traceEvents": EVENTS, "z": 10})
    for length in (1, 2, 3, 7, 100, 5000):
        monkeypatch.setattr(trace, "CHUNK", length)
        assert list(trace.read_events(io.StringIO(text))) == EVENTS


def test_a_trace_of_nothing(tmp_path: Path) -> None:
    told = trace.summarize(written(tmp_path / "t", {"traceEvents": []}))
    assert (told.operators, told.nodes, told.events, told.seconds) == ((), (), 0, 0.0)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"nonsense",
        b"3",
        b'"traceEvents"',
        b"{}",
        b'{"traceEvents": 3}',
        b'{"traceEvents": [',
        b'{"traceEvents": [{"ph": "X"',
        b'{"traceEvents": [1 2]}',
        b'{"traceEvents": [1',
        b'{"traceEvents": []',
        b'{"traceEvents": [' + b"9" * 5000 + b"]}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_trace_is_told(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(Trouble, match="is no trace of torch's profiler"):
        trace.summarize(written(tmp_path / "t", raw))


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(EVENTS * 100).encode())
    for raw in (packed[:-20], packed[:50] + b"xxxx" + packed[54:], packed[:2]):
        with pytest.raises(Trouble, match=r"damaged or cut off|is no trace"):
            trace.summarize(written(tmp_path / "t", raw))
    with pytest.raises(Trouble, match="No such file"):
        trace.summarize(tmp_path / "absent")
    with pytest.raises(Trouble, match="Is a directory"):
        trace.summarize(tmp_path)


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "EVENTS", 5)
    told = trace.summarize(written(tmp_path / "t", EVENTS))
    assert told.cut and told.events == 5
    monkeypatch.setattr(trace, "EVENTS", 1000)
    monkeypatch.setattr(trace, "PIECES", 4)
    assert trace.summarize(written(tmp_path / "t", EVENTS)).cut
    monkeypatch.setattr(trace, "LARGEST", 1000)
    with pytest.raises(Trouble):
        trace.summarize(written(tmp_path / "t", b'["' + b"x" * (3 << 20)))


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20)
    | st.sampled_from(["X", "cpu_op", "kernel", "user_annotation", "node: A (1)", 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["ph", "cat", "name", "ts", "dur", "pid", "tid", "args", "External id"]),
        inner, max_size=9,
    ),
    max_leaves=20,
)  # fmt: skip
NUMBER = st.integers(-5, 50) | st.floats() | st.none()
LIKE = st.fixed_dictionaries(
    {
        "ph": st.just("X"),
        "cat": st.sampled_from(["cpu_op", "kernel", "user_annotation"]),
        "name": st.sampled_from(["node: A (1)", "node: A (2)", "a", "b"]) | ANY,
        "ts": NUMBER,
        "dur": NUMBER,
        "tid": st.integers(0, 1) | ANY,
        "args": st.fixed_dictionaries({"External id": st.integers(-1, 3) | ANY}) | ANY,
    }
)


def test_an_overload_that_calls_another_is_one_call(tmp_path: Path) -> None:
    nested = [event("aten::up", 0.0, 30.0), event("aten::up", 5.0, 20.0, External_id=1),
              event("k", 10.0, 7.0, "kernel", External_id=1)]  # fmt: skip
    (row,) = trace.summarize(written(tmp_path / "t", nested)).operators
    assert (row.calls, row.self_cpu, row.cpu) == (1, 30.0, 30.0)
    assert (row.self_device, row.device) == (7.0, 7.0)


@given(events=st.lists(LIKE | ANY, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_event_is_a_traceback(tmp_path: Path, events: list[Any]) -> None:
    told = trace.summarize(written(tmp_path / "t", {"traceEvents": events}))
    told.model_dump_json()
    for row in told.operators:
        assert row.calls >= 1 and min(row.self_cpu, row.cpu, row.self_device, row.device) >= 0


@given(raw=st.binary(max_size=200) | ANY.map(lambda value: json.dumps(value).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_file_is_a_traceback(tmp_path: Path, raw: bytes) -> None:
    for content in (raw, b"\x1f\x8b" + raw, b'{"traceEvents":' + raw):
        try:
            trace.summarize(written(tmp_path / "t", content))
        except Trouble as trouble:
            assert "\n" not in str(trouble)
