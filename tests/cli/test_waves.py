"""Canaries first, in processes: how the first wave is awaited, and what ends both."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from strixbox.inventory import ROOT
from tests.cli.test_run import recorded

PYINFRA = (sys.executable, "-m", "pyinfra", "-y")

# What a first wave does, between the parting and the end of its process.
WAVE = """
import json, os, signal, sys, time
import pyinfra_cli  # patches fork, wait and signals by gevent
from strixbox.waves import part, plan
from tests.unit.conftest import boxes_of

waves = plan(boxes_of(canary=("canary",), other=()), {"operations": ("deploy.py",)})
wave, pipe = part(waves)
print("deployed", *wave.names, flush=True)
if pipe:
    %s
    boxes = {"canary": {"outcome": "changed"}}
    with pipe:
        json.dump({"boxes": boxes}, pipe)
"""


def parted(deed: str, number: signal.Signals | None = None) -> tuple[int, str]:
    """Run two waves, the first of which does this; end them by a signal to their parent."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAVE % deed],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    told = ""
    if number is not None:
        while "deployed" not in told:
            told += process.stdout.readline()
        process.send_signal(number)
    told += process.communicate(timeout=20)[0]
    return process.returncode, told


def test_the_second_wave_begins_when_the_first_has_ended() -> None:
    code, told = parted("time.sleep(0.3)")
    assert code == 0, told
    assert told.index("deployed canary") < told.index("wave 2 of 2 (rest): other")
    assert told.index("wave 2 of 2 (rest): other") < told.index("deployed other")


@pytest.mark.parametrize(
    ("deed", "code", "why"),
    [
        ("sys.exit(7)", 7, "did not finish on canary"),
        ("sys.exit(0)", 1, "did not finish on canary"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "did not finish on canary"),
    ],
)
def test_a_first_wave_that_ends_ill_is_the_last(deed: str, code: int, why: str) -> None:
    ended, told = parted(deed)
    assert ended == code, told
    assert f"{why}; the other box was left alone" in told
    assert "deployed other" not in told


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (signal.SIGINT, 130, "was interrupted"),
        (signal.SIGTERM, 143, "did not finish on canary"),
    ],
)
def test_a_signal_to_the_waiting_process_ends_both(
    number: signal.Signals, code: int, why: str
) -> None:
    ended, told = parted("time.sleep(60)", number)
    assert ended == code, told
    assert f"{why}; the other box was left alone" in told
    assert "deployed other" not in told


def test_a_first_wave_that_ended_well_in_spite_of_ctrl_c_is_the_last() -> None:
    deaf = "try: time.sleep(60)\n    except KeyboardInterrupt: pass"
    ended, told = parted(deaf, signal.SIGINT)
    assert ended == 130, told
    assert "was interrupted; the other box was left alone" in told
    assert "deployed other" not in told


def fleet(folder: Path, **ports: int) -> dict[str, str]:
    """Environment of a run over boxes at these ports, of which halo1 is the canary."""
    own = {"ssh_known_hosts_file": str(folder / "known_hosts")}
    boxes = [
        {
            "name": name,
            "address": "127.0.0.1",
            "port": port,
            "user": "anna",
            "groups": ["canary"] if name == "halo1" else [],
            "settings": own,
        }
        for name, port in ports.items()
    ]
    path = folder / "boxes.yaml"
    path.write_text(yaml.safe_dump({"boxes": boxes}), encoding="utf-8")
    return {**os.environ, "STRIXBOX_BOXES": str(path), "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "by --chdir"])
def test_a_canary_that_is_not_reached_leaves_the_others_alone(
    tmp_path: Path, elsewhere: bool
) -> None:
    place = ["--chdir", os.path.relpath(ROOT, tmp_path)] if elsewhere else []
    with (
        socket.socket() as nobody,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        nobody.bind(("127.0.0.1", 0))
        answer = subprocess.run(
            [*PYINFRA, "-v", *place, "--data", "comfyui_port=8190", "inventory.py", "deploy.py"],
            cwd=tmp_path if elsewhere else ROOT,
            env=fleet(tmp_path, halo1=nobody.getsockname()[1], halo2=other.getsockname()[1]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    assert "wave 1 of 2 (canary), deploy: 1 box, 1 failed" in answer.stderr
    assert "failed on halo1; the other box was left alone (halo2)" in answer.stderr
    record = recorded(answer.stderr)
    assert record["wave"] == "canary"
    assert list(record["boxes"]) == ["halo1"]


def test_ctrl_c_in_the_first_wave_leaves_the_others_alone(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        process = subprocess.Popen(
            [*PYINFRA, "inventory.py", "deploy.py"],
            cwd=ROOT,
            env=fleet(tmp_path, halo1=mute.getsockname()[1], halo2=other.getsockname()[1]),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        mute.settimeout(60)
        with mute.accept()[0]:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: both processes
            _, told = process.communicate(timeout=20)
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "was interrupted; the other box was left alone (halo2)" in told
    assert recorded(told)["interrupted"] is True
