"""Operations and the commands that they are made of."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.arguments import all_argument_meta
from pyinfra.api.command import StringCommand
from pyinfra.connectors.util import CommandOutput, OutputLine

import strixbox.box
import strixbox.operations
from strixbox import programs
from strixbox.config import Config, Models
from strixbox.facts import BoxFact, FileStates, FileText, Installed, VerifiedFiles
from strixbox.journal import JOURNALS, Journal
from strixbox.layout import RUN
from strixbox.models import Places, plan
from strixbox.operations import base, files, shell
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation
from strixbox.operations.files import strays
from strixbox.programs import PYTHON, QUERY_LIMIT, Refusal, Run, in_parts, read, source, write
from strixbox.tree import ROOT
from tests.unit import conftest as stand_in


def box_programs() -> list[str]:
    """Names of all programs that are sent to a box."""
    return [module.name for module in pkgutil.iter_modules(strixbox.box.__path__)]


def operations() -> dict[str, inspect.Signature]:
    """Every operation with its parameters."""
    found = {}
    for module in pkgutil.iter_modules(strixbox.operations.__path__):
        loaded = importlib.import_module(f"strixbox.operations.{module.name}")
        for name, value in vars(loaded).items():
            if getattr(value, "is_idempotent", None) is not None and hasattr(value, "_inner"):
                found[f"{module.name}.{name}"] = inspect.signature(value._inner)
    return found


def test_no_parameter_is_one_of_pyinfras_own() -> None:
    # pyinfra takes these away before the operation sees them, without a word.
    assert len(operations()) >= 15
    for name, signature in operations().items():
        assert not signature.parameters.keys() & all_argument_meta.keys(), name


def test_every_parameter_of_an_operation_is_explained() -> None:
    for name in operations():
        module, _, function = name.partition(".")
        loaded = importlib.import_module(f"strixbox.operations.{module}")
        told = inspect.getdoc(getattr(loaded, function)._inner) or ""
        for parameter in operations()[name].parameters:
            assert f"+ {parameter}:" in told, f"{name}: {parameter}"


@pytest.mark.parametrize("program", box_programs())
def test_a_program_needs_nothing_but_the_standard_library(program: str) -> None:
    import sys

    for node in ast.walk(ast.parse(source(program))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            assert name.partition(".")[0] in sys.stdlib_module_names, name


@pytest.mark.parametrize("program", box_programs())
def test_a_part_and_its_program_have_no_name_in_common(program: str) -> None:
    # A program is sent with its parts written into it: the later name would win.
    made = [
        node.name
        for node in ast.parse(source(program)).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert len(made) == len(set(made))
    assert "strixbox.box" not in source(program)


@pytest.mark.parametrize("program", box_programs())
def test_a_program_fits_into_one_argument(program: str) -> None:
    # MAX_ARG_STRLEN is 128 KiB; sudo and sh wrap the whole command into one word.
    assert len(shlex.quote(source(program))) + QUERY_LIMIT < 128 * 1024


def test_words_of_a_command_are_quoted() -> None:
    command = Run("rm", "--", "a b; reboot", mend="")
    assert command.get_raw_value() == "rm -- 'a b; reboot'"
    asked = read("file_states", {"paths": ["/a'b"]}).get_raw_value()
    assert shlex.split(asked)[-1] == '{"paths":["/a\'b"]}'


@pytest.mark.parametrize("umask", ["022", "027", "077"])
def test_what_root_makes_can_be_read_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: str
) -> None:
    box = FakeBox(umask, str(tmp_path / "run"), monkeypatch)
    path = tmp_path / "deep" / "file"
    assert box.execute(Run("mkdir", "--parents", str(path.parent), mend=""))
    assert box.execute(Run("tee", str(path), stdin="x", mend=""))
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert path.stat().st_mode & 0o777 == 0o644
    # The locks themselves are root's alone: who can open one can hold it.
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "run" / "writing").stat().st_mode & 0o777 == 0o600
    told = box.output(read("file_states", {"paths": [str(path)]}))
    assert json.loads(told)[str(path)]["kind"] == "file"


def test_whatever_language_the_box_has_programs_speak_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = FakeBox("022", str(tmp_path), monkeypatch)
    for name in ("LC_ALL", "LANG", "LC_MESSAGES"):
        monkeypatch.setenv(name, "de_DE.ISO-8859-1")
    assert box.execute(Run("sh", "-c", f"echo $LC_ALL > {tmp_path}/seen", mend=""))
    assert (tmp_path / "seen").read_text() == "C.UTF-8\n"
    monkeypatch.setattr(programs, "source", lambda program: "import os; print(os.getenv('LC_ALL'))")
    assert box.output(read("any", {})) == "C.UTF-8\n"


def test_a_command_holds_the_lock_of_writers_and_keeps_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = FakeBox("022", str(tmp_path), monkeypatch)
    alone = ["flock", "--exclusive", "--nonblock", f"{tmp_path}/writing", "true"]
    assert not box.execute(Run(*alone, mend=""))
    assert subprocess.run(alone, check=False).returncode == 0
    assert not box.execute(Run("false", mend="mend this"))
    assert box.said[-1] == "mend this"


class FakeBox:
    """Runs a command in a shell of this machine, as pyinfra does on a box."""

    name = "box"

    def __init__(self, umask: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.umask = umask
        self.said: list[str] = []
        monkeypatch.setattr(programs, "HELD", programs.HELD.replace(RUN, folder))

    def output(self, command: StringCommand, stdin: str = "") -> str:
        """What the command prints."""
        line = f"umask {self.umask}; sh -c {shlex.quote(command.get_raw_value())}"
        answer = subprocess.run(
            ["sh", "-c", line], input=stdin, capture_output=True, text=True, check=True, timeout=30
        )
        return answer.stdout

    def run_shell_command(
        self, command: StringCommand, _stdin: str = "", **_: Any
    ) -> tuple[bool, CommandOutput]:
        """The one method of pyinfra's hosts that Run needs."""
        try:
            self.output(command, _stdin)
        except subprocess.CalledProcessError as error:
            return False, CommandOutput([OutputLine("stderr", error.stderr)])
        return True, CommandOutput([])

    def execute(self, command: Run) -> bool:
        """Whether the command succeeds."""
        state = SimpleNamespace(print_output=False, print_input=False)
        status, output = command.execute(state, self, {})  # type: ignore[arg-type]
        self.said = [line.line for line in output.combined_lines]
        return status


