"""What is told and recorded of a run: each box in a word, with the mend where it needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict, get_args

from pyinfra.api.host import HostData

from strixbox.config import Config

Outcome = Literal[
    "changed", "unchanged", "failed", "interrupted", "would fail", "planned", "not run"
]


class Row(TypedDict):
    """One operation on one box."""

    operation: str
    outcome: Outcome
    seconds: float
    says: NotRequired[str]  # the sentence of one that failed, or would


@dataclass(frozen=True)
class BoxReport:
    """How a run ended on one box.

    + refused: why the run did not begin on it
    + failed: whether pyinfra left it out of the run
    + reached: whether it was connected to
    + login: what logs in to it by hand; empty where ssh is not how it is reached
    + unknown: what verify could not look at, a sentence each
    + following: what to do next where all is well, a line each
    """

    name: str
    rows: Sequence[Row]
    config: Config | None = None
    refused: str | None = None
    failed: bool = False
    reached: bool = True
    interrupted: bool = False
    dry: bool = False
    login: str = ""
    unknown: tuple[str, ...] = ()
    following: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """One word: failed, interrupted, refused, planned, changed or the like.

        ``refused`` is a dry run's word for a box that the run would fail on; ``unfinished`` is one
        that was left out of the rest of the run.
        """
        outcomes = {row["outcome"] for row in self.rows} or {"not run"}
        if self.failed or self.refused or "failed" in outcomes:
            return "failed"
        if self.interrupted and outcomes - {"changed", "unchanged"}:
            return "interrupted"
        if self.dry and "would fail" in outcomes:
            return "refused"
        if self.dry and "planned" in outcomes:
            return "planned"
        if outcomes & {"planned", "not run", "would fail"} and not (self.dry and self.rows):
            return "unfinished"
        return "changed" if "changed" in outcomes else "unchanged"

    @property
    def trouble(self) -> str | None:
        """Why the box failed, in the sentence that its operation gave."""
        if self.outcome == "interrupted":
            return None
        if not self.reached:
            see = f" and that '{self.login}' logs in" if self.login else ""
            return f"not reached: pyinfra's words are above; see that the box is on{see}"
        if self.refused:
            return self.refused
        for row in self.rows:
            if row["outcome"] == "failed":
                return f"{row['operation']}: {row.get('says', '')}"
            if row["outcome"] == "would fail" and self.dry:
                return f"would fail: {row['operation']}: {row.get('says', '')}"
        if self.outcome == "failed":
            return "a question to the box was not answered; the lines above say why"
        return None

    def record(self) -> dict[str, Any]:
        """The box in the record of the run."""
        return {
            "outcome": self.outcome,
            "config": self.config.digest() if self.config else None,
            "stack": self.config.stack if self.config else None,
            "trouble": self.trouble,
            "unknown": list(self.unknown),
            "operations": list(self.rows),
        }

    def lines(self) -> list[str]:
        """The box in the summary."""
        count = {
            kind: sum(row["outcome"] == kind for row in self.rows) for kind in get_args(Outcome)
        }
        took = sum(row["seconds"] for row in self.rows)
        told = ", ".join(f"{n} {kind}" for kind, n in count.items() if n) or "nothing was run"
        lines = [f"{self.name}: {self.outcome}; {told}; {took:.1f} s"]
        lines += [f"  unknown, verify could not look: {one}" for one in self.unknown]
        if self.trouble:
            lines += [f"  {self.trouble}", "  next: mend that, then run the same command again"]
        elif self.outcome not in ("unfinished", "interrupted") and self.config:
            if self.dry:
                lines += [f"  {line}" for line in self._would_change()]
            else:
                lines += [f"  {line}" for line in self.following]
        return lines

    def _would_change(self) -> list[str]:
        planned = [row["operation"] for row in self.rows if row["outcome"] == "planned"]
        return [f"would change: {name}" for name in planned] or ["nothing would change"]


def title(entry: str, reports: Sequence[BoxReport], seconds: float, *, dry: bool) -> str:
    """First line of the summary.

    + seconds: how long the run took
    """
    outcomes = [report.outcome for report in reports]
    words = {"failed": "failed", "refused": "would fail"}
    told = [f", {outcomes.count(o)} {word}" for o, word in words.items() if o in outcomes]
    count = f"{len(reports)} box{'es' if len(reports) != 1 else ''}"
    return f"{entry}{' (dry run)' if dry else ''}: {count}{''.join(told)}, {seconds} s"


def way_to_comfyui(cfg: Config, data: HostData | Mapping[str, Any]) -> tuple[str, ...]:
    """How its user opens ComfyUI, and what to know of that."""
    address, port = data.get("ssh_hostname"), cfg.comfyui.port
    if cfg.comfyui.access == "open":
        host = f"[{address}]" if ":" in str(address) else address or "the box"
        return (
            f"ComfyUI: http://{host}:{port}",
            "WARNING: comfyui_access is open: whoever reaches this address can run code on the box;"
            " ComfyUI has no password. Set it to local.",
        )
    here = f"http://127.0.0.1:{port}"
    login = login_words(data, "-L", f"{port}:127.0.0.1:{port}")
    return (f"ComfyUI: {login}, then {here}" if login else f"ComfyUI: {here} on the box",)


def login_words(data: HostData | Mapping[str, Any], *more: str) -> str:
    """What logs in to a box by hand, the way that pyinfra does; empty where that is not by ssh.

    + more: further words of ssh's
    """
    if not data.get("ssh_hostname"):
        return ""
    words = ["ssh"]
    if data.get("ssh_port", 22) != 22:
        words += ["-p", str(data.get("ssh_port"))]
    if data.get("ssh_key"):
        words += ["-i", str(data.get("ssh_key"))]
    user = f"{data.get('ssh_user')}@" if data.get("ssh_user") else ""
    return " ".join([*words, *more, f"{user}{data.get('ssh_hostname')}"])
