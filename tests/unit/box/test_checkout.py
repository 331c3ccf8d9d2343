"""A checkout does not wait for ever on a server that has gone silent."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
from pathlib import Path

import pytest

from strixbox.box import checkout
from strixbox.box._backups import entries


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
