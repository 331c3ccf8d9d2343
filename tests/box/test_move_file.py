"""A move between tiers that is killed at any step loses nothing and is finished by the next."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from strixbox.box import _placing, move_file
from strixbox.programs import source
from tests.box.conftest import ME, OTHER, needs_root, started

BODY = os.urandom(1 << 20) + b"tail"
# Ends the process before its n-th call of one of these: as a power cut would, between any two.
KILLER = """
import builtins, ctypes, io, os, shutil, signal, sys, types
left = [int(sys.argv.pop())]
def cut(call):
    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counted
for name in ("chown", "fsync", "open", "replace", "symlink", "unlink"):
    setattr(os, name, cut(getattr(os, name)))
shutil.copystat = cut(shutil.copystat)
libc = types.SimpleNamespace(renameat2=cut(ctypes.CDLL(None, use_errno=True).renameat2))
ctypes.CDLL = lambda *args, **kwargs: libc
builtins.open = cut(builtins.open)
io.FileIO = type("FileIO", (io.FileIO,), {"write": cut(io.FileIO.write)})
exec(compile(sys.argv.pop(), "move_file", "exec"), {"__name__": "__main__"})
"""


def places(folder: Path) -> tuple[Path, Path]:
    """A model in the active tier, and its place in the archive."""
    source_path, target = folder / "nvme" / "m", folder / "sata" / "m"
    for path in (source_path, target):
        path.parent.mkdir(parents=True)
    source_path.write_bytes(BODY)
    return source_path, target


@pytest.mark.parametrize("link", ["source", "elsewhere", "nowhere"])
def test_killed_at_every_step_it_loses_nothing(tmp_path: Path, link: str) -> None:
    points = 0
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        old, new = places(folder)
        active = folder / "active"
        if link == "elsewhere":
            active.symlink_to(old)
        left = {"source": old, "elsewhere": active, "nowhere": None}[link]
        item = {"source": str(old), "target": str(new), "link": left and str(left), "sha256": None}
        order = {"items": [item], "owner": ME}
        cut = subprocess.run(
            [sys.executable, "-I", "-c", KILLER, source("move_file"), str(number)],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        whole = [p for p in (old, new) if p.is_file() and p.read_bytes() == BODY]
        assert whole, f"lost at step {number}"
        assert left is None or left.read_bytes() == BODY, f"not to be found at step {number}"
        if cut.returncode == 0:
            break
        assert cut.returncode == -signal.SIGKILL, cut.stderr
        points += 1
        if not old.is_symlink() and old.exists():  # else the planner finds nothing to move
            answer = started("move_file", order)
            assert answer.returncode == 0, answer.stderr
        assert new.read_bytes() == BODY
        assert old.is_symlink() == (link == "source")
        assert os.path.lexists(old) == (link == "source")
        assert not list(folder.rglob("*.strixbox-part"))
        if left:
            assert left.readlink() == new
    assert points >= 10


def test_one_file_of_two_names_is_left_alone(tmp_path: Path) -> None:
    # ~/ComfyUI/models/loras may be a link into the archive: either name is the only copy.
    old, _ = places(tmp_path)
    (tmp_path / "loras").symlink_to(old.parent)
    for link in (str(old), None):
        item = {"source": str(old), "target": str(tmp_path / "loras" / "m"), "link": link}
        answer = started("move_file", {"items": [item | {"sha256": None}], "owner": ME})
        assert "are one file, and it was left alone" in answer.stderr
        assert old.read_bytes() == BODY


def test_a_source_that_changed_since_it_was_recorded_stays(tmp_path: Path) -> None:
    old, new = places(tmp_path)
    item = {"source": str(old), "target": str(new), "link": None, "sha256": "0" * 64}
    answer = started("move_file", {"items": [item], "owner": ME})
    assert f"not {'0' * 64} as models_manifest or the records say" in answer.stderr
    assert old.read_bytes() == BODY
    assert list(new.parent.iterdir()) == []


def test_a_file_in_the_links_place_stays(tmp_path: Path) -> None:
    old, new = places(tmp_path)
    (tmp_path / "active").write_text("mine")
    link = str(tmp_path / "active")
    item = {"source": str(old), "target": str(new), "link": link, "sha256": None}
    answer = started("move_file", {"items": [item], "owner": ME})
    assert "is a file or directory, not a link" in answer.stderr
    assert (tmp_path / "active").read_text() == "mine"
    assert old.read_bytes() == BODY


def test_two_files_that_differ_are_both_left(tmp_path: Path) -> None:
    old, new = places(tmp_path)
    new.write_bytes(b"another")
    item = {"source": str(old), "target": str(new), "link": str(old), "sha256": None}
    answer = started("move_file", {"items": [item], "owner": ME})
    assert "both exist and differ; both were left alone" in answer.stderr
    assert old.read_bytes() == BODY
    assert new.read_bytes() == b"another"


def test_a_browsers_download_of_the_same_name_stays(tmp_path: Path) -> None:
    old, new = places(tmp_path)
    theirs = new.with_name("m.part")
    theirs.write_bytes(b"half")
    item = {"source": str(old), "target": str(new), "link": None, "sha256": None}
    assert started("move_file", {"items": [item], "owner": ME}).returncode == 0
    assert new.read_bytes() == BODY
    assert theirs.read_bytes() == b"half"


def test_owner_mode_and_time_go_along(tmp_path: Path) -> None:
    old, new = places(tmp_path)
    old.chmod(0o640)
    os.utime(old, ns=(1_000_000_000, 2_000_000_000))
    item = {"source": str(old), "target": str(new), "link": str(old), "sha256": None}
    assert started("move_file", {"items": [item], "owner": ME}).returncode == 0
    assert new.stat().st_mode & 0o777 == 0o640
    assert new.stat().st_mtime_ns == 2_000_000_000


def test_a_directory_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    old, _ = places(tmp_path)
    item = {
        "source": str(old),
        "target": str(tmp_path / "none" / "m"),
        "link": str(old),
        "sha256": None,
    }
    answer = started("move_file", {"items": [item], "owner": ME})
    assert (
        "No such file or directory; nothing is lost: see that its directory is there (ls -ld"
        in answer.stderr
    )
    assert "Traceback" not in answer.stderr
    assert old.read_bytes() == BODY


def moved_as_other(old: Path, new: Path) -> tuple[int, str]:
    """Move as root moves for another account; exit code and last words."""
    item = {"source": str(old), "target": str(new), "link": str(old), "sha256": None}
    answer = started("move_file", {"items": [item], "owner": OTHER})
    assert "Traceback" not in answer.stderr
    return answer.returncode, answer.stderr


def of_other(folder: Path) -> tuple[Path, Path]:
    """A model of the other account's, and its place in the archive."""
    old, new = places(folder)
    for path in (old.parent, old, new.parent):
        shutil.chown(path, OTHER)
    return old, new


