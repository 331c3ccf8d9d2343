"""A release: proved and sealed, made current, and the old ones taken away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from pyinfra.context import host

from strixbox import launch
from strixbox.config import Config
from strixbox.facts import Busy, FileStates, Installed, Seal, Service, UserNodes
from strixbox.generation import Generation
from strixbox.layout import (
    BACKUPS,
    CURRENT,
    GENERATION_ID,
    GENERATIONS,
    IN_USE,
    RELEASE_ID,
    RELEASES,
    SERVICE,
)
from strixbox.operations.base import BoxTrouble, Steps, ask, ask_early, box_operation, say
from strixbox.operations.files import (
    ask_strays,
    compiled,
    difference,
    file_is_right,
    placing,
    removing,
    show_diff,
)
from strixbox.operations.python import environment_needs
from strixbox.programs import Run, write
from strixbox.release import Release
from strixbox.rocm_versions import release_of

SILENT = "it does not answer"


def release_for(cfg: Config) -> Release:
    """The release that a box's pins and the user's own nodes call for.

    The user's nodes belong to it: each release installs what they ask for, so one that was added
    since means a new release. No task changes them, so they may be asked for here.
    """
    directory = f"{cfg.comfyui.base_directory}/custom_nodes"
    nodes = ask_early(UserNodes, directory=directory, user=cfg.box.user)
    return Release(cfg.python, cfg.comfyui, nodes)


@box_operation
def proved_release(cfg: Config, release: Release) -> Steps:
    """Seal the release after it was run; one that was proved as it shall run is left alone.

    + cfg: the box's settings
    + release: the release that was built

    The launch profiles are no part of a release's id, but they are of its proof: another flag is
    tried on the parser and at a start before the service meets it.
    """
    if is_proved(cfg, release) and not environment_needs(release).anew:
        host.noop(f"release {release.id} is proved")
        return
    say(f"{release.path}: prove torch, flags, nodes and start")
    # The service's account cannot write it: each start would compile all of ComfyUI anew.
    yield compiled(release.python.version, release.code, f"{release.path}/nodes")
    yield write("prove_release", launch.proof_order(cfg, release), live=True)


def is_proved(cfg: Config, release: Release) -> bool:
    """Whether the release was run with these settings before it was sealed."""
    return bool(ask(Seal, path=release.seal).get("proved") == launch.proof_digest(cfg, release))


@box_operation
def running_service(cfg: Config, generation: Generation) -> Steps:
    """Have the service run this release with the chosen profile, enabled and answering.

    + cfg: the box's settings
    + generation: the release that shall be in use, and the files that it is run with

    What runs is compared with what shall run, not with what an earlier step did: the files, the
    process's command line, variables and directory. If the release does not answer, the generation
    before comes back.
    """
    kept, files = generation.kept(), generation.files
    states = ask(FileStates, paths=tuple(file.path for file in (*kept, *files)))
    unkept = tuple(file for file in kept if not file_is_right(file, states[file.path]))
    wrong = tuple(file for file in files if not file_is_right(file, states[file.path]))
    service, troubles = settled_service(cfg, generation.release)
    if service["other_commands"]:
        raise BoxTrouble(
            f"{', '.join(service['other_commands'])} has {SERVICE} start another command; set"
            " launch_profiles in its place, remove ExecStart from it (or the file), run sudo"
            " systemctl daemon-reload, then run again."
        )
    in_use = is_noted(service, generation)
    if not (unkept or wrong or troubles) and in_use:
        host.noop(f"{SERVICE} runs release {generation.release.id} and answers")
        return
    for file in wrong:
        say(f"{file.path}: {difference(file, states[file.path])}")
        show_diff(file)
    for change in changed_pins(service["pins"], generation.release.pins()):
        say(change)
    for trouble in troubles:
        say(f"{SERVICE}: {trouble}")
    if not in_use:
        say(f"{generation.path}: note that it answers and is in use")
    if unkept:
        yield placing(unkept)
    # Only this puts in place what is switched with the release: until then a boot finds the old
    # one with its own flags. What others wrote there is copied to the backups by it.
    yield activating(generation.path, cfg.comfyui.start_timeout, restart=bool(troubles))


@box_operation
def old_profiles_retired(generation: Generation) -> Steps:
    """Take launch scripts and profiles that are none any more to /var/backups/strixbox.

    + generation: the release that shall be in use, and the files that it is run with

    Somebody would start ComfyUI with them, and with what was wrong about them.
    """
    old = old_profiles(generation)
    if not old:
        host.noop("every launch profile on the box is one of the settings'")
        return
    for path in old:
        say(f"{path}: to {BACKUPS}")
    yield write("retire", {"paths": old, "backups": BACKUPS, "why": "no launch profile any more"})


def old_profiles(generation: Generation) -> list[str]:
    """Files of launch profiles that the generation does not have; others' files are none."""
    found = ask_strays(launch.PROFILE_ROOTS, generation.files)
    return [path for path in found if launch.PROFILE_FILE.fullmatch(path)]


