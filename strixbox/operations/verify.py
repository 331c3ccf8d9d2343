"""What is right and what is wrong on a box, as a table; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyinfra.context import state

from strixbox.config import Config
from strixbox.facts import (
    Account,
    Checkouts,
    Environments,
    FileStates,
    FileText,
    RocmRemains,
    Seal,
    TmpfsMount,
    VerifiedFiles,
)
from strixbox.layout import RECORDS, TOOLS
from strixbox.locks import TOOLS as LOCK
from strixbox.locks import lock_text
from strixbox.locks import pins as lock_pins
from strixbox.models import Places
from strixbox.models import plan as model_plan
from strixbox.nodes import troubles
from strixbox.operations.apt import astray
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import file_is_right
from strixbox.operations.mount import mount_is_right
from strixbox.operations.python import node_record
from strixbox.operations.release import ask_service, service_trouble
from strixbox.purge import plan as purge_plan
from strixbox.release import Release
from strixbox.tools import command_files, node_files, settings_file

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
    todo = purge_plan(ask(RocmRemains), cfg.rocm)
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
        found = ", ".join(f"{n} {now['packages'].get(n, 'absent')}" for n in wrong[:3])
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
    """The RAM disk is mounted with its size."""
    now = ask(TmpfsMount, path=cfg.tmpfs.path, user=cfg.box.user)
    right = mount_is_right(cfg.tmpfs, now)
    return _row("RAM disk", right, f"{cfg.tmpfs.size_gib} GiB at {cfg.tmpfs.path}", "not mounted")


def models(cfg: Config, release: Release) -> Row:
    """Every model of the manifest is where it belongs."""
    active = f"{cfg.comfyui.base_directory}/models"
    archive = cfg.models.archive
    paths = tuple(path for m in cfg.models.manifest for path in Places.of(m, active, archive).all())
    known = ask(VerifiedFiles, paths=paths, records=RECORDS, user=cfg.box.user)
    todo = model_plan(cfg.models.manifest, active, archive, known)
    told = ", ".join(f"{step.model.name}: {step.action}" for step in todo[:3])
    return _row("models", not todo, f"{len(cfg.models.manifest)} where they belong", told)


def tools(cfg: Config, release: Release) -> Row:
    """The strixbox command is there with what it needs."""
    pins = lock_pins(lock_text(LOCK), cfg.python.version)
    held = ask(Environments, paths=(TOOLS,))[TOOLS]["packages"]
    lacking = sorted(name for name, version in pins.items() if held.get(name) != version)
    files = (*command_files(), *node_files(cfg), settings_file(cfg))
    states = ask(FileStates, paths=tuple(file.path for file in files))
    lacking += [file.path for file in files if not file_is_right(file, states[file.path])]
    return _row("strixbox command", not lacking, f"{len(files)} files", f"{lacking[:5]}")


def service(cfg: Config, release: Release) -> Row:
    """The service runs this release with this profile and answers."""
    trouble = service_trouble(cfg, release, ask_service(cfg))
    return _row("service", not trouble, f"answers on port {cfg.comfyui.port}", "; ".join(trouble))


CHECKS: tuple[Callable[[Config, Release], Row], ...] = (
    remains,
    packages,
    account,
    torch,
    checkouts,
    own_nodes,
    ram_disk,
    models,
    tools,
    service,
)


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
    rows = [examined(check, cfg, release) for check in CHECKS]
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
