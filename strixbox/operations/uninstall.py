"""What strixbox put on a box is taken away, and what it edited is given back."""

from __future__ import annotations

import re
from typing import Any

from pyinfra.context import host

from strixbox.box._atomic import ASIDE
from strixbox.config import Config
from strixbox.facts import Account, Footprint, Leftovers
from strixbox.launch import SHELL_LINES
from strixbox.layout import (
    BACKUPS,
    BIN,
    BOXTOOLS,
    BUILDER,
    CACHE,
    CHANGES,
    COMMAND,
    ETC,
    GENERATION_ID,
    GENERATIONS,
    KEY,
    LIB,
    LOCKS,
    NODES,
    OPT,
    PIN,
    RELEASE_ID,
    RELEASES,
    SERVICE,
    SOURCE,
    STATE,
    TOOLS,
    TOOLS_STATE,
    UV_CACHE,
    WHEELS,
)
from strixbox.leftovers import query, strays
from strixbox.operations.apt import ask_remains, check_removal, purging
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import removing
from strixbox.operations.python import is_builder
from strixbox.operations.shell import bashrc
from strixbox.programs import UNWRITTEN, Run, write
from strixbox.purge import plan

# Others may have had units of these names before, which return.
UNITS = tuple(
    f"/etc/systemd/system/{unit}"
    for unit in ("strixbox-warmup.service", "strixbox-preload.service", SERVICE)
)
OURS = (
    *("/etc/tmpfiles.d/strixbox.conf", COMMAND, KEY, PIN, SOURCE),
    *(ETC, OPT, STATE, CACHE),
)
# What is removed by itself where one of those directories is a link, to a larger disk for one.
INSIDE = (
    *(TOOLS, BOXTOOLS, NODES, LIB, BIN, LOCKS, RELEASES, f"{OPT}/uv", f"{OPT}/nodes-extra"),
    *(GENERATIONS, TOOLS_STATE, WHEELS, UV_CACHE),
)
# Names of what the toolkit has there; anything else is somebody's, and goes to the backups.
KNOWN = {
    OPT: r"(tools|boxtools|nodes|nodes-extra|lib|bin|locks|releases|current|uv)"
    f"({re.escape(ASIDE)})?",
    RELEASES: RELEASE_ID,
    GENERATIONS: rf"(in-use|{GENERATION_ID})({re.escape(ASIDE)})?",
}
# Hours of the box, on its owner's behalf; the next deploy finds them where they are.
KEPT = {
    f"{TOOLS_STATE}/bench": "what strixbox bench measured",
    f"{TOOLS_STATE}/profiles": "what strixbox profile recorded",
    f"{STATE}/tunableop": "what TunableOp tuned",
}
LEFT = (
    "{base}: your models, pictures, workflows and nodes",
    "{backups}: copies of every file of yours that was edited, and of /etc/strixbox, with"
    " index.jsonl",
    "{log}: who changed what on this box",
    "packages of Ubuntu that were installed for it: git, python3-venv, htop, tmux",
    "the groups render and video, which {user} may still be in",
)


@box_operation
def stopped_units(cfg: Config, purge_rocm: bool) -> Steps:
    """Stop what runs and have it not start again; what a server writes as it ends is there then.

    + cfg: the box's settings
    + purge_rocm: whether AMD's packages shall go; where they cannot, the server runs on
    """
    amd_packages(cfg, purge_rocm)
    foot = ask_footprint(cfg)
    refuse_mounts(foot)
    units = foot["units"]
    if not units:
        host.noop("no unit of strixbox is on the box")
        return
    say(f"stop and disable {', '.join(units)}")
    yield Run(
        *("systemctl", "disable", "--now", "--quiet", *units),
        mend=f"A unit could not be stopped; see systemctl status {units[0]}, then run again.",
    )


def refuse_mounts(foot: dict[str, Any]) -> None:
    """Stop where something is mounted below what is to be removed: it would be emptied.

    + foot: what the fact Footprint tells

    Raises:
        BoxTrouble: naming every such mount.
    """
    if foot["mounts"]:
        raise BoxTrouble(
            f"{', '.join(foot['mounts'])} is mounted where strixbox is to be removed; nothing was"
            f" removed. Run 'sudo umount {foot['mounts'][-1]}' on the box, then run again."
        )


