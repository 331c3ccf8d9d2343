"""Readers: keys, environments, packages and locks as they are found on boxes."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from strixbox.box import _disk, _openpgp, apt_key, environments, rocm_remains, survey, user_nodes
from strixbox.box._records import recorded
from strixbox.box._units import shown
from strixbox.programs import source
from tests.box.conftest import ME, OTHER, SURVEY, asked, hear, hold, needs_root, started


def gpg(home: Path, *words: str) -> bytes:
    """Run the real gpg."""
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *words]
    return subprocess.run(command, capture_output=True, check=True).stdout


VENV = "home = /usr/bin\ninclude-system-site-packages = false\nversion_info = 3.12.3\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A gpg home with two keys, one of them with a subkey, and their fingerprints."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    made = []
    for name, kind, rest in (("one", "rsa2048", ["sign"]), ("two", "ed25519", ["default"])):
        words = ("--passphrase", "", "--quick-generate-key", f"{name} <{name}@lab.invalid>", kind)
        gpg(home, *words, *rest)
        listed = gpg(home, "--with-colons", "--list-keys", f"{name}@lab.invalid").decode()
        made.append(next(x for x in listed.splitlines() if x.startswith("fpr")).split(":")[9])
    gpg(home, "--passphrase", "", "--quick-add-key", made[0], "rsa2048", "encr")
    return home, made


@pytest.mark.parametrize("armour", [[], ["--armor"]])
@pytest.mark.parametrize("number", [0, 1])
def test_a_fingerprint_is_gpgs_own(
    keys: tuple[Path, list[str]], number: int, armour: list[str]
) -> None:
    home, made = keys
    content = gpg(home, *armour, "--export", made[number])
    assert apt_key.fingerprint(content) == made[number]


@pytest.mark.parametrize("number", [0, 1])
def test_a_key_is_written_in_one_form(
    keys: tuple[Path, list[str]], number: int, tmp_path: Path
) -> None:
    home, made = keys
    binary = gpg(home, "--export", made[number])
    text = apt_key.armour(binary)
    assert _openpgp.dearmour(text) == binary
    # The same as gpg's own, checksum included.
    assert text == gpg(home, "--armor", "--export", made[number])
    path = tmp_path / "key.asc"
    path.write_bytes(text)
    path.chmod(0o644)
    assert apt_key.read(str(path)) == made[number]


def test_a_key_that_somebody_changed_is_none(keys: tuple[Path, list[str]], tmp_path: Path) -> None:
    home, made = keys
    text = gpg(home, "--armor", "--export", made[0])
    path = tmp_path / "key.asc"
    for changed in (text + b"x\n", text.replace(b"\n=", b"\n=A"), b"x\n" + text, text[:-1]):
        path.write_bytes(changed)
        path.chmod(0o644)
        assert apt_key.read(str(path)) is None, changed
    path.write_bytes(text)
    path.chmod(0o666)
    assert apt_key.read(str(path)) is None
    path.chmod(0o644)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert apt_key.read(str(path)) is None


def test_a_second_key_behind_the_right_one_is_refused(keys: tuple[Path, list[str]]) -> None:
    home, made = keys
    both = gpg(home, "--export", made[0]) + gpg(home, "--export", made[1])
    with pytest.raises(ValueError, match="not one version 4 public key"):
        apt_key.fingerprint(both)


def test_a_keyring_tells_all_of_its_keys_or_nothing(
    keys: tuple[Path, list[str]], tmp_path: Path
) -> None:
    home, made = keys
    both = gpg(home, "--export", made[0]) + gpg(home, "--export", made[1])
    text = [gpg(home, "--armor", "--export", key) for key in made]
    files = {
        "one.asc": text[0],
        "both.asc": gpg(home, "--armor", "--export", *made),
        "both.gpg": both,
        "two-blocks.asc": text[0] + text[1],
        # Each of them could hide a key of somebody else's.
        "two-blocks-cut.asc": text[0] + text[1][:200],
        "cut.gpg": both[:-1],
        "trailing.gpg": both + b"\0",
        "keybox.gpg": b"\0\0\0 \1\1\0\2KBXf",
        "empty.gpg": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.gpg").symlink_to("both.gpg")
    os.mkfifo(tmp_path / "pipe.gpg")
    told = rocm_remains.keyrings(f"{tmp_path}/*.asc", f"{tmp_path}/*.gpg")
    assert {Path(path).name: sorted(found) for path, found in told.items()} == {
        "one.asc": made[:1],
        "both.asc": sorted(made),
        "both.gpg": sorted(made),
        "two-blocks.asc": sorted(made),
    }


@pytest.mark.parametrize(
    "content", [b"", b"<html>login</html>", b"\x99", b"\xff" * 40, "-----BEGIN é".encode()]
)
def test_what_is_no_key_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.asc"
    path.write_bytes(content)
    assert apt_key.read(str(path)) is None
    assert apt_key.read(str(tmp_path / "none")) is None


def test_an_environment_is_read_from_its_files(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    for name, version, whole in (("Torch_Audio", "2.6.0+rocm", True), ("half", "1", False)):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n\nVersion: 9\n")
        if whole:
            (info / "RECORD").write_text("")
    (site / "torch").mkdir()
    (site / "torch" / "version.py").write_text("cuda = None\nhip: str | None = '6.4.43484'\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text(VENV)
    assert environments.environment(str(tmp_path)) == {
        "python": "3.12",
        "packages": {"torch-audio": "2.6.0+rocm"},
        "damaged": {},
        "hip": "6.4.43484",
        "owners": [ME],
    }


def test_a_torch_whose_version_file_is_damaged_is_of_no_kind(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "version.py").write_bytes(b"\xff\x00\n")
    assert environments.environment(str(tmp_path))["hip"] is None


def test_an_environment_that_is_not_there_is_empty(tmp_path: Path) -> None:
    found = environments.environment(str(tmp_path / "none"))
    assert found == {"python": None, "packages": {}, "damaged": {}, "hip": None, "owners": []}


def distribution(site: Path, name: str, files: dict[str, str], record: str = "") -> None:
    """Install some files as pip and uv record them."""
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n\n")
    rows = [f'"{path}",sha256=x,{len(text)}\n' for path, text in files.items()]
    (info / "RECORD").write_text("".join(rows) + record + f"{name}-1.dist-info/RECORD,,\n")


def test_a_package_that_lost_a_file_or_a_part_of_one_is_damaged(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    script = {"../../../bin/run": "#!x"}
    distribution(
        site, "whole", {"whole/a, b.py": "1"} | script, "whole/c.pyc,,\nwhole/d.pyc,sha256=x,9\n"
    )
    distribution(site, "gone", {"gone/a.py": "1", "gone/b.py": "1"})
    distribution(site, "edited", {"edited.py": "12"})
    # The second put its own file in the place of the first one's.
    distribution(site, "one", {"shared/x.py": "1"})
    distribution(site, "two", {"shared/x.py": "12"})
    (site / "gone" / "b.py").unlink()
    (site / "edited.py").write_text("1")

    found = environments.environment(str(tmp_path))

    assert found["damaged"] == {"gone": "gone/b.py", "edited": "edited.py"}
    assert found["packages"] == {"whole": "1", "one": "1", "two": "1"}


def test_what_a_wheel_records_wrongly_is_as_it_was_installed(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    files = {"odd/a.py": "1", "odd/b.py": "1"}
    distribution(site, "odd", files, "odd/,sha256=x,0\nodd/none.py,sha256=x,5\n")
    (site / "odd" / "a.py").write_text("as the wheel has it")
    assert environments.environment(str(tmp_path))["damaged"] == {"odd": "odd/a.py"}

    assert started("note_sizes", {"environment": str(tmp_path)}).returncode == 0

    found = environments.environment(str(tmp_path))
    assert (found["damaged"], found["packages"]) == ({}, {"odd": "1"})
    (site / "odd" / "a.py").write_text("by hand")
    assert environments.environment(str(tmp_path))["damaged"] == {"odd": "odd/a.py"}
    (site / "odd" / "a.py").write_text("1")
    (site / "odd" / "none.py").write_text("12345")
    assert started("note_sizes", {"environment": str(tmp_path)}).returncode == 0
    assert not (tmp_path / "sizes.json").exists()


def test_an_environment_whose_python_is_gone_has_none(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/no/such/python")
    (tmp_path / "pyvenv.cfg").write_text(VENV)
    assert environments.environment(str(tmp_path))["python"] is None


@pytest.mark.parametrize(
    ("text", "python"),
    [
        (VENV, "3.12"),
        (VENV.replace("version_info", "version"), "3.12"),
        (VENV + "# mine\n", "3.12"),
        ("", None),
        (VENV.replace("false", "true"), None),
        (VENV.partition("include")[0], None),
        (VENV.replace("home", "hom"), None),
        (VENV.replace("3.12.3", "new"), None),
    ],
)
def test_an_environment_is_apart_from_the_systems_packages(
    tmp_path: Path, text: str, python: str | None
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text(text)
    assert environments.environment(str(tmp_path))["python"] == python


def test_only_nodes_that_comfyui_loads_count(tmp_path: Path) -> None:
    for name in ("Mine", "Old.disabled", ".hidden", "__pycache__", "Bare"):
        (tmp_path / name).mkdir()
        if name != "Bare":
            (tmp_path / name / "requirements.txt").write_text(name)
    (tmp_path / "single.py").write_text("")
    assert list(user_nodes.main({"directory": str(tmp_path), "user": ME})) == ["Mine"]
    assert user_nodes.main({"directory": str(tmp_path / "none"), "user": ME}) == {}
    assert user_nodes.main({"directory": str(tmp_path), "user": "no-such-account"}) == {}


SET = "HSA_OVERRIDE_GFX_VERSION=11.0.0"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("etc/environment", SET),
        ("etc/environment.d/90-rocm.conf", SET),
        ("etc/security/pam_env.conf", "HSA_OVERRIDE_GFX_VERSION DEFAULT=11.0.0"),
        ("etc/security/pam_env.conf", "HSA_OVERRIDE_GFX_VERSION\tOVERRIDE=11.0.0"),
        ("etc/systemd/system.conf", f"DefaultEnvironment={SET}"),
        ("etc/systemd/system.conf.d/rocm.conf", f"DefaultEnvironment={SET}"),
        ("etc/systemd/user.conf", f"DefaultEnvironment={SET}"),
        ("etc/systemd/user.conf.d/rocm.conf", f"DefaultEnvironment={SET}"),
        ("etc/systemd/system/ollama.service", f"Environment={SET}"),
        ("etc/systemd/system/comfyui.service.d/mine.conf", f'Environment="A=1" "{SET}"'),
        ("etc/systemd/user/comfyui.service", f"Environment={SET}"),
        ("etc/systemd/user/comfyui.service.d/mine.conf", f"Environment={SET}"),
        ("etc/profile", f"export {SET}"),
        ("etc/profile.d/rocm.sh", f"A=1; export {SET} # for the chapter"),
        ("etc/bash.bashrc", f"declare -x {SET}"),
        ("etc/zsh/zshenv", f"export {SET}"),
        ("etc/zsh/zprofile", f"export {SET}"),
        ("etc/zsh/zshrc", f"export {SET}"),
        ("anna [1]/.profile", f"export {SET}"),
        ("anna [1]/.bashrc", f"export {SET}"),
        ("anna [1]/.bash_profile", f"export {SET}"),
        ("anna [1]/.bash_login", f"export {SET}"),
        ("anna [1]/.zshenv", f"export {SET}"),
        ("anna [1]/.zprofile", f"export {SET}"),
        ("anna [1]/.zshrc", f"export {SET}"),
        ("anna [1]/.pam_environment", "HSA_OVERRIDE_GFX_VERSION DEFAULT=11.0.0"),
        ("anna [1]/.config/environment.d/rocm.conf", SET),
        ("anna [1]/.config/systemd/user/comfyui.service", f"Environment={SET}"),
        ("anna [1]/.config/systemd/user/comfyui.service.d/mine.conf", f"Environment={SET}"),
    ],
)
def test_an_override_is_found_wherever_it_is_set(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f"# {line}\n[Service]\n{line}\nexport OTHER=$HSA_OVERRIDE_GFX_VERSION\n")
    home = tmp_path / "anna [1]"  # a home is a name, not a pattern
    assert survey.overrides(str(home), ME, str(tmp_path)) == [f"{file}: {line}"]


def test_an_override_is_found_outside_of_our_block(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(
        f"# >>> strixbox >>>\nexport {SET}\n# <<< strixbox <<<\nexport {SET} \n"
    )
    os.mkfifo(tmp_path / ".zshenv")  # nobody ever writes into it
    found = survey.overrides(str(tmp_path), ME, str(tmp_path / "none"))
    assert found == [f"{tmp_path}/.bashrc: export {SET}"]


def test_what_the_user_put_in_a_shells_place_holds_nothing_up(tmp_path: Path) -> None:
    home = tmp_path / "[a]"
    (home / ".config/environment.d").mkdir(parents=True)
    line = "export HSA_OVERRIDE_GFX_VERSION=11.0.0\n"
    (home / ".bashrc").write_text(line)
    (home / ".zshrc").write_text("# x\n" * survey.LIMIT + line)
    (home / ".profile").symlink_to("/dev/zero")
    os.mkfifo(home / ".bash_profile")
    os.mkfifo(home / ".config/environment.d/gpu.conf")
    told = asked("survey", SURVEY | {"home": str(home), "user": ME})["overrides"]
    found = [text for text in told if text.startswith(str(tmp_path))]
    assert found == [f"{home}/.bashrc: {line.strip()}"]


@needs_root
def test_files_are_looked_at_as_the_account_whose_they_are(theirs: Path, secret: Path) -> None:
    mine = theirs / "mine"
    mine.write_text("x")
    shutil.chown(mine, OTHER)
    mine.chmod(0o600)
    (theirs / "link").symlink_to(secret)
    query = {"paths": [str(mine), str(theirs / "none")], "user": OTHER}
    told = asked("file_states", query)
    assert [state["kind"] for state in told.values()] == ["file", "absent"]
    assert asked("file_text", {"path": str(mine), "user": OTHER}) == "x"
    assert asked("file_text", {"path": str(theirs / "link"), "user": OTHER}) == ""
    # As on a share that is closed to who asks: a sentence, and no guess.
    closed = {"paths": [str(secret.parent / "closed" / "x")], "user": OTHER}
    secret.parent.chmod(0o700)
    answer = subprocess.run(
        [sys.executable, "-I", "-c", source("file_states"), json.dumps(closed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be looked at: Permission denied; see who owns" in answer.stderr
    assert asked("file_states", closed | {"user": "no-such-account"}) == {
        closed["paths"][0]: {"kind": "absent"}
    }
    assert asked("file_text", {"path": str(mine), "user": "no-such-account"}) == ""


@needs_root
def test_a_shells_file_leads_no_further_than_its_owner_may_go(theirs: Path, secret: Path) -> None:
    closed = secret.parent / "closed"
    closed.write_text("export HSA_OVERRIDE_GFX_VERSION=1\n")
    closed.chmod(0o600)
    (theirs / ".bashrc").symlink_to(closed)
    told = asked("survey", SURVEY | {"home": str(theirs), "user": OTHER})["overrides"]
    assert [text for text in told if text.startswith(str(theirs))] == []


def test_the_survey_copes_with_any_machine() -> None:
    told = asked("survey", SURVEY)
    assert told["home"] is None
    assert told["closed"] == []
    assert told["memory"] > 0
    assert set(told["disks"]) == {"/opt", "/opt/strixbox", "/var/cache", "/no/home"}
    assert all(disk["free"] > 0 for disk in told["disks"].values())
    assert told["sealed"] is False


def test_a_directory_that_the_account_cannot_make_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    wanted = ["new", "new/models", "file/models", "gone", "gone/models"]
    assert survey.closed([str(tmp_path / path) for path in wanted], ME) == [
        f"{tmp_path / 'file'} is no directory",
        f"{tmp_path / 'gone'} is no directory",
    ]


@needs_root
def test_a_directory_of_roots_takes_nothing_from_the_account(theirs: Path) -> None:
    roots = theirs.parent / "roots"
    (roots / "there").mkdir(parents=True)
    wanted = [str(path) for path in (theirs / "x", roots / "there", roots / "x", roots / "y")]
    assert survey.closed(wanted, OTHER) == [f"{roots} takes nothing from {OTHER}"]
    assert survey.closed(wanted, "nobody-here") == []


def test_the_schedulers_firmware_is_told_from_the_others() -> None:
    told = (
        "ME feature version: 35, firmware version: 0x00000083\n"
        "MES_KIQ feature version: 6, firmware version: 0x0000006f\n"
        "MES feature version: 1, firmware version: 0x00000083\n"
        "MES feature version: 0, firmware version: 0x00000000\n"
    )
    assert survey.mes_versions(told) == ["0x83"]
    assert survey.mes_versions("") == []


def test_the_clock_is_asked_without_starting_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    assert survey.synchronised() in ("yes", "no")
    for error, told in ((0, "yes"), (15_999_999, "yes"), (16_000_000, "no")):

        def adjtimex(clock: Any, error: int = error) -> int:
            clock[24:32] = struct.pack("=q", error)
            return 5

        libc = SimpleNamespace(adjtimex=adjtimex)
        monkeypatch.setattr(ctypes, "CDLL", lambda name, libc=libc: libc)
        assert survey.synchronised() == told


def test_a_disk_is_that_of_the_links_target(tmp_path: Path) -> None:
    (tmp_path / "opt").symlink_to("/proc")
    assert (
        _disk.disk(str(tmp_path / "opt" / "none" / "deep"))["device"] == Path("/proc").stat().st_dev
    )


def test_a_lock_is_held_once_and_given_back_by_a_dead_holder(tmp_path: Path) -> None:
    folder = tmp_path / "strixbox"
    first, said = hold(folder, "anna since 12:00")
    assert said == {"held": True}
    assert (folder / "run").stat().st_mode & 0o777 == 0o600
    second, said = hold(folder, "berta")
    process = f"(process {first.pid})"
    assert said["process"].endswith(process)
    assert said == {"held": False, "holder": "anna since 12:00", "process": said["process"]}
    second.communicate(timeout=10)
    first.kill()
    first.wait(10)
    third, said = hold(folder, "berta")
    assert said == {"held": True}
    third.communicate(timeout=10)
    assert third.returncode == 0


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What a cut run left working: it holds the lock of writers as programs.Run has it held."""
    words = ["flock", "--shared", str(tmp_path / "writing"), "sleep", "60"]
    process = subprocess.Popen(words, start_new_session=True)
    alone = ["flock", "--exclusive", "--nonblock", str(tmp_path / "writing"), "true"]
    while subprocess.run(alone, check=False).returncode == 0:
        time.sleep(0.01)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def test_work_of_a_run_that_was_cut_is_waited_for(
    tmp_path: Path, orphan: subprocess.Popen[bytes]
) -> None:
    process, said = hold(tmp_path, "berta", patience=30)
    assert said["waiting"].startswith("sleep (process ")
    # The kernel keeps the lock for the child as long as that lives.
    orphan.kill()
    time.sleep(0.3)
    assert process.poll() is None
    os.killpg(orphan.pid, signal.SIGKILL)
    assert hear(process) == {"held": True}
    process.communicate(timeout=10)