def test_an_operation_tells_the_boxs_log_what_it_changes_but_no_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    journal = Journal(lambda **line: told.append(line), list)
    journal.start("Write a file")
    monkeypatch.setitem(JOURNALS, "halo1", journal)
    box = SimpleNamespace(
        name="halo1",
        log=lambda text: None,
        noop=lambda text: None,
        state=SimpleNamespace(config=SimpleNamespace(DIFF=True)),
    )
    monkeypatch.setattr(base, "host", box)
    monkeypatch.setattr(files, "host", box)

    @base.box_operation
    def written(change: bool) -> base.Steps:
        if change:
            base.say("/etc/f: replace")
            files.show_changes("/etc/f", "", "password\n")
            yield Run("true", mend="")

    for executing, change, begun in ((False, True, []), (True, False, []), (True, True, [True])):
        monkeypatch.setattr(base, "state", SimpleNamespace(is_executing=executing))
        list(written._inner(change=change))
        assert [("begun" in line) for line in told] == begun
    journal.stop(1.0, "changed")
    assert told[1]["done"]["says"][-1] == "/etc/f: replace"
    assert "password" not in json.dumps(told)


def test_an_order_goes_over_stdin_and_is_not_shown() -> None:
    command = write("place_files", {"files": ["content"]})
    assert shlex.split(command.get_raw_value()) == [*PYTHON, source("place_files")]


def test_a_question_that_is_too_long_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="ask in parts"):
        read("file_states", {"paths": ["x" * QUERY_LIMIT]})


class StandInBox:
    """Answers questions of ``ask`` as a box whose files are all absent, and counts them."""

    name = "box"

    def __init__(self) -> None:
        self.asked = 0

    def get_fact(self, fact: type[BoxFact[Any]], **query: Any) -> Any:
        """What the fact's command would bring; the command is made, so that its length counts."""
        fact().command(**query)
        self.asked += 1
        absent = {path: {"kind": "absent", "sha256": None} for path in query["paths"]}
        return {"files": absent, "urls": {"http://h/x": "a"}} if fact is VerifiedFiles else absent


