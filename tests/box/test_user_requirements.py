"""What the user's nodes ask for: read as the user, handed to uv as text, recorded by node."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import user_nodes, user_requirements
from tests.box.conftest import ME, OTHER, needs_root, started

# Stands in for uv: keeps what it was asked, and fails where a package is called bad.
UV = """#!/bin/sh
cat >> "$0.asked"
echo "$*" >> "$0.words"
cp "$(dirname "$0")/overrides.txt" "$0.held"
if grep -q bad "$0.asked"; then echo "no such   package" >&2; exit 1; fi
"""


@pytest.fixture
def order(tmp_path: Path) -> dict[str, Any]:
    """An order for the nodes One and Two."""
    uv = tmp_path / "uv"
    uv.write_text(UV)
    uv.chmod(0o755)
    nodes = {name: node(tmp_path / "nodes", name, f"{name}-package\n") for name in ("One", "Two")}
    return {
        "uv": [str(uv), "pip", "install"],
        "user": ME,
        "directory": str(tmp_path / "nodes"),
        "nodes": nodes,
        "held": {"path": str(tmp_path / "overrides.txt"), "text": "torch==2.6.0\n"},
        "record": str(tmp_path / "user-nodes.json"),
        "seal": str(tmp_path / "release.json"),
    }


def node(folder: Path, name: str, text: str) -> str:
    """A node with requirements; their sha256."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "requirements.txt").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def record(order: dict[str, Any]) -> dict[str, Any]:
    """What was recorded."""
    found: dict[str, Any] = json.loads(Path(order["record"]).read_text())
    return found


def test_uv_gets_the_text_and_never_the_path(order: dict[str, Any], tmp_path: Path) -> None:
    assert started("user_requirements", order).returncode == 0
    assert (tmp_path / "uv.asked").read_text() == "One-package\nTwo-package\n"
    assert (tmp_path / "uv.words").read_text() == "pip install --requirements -\n" * 2
    assert (tmp_path / "uv.held").read_text() == "torch==2.6.0\n"
    assert not (tmp_path / "overrides.txt").exists()
    assert {name: result["failed"] for name, result in record(order).items()} == {
        "One": None,
        "Two": None,
    }


def test_what_cannot_be_had_is_recorded_and_mended_by_a_later_run(
    order: dict[str, Any], tmp_path: Path
) -> None:
    order["nodes"]["Two"] = node(tmp_path / "nodes", "Two", "bad\n")
    answer = started("user_requirements", order)
    assert answer.returncode == 0
    assert "Two: not installed, it may not load: no such package" in answer.stdout
    assert record(order)["Two"]["failed"] == "no such package"

    seal = Path(order["seal"])
    seal.write_text("{}")
    again = order | {"nodes": {"Two": order["nodes"]["Two"]}}
    started("user_requirements", again)
    assert seal.exists()  # it failed once more: nothing to prove anew
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    answer = started("user_requirements", again)
    assert "Two: installed now" in answer.stdout
    assert not seal.exists()
    assert {name: result["failed"] for name, result in record(order).items()} == {
        "One": None,
        "Two": None,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("other\n", "changed during the deploy"),
        ("#" * (1 << 21), "longer than 1 MiB"),
        (None, "cannot be read: No such file"),
        ("pipe", "is no file"),
    ],
)
def test_a_file_that_is_not_to_be_used_says_why(
    order: dict[str, Any], tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "nodes" / "One" / "requirements.txt"
    path.unlink()
    if text == "pipe":
        os.mkfifo(path)
    elif text is not None:
        path.write_text(text)
    started("user_requirements", order)
    assert words in record(order)["One"]["failed"]
    assert record(order)["Two"]["failed"] is None
    if text == "pipe":
        nodes = user_nodes.main({"directory": order["directory"], "user": ME})
        assert list(nodes) == ["Two"]


@needs_root
def test_a_linked_file_is_read_with_the_users_rights(
    order: dict[str, Any], theirs: Path, secret: Path
) -> None:
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    (theirs / "One").mkdir()
    (theirs / "One" / "requirements.txt").symlink_to(secret)
    order |= {"user": OTHER, "directory": str(theirs), "nodes": {"One": digest}}
    started("user_requirements", order)
    assert record(order)["One"]["failed"] == "requirements.txt cannot be read: Permission denied"
    assert not Path(f"{order['uv'][0]}.asked").exists()


def test_the_record_survives_damage(order: dict[str, Any]) -> None:
    Path(order["record"]).write_text("{half")
    assert started("user_requirements", order).returncode == 0
    assert record(order).keys() == {"One", "Two"}
    assert user_requirements.recorded("/no/such/file") == {}
