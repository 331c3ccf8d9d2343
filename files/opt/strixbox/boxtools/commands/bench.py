"""``strixbox bench``: measure, compare, try flags, report."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path

import click
from rich.markup import escape

from boxtools import output, settings
from boxtools.bench import chapter, results, views
from boxtools.bench import compare as comparing
from boxtools.bench import flags as alternation
from boxtools.bench import plan as plans
from boxtools.bench.box import box_of
from boxtools.bench.run import run_plan
from boxtools.errors import Trouble, WrongUse
from boxtools.jobs import parse_size
from boxtools.server import Server

RESERVED = frozenset({"before", "chapter", "last"})


def _label(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A label by which a result can be found again, and that JSON can hold."""
    if value is None or (re.fullmatch(r"[\w .+-]{1,60}", value) and value not in RESERVED):
        return value
    raise click.BadParameter(
        f"{value!r}: take up to 60 letters, digits, blanks and ._+-; {', '.join(sorted(RESERVED))}"
        " have a meaning of their own"
    )


@click.group()
def command() -> None:
    """Measure this box, compare runs, try flags.

    RUN is an id of `bench list` or the start of one, a label, a path, `last` (the newest with a
    measurement) or `before` (the one before it, of the same plan).
    """


@command.command()
@click.option("--plan", type=click.Choice(plans.PLANS), default="quick", show_default=True,
              help="What to measure; chapter is all of it.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True,
              help="Runs that count, of each case.")  # fmt: skip
@click.option("--warmup", type=click.IntRange(0, 10), default=1, show_default=True,
              help="Runs before them that do not count.")  # fmt: skip
@click.option("--sizes", multiple=True, metavar="WxH[,WxH...]",
              help="Sizes in the place of the chapter's.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 1000), help="Steps in the place of the chapter's.")
@click.option("--label", callback=_label, help="A name for this result.")
@output.json_option
def run(
    plan: str,
    runs: int,
    warmup: int,
    sizes: tuple[str, ...],
    steps: int | None,
    label: str | None,
    as_json: bool,
) -> None:
    """Measure the cases of a plan; Ctrl-C keeps what was measured and ends with 130."""
    cases = plans.plan(plan, parse_sizes(sizes), steps)
    box = settings.load()
    bench = results.Bench(
        id=results.new_id(box, plan),
        plan=plan,
        label=label,
        began=results.now(),
        runs=runs,
        box=box_of(box, Server(box.url)),
    )
    with output.Progress("bench", len(cases) * (runs + warmup), "renders") as progress:
        try:
            bench = run_plan(
                box,
                cases,
                bench,
                functools.partial(results.save, box),
                warmups=warmup,
                remark=_remark,
                done=_counter(progress),
            )
        except KeyboardInterrupt:
            with contextlib.suppress(Trouble):
                kept = results.find(box, bench.id, _remark)
                count = len(kept.results)
                _remark(
                    f"{count} cases are kept as {kept.id}"
                    if count
                    else f"no case was measured; {kept.id} does not become `last`"
                )
            raise
    output.show(bench, as_json, views.sitting(bench))
    if bench.results and all(result.failed for result in bench.results):
        raise Trouble(f"no case of {bench.id} succeeded; the reasons are in its table")


@command.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List the results on this box, the newest first, and which of them `last` and `before` are."""
    found = list(results.stored(settings.load(), _remark))
    told = [bench.model_dump(mode="json", exclude={"results", "choices"}) for bench in found]
    meant = results.meant(found)
    names = {name: bench.id for name, bench in meant.items()}
    output.show({"results": told, **names}, as_json, views.listing(found, meant))


@command.command()
@click.argument("run", default="last")
@output.json_option
def show(run: str, as_json: bool) -> None:
    """Show a result, a table for each section; `chapter` shows the chapter's own figures."""
    if run == comparing.CHAPTER:
        told = {name: claim.model_dump() for name, claim in chapter.claims().items()}
        output.show({"claims": told}, as_json, views.chapter())
        return
    bench = results.find(settings.load(), run, _remark)
    output.show(bench, as_json, views.sitting(bench))


@command.command()
@click.argument("first", default="before")
@click.argument("second", default="last")
@output.json_option
@click.pass_context
def compare(ctx: click.Context, first: str, second: str, as_json: bool) -> None:
    """Tell whether SECOND is faster or slower than FIRST by more than noise.

    Either may be `chapter`: the figures of the tuning guide, which are claims. Exit code 1 where a
    case is slower, or fails where it worked.
    """
    told = compared(settings.load(), first, second)
    output.show(told, as_json, views.comparison(told, first, second))
    ctx.exit(1 if told.worse else 0)


# A flag of ComfyUI is no option of ours, and needs no -- before it.
@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True,
              help="All flags and variables of the service's profile.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(alternation.fewest(), 100),
              default=alternation.ROUNDS, show_default=True,
              help="Turns of each side.")  # fmt: skip
