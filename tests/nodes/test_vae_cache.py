"""The encode cache: its order, its bytes, and what makes a latent another one."""

from __future__ import annotations

import gc
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.nodes.conftest import PACK, Comfyless, FakeTensor


@pytest.fixture
def cache(comfyless: Comfyless) -> ModuleType:
    """The module, with an empty cache."""
    return comfyless.part(PACK, "vae_cache")


class Model:
    """Weights."""

    def __init__(self, seed: int = 0) -> None:
        self.weights = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)

    def state_dict(self) -> dict[str, FakeTensor]:
        return {"w": FakeTensor(self.weights)}


class Vae:
    """Counts what it encodes; its latent is the mean of every channel."""

    def __init__(self, seed: int = 0) -> None:
        self.first_stage_model = Model(seed)
        self.vae_dtype = "bf16"
        self.device = "cpu"
        self.patcher = SimpleNamespace(patches={}, patches_uuid="a")
        self.calls: list[Any] = []

    def encode(self, pixels: FakeTensor) -> FakeTensor:
        self.calls.append(pixels.shape)
        return FakeTensor(pixels.values.mean(axis=(1, 2)) + self.first_stage_model.weights[0, 0])

    def encode_tiled(self, pixels: FakeTensor, **words: int) -> FakeTensor:
        self.calls.append(words)
        return FakeTensor(pixels.values.mean(axis=(1, 2)) + 1)


def images(seed: int = 0, channels: int = 3) -> FakeTensor:
    return FakeTensor(np.random.default_rng(seed).random((2, 8, 8, channels)).astype(np.float32))


def run(cache: ModuleType, vae: Vae, pixels: FakeTensor, **words: Any) -> tuple[str, Any]:
    told = cache.StrixboxVAEEncodeCached().encode(pixels, vae, **words)
    return told["ui"]["text"][0].split()[0], told["result"][0]["samples"].values


def test_the_second_time_is_a_hit(cache: ModuleType) -> None:
    vae = Vae()
    first, latent = run(cache, vae, images())
    second, again = run(cache, vae, images())
    assert (first, second, len(vae.calls)) == ("miss", "hit", 1)
    assert latent.tobytes() == again.tobytes()


def test_what_is_handed_out_cannot_spoil_the_cache(cache: ModuleType) -> None:
    vae = Vae()
    _, first = run(cache, vae, images())
    kept = first.copy()
    first[:] = 7  # the node after it writes into what it got
    _, second = run(cache, vae, images())
    second[:] = 8
    _, third = run(cache, vae, images())
    assert third.tobytes() == kept.tobytes()


def test_alpha_is_left_out(cache: ModuleType) -> None:
    vae = Vae()
    pixels = images(channels=4)
    run(cache, vae, pixels)
    pixels.values[:, :, :, 3] = 0
    assert run(cache, vae, pixels)[0] == "hit"
    assert vae.calls == [(2, 8, 8, 3)]


def test_everything_that_matters_makes_another_key(cache: ModuleType) -> None:
    vae = Vae()
    run(cache, vae, images())
    flipped = images()
    flipped.values[1, 7, 7, 2] = np.nextafter(flipped.values[1, 7, 7, 2], np.float32(2))
    assert run(cache, vae, flipped)[0] == "miss"
    assert run(cache, vae, FakeTensor(images().values[:1]))[0] == "miss"
    assert run(cache, vae, FakeTensor(images().values.reshape(2, 4, 16, 3)))[0] == "miss"
    assert run(cache, vae, FakeTensor(images().values.astype(np.float64)))[0] == "miss"
    assert run(cache, vae, images(), tile_size=64)[0] == "miss"
    assert run(cache, vae, images(), tile_size=128)[0] == "miss"
    assert run(cache, vae, images(), tile_size=128, overlap=0)[0] == "miss"
    assert run(cache, Vae(seed=1), images())[0] == "miss"
    vae.vae_dtype = "fp32"
    assert run(cache, vae, images())[0] == "miss"
    vae.patcher.patches = {"w": 1}
    assert run(cache, vae, images())[0] == "miss"
    vae.patcher.patches_uuid = "b"
    assert run(cache, vae, images())[0] == "miss"


