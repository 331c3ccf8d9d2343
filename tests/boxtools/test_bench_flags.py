"""Flags and variables in alternation: the two sides differ in the one thing that is asked about."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from boxtools import cli
from boxtools.bench import flags, results
from boxtools.bench.flags import Side, knob
from boxtools.bench.plan import BASE, sized
from boxtools.errors import WrongUse
from boxtools.server import Done, Event, Graph, Server
from boxtools.settings import Settings, Variable
from hypothesis import HealthCheck, given
from hypothesis import settings as often
from hypothesis import strategies as st

from .conftest import Standin
from .test_private import argv_of, put_release

JOB = sized(BASE, (64, 64)).model_copy(update={"steps": 3})
SHORT = ["--size", "64x64", "--steps", "3"]


def test_a_variable_of_the_profile(settings: Settings) -> None:
    found = knob(settings, "GPU_MAX_HEAP_SIZE")
    assert found.on == Side(variables=(("GPU_MAX_HEAP_SIZE", "99"),))
    assert found.off == Side(variables=(("GPU_MAX_HEAP_SIZE", ""),))
    assert found.does == "Lowers the GPU heap's bound."
    # Another value is tried against the one that is in use.
    other = knob(settings, "GPU_MAX_HEAP_SIZE=50")
    assert other.on == Side(variables=(("GPU_MAX_HEAP_SIZE", "50"),))
    assert other.off == Side(variables=(("GPU_MAX_HEAP_SIZE", "99"),))


def test_a_variable_that_nobody_has(settings: Settings) -> None:
    found = knob(settings, "MIOPEN_FIND_MODE=FAST")
    assert found.on == Side(variables=(("MIOPEN_FIND_MODE", "FAST"),))
    assert found.off == Side(variables=(("MIOPEN_FIND_MODE", ""),))


def test_a_flag_that_the_profile_lacks(settings: Settings) -> None:
    assert knob(settings, "--fast") == flags.Knob("--fast", Side(flags=("--fast",)), Side())
    found = knob(settings, "--reserve-vram 2.5")
    assert found.on.flags == ("--reserve-vram", "2.5")


def test_a_flag_of_the_profile_is_taken_away_for_off(settings: Settings) -> None:
    found = knob(settings, "--highvram")
    assert found.on == Side(flags=("--highvram",), without=("--highvram",))
    assert found.off == Side(without=("--highvram",))


def test_a_flag_that_excludes_one_of_the_profile(settings: Settings) -> None:
    found = knob(settings, "--lowvram")
    assert found.on == Side(flags=("--lowvram",), without=("--lowvram", "--highvram"))
    assert found.off == Side(flags=("--highvram",), without=("--lowvram", "--highvram"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fast", "neither a flag nor a variable"),
        ("", "neither"),
        ("--", "neither"),
        ("A=1 --b", "neither"),
        ("'", "neither"),
        ("--port 9", "says where"),
        ("PYTORCH_TUNABLEOP_FILENAME", "says where"),
        ("UNKNOWN", "write UNKNOWN=VALUE"),
        ("A=", "write A=VALUE"),
    ],
)
def test_what_cannot_be_measured(settings: Settings, text: str, why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        knob(settings, text)


@often(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_whatever_is_typed_is_understood_or_refused(settings: Settings, text: str) -> None:
    try:
        found = knob(settings, text)
    except WrongUse:
        return
    assert found.on != found.off


def test_every_flag_and_variable_of_the_profile(settings: Settings) -> None:
    assert flags.every(settings) == [
        "--highvram",
        "--use-pytorch-cross-attention",
        "PYTORCH_TUNABLEOP_ENABLED",
        "GPU_MAX_HEAP_SIZE",
    ]


def test_turns_alternate() -> None:
    assert flags.order(3) == ["on", "off", "off", "on", "on", "off"]
    assert flags.fewest() == 5


def test_the_sides_differ_in_the_flag_alone(settings: Settings, standin: Standin) -> None:
    put_release(settings, standin)
    found = knob(settings, "--highvram")
    told = {}
    for name, side in (("on", found.on), ("off", found.off)):
        with flags._server(settings, side) as server:
            told[name] = [
                word
                for word in argv_of(server)[1:]
                if "/private-" not in word and not word.isdigit()
            ]
    assert [word for word in told["on"] if word != "--highvram"] == told["off"]
    assert "--highvram" in told["on"]


def test_a_slow_flag_is_dropped(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "flags", "STRIXBOX_STANDIN_STEP=0.03", *SHORT, "--json"]
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    (choice,) = told["choices"]
    assert choice["advice"] == "drop"
    assert choice["ratio"] > 1.2
    assert choice["low"] > 1
    assert len(choice["rounds"]) == 5
    assert choice["on"] > choice["off"]
    (bench,) = results.stored(settings, pytest.fail)
    assert (bench.plan, bench.state) == ("flags", "complete")
    assert cli.main(["bench", "show", bench.id]) == 0
    assert "drop" in capsys.readouterr().out


def test_one_server_at_a_time(settings: Settings) -> None:
    found = knob(settings, "STRIXBOX_STANDIN_STEP=0.03")
    told = flags.measure(settings, found, JOB, 1, one_at_a_time=True)
    assert told.advice == "no difference"  # one round decides nothing
    assert told.ratio is not None
    assert told.ratio > 1.2


def test_a_flag_with_which_it_does_not_start_is_told(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "flags", "--no-such-flag", *SHORT]) == 1
    told = capsys.readouterr()
    assert "not measured" in told.out
    assert "unrecognized arguments: --no-such-flag" in told.out
    assert "nothing could be measured" in told.err
    assert list(settings.temp_directory.glob("private-*")) == []


def test_all_of_the_profile(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    put_release(settings, standin)
    profile = settings.profiles["production"]
    named = (*profile.variables, "PYTORCH_TUNABLEOP_FILENAME")
    ours = settings.model_copy(
        update={
            "profiles": {"production": profile.model_copy(update={"variables": named})},
            "variables": settings.variables
            | {"PYTORCH_TUNABLEOP_FILENAME": Variable(value="/x", does="Where.")},
        }
    )
    file = settings.state.parent / "tools.json"
    file.write_text(ours.model_dump_json())
    assert cli.main(["bench", "flags", "--all", *SHORT, "--json"]) == 0
    choices = json.loads(capsys.readouterr().out)["choices"]
    assert [choice["words"] for choice in choices] == flags.every(ours)
    assert [choice["advice"] is None for choice in choices] == [False] * 4 + [True]
    assert "says where" in choices[-1]["reason"]


@pytest.mark.parametrize("words", [[], ["--all", "--fast"], ["--rounds", "4", "--fast"]])
def test_wrong_use(settings: Settings, words: list[str]) -> None:
    assert cli.main(["bench", "flags", *words]) == 2


def test_both_sides_render_on_servers_of_their_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    free, run = Server.free, Server.run

    def freed(self: Server, **words: bool) -> None:
        calls.append(("free", self.url))
        free(self, **words)

    def ran(self: Server, graph: Graph, seen: Callable[[Event], None] | None = None) -> Done:
        calls.append(("run", self.url))
        return run(self, graph, seen)

    monkeypatch.setattr(Server, "free", freed)
    monkeypatch.setattr(Server, "run", ran)
    flags.measure(settings, knob(settings, "A=1"), JOB, 5)
    assert calls[0] == ("free", settings.url)  # the service's models make room
    rendered = [url for kind, url in calls if kind == "run"]
    assert settings.url not in rendered
    assert len(rendered) == 2 + 10
    on, off = rendered[0], rendered[1]
    assert rendered[2:] == [on, off, off, on, on, off, off, on, on, off]
