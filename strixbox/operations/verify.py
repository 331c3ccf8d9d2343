"""What is right and what is wrong on a box, as a table; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from pyinfra.context import host, state

from strixbox import ground
from strixbox.config import Config
from strixbox.facts import (
    Account,
    DpkgState,
    Environments,
    FileStates,
    FileText,
    ModelTier,
    Seal,
    TmpfsMount,
)
from strixbox.generation import Generation
from strixbox.launch import SHELL_LINES, preload_unit, warmup_unit
from strixbox.layout import BOXTOOLS, BUILDER, KEY, NODES, TOOLS
from strixbox.locks import TOOLS as LOCK
from strixbox.models import plan as model_plan
from strixbox.models import unmounted
from strixbox.nodes import troubles as troubles_of_nodes
from strixbox.operations.apt import (
    DPKG,
    ask_remains,
    ask_repository,
    astray,
    missing_groups,
)
from strixbox.operations.base import UNKNOWN, BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import ask_strays, difference, item_is_right, missing_paths
from strixbox.operations.git import moved
from strixbox.operations.models import ask_models
from strixbox.operations.mount import mount_troubles
from strixbox.operations.python import (
    environment_needs,
    is_builder,
    locked_needs,
    node_record,
    uv_directory,
    uv_is_right,
)
from strixbox.operations.release import (
    ask_service,
    is_noted,
    is_proved,
    old_profiles,
    settled_service,
)
from strixbox.operations.shell import bashrc, has_block
from strixbox.operations.systemd import unit_troubles
from strixbox.purge import plan as purge_plan
from strixbox.release import Release, held_files, node_paths
from strixbox.tools import command_files, node_files
from strixbox.tree import BoxDirectory, BoxFile

SHOWN = 5  # names in one row
Verdict = Literal["right", "WRONG", "unknown", "warning"]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    verdict: Verdict
    evidence: str


def remains(cfg: Config, release: Release) -> Row:
    """Nothing of another ROCm."""
    todo = purge_plan(ask_remains(cfg.rocm), cfg.rocm)
    left = (*todo.packages, *todo.files, *todo.mixed)
    return _row("old ROCm", "none", [f"left: {_some(left)}"] if left else [])


def repository(cfg: Config, release: Release) -> Row:
    """apt's key, source and pin for AMD's repository, and its index."""
    if cfg.rocm.version is None:
        return Row("AMD's repository", "right", "none is wanted")
    files, keyed, fetched = ask_repository(cfg.rocm)
    wrong = [file.path for file in files] + ([] if keyed else [KEY])
    troubles = [f"differ: {_some(wrong)}"] if wrong else []
    if not fetched:
        troubles.append("apt has no index of it")
    return _row("AMD's repository", "key, source, pin and index", troubles)


def packages(cfg: Config, release: Release) -> Row:
    """ROCm's packages: installed at the wanted release and held."""
    if cfg.rocm.version is None:
        return Row("ROCm from apt", "right", "none is wanted")
    wanted = cfg.rocm.packages
    wrong, loose = astray(wanted, cfg.rocm.version)
    troubles = [f"not of {cfg.rocm.version}: {_some(wrong)}"] if wrong else []
    troubles += [f"not held: {_some(loose)}"] if loose else []
    return _row("ROCm from apt", f"{cfg.rocm.version}, {len(wanted)} packages held", troubles)


def ubuntu(cfg: Config, release: Release) -> Row:
    """Ubuntu's packages that the rest needs, and a dpkg that takes orders."""
    missing, _ = astray(ground.PACKAGES, None)
    troubles = [f"not installed: {_some(missing)}"] if missing else []
    if ask(DpkgState, root=DPKG)["interrupted"]:
        troubles.append("dpkg was stopped in the middle of something")
    return _row("Ubuntu's packages", _some(ground.PACKAGES), troubles)


def account(cfg: Config, release: Release) -> Row:
    """The account may use the GPU."""
    missing = missing_groups(cfg.box.user, ground.GROUPS)
    troubles = [f"{cfg.box.user} is not in {_some(missing)}"] if missing else []
    return _row("groups", _some(ground.GROUPS), troubles)