@needs_root
@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
def test_nothing_planted_leads_root_elsewhere(theirs: Path, secret: Path, kind: str) -> None:
    old, new = of_other(theirs)
    getattr(new.with_name("m.strixbox-part"), kind)(secret)
    getattr(old.with_name("m.strixbox-new"), kind)(secret)
    assert moved_as_other(old, new) == (0, "")
    assert new.read_bytes() == BODY
    assert old.readlink() == new
    assert {old.lstat().st_uid, new.stat().st_uid} == {theirs.stat().st_uid}


@needs_root
def test_a_link_in_the_sources_place_is_not_read(theirs: Path, secret: Path) -> None:
    old, new = of_other(theirs)
    old.unlink()
    old.symlink_to(secret)
    code, said = moved_as_other(old, new)
    assert code == 1
    assert "nothing is lost" in said
    assert list(new.parent.iterdir()) == []


@needs_root
def test_a_model_of_roots_is_moved_where_the_user_may_read_it(theirs: Path) -> None:
    old, new = of_other(theirs)
    shutil.chown(old, "root")
    assert moved_as_other(old, new) == (0, "")
    assert new.owner() == OTHER
    assert new.read_bytes() == BODY


@needs_root
def test_a_model_that_the_user_cannot_read_stays_with_the_mend(theirs: Path) -> None:
    old, new = of_other(theirs)
    shutil.chown(old, "root")
    old.chmod(0o600)
    code, said = moved_as_other(old, new)
    assert code == 1
    assert f"could not be moved by {OTHER}: {old}: Permission denied" in said
    assert f"sudo chown {OTHER}:" in said
    assert old.read_bytes() == BODY


@needs_root
def test_a_folder_that_leads_to_roots_is_refused(theirs: Path, tmp_path: Path) -> None:
    old, _ = of_other(theirs)
    (theirs / "loras").symlink_to(tmp_path)
    code, said = moved_as_other(old, theirs / "loras" / "m")
    assert code == 1
    assert "Permission denied; nothing is lost" in said
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_keeps_no_modes_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object, **named: object) -> None:
        """What exFAT answers to an account that its files are not mounted for."""
        raise PermissionError(1, "Operation not permitted")

    old, new = places(tmp_path)
    monkeypatch.setattr(os, "chmod", refused)
    monkeypatch.setattr(os, "utime", refused)
    item = {"source": str(old), "target": str(new), "link": str(old), "sha256": None}
    move_file.main({"items": [item], "owner": ME})
    assert new.read_bytes() == BODY


