"""The entry points as commands: what is said and recorded of a run that reaches no box."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from strixbox.inventory import ROOT

BOXES = [{"name": f"halo{n}", "address": "127.0.0.1", "user": "anna"} for n in (1, 2)]


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that refuses connections for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def order(
    folder: Path, port: int, *flags: str, entry: str = "deploy.py"
) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of pyinfra over two boxes at a port and the next one."""
    own = {"ssh_known_hosts_file": str(folder / "known_hosts")}
    boxes = [box | {"port": port + n, "settings": own} for n, box in enumerate(BOXES)]
    path = folder / "boxes.yaml"
    path.write_text(yaml.safe_dump({"boxes": boxes}), encoding="utf-8")
    words = [sys.executable, "-m", "pyinfra", *flags, "inventory.py", *entry.split()]
    return words, {**os.environ, "STRIXBOX_BOXES": str(path)}


def called(
    folder: Path, port: int, *flags: str, entry: str = "deploy.py"
) -> subprocess.CompletedProcess[str]:
    """Run pyinfra without a terminal over two boxes that cannot be reached."""
    words, environment = order(folder, port, *flags, entry=entry)
    return subprocess.run(
        words,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def recorded(told: str) -> dict[str, Any]:
    """The record that a run wrote; it is taken away."""
    found = re.search(r"record: (\S+)", told)
    assert found, told
    path = ROOT / found.group(1)
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return record


@pytest.mark.parametrize("flags", [["-y"], ["-y", "--dry"]])
def test_a_run_that_reaches_no_box_is_told_and_recorded(
    tmp_path: Path, nobody: int, flags: list[str]
) -> None:
    answer = called(tmp_path, nobody, *flags)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    record = recorded(answer.stderr)
    assert record["entry"] == "deploy"
    assert record["dry"] is ("--dry" in flags)
    for name in ("halo1", "halo2"):
        assert record["boxes"][name]["outcome"] == "failed"
        assert "not reached" in record["boxes"][name]["trouble"]
        assert f"{name}: failed; nothing was run" in answer.stderr


def test_without_a_terminal_nothing_is_asked(tmp_path: Path, nobody: int) -> None:
    answer = called(tmp_path, nobody)
    assert answer.returncode == 2
    assert "No box was touched: there is no terminal to ask on" in answer.stderr
    assert "add -y" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "record:" not in answer.stderr


def test_ctrl_c_while_boxes_are_connected_to_is_told_and_recorded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        words, environment = order(tmp_path, mute.getsockname()[1], "-y", "--limit", "halo1")
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        mute.settimeout(60)
        with mute.accept()[0]:
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "halo1: interrupted; nothing was run" in told
    assert "interrupted; run the same command again to finish" in told
    assert "not reached" not in told
    assert "Traceback" not in told
    assert recorded(told)["interrupted"] is True


# A signal that comes while a thread of paramiko's, or the loop itself, is at work.
INTERRUPTED = """
import os, signal, sys, threading, time
import pyinfra_cli  # patches threads by gevent
from pyinfra.api.state import State
from strixbox.run import RunLog, _keep

def thread():
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(1)

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, and so do the runs under it
_keep(RunLog(State(), "deploy"))
if sys.argv[2] == "thread":
    threading.Thread(target=thread).start()
    time.sleep(10)
else:
    thread()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("place", ["main", "thread"])
def test_a_signal_ends_the_run_wherever_it_comes(number: signal.Signals, place: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(number.value), place],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 128 + number, answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("option", ["--limit", "--exclude"])
def test_a_word_that_names_no_box_is_wrong_use(tmp_path: Path, nobody: int, option: str) -> None:
    answer = called(tmp_path, nobody, "-y", option, "halo9")
    assert answer.returncode == 2
    assert f"No box was touched: {option} halo9 names no box" in answer.stderr
    assert "halo1, halo2" in answer.stderr
    assert "record:" not in answer.stderr


def test_what_changes_nothing_needs_no_terminal(tmp_path: Path, nobody: int) -> None:
    answer = called(tmp_path, nobody, entry="verify.py")
    assert answer.returncode == 1
    assert "no terminal" not in answer.stderr
    assert recorded(answer.stderr)["boxes"]["halo1"]["outcome"] == "failed"


@pytest.mark.parametrize("flags", [["--json"], ["--dry"], ["--no-wait", "-y"]])
def test_a_verify_that_looks_at_nothing_is_wrong_use(
    tmp_path: Path, nobody: int, flags: list[str]
) -> None:
    answer = called(tmp_path, nobody, *flags, entry="verify.py")
    assert answer.returncode == 2
    assert "No box was touched: " in answer.stderr
    assert "record:" not in answer.stderr


# pyinfra's own question, with standard input at its end.
QUESTION = """
import sys
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_state
from pyinfra_cli import cli
from strixbox.command_line import answer_questions

state = State()
ctx_state.set(state)
answer_questions(sys.argv[1])
state.current_stage = StateStage[sys.argv[2]]
print("answered", cli._do_confirm("Go on?"))
"""


@pytest.mark.parametrize(
    ("entry", "stage", "typed", "code", "told"),
    [
        ("deploy", "Prepare", "", 2, "Nobody answered: no box was changed; press Enter"),
        ("deploy", "Execute", "", 2, "Nobody answered: run the same command again to finish."),
        ("deploy", "Prepare", "\n", 0, "answered True"),
        ("deploy", "Prepare", "no\n", 1, "The answer was no: no box was changed; press Enter"),
        ("deploy", "Execute", "no\n", 1, "The answer was no: run the same command again"),
        ("verify", "Prepare", "", 0, "answered True"),
        ("deploy+verify", "Prepare", "", 2, "Nobody answered: no box was changed"),
    ],
)
def test_a_question_that_is_not_answered_with_yes(
    entry: str, stage: str, typed: str, code: int, told: str
) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", QUESTION, entry, stage],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == code, answer.stderr
    assert told in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert ("Go on?" in answer.stderr) is (entry != "verify")


def test_what_deploys_nothing_needs_no_terminal(tmp_path: Path, nobody: int) -> None:
    answer = called(tmp_path, nobody, entry="debug-inventory")
    assert answer.returncode == 0, answer.stderr
    assert "record:" not in answer.stderr