def places(cfg: Config, release: Release) -> Row:
    """Directories of ours, with their modes and owners."""
    directories = ground.directories(cfg.box)
    return _row("our directories", f"{len(directories)} of them", _troubles((), directories))


def uv(cfg: Config, release: Release) -> Row:
    """uv, and the account that builds environments with it."""
    troubles = []
    if not uv_is_right(cfg.python):
        troubles.append(f"{uv_directory(cfg.python)} is not uv {cfg.python.uv_version}, root's")
    if not is_builder(ask(Account, user=BUILDER)):
        troubles.append(f"there is no system account {BUILDER} to build as")
    return _row("uv", f"{cfg.python.uv_version}, builds as {BUILDER}", troubles)


def torch(cfg: Config, release: Release) -> Row:
    """Torch is still the stack's ROCm build, and every pinned package is there, root's."""
    needs = environment_needs(release)
    hip = ask(Environments, paths=(release.venv,))[release.venv]["hip"]
    troubles = []
    if needs.anew:
        troubles.append(f"{release.venv} is no whole environment of Python {cfg.python.version}")
    elif needs.packages:
        troubles.append(_some([f"{name} {needs.now(name)}" for name in sorted(needs.packages)]))
    if needs.loose:
        troubles.append(f"others than root may write to {release.venv}")
    if cfg.python.hip is not None and not str(hip or "").startswith(cfg.python.hip):
        troubles.append(f"it is of hip {hip}, not {cfg.python.hip}")
    return _row("torch", f"{release.packages()['torch']}, hip {hip}", troubles)


def checkouts(cfg: Config, release: Release) -> Row:
    """ComfyUI and the nodes are at their commits, unedited."""
    wanted = release.checkouts()
    wrong = [f"{checkout.path}: {change}" for checkout, change in moved(wanted).items()]
    return _row("ComfyUI and nodes", f"{len(wanted)} at their commits", wrong)


def proof(cfg: Config, release: Release) -> Row:
    """The release was run as it shall run before it went live, and has its own files."""
    files = (*held_files(release), node_paths(release))
    troubles = _troubles(files)
    if not is_proved(cfg, release):
        troubles.append(f"{release.seal} is not of these settings: it was not proved so")
    return _row("release", f"{release.id} is proved", troubles)


def own_nodes(cfg: Config, release: Release) -> Row:
    """The user's own nodes have what they ask for and load.

    Only a warning: they are the user's, and the box is right without them.
    """
    record, seal = ask(FileText, path=node_record(release)), ask(Seal, path=release.seal)
    told = troubles_of_nodes(record, seal)
    if told:
        return Row("your own nodes", "warning", "; ".join(told))
    return Row("your own nodes", "right", f"{len(release.user_nodes)} with requirements")


def ram_disk(cfg: Config, release: Release) -> Row:
    """The RAM disk is mounted with its size, the account's alone, and /tmp's cleaning leaves it."""
    now = ask(TmpfsMount, path=cfg.tmpfs.path, user=cfg.box.user)
    troubles = [*mount_troubles(cfg.tmpfs, now), *_troubles((ground.cleaning(cfg.tmpfs.path),))]
    return _row("RAM disk", f"{cfg.tmpfs.size_gib} GiB at {cfg.tmpfs.path}, in fstab", troubles)


def folders(cfg: Config, release: Release) -> Row:
    """The user's directory and the tiers have their folders."""
    active, archive = cfg.comfyui.models_directory, cfg.models.archive
    paths = (*ground.user_folders(cfg), *ground.tier_folders(active))
    if archive is not None:
        tier: dict[str, Any] = ask(ModelTier, path=archive)
        away = unmounted(archive, tier)
        if away:
            return Row("your directory", "WRONG", "; ".join(away))
        paths += (archive, *ground.tier_folders(archive))
    missing = missing_paths(paths, cfg.box.user)
    troubles = [f"not there: {_some(missing)}"] if missing else []
    return _row("your directory", f"{len(paths)} folders", troubles)


