"""The doctor's results for people."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from boxtools.doctor.finding import Finding
from boxtools.doctor.slow import Diagnosis
from boxtools.doctor.symptoms import Match
from boxtools.output import size

STYLES = {"ok": "green", "warn": "yellow", "wrong": "bold red", "unknown": "cyan"}


def findings_view(findings: list[Finding], everything: bool) -> Group:
    """What is wrong, why it matters, what mends it; all findings with ``everything``."""
    shown = [f for f in findings if everything or f.verdict in ("wrong", "warn")]
    parts: list[Text | Table] = []
    if shown:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        once = _Once()
        for finding in shown:
            table.add_row(_verdict(finding.verdict), Text(finding.code), _told(finding, once))
        parts.append(table)
    parts.append(Text(summary(findings)))
    return Group(*parts)


def summary(findings: list[Finding]) -> str:
    """One line about all of them."""
    count = {verdict: sum(f.verdict == verdict for f in findings) for verdict in STYLES}
    line = f"{len(findings)} findings: {count['wrong']} wrong, {count['warn']} to look at"
    if count["unknown"]:
        line += f", {count['unknown']} unknown (strixbox doctor --all says why)"
    return line


class _Once:
    """Tells each mend once, and afterwards of which code it was: one thing often mends several."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}

    def tell(self, mend: str, code: str) -> str:
        """The mend, or where it stands."""
        first = self.codes.setdefault(mend, code)
        return mend if first == code else f"as for {first}"


def _told(finding: Finding, once: _Once) -> Text:
    told = Text(finding.evidence)
    if finding.verdict != "ok":
        if finding.meaning:
            told.append(f"\n{finding.meaning}")
        if finding.mend:
            told.append(f"\n-> {once.tell(finding.mend, finding.code)}", "bold")
        if finding.safe_fix and "--fix" not in finding.mend:
            told.append(f"\n-> or: strixbox doctor --fix ({finding.safe_fix})", "bold")
    return told


def _verdict(verdict: str) -> Text:
    return Text(verdict, STYLES[verdict])


def diagnosis_view(diagnosis: Diagnosis) -> Group:
    """The five steps and where the cause is."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    once = _Once()
    for step in diagnosis.steps:
        told = Text(step.question, "bold").append(f"\n{step.evidence}", "not bold")
        for finding in step.findings:
            # That of the cause is part of the conclusion.
            if not diagnosis.conclusion.startswith(f"{finding.code}: "):
                mend = once.tell(finding.mend, finding.code)
                told.append(f"\n-> {finding.code}: {mend}", "not bold")
        table.add_row(Text(f"Step {step.number}"), _verdict(step.verdict), told)
    if diagnosis.cause:
        end = f"The cause is most likely at step {diagnosis.cause}. {diagnosis.conclusion}"
    else:
        end = diagnosis.conclusion
    return Group(table, Text(end))


def bundle_view(path: Path, files: dict[str, int], replaced: dict[str, int]) -> Text:
    """Where the bundle is, what is not in it, and what to do before it is sent."""
    lines = [
        f"The bundle is {path}; nobody else on this box may read it. It holds:",
        *(f"  {name} ({size(length)})" for name, length in files.items()),
        "Taken out: names of accounts and of this box, home directories, addresses, serial numbers,"
        " keys and passwords, prompts, names of images and of models of your own, and all lines of"
        " ComfyUI's log that may hold such things.",
    ]
    if replaced:
        told = ", ".join(f"{name} {count}x" for name, count in replaced.items())
        lines.append(f"In their place stands: {told}.")
    lines += [
        "No rule finds everything. Before you send it, read it through for what is nobody's"
        " business, such as words of your prompts, names of people and of directories:",
        f"  tar xzf {shlex.quote(str(path))} -O | less",
    ]
    return Text("\n".join(lines))


def matches_view(matches: list[Match]) -> Group:
    """What an error means, the surest first."""
    parts: list[Text] = []
    for match in matches:
        told = Text(f"{match.code} ", "bold").append(f"({match.confidence} % sure)", "not bold")
        told.append(f"\n  found:  {match.line}", "dim")
        told.append(f"\n  means:  {match.means}", "not bold")
        told.append(f"\n  mend:   {match.mend}", "not bold")
        told.append(f"\n  source: {match.source}", "dim not bold")
        parts.append(told)
    return Group(*parts)
