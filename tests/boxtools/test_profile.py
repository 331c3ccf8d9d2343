"""The profile command: its talk with the pack, its tables, and every way that can go wrong."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from boxtools import cli, profile
from boxtools.errors import Trouble
from boxtools.server import Done, Event, Server
from boxtools.settings import Settings
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.boxtools.conftest import MakeStandin
from tests.boxtools.test_trace import ANY, EVENTS
from tests.nodes.conftest import PACK, PROFILER

TRACE = gzip.compress(json.dumps({"traceEvents": EVENTS}).encode())
RESULT: dict[str, Any] = {
    "state": "done",
    "prompt_id": "p2",
    "seconds": 1.5,
    "events": 9,
    "cut": False,
    "note": None,
    "device": "cuda",
    "torch": "2.6.0+rocm6.4",
    "trace": {"filename": "x.json.gz", "subfolder": "strixbox-profile", "type": "temp"},
    "operators": [
        {"name": "aten::conv2d", "calls": 4, "self_cpu": 10, "cpu": 12, "self_device": 900.0,
         "device": 900.0, "cpu_memory": 0, "device_memory": 5},
        {"name": "aten::[bold]mm", "calls": 2, "self_cpu": 30, "cpu": 30, "self_device": 100.0},
    ],
    "kernels": [{"name": "igemm<[4]>", "calls": 4, "device": 900.0}],
    "nodes": [{"node": "4", "kind": "VAEDecode", "calls": 1, "cpu": 1.5e6, "device": 1000,
               "operators": [{"name": "aten::conv2d", "calls": 4, "self_cpu": 10}]}],
    "of a newer pack": True,
}  # fmt: skip


class Fake(Server):
    """A server whose pack answers ``stops`` one after the other."""

    def __init__(self, *stops: Any, start: tuple[int, Any] = (200, {"state": "armed"})) -> None:
        super().__init__("http://fake")
        self.stops = list(stops)
        self.start = start
        self.asked: list[Any] = []
        self.trace: bytes | None = TRACE
        self.fails: Exception | None = None
        self.http = SimpleNamespace(request=self._request)  # type: ignore[assignment]

    def _request(self, method: str, url: str, json: Any = None, timeout: float = 0) -> Any:
        self.asked.append((method, url.rpartition("/")[2], json))
        status, told = 200, {"state": "idle"}
        if url.endswith("/start"):
            status, told = self.start
        elif url.endswith("/stop") and self.stops:
            status, told = self.stops.pop(0)
        if isinstance(told, Exception):
            raise told

        def read() -> Any:
            if told is None:
                raise requests.JSONDecodeError("no JSON", "", 0)
            return told

        return SimpleNamespace(status_code=status, json=read)

    def system_stats(self) -> dict[str, Any]:
        return {}

    def run(self, graph: Any, seen: Any = None) -> Done:
        self.asked.append(("run", graph))
        if seen:
            seen(Event("progress", "3", 1, 2))
        if self.fails and graph == PROMPT:
            raise self.fails
        return Done(f"p{sum(1 for one in self.asked if one[0] == 'run')}", 1.0, {}, (), ())

    def view(self, image: dict[str, str]) -> bytes:
        if self.trace is None:
            raise Trouble("not there")
        return self.trace


PROMPT = {"1": {"class_type": "A", "inputs": {}}}
WARM: dict[str, Any] = {"1": {"class_type": "A", "inputs": {"seed": 1}}}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "LOOK", 0.0)


def test_warm_up_then_the_profile(tmp_path: Path) -> None:
    server = Fake((200, {"state": "recording"}), (200, {"state": "writing"}), (200, RESULT))
    seen: list[tuple[str, str]] = []
    report = profile.record(
        server, PROMPT, WARM, tmp_path / "out", "txt2img",
        options={"memory": True}, seen=lambda phase, event: seen.append((phase, event.kind)),
    )  # fmt: skip
    assert [one[:2] for one in server.asked] == [
        ("GET", "profile"),
        ("run", WARM),
        ("POST", "start"),
        ("run", PROMPT),
        *[("POST", "stop")] * 3,
    ]
    assert server.asked[2][2] == {"memory": True, "client_id": server.client_id}
    assert seen == [("warm-up", "progress"), ("profile", "progress")]
    assert report.trace == str(tmp_path / "out/txt2img-x.json.gz")
    assert Path(report.trace).read_bytes() == TRACE
    assert report.workflow == "txt2img" and report.nodes[0].kind == "VAEDecode"


def test_a_trace_that_came_unpacked_is_packed(tmp_path: Path) -> None:
    server = Fake((200, RESULT))
    server.trace = gzip.decompress(TRACE)
    report = profile.record(server, PROMPT, {}, tmp_path, "x")
    assert report.trace is not None
    assert gzip.decompress(Path(report.trace).read_bytes()) == server.trace


def test_a_trace_that_is_gone_costs_the_trace_only(tmp_path: Path) -> None:
    server = Fake((200, RESULT))
    server.trace = None
    report = profile.record(server, PROMPT, {}, tmp_path, "x")
    assert report.trace is None and report.operators


def test_tables_of_a_long_recording_are_made_here(tmp_path: Path) -> None:
    long = {**RESULT, "operators": [], "kernels": [], "nodes": [], "note": "many events"}
    report = profile.record(Fake((200, long)), PROMPT, {}, tmp_path, "x")
    assert report.note is None and report.seconds == 1.5
    assert report.operators[0].name == "aten::mm" and report.nodes[0].kind == "VAEDecode"


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        ((200, {"state": "failed", "error": "no\nroom"}), "the recording failed: no room; see"),
        ((500, {"error": "KeyError"}), "the recording failed: KeyError"),
        ((502, None), "the server answers 502"),
        ((200, {"state": "idle"}), "recorded nothing"),
        ((200, []), "recorded nothing"),
        ((200, {**RESULT, "prompt_id": "other"}), "another prompt"),
        ((200, {**RESULT, "operators": 3}), r"not understood \(operators\)"),
        ((200, {**RESULT, "seconds": float("nan")}), "not understood"),
        ((200, requests.ConnectionError()), "no longer answers"),
    ],
)
def test_odd_answers(tmp_path: Path, stop: Any, said: str) -> None:
    with pytest.raises(Trouble, match=said):
        profile.record(Fake(stop), PROMPT, WARM, tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def test_it_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "EVALUATE", 0.0)
    with pytest.raises(Trouble, match="still evaluates"):
        profile.record(Fake(*[(200, {"state": "writing"})] * 3), PROMPT, WARM, tmp_path, "x")


def test_an_armed_profiler_is_disarmed(tmp_path: Path) -> None:
    for problem in (Trouble("the node fails"), KeyboardInterrupt()):
        server = Fake()
        server.fails = problem  # type: ignore[assignment]
        with pytest.raises(type(problem)):
            profile.record(server, PROMPT, WARM, tmp_path, "x")
        assert server.asked[-1][:2] == ("POST", "stop")


def test_another_profile_is_told(tmp_path: Path) -> None:
    server = Fake(start=(409, {"error": "another profile is armed; try again"}))
    with pytest.raises(Trouble, match="cannot be armed: another profile is armed"):
        profile.record(server, PROMPT, None, tmp_path, "x")


@given(told=st.dictionaries(st.sampled_from([*RESULT, "x"]), ANY) | ANY)
def test_no_answer_is_a_traceback(told: Any) -> None:
    whole = {**RESULT, **told} if isinstance(told, dict) else told
    try:
        report = profile.read(whole)
    except Trouble:
        return
    shown(report)
    report.model_dump_json()


def shown(report: profile.Report, top: int = 20) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(profile.view(report, top))
    return stream.getvalue()


def test_what_is_shown() -> None:
    text = shown(profile.read(RESULT))
    assert "1.50 s, 9 events, GPU and CPU, torch 2.6.0+rocm6.4" in text
    assert "VAEDecode (4)" in text and "1.500 s" in text and "100.0 %" in text
    assert "aten::[bold]mm" in text and "igemm<[4]>" in text
    assert text.index("aten::conv2d") < text.index("aten::[bold]mm")  # by the GPU's time
    assert "90.0 %" in text
    assert "aten::[bold]mm" not in shown(profile.read(RESULT), top=1)


def test_on_a_cpu_there_is_no_gpu_column() -> None:
    rows = [{"name": "aten::mm", "calls": 1, "self_cpu": 2500.0, "cpu": 3000.0}]
    text = shown(profile.read({"operators": rows, "kernels": [], "nodes": []}))
    assert "CPU only" in text and "2.5 ms" in text and "GPU" not in text


def test_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(TRACE)
    assert cli.main(["profile", "--from", str(path)]) == 0
    assert "aten::linear" in capsys.readouterr().out
    assert cli.main(["profile", "--from", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["kind"] == "VAEDecode"
    path.write_bytes(b"nonsense")
    assert cli.main(["profile", "--from", str(path)]) == 1
    assert "is no trace" in capsys.readouterr().err


def test_without_the_pack(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile"]) == 1
    assert "set tools_profiler: true" in capsys.readouterr().err
    assert cli.main(["profile", "nonsense"]) == 2
    assert cli.main(["profile", "--size", "3x"]) == 2


def test_the_stand_in_loads_the_packs(make_standin: MakeStandin) -> None:
    one = make_standin()
    for pack in (PACK, PROFILER):
        (one.base / "custom_nodes" / pack.name).symlink_to(pack)
    one.start()
    assert "IMPORT FAILED" not in one.log
    nodes = requests.get(f"{one.url}/object_info", timeout=10).json()
    assert {"StrixboxSaveImage", "StrixboxVAEEncodeCached"} <= set(nodes)
