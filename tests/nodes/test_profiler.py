"""The profiler pack over a torch that only counts: hooks, states, tables."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.nodes.conftest import PROFILER, Comfyless, fake

PATH = "/strixbox/profile"


class Profile:
    """Stands for torch.profiler.profile; remembers in which thread it was driven."""

    made: list[Profile]
    broken: str | None

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.threads: list[int] = []
        Profile.made.append(self)
        self.profiler = SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: [1, 2]))

    def start(self) -> None:
        if Profile.broken == "start":
            raise RuntimeError("another profiler runs")
        self.threads.append(threading.get_ident())

    def stop(self) -> None:
        if Profile.broken == "stop":
            raise RuntimeError("it does not stop")
        self.threads.append(threading.get_ident())

    def key_averages(self) -> list[Any]:
        if Profile.broken == "tables":
            raise RuntimeError("no tables")
        return [
            row("aten::conv2d", 2, self_cpu=30, cpu=40, self_device=300),
            row("node: VAEDecode (4)", 1, self_cpu=5, cpu=100, device=300),
            row("gemm", 2, self_device=300, kind="CUDA"),
            row("node: VAEDecode (4)", 1, self_device=310, kind="CUDA"),
        ]

    def events(self) -> list[Any]:
        node = SimpleNamespace(name="node: VAEDecode (4)", device_type=None, cpu_parent=None)
        inner = row("aten::linear", 1, self_cpu=9)
        inner.cpu_parent = node
        below = row("aten::conv2d", 1, self_cpu=30, self_device=300)
        below.cpu_parent = inner
        return [node, inner, below, row("aten::conv2d", 1, self_cpu=1)]

    def export_chrome_trace(self, path: str) -> None:
        Path(path).write_text('{"traceEvents": []}', encoding="utf-8")


def row(name: str, count: int, kind: str | None = None, **times: float) -> Any:
    """A row of torch's, which is an event as well."""
    made = SimpleNamespace(key=name, name=name, count=count, cpu_parent=None)
    made.device_type = SimpleNamespace(name=kind) if kind else None
    for key in ("self_cpu", "cpu", "self_device", "device"):
        setattr(made, f"{key}_time_total", times.get(key, 0.0))
    return made


class Executor:
    """ComfyUI's PromptExecutor: runs nodes through execution.execute."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def execute(
        self,
        prompt: Any,
        prompt_id: str,
        extra_data: Any = None,
        execute_outputs: Any = (),
    ) -> None:
        asyncio.run(self.all(prompt))

    async def all(self, prompt: dict[str, str]) -> None:
        tree = SimpleNamespace(get_node=lambda node: {"class_type": prompt[node]})
        for node in prompt:
            await self.module.execute(None, tree, None, node, "more")


@pytest.fixture
def comfy(comfyless: Comfyless, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The pack, an executor, and what was run."""
    Profile.made, Profile.broken = [], None
    ran: list[str] = []
    marks: list[str] = []
    clock = [1000.0]  # seconds; the recorder's only

    async def execute(server: Any, prompt: Any, caches: Any, node: str, *rest: Any) -> str:
        ran.append(node)
        clock[0] += 400 if node == "slow" else 0.1
        if node == "fails":
            raise RuntimeError("the node fails")
        return "result"

    @contextlib.contextmanager
    def record_function(name: str) -> Iterator[None]:
        marks.append(name)
        yield

    execution = fake("execution", execute=execute, PromptExecutor=Executor)
    profiler = fake(
        "torch.profiler",
        profile=Profile,
        record_function=record_function,
        ProfilerActivity=SimpleNamespace(CPU="cpu", CUDA="cuda"),
    )
    comfyless.torch.profiler = profiler  # type: ignore[attr-defined]
    comfyless.patch.setitem(sys.modules, "torch.profiler", profiler)
    comfyless.patch.setitem(sys.modules, "execution", execution)
    paths = fake("folder_paths", get_temp_directory=lambda: str(tmp_path))
    comfyless.patch.setitem(sys.modules, "folder_paths", paths)
    recorder = comfyless.part(PROFILER, "recorder")
    fakes = SimpleNamespace(monotonic=lambda: clock[0], strftime=time.strftime)
    comfyless.patch.setattr(recorder, "time", fakes)
    plain = Executor.execute
    yield SimpleNamespace(
        ask=comfyless.routes.ask,
        run=lambda prompt, client=None: Executor(execution).execute(
            prompt, "id-1", {"client_id": client}, []
        ),
        ran=ran,
        marks=marks,
        temp=tmp_path,
        clock=clock,
        untouched=lambda: Executor.execute is plain and execution.execute is execute,
    )
    Executor.execute = plain  # type: ignore[method-assign]


def post(comfy: SimpleNamespace, what: str, **body: Any) -> tuple[int, Any]:
    answer: tuple[int, Any] = comfy.ask("POST", f"{PATH}/{what}", json.dumps(body).encode())
    return answer


def ended(comfy: SimpleNamespace) -> Any:
    """What stop answers once nothing is under way."""
    for _ in range(500):
        _, told = post(comfy, "stop")
        if told["state"] not in ("recording", "writing"):
            return told
        time.sleep(0.01)
    raise AssertionError("it does not end")


PROMPT = {"3": "VAELoader", "4": "VAEDecode"}