def amd_packages(cfg: Config, purge_rocm: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """AMD's packages that go, and those of them that are held.

    + cfg: the box's settings
    + purge_rocm: whether they shall go

    Raises:
        BoxTrouble: where others would go with them.
    """
    if not purge_rocm:
        return (), ()
    nothing = cfg.rocm.model_copy(update={"version": None})
    todo = plan(ask_remains(nothing), nothing)
    if todo.packages:
        check_removal(todo.packages)
    return todo.packages, todo.held


def ask_footprint(cfg: Config) -> dict[str, Any]:
    """What strixbox has on the box.

    + cfg: the box's settings
    """
    return ask(
        Footprint,
        paths=OURS,
        inside=INSIDE,
        known=KNOWN,
        kept=tuple(KEPT),
        units=UNITS,
        mount=cfg.tmpfs.path,
        bashrc=bashrc(cfg.box),
        user=cfg.box.user,
        backups=BACKUPS,
        packages=cfg.rocm.packages,
    )


@box_operation
def uninstalled(cfg: Config, purge_rocm: bool) -> Steps:
    """Take away what strixbox put on the box; give back what it edited, byte for byte.

    + cfg: the box's settings
    + purge_rocm: whether AMD's packages go as well

    A file that its owner edited since keeps their lines: only ours go. What was measured and tuned
    on the box stays.
    """
    foot = ask_footprint(cfg)
    refuse_mounts(foot)
    packages, held = amd_packages(cfg, purge_rocm)
    builder = is_builder(ask(Account, user=BUILDER))
    asked = query(cfg)
    left = strays(ask(Leftovers, query=asked), foot["paths"])
    edited = foot["fstab"] or foot["bashrc"] or foot["waiting"]
    if not (
        builder
        or foot["units"]
        or foot["paths"]
        or foot["mounted"]
        or foot["held"]
        or packages
        or edited
        or left
    ):
        but = f" but {', '.join(foot['kept'])}" if foot["kept"] else ""
        host.noop(f"nothing of strixbox is on the box{but}")
        return
    if foot["held"]:
        say(f"no longer hold {', '.join(foot['held'])}")
    if packages:
        say(f"purge {', '.join(packages)}")
    yield from purging(packages, sorted({*foot["held"], *held}))
    if foot["mounted"]:
        say(f"unmount {cfg.tmpfs.path}")
        yield Run(
            *("umount", cfg.tmpfs.path),
            mend=f"{cfg.tmpfs.path} is in use: see 'fuser -vm {cfg.tmpfs.path}', then run again.",
        )
        yield Run("rmdir", "--ignore-fail-on-non-empty", "--", cfg.tmpfs.path, mend=UNWRITTEN)
    if left:
        say(f"remove {', '.join(left)}, left by runs that did not end well")
        yield write("leftovers", {"query": asked, "paths": list(left)}, live=True)
    theirs = [*foot["strangers"], *(path for path in foot["paths"] if path == ETC)]
    if theirs:
        # Settings may have been edited by hand; they are small.
        say(f"{', '.join(theirs)}: to {BACKUPS}")
        why = "in a directory of strixbox when it was uninstalled"
        yield write("retire", {"paths": theirs, "backups": BACKUPS, "why": why})
    if foot["paths"]:
        say(f"remove {', '.join(foot['paths'])}")
        yield removing(*foot["paths"])
    if edited:
        yield write(
            "give_back",
            {
                "fstab": "/etc/fstab",
                "mount": cfg.tmpfs.path,
                "bashrc": bashrc(cfg.box),
                "lines": list(SHELL_LINES),
                "user": cfg.box.user,
                "backups": BACKUPS,
                "ours": list(OURS),
            },
            live=True,
        )
    if builder:
        say(f"remove the account {BUILDER}")
        yield Run(
            *("userdel", BUILDER),
            mend=f"The account {BUILDER} could not be removed; see 'ps -u {BUILDER}'.",
        )
    yield Run("systemctl", "daemon-reload", mend="systemd could not read its units again.")
    names = {
        "base": cfg.comfyui.base_directory,
        "backups": BACKUPS,
        "log": CHANGES,
        "user": cfg.box.user,
    }
    for path in foot["kept"]:
        say(f"left: {path}: {KEPT[path]}, for the next deploy; remove it if you do not want it")
    for path, target in foot["links"].items():
        say(f"left: {target}, where {path} led; remove it if nothing of yours is in it")
    for line in LEFT:
        say(f"left: {line.format(**names)}")
