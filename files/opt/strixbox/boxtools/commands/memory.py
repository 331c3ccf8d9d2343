"""``strixbox memory``: who holds the box's memory, what fits beside it, and giving it back."""

from __future__ import annotations

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from boxtools import memory, output, settings
from boxtools.errors import WrongUse
from boxtools.memory import Freed, Report
from boxtools.monitor_view import bar
from boxtools.output import json_option, show, size
from boxtools.server import Server

WAIT = 60.0  # seconds for the queue to become empty
SHOWN = 8  # models of the page cache


@click.command()
@json_option
@click.option("--free", is_flag=True, help="Unload the server's models, and show before and after.")
@click.option(
    "--wait",
    type=output.FiniteRange(0, 86400),
    help=f"Seconds that --free waits for running prompts ({WAIT:g}).",
)
def command(as_json: bool, free: bool, wait: float | None) -> None:
    """What holds VRAM, GTT and RAM, and what fits beside it.

    Batch sizes are recommended from peaks that strixbox bench measured on this box.
    """
    if wait is not None and not free:
        raise WrongUse("--wait is how long --free waits: give both")
    told = settings.load()
    server = Server(told.url)
    if free:
        freed = memory.free(server, WAIT if wait is None else wait)
        show(freed, as_json, _freed_view(freed))
    else:
        report = memory.report(told, server)
        show(report, as_json, _view(report))


def _view(report: Report) -> RenderableType:
    parts: list[RenderableType] = [_pools(report)]
    if report.processes:
        parts += [Text(), _processes(report)]
    parts += [Text(), *(Text(line) for line in _holders(report))]
    if report.recommendation.fits:
        parts += [Text(), _fits(report)]
    told = [*report.notes, *report.recommendation.sentences]
    parts += [Text(), *(Text(f"- {line}") for line in told)]
    parts += [Text(f"- {line}", style="yellow") for line in report.advice]
    return Group(*parts)


def _pools(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    rows = (
        ("VRAM", report.vram_used, report.vram_total),
        ("GTT", report.gtt_used, report.gtt_total),
        ("RAM", report.ram_total - report.ram_available, report.ram_total),
        ("swap", report.swap_used, report.swap_total),
    )
    for name, used, total in rows:
        if total:
            share = None if used is None else used / total
            table.add_row(name, Text(bar(share, 30)), Text(f"{size(used)} of {size(total)}"))
    if report.gpu is None:
        table.add_row("GPU", Text("no AMD GPU tells its memory"), "")
    return table


def _processes(report: Report) -> Table:
    table = Table("process", "VRAM", "GTT", "RAM", box=None, pad_edge=False)
    for one in report.processes:
        name = Text(f"{one.name} ({one.pid})")
        table.add_row(name, size(one.vram), size(one.gtt), size(one.ram))
    return table


def _holders(report: Report) -> list[str]:
    lines = []
    if report.hidden:
        lines.append(f"{report.hidden} processes of others are not looked into; sudo shows them")
    if report.service_ram is not None:
        lines.append(f"the service has {size(report.service_ram)} of RAM")
    seen = report.server
    if seen is not None and seen.cpu:
        lines.append("ComfyUI works on the CPU: its models are in RAM")
    elif seen is not None:
        lines.append(
            f"ComfyUI sees {size(seen.vram_free)} free of {size(seen.vram_total)} on"
            f" {seen.device}; torch holds {size(seen.torch_reserved)}"
            f" ({size(seen.torch_free)} of it unused)"
        )
    if report.server_problem:
        lines.append(report.server_problem)
    lines.append(
        f"page cache {size(report.ram_cached)}, of it models {size(report.models_resident)}"
    )
    lines += [
        f"  {model.name}: {size(model.resident)} of {size(model.size)}"
        for model in report.models[:SHOWN]
    ]
    if len(report.models) > SHOWN:
        lines.append(f"  and {len(report.models) - SHOWN} more")
    return lines


def _fits(report: Report) -> Table:
    table = Table("size", "measured batch", "its peak", "batch that fits", box=None, pad_edge=False)
    for fit in report.recommendation.fits:
        batch = "one more size or batch to measure" if fit.batch is None else str(fit.batch)
        beyond = " (beyond what was measured)" if fit.beyond else ""
        table.add_row(
            f"{fit.width}x{fit.height}", str(fit.measured), size(fit.peak), f"{batch}{beyond}"
        )
    return table


def _freed_view(freed: Freed) -> Table:
    table = Table("", "before", "after", box=None, pad_edge=False)
    before, after = freed.before, freed.after
    table.add_row("GPU memory in use", size(before.gpu_used), size(after.gpu_used))
    table.add_row("held by torch", size(before.torch_reserved), size(after.torch_reserved))
    table.add_row("RAM available", size(before.ram_available), size(after.ram_available))
    return table
