"""``strixbox monitor``: the box at a glance, live, once, or into a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from boxtools import monitor, output, settings
from boxtools.errors import WrongUse
from boxtools.monitor_view import screen_view
from boxtools.output import json_option, remarks, screen, show
from boxtools.sample import Sampler
from boxtools.sample_log import Format, SampleLog
from boxtools.server import Server

LIVE, LINE, LOG = 0.5, 2.0, 1.0  # seconds


@click.command()
@click.option("--once", is_flag=True, help="Print one sample and end.")
@json_option
@click.option(
    "--log",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append samples to this file, a line each.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv"]),
    help="Of the file; by its name otherwise.",
)
@click.option(
    "--interval",
    type=output.FiniteRange(0.1, 3600),
    help=f"Seconds: {LIVE:g} live, {LINE:g} for lines, {LOG:g} for the file.",
)
@click.option("--count", type=click.IntRange(1), help="End after this many samples.")
def command(
    once: bool,
    as_json: bool,
    file: Path | None,
    format_: Format | None,
    interval: float | None,
    count: int | None,
) -> None:
    """Watch GPU, CPU, memory and the queue live.

    On a terminal a screen that q ends; elsewhere, or with --count, a line per interval.
    """
    if as_json and not once:
        raise WrongUse("--json goes with --once; for many samples: --log FILE --format jsonl")
    if once and file is not None:
        raise WrongUse("--once prints a sample and --log keeps them: give one of the two")
    if format_ and file is None:
        raise WrongUse("--format is the format of the file that --log names")
    server, sampler = Server(settings.load().url), Sampler()
    console = screen()
    if once:
        sample = monitor.once(server, sampler)
        show(sample, as_json, screen_view(sample, min(console.width, 100), live=False))
    elif file is not None:
        chosen: Format = format_ or ("csv" if file.suffix == ".csv" else "jsonl")
        log = SampleLog(file, chosen)
        remarks().print(
            f"a sample every {interval or LOG:g} s to {file}", markup=False, soft_wrap=True
        )
        monitor.log(server, sampler, log, interval or LOG, count)
        remarks().print(f"samples in {file}: {log.lines}", markup=False, soft_wrap=True)
    elif count is None and console.is_terminal and sys.stdin.isatty():
        monitor.live(server, sampler, console, interval or LIVE)
    else:
        monitor.lines(server, sampler, console, interval or LINE, count)
