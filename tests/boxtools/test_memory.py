"""strixbox memory: who holds what, what fits by measured peaks, and giving it back."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from boxtools import gpu_clients, host, memory, memory_fit
from boxtools.cli import main
from boxtools.errors import Trouble
from boxtools.gpu import Gpu, read_gpus
from boxtools.gpu_clients import gpu_processes, parse_client, parse_size
from boxtools.memory_fit import Point, line, parse_points, read_points, recommend
from boxtools.server import Server
from boxtools.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.boxtools import trees
from tests.boxtools.conftest import MakeStandin, Standin
from tests.boxtools.trees import GIB

MIB = 1 << 20


def fdinfo(client: int, vram: str, gtt: str, **own: str) -> str:
    keys = {
        "pos": "0",
        "drm-driver": "amdgpu",
        "drm-pdev": "0000:c5:00.0",
        "drm-client-id": str(client),
        "drm-memory-vram": vram,
        "drm-memory-gtt": gtt,
    }
    return "\n".join(f"{key}:\t{value}" for key, value in (keys | own).items())


# --- who holds it


def test_a_client_counts_once_however_many_descriptors_and_processes_share_it(
    tmp_path: Path,
) -> None:
    ours = fdinfo(7, "1024 KiB", "12 MiB")
    for fd in (5, 6):
        trees.client(tmp_path, 300, fd, ours)
    trees.client(tmp_path, 301, 5, ours)  # forked, with the same open device
    trees.client(tmp_path, 301, 9, fdinfo(8, "0", "2048"))
    trees.client(tmp_path, 302, 4, fdinfo(9, "1 GiB", "0"), target="/home/user/fdinfo")
    trees.client(tmp_path, 303, 4, fdinfo(9, "1 MiB", "0", **{"drm-driver": "i915"}))
    first, second = gpu_processes(tmp_path)[0]
    assert (first.pid, first.name, first.vram, first.gtt) == (300, "python3", MIB, 12 * MIB)
    assert (second.pid, second.vram, second.gtt) == (301, 0, 2048)
    assert gpu_clients.resident_memory(300, tmp_path) == 2 * GIB
    assert gpu_clients.resident_memory(9999, tmp_path) is None


def test_the_newer_key_wins_and_unknown_units_do_not_count() -> None:
    new = fdinfo(1, "10 MiB", "10 TiB") + "\ndrm-resident-vram:\t9 MiB"
    client = parse_client(new)
    assert client is not None and (client.vram, client.gtt) == (9 * MIB, 0)
    assert parse_client("pos:\t0\nflags:\t02\n") is None
    assert parse_size("5 KiB") == 5120
    assert parse_size("-5") is None and parse_size("٣ KiB") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every process")
def test_processes_of_others_are_counted() -> None:
    assert gpu_processes()[1] > 0


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_fdinfo_is_read_without_an_exception(content: str, value: str) -> None:
    parse_client(content)
    parse_client(fdinfo(1, value, content))
    parse_size(value)


# --- how the numbers hang together


def ram(available: int = 90) -> host.Memory:
    return host.Memory(125 * GIB, available * GIB, 10 * GIB, 30 * GIB, 0, 0)


def pools(vram: float, gtt: float, used: float = 0, apu: bool = True) -> Gpu:
    return Gpu(
        "card0",
        "1002:1586",
        apu=apu,
        vram_used=0,
        vram_total=int(vram * GIB),
        gtt_used=int(used * GIB),
        gtt_total=int(gtt * GIB),
    )


def test_the_pools_of_an_apu_are_explained(tmp_path: Path) -> None:
    trees.apu(tmp_path)
    (gpu,) = read_gpus(tmp_path)
    told = " ".join(memory.notes(gpu, ram()))
    assert "never add up" in told
    assert "the GPU can have 50.0 GiB more of GTT" in told
    assert "the GPU can have 20.0 GiB more" in " ".join(memory.notes(gpu, ram(20)))
    assert memory.notes(None, ram()) == []
    assert memory.notes(pools(20, 16, apu=False), ram()) == []


@pytest.mark.parametrize(
    ("vram", "gtt", "words"),
    [
        (0.5, 62, []),
        (96, 15, ["96.0 GiB are carved out", "pages_limit=27262976"]),
        (0.5, 15.5, ["GTT is 15.5 GiB; for more: options ttm pages_limit=27262976"]),
    ],
    ids=["right", "carved out", "small"],
)
def test_advice_is_that_of_preflight(vram: float, gtt: float, words: list[str]) -> None:
    told = memory.advice(pools(vram, gtt), 128)
    assert len(told) == len(words)
    assert all(word in sentence for word, sentence in zip(words, told, strict=True))
    assert memory.advice(None, 128) == []


def test_the_room_of_an_apu_ends_with_gtt_or_with_ram() -> None:
    assert memory_fit.room(pools(0.5, 62, 12), ram(90)) == int(62.5 * GIB)
    assert memory_fit.room(pools(0.5, 62, 12), ram(20)) == int(32.5 * GIB)
    assert memory_fit.room(pools(20, 16, apu=False), ram()) == 20 * GIB
    assert memory_fit.room(None, ram()) is None


# --- what fits


def point(batch: int, used: float | None, size: int = 1024, **own: Any) -> Point:
    return Point(size, size, batch, None if used is None else int(used * GIB), None, **own)


def test_without_a_measurement_there_is_no_number() -> None:
    for points in ([], [point(1, None)]):
        found = recommend(points, 60 * GIB, "production")
        assert (found.points, found.fits) == (0, [])
        assert found.sentences == ["no peak was measured yet: strixbox bench run"]


def test_one_measurement_is_no_line() -> None:
    found = recommend([point(1, 8), point(1, 9)], 60 * GIB, "production")
    (fit,) = found.fits
    assert (fit.measured, fit.batch, fit.beyond) == (1, None, False)
    assert line([point(2, 8), point(4, 8)]) is None  # does not rise


def test_batches_by_the_line_and_not_far_beyond_what_was_measured() -> None:
    # 6 GiB and 2 GiB an image of 1024x1024, half a GiB of 512x512.
    points = [point(1, 8), point(2, 10), point(4, 14), point(1, 6.5, size=512)]
    drawn = line(points)
    assert drawn is not None
    assert drawn[0] * 1024 * 1024 == pytest.approx(2 * GIB, rel=0.01)
    small, large = recommend(points, 14 * GIB, "production").fits
    assert (large.width, large.measured, large.peak) == (1024, 4, 14 * GIB)
    assert (large.batch, large.beyond) == (3, False)  # 0.9 * 14 - 6 = 6.6 GiB
    assert (small.width, small.batch, small.beyond) == (512, 2, True)  # twice, not 13
    tight = recommend(points, 5 * GIB, "production").fits
    assert [fit.batch for fit in tight] == [0, 0]


@pytest.mark.parametrize(
    ("room", "words"),
    [(60, "no mode that saves memory"), (12, "the present mode fits"), (8.5, "--lowvram")],
)
def test_the_mode_follows_from_the_largest_peak(room: float, words: str) -> None:
    (told,) = recommend([point(1, 8)], int(room * GIB), "production").sentences
    assert words in told


def test_profiles_are_compared_where_they_rendered_the_same_and_differ() -> None:
    def one(profile: str, seconds: float, job: str = "") -> Point:
        spread = {"low": seconds - 0.1, "high": seconds + 0.1}
        return Point(1024, 1024, 1, 8 * GIB, profile, seconds, job=job, **spread)

    def told(*points: Point) -> str:
        return " ".join(recommend(points, 60 * GIB, "production").sentences)

    assert "quickest profile per image: lowvram (lowvram 9.00 s, optimized 10.00 s)" in told(
        one("optimized", 10), one("lowvram", 9)
    )
    assert "do not differ by more than the noise" in told(one("a", 10), one("b", 10.15))
    assert "profile" not in told(one("a", 10), one("b", 9, job="other"))


def bench(**own: Any) -> dict[str, Any]:
    job = {"workflow": "txt2img", "width": 768, "height": 512, "batch": 2, "seed": 4, "steps": 20}
    result = {"job": job, "peaks": {"used": 9 * GIB}, "median": 4.5, "metric": "seconds"}
    return {"box": {"stack": "rocm-6.4.2"}, "results": [result | own]}


def test_points_of_a_result() -> None:
    (found,) = parse_points(bench(profile="lowvram", spread={"low": 4, "high": 5}))
    assert (found.width, found.height, found.batch, found.used) == (768, 512, 2, 9 * GIB)
    assert (found.profile, found.seconds, found.low, found.high) == ("lowvram", 4.5, 4, 5)
    assert "steps" in found.job and "seed" not in found.job
    assert parse_points(bench(failed="out of memory")) == []
    assert parse_points(bench(job={"workflow": "inpaint"})) == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
KEYS = ("job", "peaks", "median", "spread", "profile", "failed", "metric")


@given(
    ANYTHING,
    st.dictionaries(st.sampled_from(KEYS), ANYTHING),
    st.dictionaries(st.sampled_from(("width", "height", "batch", "workflow")), ANYTHING),
)
def test_any_result_is_read_without_an_exception(
    told: Any, result: dict[str, Any], job: dict[str, Any]
) -> None:
    points = [*parse_points(told), *parse_points({"results": [told, result, {"job": job}]})]
    points += parse_points({"results": [{"job": job, "peaks": {"used": 5}}]})
    recommend(points, 60 * GIB, "production")
    memory.parse_stats(told)
    memory.parse_stats({"devices": [told]})


# --- on a box


def keep(settings: Settings, name: str, content: str, age: float) -> None:
    path = trees.write(settings.state / "bench" / name, content)
    os.utime(path, (time.time() - age,) * 2)


def test_results_of_other_stacks_and_broken_files_are_left_out(settings: Settings) -> None:
    assert read_points(settings) == []
    keep(settings, "a.json", json.dumps(bench()), age=1)
    keep(settings, "old.json", json.dumps(bench(peaks={"used": 1})), age=100)
    other = bench(peaks={"used": 5}) | {"box": {"stack": "rocm-7.2"}}
    keep(settings, "other.json", json.dumps(other), age=0)
    keep(settings, "broken.json", "[" * 100_000, age=0)
    keep(settings, "odd.json", "[1]", age=0)
    (settings.state / "bench/dir.json").mkdir()
    (found,) = read_points(settings)
    assert found.used == 9 * GIB


def test_the_report_of_a_box(
    settings: Settings, standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.apu(tmp_path / "root")
    trees.proc(tmp_path / "root")
    trees.client(tmp_path / "root", 300, 5, fdinfo(7, "0", "3 GiB"))
    keep(settings, "a.json", json.dumps(bench()), age=0)
    model = settings.active / "checkpoints/sd_xl_base_1.0.safetensors"
    model.read_bytes()
    standin.restart(STRIXBOX_STANDIN_GPU="1")
    report = memory.report(settings, Server(standin.url), tmp_path / "root")
    assert (report.gpu, report.unified) == ("gfx1151 (1002:1586)", True)
    assert [(one.pid, one.gtt, one.ram) for one in report.processes] == [(300, 3 * GIB, 2 * GIB)]
    assert report.server is not None and report.server.device.startswith("cuda:0")
    assert report.recommendation.points == 1
    assert report.recommendation.room == int(62.5 * GIB)
    assert "checkpoints/sd_xl_base_1.0.safetensors" in [one.name for one in report.models]
    monkeypatch.setattr("boxtools.commands.memory.memory.report", lambda *words: report)
    assert main(["memory"]) == 0


@pytest.mark.parametrize(
    ("hip", "why"), [("6.4", "strixbox doctor"), (None, "torch is a build for the CPU")]
)
def test_nothing_is_advised_beside_a_server_on_the_cpu(
    settings: Settings,
    standin: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hip: str | None,
    why: str,
) -> None:
    trees.apu(tmp_path / "root")
    trees.proc(tmp_path / "root")
    (tmp_path / "root/sys/class/drm/card1/device/mem_info_gtt_total").write_text(f"{GIB}\n")
    keep(settings, "a.json", json.dumps(bench()), age=0)
    told = settings.model_copy(update={"hip": hip})
    report = memory.report(told, Server(standin.url), tmp_path / "root")
    assert report.advice == []
    assert (report.recommendation.fits, report.recommendation.room) == ([], None)
    (sentence,) = report.recommendation.sentences
    assert sentence.startswith("nothing is advised: ComfyUI works on the CPU")
    assert why in sentence
    monkeypatch.setattr("boxtools.commands.memory.memory.report", lambda *words: report)
    assert main(["memory"]) == 0
    said = capsys.readouterr().out
    assert "ComfyUI works on the CPU: its models are in RAM" in said
    assert "bench" not in said


def test_it_works_without_gpu_and_server(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.stop()
    assert main(["memory", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["server"] is None and "does not answer" in told["server_problem"]
    assert main(["memory"]) == 0
    assert "no peak was measured yet" in capsys.readouterr().out
    assert main(["memory", "--free"]) == 1
    assert "does not answer" in capsys.readouterr().err


def queue(url: str) -> None:
    graph = {
        "1": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"},
        },
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["1", 1]}},
        "3": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1},
        },
        "4": {
            "class_type": "KSampler",
            "inputs": {
                **{"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0]},
                **{"latent_image": ["3", 0], "seed": 1, "steps": 20, "cfg": 7.0, "denoise": 1.0},
                **{"sampler_name": "euler", "scheduler": "normal"},
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }
    answer = requests.post(f"{url}/prompt", json={"prompt": graph}, timeout=30)
    assert answer.status_code == 200, answer.text


def test_free_waits_for_the_queue_and_unloads(make_standin: MakeStandin) -> None:
    standin = make_standin(variables={"STRIXBOX_STANDIN_GPU": "1", "STRIXBOX_STANDIN_STEP": "0.05"})
    standin.start()
    server = Server(standin.url)
    queue(standin.url)
    with pytest.raises(Trouble, match=r"still works .*nothing was unloaded"):
        memory.free(server, 0)
    freed = memory.free(server, 30)
    assert (freed.before.torch_reserved or 0) > 0
    assert freed.after.torch_reserved == 0


@pytest.mark.parametrize("words", [["--wait", "5"], ["--free", "--wait", "-1"]], ids=" ".join)
def test_wrong_use(words: list[str]) -> None:
    assert main(["memory", *words]) == 2