def test_work_that_does_not_end_is_named(tmp_path: Path, orphan: subprocess.Popen[bytes]) -> None:
    process, said = hold(tmp_path, "berta")
    assert said["held"] is False
    assert "sleep (process " in said["working"]
    process.communicate(timeout=10)


def test_units_are_told_by_the_names_that_they_were_asked_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "UnitFileState=enabled\nDropInPaths=\n\nUnitFileState=\nDropInPaths=/a /b=c\n"
    asked: list[list[str]] = []

    def run(words: list[str], **_: Any) -> Any:
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, stdout=said)

    monkeypatch.setattr("subprocess.run", run)
    assert shown(("a.service", "/tmp/x"), "UnitFileState", "DropInPaths") == {
        "a.service": {"UnitFileState": "enabled", "DropInPaths": ""},
        "/tmp/x": {"UnitFileState": "", "DropInPaths": "/a /b=c"},
    }
    assert len(asked) == 1
    said = ""  # no systemd runs
    assert shown(("a.service",), "UnitFileState") == {"a.service": {"UnitFileState": ""}}
    assert shown((), "UnitFileState") == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.py,sha256=x,1\r\nb/c.py,,22\r\nd.pyc,,3\r\nRECORD,,\r\n", {"a.py": 1, "b/c.py": 22}),
        ('"a,b.py",sha256=x,1\n"say ""x"".py",,2\n', {"a,b.py": 1, 'say "x".py': 2}),
        ('"two\nlines.py",,1\n', {"two\nlines.py": 1}),
        ("a\x85b.py,,1\nc\u2028d.py,,2\n", {"a\x85b.py": 1, "c\u2028d.py": 2}),
        ("folder/,,0\na.py,,²\n\n,\n", {}),
    ],
)
def test_a_record_is_read_as_wheels_write_it(
    tmp_path: Path, text: str, found: dict[str, int]
) -> None:
    (tmp_path / "RECORD").write_text(text, newline="")
    assert recorded(str(tmp_path)) == found
