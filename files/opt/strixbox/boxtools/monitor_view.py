"""What a sample looks like, on a screen and on a line."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from boxtools.output import size
from boxtools.sample import Sample

GIB = 1 << 30
LABEL = 11  # columns
NUMBERS = 30  # columns that the readings beside a bar take
FULL, HIGH = 0.9, 0.75  # shares from which memory is shown in red and in yellow
WARM, HOT = 80.0, 90.0  # degrees Celsius


def screen_view(sample: Sample, width: int, *, live: bool = True) -> RenderableType:
    """The live screen, for a terminal of that many columns, or one sample for good."""
    bars = max(8, min(60, width - LABEL - NUMBERS - 8))
    panels = {
        f"GPU {sample.gpu or ''}".rstrip(): _gpu(sample, bars),
        "Box": _box(sample, bars),
        "ComfyUI": _server(sample, bars),
    }
    parts: list[RenderableType] = [
        Panel(content, title=Text(title), title_align="left", width=min(width, bars + 55))
        for title, content in panels.items()
    ]
    if sample.limited_by:
        parts.append(Text(f"held back by {sample.limited_by}", style="bold yellow"))
    keys = "   q quits" if live else ""
    parts.append(Text(f"{sample.time.astimezone():%H:%M:%S}{keys}", style="dim"))
    return Group(*parts)


def plain_line(sample: Sample) -> str:
    """The same on one line, for pipes and journals."""
    parts = [f"{sample.time.astimezone():%H:%M:%S}"]
    if sample.gpu is None:
        parts.append("no AMD GPU")
    else:
        parts.append(
            f"gpu {_percent(sample.gpu_busy)} {_unit(sample.gpu_clock, 'MHz')}"
            f" {_unit(sample.temperature, '°C')} {_unit(sample.power, 'W')}"
        )
        parts.append(f"vram {_pair(sample.vram_used, sample.vram_total)}")
        parts.append(f"gtt {_pair(sample.gtt_used, sample.gtt_total)}")
    parts.append(f"cpu {_percent(sample.cpu_busy)}")
    parts.append(f"ram {_pair(sample.ram_total - sample.ram_available, sample.ram_total)}")
    if sample.swap_used:
        parts.append(f"swap {_pair(sample.swap_used, sample.swap_total)}")
    if sample.server == "up":
        parts.append(f"queue {sample.running}+{sample.waiting}")
        parts += [word for word in (sample.node, _steps(sample)) if word]
    else:
        parts.append("ComfyUI does not answer")
    if sample.limited_by:
        parts.append(f"held back by {sample.limited_by}")
    return "  ".join(parts)


def bar(share: float | None, columns: int) -> str:
    """A bar in eighths of a column; empty for an unknown share."""
    eighths = round(max(0.0, min(1.0, share or 0.0)) * columns * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return drawn.ljust(columns, "·")


def _gpu(sample: Sample, columns: int) -> RenderableType:
    if sample.gpu is None:
        return Text("no AMD GPU in sysfs, and none that amd-smi or rocm-smi knows", style="yellow")
    rows = _rows()
    _bar_row(rows, "busy", _over(sample.gpu_busy, 100), columns, _percent(sample.gpu_busy), "green")
    _memory_row(rows, "VRAM", sample.vram_used, sample.vram_total, columns)
    _memory_row(rows, "GTT", sample.gtt_used, sample.gtt_total, columns)
    clocks = f"{_unit(sample.gpu_clock, 'MHz')}, memory {_unit(sample.memory_clock, 'MHz')}"
    rows.add_row("clocks", Text(clocks), "")
    heat = Text(_unit(sample.temperature, "°C"), style=_heat(sample.temperature))
    power = _unit(sample.power, "W")
    rows.add_row("heat, power", Text.assemble(heat, f", {power}"), "")
    if sample.read_rate is not None and sample.write_rate is not None:
        rates = f"{sample.read_rate / 1e9:.1f} GB/s read, {sample.write_rate / 1e9:.1f} written"
        rows.add_row("RAM traffic", Text(rates), "")
    return rows


def _box(sample: Sample, columns: int) -> RenderableType:
    rows = _rows()
    load = f"{_percent(sample.cpu_busy)}, load {'-' if sample.load is None else sample.load}"
    _bar_row(rows, "CPU", _over(sample.cpu_busy, 100), columns, load, "green")
    used = sample.ram_total - sample.ram_available
    _memory_row(rows, "RAM", used, sample.ram_total, columns)
    rows.add_row("page cache", Text(size(sample.ram_cached)), "")
    if sample.swap_total:
        _memory_row(rows, "swap", sample.swap_used, sample.swap_total, columns)
    return rows


def _server(sample: Sample, columns: int) -> RenderableType:
    if sample.server != "up":
        return Text(sample.server, style="yellow")
    rows = _rows()
    rows.add_row("queue", Text(f"{sample.running} running, {sample.waiting} waiting"), "")
    if sample.running:
        rows.add_row("node", Text(sample.node or "told to the prompt's own client only"), "")
        _bar_row(rows, "step", _over(sample.step, sample.steps), columns, _steps(sample), "cyan")
    return rows


def _rows() -> Table:
    rows = Table.grid(padding=(0, 1))
    rows.add_column(min_width=LABEL, no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    rows.add_column(min_width=12, no_wrap=True)
    return rows


def _bar_row(
    rows: Table, label: str, share: float | None, columns: int, text: str, style: str
) -> None:
    rows.add_row(label, Text(bar(share, columns), style=style), Text(text or "-"))


def _memory_row(rows: Table, label: str, used: int | None, total: int | None, columns: int) -> None:
    share = _over(used, total)
    level = share or 0.0
    style = "red" if level >= FULL else "yellow" if level >= HIGH else "green"
    _bar_row(rows, label, share, columns, f"{size(used)} of {size(total)}", style)


def _steps(sample: Sample) -> str:
    if sample.step is None or sample.steps is None:
        return ""
    pace = sample.seconds_per_step
    return f"{sample.step}/{sample.steps}" + ("" if pace is None else f", {pace:.2f} s/it")


def _over(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _percent(number: float | None) -> str:
    return "-" if number is None else f"{number:.0f}%"


def _unit(number: float | None, unit: str) -> str:
    return "-" if number is None else f"{number:.0f} {unit}"


def _pair(used: int | None, total: int | None) -> str:
    first, second = ("-" if n is None else f"{n / GIB:.1f}" for n in (used, total))
    return f"{first}/{second} GiB"


def _heat(celsius: float | None) -> str:
    if celsius is None or celsius < WARM:
        return ""
    return "red" if celsius >= HOT else "yellow"
