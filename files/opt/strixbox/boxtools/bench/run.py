"""Runs the cases of a plan, each on the server that it asks for, and keeps what came of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from boxtools.bench.measure import RETURN, Bencher, Say, Stopped, blank, overlay
from boxtools.bench.plan import Case
from boxtools.bench.results import Bench, Result, now
from boxtools.errors import Trouble
from boxtools.private import private_server
from boxtools.server import Server
from boxtools.settings import Settings
from boxtools.watch import Watch


def run_plan(
    settings: Settings,
    cases: Sequence[Case],
    bench: Bench,
    keep: Callable[[Bench], object],
    *,
    warmups: int = 1,
    remark: Say = lambda text: None,
    done: Callable[[], None] = lambda: None,
    watch: Callable[[], Watch] = Watch,
) -> Bench:
    """Measure all cases, handing the sitting to ``keep`` after each; returns it complete.

    Raises:
        KeyboardInterrupt: after what was measured was kept.
        Trouble: where the service is gone, or the result cannot be kept; what is kept is partial.
    """
    keep(bench)
    for group in grouped(cases):
        private = group[0].profile is not None
        try:
            with _server(settings, group[0], remark) as server:
                patience = 0.0 if private else RETURN
                bencher = Bencher(
                    server,
                    settings,
                    remark,
                    patience=patience,
                    beside=Server(settings.url) if private else None,
                    watch=watch,
                )
                bencher.unload()
                for case in group:
                    result = bencher.case(case, bench.runs, warmups, done)
                    bench = _more(bench, result)
                    keep(bench)
        except Stopped as stop:
            if stop.trouble or stop.result.runs:
                keep(bench := _more(bench, stop.result))
            if stop.trouble is None:
                raise KeyboardInterrupt from None
            if not private:
                raise Trouble(stop.trouble) from None
            keep(bench := _without(bench, settings, group, stop.trouble))
        except Trouble as trouble:
            if not private:
                raise
            keep(bench := _without(bench, settings, group, str(trouble)))
    bench = bench.model_copy(update={"state": "complete", "ended": now()})
    keep(bench)
    return bench


def _without(bench: Bench, settings: Settings, group: Sequence[Case], trouble: str) -> Bench:
    """The sitting without a private server that did not start or has ended: the next may do."""
    for case in group:
        if case.name not in bench.named():
            result = blank(settings, case).model_copy(update={"failed": trouble})
            bench = _more(bench, result)
    return bench


def grouped(cases: Sequence[Case]) -> list[list[Case]]:
    """Runs of cases that share a server."""
    groups: list[list[Case]] = []
    for case in cases:
        last = groups[-1][0] if groups else None
        if last is not None and (last.profile, last.keeps) == (case.profile, case.keeps):
            groups[-1].append(case)
        else:
            groups.append([case])
    return groups


@contextlib.contextmanager
def _server(settings: Settings, case: Case, remark: Say) -> Iterator[Server]:
    if case.profile is None:
        yield Server(settings.url)
        return
    remark(f"starts a private ComfyUI with the profile {case.profile}")
    with private_server(settings, case.profile, variables=overlay(settings, case)) as server:
        yield server


def _more(bench: Bench, result: Result) -> Bench:
    return bench.model_copy(update={"results": (*bench.results, result)})
