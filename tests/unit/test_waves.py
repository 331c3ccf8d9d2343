"""Canaries first: which runs are parted, what stops the second wave, how the first is awaited."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from strixbox.groups import read_group_data
from strixbox.inventory import ROOT, check_settings
from strixbox.waves import plan, stop
from tests.unit.conftest import boxes_of
from tests.unit.test_run import recorded

BOXES = boxes_of(old=("rocm_7_2",), halo1=("canary",), halo2=(), halo3=("canary", "rocm_7_2"))
PYINFRA = (sys.executable, "-m", "pyinfra", "-y")
DEPLOY = {"operations": ("deploy.py",)}


def test_the_canaries_come_first_and_the_others_after_them() -> None:
    waves = plan(BOXES, DEPLOY)
    assert waves
    assert [wave.names for wave in waves] == [("halo1", "halo3"), ("old", "halo2")]
    assert waves[0].title == "wave 1 of 2 (canary)"
    assert waves[1].title == "wave 2 of 2 (rest)"


@pytest.mark.parametrize(
    "words",
    [
        {"yes": True},
        {"yes": True, "json_output": True},
        {"operations": ("/srv/strixbox/deploy.py",)},
        {"limit": (), "exclude": ()},
    ],
)
def test_runs_that_are_parted(words: dict[str, Any]) -> None:
    assert plan(BOXES, DEPLOY | words)


@pytest.mark.parametrize(
    "words",
    [
        {"limit": ("halo2",)},
        {"exclude": ("canary",)},
        {"dry": True},
        {"debug_facts": True},
        {"debug_operations": True},
        {"operations": ("rollback.py",)},
        {"operations": ("verify.py",)},
        {"operations": ("uninstall.py",)},
        {"operations": ()},
    ],
)
def test_runs_that_are_not_parted(words: dict[str, Any]) -> None:
    assert plan(BOXES, DEPLOY | words) is None


def test_boxes_that_are_not_parted() -> None:
    assert plan(boxes_of(halo1=(), halo2=("rocm_7_2",)), DEPLOY) is None
    assert plan(boxes_of(halo1=("canary",), halo2=("canary",)), DEPLOY) is None


def test_a_box_has_the_same_settings_in_its_wave_as_among_all() -> None:
    # Alone, halo3 would name the groups the other way round, and the later group's data wins.
    boxes = boxes_of(halo1=("one",), halo2=("two",), halo3=("canary", "two", "one"))
    groups = read_group_data() | {"one": {"comfyui_port": 9001}, "two": {"comfyui_port": 9002}}
    whole = check_settings(boxes, groups)
    waves = plan(boxes, DEPLOY)
    assert waves
    parts: dict[str, Any] = {}
    for wave in waves:
        assert list(wave.boxes.groups()) == list(boxes.groups())
        parts |= check_settings(wave.boxes, groups)
    assert parts == whole
    assert whole["halo3"].comfyui.port == 9002


@pytest.mark.parametrize(
    ("code", "outcomes", "told"),
    [
        (0, {"halo1": "changed", "halo3": "unchanged"}, None),
        (1, {"halo1": "failed", "halo3": "changed"}, "failed on halo1; "),
        (1, {"halo1": "failed", "halo3": "failed"}, "failed on halo1, halo3; "),
        (130, {"halo1": "unfinished", "halo3": "changed"}, "was interrupted; "),
        (130, {"halo1": "changed", "halo3": "changed"}, "was interrupted; "),
        (0, {"halo1": "unfinished", "halo3": "changed"}, "did not finish on halo1; "),
        (0, {"halo3": "changed"}, "did not finish on halo1; "),
        (1, {}, "did not finish on halo1, halo3; "),
        (1, {"halo1": "changed", "halo3": "changed"}, "ended with 1; "),
    ],
)
def test_what_stops_the_second_wave(code: int, outcomes: dict[str, str], told: str | None) -> None:
    waves = plan(BOXES, DEPLOY)
    assert waves
    sentence = stop(*waves, code, outcomes)
    if told is None:
        assert sentence is None
        return
    assert sentence
    assert sentence.startswith(f"wave 1 of 2 (canary) {told}")
    assert "the other 2 boxes were left alone (old, halo2)" in sentence
    assert "run the same command again" in sentence
    assert ("mend it" in sentence) is (code == 1)
    assert "--exclude canary" in sentence


def test_one_box_left_alone_is_told_as_one() -> None:
    waves = plan(boxes_of(halo1=("canary",), halo2=()), DEPLOY)
    assert waves
    sentence = str(stop(*waves, 1, {"halo1": "failed"}))
    assert "the other box was left alone (halo2)" in sentence


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
