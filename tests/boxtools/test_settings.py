"""What the deploy told the tools: read as it was written, refused in one sentence otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from boxtools import settings as module
from boxtools.errors import Trouble
from boxtools.settings import Settings, load
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

BOX: dict[str, Any] = {
    "url": "http://127.0.0.1:8188",
    "user": "anna",
    "service": "comfyui.service",
    "base_directory": "/home/anna/ComfyUI",
    "temp_directory": "/tmp/comfyui_cache",
    "archive": None,
    "current": "/opt/strixbox/current",
    "launch": "/opt/strixbox/lib/launch",
    "state": "/var/lib/strixbox",
    "stack": "rocm-6.4.2",
    "torch": "2.6.0+rocm6.4.2.git76481f7c",
    "hip": "6.4",
    "tunableop": "/var/lib/strixbox/tunableop/rocm-6.4.2-%d.csv",
    "profile": "production",
    "profiles": {"production": {"flags": ["--highvram"], "variables": ["X"], "preload": True}},
    "variables": {"X": {"value": "1", "does": "Nothing."}},
    "models": [{"name": "a.safetensors", "folder": "checkpoints", "tier": "active"}],
    "ram_gib": 128,
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tools.json that STRIXBOX_TOOLS names."""
    path = tmp_path / "tools [1].json"
    path.write_text(json.dumps(BOX), encoding="utf-8")
    monkeypatch.setenv(module.ENVIRONMENT, str(path))
    return path


def test_it_is_read_as_written(file: Path) -> None:
    found = load()
    assert found.active == Path("/home/anna/ComfyUI/models")
    assert found.profiles["production"].flags == ("--highvram",)
    assert found.models[0].sha256 is None
    assert Settings.model_validate_json(found.model_dump_json()) == found
    assert load(file) == found


def test_without_a_name_it_is_the_deploys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.ENVIRONMENT, raising=False)
    assert module.FILE == "/etc/strixbox/tools.json"
    monkeypatch.setattr(module, "FILE", "/nowhere/tools.json")
    with pytest.raises(Trouble, match=r"^/nowhere/tools.json is not there; run the deploy"):
        load()


def test_it_cannot_be_changed(file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().user = "root"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ram_gib": "much"}, "ram_gib: "),
        ({"unheard": 1}, "unheard: Extra inputs are not permitted"),
        ({"profiles": {"x": {"flags": "no list"}}}, r"profiles\.x\.flags: "),
        ({"models": [{**BOX["models"][0], "tier": "attic"}]}, r"models\.0\.tier: "),
        ({"url": None}, "url: "),
    ],
)
def test_what_is_wrong_is_named(file: Path, changed: dict[str, Any], told: str) -> None:
    file.write_text(json.dumps(BOX | changed), encoding="utf-8")
    with pytest.raises(Trouble, match=rf"is not what the deploy writes \({told}.*once more$"):
        load()


def test_a_missing_key_is_named(file: Path) -> None:
    file.write_text(json.dumps({k: v for k, v in BOX.items() if k != "user"}), encoding="utf-8")
    with pytest.raises(Trouble, match="user: Field required"):
        load()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": 1e999}', b"\x00"])
def test_what_is_no_settings_is_told_in_one_line(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    with pytest.raises(Trouble, match="is not what the deploy writes") as told:
        load()
    assert len(str(told.value).splitlines()) == 1


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_whatever_is_in_the_file(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    with pytest.raises(Trouble) as told:
        load()
    assert len(str(told.value).splitlines()) == 1


def test_deep_json_is_refused(file: Path) -> None:
    file.write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(Trouble):
        load()


def test_a_directory_in_its_place(file: Path) -> None:
    file.unlink()
    file.mkdir()
    with pytest.raises(Trouble, match="cannot be read: Is a directory; see its owner and mode"):
        load()
