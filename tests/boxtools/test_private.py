"""A private server: its own port, temporary directory and database, and gone for certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from boxtools import private
from boxtools.errors import Trouble
from boxtools.private import last_words, private_server, words_without
from boxtools.server import Server
from boxtools.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from .conftest import CODE, Standin


def argv_of(server: Server) -> list[str]:
    """Command line of a server."""
    system = server.system_stats()["system"]
    return [str(word) for word in system["argv"]]


def value(argv: list[str], flag: str) -> str:
    """The value that argparse takes: that of the last."""
    return argv[len(argv) - argv[::-1].index(flag)]


def answers(url: str) -> bool:
    """Whether anything listens there."""
    try:
        requests.get(f"{url}/queue", timeout=5)
    except requests.RequestException:
        return False
    return True


def test_it_has_its_own_port_temporary_directory_and_database(
    settings: Settings, standin: Standin
) -> None:
    theirs = standin.temp / "temp" / "preview.png"
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_bytes(b"x")
    with private_server(settings, flags=("--preview-method", "none")) as server:
        argv = argv_of(server)
        home = Path(value(argv, "--temp-directory"))
        assert home.parent == standin.temp
        assert home.stat().st_mode & 0o077 == 0
        assert value(argv, "--database-url") == f"sqlite:///{home}/comfyui.db"
        assert value(argv, "--base-directory") == str(standin.base)
        assert value(argv, "--preview-method") == "none"
        assert "--highvram" in argv  # of the service's profile
        assert answers(standin.url)
    assert not answers(server.url)
    assert not home.exists()
    assert theirs.exists()


def test_profile_and_variables(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "WITH_PARENT", ("env",))
    told = tmp_path / "told"
    spy = tmp_path / "spy"
    spy.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(told)!r}, 'w').write(repr(sys.argv))\n"
    )
    spy.chmod(0o755)
    spied = settings.model_copy(update={"launch": spy})
    with (
        pytest.raises(Trouble, match="ended with 0: it wrote nothing"),
        private_server(spied, "lowvram", variables={"A_B": "1", "GPU_MAX_HEAP_SIZE": ""}),
    ):
        pass
    assert "'lowvram', 'A_B=1', 'GPU_MAX_HEAP_SIZE='," in told.read_text()


def put_release(settings: Settings, standin: Standin) -> None:
    """Make ``settings.current`` a release whose ComfyUI is the stand-in."""
    release = settings.current.resolve()
    (release / "venv/bin").mkdir(parents=True)
    (release / "ComfyUI").symlink_to(CODE)
    (release / "extra_model_paths.yaml").write_text("{}")
    python = release / "venv/bin/python"
    paths = f"PYTHONPATH={standin.torch} PYTHONDONTWRITEBYTECODE=1"
    python.write_text(f'#!/bin/sh\n{paths} exec {standin.python} "$@"\n')
    python.chmod(0o755)


def test_flags_of_the_profile_can_be_left_out(settings: Settings, standin: Standin) -> None:
    put_release(settings, standin)
    with private_server(settings, without=("--highvram",)) as server:
        argv = argv_of(server)
    assert "--highvram" not in argv
    assert "--use-pytorch-cross-attention" in argv
    assert value(argv, "--base-directory") == str(standin.base)


def test_variables_of_a_server_past_the_launch_program(settings: Settings) -> None:
    argv, environment = private.direct(
        settings, "production", ("--highvram",), {"GPU_MAX_HEAP_SIZE": "", "A_B": "1"}
    )
    assert environment["A_B"] == "1"
    assert environment["PYTORCH_TUNABLEOP_ENABLED"] == "1"
    assert "GPU_MAX_HEAP_SIZE" not in environment
    assert argv[-1] == "--use-pytorch-cross-attention"
    settings.current.unlink()
    with pytest.raises(Trouble, match="names no release"):
        private.direct(settings, "production", (), {})


def test_tunableop_results_are_read_and_never_replaced(settings: Settings) -> None:
    assert settings.tunableop is not None
    settings.tunableop.parent.mkdir(parents=True)
    kept = settings.tunableop.parent / settings.tunableop.name.replace("%d", "0")
    kept.write_text("tuned")
    profile = settings.profiles["production"].model_copy(update={"variables": (private.TUNABLEOP,)})
    ours = settings.model_copy(update={"profiles": {"production": profile}})
    home = settings.state / "home"
    home.mkdir()
    wanted = private._apart(ours, "production", {}, home)
    assert wanted == {private.TUNABLEOP: f"{home}/{settings.tunableop.name}"}
    assert (home / kept.name).read_text() == "tuned"
    assert private._apart(settings, "production", {}, home) == {}
    gone = {private.TUNABLEOP: ""}
    assert private._apart(ours, "production", gone, home) == gone


def test_unknown_profile(settings: Settings) -> None:
    with pytest.raises(Trouble, match="no launch profile turbo; this box has lowvram, normalvram"):
        private_server(settings, "turbo").__enter__()


def test_it_is_never_roots_where_the_service_is_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    theirs = settings.model_copy(update={"user": "comfy"})
    with pytest.raises(Trouble, match="sudo -u comfy strixbox"):
        private_server(theirs).__enter__()


def test_it_ends_with_its_log_where_it_does_not_start(settings: Settings) -> None:
    with (
        pytest.raises(Trouble, match=r"ended with \d+: .*unrecognized arguments: --no-such-flag"),
        private_server(settings, flags=("--no-such-flag",)),
    ):
        pass
    assert list(settings.temp_directory.glob("private-*")) == []


def test_one_that_does_not_answer_is_ended(
    settings: Settings, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxtools.server.ANSWER", 0.5)
    standin.fault("hang")
    with pytest.raises(Trouble, match="did not answer within 1 s"):
        private_server(settings, start=1.0).__enter__()
    assert list(settings.temp_directory.glob("private-*")) == []


def test_a_launch_program_that_is_not_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "WITH_PARENT", ())
    gone = settings.model_copy(update={"launch": settings.state / "gone"})
    with pytest.raises(Trouble, match=r"gone does not start \(No such file or directory\)"):
        private_server(gone).__enter__()


PROGRAM = """
import os, sys, time
from boxtools import settings
from boxtools.private import private_server
with private_server(settings.load()) as server:
    print(server.url, flush=True)
    time.sleep(60)
