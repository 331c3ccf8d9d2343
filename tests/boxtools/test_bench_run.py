"""Measuring against the stand-in: everything is kept, failures are results, nothing is lost."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from boxtools import cli, pictures
from boxtools.bench import measure, results
from boxtools.bench.box import box_of
from boxtools.bench.measure import Bencher, picture
from boxtools.bench.plan import BASE, Case, plan, sized
from boxtools.bench.results import Bench, Peaks
from boxtools.bench.run import run_plan
from boxtools.bench.timing import notes, run_of
from boxtools.errors import Trouble
from boxtools.gpu import Gpu
from boxtools.server import Done, Event, Graph, Server
from boxtools.settings import Settings
from boxtools.watch import Watch
from hypothesis import given
from hypothesis import strategies as st

from .conftest import Standin

SMALL = sized(BASE, (64, 64)).model_copy(update={"steps": 4})
GRAPH: Graph = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "2": {"class_type": "KSampler", "inputs": {}},
    "3": {"class_type": "VAEDecodeTiled", "inputs": {}},
}


def kept(settings: Settings) -> list[Bench]:
    """What is stored, the newest first; nothing damaged."""
    return list(results.stored(settings, pytest.fail))


def blank(settings: Settings, runs: int = 3) -> Bench:
    """A sitting that begins."""
    box = box_of(settings, Server(settings.url))
    return Bench(id="20260101T000000Z-x", plan="x", began=results.now(), runs=runs, box=box)


def measured(settings: Settings, *cases: Case, runs: int = 3, **words: Any) -> Bench:
    """The cases, measured and kept."""
    return run_plan(
        settings, cases, blank(settings, runs), lambda now: results.save(settings, now), **words
    )


def test_bench_run_through_the_command(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "run", "--plan", "batch", "--sizes", "64", "--steps", "3", "--label", "x 1+a"]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "complete"
    assert [result["name"] for result in told["results"]] == [
        f"batch/{n}@64x64" for n in (1, 2, 4, 8)
    ]
    for result in told["results"]:
        assert result["failed"] is None
        assert len(result["runs"]) == 3
        assert len({run["seed"] for run in result["runs"]} | {result["first"]["seed"]}) == 4
        assert result["median"] > 0
        assert result["spread"]["low"] <= result["median"] <= result["spread"]["high"]
        assert result["medians"]["step"] > 0
        assert result["medians"]["decode"] >= 0
        assert result["job"]["steps"] == 3
        assert result["job"]["checkpoint"] == "sd_xl_base_1.0.safetensors"
        (size,) = result["models"].values()
        assert size > 64 << 10
    assert [result["cold"] for result in told["results"]] == [True, False, False, False]
    assert told["box"]["comfyui"] and "--highvram" not in told["box"]["variables"]
    assert told["box"]["variables"]["PYTORCH_TUNABLEOP_ENABLED"] == "1"
    assert told["box"]["release"] == "release"
    (bench,) = kept(settings)
    assert bench.model_dump(mode="json") == told
    assert list((standin.base / "output").iterdir()) == []

    assert cli.main(["bench", "list"]) == 0
    assert "x 1+a" in capsys.readouterr().out
    assert cli.main(["bench", "show"]) == 0
    assert "batch/8@64x64" in capsys.readouterr().out
    assert cli.main(["bench", "show", "x 1+a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == bench.id
    assert cli.main(["bench", "compare", bench.id, "last"]) == 0
    assert "no difference beyond noise" in capsys.readouterr().out


def test_the_whole_chapter(settings: Settings) -> None:
    cases = plan("chapter", [(64, 64)], 2)
    bench = measured(settings, *cases, runs=1, warmups=0)
    assert bench.state == "complete"
    assert {result.name for result in bench.results} == {case.name for case in cases}
    failed = {result.name: result.failed for result in bench.results if result.failed}
    # This box has no turbo model, no TiledDiffusion, and no profile `optimized`.
    assert {name.partition("@")[0] for name in failed} == {
        "workflow/turbo",
        "vram/highvram",
        *(f"vae/tiled-diffusion-{tile}" for tile in (512, 1024, 2048)),
    }
    assert "no launch profile optimized" in failed["vram/highvram@64x64"]
    named = bench.named()
    assert named["encode/plain@64x64"].median is not None
    assert named["vae/tiled-512@64x64"].medians["decode"] == named["vae/tiled-512@64x64"].median
    before = named["tuning/before@64x64"]
    assert before.profile == "normalvram"
    assert before.failed is None


def test_a_failure_is_a_result_and_the_run_goes_on(settings: Settings, standin: Standin) -> None:
    good = Case("good", "7.1", SMALL)
    bad = Case("bad", "7.1", SMALL.model_copy(update={"checkpoint": "absent.safetensors"}))
    bench = measured(settings, good, bad, dataclasses.replace(good, name="after"))
    assert [bool(result.failed) for result in bench.results] == [False, True, False]
    assert "absent.safetensors" in (bench.results[1].failed or "")
    standin.fault("node-error")
    bench = measured(settings, good)
    assert "HIP out of memory" in (bench.results[0].failed or "")
    assert bench.results[0].runs == ()
    assert bench.results[0].median is None
    assert kept(settings)[0] == bench


def test_a_server_that_dies_and_stays_away_leaves_what_was_measured(
    settings: Settings, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxtools.bench.run.RETURN", 0.5)
    good, bad = Case("good", "7.1", SMALL), Case("bad", "7.1", SMALL)

    def between(bench: Bench) -> None:
        results.save(settings, bench)
        if bench.results:
            standin.fault("crash-while-rendering")

    with pytest.raises(Trouble, match="closed the connection"):
        run_plan(settings, [good, bad, good], blank(settings), between)
    (bench,) = kept(settings)
    assert bench.state == "partial"
    assert [result.failed is None for result in bench.results] == [True, False]


def test_a_private_server_that_dies_costs_its_own_cases_only(
    settings: Settings, standin: Standin
) -> None:
    lost = Case("lost", "7.1", SMALL, profile="lowvram")
    cases = [lost, dataclasses.replace(lost, name="too"), Case("good", "7.1", SMALL)]
    standin.fault("crash-while-rendering")

    def mended(bench: Bench) -> None:
        if len(bench.results) == 2:
            standin.fault("crash-while-rendering", wanted=False)

    bench = run_plan(settings, cases, blank(settings), mended)
    assert [result.failed is None for result in bench.results] == [False, False, True]
    assert "closed the connection" in (bench.results[1].failed or "")


def test_ctrl_c_keeps_what_was_measured(settings: Settings) -> None:
    paths = os.pathsep.join(sys.path)
    code = "import sys; from boxtools import cli; sys.exit(cli.main(sys.argv[1:]))"
    words = ["bench", "run", "--plan", "steps", "--sizes", "64x64", "--runs", "50"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
    )
    for _ in range(400):
        if any(bench.results for bench in kept(settings)):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in told
    (bench,) = kept(settings)
    assert bench.state == "partial"
    assert f"cases are kept as {bench.id}" in told
    assert len(bench.results[0].runs) == 50
    assert Server(settings.url).queue() == ([], [])


def test_ctrl_c_before_anything_was_measured(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bencher, "unload", stopped)
    assert cli.main(["bench", "run"]) == 130
    (bench,) = kept(settings)
    assert f"no case was measured; {bench.id} does not become `last`" in capsys.readouterr().err
    assert cli.main(["bench", "show"]) == 1
    assert "nothing was measured on this box yet" in capsys.readouterr().err


def test_a_cached_sampler_measures_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks: list[str] = []
    bencher = Bencher(Server(settings.url), settings, remarks.append)
    first = bencher.once(SMALL)
    bencher.seed -= 1  # the same prompt again
    second = bencher.once(SMALL)
    assert remarks == ["a run is left out: its sampler's result was cached"]
    assert second.seed == first.seed + 1
    assert "KSampler" not in second.cached
    assert "CheckpointLoaderSimple" in second.cached

    def stuck(done: Done, graph: Graph, seed: int, peaks: Peaks) -> object:
        return first.model_copy(update={"cached": ("KSampler",)})

    monkeypatch.setattr(measure, "run_of", stuck)
    with pytest.raises(Trouble, match="3 times in a row"):
        bencher.once(SMALL)


def test_others_renders_are_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    remarks: list[str] = []
    server = Server(settings.url)
    bencher = Bencher(server, settings, remarks.append)
    answers = iter([([1], [2, 3]), ([], [1]), ([], [])])
    monkeypatch.setattr(server, "queue", lambda: next(answers))
    bencher._wait()
    assert remarks == ["waits for 3 renders of others to end"]
    monkeypatch.setattr(server, "queue", lambda: ([1], []))
    monkeypatch.setattr(measure, "BUSY", 0.0)
    with pytest.raises(Trouble, match="did not end within 0 minutes"):
        bencher._wait()


def test_what_the_gpu_shows_is_kept(settings: Settings) -> None:
    readings = itertools.cycle(
        Gpu("card0", "1002:1586", vram_used=v << 30, gtt_used=1 << 30, power=40.0, temperature=60.0)
        for v in (1, 3)
    )
    bench = measured(
        settings, Case("x", "7.1", SMALL), watch=lambda: Watch(0.001, lambda: next(readings))
    )
    peaks = bench.results[0].peaks
    assert (peaks.vram, peaks.used, peaks.power) == (3 << 30, 4 << 30, 40.0)
    assert peaks.temperature == 60.0


def test_no_server(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.stop()
    assert cli.main(["bench", "run"]) == 1
    assert "start it: sudo systemctl start comfyui" in capsys.readouterr().err
    assert kept(settings) == []


@pytest.mark.parametrize("sizes", ["1000x", "7", ",", "64x64,-8x8", "99999999x8"])
def test_odd_sizes(settings: Settings, sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "run", "--sizes", sizes]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_no_size_is_told_as_it_was_given(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "run", "--sizes", "512, foo"]) == 2
    told = "strixbox: 'foo' is no size; write WIDTHxHEIGHT, e.g. 1024x1536\n"
    assert capsys.readouterr().err == told


def test_a_state_that_takes_no_files(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.state / "bench").write_text("a file in the directory's place")
    assert cli.main(["bench", "run", "--sizes", "64", "--steps", "1"]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_times_of_a_prompt() -> None:
    events = (
        Event("execution_start", at=0.0),
        Event("execution_cached", at=0.1),
        Event("executing", "1", at=0.2),
        Event("executing", "2", at=1.0),
        *(Event("progress", "2", n, 5, at=1.0 + 2.0 * n) for n in range(1, 6)),
        Event("executing", "3", at=11.5),
        Event("progress", "3", 1, 4, at=12.0),  # tiles, not steps
        Event("progress", "3", 2, 4, at=12.5),
        Event("executing", None, at=13.0),
    )
    run = run_of(Done("p", 13.0, {}, ("1", "9"), events), GRAPH, 7, Peaks())
    assert run.step == pytest.approx(2.0)
    assert run.sampler == pytest.approx(10.5)
    assert run.decode == pytest.approx(1.5)
    assert run.encode is None
    assert run.cached == ("CheckpointLoaderSimple",)


EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(["execution_start", "executing", "progress", "history", "odd"]),
        st.none() | st.sampled_from(["1", "2", "3", "4"]),
        st.integers(-9, 9),
        st.integers(-9, 9),
        st.floats(0, 1e9),
    )
)


@given(EVENTS, st.floats(-1, 1e9), st.lists(st.text(max_size=3)))
def test_times_of_whatever_a_server_sends(
    events: list[Event], seconds: float, cached: list[str]
) -> None:
    run = run_of(Done("p", seconds, {}, tuple(cached), tuple(events)), GRAPH, 0, Peaks())
    assert run.seconds >= 0
    assert run.step is None or run.step >= 0
    for value in (run.sampler, run.decode):
        assert value is None or value >= 0


def test_throttling_is_noted() -> None:
    assert notes([1.0] * 30, Peaks(temperature=94.0)) == []
    assert notes([1.0] * 20 + [1.2] * 10, Peaks()) == [
        "slowed down: the last steps took 1.20 times the first"
    ]
    assert notes([], Peaks(temperature=97.0)) == ["hot: 97 °C"]
    assert notes([1.0, 9.0], Peaks()) == []


def test_the_picture_is_one(tmp_path: Path) -> None:
    found = pictures.look(picture(64, 32))
    assert found is not None
    assert (found.suffix, found.width, found.height, found.transparent) == (".png", 64, 32, True)
