"""fstab and .bashrc: one entry or block of ours, every other byte as it was."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strixbox.box import footprint, tmpfs_mount
from strixbox.box._backups import entries
from strixbox.box._bashrc import BEGIN, END
from strixbox.box._living import used
from strixbox.box.bashrc_block import with_block
from strixbox.box.fstab_entry import with_entry
from strixbox.box.give_back import bashrc_before, give_back_bashrc
from strixbox.box.tmpfs_mount import fstab_lines, mounted, place
from strixbox.operations.mount import place_trouble
from strixbox.operations.shell import has_block
from tests.box.conftest import ME, NO_FOOT, OTHER, asked, needs_root, started

ENTRY = "tmpfs /tmp/cache tmpfs size=1G,nofail 0 0"
LINES = [b"export A=1"]
BLOCK = BEGIN + b"\nexport A=1\n" + END + b"\n"
LINE = st.binary(max_size=40).filter(lambda b: b"\n" not in b and b"\r" not in b)
TEXT = st.lists(LINE, max_size=8).map(b"\n".join)


@given(TEXT)
def test_fstab_keeps_every_other_line(text: bytes) -> None:
    after = with_entry(text, "/tmp/cache", ENTRY)
    assert after.startswith(text)
    assert after.count(ENTRY.encode()) == 1
    assert with_entry(after, "/tmp/cache", ENTRY) == after


def test_an_entry_takes_the_place_of_the_one_before() -> None:
    text = b"# mine\nUUID=1 / ext4 defaults 0 1\ntmpfs /tmp/cache tmpfs size=32G 0 0\n/dev/b /b x\n"
    after = with_entry(text, "/tmp/cache", ENTRY)
    assert after.splitlines() == [
        b"# mine",
        b"UUID=1 / ext4 defaults 0 1",
        ENTRY.encode(),
        b"/dev/b /b x",
    ]


def test_two_entries_for_one_mount_point_become_one() -> None:
    line = b"tmpfs /tmp/cache tmpfs size=2G 0 0\n"
    assert with_entry(line + b"# x\n" + line, "/tmp/cache", ENTRY) == ENTRY.encode() + b"\n# x\n"


def test_a_comment_about_the_mount_point_is_no_entry() -> None:
    text = b"#tmpfs /tmp/cache tmpfs size=2G 0 0\n"
    assert with_entry(text, "/tmp/cache", ENTRY).startswith(text)


def test_blanks_in_a_mount_point_are_understood() -> None:
    assert fstab_lines("tmpfs /tmp/a\\040b tmpfs x 0 0\n", "/tmp/a b") != []


def test_the_topmost_mount_is_told() -> None:
    info = (
        "30 1 8:1 / / rw - ext4 /dev/sda rw\n"
        "31 30 0:40 / /tmp/cache rw,nosuid - tmpfs tmpfs rw,size=1048576k,mode=700\n"
        "32 31 0:41 / /tmp/cache rw,nodev - tmpfs tmpfs rw,size=2097152k\n"
    )
    found = mounted(info, "/tmp/cache")
    assert found == {"fstype": "tmpfs", "flags": ["nodev", "rw"], "size": 2 << 30}
    assert mounted(info, "/none") is None


def test_what_a_mount_would_hide_is_told(tmp_path: Path) -> None:
    def trouble(name: str) -> tuple[str, str] | None:
        return place_trouble(str(tmp_path / name), place(str(tmp_path / name)))

    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    for number in range(5):
        (tmp_path / "full" / f"picture{number}").touch()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "file").touch()
    assert trouble("none") is None
    assert trouble("empty") is None
    assert "holds 5 files or directories (picture0, picture1, picture2)" in str(trouble("full"))
    assert str(trouble("link")).endswith("is a link', 'remove it and run again')")
    assert "is a file" in str(trouble("file"))
    # What is mounted already was judged before.
    assert place_trouble("/x", None, {"fstype": "tmpfs"}) is None
    disk = place_trouble("/x", None, {"fstype": "ext4"})
    assert disk and disk[0] == "/x is the mount point of a ext4 file system"


@given(TEXT.filter(lambda text: BEGIN not in text and END not in text))
def test_bashrc_keeps_every_line_of_the_users(text: bytes) -> None:
    after = with_block(text, BLOCK)
    assert after.startswith(text)
    assert with_block(after, BLOCK) == after
    other = BLOCK.replace(b"A=1", b"B=2")
    assert with_block(after, other) == after.replace(BLOCK, other)


def test_lines_after_the_block_stay_after_it() -> None:
    text = b"one\n" + BLOCK + b"two"
    assert (
        with_block(text, BLOCK.replace(b"1", b"2")) == b"one\n" + BLOCK.replace(b"1", b"2") + b"two"
    )


def test_a_second_block_is_dropped() -> None:
    assert with_block(BLOCK + b"mine\n" + BLOCK, BLOCK) == BLOCK + b"mine\n"


OURS = LINES[0] + b"\n"


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        # The end is gone.
        (b"1\n" + BEGIN + b"\n" + OURS + b"2\n3\n", b"1\n2\n3\n"),
        (BEGIN + b"\n2\n" + OURS, b"2\n" + OURS),
        (b"1\n" + BEGIN, b"1\n"),
        # It is there, and an older begin is as well.
        (BEGIN + b"\n" + OURS + b"2\n" + BLOCK + b"3", b"2\n3"),
        (BEGIN + b"\n" + BEGIN + b"\n" + OURS + END + b"\n4\n", b"4\n"),
        # The begin is gone.
        (b"1\n" + OURS + END + b"\n2\n", b"1\n2\n"),
        (b"1\n" + END + b"\n" + BLOCK + b"2\n", b"1\n2\n"),
        (BLOCK + b"1\n" + END + b"\n2\n", b"1\n2\n"),
    ],
)
def test_a_damaged_block_is_mended_and_every_other_line_stays(text: bytes, theirs: bytes) -> None:
    mended = with_block(text, BLOCK)
    assert mended.count(BEGIN) == mended.count(END) == mended.count(BLOCK) == 1
    assert mended.replace(BLOCK, b"") == theirs
    assert with_block(mended, BLOCK) == mended
    assert has_block(mended.decode(), ("export A=1",))
    assert not has_block(text.decode(), ("export A=1",))
    # What takes the block away agrees, before and after it was mended.
    assert bashrc_before(text, None, LINES) == theirs
    assert bashrc_before(mended, None, LINES) == theirs


@given(st.lists(st.sampled_from([b"mine", b"mine too", BEGIN, END, *LINES]), max_size=9))
def test_no_line_goes_but_those_between_two_markers(lines: list[bytes]) -> None:
    text = b"".join(line + b"\n" for line in lines)
    left = bashrc_before(text, None, LINES)
    # A block: its two markers, and no marker between them.
    block = re.escape(BEGIN) + rb"\n(?:(?!# >>>|# <<<).*\n)*" + re.escape(END) + rb"\n"
    others = [x for x in re.sub(block, b"", text).splitlines() if x.startswith(b"mine")]
    assert [x for x in left.splitlines() if x.startswith(b"mine")] == others
    assert BEGIN not in left
    assert END not in left
    assert with_block(text, BLOCK).replace(BLOCK, b"") == left


@pytest.mark.skipif(os.geteuid() != 0, reason="writes as the user, which only root can")
def test_a_linked_bashrc_stays_a_link_and_is_kept_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    real = tmp_path / "dotfiles" / "bashrc"
    real.parent.mkdir()
    real.write_bytes(b"alias x=y")
    real.chmod(0o600)
    link = tmp_path / ".bashrc"
    link.symlink_to(real)
    order = {
        "path": str(link),
        "user": ME,
        "lines": ["export A=1"],
        "backups": str(tmp_path / "kept"),
    }
    for lines in (["export A=1"], ["export A=1"], ["export A=2"]):
        answer = started("bashrc_block", order | {"lines": lines})
        assert answer.returncode == 0, answer.stderr
    assert link.is_symlink()
    assert real.read_bytes() == b"alias x=y\n" + BLOCK.replace(b"1", b"2")
    assert real.stat().st_mode & 0o777 == 0o600
    # The second: what stood in the block is not what stands there now, so it may be somebody's.
    first, second = entries(str(tmp_path / "kept"))
    assert (first["path"], first["edited"]) == (str(real), True)
    assert first["sha256"] == hashlib.sha256(b"alias x=y").hexdigest()
    assert Path(first["copy"]).read_bytes() == b"alias x=y"
    assert Path(second["copy"]).read_bytes() == b"alias x=y\n" + BLOCK
    give_back_bashrc(order | {"bashrc": str(link), "lines": ["export A=2"]})
    assert real.read_bytes() == b"alias x=y"
    assert link.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="writes as the user, which only root can")
@pytest.mark.parametrize("found", [None, b"", b"x"])
def test_a_bashrc_that_was_not_there_is_not_there_again(
    tmp_path: Path, found: bytes | None
) -> None:
    path = tmp_path / ".bashrc"
    if found is not None:
        path.write_bytes(found)
    order = {"user": ME, "lines": ["export A=1"], "backups": str(tmp_path / "kept")}
    assert started("bashrc_block", order | {"path": str(path)}).returncode == 0
    give_back_bashrc(order | {"bashrc": str(path)})
    assert (path.read_bytes() if path.exists() else None) == found


@pytest.mark.skipif(os.geteuid() != 0, reason="writes as the user, which only root can")
def test_a_link_that_led_nowhere_leads_nowhere_again(tmp_path: Path) -> None:
    link, target = tmp_path / ".bashrc", tmp_path / "dotfiles" / "bashrc"
    target.parent.mkdir()
    link.symlink_to("dotfiles/bashrc")
    order = {"user": ME, "lines": ["export A=1"], "backups": str(tmp_path / "kept")}
    assert started("bashrc_block", order | {"path": str(link)}).returncode == 0
    assert target.read_bytes() == BLOCK
    give_back_bashrc(order | {"bashrc": str(link)})
    assert link.is_symlink()
    assert not target.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="writes as the user, which only root can")
def test_lines_that_somebody_wrote_into_our_block_are_kept_when_it_goes(tmp_path: Path) -> None:
    path, backups = tmp_path / ".bashrc", str(tmp_path / "kept")
    order = {"user": ME, "lines": ["export A=1"], "backups": backups, "bashrc": str(path)}
    text = b"alias x=y\n" + BLOCK.replace(END, b"alias mine=1\n" + END)
    path.write_bytes(text)
    give_back_bashrc(order)
    assert path.read_bytes() == b"alias x=y\n"
    (kept,) = entries(backups)
    assert Path(kept["copy"]).read_bytes() == text


def test_any_mount_point_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    info = "30 1 0:40 / /mnt/Größe\\040x rw - tmpfs tmpfs rw,mode=700,uid=1000\n"
    real = open

    def opened(path: str, *words: Any, **named: Any) -> Any:
        """The box's own files, but for its mounts."""
        return io.StringIO(info) if path == "/proc/self/mountinfo" else real(path, *words, **named)

    monkeypatch.setattr("builtins.open", opened)
    assert "/mnt/Größe x" in used()
    none = subprocess.CompletedProcess[str]([], 0, stdout="")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: none)
    assert footprint.main(NO_FOOT | {"mount": "/mnt/Größe x"})["mounted"]


