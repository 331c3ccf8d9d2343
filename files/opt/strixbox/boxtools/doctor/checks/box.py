"""Disks, memory, clock, models, and the directories of our own."""

from __future__ import annotations

import time
from collections.abc import Iterator

from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import Finding
from boxtools.doctor.machine import IN_MEMORY
from boxtools.output import size

GIB = 1 << 30
TIGHT, FULL = 10 * GIB, 1 * GIB  # an SDXL checkpoint has 7 GB
# No clock of a box that works is outside; certificates are refused with a wrong one.
EARLIEST, LATEST = 1_760_000_000, 2_090_000_000
SHOWN = 3  # names in a finding; all are in --json's count


def disks(facts: Facts) -> Iterator[Finding]:
    """Room, and that temporary files are in memory."""
    verdict, told = "ok", []
    for disk in facts.machine.disks:
        if disk.free is None or disk.total is None or disk.kind in IN_MEMORY:
            continue
        if disk.free < min(TIGHT, disk.total // 10):
            full = disk.free < min(FULL, disk.total // 50)
            verdict = "wrong" if full else "warn" if verdict == "ok" else verdict
            told.append(f"{size(disk.free)} free for {disk.what} ({disk.path})")
    yield Finding(
        code="DISK.ROOM",
        verdict="wrong" if verdict == "wrong" else "warn" if told else "ok",
        evidence=", ".join(told) or "there is room on every disk",
        meaning="Without room downloads, images and the deploy end half-way.",
        mend="strixbox models plan --free 100G, or delete what is not needed",
    )
    temp = next((disk for disk in facts.machine.disks if disk.what == "temporary files"), None)
    if temp is None or not temp.kind:
        return
    full = temp.free is not None and temp.total is not None and temp.free < temp.total // 20
    yield Finding(
        code="DISK.TEMP",
        verdict="warn" if temp.kind not in IN_MEMORY or full else "ok",
        evidence=f"{temp.path} is {'full' if full else 'on ' + temp.kind}",
        meaning="The RAM disk is full." if full else "The RAM disk for previews is not mounted.",
        mend=f"sudo mount {temp.path}" if not full else "restart the service: it empties it",
    )


def swap(facts: Facts) -> Iterator[Finding]:
    """Whether the box is short of memory."""
    memory = facts.machine.memory
    if memory is None:
        return
    short = memory.available < memory.total // 20
    swapping = memory.swap_used > 2 * GIB and memory.available < memory.total // 5
    yield Finding(
        code="MEMORY.SWAP",
        verdict="warn" if short or swapping else "ok",
        evidence=f"{size(memory.available)} of {size(memory.total)} available,"
        f" {size(memory.swap_used)} in swap",
        meaning="GPU and programs share the memory, and what is swapped out is slow to come back.",
        mend="strixbox memory says what holds it; strixbox memory --free unloads models",
    )


def clock(facts: Facts) -> Iterator[Finding]:
    """A clock that certificates can be checked with."""
    sane = EARLIEST < facts.machine.time < LATEST
    synchronised = facts.machine.synchronised
    state = "synchronisation unknown"
    if synchronised is not None:
        state = "synchronised" if synchronised else "not synchronised"
    yield Finding(
        code="OS.CLOCK",
        verdict="wrong" if not sane else "warn" if synchronised is False else "ok",
        evidence=time.strftime(f"%Y-%m-%d %H:%M UTC, {state}", time.gmtime(facts.machine.time)),
        meaning="With a wrong clock certificates and apt's signatures are refused.",
        mend="sudo timedatectl set-ntp true",
    )


def models(facts: Facts) -> Iterator[Finding]:
    """Model files: there, whole, and nothing left of dead downloads."""
    found, settings = facts.software.models, facts.settings
    yield Finding(
        code="MODELS.NONE",
        verdict="ok" if found.checkpoints else "warn",
        evidence=f"{found.checkpoints} checkpoints below {settings.active}",
        meaning="Without a checkpoint no image can be made.",
        mend="strixbox models download --url URL --folder checkpoints",
    )
    yield Finding(
        code="MODELS.LINKS",
        verdict="warn" if found.dangling else "ok",
        evidence=_names(found.dangling, "links lead nowhere") or "every link leads to a file",
        meaning="ComfyUI lists these models and fails when it loads them; a disk may be missing.",
        mend="findmnt says whether the archive's disk is mounted; else take the links away",
    )
    yield Finding(
        code="MODELS.PARTS",
        verdict="warn" if found.parts else "ok",
        evidence=_names(found.parts, "downloads that nobody continues")
        or "no download was left half-way",
        meaning="They take room and are not used any more.",
        mend="strixbox doctor --fix removes them",
        safe_fix="part-leftovers" if found.parts else None,
    )
    broken = [f"{path}: {trouble}" for path, trouble in found.broken]
    yield Finding(
        code="MODELS.BROKEN",
        verdict="wrong" if broken else "ok",
        evidence=_names(broken, "broken") or "every model's header fits its length",
        meaning="Loading such a file fails with HeaderTooLarge or MetadataIncompleteBuffer.",
        mend="download it again: strixbox models verify, then strixbox models download NAME",
    )


def _names(paths: tuple[str, ...] | list[str], what: str) -> str:
    if not paths:
        return ""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"{len(paths)} {what}: {', '.join(paths[:SHOWN])}{more}"


def state(facts: Facts) -> Iterator[Finding]:
    """The tools' own directory belongs to the account."""
    owner, account = facts.machine.state_owner, facts.machine.account
    wrong = owner is None or (account.uid is not None and owner != account.uid)
    path = facts.settings.state
    yield Finding(
        code="STATE.OWNER",
        verdict="warn" if wrong else "ok",
        evidence=f"{path} is not there"
        if owner is None
        else f"{path} belongs to uid {owner}"
        if wrong
        else f"{path} belongs to {account.name}",
        meaning="The tools cannot keep results, and TunableOp's are lost.",
        mend=f"sudo install -d -o {account.name} {path}"
        if owner is None
        else f"sudo chown -R {account.name}: {path}",
        safe_fix="state-owner" if wrong and account.uid is not None else None,
    )


CHECKS = (disks, swap, clock, models, state)
