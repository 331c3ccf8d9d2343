"""A release: proved and sealed, made current, and the old ones taken away."""

from __future__ import annotations

from typing import Any

from pyinfra.context import host

from strixbox import launch
from strixbox.config import Config
from strixbox.facts import FileStates, Service, UserNodes
from strixbox.layout import CURRENT, RELEASES, SERVICE
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.operations.files import file_is_right, placing
from strixbox.operations.python import environment_needs
from strixbox.programs import Run, write
from strixbox.release import Release


def release_for(cfg: Config) -> Release:
    """The release that a box's pins and the user's own nodes call for.

    The user's nodes belong to it: each release installs what they ask for, so one that was added
    since means a new release. No task changes them, so they may be asked for here.
    """
    nodes = host.get_fact(UserNodes, directory=f"{cfg.comfyui.base_directory}/custom_nodes")
    return Release(cfg.python, cfg.comfyui, nodes or {})


@box_operation
def proved_release(cfg: Config, release: Release) -> Steps:
    """Seal the release after it was run; a sealed one is left alone.

    + cfg: the box's settings
    + release: the release that was built
    """
    sealed = ask(FileStates, paths=(release.seal,))[release.seal]["kind"] == "file"
    if sealed and not environment_needs(release).anew:
        host.noop(f"release {release.id} is proved")
        return
    say(f"{release.path}: prove torch, flags, nodes and start")
    yield write("prove_release", launch.proof_order(cfg, release), live=True)


@box_operation
def running_service(cfg: Config, release: Release) -> Steps:
    """Have the service run this release with the chosen profile, enabled and answering.

    + cfg: the box's settings
    + release: the release that shall be in use

    What runs is compared with what shall run, not with what an earlier step did: the process's
    command line, variables and directory. If the release does not answer, the one before comes
    back.
    """
    unit = launch.service_unit(cfg)
    written = file_is_right(unit, ask(FileStates, paths=(unit.path,))[unit.path])
    wrong = service_trouble(cfg, release, ask_service(cfg))
    if not written:
        wrong = (f"{unit.path} is to be written", *wrong)
    if not wrong:
        host.noop(f"{SERVICE} runs release {release.id} and answers")
        return
    for trouble in wrong:
        say(f"{SERVICE}: {trouble}")
    if not written:
        yield placing((unit,))
    yield write(
        "activate",
        {
            "link": CURRENT,
            "release": release.path,
            "service": SERVICE,
            "url": launch.url(cfg),
            "timeout": cfg.comfyui.start_timeout,
        },
        live=True,
    )


@box_operation
def old_releases_removed(cfg: Config, release: Release) -> Steps:
    """Keep the release in use and the newest sealed others; remove the rest.

    + cfg: how many releases are kept
    + release: the release that shall be in use
    """
    service = ask_service(cfg)
    doomed = superfluous(service["releases"], release.id, cfg.comfyui.keep_releases)
    if not doomed:
        host.noop(f"{len(service['releases'])} releases are kept")
        return
    for name in doomed:
        say(f"remove {RELEASES}/{name}")
        yield Run("rm", "-rf", "--", f"{RELEASES}/{name}", mend="")


def superfluous(releases: dict[str, int | None], used: str, keep: int) -> list[str]:
    """Releases to remove: unsealed ones, and the oldest sealed ones beyond ``keep``.

    + releases: when each was sealed, None for one that a dead run left half-built
    """
    others = {name: sealed for name, sealed in releases.items() if name != used}
    newest = sorted((n for n, at in others.items() if at), key=lambda n: -(others[n] or 0))
    return sorted(others.keys() - set(newest[: keep - 1]))


def ask_service(cfg: Config) -> dict[str, Any]:
    """The service as it is on the box."""
    return ask(Service, service=SERVICE, url=launch.url(cfg), current=CURRENT, releases=RELEASES)


def service_trouble(cfg: Config, release: Release, service: dict[str, Any]) -> tuple[str, ...]:
    """In words, what differs between the service as it is and as it shall be."""
    process = service["process"]
    profile = cfg.launch.profiles[cfg.comfyui.profile]
    wanted = launch.variables(cfg, profile.variables) | {"STRIXBOX_UNIT": launch.unit_digest(cfg)}
    stale = [n for n, value in wanted.items() if process["environment"].get(n) != value]
    checks = (
        (service["current"] == release.path, f"{CURRENT} shall name release {release.id}"),
        (service["enabled"], "it is to be enabled at boot"),
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
        (not service["active"] or service["answers"], "it does not answer"),
    )
    return tuple(trouble for holds, trouble in checks if not holds)
