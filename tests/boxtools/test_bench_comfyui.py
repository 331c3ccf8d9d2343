"""Measuring the real ComfyUI on the CPU: its events tell the times, its flags are obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from boxtools import cli
from boxtools.private import private_server
from boxtools.settings import ENVIRONMENT, Profile, Settings
from pydantic import TypeAdapter

from .test_private import argv_of

SOURCE = os.environ.get("STRIXBOX_COMFYUI_SRC", "")
PYTHON = os.environ.get("STRIXBOX_COMFYUI_PYTHON", "")
SMALL = ["--steps", "2", "--json"]
# The launch program's contract: PROFILE [NAME=VALUE...] [FLAG...].
LAUNCH = """#!{python}
import os, re, sys
words = sys.argv[2:]
while words and re.match(r"[A-Z_][A-Z0-9_]*=", words[0]):
    name, _, value = words.pop(0).partition("=")
    os.environ[name] = value
    if not value:
        del os.environ[name]
os.chdir({source!r})
os.execv({comfy!r}, [{comfy!r}, "main.py", "--base-directory", {base!r}, "--cpu", *words])
"""

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif(
        not SOURCE or not PYTHON,
        reason="STRIXBOX_COMFYUI_SRC and STRIXBOX_COMFYUI_PYTHON name no ComfyUI",
    ),
]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A box whose service is the real ComfyUI, with one checkpoint of random weights."""
    home = tmp_path_factory.mktemp("box")
    base = home / "ComfyUI"
    for name in ("models/checkpoints", "input", "output", "user", "custom_nodes"):
        (base / name).mkdir(parents=True)
    program = Path(__file__).with_name("random_checkpoint.py")
    target = base / "models/checkpoints/sd_xl_base_random.safetensors"
    subprocess.run([PYTHON, str(program), SOURCE, str(target)], check=True)
    for name in ("state", "ramdisk", "release/venv/bin"):
        (home / name).mkdir(parents=True)
    release = home / "release"
    (release / "ComfyUI").symlink_to(SOURCE)
    (release / "venv/bin/python").write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    (release / "venv/bin/python").chmod(0o755)
    (release / "extra_model_paths.yaml").write_text(f"box:\n  base_path: {base}\n")
    launch = home / "launch"
    launch.write_text(
        LAUNCH.format(python=sys.executable, source=SOURCE, comfy=PYTHON, base=str(base))
    )
    launch.chmod(0o755)
    profile = Profile(flags=("--cpu", "--disable-xformers"), variables=(), preload=False)
    told = {
        "url": "http://127.0.0.1:1",
        "user": "root",
        "service": "comfyui.service",
        "base_directory": base,
        "temp_directory": home / "ramdisk",
        "archive": None,
        "current": release,
        "launch": launch,
        "state": home / "state",
        "stack": "cpu",
        "torch": "cpu",
        "hip": None,
        "tunableop": None,
        "profile": "production",
        "profiles": dict.fromkeys(("production", "normalvram", "lowvram"), profile),
        "variables": {},
        "models": (),
        "ram_gib": 16,
    }
    settings = TypeAdapter(Settings).validate_python(told)
    with ExitStack() as stack:
        # The service is a private server too: what starts one starts the other.
        service = stack.enter_context(private_server(settings))
        yield settings.model_copy(update={"url": service.url})


@pytest.fixture(autouse=True)
def tools(box: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command find the box."""
    file = tmp_path / "tools.json"
    file.write_text(box.model_dump_json())
    monkeypatch.setenv(ENVIRONMENT, str(file))


def test_times_of_a_render(box: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "run", "--plan", "cfg", "--sizes", "64", *SMALL]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["box"]["comfyui"] == "0.3.64"
    assert told["box"]["torch"].startswith("2.")
    for result in told["results"]:
        assert result["failed"] is None
        for run in result["runs"]:
            # The parts are parts: sampling and decoding are most of it, and not more than it.
            parts = run["sampler"] + run["decode"]
            assert 0.5 * run["seconds"] < parts <= run["seconds"] + 0.01
            assert "KSampler" not in run["cached"]
            assert "CheckpointLoaderSimple" in run["cached"]
            assert run["step"] is not None
    first = told["results"][0]
    assert first["cold"]
    assert first["first"]["seconds"] > first["median"]  # it loads the model


def test_vae_and_images(box: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "run", "--plan", "vae", "--sizes", "64", "--runs", "1", "--warmup", "0"]
    assert cli.main([*words, *SMALL]) == 0
    results = {r["name"]: r for r in json.loads(capsys.readouterr().out)["results"]}
    failed = {name for name, result in results.items() if result["failed"]}
    assert failed == {f"vae/tiled-diffusion-{tile}@64x64" for tile in (512, 1024, 2048)}
    assert results["encode/plain@64x64"]["median"] > 0
    assert results["encode/tiled-1024@64x64"]["median"] > 0
    assert results["vae/tiled-512@64x64"]["median"] > 0


def test_a_private_server_and_the_service_at_once(
    box: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "run", "--plan", "tuning", "--sizes", "64", "--runs", "1"]
    assert cli.main([*words, *SMALL]) == 0
    before, after = json.loads(capsys.readouterr().out)["results"]
    assert (before["profile"], after["profile"]) == ("normalvram", None)
    assert before["failed"] is after["failed"] is None


def test_flags_of_the_real_server(box: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "flags", "--disable-xformers", "--size", "64x64"]
    assert cli.main([*words, *SMALL]) == 0
    (choice,) = json.loads(capsys.readouterr().out)["choices"]
    assert choice["advice"] is not None
    assert len(choice["rounds"]) == 5
    assert cli.main(["bench", "flags", "--no-such-flag", *words[3:], *SMALL]) == 1
    assert "unrecognized arguments: --no-such-flag" in capsys.readouterr().out


def test_a_flag_of_the_profile_is_really_gone(box: Settings) -> None:
    with private_server(box, without=("--disable-xformers",)) as server:
        assert "--disable-xformers" not in argv_of(server)
        assert "--cpu" in argv_of(server)
