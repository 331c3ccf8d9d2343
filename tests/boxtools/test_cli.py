"""The strixbox command: its exit codes, its help, and who reads its output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from boxtools import cli, version
from boxtools.errors import Trouble, WrongUse
from boxtools.settings import Settings

from strixbox import layout

Run = Callable[..., Any]
ROOT = Path(__file__).parents[2]
COMMAND = "import sys; from boxtools.cli import main; sys.exit(main())"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Puts a function in place of a command's module; it is called as ``strixbox memory``."""

    def put(function: Run) -> None:
        module = types.ModuleType("boxtools.commands.memory")
        module.command = click.command("memory")(function)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def strixbox(*words: str, **own: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    variables = own.pop("variables", {})
    return subprocess.run(
        [sys.executable, "-c", own.pop("program", COMMAND), *words],
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **own,
    )


def environment() -> dict[str, str]:
    """Without what would change the output."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return kept | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "TERM": "xterm-256color"}


# --- exit codes -------------------------------------------------------------------------------


def raiser(error: BaseException) -> Run:
    """A command that fails."""

    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (Trouble("the box is on [fire]; call somebody"), 1, "the box is on [fire]; call somebody"),
        (WrongUse("a size is WIDTHxHEIGHT"), 2, "a size is WIDTHxHEIGHT"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
    ],
)
def test_every_failure_is_one_sentence_on_stderr(
    command: Callable[[Run], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    command(raiser(error))
    assert cli.main(["memory"]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.strip() == f"strixbox: {sentence}"


def test_ctrl_c_during_the_imports_leaves_no_traceback(tmp_path: Path) -> None:
    # The installed command, with tools in its place that take a Ctrl-C at a certain moment.
    program = (ROOT / "files/usr/local/bin/strixbox").read_text(encoding="utf-8")
    (tmp_path / "boxtools").mkdir()
    (tmp_path / "boxtools/__init__.py").touch()
    tools = tmp_path / "boxtools/cli.py"
    struck = "import os, signal\nif {when}: os.kill(os.getpid(), signal.SIGINT)\n"

    def ended(when: bool, **own: Any) -> subprocess.CompletedProcess[str]:
        tools.write_text(
            struck.format(when=when)
            + "def main():\n    try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
            + "    except KeyboardInterrupt:\n        return 130\n    return 0\n"
        )
        return strixbox(program=program.replace("/opt/strixbox", str(tmp_path)), **own)

    during = ended(True)
    assert (during.returncode, during.stderr) == (-signal.SIGINT, "")
    assert ended(False).returncode == 130
    ignored = ended(True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert (ignored.returncode, ignored.stderr) == (0, "")


def test_a_long_sentence_stays_on_one_line(
    command: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "something is wrong " * 40
    command(raiser(Trouble(sentence)))
    assert cli.main(["memory"]) == 1
    assert capsys.readouterr().err == f"strixbox: {sentence}\n"


def test_success_is_0_and_findings_are_1(command: Callable[[Run], None]) -> None:
    command(lambda: None)
    assert cli.main(["memory"]) == 0
    # What a command returns is for its callers, not an exit code.
    command(lambda: "seven")
    assert cli.main(["memory"]) == 0
    command(lambda: click.get_current_context().exit(1))
    assert cli.main(["memory"]) == 1


@pytest.mark.parametrize(
    "words", [("unheard",), ("memory", "--unheard"), ("memory", "word"), ("--unheard",)]
)
def test_wrong_use_is_2_and_told(
    command: Callable[[Run], None], capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    command(lambda: None)
    assert cli.main(list(words)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words[-1] in told.err
    assert "Traceback" not in told.err


# --- help -------------------------------------------------------------------------------------


def test_help_lists_every_command_without_importing_one() -> None:
    program = COMMAND.replace(
        "sys.exit(main())", "code = main(); print(*sys.modules); sys.exit(code)"
    )
    for words in (("--help",), ("-h",)):
        told = strixbox(*words, program=program)
        assert told.returncode == 0
        for name, line in cli.COMMANDS.items():
            assert re.search(rf"^  {name}\s+{re.escape(line)}$", told.stdout, re.MULTILINE)
        for module in ("matplotlib", "jinja2", "boxtools.commands.bench"):
            assert module not in told.stdout.split()


def test_no_words_at_all_show_the_help() -> None:
    told = strixbox()
    assert told.returncode == 2
    assert "Usage: strixbox" in told.stderr
    assert "monitor" in told.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Usage: strixbox {name}")
    found = import_module(f"boxtools.commands.{name}").command
    assert found.help, "a command says in its docstring what it does"
    assert not [p.name for p in found.params if isinstance(p, click.Option) and not p.help]


# --- who reads it -----------------------------------------------------------------------------

MANY = """
import sys, types, click
from boxtools import cli
module = types.ModuleType("boxtools.commands.memory")
sys.modules[module.__name__] = module
@click.command()
@click.option("--lines", type=int)
def command(lines):
    from boxtools.output import remarks, screen, show
    from rich.text import Text
    for number in range(lines):
        show({"number": number, "name": "[red]"}, number % 2 == 1, Text(f"{number} [red]", "red"))
module.command = command
sys.exit(cli.main())
"""


@pytest.mark.parametrize("lines", [1, 2, 20_000])
def test_nobody_reads_on(lines: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MANY, "memory", "--lines", str(lines)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_there_are_no_colours_in_a_pipe(variables: dict[str, str]) -> None:
    told = strixbox("memory", "--lines", "2", program=MANY, variables=variables)
    assert (told.returncode, told.stderr) == (0, "")
    first, _, rest = told.stdout.partition("\n")
    assert first == "0 [red]"
    assert json.loads(rest) == {"number": 1, "name": "[red]"}


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_unwanted(variables: dict[str, str], coloured: bool) -> None:
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", MANY, "memory", "--lines", "1"],
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.PIPE,
    )
    os.close(follower)
    told = b""
    try:
        while chunk := os.read(leader, 4096):
            told += chunk
    except OSError:  # Linux says so when the last one closed the terminal
        pass
    os.close(leader)
    assert process.wait(timeout=60) == 0
    assert (b"\x1b[" in told) == coloured
    assert b"0 [red]" in told


def test_ctrl_c_ends_with_130() -> None:
    program = MANY.replace(
        "for number in range(lines):", "import os\n    os.kill(os.getpid(), 2)\n    if 0:"
    )
    program = program.replace("import sys,", "import signal, sys,")
    told = strixbox("memory", program=program, preexec_fn=lambda: signal.signal(2, signal.SIG_DFL))
    assert told.returncode == 130
    assert told.stderr.strip() == "strixbox: interrupted"


def test_output_that_is_no_ascii_goes_anywhere() -> None:
    program = MANY.replace('[red]", "red"', 'größe 🙂", "red"')
    told = strixbox("memory", "--lines", "1", program=program, variables={"LC_ALL": "C.UTF-8"})
    assert told.stdout == "0 größe 🙂\n"


@pytest.mark.parametrize("words", [["--help"], ["models", "--json"]])
def test_a_full_disk_under_the_result_is_a_sentence(words: list[str], settings: object) -> None:
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(
            [sys.executable, "-c", COMMAND, *words],
            env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert answer.returncode == 1
    assert "No space left on device" in answer.stderr
    assert "Traceback" not in answer.stderr


LOST = "strixbox: the result could not be written (Bad file descriptor); see where it goes\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("models <&-", 0, ""),
        ("models >&-", 1, LOST),
        ("models --json >&-", 1, LOST),
        ("render --list >&-", 1, LOST),
        ("--help >&-", 1, LOST),
        ("--version >&-", 1, LOST),
        ("models verify >&-", 1, LOST),  # also where it would end with 1 by itself
        ("models verify nothing >&-", 2, None),  # writes nothing there
    ],
)
def test_closed_streams(
    words: str, code: int, said: str | None, settings: Settings, tmp_path: Path
) -> None:
    (settings.active / "vae/empty.safetensors").touch()
    words = f'"{sys.executable}" -c "{COMMAND}" {words} 2>> {tmp_path}/told'
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    answer = subprocess.run(["sh", "-c", words], env=environment, timeout=60, check=False)
    told = (tmp_path / "told").read_text()
    assert answer.returncode == code, told
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert said is None or told.endswith(said)


@pytest.mark.parametrize(
    ("words", "possible"),
    [
        (["monitor", "--interval", "nan"], "nan is no number in the range 0.1<=x<=3600."),
        (["monitor", "--interval", "inf"], "inf is not in the range 0.1<=x<=3600."),
        (["preload", "--share", "nan"], "nan is no number in the range 0<x<=1."),
    ],
)
def test_nan_is_no_number(
    words: list[str], possible: str, settings: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert possible in capsys.readouterr().err


# --- the version ------------------------------------------------------------------------------


def test_the_version_is_what_the_deploy_left(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "changes.jsonl"
    assert str(version.CHANGES) == layout.CHANGES
    monkeypatch.setattr(version, "CHANGES", log)
    assert cli.main(["--version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "strixbox, of an unknown commit of the toolkit"
    assert second == "release release, stack rocm-6.4.2, torch 2.6.0+rocm6.4.2.git76481f7c"
    lines = [
        {"toolkit": "0123456", "time": "2026-01-01T00:00:00Z"},
        {"toolkit": "89abcde+", "time": "2026-01-02T00:00:00Z"},
        {"toolkit": "unknown"},
    ]
    log.write_text('cut"}\n' + "\n".join(map(json.dumps, lines)) + "\n[]\n{")
    assert cli.main(["--version"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "strixbox 89abcde+ (the last change of this box, 2026-01-02T00:00:00Z)"


def test_the_version_of_a_box_without_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRIXBOX_TOOLS", str(tmp_path / "none"))
    assert cli.main(["--version"]) == 0
    assert "release unknown: " in capsys.readouterr().out
