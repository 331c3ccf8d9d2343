"""The report: one file with everything in it, and nothing in it that came as markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from boxtools import cli
from boxtools.bench import results
from boxtools.bench.charts import charts
from boxtools.bench.plan import described, plan
from boxtools.bench.report import page, write
from boxtools.bench.results import Bench, Box, Choice, Peaks, Result, Run
from boxtools.errors import Trouble
from boxtools.settings import Settings
from hypothesis import HealthCheck, given
from hypothesis import settings as often
from hypothesis import strategies as st

from .test_bench_results import BENCHES, sitting

HOSTILE = '<script>alert("x")</script>[red]$\\frac{'
VOID = {"meta", "br", "path", "use", "rect", "circle", "line", "image"}


class Reader(HTMLParser):
    """What a page has: its elements, text, ids, and whether they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def full(number: int = 1, share: float = 1.0, label: str | None = None) -> Bench:
    """A sitting of the whole chapter, of a box that takes ``share`` of what the chapter says."""
    cases = []
    for position, case in enumerate(plan("chapter")):
        area = case.job.width * case.job.height * case.job.batch / 2**20
        times = [share * (case.job.steps or 25) * area * noise for noise in (0.4, 0.41, 0.43)]
        runs = tuple(
            Run(
                seed=n,
                seconds=time,
                step=time / 25,
                decode=time / 10,
                encode=time / 9,
                peaks=Peaks(vram=1 << 29, gtt=int(area * 2**33), used=int(area * 2**33) + 2**29,
                            power=80.0, temperature=70.0),
            )
            for n, time in enumerate(times)
        )  # fmt: skip
        failed = "KSampler (5) failed: HIP out of memory" if position == 18 else None
        cases.append(
            Result(
                name=case.name,
                also=case.also,
                section=case.section,
                metric=case.metric,
                job=described(case.job),
                first=runs[-1],
                cold=position == 0,
                runs=() if failed else runs,
                failed=failed,
            ).summed()
        )
    choices = (
        Choice(words="--fast", advice="keep", ratio=0.9, low=0.88, high=0.93, on=9.0, off=10.0),
        Choice(words="X=1", reason="not measured: it does not start", does="Nothing."),
    )
    box = Box(kernel="6.17", stack="rocm-6.4.2", profile="production", flags=("--highvram",),
              devices=("cuda:0 AMD Radeon Graphics : native",), gpu="1002:1586",
              vram=1 << 29, gtt=62 << 30, ram=125 << 30)  # fmt: skip
    return sitting(number, *cases, box=box, label=label, plan="chapter", choices=choices,
                   state="complete", runs=3)  # fmt: skip


def test_one_file_without_addresses_and_scripts() -> None:
    text = page([full(1, 1.2, "before"), full(2, label="after")])
    found = Reader(text)
    assert found.open == []
    assert found.tags.count("svg") == 6
    assert "script" not in found.tags
    assert not re.search(r"https?://|//\w|@import|url\((?!#)", text)
    assert not {"link", "img", "iframe", "object"} & set(found.tags)
    assert len(found.ids) == len(set(found.ids))
    for word in ("faster", "claims", "HIP out of memory", "--fast", "keep", "not measured", "GTT"):
        assert word in found.text
    # What an SVG refers to is in it: markers and clips.
    for name in re.findall(r'(?:href="#|url\(#)([^")]+)', text):
        assert name in found.ids


def test_nothing_that_was_measured_is_markup() -> None:
    bench = full(label=HOSTILE)
    box = bench.box.model_copy(
        update={"devices": (HOSTILE,), "flags": (HOSTILE,), "torch": HOSTILE, "release": HOSTILE}
    )
    cases = tuple(result.model_copy(update={"failed": HOSTILE}) for result in bench.results[:3])
    hostile = bench.model_copy(update={"box": box, "results": cases + bench.results[3:]})
    found = Reader(page([hostile, hostile]))
    assert "script" not in found.tags
    assert HOSTILE in found.text


@often(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(BENCHES, min_size=1, max_size=2))
def test_whatever_was_measured_has_a_report(benches: list[Bench]) -> None:
    assert Reader(page(benches)).open == []


def test_plots_take_the_colours_of_the_page() -> None:
    for _, svg in charts([full()]):
        assert "var(--ink)" in svg
        assert "var(--series-1)" in svg
        assert "#0" not in svg.replace("#000000", "")
        assert svg.startswith('<svg role="img"')
    assert charts([full()]) == charts([full()])


def test_nothing_measured_has_no_plots() -> None:
    assert charts([sitting(1)]) == []
    assert "They have no case" in page([sitting(1), sitting(2)])


def test_from_the_command_line(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results.save(settings, full(1, 1.2))
    results.save(settings, full(2))
    out = tmp_path / "report.html"
    assert cli.main(["bench", "report", "before", "last", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_text().startswith("<!doctype html>")
    assert cli.main(["bench", "report"]) == 0
    beside = results.folder(settings) / "20260102T000000Z-quick.html"
    assert capsys.readouterr().out.strip() == str(beside)
    assert beside.exists()
    assert cli.main(["bench", "report", "--out", "/proc/no/report.html"]) == 1
    assert "name another file with --out" in capsys.readouterr().err


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.html"
    path.write_text("old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(Trouble, match="No space left on device"):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
