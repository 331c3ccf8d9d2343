"""Writer: makes a generation current: its release, its files, its service; or goes back.

The link is replaced by one rename, so at every instant it names a whole release. If the service
does not answer, the generation that answered before comes back with its files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

from strixbox.box._answering import unanswered
from strixbox.box._atomic import beside, flush_directory, mend, put
from strixbox.box._backups import keep_foreign
from strixbox.box._links import point
from strixbox.box._listening import have, listening, processes
from strixbox.box._output import ran
from strixbox.box._retiring import put_by
from strixbox.box._telling import tell
from strixbox.box._units import unit_of

# Seconds that a server goes on after its first answer before it counts as one that runs: what is
# wrong with the GPU or a node ends it with the first work, not with the first answer.
SETTLED = 2.0


def systemctl(*words: str) -> str | None:
    """Run systemctl; None, or what it said where it failed."""
    answer = ran(["systemctl", *words])
    return None if answer.returncode == 0 else (answer.stderr.strip() or "systemctl failed")


def known(service: str) -> str | None:
    """Have systemd know the unit as it is written and start it at boot; None, or its words.

    Where it does already it is not told: that takes longer than all else of a changed text.
    """
    unit = unit_of(service, "NeedDaemonReload", "UnitFileState")
    if unit["NeedDaemonReload"] == "no" and unit["UnitFileState"] == "enabled":
        return None
    return systemctl("daemon-reload") or systemctl("enable", "--quiet", service)


def generation(path: str) -> dict[str, Any] | None:
    """``release``, ``url`` and ``files`` of a kept generation; None where it is not whole."""
    try:
        with open(os.path.join(path, "generation.json"), encoding="utf-8") as stream:
            kept: dict[str, Any] = json.load(stream)
    except (OSError, ValueError):
        return None
    kept["path"] = path
    whole = all(os.path.isfile(f"{path}/files{file['path']}") for file in kept["files"])
    proved = os.path.exists(os.path.join(kept["release"], "release.json"))
    return kept if whole and proved else None


def install(kept: dict[str, Any], backups: str) -> None:
    """Put a generation's files where they belong, each by one rename; others' are kept first.

    None is renamed before all are written: a full disk must not leave some of two generations.

    Raises:
        OSError: where one cannot be written.
    """
    ready: list[tuple[str, str]] = []
    try:
        for file in kept["files"]:
            path = file["path"]
            with open(f"{kept['path']}/files{path}", "rb") as stream:
                content = stream.read()
            if _is(path, content, int(file["mode"], 8)):
                continue
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            if os.path.exists(path) and not os.path.isfile(path):
                tell(f"what stood at {path} is kept as {put_by(path, backups, 'no file')}")
            keep_foreign(path, content, backups)
            ready.append((beside(path, content, int(file["mode"], 8)), path))
        for aside, path in ready:
            os.replace(aside, path)
    except OSError:
        for aside, _ in ready:
            with suppress(OSError):
                os.unlink(aside)
        raise
    for folder in {os.path.dirname(path) for _, path in ready}:
        flush_directory(folder)


def place(kept: dict[str, Any], order: dict[str, Any]) -> None:
    """Put a generation's files in place, and have the link name its release."""
    install(kept, order["backups"])
    link = order["link"]
    if not os.path.islink(link) or os.readlink(link) != kept["release"]:
        point(link, kept["release"])


def put_back(last: dict[str, Any], order: dict[str, Any]) -> str | None:
    """Have the generation before in place again; None, or why it is not."""
    try:
        place(last, order)
    except OSError as error:
        return _reason(error)
    return None


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _is(path: str, content: bytes, mode: int) -> bool:
    """Whether ``path`` is a plain file of root's with this content and mode."""
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    info = os.stat(path)
    if (info.st_mode & 0o7777, info.st_uid, info.st_gid) != (mode, os.geteuid(), os.getegid()):
        return False
    with open(path, "rb") as stream:
        return stream.read() == content


