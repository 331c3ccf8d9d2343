"""What is right and what is wrong on a box, as a table; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from pyinfra.context import state

from strixbox.config import Config
from strixbox.facts import (
    Account,
    AptKey,
    Checkouts,
    Environments,
    FileStates,
    FileText,
    Seal,
    TmpfsMount,
    Units,
)
from strixbox.generation import Generation
from strixbox.launch import SHELL_LINES, preload_unit, warmup_unit
from strixbox.layout import TOOLS
from strixbox.locks import TOOLS as LOCK
from strixbox.locks import lock_text
from strixbox.locks import pins as lock_pins
from strixbox.models import plan as model_plan
from strixbox.nodes import troubles
from strixbox.operations.apt import KEY, ask_remains, astray, repository_files
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import file_is_right
from strixbox.operations.models import ask_models
from strixbox.operations.mount import fstab_entry, is_owned, mount_is_right
from strixbox.operations.python import node_record
from strixbox.operations.release import ask_service, settled_service
from strixbox.operations.shell import bashrc, has_block
from strixbox.purge import plan as purge_plan
from strixbox.release import Release
from strixbox.tools import command_files, node_files, settings_file
from strixbox.tree import BoxFile

Verdict = Literal["right", "WRONG", "unknown", "warning"]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    verdict: Verdict
    evidence: str


def packages(cfg: Config, release: Release) -> Row:
    """ROCm's packages: installed at the wanted release and held."""
    if cfg.rocm.version is None:
        return Row("ROCm from apt", "right", "none is wanted")
    wanted = cfg.rocm.packages
    wrong, loose = astray(wanted, cfg.rocm.version)
    if wrong or loose:
        return Row("ROCm from apt", "WRONG", f"not as wanted: {', '.join({*wrong, *loose})}")
    return Row("ROCm from apt", "right", f"{cfg.rocm.version}, {len(wanted)} packages held")


def remains(cfg: Config, release: Release) -> Row:
    """Nothing of another ROCm."""
    todo = purge_plan(ask_remains(cfg.rocm), cfg.rocm)
    left = (*todo.packages, *todo.files, *todo.mixed)
    return _row("old ROCm", not left, "none", f"left: {', '.join(left[:5])}")


def account(cfg: Config, release: Release) -> Row:
    """The account may use the GPU."""
    groups = ask(Account, user=cfg.box.user)["groups"]
    missing = [group for group in ("render", "video") if group not in groups]
    return _row("groups", not missing, "render, video", f"{cfg.box.user} is not in {missing}")


def torch(cfg: Config, release: Release) -> Row:
    """Torch is still the stack's ROCm build, and every pinned package is there."""
    now = ask(Environments, paths=(release.venv,))[release.venv]
    pins = release.packages()
    wrong = sorted(name for name, version in pins.items() if now["packages"].get(name) != version)
    kind = cfg.python.hip is None or str(now["hip"] or "").startswith(cfg.python.hip)
    if wrong or not kind:
        there = dict.fromkeys(now["damaged"], "damaged") | now["packages"]
        found = ", ".join(f"{name} {there.get(name, 'absent')}" for name in wrong[:3])
        return Row("torch", "WRONG", f"hip {now['hip']}; {found}")
    return Row("torch", "right", f"{pins['torch']}, hip {now['hip']}")


def checkouts(cfg: Config, release: Release) -> Row:
    """ComfyUI and the nodes are at their commits, unedited."""
    wanted = {checkout.path: checkout.commit for checkout in release.checkouts()}
    now = ask(Checkouts, paths=tuple(wanted))
    wrong = [p for p, c in wanted.items() if now[p]["commit"] != c or now[p]["edited"]]
    return _row("ComfyUI and nodes", not wrong, f"{len(wanted)} at their commits", f"{wrong}")


def own_nodes(cfg: Config, release: Release) -> Row:
    """The user's own nodes have what they ask for and load.

    Only a warning: they are the user's, and the box is right without them.
    """
    record, seal = ask(FileText, path=node_record(release)), ask(Seal, path=release.seal)
    told = troubles(record, seal)
    if told:
        return Row("your own nodes", "warning", "; ".join(told))
    return Row("your own nodes", "right", f"{len(release.user_nodes)} with requirements")


def ram_disk(cfg: Config, release: Release) -> Row:
    """The RAM disk is mounted with its size, the account's alone."""
    now = ask(TmpfsMount, path=cfg.tmpfs.path, user=cfg.box.user)
    wrong = []
    if not mount_is_right(cfg.tmpfs, now):
        wrong.append("not mounted with its size and flags")
    elif not is_owned(now):
        wrong.append(f"not {cfg.box.user}'s alone")
    if now["ids"] is None or now["fstab"] != [fstab_entry(cfg.tmpfs, now["ids"])]:
        wrong.append("its line in /etc/fstab differs")
    good = f"{cfg.tmpfs.size_gib} GiB at {cfg.tmpfs.path}, in fstab"
    return _row("RAM disk", not wrong, good, ", ".join(wrong))


def repository(cfg: Config, release: Release) -> Row:
    """apt's key, source and pin for AMD's repository."""
    if cfg.rocm.version is None:
        return Row("AMD's repository", "right", "none is wanted")
    wrong = _differing(repository_files(cfg.rocm))
    if ask(AptKey, path=KEY) != cfg.rocm.key_fingerprint:
        wrong.append(KEY)
    return _row("AMD's repository", not wrong, "key, source and pin", f"differ: {wrong}")


