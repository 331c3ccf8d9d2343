"""The service: its state, process, port, answers and device."""

from __future__ import annotations

from collections.abc import Iterator

from boxtools.doctor import symptoms
from boxtools.doctor.checks.gpu import for_gpu
from boxtools.doctor.facts import Facts, flags_of
from boxtools.doctor.finding import Finding, unknown
from boxtools.doctor.machine import GROUPS

SLOW_ANSWER = 3.0  # seconds; an idle server takes milliseconds


def state(facts: Facts) -> Iterator[Finding]:
    """systemd's view of it."""
    unit, name = facts.service.unit, facts.settings.service
    if not unit.known:
        yield unknown("SERVICE.STATE", "systemd's state of the service")
        return
    if not unit.loaded:
        yield Finding(
            code="SERVICE.STATE",
            verdict="wrong",
            evidence=f"there is no unit {name}",
            meaning="The deploy writes it.",
            mend="run the deploy on this box once more",
        )
        return
    flags = facts.software.flags or {}
    refused = flags.get(facts.settings.profile)
    said = f"{name} is {unit.active}"
    if unit.active != "active" and unit.result not in ("", "success"):
        said += f" ({unit.result}, exit code {unit.status})"
    yield Finding(
        code="SERVICE.STATE",
        verdict="ok" if unit.active == "active" else "wrong",
        evidence=said,
        meaning="ComfyUI does not run."
        if not refused
        else "ComfyUI does not run and cannot start with these flags.",
        mend=f"sudo systemctl start {name}; why it ended: journalctl -u {name} -n 50",
        safe_fix=None if unit.active in ("active", "activating") or refused else "start-service",
    )
    yield Finding(
        code="SERVICE.RESTARTS",
        verdict="warn" if unit.restarts >= 3 else "ok",
        evidence=f"systemd restarted it {unit.restarts} times",
        meaning="It ends by itself again and again; each time its models are loaded anew.",
        mend=f"journalctl -u {name} -b | grep -B 20 'Main process exited'",
    )


def process(facts: Facts) -> Iterator[Finding]:
    """The running process against the account and the profile."""
    running, settings = facts.service.process, facts.settings
    if running is None:
        return
    devices = {device.group for device in facts.machine.devices}
    account = facts.machine.account
    numbers = dict(zip(account.groups, account.gids, strict=False))
    wanted = {numbers[name] for name in GROUPS if name in numbers and name in devices | {"render"}}
    if running.gids is not None and for_gpu(facts):
        lacking = wanted - set(running.gids)
        yield Finding(
            code="SERVICE.GROUPS",
            verdict="wrong" if lacking else "ok",
            evidence=f"process {running.pid} has not the groups {sorted(lacking)}"
            if lacking
            else f"process {running.pid} has the account's groups",
            meaning="It was started before the account got its groups.",
            mend=f"sudo systemctl restart {settings.service}",
        )
    argv = flags_of(running.argv)
    code = next((word for word in running.argv if word.endswith("main.py")), "")
    release = facts.software.release.path
    drift = []
    if release and code and not code.startswith((f"{release}/", str(settings.current))):
        drift.append(f"runs {code}, not the release in use")
    profile = settings.profiles.get(settings.profile)
    missing = [flag for flag in (profile.flags if profile else ()) if flag not in argv]
    if missing:
        drift.append(f"runs without {' '.join(missing)} of the profile {settings.profile}")
    yield Finding(
        code="SERVICE.DRIFT",
        verdict="warn" if drift else "ok",
        evidence="; ".join(drift) or f"it runs the profile {settings.profile}",
        meaning="The settings changed since it was started.",
        mend=f"sudo systemctl restart {settings.service} when nothing is being rendered",
    )


