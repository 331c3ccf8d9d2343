"""A box that is as it shall be, as its agent tells of it: facts are answered, nothing is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.context import ctx_host, ctx_state

import tasks.base
import tasks.comfyui
import tasks.launch
import tasks.leftovers
import tasks.models
import tasks.purge
import tasks.python
import tasks.rocm
import tasks.service
import tasks.tmpfs
import tasks.tools
from strixbox import ground, launch
from strixbox.answers import ANSWERS, Answers
from strixbox.config import Config
from strixbox.facts import BoxFact
from strixbox.generation import Generation
from strixbox.layout import BUILDER, TOOLS
from strixbox.locks import TOOLS as LOCK
from strixbox.locks import lock_text, pins
from strixbox.models import Places
from strixbox.operations import base
from strixbox.operations.apt import CORE, _fetch, repository_files
from strixbox.operations.files import byte_code
from strixbox.operations.mount import fstab_entry
from strixbox.operations.python import GECOS, node_record, uv_directory, uv_program
from strixbox.operations.shell import bashrc, block
from strixbox.operations.verify import verified_box
from strixbox.release import Release, held_files, node_paths
from strixbox.tools import command_files, node_files
from strixbox.tree import BoxFile

BUILDS = {"6.4.2": "60402-120~24.04"}


class ConvergedBox:
    """Answers of a box; a test changes what stands in its attributes, and that is the drift."""

    name = "halo1"

    def __init__(self, cfg: Config, release: Release) -> None:
        self.cfg = cfg
        self.asked: list[str] = []
        self.said: list[str] = []
        generation = Generation.of(cfg, release)
        trees = (*command_files(), *node_files(cfg))
        files = (
            *(ground.cleaning(cfg.tmpfs.path), *trees),
            *(*held_files(release), node_paths(release), *repository_files(cfg.rocm)),
            *(*generation.files, *generation.kept()),
            *(launch.preload_unit(cfg), launch.warmup_unit(cfg)),
        )
        self.states: dict[str, dict[str, Any]] = {file.path: _state(file) for file in files}
        (made,) = byte_code(trees, cfg.python.version)
        self.states[made] = {"kind": "file"}
        for directory in ground.directories(cfg.box):
            group = directory.group or "users"
            self.states[directory.path] = {
                "kind": "directory",
                "mode": directory.mode,
                "owner": directory.owner,
                "group": group,
                "primary": True,
            }
        active = f"{cfg.comfyui.base_directory}/models"
        for tier in (active, cfg.models.archive):
            if tier is not None:
                for path in (tier, *ground.tier_folders(tier)):
                    self.states[path] = {"kind": "directory"}
        for path in ground.user_folders(cfg):
            self.states[path] = {"kind": "directory"}
        self.states[uv_program(cfg.python)] = {"kind": "file", "mode": "755"}
        self.entries = {
            "directories": sorted({str(PurePosixPath(file.path).parent) for file in trees}),
            "files": [file.path for file in trees],
        }
        self.environments = {
            uv_directory(cfg.python): _environment(cfg, {"uv": cfg.python.uv_version}),
            TOOLS: _environment(cfg, dict(pins(lock_text(LOCK), cfg.python.version))),
            release.venv: _environment(cfg, release.packages()),
        }
        self.checkouts: dict[str, dict[str, Any]] = {
            checkout.path: {"exists": True, "commit": checkout.commit, "edited": []}
            for checkout in release.checkouts()
        }
        self.seal = {"proved": launch.proof_digest(cfg, release)}
        self.texts = {
            bashrc(cfg.box): "alias ll=ls\n" + block(launch.SHELL_LINES),
            node_record(release): "{}",
        }
        ids = [1000, 1000]
        self.mount: dict[str, Any] = {
            "fstab": [fstab_entry(cfg.tmpfs, ids)],
            "mount": {
                "fstype": "tmpfs",
                "flags": ["nosuid", "nodev"],
                "size": cfg.tmpfs.size_gib << 30,
            },
            "root": {"mode": "700", "ids": ids},
            "place": None,
            "ids": ids,
            "stale": False,
        }
        self.units = {
            f"strixbox-{name}.service": {"enabled": True, "stale": False}
            for name in ("preload", "warmup")
        }
        build = BUILDS[cfg.rocm.version or ""]
        self.packages: dict[str, dict[str, Any]] = {
            name: {"version": "1.0", "held": False} for name in ground.PACKAGES
        } | {name: {"version": f"1.0.{build}", "held": True} for name in (*cfg.rocm.packages, CORE)}
        self.remains: dict[str, Any] = {
            **{"packages": [], "sources": {}, "preferences": {}},
            **{"loader": [], "trees": [], "keyrings": {}},
        }
        self.key = cfg.rocm.key_fingerprint
        self.index = {"indexed": True, "stamp": _fetch(cfg.rocm)}
        self.dpkg = {"interrupted": False, "busy": None}
        self.accounts: dict[str, dict[str, Any]] = {
            cfg.box.user: {"exists": True, "uid": 1000, "groups": ["sudo", *ground.GROUPS]},
            BUILDER: {"exists": True, "uid": 990, "groups": [BUILDER], "gecos": GECOS},
        }
        self.tier = {"exists": True, "other_disk": True}
        self.models = {
            path: {"kind": "absent", "sha256": None}
            for model in cfg.models.manifest
            for path in Places.of(model, active, cfg.models.archive).all()
        } | {
            f"{active}/{model.folder}/{model.name}": {"kind": "file", "sha256": model.sha256}
            for model in cfg.models.manifest
        }
        profile = cfg.launch.profiles[cfg.comfyui.profile]
        self.service: dict[str, Any] = {
            **{"loaded": True, "enabled": True, "active": True, "stale": False},
            **{"other_commands": [], "answers": True, "current": release.path},
            "process": {
                "argv": launch.running_argv(cfg, release),
                "environment": launch.variables(cfg, profile.variables)
                | {"STRIXBOX_UNIT": launch.unit_digest(cfg)},
                "directory": release.code,
            },
            "pins": release.pins(),
            "releases": {release.id: 1},
            "generation": generation.path,
            "generations": [{"id": generation.id, "release": release.id, "answered": 1}],
        }

    def log(self, text: str) -> None:
        """What pyinfra prints."""
        self.said.append(text)

    def noop(self, text: str) -> None:
        """What an operation says that has nothing to do."""

    def answer(self, fact: type[BoxFact[Any]], **query: Any) -> Any:
        """What the box tells; the question is kept."""
        fact().command(**query)
        self.asked.append(f"{fact.__name__} {json.dumps(query, sort_keys=True)}")
        return deepcopy(getattr(self, f"_{fact.__name__}")(**query))

    def _FileStates(
        self, paths: tuple[str, ...], content: bool = True, user: str | None = None
    ) -> Any:
        return {path: self.states.get(path, {"kind": "absent"}) for path in paths}

    def _TreeEntries(self, roots: tuple[str, ...]) -> Any:
        inside = tuple(f"{root}/" for root in roots)
        return {k: [p for p in v if p.startswith(inside)] for k, v in self.entries.items()}

    def _FileText(self, path: str, user: str | None = None) -> Any:
        return self.texts.get(path, "")

    def _Checkouts(self, paths: tuple[str, ...]) -> Any:
        return {path: self.checkouts[path] for path in paths}

    def _Environments(self, paths: tuple[str, ...]) -> Any:
        return {path: self.environments[path] for path in paths}

    def _Service(self, **_: Any) -> Any:
        return self.service

    def _Units(self, units: tuple[str, ...]) -> Any:
        return {name: self.units[name] for name in units}

    def _Seal(self, path: str) -> Any:
        return self.seal

    def _Leftovers(self, query: dict[str, Any]) -> Any:
        return []

    def _TmpfsMount(self, path: str, user: str) -> Any:
        return self.mount

    def _Account(self, user: str) -> Any:
        return self.accounts[user]

    def _RocmRemains(self) -> Any:
        return self.remains

    def _AptKey(self, path: str) -> Any:
        return self.key

    def _AptSource(self, uri: str, suite: str, stamp: str) -> Any:
        return self.index

    def _DpkgState(self, root: str) -> Any:
        return self.dpkg

    def _Installed(self, packages: tuple[str, ...]) -> Any:
        absent = {"version": None, "held": False}
        return {name: self.packages.get(name, absent) for name in packages}

    def _Removal(self, packages: tuple[str, ...]) -> Any:
        return {"refused": "", "removed": list(packages)}

    def _VerifiedFiles(self, paths: tuple[str, ...], **_: Any) -> Any:
        files = {path: self.models.get(path, {"kind": "absent", "sha256": None}) for path in paths}
        return {"files": files, "urls": {}, "rooms": {}}

    def _ModelTier(self, path: str) -> Any:
        return self.tier


@contextmanager
def met(box: ConvergedBox, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The box as the one that operations work on; yields pyinfra's state."""
    state = SimpleNamespace(is_executing=True, config=SimpleNamespace(DIFF=False))
    host = SimpleNamespace(
        name=box.name, log=box.log, noop=box.noop, current_op_hash="", state=state
    )
    monkeypatch.setattr(base, "_ask", box.answer)
    monkeypatch.setitem(ANSWERS, box.name, Answers())
    monkeypatch.setitem(base.UNKNOWN, box.name, [])  # taken away with the test
    with ctx_host.use(host), ctx_state.use(state):
        yield state