def test_a_reloaded_vae_is_known_again(cache: ModuleType) -> None:
    run(cache, Vae(), images())
    gc.collect()
    assert len(cache._DIGESTS) == 0  # nothing is held of a VAE that is gone
    assert run(cache, Vae(), images())[0] == "hit"


def test_a_vae_that_cannot_be_told_never_hits(cache: ModuleType) -> None:
    vae = Vae()
    vae.encode = lambda pixels: FakeTensor(np.zeros(4))  # type: ignore[method-assign]
    vae.first_stage_model = None  # type: ignore[assignment]
    assert [run(cache, vae, images())[0] for _ in range(2)] == ["miss", "miss"]


def test_overlap_is_bounded_as_in_core(cache: ModuleType) -> None:
    vae = Vae()
    run(cache, vae, images(), tile_size=64, overlap=512)
    assert vae.calls == [{"tile_x": 64, "tile_y": 64, "overlap": 16}]


def test_clear_forgets_and_runs_each_time(cache: ModuleType) -> None:
    vae = Vae()
    run(cache, vae, images())
    assert run(cache, vae, images(), clear=True)[0] == "miss"
    changed = cache.StrixboxVAEEncodeCached.IS_CHANGED
    assert changed(clear=True, pixels=None) != changed(clear=True, pixels=None)
    assert changed(clear=False) == changed()


def test_no_room_remembers_nothing(cache: ModuleType) -> None:
    vae = Vae()
    run(cache, vae, images(), max_mib=0)
    assert run(cache, vae, images(), max_mib=0)[0] == "miss"
    assert cache.CACHE.bytes == 0


def test_the_least_recently_used_goes_first(cache: ModuleType) -> None:
    lru = cache.ByteLRU(30)
    for name in (b"a", b"b", b"c"):
        lru.put(name, name, 10)
    assert lru.get(b"a") == b"a"  # now the newest
    lru.put(b"d", b"d", 10)
    assert [lru.get(name) for name in (b"a", b"b", b"c", b"d")] == [b"a", None, b"c", b"d"]
    lru.put(b"huge", b"huge", 31)
    assert lru.get(b"huge") is None and len(lru) == 3
    lru.resize(10)
    assert len(lru) == 1 and lru.bytes == 10


STEPS = st.lists(
    st.tuples(st.sampled_from(["get", "put", "resize"]), st.integers(0, 5), st.integers(0, 40))
)


@given(steps=STEPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the module is the same
def test_it_is_the_simplest_lru(cache: ModuleType, steps: list[tuple[str, int, int]]) -> None:
    lru = cache.ByteLRU(50)
    model: list[tuple[int, int]] = []  # (key, size), the oldest first
    limit = 50
    for what, key, size in steps:
        name = b"%d" % key
        found = next((one for one in model if one[0] == key), None)
        if what == "get":
            assert (lru.get(name) is not None) == (found is not None)
            if found:
                model.remove(found)
                model.append(found)
        elif what == "put":
            lru.put(name, "value", size)
            if found:
                model.remove(found)
            if size <= limit:
                model.append((key, size))
        else:
            limit = size
            lru.resize(limit)
        while sum(one[1] for one in model) > limit:
            model.pop(0)
        assert lru.bytes == sum(one[1] for one in model) <= limit
        assert len(lru) == len(model)


def test_threads_do_not_lose_bytes(cache: ModuleType) -> None:
    lru = cache.ByteLRU(500)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for key, size in rng.integers(0, 50, (2000, 2)):
            lru.put(b"%d" % key, key, int(size))
            lru.get(b"%d" % (key + 1))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lru.bytes == sum(size for _, size in lru._held.values()) <= 500