def test_an_old_part_counts_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = places(tmp_path)
    part = new.with_name("m.strixbox-part")
    part.write_bytes(bytes(1000))

    def room(path: str) -> os.statvfs_result:
        """The disk is full for as long as the old part takes room."""
        blocks = 0 if part.stat().st_size else 1 << 40
        return os.statvfs_result((1, 1, blocks, blocks, blocks, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", room)
    item = {"source": str(old), "target": str(new), "link": str(old), "sha256": None}
    move_file.main({"items": [item], "owner": ME})
    assert new.read_bytes() == BODY


def moved_here(old: Path, new: Path, **own: str) -> None:
    """Move in this process, where a test may look on."""
    item = {"source": str(old), "target": str(new), "link": str(old), "sha256": None} | own
    move_file.main({"items": [item], "owner": ME})


def test_a_model_that_is_still_being_written_stays(tmp_path: Path) -> None:
    # A copy from a share may stall: neither size nor time changes for a while.
    old, new = places(tmp_path)
    with old.open("ab"), pytest.raises(SystemExit, match="still being written by another program"):
        moved_here(old, new)
    assert old.read_bytes() == BODY
    assert list(new.parent.iterdir()) == []
    moved_here(old, new)
    assert new.read_bytes() == BODY


@pytest.mark.parametrize("step", ["copy", "sha256", "flush_directory"])
def test_a_model_that_was_written_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old, new = places(tmp_path)
    real = getattr(move_file, step)

    def and_more_comes(*words: object) -> object:
        """Somebody adds to the source after this step, before the first of the next."""
        done = real(*words)
        with old.open("ab") as stream:
            stream.write(b"the rest")
        return done

    monkeypatch.setattr(move_file, step, and_more_comes)
    with pytest.raises(SystemExit, match="was written while it was moved"):
        moved_here(old, new)
    assert not old.is_symlink()
    assert old.read_bytes() == BODY + b"the rest"


def test_a_copy_that_was_written_since_it_was_compared_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = places(tmp_path)
    new.write_bytes(BODY)
    real = _placing.sha256

    def and_more_comes(path: str) -> object:
        """Somebody adds to the source when both were read."""
        done = real(path)
        if path == str(new):
            with old.open("ab") as stream:
                stream.write(b"the rest")
        return done

    monkeypatch.setattr(move_file, "sha256", and_more_comes)
    with pytest.raises(SystemExit, match="was written while it was moved"):
        moved_here(old, new)
    assert old.read_bytes() == BODY + b"the rest"


def test_what_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = move_file.copy
    for planted in ("file", "link"):
        old, new = places(tmp_path / planted)

        def and_then(*words: object, new: Path = new, planted: str = planted) -> object:
            """Somebody takes the place of the model."""
            new.write_text("mine") if planted == "file" else new.symlink_to("/mine")
            return real(*words)  # type: ignore[arg-type]

        monkeypatch.setattr(move_file, "copy", and_then)
        with pytest.raises(SystemExit, match=r"appeared while .* was written; it was left alone"):
            moved_here(old, new)
        assert [new] == list(new.parent.iterdir())
        assert new.read_text() == "mine" if planted == "file" else new.is_symlink()
        assert old.read_bytes() == BODY


def test_a_disk_that_knows_no_safe_rename_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> int:
        """What a network disk answers."""
        ctypes.set_errno(errno.EINVAL)
        return -1

    old, new = places(tmp_path)
    monkeypatch.setattr(_placing, "libc", types.SimpleNamespace(renameat2=unknown))
    moved_here(old, new)
    assert new.read_bytes() == BODY


@pytest.mark.parametrize("there", [False, True])
def test_the_disk_is_compared_and_not_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    old, new = places(tmp_path)
    done: list[str] = []

    def noted(module: object, name: str) -> None:
        """Have calls of a function written down."""
        real = getattr(module, name)

        def call(*words: object) -> object:
            done.append(name)
            return real(*words)

        monkeypatch.setattr(module, name, call)

    noted(os, "fsync")
    noted(os, "posix_fadvise")
    noted(move_file, "sha256")
    if there:
        new.write_bytes(BODY)
    moved_here(old, new)
    # The copy, or one of the user's that is there already; only then it is read.
    directory = ["fsync"] if there else []
    assert done[: 3 + there] == ["fsync", "posix_fadvise", *directory, "sha256"]


def test_a_part_that_a_command_of_the_box_writes_is_not_touched(tmp_path: Path) -> None:
    old, new = places(tmp_path)
    part = new.with_name("m.strixbox-part")
    with part.open("wb") as stream:
        stream.write(b"theirs")
        stream.flush()
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match=r"command on the box \(strixbox models\); wait"):
            moved_here(old, new)
    assert part.read_bytes() == b"theirs"
    assert old.read_bytes() == BODY
    moved_here(old, new)
    assert new.read_bytes() == BODY


def test_the_manifests_hash_is_checked_before_the_source_goes(tmp_path: Path) -> None:
    old, new = places(tmp_path)
    new.write_bytes(BODY)
    with pytest.raises(SystemExit, match="as models_manifest or the records say"):
        moved_here(old, new, sha256="0" * 64)
    assert old.read_bytes() == BODY
