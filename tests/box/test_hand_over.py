"""An environment is its builder's to write while it is built, and only root's afterwards."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import environments, hand_over
from tests.box.conftest import ME

BUILDER = 54321  # no account and no process on this machine has it
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An order for a builder that needs no entry in /etc/passwd."""
    account = types.SimpleNamespace(pw_uid=BUILDER, pw_gid=BUILDER)
    monkeypatch.setattr(hand_over, "pwd", types.SimpleNamespace(getpwnam=lambda name: account))
    environment, cache = str(tmp_path / "venv"), str(tmp_path / "cache")
    return {"builder": "b", "environment": environment, "cache": cache, "build": True}


def owners(path: Path) -> set[int]:
    """Owners of all that is there."""
    return {entry.lstat().st_uid for entry in (path, *path.rglob("*"))}


@root_only
def test_what_was_built_is_roots_and_links_are_not_followed(
    tmp_path: Path, order: dict[str, Any]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("x")
    os.chown(theirs / "file", 1234, 1234)
    os.chown(theirs, 1234, 1234)

    hand_over.main(order)
    venv = tmp_path / "venv"
    assert {venv.stat().st_uid, (tmp_path / "cache").stat().st_uid} == {BUILDER}
    package = venv / "lib" / "package"
    package.mkdir(parents=True)
    (package / "open.py").write_text("")
    (package / "open.py").chmod(0o4777)
    package.chmod(0o777)
    (venv / "to-file").symlink_to(theirs / "file")
    (venv / "to-directory").symlink_to(theirs)
    (venv / "to-nothing").symlink_to("/no/such")
    for entry in venv.rglob("*"):
        os.chown(entry, BUILDER, BUILDER, follow_symlinks=False)

    hand_over.main(order | {"build": False})

    assert owners(venv) == {0}
    assert owners(theirs) == {1234}
    assert not (tmp_path / "cache").exists()
    modes = [stat.S_IMODE(entry.lstat().st_mode) for entry in (package, package / "open.py")]
    assert modes == [0o755, 0o755]


@root_only
def test_a_file_that_stands_elsewhere_too_is_not_given_away(
    tmp_path: Path, order: dict[str, Any]
) -> None:
    (tmp_path / "venv" / "lib").mkdir(parents=True)
    (tmp_path / "in-another-release").write_text("x")
    (tmp_path / "venv" / "lib" / "file").hardlink_to(tmp_path / "in-another-release")
    hand_over.main(order)
    assert (tmp_path / "in-another-release").stat().st_uid == 0
    assert (tmp_path / "venv" / "lib").stat().st_uid == BUILDER


@root_only
def test_what_a_build_left_running_is_ended(order: dict[str, Any]) -> None:
    with subprocess.Popen(
        ["sleep", "60"], user=BUILDER, group=BUILDER, extra_groups=[], cwd="/"
    ) as left:
        assert hand_over.running(BUILDER) == [left.pid]
        hand_over.main(order)
        assert left.wait(10) == -9
    assert hand_over.running(BUILDER) == []


def test_root_is_no_builder(order: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    root = types.SimpleNamespace(getpwnam=lambda name: pwd.getpwuid(0))
    monkeypatch.setattr(hand_over, "pwd", root)
    with pytest.raises(SystemExit, match="is root"):
        hand_over.main(order)


def test_an_environment_tells_who_may_write_to_it(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    (site / "package").mkdir(parents=True)
    for path in (tmp_path, site, site / "package"):
        path.chmod(0o755)
    assert environments.environment(str(tmp_path))["owners"] == [ME]
    (site / "package").chmod(0o775)
    assert "anyone" in environments.environment(str(tmp_path))["owners"]
    if os.geteuid() == 0:
        os.chown(site / "package", BUILDER, BUILDER)
        assert str(BUILDER) in environments.environment(str(tmp_path))["owners"]
