"""Results as tables for a terminal. Names come from files and servers: they are never markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from boxtools.bench.chapter import claimed, claims
from boxtools.bench.compare import Comparison
from boxtools.bench.plan import names
from boxtools.bench.results import Bench, Choice, Result
from boxtools.output import size

# Sections of the chapter by what their table is about.
TITLES = {
    "7.2.2": "VRAM modes",
    "7.4.3": "Batch size",
    "7.5.1": "Samplers",
    "7.5.2": "Steps and workflows",
    "7.5.3": "CFG and turbo",
    "7.6.1": "VAE",
    "7.6.2": "VAE in tiles",
    "7.11.1": "Resolutions",
    "7.11.3": "Before and after tuning",
}
COLOURS = {
    "faster": "green",
    "slower": "red",
    "keep": "green",
    "drop": "red",
    "not comparable": "yellow",
}


def seconds(value: float | None) -> str:
    """Seconds with the digits that matter."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def number(value: float | None, unit: str = "", digits: int = 0) -> str:
    """A number with its unit, ``-`` for an unknown one."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def listing(benches: Sequence[Bench], meant: Mapping[str, Bench]) -> RenderableType:
    """All sittings; ``meant`` are those that a word names too."""
    words = {bench.id: word for word, bench in meant.items()}
    table = _table(
        "Result", "Also", "Plan", "Label", "State", ">Cases", ">Failed", "ComfyUI", "torch"
    )
    for bench in benches:
        failed = sum(result.failed is not None for result in bench.results)
        table.add_row(
            *_plain(
                bench.id,
                words.get(bench.id, ""),
                bench.plan,
                bench.label or "",
                bench.state if bench.results or bench.choices else "nothing measured",
                str(len(bench.results) or len(bench.choices)),
                str(failed) if failed else "",
                bench.box.comfyui or "-",
                bench.box.torch or "-",
            )
        )
    return table if benches else Text("nothing was measured yet: strixbox bench run")


def sitting(bench: Bench) -> RenderableType:
    """One sitting, a table for each section of the chapter."""
    parts: list[RenderableType] = [head(bench)]
    for section, rows in by_section(bench).items():
        parts.append(Text(f"\n{title(section)}", style="bold"))
        parts.append(_results(rows))
    if bench.choices:
        parts += [Text(""), choices(bench.choices)]
    return Group(*parts)


def title(section: str) -> str:
    """Heading of a section's table."""
    return f"{TITLES.get(section, 'Other')} ({section})" if section else "Other"


def by_section(bench: Bench) -> dict[str, list[tuple[str, Result]]]:
    """Name and result by section, in the chapter's order; a result under all its names."""
    found: dict[str, list[tuple[str, Result]]] = {}
    place = {name: position for position, name in enumerate(names())}
    rows = sorted(
        bench.named().items(), key=lambda r: place.get(r[0].partition("@")[0], len(place))
    )
    for name, result in rows:
        known = claims().get(name.partition("@")[0])
        section = known.section if known else result.section
        found.setdefault(section, []).append((name, result))
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def head(bench: Bench) -> Text:
    """What was measured, when, on what."""
    box = bench.box
    words = [f"{bench.id} ({bench.state})"]
    if bench.label:
        words[0] += f" {bench.label}"
    words.append(
        f"ComfyUI {box.comfyui or '?'}, torch {box.torch or '?'}, stack {box.stack},"
        f" kernel {box.kernel}, profile {box.profile}, release {box.release or '?'}"
    )
    if box.devices or box.gpu:
        words.append(
            f"{', '.join(box.devices) or '?'} ({box.gpu or 'no AMD GPU'}), VRAM {size(box.vram)},"
            f" GTT {size(box.gtt)}, RAM {size(box.ram)}"
        )
    return Text("\n".join(words))


def spread(result: Result) -> str:
    """Quartiles around the median, as a share of it."""
    if result.spread is None or not result.median:
        return "-"
    if len(result.values) == 1:
        return "one run"
    width = (result.spread.high - result.spread.low) / result.median
    return f"{width * 100:.1f} %"


def remarks(result: Result) -> str:
    """What else there is to say about a result."""
    if result.failed:
        return f"failed: {result.failed}"
    told = [note for run in result.runs for note in run.notes]
    return "; ".join(dict.fromkeys(told))


