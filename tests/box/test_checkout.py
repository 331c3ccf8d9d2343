"""Checkouts: what was done in them is found and taken back, and a silent server is left."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from strixbox.box import checkout
from strixbox.box._backups import entries
from tests.box.conftest import asked, started


def test_a_silent_server_ends_a_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [word.replace("Time=60", "Time=1") for word in checkout.STALL]
    assert quick != list(checkout.STALL)
    monkeypatch.setattr(checkout, "STALL", tuple(quick))
    # Connections are taken by the system, and nobody ever answers.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        order = {
            "path": str(tmp_path / "x"),
            "url": url,
            "commit": "0" * 40,
            "backups": str(tmp_path / "backups"),
        }
        begin = time.monotonic()
        with pytest.raises(SystemExit, match=f"see that the box reaches {url}"):
            checkout.main(order)
    assert time.monotonic() - begin < 30
    assert not (tmp_path / "x").exists()


def test_a_commit_is_checked_out_and_edits_are_kept(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()

    def git(*words: str) -> str:
        """Run git in the origin."""
        own = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", "-C", str(origin), *own, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    (origin / "main.py").write_text("1\n")
    git("add", "main.py")
    git("commit", "--quiet", "--message", "one")
    order = {
        "path": str(tmp_path / "x"),
        "url": str(origin),
        "commit": git("rev-parse", "HEAD"),
        "backups": str(tmp_path / "backups"),
    }
    checkout.main(order)
    (tmp_path / "x" / "main.py").write_text("mine\n")
    checkout.main(order)
    assert (tmp_path / "x" / "main.py").read_text() == "1\n"
    (entry,) = entries(order["backups"])
    assert entry["path"] == order["path"]
    patch = Path(entry["copy"]).read_bytes()
    assert b"+mine" in patch
    assert entry["sha256"] == hashlib.sha256(patch).hexdigest()


@pytest.fixture
def order(tmp_path: Path) -> dict[str, str]:
    """An order for a repository with main.py, run.sh and lib/x.py, which has been carried out."""
    origin = tmp_path / "origin"
    (origin / "lib").mkdir(parents=True)
    (origin / "main.py").write_text("1\n")
    (origin / "run.sh").write_text("#!/bin/sh\n")
    (origin / "run.sh").chmod(0o755)
    (origin / "lib" / "x.py").write_text("2\n")
    own = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "--quiet"), ("add", "."), (*own, "commit", "--quiet", "-m", "one")):
        subprocess.run(["git", "-C", str(origin), *words], check=True)
    head = subprocess.run(
        ["git", "-C", str(origin), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    made = {
        "path": str(tmp_path / "x"),
        "url": str(origin),
        "commit": head.stdout.strip(),
        "backups": str(tmp_path / "backups"),
    }
    assert started("checkout", made).returncode == 0
    return made


def seen(order: dict[str, str]) -> list[str]:
    """What the reader calls edited; the commit is always the right one, or none."""
    found = asked("checkouts", {"paths": [order["path"]]})[order["path"]]
    return [] if found["commit"] == order["commit"] and not found["edited"] else found["edited"]


# What somebody does in the checkout, and the file that is told.
MEDDLING = {
    "echo mine >> main.py": "main.py",
    "rm lib/x.py": "lib/x.py",
    "rm -r lib": "lib/x.py",
    "chmod 600 main.py": "main.py",
    "chmod 755 main.py": "main.py",
    "chmod a+w lib": "lib",
    "chmod 777 .": ".",
    "chmod 644 run.sh": "run.sh",
    "chmod 666 .git/HEAD": ".git/HEAD",
    "mv main.py /tmp/strixbox-moved-$$ && ln -s lib/x.py main.py": "main.py",
    "echo mine >> main.py && git update-index --assume-unchanged main.py": "main.py",
    "echo mine >> main.py && git update-index --skip-worktree main.py": "main.py",
    "git config core.fileMode false && chmod 755 main.py": ".git/config",
    "git config core.fsmonitor 'touch pwned #'": ".git/config",
    "git config filter.x.clean 'touch pwned; cat'; echo '* filter=x' > .git/info/attributes": (
        ".git/config"
    ),
    "echo '*.py -text' > .git/info/attributes": ".git/info/attributes",
    ": > .git/config": ".git/config",
    "git config include.path /etc/passwd": ".git/config",
    "git config remote.origin.uploadpack 'touch pwned;'": ".git/config",
    "git config url.ext::sh.insteadOf http": ".git/config",
    "echo mine >> main.py && touch .git/index.lock": "main.py",
}


@pytest.mark.parametrize("words", [(), ("--single-branch",), ("--depth", "1", "--no-local")])
def test_a_clone_at_the_commit_is_right_as_it_is(
    order: dict[str, str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    clone = str(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", *words, order["url"], clone], check=True)
    detach = ["git", "-C", clone, "checkout", "--quiet", "--detach", order["commit"]]
    subprocess.run(detach, check=True)
    assert "remote" in Path(clone, ".git", "config").read_text()
    assert seen(order | {"path": clone}) == []


@pytest.mark.parametrize("meddling", MEDDLING)
def test_what_was_done_in_a_checkout_is_told_and_taken_back(
    order: dict[str, str], meddling: str
) -> None:
    assert seen(order) == []
    subprocess.run(["sh", "-ec", meddling], cwd=order["path"], check=True)

    assert MEDDLING[meddling] in seen(order)
    # The files come back from the checkout itself.
    assert started("checkout", order | {"url": "/none"}).returncode == 0

    assert seen(order) == []
    assert Path(order["path"], "main.py").read_text() == "1\n"
    assert Path(order["path"], "lib", "x.py").read_text() == "2\n"
    assert not Path(order["path"], "pwned").exists()
    kept = b"".join(Path(entry["copy"]).read_bytes() for entry in entries(order["backups"]))
    assert (b"+mine" in kept) == ("echo mine" in meddling)
    assert (b"pwned" in kept) == ("pwned" in meddling)


@pytest.mark.parametrize(
    "meddling",
    [
        "git -c user.name=a -c user.email=a@b.org commit -qam mine",
        "rm -r .git",
        "rm -r .git/objects",
        "rm .git/HEAD",
        "git checkout -q -b mine && git -c user.name=a -c user.email=a@b.org commit -qam mine",
    ],
)
def test_what_is_no_checkout_of_the_commit_is_kept_whole(
    order: dict[str, str], meddling: str
) -> None:
    path = Path(order["path"])
    (path / "main.py").write_text("mine\n")
    (path / "notes.txt").write_text("mine too\n")
    subprocess.run(["sh", "-ec", meddling], cwd=path, check=True)
    found = asked("checkouts", {"paths": [order["path"]]})[order["path"]]
    assert found["commit"] != order["commit"] or found["edited"]

    answer = started("checkout", order)

    assert answer.returncode == 0, answer.stderr
    assert seen(order) == []
    assert (path / "main.py").read_text() == "1\n"
    kept = Path(entries(order["backups"])[-1]["copy"])
    assert (kept / "main.py").read_text() == "mine\n"
    assert (kept / "notes.txt").read_text() == "mine too\n"


def object_of(path: Path, name: str) -> Path:
    """The file in which git has what the commit says of a file."""
    words = ["git", "-C", str(path), "rev-parse", f"HEAD:{name}"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return path / ".git" / "objects" / told[:2] / told[2:]


def test_edits_stay_where_git_cannot_tell_them(order: dict[str, str]) -> None:
    path = Path(order["path"])
    (path / "main.py").write_text("mine\n")
    damaged = object_of(path, "main.py")
    damaged.chmod(0o644)
    damaged.write_bytes(b"no object")

    answer = started("checkout", order)

    assert answer.returncode == 0, answer.stderr
    assert (path / "main.py").read_text() == "1\n"
    (entry,) = entries(order["backups"])
    assert Path(entry["copy"], "main.py").read_text() == "mine\n"


def test_a_patch_that_was_kept_brings_the_edits_back(order: dict[str, str]) -> None:
    path = Path(order["path"])
    mine = {"main.py": b"one\r\ntwo\rthree\n\xff\r\n", "lib/x.py": b"2\r\n"}
    for name, content in mine.items():
        (path / name).write_bytes(content)

    assert started("checkout", order).returncode == 0

    assert seen(order) == []
    (entry,) = entries(order["backups"])
    assert Path(entry["copy"]).stat().st_mode & 0o777 == 0o600
    subprocess.run(["git", "-C", str(path), "apply", entry["copy"]], check=True)
    assert {name: (path / name).read_bytes() for name in mine} == mine


def test_settings_stay_where_no_copy_of_them_can_be_made(
    order: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Path(order["path"], ".git", "config")
    config.write_text(config.read_text() + "[user]\n\tname = Anna\n")
    before = config.read_text()

    def full(path: str, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(checkout, "keep", full)
    with pytest.raises(SystemExit, match=r"config: No space left on device; nothing is lost"):
        checkout.main(order)
    assert config.read_text() == before


def test_a_directory_in_the_place_of_settings_is_kept_whole(order: dict[str, str]) -> None:
    attributes = Path(order["path"], ".git", "info", "attributes")
    attributes.mkdir()
    (attributes / "note").write_text("mine\n")
    assert started("checkout", order).returncode == 0
    assert seen(order) == []
    (entry,) = entries(order["backups"])
    assert Path(entry["copy"], "note").read_text() == "mine\n"