@click.option("--size", default="1024x1024", show_default=True, metavar="WxH",
              help="Of the render that is timed.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 1000), default=25, show_default=True,
              help="Of the render that is timed.")  # fmt: skip
@click.option("--one-at-a-time", is_flag=True,
              help="Start a server for every turn: for a box without room for two.")  # fmt: skip
@output.json_option
def flags(
    names: tuple[str, ...],
    everything: bool,
    rounds: int,
    size: str,
    steps: int,
    one_at_a_time: bool,
    as_json: bool,
) -> None:
    """Measure flags or variables on and off in alternation: keep, drop, or no difference.

    NAME is --flag, '--flag VALUE' (in quotes), NAME=VALUE, or the name of a variable of the
    settings. The service's models are unloaded meanwhile.
    """
    box = settings.load()
    if everything == bool(names):
        raise WrongUse("name flags or variables, or say --all")
    if box.profile not in box.profiles:
        raise Trouble(f"the service's profile {box.profile} is not in the settings; deploy again")
    (shape,) = parse_sizes((size,))
    job = plans.sized(plans.BASE, shape).model_copy(update={"steps": steps})
    # A misspelt name ends the command before anything is measured; of --all each has its reason.
    known = [] if everything else [alternation.knob(box, name) for name in names]
    bench = results.Bench(
        id=results.new_id(box, "flags"),
        plan="flags",
        began=results.now(),
        runs=rounds,
        box=box_of(box, Server(box.url)),
    )
    for text in alternation.every(box) if everything else names:
        try:
            chosen = next((one for one in known if one.words == text), None)
            chosen = chosen or alternation.knob(box, text)
        except WrongUse as mistake:
            choice = results.Choice(words=text, reason=f"not measured: {mistake}")
        else:
            with output.Progress(chosen.words, 2 * rounds, "renders") as progress:
                choice = alternation.measure(
                    box,
                    chosen,
                    job,
                    rounds,
                    one_at_a_time=one_at_a_time,
                    remark=_remark,
                    done=_counter(progress),
                )
        bench = bench.model_copy(update={"choices": (*bench.choices, choice)})
        results.save(box, bench)
    bench = bench.model_copy(update={"state": "complete", "ended": results.now()})
    results.save(box, bench)
    output.show(bench, as_json, views.choices(bench.choices))
    if all(choice.advice is None for choice in bench.choices):
        raise Trouble("nothing could be measured; the reasons are beside the names")


@command.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="File to write; without it, beside the results.")  # fmt: skip
def report(runs: tuple[str, ...], out: Path | None) -> None:
    """Write one HTML file with tables, plots and verdicts of RUNs (default: last)."""
    from boxtools.bench import report as reporting  # matplotlib takes a second

    box = settings.load()
    benches = [results.find(box, name, _remark) for name in runs or ("last",)]
    path = out or results.folder(box) / f"{benches[-1].id}.html"
    reporting.write(path, reporting.page(benches))
    output.screen().print(str(path), soft_wrap=True, markup=False)


def parse_sizes(words: tuple[str, ...]) -> list[plans.Size]:
    """Sizes as given on the command line; 512 is 512x512.

    Raises:
        WrongUse: where one is none.
    """
    texts = [text.strip() for word in words for text in word.split(",") if text.strip()]
    if words and not texts:
        raise WrongUse("--sizes names no size; write e.g. --sizes 512x512,1024x1536")
    return [parse_size(f"{text}x{text}" if text.isdigit() else text) for text in texts]


def compared(box: settings.Settings, first: str, second: str) -> comparing.Comparison:
    """The comparison that two names mean.

    Raises:
        Trouble: where a result is missing.
        WrongUse: where both are the chapter.
    """
    if first == second == comparing.CHAPTER:
        raise WrongUse("the chapter against itself says nothing; name a result")
    if comparing.CHAPTER in (first, second):
        ours = second if first == comparing.CHAPTER else first
        bench = _comparable(box, ours)
        return comparing.with_chapter(bench, claims_first=first == comparing.CHAPTER)
    return comparing.compare(_comparable(box, first), _comparable(box, second))


def _comparable(box: settings.Settings, name: str) -> results.Bench:
    """A sitting of cases: one that was cut early has none, and one of `bench flags` neither."""
    bench = results.find(box, name, _remark)
    if bench.results:
        return bench
    if bench.choices:
        raise Trouble(f"{bench.id} compares flags by itself; see: strixbox bench show {bench.id}")
    raise Trouble(f"{bench.id} holds no measurement; name another of: strixbox bench list")


def _counter(progress: output.Progress) -> Callable[[], None]:
    count = 0

    def one() -> None:
        nonlocal count
        count += 1
        progress.at(count)

    return one


def _remark(text: str) -> None:
    output.remarks().print(escape(text), soft_wrap=True)
