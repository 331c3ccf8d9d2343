"""``strixbox warmup``: what is tuned, what is kept, and tuning that is off again in any case."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from boxtools import cli, settings, statefile, tunableop, warmup
from boxtools.errors import Trouble, WrongUse
from boxtools.server import Server
from boxtools.settings import Settings
from boxtools.workflows import Job, ObjectInfo, graph
from hypothesis import given
from hypothesis import strategies as st

from tests.boxtools.conftest import MakeStandin, Standin

ROOT = Path(__file__).parents[2]
SIZES = ("--sizes", "64x64,64x128")
PER_SIZE = 8  # results that the stand-in finds for a size


@pytest.fixture
def standin(make_standin: MakeStandin, tmp_path: Path) -> Standin:
    """The stand-in with a GPU, and TunableOp on as the launch profiles have it."""
    results = tmp_path / "box/state/tunableop/rocm-6.4.2-%d.csv"
    one = make_standin(
        variables={
            "STRIXBOX_STANDIN_GPU": "1",
            "PYTORCH_TUNABLEOP_ENABLED": "1",
            "PYTORCH_TUNABLEOP_FILENAME": str(results),
        }
    )
    one.start()
    return one


@pytest.fixture
def gpu(standin: Standin, settings: Settings) -> Standin:
    """The same, as the server of a box."""
    assert settings.tunableop is not None
    assert str(settings.tunableop) == standin.variables["PYTORCH_TUNABLEOP_FILENAME"]
    settings.tunableop.parent.mkdir()
    return standin


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """The command's JSON; its stderr is under ``"told"``."""
    assert cli.main(["warmup", "--json", *words]) == code
    told = capsys.readouterr()
    return (json.loads(told.out) if told.out else {}) | {"told": told.err}


def tuned(standin: Standin) -> tunableop.Tuning:
    return tunableop.ask(Server(standin.url))


def prompts(standin: Standin) -> int:
    return len(Server(standin.url).table("/history"))


