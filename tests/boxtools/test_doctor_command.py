"""The command as people and programs call it, and the five steps."""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from boxtools import cli
from boxtools.commands import doctor as command
from boxtools.doctor import slow, world
from boxtools.doctor.checks import examine
from boxtools.doctor.slow import STEPS, Load, diagnose
from boxtools.doctor.software import PARSER
from boxtools.doctor.world import World
from boxtools.settings import Settings

from tests.boxtools.conftest import Standin
from tests.boxtools.doctor_box import USER, Box, put

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A healthy box that the command looks at."""
    made = Box(tmp_path)
    monkeypatch.setattr(command, "World", lambda: made.world)
    monkeypatch.setattr("boxtools.settings.load", lambda: made.settings)
    monkeypatch.setattr(slow, "SECONDS", 0.01)
    monkeypatch.setattr(slow.watch_load, "__defaults__", (0.01,))
    return made


def test_a_healthy_box_ends_with_0(box: Box, capsys: Capture) -> None:
    assert cli.main(["doctor"]) == 0
    assert "0 wrong, 0 to look at" in capsys.readouterr().out
    assert cli.main(["doctor", "--all"]) == 0
    assert "TORCH.BUILD" in capsys.readouterr().out


def test_what_is_wrong_is_told_with_its_mend_and_ends_with_1(box: Box, capsys: Capture) -> None:
    box.groups.pop("render")
    box.kernel_log.append("amdgpu 0000:c5:00.0: [gfxhub] page fault (src_id:0 [bold]x[/nothing])")
    assert cli.main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "sudo usermod -aG render,video" in told
    assert "[bold]x[/nothing]" in told
    assert told.index("USER.GROUPS") < told.index("LOG.PAGE_FAULT")
    assert "TORCH.BUILD" not in told
    assert cli.main(["doctor", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings[0]["code"] == "USER.GROUPS"
    assert len(findings) > 40


def test_a_pasted_error_is_explained(box: Box, capsys: Capture, tmp_path: Path) -> None:
    assert cli.main(["doctor", "HIP error: invalid device function"]) == 0
    assert "GPU.WRONG_CODE" in capsys.readouterr().out
    assert cli.main(["doctor", "--json", "HIP", "error:", "invalid", "device", "function"]) == 0
    assert json.loads(capsys.readouterr().out)["matches"][0]["code"] == "GPU.WRONG_CODE"
    log = put(tmp_path / "log.txt", b"\xff\n" * 900_000 + b"No space left on device [x")
    assert cli.main(["doctor", str(log)]) == 0
    assert "DISK.FULL" in capsys.readouterr().out


def test_an_error_on_stdin_is_explained(
    box: Box, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with put(tmp_path / "in", b"OSError: [Errno 28] No space left\0on device\n").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert cli.main(["doctor", "-"]) == 1
    told = capsys.readouterr()
    assert told.out.strip() == ""
    assert "not in the catalogue" in told.err
    assert "--bundle" in told.err


def test_nothing_is_no_error_to_explain(capsys: Capture, tmp_path: Path) -> None:
    for word in ("", "  \n", str(put(tmp_path / "empty.log", ""))):
        assert cli.main(["doctor", word]) == 2
        assert capsys.readouterr().err.startswith("strixbox: there is no text to explain")


def test_a_mend_is_told_once(box: Box, capsys: Capture) -> None:
    put(box.models / "checkpoints/sd_xl_base_1.0.safetensors.strixbox-part", b"half")
    for name in ("kfd", "dri/renderD128"):
        (box.root / "dev" / name).unlink()
    (box.root / "sys/class/kfd/kfd/topology/nodes/1/properties").unlink()
    assert cli.main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert told.count("--fix") == 1  # of MODELS.PARTS, whose mend it is
    assert told.count("see why: sudo dmesg") == 1
    assert "-> as for GPU.KFD" in told
    assert cli.main(["doctor", "slow"]) == 1
    told = capsys.readouterr().out
    assert told.count("see why: sudo dmesg") == 2  # in its step, and in the conclusion
    assert "-> GPU.KFD" not in told


def test_an_error_needs_no_settings(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("STRIXBOX_TOOLS", "/nonexistent")
    assert cli.main(["doctor", "Killed"]) == 0
    assert cli.main(["doctor"]) == 1
    assert "run the deploy" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--fix", "--slow"], ["text", "--fix"], ["--dry"], ["--yes"], ["slow", "--bundle", "x"]],
)
def test_wrong_use_ends_with_2(box: Box, words: list[str], capsys: Capture) -> None:
    assert cli.main(["doctor", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_fix_says_what_it_does_and_dry_does_nothing(box: Box, capsys: Capture) -> None:
    box.settings.state.rmdir()
    assert cli.main(["doctor", "--fix", "--dry"]) == 0
    assert not box.settings.state.exists()
    assert "state-owner" in capsys.readouterr().err
    assert cli.main(["doctor", "--fix"]) == 0
    assert box.settings.state.exists()
    assert "0 to look at" in capsys.readouterr().out
    assert cli.main(["doctor", "--fix"]) == 0
    assert "nothing that --fix could mend" in capsys.readouterr().err


def test_the_users_file_is_left_where_nobody_agrees(box: Box, capsys: Capture) -> None:
    bashrc = put(box.bashrc, "export HSA_OVERRIDE_GFX_VERSION=11.0.0\n")
    box.give(bashrc)
    cli.main(["doctor", "--fix"])
    told = capsys.readouterr().err
    assert "-export HSA_OVERRIDE" in told
    assert "left as it is" in told
    assert bashrc.read_text() == "export HSA_OVERRIDE_GFX_VERSION=11.0.0\n"


def test_a_fix_that_needs_root_says_so(
    box: Box, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.settings.state.rmdir()
    as_user = World(box.root, box.run, lambda url: box.answer, box.world.room, uid=1000)
    monkeypatch.setattr(command, "World", lambda: as_user)
    cli.main(["doctor", "--fix"])
    assert "needs root: sudo strixbox doctor --fix" in capsys.readouterr().err
    assert not box.settings.state.exists()


def test_the_bundle_is_written_and_listed(
    box: Box, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.tar.gz"
    assert cli.main(["doctor", "--bundle", str(path)]) == 0
    told = capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as tar:
        for name in tar.getnames():
            assert name.removeprefix("strixbox-doctor/") in told
    assert cli.main(["doctor", "--bundle", str(path)]) == 1
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert cli.main(["doctor", "--json", "--bundle"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert Path(value["bundle"]).parent == tmp_path
    assert value["replaced"]["<user>"] > 0


def test_the_bundle_says_where_it_is_what_is_missing_and_what_to_check(
    box: Box, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    box.log.append(f"RuntimeError: No HIP GPUs are available for {USER}")
    assert cli.main(["doctor", "--bundle", "my file.tar.gz"]) == 0
    told = capsys.readouterr().out.strip()
    assert told.startswith(f"The bundle is {tmp_path}/my file.tar.gz; nobody else")
    assert "Taken out: names of accounts" in told
    assert re.search(r"In their place stands: .*<user> \d+x", told)
    assert told.endswith(f"tar xzf '{tmp_path}/my file.tar.gz' -O | less")


# --- the five steps ---------------------------------------------------------------------------


def test_slow_walks_five_steps_and_blames_the_work_on_a_healthy_box(
    box: Box, capsys: Capture
) -> None:
    assert cli.main(["doctor", "slow"]) == 0
    told = capsys.readouterr().out
    assert [f"Step {number}" in told for number in range(1, 6)] == [True] * 5
    assert "strixbox bench run" in told


@pytest.mark.parametrize(
    ("step", "spoil"),
    [
        (1, "box.answer = world.Answer(0, {'devices': [{'type': 'cpu', 'name': 'cpu'}]})"),
        (2, "box.groups.pop('render')"),
        (3, "box.variables['HSA_OVERRIDE_GFX_VERSION'] = '11.0.0'"),
        (4, "box.argv.append('--lowvram')"),
        (5, "put(box.card / 'hwmon/hwmon3/temp1_input', '97000')"),
    ],
)
def test_each_step_finds_its_cause(box: Box, step: int, spoil: str) -> None:
    exec(spoil, {"box": box, "world": world, "put": put})  # noqa: S102 - the lines above
    diagnosis = diagnose(examine(box.facts()), Load(rendering=True, busy=97.0))
    assert diagnosis.cause == step
    assert "Mend: " in diagnosis.conclusion


def test_a_server_on_the_cpu_is_traced_to_its_reason(box: Box) -> None:
    box.answer = world.Answer(0, {"devices": [{"type": "cpu", "name": "cpu"}]})
    box.groups.pop("render")
    assert diagnose(examine(box.facts()), Load()).cause == 2


def test_a_missing_override_is_no_cause_and_never_advised(box: Box) -> None:
    for load in (Load(), Load(rendering=True, busy=3.0), Load(rendering=True, busy=100.0)):
        diagnosis = diagnose(examine(box.facts()), load)
        assert diagnosis.cause is None
        assert "11.0.0" not in diagnosis.model_dump_json()


def test_the_load_is_part_of_the_first_step(box: Box) -> None:
    findings = examine(box.facts())
    idle = diagnose(findings, Load(rendering=False, busy=1.0)).steps[0]
    assert idle.verdict == "unknown"
    assert "call it while an image is made" in idle.evidence
    waiting = diagnose(findings, Load(rendering=True, busy=9.0)).steps[0]
    assert (waiting.verdict, "it waits" in waiting.evidence) == ("warn", True)
    working = diagnose(findings, Load(rendering=True, busy=99.0)).steps[0]
    assert (working.verdict, "look further" in working.evidence) == ("ok", True)


def test_every_code_of_the_steps_exists() -> None:
    from boxtools.doctor.finding import CODES

    codes = [code for _, codes in STEPS for code in codes]
    assert set(codes) <= CODES
    assert len(codes) == len(set(codes))


# --- with programs and a server that are really there ------------------------------------------


def test_it_works_beside_a_real_server_and_without_one(
    settings: Settings, standin: Standin, capsys: Capture
) -> None:
    assert cli.main(["doctor", "--json"]) in (0, 1)
    found = {one["code"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["SERVICE.ANSWER"]["verdict"] == "ok"
    assert found["SERVICE.DEVICE"]["evidence"]
    standin.stop()
    assert cli.main(["doctor", "--json"]) == 1
    found = {one["code"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["SERVICE.ANSWER"]["verdict"] == "wrong"


def test_the_parser_of_a_release_is_asked(standin_python: Path) -> None:
    code = Path(__file__).parents[1] / "lab/comfyui_standin"
    asked = {
        "good": ["--lowvram", "--port", "9"],
        "bad": ["--lowvram", "--highvram"],
        "odd": ["--no-such"],
    }
    words = [str(standin_python), "-s", "-c", PARSER, json.dumps(asked)]
    told = json.loads(world.run(words, directory=code).out)
    assert told["good"] is None
    assert "not allowed with" in told["bad"]
    assert "unrecognized arguments: --no-such" in told["odd"]


@pytest.mark.comfyui
@pytest.mark.skipif(
    not (os.environ.get("STRIXBOX_COMFYUI_SRC") and os.environ.get("STRIXBOX_COMFYUI_PYTHON")),
    reason="STRIXBOX_COMFYUI_SRC and STRIXBOX_COMFYUI_PYTHON name no ComfyUI",
)
def test_the_real_comfyui_takes_the_flags_of_every_profile() -> None:
    from group_data import all as pins
    from group_data import rocm_7_2

    profiles: list[tuple[str, dict[str, Any]]]
    profiles = [*pins.launch_profiles.items(), *rocm_7_2.launch_profiles.items()]
    asked = {f"{n} {name}": list(one["flags"]) for n, (name, one) in enumerate(profiles)}
    asked["odd"] = ["--cache-ram"]
    words = [os.environ["STRIXBOX_COMFYUI_PYTHON"], "-s", "-c", PARSER, json.dumps(asked)]
    told = json.loads(world.run(words, directory=Path(os.environ["STRIXBOX_COMFYUI_SRC"])).out)
    assert "unrecognized arguments: --cache-ram" in told.pop("odd")
    assert set(told.values()) == {None}


def test_a_program_that_is_absent_or_hangs_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "TIMEOUT", 0.2)
    assert world.run(["/nonexistent/program"]).code is None
    assert world.run(["sleep", "30"]).code is None
    assert world.run(["true"], user="no-such-account").code in (None, 0)
    assert world.run(["echo", "\0"]).code is None


def test_a_pipe_in_a_files_place_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert world.text(tmp_path / "pipe") == ""
    assert world.text(tmp_path) == ""
    assert world.room(Path("/no/such/place")) is not None


def test_a_file_that_is_not_there_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "/nope/file"]) == 2
    assert "/nope/file is no file to read" in capsys.readouterr().err