def port(facts: Facts) -> Iterator[Finding]:
    """Who listens on the port, and for whom."""
    unit, listeners = facts.service.unit, facts.service.listeners
    others = []
    if unit.known:
        # Whose socket it is can be seen by root only; while the service runs it may be its own.
        others = [one for one in listeners if one.pid not in ({unit.pid, None} if unit.pid else ())]
    told = ", ".join(
        f"{one.program or 'a program'} (process {one.pid or 'unknown'}, uid {one.uid})"
        for one in others
    )
    number = listeners[0].port if listeners else 0
    yield Finding(
        code="OS.PORT_TAKEN",
        verdict="wrong" if others else "ok",
        evidence=f"port {number} is held by {told}" if others else "nobody else has the port",
        meaning="The service cannot listen there and ends with 'address already in use'.",
        mend=f"stop it: sudo ss -ltnp 'sport = :{number}' names it; or set comfyui_port",
    )
    exposed = [one.address for one in listeners if not _loopback(one.address)]
    yield Finding(
        code="SERVICE.EXPOSED",
        verdict="warn" if exposed else "ok",
        evidence=f"listens on {', '.join(exposed)}" if exposed else "listens for this box only",
        meaning="ComfyUI has no password: whoever reaches the port can run programs here.",
        mend="set comfyui_access to local and use ssh -L, or let a firewall name who may come",
    )


def _loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def answer(facts: Facts) -> Iterator[Finding]:
    """Whether it answers over HTTP, how long that takes, and which device it works on."""
    said, unit, name = facts.service.answer, facts.service.unit, facts.settings.service
    if said.stats is None:
        starting = unit.known and unit.active in ("active", "activating")
        yield Finding(
            code="SERVICE.ANSWER",
            verdict="wrong",
            evidence=f"{facts.settings.url}: {said.trouble}",
            meaning="It is still starting, or hangs." if starting else "Nothing serves there.",
            mend=f"journalctl -u {name} -n 50"
            + ("" if starting else f"; sudo systemctl start {name}"),
        )
        return
    slow = said.seconds > SLOW_ANSWER
    yield Finding(
        code="SERVICE.ANSWER",
        verdict="warn" if slow else "ok",
        evidence=f"answers after {said.seconds:.1f} s" if slow else "answers over HTTP",
        meaning="The box swaps, or a node of the user's blocks the server.",
        mend=f"strixbox memory; journalctl -u {name} -n 50",
    )
    kind, title = device_of(said.stats)
    if not kind:
        yield Finding(
            code="SERVICE.DEVICE",
            verdict="unknown",
            evidence="its /system_stats names no device",
            mend="see that it is ComfyUI which answers there",
        )
        return
    wrong = kind == "cpu" and for_gpu(facts)
    yield Finding(
        code="SERVICE.DEVICE",
        verdict="wrong" if wrong else "ok",
        evidence=f"works on {title if kind in title else f'{kind}: {title}'}",
        meaning="It makes images on the CPU, which takes minutes for each.",
        mend="mend the findings about TORCH, GPU and USER.GROUPS, then"
        f" sudo systemctl restart {name}",
    )


def device_of(stats: dict[str, object]) -> tuple[str, str]:
    """Type and name of the first device of ``/system_stats``; empty where it tells none."""
    devices = stats.get("devices")
    first = devices[0] if isinstance(devices, list) and devices else None
    if not isinstance(first, dict) or not isinstance(first.get("type"), str):
        return "", ""
    return first["type"], str(first.get("name", "?"))[:120]


def log(facts: Facts) -> Iterator[Finding]:
    """The last lines of its log, explained."""
    lines = facts.service.log
    if lines is None:
        yield unknown("SERVICE.LOG", "the service's log")
        return
    if facts.service.unit.active == "active":
        lines = since_start(lines, facts.settings.service)
    found = [m for m in symptoms.explain("\n".join(lines)) if not m.harmless]
    best = found[0] if found else None
    yield Finding(
        code="SERVICE.LOG",
        verdict="warn" if best else "ok",
        evidence=best.line[:200] if best else f"nothing known in its last {len(lines)} lines",
        meaning=f"{best.code}: {best.means}" if best else "",
        mend=best.mend if best else "",
    )


def since_start(lines: tuple[str, ...], service: str) -> tuple[str, ...]:
    """The lines since systemd last started the service; all where it does not say."""
    begins = (f"Started {service}", f"Starting {service}")
    starts = [number for number, line in enumerate(lines) if line.startswith(begins)]
    return lines[starts[-1] :] if starts else lines


CHECKS = (state, process, port, answer, log)
