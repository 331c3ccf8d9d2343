"""Results on the disk, and comparing them; whatever the files hold ends in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from boxtools import cli
from boxtools.bench import results, views
from boxtools.bench.chapter import claims, standard
from boxtools.bench.compare import Comparison, compare, differences, with_chapter
from boxtools.bench.results import Bench, Box, Choice, Peaks, Result, Run
from boxtools.errors import Trouble
from boxtools.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

BOX = Box(kernel="6.17", stack="rocm-6.4.2", profile="production", torch="2.6", flags=("--a",))


def result(name: str, *times: float, failed: str | None = None, **job: object) -> Result:
    """A case whose runs took these times."""
    runs = tuple(Run(seed=n, seconds=time, decode=time / 10) for n, time in enumerate(times))
    known = standard().get(name, {})
    return Result(name=name, job={**known, **job}, runs=runs, failed=failed).summed()


def sitting(number: int, *cases: Result, box: Box = BOX, **words: object) -> Bench:
    """A sitting of these cases; a higher number is a later one."""
    name = f"202601{number:02}T000000Z-quick"
    return Bench.model_validate(
        {"id": name, "plan": "quick", "began": "2026-01-01T00:00:00Z", "box": box}
        | {"results": cases}
        | words
    )


RUNS = st.builds(
    Run,
    seed=st.integers(0, 2**64 - 1),
    seconds=st.floats(0, 1e6),
    step=st.none() | st.floats(0, 1e6),
    decode=st.none() | st.floats(0, 1e6),
    cached=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    peaks=st.builds(Peaks, vram=st.none() | st.integers(0, 2**40), power=st.floats(0, 200)),
)
RESULTS = st.builds(
    lambda name, runs, batch: Result(name=name, runs=tuple(runs), job={"batch": batch}).summed(),
    st.text(max_size=9),
    st.lists(RUNS, max_size=4),
    st.integers(-1, 8),
)
BENCHES = st.builds(
    Bench,
    id=st.text(max_size=9),
    plan=st.text(max_size=9),
    label=st.none() | st.text(max_size=9),
    began=st.text(max_size=9),
    box=st.just(BOX),
    results=st.lists(RESULTS, max_size=4).map(tuple),
    choices=st.lists(st.builds(Choice, words=st.text(max_size=9)), max_size=2).map(tuple),
)


@given(BENCHES)
def test_a_result_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, bench: Bench
) -> None:
    path = tmp_path_factory.getbasetemp() / "bench.json"
    path.write_text(json.dumps(bench.model_dump(mode="json"), allow_nan=False))
    assert results.load(path) == bench


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=5),
       lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner))
       .map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_a_file_holds(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_bytes(content)
    with pytest.raises(Trouble, match="no result of this version of the tools"):
        results.load(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"more": 1}, "more: Extra inputs"),
        ({"results": [{"name": "x", "runs": [{"seed": 1, "seconds": -1}]}]}, "seconds"),
        ({"box": {}}, "box.kernel"),
    ],
)
def test_a_damaged_result(tmp_path: Path, change: dict[str, object], why: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(sitting(1).model_dump(mode="json") | change))
    with pytest.raises(Trouble, match=why):
        results.load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(Trouble, match="no result"):
        results.load(path)
    path.write_text('{"box": {"ram": NaN}}')
    with pytest.raises(Trouble, match="no result"):
        results.load(path)


def test_a_file_that_is_not_there_or_not_to_be_read(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="is not there"):
        results.load(tmp_path / "x.json")
    with pytest.raises(Trouble, match="cannot be read"):
        results.load(tmp_path)


def test_finding(settings: Settings) -> None:
    def find(name: str) -> str:
        return results.find(settings, name, pytest.fail).id

    with pytest.raises(Trouble, match="nothing was measured"):
        find("last")
    one = result("a", 1.0)
    other = sitting(2, one, id="20260102T000000Z-vae", plan="vae")
    flags = sitting(4, id="20260104T000000Z-flags", plan="flags", label="f")
    for bench in (sitting(1, one, label="old"), other, sitting(3, one, label="new"), flags):
        results.save(settings, bench)
    assert find("last") == "20260103T000000Z-quick"
    assert find("before") == "20260101T000000Z-quick"
    assert find("new") == "20260103T000000Z-quick"
    assert find("20260102") == other.id
    assert find(str(results.folder(settings) / f"{other.id}.json")) == other.id
    assert find("f") == flags.id
    with pytest.raises(Trouble, match="is the start of 4 results"):
        find("202601")
    with pytest.raises(Trouble, match="there is no result nothing"):
        find("nothing")
    results.save(settings, sitting(5, one, id="20260105T000000Z-vram", plan="vram"))
    with pytest.raises(Trouble, match="no result of the plan vram before 20260105T000000Z-vram"):
        find("before")


def test_what_last_and_before_are_is_told(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"results": []}
    one = result("a", 1.0)
    vae = sitting(2, one, id="20260102T000000Z-vae", plan="vae")
    for bench in (sitting(1, one), vae, sitting(3, one), sitting(4)):  # the newest is cut
        results.save(settings, bench)
    assert cli.main(["bench", "list"]) == 0
    told = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert told == [
        ["20260104T000000Z-quick", "quick"],
        ["20260103T000000Z-quick", "last"],
        [vae.id, "vae"],
        ["20260101T000000Z-quick", "before"],
    ]
    assert cli.main(["bench", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["last"] == "20260103T000000Z-quick"
    assert listed["before"] == "20260101T000000Z-quick"
    assert cli.main(["bench", "compare"]) == 0
    heading = capsys.readouterr().out.splitlines()[0]
    assert heading == "20260101T000000Z-quick (before) → 20260103T000000Z-quick (last)"
    assert cli.main(["bench", "compare", "20260102", "last"]) == 0
    heading = capsys.readouterr().out.splitlines()[0]
    assert heading == f"{vae.id} → 20260103T000000Z-quick (last)"


def test_a_sitting_that_was_cut_early_is_not_last(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = sitting(3, result("a", failed="no room"))
    cut = sitting(4)
    for bench in (sitting(1, result("a", 1.0)), sitting(2), failed, cut):
        results.save(settings, bench)
    told: list[str] = []
    assert results.find(settings, "last", told.append) == failed
    assert told == [f"{cut.id} holds no measurement; last is {failed.id}"]
    assert results.find(settings, "before", pytest.fail).id == "20260101T000000Z-quick"
    assert cli.main(["bench", "compare"]) == 1  # it fails now
    assert "no room" in capsys.readouterr().out
    for words in ([cut.id], ["last", cut.id], ["chapter", cut.id]):
        assert cli.main(["bench", "compare", *words]) == 1
        assert f"{cut.id} holds no measurement; name another" in capsys.readouterr().err
    assert cli.main(["bench", "list"]) == 0
    assert capsys.readouterr().out.count("nothing measured") == 2


def test_flags_are_compared_by_themselves(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    results.save(settings, sitting(1, id="f", plan="flags", choices=(Choice(words="--a"),)))
    assert cli.main(["bench", "compare", "f", "f"]) == 1
    assert "see: strixbox bench show f" in capsys.readouterr().err


def test_damaged_files_are_told_and_left_out(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    results.save(settings, sitting(1))
    (results.folder(settings) / "20260102T000000Z-quick.json").write_text("{")
    (results.folder(settings) / ".part-x.json").write_text("{")
    assert cli.main(["bench", "list", "--json"]) == 0
    told = capsys.readouterr()
    assert [one["id"] for one in json.loads(told.out)["results"]] == ["20260101T000000Z-quick"]
    assert told.err.count("is no result") == 1


def test_ids_of_one_second_differ_and_sort(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "now", lambda form="": "20260101T000000Z")
    made = []
    for _ in range(11):
        name = results.new_id(settings, "x")
        results.save(settings, sitting(1, id=name))
        made.append(name)
    assert made[:2] == ["20260101T000000Z-x", "20260101T000000Z-x-2"]
    assert [path.stem for path in results.paths(settings)] == made[::-1]


def test_seconds_are_per_image() -> None:
    assert result("batch/4", 8.0, 8.4, 9.0).median == pytest.approx(2.1)
    odd = Result(name="x", job={"batch": "many"}, runs=(Run(seed=1, seconds=2.0),))
    assert odd.summed().median == 2.0


def test_peaks_are_the_largest_and_means_the_mean() -> None:
    runs = tuple(
        Run(seed=1, seconds=1, peaks=Peaks(vram=v, power=float(v), samples=2)) for v in (1, 3)
    )
    peaks = Result(name="x", runs=runs).summed().peaks
    assert (peaks.vram, peaks.power, peaks.gtt, peaks.samples) == (3, 2.0, None, 4)


def verdicts(told: Comparison) -> dict[str, str]:
    """Verdict by case."""
    return {line.name: line.verdict for line in told.lines}


def test_comparing_two_sittings() -> None:
    before = sitting(
        1,
        result("steps/10", 10, 10.1, 10.2),
        result("steps/15", 10, 10.1, 10.2),
        result("steps/20", 10, 10.1, 10.2),
        result("steps/30", 10, 10.1, 10.2),
        result("steps/40", 10, 10.1, 10.2),
        result("steps/50", failed="out of memory"),
        result("cfg/1", 1, 1, 1),
    )
    after = sitting(
        2,
        result("steps/10", 8, 8.1, 8.2),
        result("steps/15", 13, 13.1, 13.2),
        result("steps/20", 10.02, 10.1, 10.2),
        result("steps/30", 8, 8.1, 8.2, checkpoint="other"),
        result("steps/40", failed="out of memory"),
        result("steps/50", 1, 1, 1),
        result("cfg/4", 1, 1, 1),
        box=BOX.model_copy(update={"torch": "2.9", "flags": ("--b", "/path")}),
    )
    told = compare(before, after)
    assert verdicts(told) == {
        "steps/10": "faster",
        "steps/15": "slower",
        "steps/20": "no difference beyond noise",
        "steps/30": "not comparable",
        "steps/40": "not comparable",
        "steps/50": "not comparable",
    }
    reasons = {line.name: line.reason for line in told.lines}
    assert reasons["steps/30"] == "not the same render: checkpoint None and other"
    assert reasons["steps/40"] == "fails now: out of memory"
    assert reasons["steps/50"] == "failed: out of memory"
    assert [line.name for line in told.lines if line.fails] == ["steps/40"]
    assert told.only_first == ("cfg/1",)
    assert told.only_second == ("cfg/4",)
    assert told.differences == ("torch 2.6 → 2.9", "without --a", "with --b")
    assert told.worse


@pytest.mark.parametrize(
    ("after", "worse"),
    [
        (result("steps/10", 8, 8.1, 8.2), False),
        (result("steps/10", 10, 10.1, 10.2), False),
        (result("steps/10", 12, 12.1, 12.2), True),
        (result("steps/10", failed="x"), True),
    ],
)
def test_the_gate(
    settings: Settings, after: Result, worse: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    results.save(settings, sitting(1, result("steps/10", 10, 10.1, 10.2)))
    results.save(settings, sitting(2, after))
    assert cli.main(["bench", "compare", "--json"]) == int(worse)
    assert len(json.loads(capsys.readouterr().out)["lines"]) == 1


def test_the_mean_is_of_what_may_be_compared() -> None:
    before = sitting(1, result("steps/10", 10, 10.1, 10.2), result("steps/15", 10))
    after = sitting(2, result("steps/10", 8, 8.08, 8.16), result("steps/15", 40))
    told = compare(before, after)
    assert verdicts(told)["steps/15"] == "not comparable"
    assert told.mean == pytest.approx(0.8)
    assert compare(before, sitting(2, result("steps/15", 40))).mean is None


def test_one_run_has_no_spread() -> None:
    assert views.spread(result("steps/10", 10)) == "one run"
    assert views.spread(result("steps/10", 10, 10)) == "0.0 %"
    assert views.spread(result("steps/10", failed="x")) == "-"


def test_cases_are_found_under_each_of_their_names() -> None:
    first = result("size/1024x1024", 10, 10.1, 10.2).model_copy(update={"also": ("steps/25",)})
    told = compare(sitting(1, first), sitting(2, result("steps/25", 10, 10.1, 10.2)))
    assert verdicts(told) == {"steps/25": "no difference beyond noise"}
    assert (told.only_first, told.only_second) == ((), ())


def test_another_file_of_the_same_name() -> None:
    old = result("steps/10", 1, 1, 1).model_copy(update={"models": {"checkpoints/a": 1}})
    new = old.model_copy(update={"models": {"checkpoints/a": 2}})
    (line,) = compare(sitting(1, old), sitting(2, new)).lines
    assert line.reason == "not the same render: checkpoints/a was another file"


@given(BENCHES, BENCHES)
def test_whatever_was_measured_can_be_compared(one: Bench, other: Bench) -> None:
    told = compare(one, other)
    json.dumps(told.model_dump(mode="json"), allow_nan=False)
    for line in told.lines:
        assert line.ratio is None or math.isfinite(line.ratio)
    with_chapter(one)


def test_the_chapters_figures_are_claims() -> None:
    bench = sitting(
        1,
        result("size/1024x1024", 24.4, 24.5, 24.6),
        result("size/512x512", 3.1, 3.2, 3.3, steps=10),
        result("batch/8", 80, 81, 82),
        result("cfg/1", 1, 1, 1),
    )
    told = with_chapter(bench)
    assert verdicts(told) == {
        "size/1024x1024": "slower",
        "size/512x512": "not comparable",
        "batch/8": "not comparable",
    }
    reasons = {line.name: line.reason or "" for line in told.lines}
    assert "13.1 GB in 7.2.2" in reasons["size/1024x1024"]
    assert reasons["size/512x512"] == "not the chapter's: steps 25 and 10"
    assert told.only_second == ("cfg/1",)
    assert "steps/50" in told.only_first
    assert told.worse
    back = with_chapter(bench, claims_first=False)
    assert verdicts(back)["size/1024x1024"] == "faster"
    assert (back.first, back.second) == (bench.id, "chapter")


def test_chapter_from_the_command_line(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    results.save(settings, sitting(1, result("size/1024x1024", 24.4, 24.5, 24.6)))
    assert cli.main(["bench", "compare", "chapter", "last"]) == 1
    assert "slower" in capsys.readouterr().out
    assert cli.main(["bench", "compare", "last", "chapter"]) == 0
    assert cli.main(["bench", "compare", "chapter", "chapter"]) == 2
    capsys.readouterr()
    assert cli.main(["bench", "show", "chapter", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["claims"]) == set(claims())
    assert cli.main(["bench", "show", "chapter"]) == 0
    assert "nobody measured them here" in capsys.readouterr().out


def test_contradictions_of_the_chapter_are_noted() -> None:
    assert "18.75" in (claims()["size/512x512"].note or "")
    assert "2.4 times" in (claims()["tuning/after"].note or "")
    # Whole seconds a step, as its own table of steps says.
    table = {n: claims()[f"steps/{n}"].seconds or 0 for n in (10, 15, 20, 25, 30, 40, 50)}
    assert all(0.40 < seconds / steps < 0.42 for steps, seconds in table.items())


def test_differences_of_variables() -> None:
    one = BOX.model_copy(update={"variables": {"A": "1", "B": "1"}})
    other = BOX.model_copy(update={"variables": {"B": "2", "C": "[x]"}})
    assert differences(one, other) == ["A 1 → unset", "B 1 → 2", "C unset → [x]"]