def test_one_prompt_is_recorded_in_its_thread(comfy: SimpleNamespace) -> None:
    assert comfy.untouched()
    assert post(comfy, "start", client_id="me", shapes=True) == (200, {"state": "armed"})
    assert not comfy.untouched()
    comfy.run(PROMPT, "other")
    assert Profile.made == [] and comfy.marks == []
    comfy.run(PROMPT, "me")
    assert comfy.untouched()
    assert comfy.marks == ["node: VAELoader (3)", "node: VAEDecode (4)"]
    (made,) = Profile.made
    assert made.threads == [threading.get_ident()] * 2
    assert made.options == {
        "activities": ["cpu"],
        "record_shapes": True,
        "profile_memory": False,
        "with_stack": False,
    }
    comfy.run(PROMPT, "me")
    assert len(Profile.made) == 1
    assert comfy.ran == ["3", "4"] * 3
    told = ended(comfy)
    assert (told["state"], told["prompt_id"], told["events"]) == ("done", "id-1", 2)
    trace = comfy.temp / told["trace"]["subfolder"] / told["trace"]["filename"]
    assert gzip.decompress(trace.read_bytes()) == b'{"traceEvents": []}'
    assert sorted(trace.parent.iterdir()) == [trace]
    assert post(comfy, "stop") == (200, {"state": "idle"})


def test_the_tables(comfy: SimpleNamespace) -> None:
    post(comfy, "start")
    comfy.run(PROMPT)
    told = ended(comfy)
    assert [one["name"] for one in told["operators"]] == ["aten::conv2d"]
    # The GPU's own copy of the node's mark is no kernel.
    assert told["kernels"] == [{"name": "gemm", "calls": 2, "device": 300.0}]
    (node,) = told["nodes"]
    assert (node["node"], node["kind"], node["cpu"], node["device"]) == (
        "4",
        "VAEDecode",
        100.0,
        300.0,
    )
    # By what lies below the node only, at any depth.
    assert [(one["name"], one["calls"], one["self_cpu"]) for one in node["operators"]] == [
        ("aten::conv2d", 1, 30.0),
        ("aten::linear", 1, 9.0),
    ]


def test_older_names_of_times_are_read(comfyless: Comfyless) -> None:
    tables = comfyless.part(PROFILER, "tables")
    old = SimpleNamespace(
        key="x", count=1, cuda_time_total=5, self_cuda_time_total=4, self_cuda_memory_usage=3
    )
    read = tables.operator(old)
    assert (read["device"], read["self_device"], read["device_memory"]) == (5.0, 4.0, 3)


def test_a_second_profile_waits(comfy: SimpleNamespace) -> None:
    assert post(comfy, "start", client_id="a")[0] == 200
    status, told = post(comfy, "start", client_id="b")
    assert status == 409 and "armed" in told["error"]
    # A forgotten one does not keep others away for ever.
    comfy.clock[0] += 3600
    assert post(comfy, "start", client_id="b")[0] == 200
    comfy.run(PROMPT, "a")
    assert Profile.made == []
    assert post(comfy, "stop") == (200, {"state": "idle"})
    assert comfy.untouched()


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_odd_lengths_are_refused(comfy: SimpleNamespace, seconds: int) -> None:
    assert post(comfy, "start", seconds=seconds)[0] == 400
    assert comfy.untouched()


def test_a_failing_node_fails_as_ever(comfy: SimpleNamespace) -> None:
    post(comfy, "start")
    with pytest.raises(RuntimeError, match="the node fails"):
        comfy.run({"fails": "Any"})
    assert comfy.untouched()
    assert ended(comfy)["state"] == "done"


@pytest.mark.parametrize("broken", ["start", "stop", "tables"])
def test_a_failing_profiler_never_fails_the_prompt(comfy: SimpleNamespace, broken: str) -> None:
    Profile.broken = broken
    post(comfy, "start")
    comfy.run(PROMPT)
    assert comfy.ran == ["3", "4"]
    told = ended(comfy)
    assert told["state"] == "failed" and told["error"]
    assert comfy.untouched()
    Profile.broken = None
    post(comfy, "start")
    comfy.run(PROMPT)
    assert ended(comfy)["state"] == "done"


def test_a_long_recording_is_cut(comfy: SimpleNamespace) -> None:
    post(comfy, "start", seconds=60)
    comfy.run({"3": "A", "slow": "B", "5": "C"})
    assert comfy.ran == ["3", "slow", "5"]
    assert comfy.marks == ["node: A (3)", "node: B (slow)"]
    told = ended(comfy)
    assert told["cut"] is True and 400 < told["seconds"] < 401
    assert comfy.untouched()


def test_somebody_elses_wrapper_stays(comfy: SimpleNamespace) -> None:
    post(comfy, "start")
    ours: Callable[..., Any] = Executor.execute
    calls: list[str] = []

    def theirs(self: Executor, *words: Any, **named: Any) -> Any:
        calls.append("theirs")
        return ours(self, *words, **named)

    Executor.execute = theirs  # type: ignore[method-assign]
    comfy.run(PROMPT)
    comfy.run(PROMPT)
    assert Executor.execute is theirs
    assert calls == ["theirs"] * 2 and len(Profile.made) == 1
    assert ended(comfy)["state"] == "done"


def test_few_traces_are_kept(comfy: SimpleNamespace) -> None:
    for _ in range(5):
        post(comfy, "start")
        comfy.run(PROMPT)
        told = ended(comfy)
    folder = comfy.temp / told["trace"]["subfolder"]
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 3 and told["trace"]["filename"] in names
