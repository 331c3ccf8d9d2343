"""What dead runs left is found by our own names, and nothing beside it is touched."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyinfra.connectors.util import ASKPASS_COMMAND, SUDO_ASKPASS_ENV_VAR

from strixbox.box import leftovers
from strixbox.layout import GENERATION_ID, RELEASE_ID
from strixbox.programs import source
from tests.box.conftest import ME, NO_FOOT, OTHER, asked, needs_root, started


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root directory with the places that are looked at, empty."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    for name in ("etc/deep", "opt/releases", "generations", "wheels", "tmp", "home"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tmp").chmod(0o1777)
    return tmp_path


@pytest.fixture
def unshared() -> list[str]:
    """Words before a command whose mounts are its own."""
    words = ["unshare", "--mount"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this account may mount nothing")
    return words


def query(box: Path, home: Path | None = None, user: str = ME) -> dict[str, Any]:
    """The places of that box, with one tier of models and an archive."""
    home = home or box / "home"
    return {
        "trees": [f"{box}/etc"],
        "asides": [f"{box}/opt/*.strixbox-new", f"{box}/opt/releases/*/code/.git/*.lock"],
        "edited": [f"{box}/fstab"],
        "prefixes": ["strixbox-apt-"],
        "releases": f"{box}/opt/releases/{RELEASE_ID}",
        "generations": f"{box}/generations/{GENERATION_ID}",
        "current": f"{box}/opt/current",
        "wheels": f"{box}/wheels",
        "builder": "no-such-account",
        "user": user,
        "user_edited": [f"{home}/.bashrc"],
        "tiers": [f"{home}/models", f"{home}/archive"],
        "folders": ["vae"],
        "begun": [],
    }


def made(path: Path, content: bytes = b"x") -> Path:
    """A file with what leads to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def told(box: Path, **own: Any) -> dict[str, dict[str, Any]]:
    """Entries by path."""
    return {entry["path"]: entry for entry in asked("leftovers", query(box) | own)}


def cleared(box: Path, *paths: Path, **own: Any) -> str:
    """Have these cleared; what was said."""
    order = {"query": query(box) | own, "paths": [str(path) for path in paths]}
    answer = started("leftovers", order)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_asides_are_found_by_our_name_alone(box: Path) -> None:
    left = [
        made(box / "etc/deep/env.strixbox-new"),
        made(box / "opt/uv.strixbox-new/bin/pip"),
        made(box / "fstab.strixbox-new"),
        made(box / "opt/releases/one/code/.git/index.lock"),
    ]
    left[1] = box / "opt/uv.strixbox-new"
    link = box / "opt/current.strixbox-new"
    link.symlink_to(box / "home")
    mine = [
        made(box / "etc/deep/env.new"),
        made(box / "etc/deep/strixbox-new"),
        made(box / "elsewhere.strixbox-new"),
        made(box / "home/inside"),
        made(box / "opt/releases/one/code/.git/index"),
        made(box / "opt/releases/one/release.json"),
    ]
    # Through a link of somebody's nothing is found.
    made(box / "aside/deep/far.strixbox-new")
    (box / "etc/linked").symlink_to(box / "aside")

    found = told(box)

    assert set(found) == {str(path) for path in (*left, link)}
    assert found[str(left[1])]["bytes"] > 0
    cleared(box, *left, link)
    assert told(box) == {}
    assert not any(os.path.lexists(path) for path in (*left, link))
    assert all(path.exists() for path in mine)
    assert (box / "aside/deep/far.strixbox-new").exists()


def test_only_what_was_told_is_cleared(box: Path) -> None:
    one, two = (made(box / f"etc/{name}.strixbox-new") for name in ("one", "two"))
    mine = made(box / "home/mine")
    cleared(box, one, mine)
    assert not one.exists()
    assert two.exists()
    assert mine.exists()


def test_what_a_process_has_open_stays(box: Path) -> None:
    folder = made(box / "tmp/strixbox-apt-1/lists/file").parent.parent
    idle = made(box / "tmp/strixbox-apt-2/file").parent
    with subprocess.Popen(["sleep", "60"], cwd=folder / "lists") as process:
        found = told(box)
        assert found[str(folder)]["busy"]
        assert not found[str(idle)]["busy"]
        assert "is in use by now" in cleared(box, folder, idle)
        assert folder.exists()
        assert not idle.exists()
        process.kill()
    cleared(box, folder)
    assert not folder.exists()