def start(service: str, url: str, timeout: float) -> str | None:
    """Restart the service and wait until it answers and goes on; None, or why it does not."""
    systemctl("reset-failed", service)
    trouble = known(service) or systemctl("restart", service)
    if trouble:
        return trouble
    begin = time.monotonic()
    told = 0.0
    reason: str | None = "no answer"
    answered: float | None = None  # when, and by which process
    first = ""
    while (waited := time.monotonic() - begin) < timeout or answered is not None:
        unit = unit_of(service, "ActiveState", "MainPID")
        state, process = unit["ActiveState"], unit["MainPID"]
        if state == "failed" or (answered is not None and state != "active"):
            when = "" if answered is None else " after it had answered"
            return f"the service failed{when}: {_log(service)}"
        if answered is not None and process != first:
            return (
                f"the service ended after it had answered, and was started again: {_log(service)}"
            )
        reason = unanswered(url)
        if reason is None and answered is None:
            reason = elsewhere(service, url)
        now = time.monotonic() - begin
        if reason is None and answered is None and state == "active":
            answered, first = now, process
        if answered is not None and now - answered >= SETTLED:
            # It is there; whether it is busy with its first picture by now is no matter.
            return None
        if waited - told >= 10:
            told = waited
            tell(f"waiting for {url} since {waited:.0f} s")
        time.sleep(0.25)
    return f"{url} was not answered in {timeout} s ({reason}): " + _log(service)


def elsewhere(service: str, url: str) -> str | None:
    """Why an answer is not the service's: another program has its port; None where it may be."""
    port = urlsplit(url).port or 80
    sockets = listening(port)
    own = processes(unit_of(service, "ControlGroup")["ControlGroup"])
    seen = [have(process, sockets) for process in own]
    if not sockets or not seen or any(one is not False for one in seen):
        return None
    return f"another program has port {port}: sudo ss -ltnp names it"


def _log(service: str) -> str:
    command = ["journalctl", "--unit", service, "--lines", "5", "--output", "cat", "--no-pager"]
    lines = (line.strip() for line in ran(command).stdout.splitlines())
    return " | ".join(line for line in lines if line)[-400:]


def answered(order: dict[str, Any], path: str) -> None:
    """Note that a generation answered, now, and that it is the one in use."""
    # By one rename, as a power cut must not leave an empty note: it is what a rollback goes by.
    put(os.path.join(path, "answered"), f"{int(time.time())}\n".encode(), 0o644)
    point(order["in_use"], path)


def main(order: dict[str, Any]) -> None:
    """``{"generation", "in_use", "link", "service", "timeout", "restart", "backups"}``.

    The generation is kept already. ``in_use`` is the link to the one in use, ``link`` that to its
    release.
    """
    service, timeout = order["service"], order["timeout"]
    before = os.path.realpath(order["in_use"]) if os.path.islink(order["in_use"]) else None
    wanted = generation(order["generation"])
    if wanted is None:
        raise SystemExit(f"{order['generation']} is not whole; run the deploy again")
    last = generation(before) if before and before != wanted["path"] else None
    try:
        place(wanted, order)
    except OSError as error:
        unwritten(error, last, order)
    # What differs may be the script of a profile that is not in use: a picture is not cut for that.
    restart = order["restart"] or unit_of(service, "ActiveState")["ActiveState"] != "active"
    trouble = start(service, wanted["url"], timeout) if restart else known(service)
    if trouble is None:
        try:
            answered(order, wanted["path"])
        except OSError as error:
            raise SystemExit(
                f"{service} answers, but that could not be noted: {_reason(error)};"
                f" {mend(error)}, then run again"
            ) from None
        return
    if last is None:
        raise SystemExit(
            f"{service} does not answer: {trouble};"
            f" see journalctl -u {service}, mend it and run again"
        )
    back = put_back(last, order)
    if back is None:
        back = start(service, last["url"], timeout)
        state = "is in use again" if back is None else f"does not answer either ({back})"
    else:
        state = f"could not be put in place again ({back})"
    raise SystemExit(
        f"release {os.path.basename(wanted['release'])} does not answer: {trouble}; the release"
        f" before, {os.path.basename(last['release'])}, with its flags and variables, {state}"
    )


def unwritten(error: OSError, last: dict[str, Any] | None, order: dict[str, Any]) -> NoReturn:
    """Stop because a file cannot be written, with the generation before in its place again."""
    state = f"{mend(error)}, then run again"
    if last is not None:
        back = put_back(last, order)
        if back is None:
            known(order["service"])
        held = "are in place" if back is None else f"could not be put in place again ({back})"
        state = f"the files of the release before {held}; {state}"
    raise SystemExit(f"{_reason(error)}; {state}")


if __name__ == "__main__":
    main(json.load(sys.stdin))
