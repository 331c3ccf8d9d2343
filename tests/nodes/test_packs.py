"""The packs as a whole: what they add, and that one broken file harms no other."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import pytest

from tests.nodes.conftest import PACK, PROFILER, Comfyless


def test_the_pack_adds_its_nodes_and_routes(comfyless: Comfyless) -> None:
    loaded = comfyless.load(PACK)
    assert sorted(loaded.NODE_CLASS_MAPPINGS) == ["StrixboxSaveImage", "StrixboxVAEEncodeCached"]
    assert set(loaded.NODE_DISPLAY_NAME_MAPPINGS) == set(loaded.NODE_CLASS_MAPPINGS)
    assert set(comfyless.routes.handlers) == {
        ("GET", "/strixbox/tunableop"),
        ("POST", "/strixbox/tunableop"),
    }


def test_the_profiler_adds_its_routes(comfyless: Comfyless) -> None:
    assert comfyless.load(PROFILER).NODE_CLASS_MAPPINGS == {}
    assert set(comfyless.routes.handlers) == {
        ("GET", "/strixbox/profile"),
        ("POST", "/strixbox/profile/start"),
        ("POST", "/strixbox/profile/stop"),
    }


@pytest.mark.parametrize("broken", ["vae_cache", "save_image", "tunableop", "images", "web"])
def test_a_broken_file_takes_nothing_else_away(
    broken: str, comfyless: Comfyless, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "strixbox"
    shutil.copytree(PACK, copy)
    (copy / f"{broken}.py").write_text("this is no Python", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        loaded = comfyless.load(copy)
    left = {
        "vae_cache": {"StrixboxSaveImage"},
        "save_image": {"StrixboxVAEEncodeCached"},
        "images": {"StrixboxVAEEncodeCached"},
    }
    both = {"StrixboxSaveImage", "StrixboxVAEEncodeCached"}
    assert set(loaded.NODE_CLASS_MAPPINGS) == left.get(broken, both)
    assert "is left out" in caplog.text


def test_both_packs_share_web() -> None:
    assert (PACK / "web.py").read_bytes() == (PROFILER / "web.py").read_bytes()


def test_nothing_of_torch_is_touched_on_import(
    comfyless: Comfyless, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []

    class Untouched:
        def __getattr__(self, name: str) -> None:
            if not name.startswith("__"):
                touched.append(name)
            raise AttributeError(name)

    monkeypatch.setitem(sys.modules, "torch", Untouched())
    comfyless.load(PACK)
    comfyless.load(PROFILER)
    assert touched == []