def _results(rows: Sequence[tuple[str, Result]]) -> Table:
    table = _table(
        "Case", ">s", ">IQR", ">s/it", ">VAE s", ">First s", ">VRAM", ">GTT", ">W", ">°C",
        ">Chapter", "Remarks",
    )  # fmt: skip
    for name, result in rows:
        peaks = result.peaks
        first = result.value(result.first) if result.first else None
        table.add_row(
            *_plain(
                name,
                seconds(result.median),
                spread(result),
                seconds(result.medians.get("step")),
                seconds(result.medians.get("decode")),
                seconds(first) + (" cold" if result.cold and first is not None else ""),
                size(peaks.vram),
                size(peaks.gtt),
                number(peaks.power),
                number(peaks.temperature),
                number(claimed(name, result), "", 1),
                remarks(result),
            )
        )
    return table


def comparison(told: Comparison, first: str, second: str) -> RenderableType:
    """Case by case; ``first`` and ``second`` are what the sittings were called."""
    table = _table("Case", ">First s", ">Second s", ">Ratio", ">Needed", ">p", "Verdict", "Remarks")
    for line in told.lines:
        style = COLOURS.get(line.verdict, "")
        table.add_row(
            *_plain(
                line.name + ("" if line.metric == "seconds" else f" ({line.metric})"),
                seconds(line.first),
                seconds(line.second),
                number(line.ratio, "x", 3),
                number(line.needed, "x", 3),
                number(line.p, "", 3),
            ),
            Text(line.verdict, style=style),
            Text(line.reason or ""),
        )
    parts: list[RenderableType] = [
        Text(f"{_called(told.first, first)} → {_called(told.second, second)}", style="bold")
    ]
    if told.differences:
        parts.append(Text("differs: " + "; ".join(told.differences)))
    parts.append(table if told.lines else Text("they have no case in common"))
    if told.mean is not None:
        parts.append(
            Text(
                f"geometric mean of the ratios {told.mean:.3f}x; noise of one run"
                f" {told.noise * 100:.1f} %"
            )
        )
    for name, only in ((told.first, told.only_first), (told.second, told.only_second)):
        if only:
            parts.append(Text(f"only in {name}: {', '.join(only)}"))
    return Group(*parts)


def _called(known: str, name: str) -> str:
    return known if known.startswith(name) else f"{known} ({name})"


def choices(told: Sequence[Choice]) -> RenderableType:
    """What alternation said about flags and variables."""
    table = _table("Flag or variable", ">On s", ">Off s", ">On/off", ">90 %", ">Rounds", "Verdict")
    notes: list[RenderableType] = []
    for choice in told:
        interval = "-"
        if choice.low is not None and choice.high is not None:
            interval = f"{choice.low:.3f} to {choice.high:.3f}"
        verdict = choice.advice or "not measured"
        table.add_row(
            *_plain(
                choice.words,
                seconds(choice.on),
                seconds(choice.off),
                number(choice.ratio, "x", 3),
                interval,
                str(len(choice.rounds) or "-"),
            ),
            Text(verdict, style=COLOURS.get(verdict, "")),
        )
        for text in filter(None, (choice.reason, choice.does)):
            notes.append(Padding(Text(f"{choice.words}: {text}"), (0, 0, 0, 2)))
    return Group(table, *notes)


def chapter() -> RenderableType:
    """The chapter's figures, as what they are."""
    table = _table("Case", "Section", ">s", ">VAE s", ">VRAM GB", "What contradicts it")
    for name, claim in claims().items():
        vae = claim.decode if claim.decode is not None else claim.encode
        table.add_row(
            *_plain(
                name,
                claim.section,
                number(claim.seconds, "", 1),
                number(vae, "", 1),
                number(claim.vram, "", 1),
                claim.note or "",
            )
        )
    return Group(Text("claims of the tuning chapter; nobody measured them here", "bold"), table)


def _order(section: str) -> tuple[int, ...]:
    return tuple(int(part) for part in section.split(".") if part.isdigit())


def _plain(*cells: str) -> Iterable[Text]:
    return (Text(cell) for cell in cells)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        # A row that must be broken is broken in its last column, which has sentences.
        table.add_column(
            column.lstrip(">"),
            justify="right" if right else "left",
            no_wrap=column not in ("Remarks", "What contradicts it", "Label"),
        )
    return table


def when(iso: str) -> str:
    """A time of a result for people; as it is where it is none."""
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return iso
