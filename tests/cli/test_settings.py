"""Wrong settings end a run before any connection is made."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from strixbox.inventory import ROOT
from tests.unit.conftest import GROUPS
from tests.unit.test_config import MALFORMED
from tests.unit.test_inventory import MALFORMED as MALFORMED_ENTRIES


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    """Where boxes would listen, one for each malformed setting; nobody may have knocked."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in MALFORMED]
        yield sockets
        for listener in sockets:
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()


def box_at(listener: socket.socket, **more: Any) -> dict[str, Any]:
    """A box of boxes.yaml, named for its port."""
    port = listener.getsockname()[1]
    return {"name": f"halo{port}", "address": "127.0.0.1", "port": port, "user": "anna"} | more


def refused(folder: Path, boxes: list[Any], *words: str) -> list[str]:
    """The mistakes that a run over these boxes ends with, a line each."""
    path = folder / "boxes.yaml"
    path.write_text(yaml.safe_dump({"boxes": boxes}), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-m", "pyinfra", "-y", *words],
        cwd=ROOT,
        env={**os.environ, "STRIXBOX_BOXES": str(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert "Traceback" not in answer.stdout + answer.stderr
    _, said, mistakes = answer.stderr.partition("No box was touched; mend these settings first:\n")
    assert said
    return [line.strip() for line in mistakes.splitlines() if line.strip()]


def own_settings(change: Any) -> dict[str, Any]:
    """What a box has to set of its own to have what this change makes of the data for all."""
    before = deepcopy(GROUPS["all"]) | {
        "box_user": "anna",
        "box_home": "/home/anna",
        "comfyui_base_directory": "/home/anna/ComfyUI",
    }
    data = deepcopy(before)
    change(data)
    return {key: value for key, value in data.items() if before.get(key) != value}


def test_each_malformed_setting_is_told_in_a_line_and_nobody_is_connected_to(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    # A setting that is left out has to be left out for all boxes, and is not a box's own.
    cases = [(own, words) for change, words in MALFORMED.values() if (own := own_settings(change))]
    assert len(cases) > 70
    boxes = [
        box_at(listener, settings=own) for listener, (own, _) in zip(listeners, cases, strict=False)
    ]
    mistakes = refused(tmp_path, boxes, "inventory.py", "deploy.py")
    assert len(mistakes) == len(cases)
    for box, (_, words) in zip(boxes, cases, strict=True):
        (line,) = [line for line in mistakes if line.startswith(f"box {box['name']}:")]
        assert words in line


def test_malformed_entries_are_all_told_and_the_sound_box_is_not_connected_to(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    boxes, expected = [box_at(listeners[0])], []
    for entries, words in MALFORMED_ENTRIES.values():
        if isinstance(entries, list) and len(entries) == 1:  # not about the file, or two boxes
            boxes += entries
            expected.append(words.removeprefix("box number 1: "))
    assert len(expected) > 15
    mistakes = refused(tmp_path, boxes, "inventory.py", "deploy.py")
    for words in expected:
        assert any(words in line for line in mistakes), words


@pytest.mark.parametrize(
    "words",
    [
        ["inventory.py", "verify.py"],
        ["--dry", "inventory.py", "deploy.py"],
        ["--limit", "halo1", "inventory.py", "rollback.py"],
        ["--data", "comfyui_port=99", "inventory.py", "uninstall.py"],
    ],
)
def test_no_way_to_run_connects_with_wrong_settings(
    tmp_path: Path, listeners: list[socket.socket], words: list[str]
) -> None:
    boxes = [box_at(listeners[0], name="halo1"), box_at(listeners[1], name="halo2")]
    if "--data" not in words:
        boxes[1]["settings"] = {"comfyui_port": "x"}  # also where the box itself is not asked for
    (line,) = refused(tmp_path, boxes, *words)
    assert "comfyui_port" in line