"""


# What a script starts with & ignores SIGINT, and so does what that starts.
IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


@pytest.mark.parametrize(
    ("before", "number"),
    [
        *(((), number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        ((), signal.SIGKILL),
        (IN_BACKGROUND, signal.SIGTERM),
        (IN_BACKGROUND, signal.SIGKILL),
    ],
)
def test_it_ends_however_its_parent_ends(
    settings: Settings, before: tuple[str, ...], number: int
) -> None:
    paths = os.pathsep.join(sys.path)
    parent = subprocess.Popen(
        [*before, sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
    )
    assert parent.stdout is not None
    url = parent.stdout.readline().strip()
    assert answers(url)
    parent.send_signal(number)
    parent.wait(20)
    for _ in range(100):
        if not answers(url):
            break
        time.sleep(0.1)
    assert not answers(url)


def test_one_that_ignores_sigint_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "END", 0.2)
    # A shell that ignores a signal has its children ignore it too.
    process = subprocess.Popen(
        ["sh", "-c", "trap '' INT; echo deaf; sleep 60"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    private._end(process)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("flags", "without", "left"),
    [
        (("--a", "--b", "1", "2", "--c"), ("--b",), ["--a", "--c"]),
        (("--a=1", "--ab"), ("--a",), ["--ab"]),
        (("--a",), (), ["--a"]),
    ],
)
def test_words_without(flags: tuple[str, ...], without: tuple[str, ...], left: list[str]) -> None:
    assert words_without(flags, without) == left


@given(st.binary(max_size=10_000))
def test_last_words_of_any_log(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    log = tmp_path_factory.getbasetemp() / "log"
    log.write_bytes(content)
    told = last_words(log)
    assert told.isprintable()
    assert 0 < len(told) <= 400


def test_last_words_of_no_log(tmp_path: Path) -> None:
    assert last_words(tmp_path / "none") == "it wrote nothing"
    (tmp_path / "log").write_text("first\nsecond\n\nthird\nfourth\n")
    assert last_words(tmp_path / "log") == "second / third / fourth"
