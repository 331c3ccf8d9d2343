"""strixbox dashboard: a tmux session that can be started twice, in a tmux server of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boxtools import dashboard
from boxtools.cli import main
from boxtools.errors import Trouble, WrongUse
from boxtools.settings import Settings

Tmux = Callable[..., str]


@pytest.fixture
def tmux(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tmux]:
    """Asks a tmux server of the test's own, which the dashboard finds by TMUX_TMPDIR."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    # Not below tmp_path: the path of a socket has 108 characters at most.
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("TMUX_TMPDIR", directory)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("TMUX", raising=False)

        def run(*words: str) -> str:
            answer = subprocess.run(
                ["tmux", *words], capture_output=True, text=True, check=False, timeout=20
            )
            return answer.stdout

        yield run
        run("kill-server")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins of what runs in the panes; they write their words to a file and stay."""
    for name in ("strixbox", "htop", "journalctl"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        told = f"{tmp_path}/{name}.words"
        script = f'#!/bin/sh\necho "$STRIXBOX_TOOLS $*" > {told}.new\nmv {told}.new {told}\n'
        path.write_text(f"{script}exec sleep 60\n", encoding="utf-8")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def test_it_can_be_started_twice_and_ended_twice(
    tmux: Tmux, programs: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard"]) == 0
    assert "comfyui_monitor runs now" in capsys.readouterr().err
    until(lambda: len(list(programs.glob("*.words"))) == 3)
    tools = os.environ["STRIXBOX_TOOLS"]
    words = {path.stem: path.read_text(encoding="utf-8") for path in programs.glob("*.words")}
    assert words["strixbox"] == f"{tools} monitor\n"
    assert words["journalctl"] == f"{tools} --follow --unit comfyui.service --lines 100\n"
    panes = tmux("list-panes", "-t", "=comfyui_monitor", "-F", "#{pane_active}").split()
    assert panes == ["1", "0", "0"]

    assert main(["dashboard"]) == 0
    assert "runs already; show it: tmux attach -t comfyui_monitor" in capsys.readouterr().err
    assert tmux("list-sessions", "-F", "#{session_name}") == "comfyui_monitor\n"

    assert main(["dashboard", "--kill"]) == 0
    assert main(["dashboard", "--kill"]) == 0
    assert "there is no session comfyui_monitor" in capsys.readouterr().err
    assert tmux("list-sessions") == ""


def test_a_session_whose_name_begins_the_same_is_another(
    tmux: Tmux, programs: Path, settings: Settings
) -> None:
    tmux("new-session", "-d", "-s", "comfyui_monitor2", "sleep 60")
    assert not dashboard.exists("comfyui_monitor")
    assert main(["dashboard"]) == 0
    assert main(["dashboard", "--kill"]) == 0
    assert tmux("list-sessions", "-F", "#{session_name}") == "comfyui_monitor2\n"


def test_a_start_that_was_overtaken_is_no_mistake(tmux: Tmux, programs: Path) -> None:
    assert dashboard.create("one", ["strixbox", "monitor"], "comfyui")
    assert not dashboard.create("one", ["strixbox", "monitor"], "comfyui")


def test_a_session_that_cannot_be_finished_leaves_nothing(
    tmux: Tmux, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "SIZE", ("-x", "200", "-y", "2"))  # no room to split below
    with pytest.raises(Trouble, match="tmux cannot split-window"):
        dashboard.create("one", ["strixbox", "monitor"], "comfyui")
    assert not dashboard.exists("one")


def test_a_program_that_fails_stays_to_show_why(tmux: Tmux, programs: Path) -> None:
    # tmux 3.3a now and then shows nothing of a program that ends at once, some 1 in 40.
    script = "#!/bin/sh\necho no journal\nsleep 0.2\nexit 1\n"
    (programs / "bin/journalctl").write_text(script, encoding="utf-8")
    dashboard.create("one", ["strixbox", "monitor"], "comfyui")
    # "Pane is dead" pushes the first line into the history.
    until(lambda: "no journal" in tmux("capture-pane", "-p", "-S", "-9", "-t", "=one:comfyui.2"))


def test_on_a_terminal_it_attaches_and_inside_tmux_it_switches(
    tmux: Tmux, programs: Path, settings: Settings, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2] / "files/opt/strixbox"
    start = tmp_path / "start"
    code = "import sys; from boxtools.cli import main; sys.exit(main(['dashboard']))"
    start.write_text(f'#!/bin/sh\nPYTHONPATH={root} {sys.executable} -c "{code}"\nsleep 60\n')
    start.chmod(0o755)
    size = ("-x", "150", "-y", "40")
    shown = ("list-clients", "-F", "#{session_name}")
    # A pane of another session is the terminal; TMUX tells the dashboard where it is.
    tmux("new-session", "-d", *size, "-s", "outer", "-n", "one", f"env -u TMUX {start}")
    until(lambda: tmux(*shown) == "comfyui_monitor\n")
    tmux("new-session", "-d", *size, "-s", "inner", "sleep 60")
    tmux("switch-client", "-t", "=inner")
    until(lambda: tmux(*shown) == "inner\n")
    tmux("respawn-pane", "-k", "-t", "inner:", str(start))
    until(lambda: tmux(*shown) == "comfyui_monitor\n")


def test_without_tmux_there_is_a_sentence(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Trouble, match="sudo apt install tmux htop"):
        dashboard.exists("one")
    assert main(["dashboard"]) == 1


@pytest.mark.parametrize("name", ["", "a.b", "a:b", "a b", "=x", "x" * 65])
def test_names_that_tmux_would_change_are_refused(name: str) -> None:
    with pytest.raises(WrongUse):
        dashboard.check_name(name)