def test_a_release_that_a_process_runs_from_is_busy(tmp_path: Path) -> None:
    library = made(tmp_path / "one/venv/libtorch.so")
    made(tmp_path / "two/venv/libtorch.so")
    paths = [str(tmp_path / name) for name in ("one", "two", "none")]
    # As the loader does it: mapped, and closed.
    mapped = "ctypes.CDLL(None).mmap(None, 4096, 1, 2, stream.fileno(), 0)"
    code = f"import ctypes, sys; stream = open(sys.argv[1]); {mapped}; stream.close()"
    command = [sys.executable, "-c", f"{code}; print(flush=True); sys.stdin.read()", str(library)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert asked("busy", {"paths": paths}) == paths[:1]
    assert asked("busy", {"paths": paths}) == []


def test_a_release_with_a_mount_in_it_is_busy(tmp_path: Path, unshared: list[str]) -> None:
    disk, mine = tmp_path / "one" / "venv" / "disk", made(tmp_path / "mine" / "photo")
    disk.mkdir(parents=True)
    (tmp_path / "two").mkdir()
    paths = [str(tmp_path / name) for name in ("one", "two")]
    foot = NO_FOOT | {"paths": paths}
    # A bind mount of the same disk: --one-file-system would not see it.
    script = f"mount --bind {mine.parent} {disk} && " + " && ".join(
        shlex.join([sys.executable, "-I", "-c", source(program), json.dumps(query)])
        for program, query in (("busy", {"paths": paths}), ("footprint", foot))
    )
    told = subprocess.run(
        [*unshared, "sh", "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert json.loads(told[0]) == paths[:1]
    assert json.loads(told[1])["mounts"] == [str(disk)]


def test_half_built_releases_and_generations_are_told_apart(box: Path) -> None:
    releases, generations = box / "opt/releases", box / "generations"
    half, once, now, whole = (str(number) * 12 for number in range(4))
    # Somebody's: a copy, notes, and a name that only looks like one of ours.
    for name in (half, once, now, f"{half}.bak", "mine", half.replace("0", "F")):
        made(releases / name / "venv/python")
    made(releases / whole / "release.json")
    (box / "opt/current").symlink_to(releases / now)
    order = json.dumps({"release": str(releases / once)}).encode()
    made(generations / f"{once}-00000001/generation.json", order)
    made(generations / f"{once}-00000001/answered")
    for name in (f"{half}-00000001", f"{half}-00000001.bak", "mine"):
        made(generations / name / "files/etc/env")
    (generations / "in-use").symlink_to(generations / f"{once}-00000001")

    found = told(box)

    assert {Path(p).name: e["used"] for p, e in found.items() if e["kind"] == "release"} == {
        half: False,
        once: True,
        now: True,
    }
    names = [Path(p).name for p, e in found.items() if e["kind"] == "generation"]
    assert names == [f"{half}-00000001"]


def test_what_was_cut_is_found_by_our_name_alone(box: Path) -> None:
    made(box / "wheels/torch.whl.strixbox-part")
    made(box / "wheels/torch.whl.strixbox-part.etag")
    made(box / "wheels/whole.whl")
    made(box / "wheels/whole.whl.strixbox-part.etag")
    made(box / "home/archive/vae/moved.safetensors.strixbox-part")
    # A browser's, also one of a model that is there, with the very bytes.
    made(box / "wheels/browser.whl.part")
    made(box / "home/models/vae/m.safetensors", b"content")
    made(box / "home/archive/vae/m.safetensors.part", b"cont")
    made(box / "home/archive/vae/m.safetensors.part.etag")
    (box / "home/archive/vae/folder.strixbox-part").mkdir()
    found = told(box)
    assert {Path(path).name: (e["kind"], e["whole"]) for path, e in found.items()} == {
        "torch.whl.strixbox-part": ("download", False),
        "torch.whl.strixbox-part.etag": ("download", False),
        "whole.whl.strixbox-part.etag": ("download", True),
        "moved.safetensors.strixbox-part": ("copy", False),
    }


def test_a_download_and_its_tag_are_judged_as_one(box: Path) -> None:
    tag = made(box / "home/models/vae/m.safetensors.strixbox-part.etag")
    part = made(box / "home/models/vae/m.safetensors.strixbox-part")
    week = time.time() - 8 * 86400
    os.utime(tag, (week, week))
    assert list(told(box)) == [str(part), str(tag)]
    assert [entry["age"] < 86400 for entry in told(box).values()] == [True, True]
    with part.open() as stream, subprocess.Popen(["sleep", "60"], stdin=stream) as process:
        assert [entry["busy"] for entry in told(box).values()] == [True, True]
        assert str(tag) in cleared(box, tag)
        process.kill()
    assert tag.exists()


def test_only_a_link_is_an_aside_among_models(box: Path) -> None:
    aside = box / "home/models/vae/m.safetensors.strixbox-new"
    aside.parent.mkdir(parents=True)
    aside.symlink_to("/nowhere")
    made(box / "home/models/vae/file.strixbox-new")
    assert set(told(box)) == {str(aside)}


def test_pyinfras_helper_is_told_by_its_text(box: Path) -> None:
    command = ASKPASS_COMMAND.format(box / "tmp", SUDO_ASKPASS_ENV_VAR)
    path = Path(subprocess.check_output(["sh", "-c", command], text=True).strip())
    made(box / "tmp/pyinfra-sudo-askpass-000000000000", b"#!/bin/sh\necho mine\n")
    (box / "tmp/pyinfra-sudo-askpass-111111111111").symlink_to(path)
    week = time.time() - 7 * 86400
    os.utime(path, (week, week))
    (entry,) = told(box).values()
    assert entry["path"] == str(path)
    assert entry["age"] >= 7 * 86400 - 5


@needs_root
def test_what_another_account_owns_stays(box: Path) -> None:
    planted = [
        made(box / "etc/x.strixbox-new"),
        made(box / "tmp/strixbox-apt-x/file").parent,
        made(box / "opt/releases/0123456789ab/file").parent,
    ]
    for path in planted:
        shutil.chown(path, OTHER)
    assert told(box) == {}
    assert told(box, builder=OTHER) != {}


@needs_root
def test_the_users_leftovers_are_cleared_with_the_users_rights(
    box: Path, theirs: Path, secret: Path
) -> None:
    own = query(box, theirs, OTHER)
    for name in ("models/vae", "archive"):
        (theirs / name).mkdir(parents=True)
    # The folder leads where only root may write.
    closed = secret.parent / "closed"
    made(closed / "m.strixbox-part")
    made(closed / "m.strixbox-part.etag")
    shutil.chown(made(closed / "own.strixbox-part.etag"), OTHER)
    closed.chmod(0o755)
    (theirs / "archive/vae").symlink_to(closed)
    made(theirs / "models/vae/m.strixbox-part")
    made(theirs / "models/vae/m.strixbox-part.etag")
    (theirs / ".bashrc").symlink_to(theirs / "dotfile")
    made(theirs / "dotfile.strixbox-new")
    made(theirs / "models/vae/roots.strixbox-part.etag")
    for path in theirs.rglob("*"):
        if "roots" not in path.name:
            os.chown(path, theirs.stat().st_uid, -1, follow_symlinks=False)

    names = {"m.strixbox-part", "m.strixbox-part.etag", "dotfile.strixbox-new"}
    found = asked("leftovers", own)
    assert {Path(entry["path"]).name for entry in found} == names
    assert all(entry["user"] for entry in found)

    paths = [entry["path"] for entry in found]
    assert started("leftovers", {"query": own, "paths": paths}).returncode == 0
    assert asked("leftovers", own) == []
    kept = ["m.strixbox-part", "m.strixbox-part.etag", "own.strixbox-part.etag"]
    assert sorted(path.name for path in closed.iterdir()) == kept
    with pytest.raises(PermissionError):
        leftovers.clear({"user": True, "path": str(closed / "own.strixbox-part.etag")}, OTHER)
    assert (theirs / "models/vae/roots.strixbox-part.etag").exists()
