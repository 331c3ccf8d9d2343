"""``strixbox warmup``: tunes matrix products for the sizes that are used.

``strixbox-warmup.service`` runs it with ``--if-new`` whenever ComfyUI starts.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import click
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from boxtools import output, settings, warmup
from boxtools.server import Event, Server

SIZES = "512x512,768x768,1024x1024,1024x1536"  # the chapter's four


@click.command()
@click.option("--sizes", default=SIZES, show_default=True, help="Sizes in pixels.")
@click.option("--batches", default="1", show_default=True, help="Batch sizes of each.")
@click.option("--checkpoint", help="File in models/checkpoints; shapes differ by architecture.")
@click.option("--again", is_flag=True, help="Also what was tuned before.")
@click.option("--if-new", is_flag=True, help="Fine with nothing to tune: for the service.")
@click.option("--anyway", is_flag=True, help="Render the sizes even where nothing can be tuned.")
@click.option("--wait", type=output.FiniteRange(0, 3600), default=0, show_default=True,
              help="Seconds for ComfyUI to answer.")  # fmt: skip
@click.option("--status", "only_status", is_flag=True, help="Show what was tuned, do nothing.")
@output.json_option
@click.pass_context
def command(
    context: click.Context,
    sizes: str,
    batches: str,
    checkpoint: str | None,
    again: bool,
    if_new: bool,
    anyway: bool,
    wait: float,
    only_status: bool,
    as_json: bool,
) -> None:
    """Render each size once with TunableOp's tuning on, so that later pictures are fast.

    What was done is kept by torch and GPU: a second run does what is missing. Tuning is off
    before, between and after.
    """
    jobs = warmup.parse_sizes(sizes, batches)
    box = settings.load()
    server = Server(box.url)
    # systemd stops with SIGTERM: tuning is switched off again as after Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    context.call_on_close(lambda: signal.signal(signal.SIGTERM, before))
    warmup.answers(server, wait)
    if only_status:
        told = warmup.status(server, box.state)
        output.show(told, as_json, _status_view(told))
        return
    console = output.remarks()

    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True)

    run = warmup.Warmup(server, box.state, say, _Steps(say))
    report = run.run(jobs, checkpoint=checkpoint, again=again, if_new=if_new, anyway=anyway)
    output.show(report, as_json, _view(report))
    if report.failed:
        context.exit(1)


class _Steps:
    """Says now and then what is rendered: a shape is tuned for minutes."""

    def __init__(self, say: warmup.Say) -> None:
        self.say = say
        self.said = time.monotonic()

    def __call__(self, name: str, event: Event) -> None:
        if event.kind == "progress" and time.monotonic() - self.said >= output.Progress.EVERY:
            self.said = time.monotonic()
            self.say(f"{name}: step {event.value}/{event.maximum}")


def _view(report: warmup.Report) -> Group | str:
    if report.note:
        return escape(report.note)
    table = _table()
    for name, entry in report.tuned.items():
        _row(table, name, entry)
    lines = []
    if report.already:
        lines.append(f"tuned before: {', '.join(report.already)}")
    for name, reason in report.failed.items():
        lines.append(f"failed: {name}: {reason}")
    if report.tuning:
        lines.append(
            f"{report.results_before} results before, {report.results_after} now,"
            f" in {report.filename or 'no file'}; {report.seconds:.1f} s in all"
        )
    else:
        lines.append(f"rendered without tuning in {report.seconds:.1f} s")
    parts: list[Any] = [table] if report.tuned else []
    return Group(*parts, *(escape(line) for line in lines))


def _status_view(told: dict[str, Any]) -> Group:
    lines = [f"torch {told['torch']} on {told['gpu']}"]
    lines += [str(told[key]) for key in ("obstacle", "stale") if told[key]]
    parts: list[Any] = [escape(line) for line in lines]
    for checkpoint, sizes in told["sizes"].items():
        table = _table()
        for name, entry in sizes.items():
            _row(table, name, warmup.Entry.model_validate(entry))
        parts += [escape(checkpoint), table]
    return Group(*parts)


def _table() -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("SIZE")
    for title in ("1ST", "AGAIN", "NEW RESULTS"):
        table.add_column(title, justify="right")
    return table


def _row(table: Table, name: str, entry: warmup.Entry) -> None:
    table.add_row(name, f"{entry.first:.1f} s", f"{entry.again:.1f} s", f"{entry.gained:+d}")
