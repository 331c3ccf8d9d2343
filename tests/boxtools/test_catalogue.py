"""The catalogue: both tiers, links counted once, names found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from boxtools import catalogue
from boxtools.catalogue import ModelFile, choose, find_models, lost_links, note_use
from boxtools.errors import WrongUse
from boxtools.settings import Settings
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.boxtools import box


@pytest.fixture
def two_tiers(tmp_path: Path) -> Settings:
    """A box with one model in each tier."""
    settings = box.two_tiers(tmp_path)
    assert settings.archive is not None
    box.model(settings.active / "checkpoints/new.safetensors", b"new")
    old = box.model(settings.archive / "checkpoints/old.safetensors", b"old")
    (settings.active / "checkpoints/old.safetensors").symlink_to(old)
    return settings


def found(settings: Settings, **words: bool) -> dict[str, ModelFile]:
    """By folder and name; fails where one is there twice."""
    models = find_models(settings, **words)
    assert len({model.key for model in models}) == len(models)
    return {model.key: model for model in models}


def test_a_link_to_the_archive_is_counted_once(two_tiers: Settings) -> None:
    models = found(two_tiers)
    assert list(models) == ["checkpoints/new.safetensors", "checkpoints/old.safetensors"]
    old = models["checkpoints/old.safetensors"]
    assert (old.tier, old.linked, old.leads_to) == ("archive", True, None)
    assert old.path == (two_tiers.archive or Path()) / "checkpoints/old.safetensors"
    new = models["checkpoints/new.safetensors"]
    assert (new.tier, new.linked, new.size) == ("active", False, new.path.stat().st_size)


def test_a_folder_that_is_a_link_to_the_archive(two_tiers: Settings) -> None:
    archive = two_tiers.archive or Path()
    (two_tiers.active / "vae").rmdir()
    (two_tiers.active / "vae").symlink_to(archive / "vae")
    box.model(archive / "vae/a.safetensors", b"a")
    model = found(two_tiers)["vae/a.safetensors"]
    assert (model.tier, model.linked) == ("archive", True)


def test_an_archived_model_without_a_link(two_tiers: Settings) -> None:
    (two_tiers.active / "checkpoints/old.safetensors").unlink()
    assert found(two_tiers)["checkpoints/old.safetensors"].linked is False


def test_links_of_the_users_are_shown_as_such(two_tiers: Settings, tmp_path: Path) -> None:
    disk = tmp_path / "usb"
    box.model(disk / "big.safetensors", b"big")
    box.model(disk / "more/deep/other.safetensors", b"other")
    (two_tiers.active / "loras/big.safetensors").symlink_to(disk / "big.safetensors")
    (two_tiers.active / "loras/more").symlink_to(disk / "more")
    models = found(two_tiers)
    assert models["loras/big.safetensors"].leads_to == disk / "big.safetensors"
    assert models["loras/more/deep/other.safetensors"].leads_to == (
        disk / "more/deep/other.safetensors"
    )


def test_models_directories_that_are_links_are_nothing_foreign(tmp_path: Path) -> None:
    settings = box.two_tiers(tmp_path)
    box.model(settings.active / "vae/a.safetensors", b"a")
    real = settings.active.rename(tmp_path / "nvme")
    settings.active.symlink_to(real)
    assert found(settings)["vae/a.safetensors"].leads_to is None


def test_a_circle_of_links_ends(two_tiers: Settings) -> None:
    (two_tiers.active / "circle").symlink_to("circle")
    (two_tiers.active / "loras/round").symlink_to(two_tiers.active / "loras")
    (two_tiers.active / "loras/self.safetensors").symlink_to("self.safetensors")
    box.model(two_tiers.active / "loras/a.safetensors", b"a")
    assert "loras/a.safetensors" in {model.key for model in find_models(two_tiers)}


def test_lost_links(two_tiers: Settings) -> None:
    (two_tiers.archive or Path()).rename(two_tiers.state / "unplugged")
    assert lost_links(two_tiers) == [two_tiers.active / "checkpoints/old.safetensors"]
    assert list(found(two_tiers)) == ["checkpoints/new.safetensors"]


def test_what_is_no_model(two_tiers: Settings) -> None:
    folder = two_tiers.active / "checkpoints"
    for name in ("x.safetensors.part", "x.txt", ".hidden.safetensors", "put_models_here"):
        (folder / name).write_bytes(b"")
    (folder / "directory.safetensors").mkdir()
    (two_tiers.active / "loose.safetensors").write_bytes(b"")
    os.mkfifo(folder / "pipe.safetensors")
    assert len(found(two_tiers)) == 2


def test_kinds(two_tiers: Settings) -> None:
    folder = two_tiers.active / "checkpoints"
    for name in ("a.ckpt", "b.gguf", "c.safetensors"):
        (folder / name).write_bytes(b"x")
    whole = box.model(folder / "d.safetensors", b"0123")
    whole.write_bytes(whole.read_bytes()[:-1])
    models = found(two_tiers, kinds=True)
    kinds = {model.name: model.kind for model in models.values()}
    assert kinds["new.safetensors"] == "VAE"
    assert kinds["a.ckpt"] == "pickle"
    assert kinds["b.gguf"] == "GGUF"
    assert kinds["c.safetensors"] == "no safetensors header"
    assert [m.name for m in models.values() if m.cut] == ["d.safetensors"]


def test_resident_is_filled_on_request(two_tiers: Settings) -> None:
    assert found(two_tiers)["checkpoints/new.safetensors"].resident is None
    new = found(two_tiers, resident=True)["checkpoints/new.safetensors"]
    assert new.resident == new.size


def test_last_use_is_the_later_of_both(two_tiers: Settings) -> None:
    key = "checkpoints/new.safetensors"
    os.utime(two_tiers.active / key, (1000.0, 1000.0))
    assert found(two_tiers)[key].used == 1000.0
    note_use(two_tiers, [key], now=500.0)
    assert found(two_tiers)[key].used == 1000.0
    note_use(two_tiers, [key, "loras/gone.safetensors"], now=2000.0)
    assert found(two_tiers)[key].used == 2000.0


def test_a_mount_with_noatime_tells_no_use(
    two_tiers: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_access", lambda *_: None)
    assert found(two_tiers)["checkpoints/new.safetensors"].used is None


@pytest.mark.parametrize("text", ["", "[]", "1", '{"a": "b"}', '{"a": -1}', '{"a": NaN}', "\xff"])
def test_a_damaged_journal_of_use(two_tiers: Settings, text: str) -> None:
    (two_tiers.state / catalogue.USAGE).write_text(text, encoding="latin-1")
    assert found(two_tiers)
    note_use(two_tiers, ["checkpoints/new.safetensors"], now=5e9)
    assert found(two_tiers)["checkpoints/new.safetensors"].used == 5e9


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(told=JSON)
@profile(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_json_is_a_journal_of_use(two_tiers: Settings, told: Any) -> None:
    (two_tiers.state / catalogue.USAGE).write_text(json.dumps(told))
    assert len(find_models(two_tiers)) == 2


def test_no_archive(two_tiers: Settings) -> None:
    alone = two_tiers.model_copy(update={"archive": None})
    old = found(alone)["checkpoints/old.safetensors"]
    assert (old.tier, old.leads_to) == (
        "active",
        (two_tiers.archive or Path()) / "checkpoints/old.safetensors",
    )


def some(*keys: str) -> list[ModelFile]:
    """Models that are only named."""
    pairs = [key.split("/", 1) for key in keys]
    return [ModelFile(folder, name, "active", Path(name), 1) for folder, name in pairs]


MODELS = some("vae/a.safetensors", "loras/a.safetensors", "loras/styles/b [x].safetensors")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("vae/a.safetensors", ["vae/a.safetensors"]),
        ("*.safetensors", ["vae/a.safetensors", "loras/a.safetensors", "loras/styles/b [x]"]),
        ("loras/*", ["loras/a.safetensors", "loras/styles/b [x]"]),
        ("b [x].safetensors", ["loras/styles/b [x]"]),
        ("styles/b [x].safetensors", ["loras/styles/b [x]"]),
        ("b [x]", ["loras/styles/b [x]"]),
        ("a*", ["vae/a.safetensors", "loras/a.safetensors"]),
    ],
)
def test_choose(word: str, expected: list[str]) -> None:
    keys = [model.key for model in choose(MODELS, [word, word])]
    assert keys == [key if key.endswith("s") else f"{key}.safetensors" for key in expected]


def test_an_ambiguous_name_is_told() -> None:
    with pytest.raises(WrongUse, match=r"vae/a.safetensors; name one"):
        choose(MODELS, ["a"])


def test_an_unknown_name_is_told_with_what_is_near() -> None:
    with pytest.raises(WrongUse, match=r"near it: .*vae/a\.safetensors"):
        choose(MODELS, ["vae/b.safetensors"])
    with pytest.raises(WrongUse, match="strixbox models list"):
        choose([], ["x"])