def test_a_mount_point_below_a_link_is_known_by_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "linked").symlink_to("disk")
    where = f"{tmp_path}/disk/cache"
    Path(where).mkdir()
    info = f"30 1 0:40 / {where} rw - tmpfs tmpfs rw,size=1048576k,mode=700\n"
    real = open

    def opened(path: str, *words: Any, **named: Any) -> Any:
        return io.StringIO(info) if path == "/proc/self/mountinfo" else real(path, *words, **named)

    monkeypatch.setattr("builtins.open", opened)
    units: list[str] = []

    def stale(path: str) -> bool:
        units.append(path)
        return False

    monkeypatch.setattr(tmpfs_mount, "stale", stale)
    told = tmpfs_mount.main({"path": f"{tmp_path}/linked/cache", "user": ME})
    assert told["mount"]["size"] == 1 << 30
    assert units == [where]


@needs_root
def test_a_pipe_a_link_and_a_planted_aside_lead_root_nowhere(theirs: Path, secret: Path) -> None:
    path, backups = theirs / ".bashrc", secret.parent / "kept"
    order = {"path": str(path), "user": OTHER, "lines": ["export A=1"], "backups": str(backups)}
    query = NO_FOOT | {"bashrc": str(path), "user": OTHER}

    os.mkfifo(path, 0o666)
    assert (
        "it is no regular file; see dmesg and what stands there"
        in started("bashrc_block", order).stderr
    )
    assert asked("file_text", {"path": str(path)}) == ""
    assert not asked("footprint", query)["bashrc"]
    give_back_bashrc(order | {"bashrc": str(path)})
    give_back_bashrc(order | {"bashrc": str(path), "user": "none"})
    path.unlink()

    hidden = secret.parent / "hidden"
    hidden.write_bytes(BEGIN)
    hidden.chmod(0o600)
    path.symlink_to(hidden)
    assert not asked("footprint", query)["bashrc"]
    assert "Permission denied; see who owns" in started("bashrc_block", order).stderr
    path.unlink()

    aside, other = theirs / ".bashrc.strixbox-new", theirs / "other"
    other.write_text("mine")
    shutil.chown(other, OTHER)
    aside.symlink_to(other)
    assert started("bashrc_block", order).returncode == 0
    assert other.read_text() == "mine"
    assert path.read_bytes() == BLOCK
    assert not path.is_symlink()
    assert "There is no account" in started("bashrc_block", order | {"user": "none"}).stderr