def shell(cfg: Config, release: Release) -> Row:
    """The block in .bashrc."""
    path = bashrc(cfg.box)
    right = has_block(ask(FileText, path=path), SHELL_LINES)
    return _row("login shell", right, f"the block is in {path}", f"{path} lacks the block")


def launch_files(cfg: Config, release: Release) -> Row:
    """Profiles, scripts, variables, model paths and the unit."""
    files = Generation.of(cfg, release).files
    wrong = _differing(files)
    return _row("launch files", not wrong, f"{len(files)} files", f"differ: {wrong[:5]}")


def side_units(cfg: Config, release: Release) -> Row:
    """What preloads and tunes beside the service: written, and enabled."""
    units = (preload_unit(cfg), warmup_unit(cfg))
    wrong = _differing(units)
    known = ask(Units, units=tuple(PurePosixPath(unit.path).name for unit in units))
    wrong += [f"{name} is not enabled" for name, unit in known.items() if not unit["enabled"]]
    return _row("preload, warm-up", not wrong, "written and enabled", f"{wrong}")


def models(cfg: Config, release: Release) -> Row:
    """Every model of the manifest is where it belongs."""
    active = f"{cfg.comfyui.base_directory}/models"
    known = ask_models(cfg.models, active, cfg.box.user)
    todo = model_plan(cfg.models.manifest, active, cfg.models.archive, known)
    told = "; ".join(step.words() for step in todo[:3])
    return _row("models", not todo, f"{len(cfg.models.manifest)} where they belong", told)


def tools(cfg: Config, release: Release) -> Row:
    """The strixbox command is there with what it needs."""
    pins = lock_pins(lock_text(LOCK), cfg.python.version)
    held = ask(Environments, paths=(TOOLS,))[TOOLS]["packages"]
    lacking = sorted(name for name, version in pins.items() if held.get(name) != version)
    files = (*command_files(), *node_files(cfg), settings_file(cfg))
    lacking += _differing(files)
    return _row("strixbox command", not lacking, f"{len(files)} files", f"{lacking[:5]}")


def service(cfg: Config, release: Release) -> Row:
    """The service runs this release with this profile and answers."""
    _, trouble = settled_service(cfg, release)
    return _row("service", not trouble, f"answers on port {cfg.comfyui.port}", "; ".join(trouble))


CHECKS: tuple[Callable[[Config, Release], Row], ...] = (
    remains,
    repository,
    packages,
    account,
    torch,
    checkouts,
    own_nodes,
    ram_disk,
    models,
    tools,
    shell,
    launch_files,
    side_units,
    service,
)


def standing(release: Release, in_use: dict[str, Any] | None) -> tuple[Release, tuple[str, ...]]:
    """The release to judge by, and the user's nodes that changed since it was built.

    A node of the user's that was added or asks for something else calls for a new release. Until
    the next deploy the one in use is judged: everything else of it is as it shall be.

    + in_use: pins of the release in use, None where there is none
    """
    built = (in_use or {}).get("user_nodes")
    if not isinstance(built, dict) or built == dict(release.user_nodes):
        return release, ()
    old = Release(release.python, release.comfyui, built)
    if old.pins() != in_use:
        return release, ()
    names = built.keys() | release.user_nodes.keys()
    return old, tuple(sorted(n for n in names if built.get(n) != release.user_nodes.get(n)))


def _differing(files: tuple[BoxFile, ...]) -> list[str]:
    """Paths of the files that the box has not as they shall be."""
    states = ask(FileStates, paths=tuple(file.path for file in files))
    return [file.path for file in files if not file_is_right(file, states[file.path])]


def _row(what: str, right: bool, good: str, bad: str) -> Row:
    return Row(what, "right" if right else "WRONG", good if right else bad)


@box_operation
def verified_box(cfg: Config, release: Release) -> Steps:
    """Tell what is right and wrong; fail the box where something is wrong.

    + cfg: the box's settings
    + release: the release that shall be in use

    Planning says nothing of it: what is wrong before a deploy is what the deploy is for.
    """
    if not state.is_executing:
        return
    built, changed = standing(release, ask_service(cfg)["pins"])
    rows = [examined(check, cfg, built) for check in CHECKS]
    if changed:
        told = f"{', '.join(changed)} changed since the release was built: run the deploy"
        rows.append(Row("your nodes", "WRONG", told))
    for row in rows:
        say(f"{row.verdict:8} {row.what:18} {row.evidence}")
    wrong = [row for row in rows if row.verdict == "WRONG"]
    if wrong:
        raise BoxTrouble(
            f"{len(wrong)} of {len(rows)} checks are wrong ("
            + "; ".join(f"{row.what}: {row.evidence}" for row in wrong)
            + "); run the deploy again to mend it."
        )
    return
    yield  # a generator, as pyinfra wants, that never changes anything


def examined(check: Callable[[Config, Release], Row], cfg: Config, release: Release) -> Row:
    """The check's row, or an unknown one where the box did not answer."""
    try:
        return check(cfg, release)
    except BoxTrouble as trouble:
        return Row(check.__name__, "unknown", str(trouble))