def is_noted(service: dict[str, Any], generation: Generation) -> bool:
    """Whether the generation is the one in use, and its answer is noted.

    A rollback passes over one whose note is gone, so it is written again.
    """
    noted = {one["id"] for one in service["generations"] if one["answered"]}
    return service["generation"] == generation.path and generation.id in noted


def activating(generation: str, timeout: int, *, restart: bool) -> Run:
    """The command that makes a kept generation the one in use.

    + generation: its directory on the box
    + timeout: seconds for the server to answer
    + restart: whether a server that runs already is started anew
    """
    order = {
        "generation": generation,
        "in_use": IN_USE,
        "link": CURRENT,
        "service": SERVICE,
        "timeout": timeout,
        "restart": restart,
        "backups": BACKUPS,
    }
    return write("activate", order, live=True)


def changed_pins(before: dict[str, Any] | None, after: dict[str, Any]) -> list[str]:
    """What an upgrade changes, one line a pin, old -> new; nothing for a first release."""
    if before is None:
        return []
    old, new = _flat(before), _flat(after)
    return [
        f"{name}: {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(pins: dict[str, Any]) -> dict[str, str]:
    """Pins by a name that a person knows: torch, ComfyUI, a node, a setting."""
    told: dict[str, str] = {
        name: str(pins[name]) for name in ("recipe", "python", "lock") if name in pins
    }
    told["ComfyUI"] = str(pins.get("comfyui", {}).get("commit", ""))[:12]
    for wheel in pins.get("wheels", []):
        told[wheel["project"]] = wheel["version"]
    for node in pins.get("nodes", []):
        told[f"node {node['name']}"] = node["commit"][:12]
    for name, digest in pins.get("user_nodes", {}).items():
        told[f"requirements of your node {name}"] = digest[:12]
    return told


@box_operation
def old_releases_removed(cfg: Config, release: Release) -> Steps:
    """Keep the release in use and those to go back to first; remove the rest.

    + cfg: how many releases are kept
    + release: the release that shall be in use

    With a release go the generations that ran it.
    """
    service = ask_service(cfg)
    answered: dict[str, int] = {}
    for generation in service["generations"]:
        name, when = generation["release"], generation["answered"] or 0
        if when:
            answered[name] = max(when, answered.get(name, 0))
    doomed = superfluous(service["releases"], release.id, cfg.comfyui.keep_releases, answered)
    busy = ask(Busy, paths=tuple(f"{RELEASES}/{name}" for name in doomed)) if doomed else []
    for path in busy:
        say(
            f"{path} stays for now: a process runs from it (lsof +D {path} names it), or something"
            " is mounted in it (findmnt)"
        )
    doomed = [name for name in doomed if f"{RELEASES}/{name}" not in busy]
    # The seal goes first: half a release must not look like one to go back to.
    paths = [f"{RELEASES}/{name}{part}" for name in doomed for part in ("/release.json", "")]
    gone = {*doomed, *(g["release"] for g in service["generations"])} - service["releases"].keys()
    gone |= set(doomed)
    paths += [
        f"{GENERATIONS}/{generation['id']}"
        for generation in service["generations"]
        if generation["release"] in gone
    ]
    if not paths:
        host.noop(f"{len(service['releases'])} releases are kept")
        return
    for path in paths:
        say(f"remove {path}")
        yield removing(path)


def superfluous(
    releases: dict[str, int | None], used: str, keep: int, answered: dict[str, int]
) -> list[str]:
    """Releases to remove: sealed ones beyond ``keep``, and any that lost its seal.

    Kept are those that answered last, as a rollback takes them; one that never answered is newer
    at times, and nothing to go back to.

    + releases: when each was sealed, None for one that is not
    + answered: when those that were in use answered last; an unsealed other one is half-built, and
        was cleared before (strixbox/leftovers.py) unless somebody works in it
    """
    sealed = {name: at for name, at in releases.items() if name != used and at}
    best = sorted(sealed, key=lambda name: (answered.get(name, 0), sealed[name]), reverse=True)
    lost = {n for n, at in releases.items() if n != used and not at and n in answered}
    return sorted({*best[keep - 1 :], *lost})


@box_operation
def rolled_back(cfg: Config, wanted: str | None) -> Steps:
    """Go back to a generation that answered before: release, flags, variables, scripts and unit.

    + cfg: how long the server may take to answer
    + wanted: id of a release, or None for the one before

    Nothing is downloaded, and nothing is built.
    """
    service = ask_service(cfg)
    target = earlier(service["generations"], service["generation"], wanted)
    if f"{GENERATIONS}/{target['id']}" == service["generation"] and service["answers"]:
        host.noop(f"release {target['release']} is in use")
        return
    # What is on the box counts: the settings may name a stack that no deploy got through to yet.
    core = ask(Installed, packages=("rocm-core",))["rocm-core"]["version"] or ""
    there = release_of(core)
    if target["rocm"] not in (None, there):
        raise BoxTrouble(
            f"Release {target['release']} belongs to the stack {target['stack']} and uses ROCm"
            f" {target['rocm']} from apt, of which this box has {there or 'none'}; change the box's"
            " groups in boxes.yaml and run the deploy, which builds nothing that is there."
        )
    now = PurePosixPath(service["current"] or "none").name
    say(f"release {now} -> {target['release']}, which answered last {_day(target['answered'])}")
    say(f"it is asked at {target['url']}, and reached as it was then")
    yield activating(f"{GENERATIONS}/{target['id']}", cfg.comfyui.start_timeout, restart=True)


def earlier(
    generations: list[dict[str, Any]], in_use: str | None, wanted: str | None
) -> dict[str, Any]:
    """The generation to return to: the last that answered with ``wanted``, or another release.

    + generations: ``id``, ``release``, ``answered`` (seconds since 1970, None where it never did)
    + in_use: directory of the one in use

    Raises:
        BoxTrouble: where there is none, naming those that there are.
    """
    answered = sorted((g for g in generations if g["answered"]), key=lambda g: -g["answered"])
    now = next((g["release"] for g in answered if in_use == f"{GENERATIONS}/{g['id']}"), None)
    fitting = [g for g in answered if (g["release"] == wanted if wanted else g["release"] != now)]
    if fitting:
        return fitting[0]
    raise BoxTrouble(_nothing_to_go_back_to(generations, [g["release"] for g in answered], wanted))


def _nothing_to_go_back_to(
    generations: list[dict[str, Any]], answered: list[str], wanted: str | None
) -> str:
    known = ", ".join(sorted(set(answered)))
    if not known:
        return (
            "There is no earlier release to go back to: none has answered on this box yet; run"
            " deploy.py."
        )
    if wanted is None:
        return (
            f"There is no earlier release to go back to: {known} is the only one that has answered"
            " on this box."
        )
    here = any(g["release"] == wanted for g in generations)
    why = "has never answered on this box" if here else "is not on this box"
    return (
        f"Release {wanted} {why}, so there is no going back to it; name one that has answered here"
        f" by --data release=ID: {known}."
    )


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def settled_service(cfg: Config, release: Release) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The service and its troubles; one that only does not answer has the time of a start to.

    A busy server is the rule while it makes pictures: a restart would cut them.
    """
    service = ask_service(cfg)
    troubles = service_trouble(cfg, release, service)
    if troubles == (SILENT,):
        say(f"{SERVICE} is busy or hangs: waiting up to {cfg.comfyui.start_timeout} s for it")
        service = ask_service(cfg, patience=cfg.comfyui.start_timeout)
        troubles = service_trouble(cfg, release, service)
    return service, troubles


def ask_service(cfg: Config, patience: int = 0) -> dict[str, Any]:
    """The service as it is on the box; one that runs may take ``patience`` seconds to answer."""
    return ask(
        Service,
        service=SERVICE,
        url=launch.url(cfg),
        current=CURRENT,
        in_use=IN_USE,
        releases=f"{RELEASES}/{RELEASE_ID}",
        generations=f"{GENERATIONS}/{GENERATION_ID}",
        patience=patience,
    )


def service_trouble(cfg: Config, release: Release, service: dict[str, Any]) -> tuple[str, ...]:
    """In words, what differs between the service as it is and as it shall be."""
    process = service["process"]
    profile = cfg.launch.profiles[cfg.comfyui.profile]
    wanted = launch.variables(cfg, profile.variables) | {"STRIXBOX_UNIT": launch.unit_digest(cfg)}
    stale = [n for n, value in wanted.items() if process["environment"].get(n) != value]
    checks = (
        (service["current"] == release.path, f"{CURRENT} shall name release {release.id}"),
        (service["enabled"], "it is to be enabled at boot"),
        (
            not service["other_commands"],
            f"{', '.join(service['other_commands'])} has it start another command",
        ),
        (not service["stale"], "systemd has not read its unit file"),
        (service["active"], "it is to be started"),
        (
            not service["active"] or process["argv"] == launch.running_argv(cfg, release),
            "it runs with another release or other flags",
        ),
        (
            not service["active"] or not stale,
            f"it runs without the value of {', '.join(sorted(stale)[:5])}",
        ),
        (not service["active"] or service["answers"], SILENT),
    )
    return tuple(trouble for holds, trouble in checks if not holds)
