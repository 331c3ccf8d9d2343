"""What was edited is given back byte for byte, and the owner's later edits stay."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from strixbox.box import give_back
from strixbox.box.bashrc_block import BEGIN, END, with_block
from strixbox.box.footprint import ours, waiting
from strixbox.box.fstab_entry import with_entry
from strixbox.box.give_back import bashrc_before, fstab_before
from tests.unit.box.test_text_files import BLOCK, TEXT

PATH = "/tmp/cache"
ENTRY = f"tmpfs {PATH} tmpfs size=1G,mode=0700,uid=1,gid=1,nosuid,nodev,nofail 0 0"
THEIRS = f"tmpfs {PATH} tmpfs size=32G,mode=1777 0 0".encode()


@given(TEXT, st.booleans())
def test_fstab_comes_back_byte_for_byte(text: bytes, had: bool) -> None:
    found = text + (b"" if not text or text.endswith(b"\n") else b"\n") + THEIRS if had else text
    assert fstab_before(with_entry(found, PATH, ENTRY), found, PATH) == found


@given(TEXT.filter(lambda text: BEGIN not in text and END not in text))
def test_bashrc_comes_back_byte_for_byte(text: bytes) -> None:
    assert bashrc_before(with_block(text, BLOCK), text) == text


def test_what_the_owner_added_since_stays() -> None:
    found = b"UUID=1 / ext4 defaults 0 1\n" + THEIRS
    now = with_entry(found, PATH, ENTRY) + b"LABEL=new /mnt/new ext4 noauto 0 2\n"
    assert fstab_before(now, found, PATH) == found + b"\nLABEL=new /mnt/new ext4 noauto 0 2\n"
    now = with_block(b"alias a=b\n", BLOCK) + b"alias c=d\n"
    assert bashrc_before(now, b"alias a=b\n") == b"alias a=b\nalias c=d\n"
    assert bashrc_before(now, None) == b"alias a=b\nalias c=d\n"


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
    assert waiting(str(backups), ours_here) == [str(places["source.list"])]

    give_back.give_back_files(order)

    assert places["source.list"].read_text() == "source.list"
    assert places["taken"].read_text() == "theirs"
    assert not places["opt/strixbox/old.py"].exists()
    assert waiting(str(backups), ours_here) == []
    give_back.give_back_files(order)
