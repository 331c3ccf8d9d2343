"""``strixbox preload``: models into the page cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from boxtools import output, preload
from boxtools.catalogue import choose, find_models
from boxtools.errors import WrongUse
from boxtools.host import memory
from boxtools.models_view import printable
from boxtools.output import Progress, json_option, remarks, show, size
from boxtools.preload import Loaded
from boxtools.settings import load

MOST_USED = 3  # where there is neither a list nor a wish: a checkpoint, a VAE and one more


@click.command()
@click.argument("names", nargs=-1)
@click.option("--most-used", type=click.IntRange(1), help="The N models that were used last.")
@click.option(
    "--share",
    type=output.FiniteRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Of the available memory, at most.",
)
@click.option("--status", is_flag=True, help="Only tell what is in the page cache.")
@click.option(
    "--list",
    "list_file",
    type=click.Path(path_type=Path),
    help=f"File with one path a line, in the place of {preload.LIST}.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    most_used: int | None,
    share: float,
    status: bool,
    list_file: Path | None,
    as_json: bool,
) -> None:
    """Read models into the page cache.

    NAMES are models (see: strixbox models list), patterns, or paths. Without them: the deploy's
    list, else the models that were used last. Nothing is copied into this program; what is in the
    cache already is not read again; programs and the GPU get the memory back when they need it.
    """
    paths = _paths(names, most_used, list_file)
    begun = time.monotonic()
    stopped = None
    if status:
        results = preload.status(paths)
    else:
        before = preload.status(paths)
        room = int(memory().available * share)
        total = min(room, sum(one.size for one in before))
        with Progress("preload", total >> 20, "MiB") as progress:
            results, stopped = preload.preload(
                paths, room, memory, lambda done: progress.at(done >> 20)
            )
    seconds = time.monotonic() - begun
    brought = sum(max(0, (r.resident or 0) - (r.before or 0)) for r in results)
    value = {
        "files": [_plain(result) for result in results],
        "bytes": brought,
        "seconds": seconds,
        "stopped": stopped,
    }
    show(value, as_json, _table(results))
    if not results:
        remarks().print("nothing is listed to preload")
    elif not status:
        rate = f", {size(brought / seconds)}/s" if brought and seconds else ""
        remarks().print(f"{size(brought)} brought in, in {seconds:.1f} s{rate}")
    if stopped:
        remarks().print(f"stopped early: {stopped}")
    if any(result.problem for result in results):
        ctx.exit(1)


def _paths(names: Sequence[str], most_used: int | None, list_file: Path | None) -> list[Path]:
    if sum(map(bool, (names, most_used, list_file))) > 1:
        raise WrongUse("name models, or give --most-used, or --list: one of them")
    if names:
        others = [name for name in names if not name.startswith("/")]
        paths = [Path(name) for name in names if name.startswith("/")]
        if others:
            paths += [model.path for model in choose(find_models(load()), others)]
        return list(dict.fromkeys(paths))
    paths_of_list = None if most_used else preload.listed(list_file or preload.LIST)
    if paths_of_list is None and list_file:
        raise WrongUse(f"{list_file} is not there; name a file with one path a line")
    # The deploy's list is empty where models_manifest is: then nobody said what is meant.
    if paths_of_list or list_file:
        return paths_of_list or []
    return preload.most_used(find_models(load()), most_used or MOST_USED)


def _plain(result: Loaded) -> dict[str, object]:
    return vars(result) | {"path": str(result.path)}


def _table(results: Sequence[Loaded]) -> Table:
    table = Table("Model", "Size", "In page cache", box=None, pad_edge=False)
    for result in results:
        there = result.problem or _share(result.resident, result.size)
        table.add_row(escape(printable(str(result.path))), size(result.size), there)
    return table


def _share(resident: int | None, length: int) -> str:
    if resident is None:
        return "not known"
    return f"{resident / length:.0%} ({size(resident)})" if length else "empty"