def test_a_manifest_of_2000_models_is_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    box = StandInBox()
    monkeypatch.setattr(base, "host", box)
    names = [f"a rather long name of a model, größe {number}.safetensors" for number in range(2000)]
    models = Models.model_validate(
        {
            "archive": "/mnt/sata/models",
            "manifest": tuple(
                {"name": name, "folder": "loras", "tier": "active", "url": f"http://h/{number}"}
                for number, name in enumerate(names)
            ),
        }
    )
    active = "/home/anna/ComfyUI/models"
    places = (Places.of(model, active, models.archive).all() for model in models.manifest)
    paths = tuple(path for both in places for path in both)
    known = ask(VerifiedFiles, paths=paths, records="/r", user="anna")
    assert known["files"].keys() == set(paths)
    assert known["urls"] == {"http://h/x": "a"}
    assert 2 < box.asked < 20
    assert len(plan(models.manifest, active, models.archive, known)) == 2000
    assert ask(FileStates, paths=()) == {}


def test_a_question_that_cannot_be_parted_is_trouble_of_this_box(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "host", StandInBox())
    with pytest.raises(BoxTrouble, match=r"Installed does not fit into one command: .*; name"):
        ask(Installed, packages=("x" * QUERY_LIMIT,))


def test_what_is_the_users_is_asked_about_as_the_user(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = stand_in.StandInBox({FileStates: {"kind": "absent"}, FileText: ""})
    for module in (base, files, shell):
        monkeypatch.setattr(module, "host", box)
    made = stand_in.commands(files.user_directories, user="anna", paths=("/home/anna/ComfyUI",))
    made += stand_in.commands(shell.bashrc_block, box=cfg.box, lines=("x",))
    assert len(made) == 2
    assert [query["user"] for _, query in box.asked] == ["anna", "anna"]


def test_a_defect_of_ours_fails_its_own_box_alone() -> None:
    @box_operation
    def broken(word: str) -> Steps:
        yield StringCommand("true")
        raise KeyError(word)

    first, last = broken._inner("missing")
    assert str(first) == "true"
    assert isinstance(last, Refusal)
    assert "KeyError: 'missing'; please report it" in last.sentence


def test_parts_keep_every_word_in_its_order() -> None:
    words = [f"{'ü' * (number % 40)}{number}" for number in range(5000)]
    parts = in_parts(words)
    assert [word for part in parts for word in part] == words
    for part in parts:
        read("file_states", {"paths": list(part)})
    assert in_parts(()) == [()]
    assert in_parts(("x" * 50_000, "y")) == [("x" * 50_000,), ("y",)]


def test_tasks_are_straight_lines() -> None:
    # What branches on a box's state is an operation; a task may leave out a part by its settings.
    for path in sorted((ROOT / "tasks").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = [type(node).__name__ for node in ast.walk(tree)]
        assert kinds.count("If") <= 1, path.name
        assert not {"For", "While", "Try", "Lambda"} & set(kinds), path.name
        assert "get_fact" not in path.read_text(encoding="utf-8"), path.name


def test_only_the_entry_points_read_host_data() -> None:
    for path in [*(ROOT / "tasks").glob("*.py"), *(ROOT / "strixbox/operations").glob("*.py")]:
        assert "host.data" not in Path(path).read_text(encoding="utf-8"), path.name


def test_every_command_of_an_operation_has_a_mend() -> None:
    # A program tells its own.
    for path in sorted((ROOT / "strixbox/operations").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Run":
                (mend,) = (word.value for word in node.keywords if word.arg == "mend")
                assert not isinstance(mend, ast.Constant) or mend.value, f"{path}:{node.lineno}"


def test_every_operation_is_part_of_a_task() -> None:
    # The tests in tests/e2e apply every task twice: an operation outside of them is never tried.
    tasks = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tasks").glob("*.py"))
    for name in operations():
        assert f"{name.rpartition('.')[2]}(" in tasks, name


def test_what_is_not_wanted_is_taken_whole() -> None:
    standing = {
        "directories": ["/n/ours", "/n/ours/web", "/n/old", "/n/old/deep"],
        "files": ["/n/ours/a.py", "/n/ours/stray.py", "/n/old/b.py"],
    }
    assert strays(standing, {"/n/ours/a.py", "/n/ours/web/x.js"}) == ["/n/old", "/n/ours/stray.py"]
    assert strays({"directories": [], "files": []}, {"/n/ours/a.py"}) == []
