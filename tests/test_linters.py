"""ruff, mypy and shellcheck find nothing: one test each, as for any other promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from strixbox.launch import script_path
from strixbox.layout import BIN
from strixbox.tree import ROOT, rendered


def clean(*words: str, text: str | None = None) -> None:
    """Run a linter; what it says is the failure's text."""
    answer = subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), *words[1:]],
        input=text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def tracked() -> list[Path]:
    """Files of the project that git knows, or would at the next commit."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in told.split("\0") if name and (ROOT / name).is_file()]


def shell_scripts() -> list[str]:
    """Files that a POSIX shell runs."""
    return [
        str(path)
        for path in tracked()
        if path.suffix != ".j2" and path.read_bytes().startswith((b"#!/bin/sh", b"#!/bin/bash"))
    ]


def test_ruff_finds_nothing() -> None:
    clean("ruff", "check", "--quiet", ".")


def test_every_file_is_formatted() -> None:
    clean("ruff", "format", "--quiet", "--check", ".")


def test_types_are_sound() -> None:
    clean("mypy")


def test_types_of_the_command_are_sound() -> None:
    # By itself: mypy takes one program without a suffix at a time.
    clean("mypy", "files/usr/local/bin/strixbox")


@pytest.mark.parametrize("path", shell_scripts(), ids=lambda path: Path(path).name)
def test_shell_scripts_are_sound(path: str) -> None:
    clean("shellcheck", path)


def test_rendered_launch_script_is_sound() -> None:
    script = rendered(
        script_path("production"), image=f"{BIN}/launch_comfyui.sh", profile="production"
    )
    clean("shellcheck", "-", text=script.content.decode())
