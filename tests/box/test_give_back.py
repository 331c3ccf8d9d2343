"""What was edited is given back byte for byte, and the owner's later edits stay."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strixbox.box import _moving, footprint, fstab_entry, give_back, retire
from strixbox.box._backups import MARK, entries, keep, keep_foreign
from strixbox.box._bashrc import BEGIN, END
from strixbox.box._fstab import ours
from strixbox.box._retiring import put_by
from strixbox.box.bashrc_block import with_block
from strixbox.box.footprint import waiting
from strixbox.box.fstab_entry import with_entry
from strixbox.box.give_back import bashrc_before, fstab_before
from strixbox.box.tmpfs_mount import fstab_lines
from tests.box.conftest import NO_FOOT, asked
from tests.box.test_text_files import BLOCK, LINES, TEXT

PATH = "/tmp/cache"
ENTRY = f"tmpfs {PATH} tmpfs size=1G,mode=0700,uid=1,gid=1,nosuid,nodev,nofail 0 0"
THEIRS = f"tmpfs {PATH} tmpfs size=32G,mode=1777 0 0".encode()


@given(TEXT, st.booleans())
def test_fstab_comes_back_byte_for_byte(text: bytes, had: bool) -> None:
    found = text + (b"" if not text or text.endswith(b"\n") else b"\n") + THEIRS if had else text
    assert fstab_before(with_entry(found, PATH, ENTRY), found, PATH) == found


@given(TEXT.filter(lambda text: BEGIN not in text and END not in text))
def test_bashrc_comes_back_byte_for_byte(text: bytes) -> None:
    assert bashrc_before(with_block(text, BLOCK), text, LINES) == text


def test_what_the_owner_added_since_stays() -> None:
    found = b"UUID=1 / ext4 defaults 0 1\n" + THEIRS
    now = with_entry(found, PATH, ENTRY) + b"LABEL=new /mnt/new ext4 noauto 0 2\n"
    assert fstab_before(now, found, PATH) == found + b"\nLABEL=new /mnt/new ext4 noauto 0 2\n"
    now = with_block(b"alias a=b\n", BLOCK) + b"alias c=d\n"
    assert bashrc_before(now, b"alias a=b\n", LINES) == b"alias a=b\nalias c=d\n"
    assert bashrc_before(now, None, LINES) == b"alias a=b\nalias c=d\n"


def test_an_entry_that_the_owner_put_in_place_of_ours_stays() -> None:
    disk = f"/dev/sdb1 {PATH} ext4 defaults 0 2\n".encode()
    root = b"UUID=1 / ext4 defaults 0 1\n"
    for found in (root, root + THEIRS):
        assert fstab_before(root + disk, found, PATH) == root + disk
        assert fstab_before(root, found, PATH) == root
        both = with_entry(root, PATH, ENTRY) + disk
        assert fstab_before(both, found, PATH) == root + disk


def test_a_changed_mount_point_leaves_no_line_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmounted: list[str] = []
    monkeypatch.setattr(fstab_entry, "errors", lambda fstab: [])
    monkeypatch.setattr(fstab_entry, "unmount", unmounted.append)
    fstab, backups = tmp_path / "fstab", str(tmp_path / "backups")
    order = {"fstab": str(fstab), "backups": backups}
    found = b"# mine\n" + THEIRS.replace(b"1777", b"1777,noauto") + b"\n/dev/b /b x noauto 0 0"
    fstab.write_bytes(found)
    other = ENTRY.replace(PATH, "/mnt/other")
    fstab_entry.main(order | {"path": "/mnt/other", "entry": other})
    assert fstab_lines(fstab.read_text(), PATH) == [*fstab_lines(found.decode(), PATH), other]
    # The line that goes now is the owner's: a copy of it is made, and ours in it does not return.
    fstab_entry.main(order | {"path": PATH, "entry": ENTRY})
    assert unmounted == ["/mnt/other"]
    assert fstab_lines(fstab.read_text(), PATH) == [ENTRY]
    give_back.give_back_fstab({"fstab": str(fstab), "mount": PATH, "backups": backups})
    assert fstab.read_bytes() == found + b"\n"
    assert [Path(x["copy"]).read_bytes() for x in entries(backups)][:1] == [found]


@pytest.mark.parametrize(
    ("holds", "returns", "gone"), [(0, 0, True), (1, 0, False), (0, 32, False)]
)
def test_a_ram_disk_with_something_in_it_stays(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    holds: int,
    returns: int,
    gone: bool,
) -> None:
    ran: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command[0])
        return subprocess.CompletedProcess(command, returns, stdout="tmpfs\n")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("os.listdir", lambda path: ["picture"] * holds)
    fstab_entry.unmount(PATH)
    assert ("is unmounted" in capsys.readouterr().out) is gone
    assert ("umount" in ran) is not bool(holds)


def test_the_owners_own_entry_is_not_ours() -> None:
    assert ours(ENTRY.encode())
    assert not ours(THEIRS)
    assert not ours(b"# " + ENTRY.encode())
    assert not ours(b"")


def test_files_return_where_nothing_stands_and_ours_do_not(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    places = {name: tmp_path / name for name in ("source.list", "taken", "opt/strixbox/old.py")}
    entries = []
    for number, path in enumerate(places.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = backups / str(number)
        copy.write_text(path.name)
        entries.append({"path": str(path), "copy": str(copy), "why": "x"})
    places["taken"].write_text("theirs")
    lines = [json.dumps(entry) for entry in entries]
    (backups / "index.jsonl").write_text("\n".join([*lines, "no json", "[]", ""]))
    ours_here = [str(tmp_path / "opt/strixbox")]
    order = {"backups": str(backups), "ours": ours_here}
    assert waiting(str(backups), ours_here, []) == [str(places["source.list"])]

    give_back.give_back_files(order)

    assert places["source.list"].read_text() == "source.list"
    assert places["taken"].read_text() == "theirs"
    assert not places["opt/strixbox/old.py"].exists()
    assert waiting(str(backups), ours_here, []) == []
    give_back.give_back_files(order)


def test_a_unit_of_somebody_elses_returns_and_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = "LoadState=loaded\n\nLoadState=loaded\n"
    loaded = subprocess.CompletedProcess[str]([], 0, stdout=both)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: loaded)
    backups = str(tmp_path / "backups")
    file, link = tmp_path / "comfyui.service", tmp_path / "linked.service"
    query = NO_FOOT | {"units": [str(file), str(link)], "backups": backups}
    for text in ("[Unit]\n# first\n", "[Unit]\n# then\n"):
        file.write_text(text)
        keep_foreign(str(file), b"", backups)
    link.symlink_to("/home/x/linked.service")
    keep_foreign(str(link), b"", backups)
    assert footprint.main(query)["units"] == footprint.main(query)["paths"] == []
    for path in (file, link):
        path.unlink()
        path.write_bytes(b"# " + MARK)
    told = footprint.main(query)
    assert told["units"] == [file.name, link.name]
    assert told["paths"] == told["waiting"] == [str(file), str(link)]

    file.unlink()
    link.unlink()
    give_back.give_back_files({"backups": backups, "ours": []})

    assert file.read_text() == "[Unit]\n# then\n"
    assert str(link.readlink()) == "/home/x/linked.service"
    told = footprint.main(query)
    assert told["units"] == told["paths"] == told["waiting"] == []


def test_what_has_no_name_of_ours_is_a_stranger(tmp_path: Path) -> None:
    for name in ("bin", "mine", "releases", "releases/0123456789ab", "releases/old"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes").touch()
    known = {str(tmp_path): "bin|releases", f"{tmp_path}/releases": "[0-9a-f]{12}", "/none": "x"}
    told = footprint.main(NO_FOOT | {"known": known})
    assert told["strangers"] == [
        f"{tmp_path}/mine",
        f"{tmp_path}/notes",
        f"{tmp_path}/releases/old",
    ]


def test_fstab_is_kept_before_each_first_edit_and_given_back_as_it_was_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fstab_entry, "errors", lambda fstab: [])  # there is no such directory
    fstab, backups = tmp_path / "fstab", str(tmp_path / "backups")
    order = {"fstab": str(fstab), "path": PATH, "backups": backups}
    undo = {"fstab": str(fstab), "mount": PATH, "backups": backups}
    first, then = b"# mine\n" + THEIRS.replace(b"1777", b"1777,noauto"), b"# mine\n"
    for text in (first, then, first):
        fstab.write_bytes(text)
        for size in ("1G", "2G"):
            fstab_entry.main(order | {"entry": ENTRY.replace("1G", size)})
        give_back.give_back_fstab(undo)
        assert fstab.read_bytes() == text
    told = entries(backups)
    assert [Path(entry["copy"]).read_bytes() for entry in told] == [first, then, first]
    assert all(entry.keys() >= {"path", "copy", "sha256", "time"} for entry in told)
    # It was edited, not taken away: gone means that its owner removed it.
    fstab.unlink()
    assert waiting(backups, [], []) == []
    give_back.give_back_files({"backups": backups, "ours": []})
    assert not fstab.exists()


@pytest.mark.parametrize("in_its_place", [True, False], ids=["disk", "overlay"])
def test_what_is_retired_is_noted_with_its_hash_and_returns_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_its_place: bool
) -> None:
    backups, tree, file = tmp_path / "backups", tmp_path / "rocm", tmp_path / "rocm.list"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "x.so").write_bytes(b"x")
    (tree / "link").symlink_to("lib/x.so")
    file.write_bytes(b"deb\n")
    # Another disk: what a power cut left there and here goes, and nothing half is a copy.
    rename = os.rename

    def across(old: str, new: str) -> None:
        """Rename, but not from one disk to the other, nor what overlayfs does not rename."""
        lower = not in_its_place and Path(old).name == "rocm"
        if lower or Path(old).parent != Path(new).parent:
            raise OSError(errno.EXDEV, "another disk")
        rename(old, new)

    monkeypatch.setattr(os, "rename", across)
    order = {"paths": [str(tree), str(file)], "backups": str(backups), "why": "old"}
    retire.main(order)
    retire.main(order)
    one, two = entries(str(backups))
    assert (one["path"], one["sha256"]) == (str(tree), None)
    assert two["sha256"] == hashlib.sha256(b"deb\n").hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backups"]
    assert len(list(backups.iterdir())) == 3
    (tmp_path / "rocm.strixbox-new").mkdir()

    give_back.give_back_files({"backups": str(backups), "ours": []})

    assert (tree / "lib" / "x.so").read_bytes() == b"x"
    assert (tree / "link").is_symlink()
    assert file.read_bytes() == b"deb\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backups", "rocm", "rocm.list"]


def test_the_new_name_is_on_the_disk_before_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "x").write_bytes(b"x")
    done: list[str] = []
    rename, fsync = os.rename, os.fsync

    def across(old: str, new: str) -> None:
        """Rename, but not from one disk to the other."""
        if Path(old).parent != Path(new).parent:
            raise OSError(errno.EXDEV, "another disk")
        done.append(f"rename {Path(old).name}")
        rename(old, new)

    def flushed(descriptor: int) -> None:
        done.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    monkeypatch.setattr(os, "rename", across)
    monkeypatch.setattr(os, "fsync", flushed)
    _moving.move(str(one / "x"), str(two / "x"))
    assert done == ["rename x.strixbox-new", "flush two", "rename x"]


def test_half_a_line_of_the_index_hides_no_other(tmp_path: Path) -> None:
    keep("/a", b"1", None, str(tmp_path))
    with (tmp_path / "index.jsonl").open("ab") as stream:
        stream.write(b'{"path": "/b", "co')
    for content in (b"2", b"2", b"1"):
        keep("/a", content, None, str(tmp_path))
    told = entries(str(tmp_path))
    assert [Path(entry["copy"]).read_bytes() for entry in told] == [b"1", b"2", b"1"]


def test_what_lies_behind_a_link_of_ours_is_found(tmp_path: Path) -> None:
    opt, disk, cache = tmp_path / "opt", tmp_path / "disk", tmp_path / "cache"
    for path in (disk / "releases", disk / "theirs", cache / "wheels"):
        path.mkdir(parents=True)
    opt.symlink_to(disk)
    inside = [str(path) for path in (opt / "releases", opt / "none", cache / "wheels")]
    query = NO_FOOT | {"paths": [str(opt), str(cache)], "inside": inside}
    told = asked("footprint", query)
    assert told["paths"] == [str(opt / "releases"), str(opt), str(cache)]
    assert told["links"] == {str(opt): str(disk)}


def test_what_was_measured_stays_and_all_around_it_goes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    bench, tuned = state / "tools" / "bench", state / "tunableop"
    for folder in (bench, tuned, state / "generations" / "7"):
        folder.mkdir(parents=True)
    (bench / "one.json").write_text("{}")
    (state / "tools" / "usage.json").write_text("{}")
    query = NO_FOOT | {"paths": [str(state)], "kept": [str(bench), str(tuned)]}
    told = asked("footprint", query)
    assert told["kept"] == [str(bench)]
    going = [state / "generations", state / "tools" / "usage.json", tuned]
    assert told["paths"] == [str(path) for path in going]
    subprocess.run(["rm", "-rf", "--", *told["paths"]], check=True)
    assert asked("footprint", query)["paths"] == []
    assert (bench / "one.json").exists()
    (bench / "one.json").unlink()
    assert asked("footprint", query)["paths"] == [str(state)]


def test_what_was_measured_stays_behind_a_link_too(tmp_path: Path) -> None:
    state, disk = tmp_path / "state", tmp_path / "disk"
    state.symlink_to(disk)
    (disk / "tools" / "bench").mkdir(parents=True)
    (disk / "tools" / "bench" / "one.json").write_text("{}")
    (disk / "tools" / "usage.json").write_text("{}")
    (disk / "generations").mkdir()
    inside = [str(state / "tools"), str(state / "generations")]
    kept = [str(state / "tools" / "bench")]
    told = asked("footprint", NO_FOOT | {"paths": [str(state)], "inside": inside, "kept": kept})
    assert told["kept"] == kept
    assert told["paths"] == [str(state / "tools" / "usage.json"), str(state / "generations")]


def test_what_is_put_by_never_takes_the_place_of_another_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.gmtime", lambda: time.struct_time((2026, 1, 2, 3, 4, 5, 4, 2, 0)))
    backups = str(tmp_path / "backups")
    # One name for both if a slash became a hyphen, and none that fits for the third.
    deep = tmp_path / "/".join("x" * 200 for _ in range(3))
    places = [tmp_path / "a" / "b", tmp_path / "a-b", deep / ("ü" * 120)]
    kept = []
    for number in range(2):
        for path in places:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number} {path}")
            kept.append((put_by(str(path), backups, "old"), f"{number} {path}"))
    assert [Path(copy).read_text() for copy, _ in kept] == [text for _, text in kept]
    assert kept[0][0].startswith(f"{backups}/20260102T030405Z-")


def test_an_fstab_with_passwords_is_nobodys_to_read_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_bytes(b"//nas/x /mnt/x cifs password=secret 0 0\n")
    fstab.chmod(0o600)
    seen: list[tuple[str, int]] = []
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777, **words: Any) -> int:
        descriptor = real(path, flags, mode, **words)
        seen.append((Path(path).name, os.fstat(descriptor).st_mode & 0o777))
        return descriptor

    asked: list[str] = []

    def errors(path: str) -> list[str]:
        asked.append(path)
        return []

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(fstab_entry, "errors", errors)
    order = {"fstab": str(fstab), "path": PATH, "entry": ENTRY, "backups": str(tmp_path / "b")}
    fstab_entry.main(order)
    assert ("fstab.strixbox-new", 0o600) in seen
    assert fstab.stat().st_mode & 0o777 == 0o600
    assert asked == [str(fstab), f"{fstab}.strixbox-new"]


def test_what_cannot_be_retired_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, backups: str, why: str, digest: str | None) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(retire, "put_by", full)
    order = {"paths": [str(tmp_path)], "backups": "/b", "why": "old"}
    with pytest.raises(SystemExit, match=r"could not be moved to /b: No space left .* run again"):
        retire.main(order)