def test_sizes_are_tuned_once_and_kept(
    gpu: Standin, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuned(gpu).tuning  # as torch begins
    first = run(capsys, *SIZES, "--batches", "1,2")
    assert list(first["tuned"]) == ["64x64", "64x64x2", "64x128", "64x128x2"]
    assert (first["results_before"], first["results_after"]) == (0, 4 * PER_SIZE)
    assert all(entry["gained"] == PER_SIZE for entry in first["tuned"].values())
    assert not tuned(gpu).tuning
    results = Path(first["filename"])
    assert results.read_text(encoding="utf-8").count("GemmTunableOp") == 4 * PER_SIZE

    again = run(capsys, *SIZES)
    assert (again["tuned"], again["already"]) == ({}, ["64x64", "64x128"])
    more = run(capsys, "--sizes", "64x64,128x128")
    assert (list(more["tuned"]), more["already"]) == (["128x128"], ["64x64"])
    assert list(run(capsys, *SIZES, "--again")["tuned"]) == ["64x64", "64x128"]
    assert not list((settings.state / "warmup").glob("*.new"))


def test_nothing_is_left_in_the_output_directory(
    gpu: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "--sizes", "64x64")
    assert list((gpu.base / "output").iterdir()) == []


def test_a_restart_leaves_nothing_to_tune_but_switches_tuning_off(
    gpu: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, *SIZES)
    gpu.restart()
    assert tuned(gpu).tuning
    report = run(capsys, *SIZES, "--if-new")
    assert report["already"] == ["64x64", "64x128"]
    assert prompts(gpu) == 0
    assert not tuned(gpu).tuning


def test_an_upgrade_is_tuned_anew(
    gpu: Standin, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "--sizes", "64x64")
    (record,) = (settings.state / "warmup").glob("*.json")
    kept = json.loads(record.read_text(encoding="utf-8"))
    kept["validators"]["HIPBLASLT_VERSION"] = "another"
    statefile.write_json(record, kept)
    report = run(capsys, "--sizes", "64x64")
    assert list(report["tuned"]) == ["64x64"]
    assert "HIPBLASLT_VERSION" in report["told"]
    # Another torch or GPU has a record of its own.
    assert warmup.record_file(Path("/s"), "2.9", "gpu") != warmup.record_file(
        Path("/s"), "3", "gpu"
    )


def test_results_that_are_gone_are_tuned_anew(
    gpu: Standin, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(capsys, "--sizes", "64x64")
    Path(first["filename"]).unlink()
    second = run(capsys, "--sizes", "64x64")
    assert list(second["tuned"]) == ["64x64"]
    assert "is gone" in second["told"]


def test_a_damaged_record_is_an_empty_one(
    gpu: Standin, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "--sizes", "64x64")
    (record,) = (settings.state / "warmup").glob("*.json")
    for damage in ("", "[]", "{", '{"torch": 1}', '{"torch": "a", "gpu": "b", "sizes": {"x": 1}}'):
        record.write_text(damage, encoding="utf-8")
        assert list(run(capsys, "--sizes", "64x64")["tuned"]) == ["64x64"]


def test_a_kill_loses_one_size_at_most(
    gpu: Standin, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.restart(STRIXBOX_STANDIN_STEP="0.1")
    process = start(*SIZES, "--batches", "1,2")
    wait_for(lambda: any((settings.state / "warmup").glob("*.json")))
    process.kill()
    process.communicate()
    server = Server(gpu.url)
    wait_for(lambda: server.queue() == ([], []))
    report = run(capsys, *SIZES)
    assert "64x64" in report["already"]
    assert "64x128" in report["tuned"]
    assert not tuned(gpu).tuning


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_tuning_is_off_after_an_end_by_signal(gpu: Standin, by: signal.Signals) -> None:
    gpu.restart(STRIXBOX_STANDIN_STEP="0.1")
    server = Server(gpu.url)
    server.json("POST", tunableop.ROUTE, json={"tuning": False})
    process = start(*SIZES)
    wait_for(lambda: tuned(gpu).tuning and bool(server.queue()[0]))
    process.send_signal(by)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not tuned(gpu).tuning
    wait_for(lambda: server.queue() == ([], []))


def test_a_size_that_fails_is_told_and_tuning_is_off(
    gpu: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.fault("node-error")
    report = run(capsys, *SIZES, code=1)
    assert list(report["failed"]) == ["64x64", "64x128"]
    assert "out of memory" in report["failed"]["64x64"]
    assert not tuned(gpu).tuning
    gpu.fault("node-error", wanted=False)
    assert list(run(capsys, *SIZES)["tuned"]) == ["64x64", "64x128"]


def test_a_server_that_dies_ends_it(gpu: Standin, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.fault("crash-while-rendering")
    report = run(capsys, *SIZES, code=1)
    assert report["told"].count("strixbox: ") == 1
    assert "Traceback" not in report["told"]


def test_it_waits_for_others(gpu: Standin, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.restart(STRIXBOX_STANDIN_STEP="0.05")
    server = Server(gpu.url)
    tunableop.ask(server, tuning=False)
    job = Job(width=128, height=128, steps=10)
    theirs = server.submit(graph(job, ObjectInfo.ask(server)))
    report = run(capsys, "--sizes", "64x64")
    assert "what others queued" in report["told"]
    assert server.history(theirs) is not None
    assert report["results_after"] == PER_SIZE  # theirs was not tuned


def test_one_at_a_time(
    gpu: Standin, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with warmup.alone(settings.state):
        assert "another warm-up" in run(capsys, *SIZES, code=1)["told"]
    run(capsys, "--sizes", "64x64")


def test_status(gpu: Standin, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--sizes", "64x64")
    told = run(capsys, "--status")
    assert list(told["sizes"]["sd_xl_base_1.0.safetensors"]) == ["64x64"]
    assert (told["obstacle"], told["stale"]) == (None, None)
    assert told["tunableop"]["results"] == PER_SIZE
    assert cli.main(["warmup", "--status"]) == cli.main(["warmup", "--sizes", "64x64"]) == 0
    out = capsys.readouterr().out
    assert "64x64" in out
    assert "tuned before" in out


# --- Where nothing can be tuned -----------------------------------------------------------------


def test_without_a_gpu(
    standin: Standin, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.restart(STRIXBOX_STANDIN_GPU="0")
    assert "on the CPU" in run(capsys, "--if-new")["note"]
    told = run(capsys, code=1)["told"]
    assert "--anyway" in told
    assert told.count("\n") == 1
    assert prompts(standin) == 0
    report = run(capsys, "--anyway", "--sizes", "64x64")
    assert (report["tuning"], list(report["tuned"])) == (False, ["64x64"])
    assert prompts(standin) == 2
    assert not list(settings.state.rglob("*.json"))


def test_tunableop_off_in_the_profile_and_held_off_by_a_variable(
    gpu: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.restart(PYTORCH_TUNABLEOP_TUNING="0")
    assert "PYTORCH_TUNABLEOP_TUNING=0" in run(capsys, *SIZES, code=1)["told"]
    gpu.restart(PYTORCH_TUNABLEOP_ENABLED="0")
    assert "PYTORCH_TUNABLEOP_ENABLED=1" in run(capsys, "--if-new")["note"]


def test_a_new_box_without_models(gpu: Standin, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (gpu.base / "models/checkpoints").iterdir():
        path.unlink()
    assert "models/checkpoints" in run(capsys, "--if-new")["note"]
    assert not tuned(gpu).tuning
    assert "models/checkpoints" in run(capsys, code=1)["told"]


class Odd(Server):
    """A server whose calls answer what they are told."""

    def __init__(self, stats: Any, told: Any) -> None:
        super().__init__("http://127.0.0.1:1")
        self.stats = stats
        self.told = told

    def system_stats(self) -> dict[str, Any]:
        return dict(self.stats)

    def json(self, method: str, path: str, **words: Any) -> Any:
        if isinstance(self.told, Trouble):
            raise self.told
        return self.told


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)
STATS = st.fixed_dictionaries({}, optional={"system": ODD, "devices": ODD | st.lists(ODD)})
STATE = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("supported", "reason", "enabled", "tuning", "filename", "results"), ODD)
    | {"validators": ODD | st.dictionaries(st.text(max_size=4), ODD, max_size=2)},
)


@given(stats=STATS, told=ODD | STATE)
def test_odd_answers_raise_nothing(stats: Any, told: Any) -> None:
    server = Odd(stats, told)
    torch, gpu, is_gpu = warmup.machine(server)
    state = tunableop.ask(server)
    tunableop.obstacle(state, is_gpu)
    assert warmup.record_file(Path("/state"), torch, gpu).parent == Path("/state/warmup")
    record = warmup.Record(torch=torch, gpu=gpu, validators={"a": "b"}, results=1)
    warmup.stale(record, state)


def test_a_server_without_the_route() -> None:
    state = tunableop.ask(Odd({}, Trouble("ComfyUI answers with 404 Not Found; see the log")))
    assert not state.supported
    sentence = tunableop.obstacle(state, gpu=True)
    assert sentence is not None
    assert "404 Not Found" in sentence
    assert "deploy" in sentence


@pytest.mark.parametrize("batches", ["0", "-1", "x", "", "1,,2", "9999"])
def test_batches_that_are_none(batches: str) -> None:
    with pytest.raises(WrongUse):
        warmup.parse_sizes("64x64", batches)


def test_waiting_for_the_server_is_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warmup, "IDLE", 0.01)
    with pytest.raises(Trouble, match="does not answer"):
        warmup.answers(Server("http://127.0.0.1:1"), 0.1)


def test_waiting_for_a_server_that_starts(gpu: Standin, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.stop()
    process = start("--sizes", "64x64", "--wait", "30")
    time.sleep(0.5)
    assert process.poll() is None
    gpu.start()
    assert process.wait(timeout=30) == 0


# --- The unit -----------------------------------------------------------------------------------


def test_the_unit_runs_the_command_that_is_there() -> None:
    text = (ROOT / "templates/etc/systemd/system/strixbox-warmup.service.j2").read_text("utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    program, name, *flags = line.removeprefix("ExecStart=").split()
    assert (program, name) == ("/usr/local/bin/strixbox", "warmup")
    from boxtools.commands.warmup import command

    command.make_context("warmup", list(flags))


def start(*words: str) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-c", "import sys; from boxtools.cli import main; sys.exit(main())"),
            *("warmup", *words),
        ],
        env=os.environ
        | {
            settings.ENVIRONMENT: os.environ[settings.ENVIRONMENT],
            "PYTHONPATH": str(ROOT / "files/opt/strixbox"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(true: Any) -> None:
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(Trouble):
            if true():
                return
        assert time.monotonic() < until
        time.sleep(0.02)