def models(cfg: Config, release: Release) -> Row:
    """Every model of the manifest is where it belongs."""
    active = cfg.comfyui.models_directory
    known = ask_models(cfg.models, active, cfg.box.user)
    todo = model_plan(cfg.models.manifest, active, cfg.models.archive, known)
    good = f"{len(cfg.models.manifest)} where they belong"
    return _row("models", good, [_some([step.words() for step in todo])] if todo else [])


def tools(cfg: Config, release: Release) -> Row:
    """The strixbox command is there with what it needs, and nothing of an older one."""
    files = (*command_files(), *node_files(cfg))
    troubles = _troubles(files)
    stray = ask_strays((BOXTOOLS, NODES), files)
    if stray:
        troubles.append(f"of another toolkit: {_some(stray)}")
    anew, lacking, _ = locked_needs(cfg.python, TOOLS, LOCK)
    if anew:
        troubles.append(f"{TOOLS} is no whole environment of Python {cfg.python.version}, root's")
    elif lacking:
        troubles.append(f"{TOOLS} lacks {_some(lacking)}")
    return _row("strixbox command", f"{len(files)} files", troubles)


def shell(cfg: Config, release: Release) -> Row:
    """The block in .bashrc."""
    path = bashrc(cfg.box)
    right = has_block(ask(FileText, path=path, user=cfg.box.user), SHELL_LINES)
    return _row("login shell", f"the block is in {path}", [] if right else [f"{path} lacks it"])


def launch_files(cfg: Config, release: Release) -> Row:
    """Launcher, profiles, scripts, variables, model paths, unit; and the copies to go back to."""
    generation = Generation.of(cfg, release)
    files = (*generation.files, *generation.kept())
    troubles = _troubles(files)
    old = old_profiles(generation)
    if old:
        troubles.append(f"of profiles that are none any more: {_some(old)}")
    return _row("launch files", f"{len(generation.files)} files, kept twice", troubles)


def side_units(cfg: Config, release: Release) -> Row:
    """What preloads and tunes beside the service: written, and enabled."""
    wrong = [
        f"{PurePosixPath(unit.path).name}: {', '.join(told)}"
        for unit in (preload_unit(cfg), warmup_unit(cfg))
        if (told := unit_troubles(unit))
    ]
    return _row("preload, warm-up", "written and enabled", wrong)


def service(cfg: Config, release: Release) -> Row:
    """The service runs this release with this profile and answers."""
    now, troubles = settled_service(cfg, release)
    generation = Generation.of(cfg, release)
    noted = is_noted(now, generation)
    told = [*troubles, *(() if noted else (f"{generation.path} is not noted as the one in use",))]
    return _row("service", f"answers on port {cfg.comfyui.port}", told)


CHECKS: tuple[Callable[[Config, Release], Row], ...] = (
    remains,
    ubuntu,
    account,
    places,
    repository,
    packages,
    uv,
    torch,
    checkouts,
    proof,
    own_nodes,
    folders,
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


def _troubles(files: tuple[BoxFile, ...], directories: tuple[BoxDirectory, ...] = ()) -> list[str]:
    """In words, what of these differs on the box; empty where nothing does."""
    items: tuple[BoxFile | BoxDirectory, ...] = (*directories, *files)
    states = ask(FileStates, paths=tuple(item.path for item in items))
    wrong = [
        f"{item.path} ({difference(item, states[item.path])})"
        for item in items
        if not item_is_right(item, states[item.path])
    ]
    return [f"differ: {_some(wrong)}"] if wrong else []


def _some(names: Sequence[str]) -> str:
    """The first names, and how many there are besides."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _row(what: str, good: str, troubles: Sequence[str]) -> Row:
    return Row(what, "WRONG" if troubles else "right", "; ".join(troubles) or good)


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
    UNKNOWN[host.name] = [f"{row.what}: {row.evidence}" for row in rows if row.verdict == "unknown"]
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