def planned(cfg: Config, release: Release, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Operations of the deploy that have something to do on the box that was met."""
    found: list[str] = []

    def run(task: Any, **settings: Any) -> None:
        inner = task._inner
        for word, operation in list(inner.__globals__.items()):
            if hasattr(operation, "is_idempotent"):
                monkeypatch.setitem(inner.__globals__, word, _noting(operation, found))
        inner(**settings)

    run(tasks.leftovers.leftovers, cfg=cfg, release=release)
    run(tasks.purge.purge, cfg=cfg.rocm)
    run(tasks.base.base, box=cfg.box)
    run(tasks.rocm.rocm, cfg=cfg.rocm)
    run(tasks.python.python, cfg=cfg, release=release)
    run(tasks.comfyui.comfyui, cfg=cfg, release=release)
    run(tasks.tmpfs.tmpfs, cfg=cfg.tmpfs, box=cfg.box)
    run(tasks.models.models, cfg=cfg.models, comfyui=cfg.comfyui, box=cfg.box)
    run(tasks.tools.tools, cfg=cfg)
    run(tasks.launch.launch, box=cfg.box)
    run(tasks.service.service, cfg=cfg, release=release)
    return found


def _noting(operation: Any, found: list[str]) -> Any:
    # As pyinfra plans: up to the first command.
    def note(*, name: str, **words: Any) -> None:
        if next(operation._inner(**words), None) is not None:
            found.append(name)

    return note


def verified(box: ConvergedBox, cfg: Config, release: Release) -> str | None:
    """The sentence of verify where it fails the box; its table is in ``box.said``."""
    told = list(verified_box._inner(cfg=cfg, release=release))
    return told[0].sentence if told else None


def _state(file: BoxFile) -> dict[str, Any]:
    about = {"kind": "file", "sha256": file.sha256, "mode": file.mode}
    return about | {"owner": file.owner, "group": file.group}


def _environment(cfg: Config, packages: dict[str, str]) -> dict[str, Any]:
    return {
        "python": cfg.python.version,
        "packages": packages,
        "damaged": {},
        "hip": f"{cfg.python.hip}.43484",
        "owners": ["root"],
    }
