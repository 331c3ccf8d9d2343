"""Launch profiles as the box needs them: flags, variables, and the running process they make."""

from __future__ import annotations

import json
import re
from typing import Any

from strixbox.config import MODEL_FOLDERS, Config
from strixbox.digests import digest_of
from strixbox.layout import BIN, CURRENT, ETC, LIB, NODES, SERVICE, TOOLS_STATE
from strixbox.release import Release
from strixbox.tools import nodes_digest
from strixbox.tree import BoxFile, rendered, shipped

# Of a shell or of systemd itself they must not reach a profile that does not set them.
HARMFUL = ("HSA_OVERRIDE_GFX_VERSION",)
# The block in ~/.bashrc.
SHELL_LINES = (f"[ -r {ETC}/shell.sh ] && . {ETC}/shell.sh",)
# Where profiles are, and the files that one has: what it says, and its script.
PROFILE_ROOTS = (f"{ETC}/launch", BIN)
PROFILE_FILE = re.compile(rf"{ETC}/launch/[^/]+\.json|{BIN}/launch_comfyui_[^/]+\.sh")
MODEL_PATHS = f"{ETC}/extra_model_paths.yaml"
ADDRESSES = {"local": "127.0.0.1", "open": "0.0.0.0"}  # noqa: S104 - the setting `open` says so


def url(cfg: Config) -> str:
    """Where the box itself asks the service."""
    return f"http://127.0.0.1:{cfg.comfyui.port}/system_stats"


def argv(cfg: Config, profile: str) -> list[str]:
    """ComfyUI's flags under a profile, without those of the release."""
    base = cfg.comfyui.base_directory
    return [
        *("--base-directory", base),
        # With the base directory elsewhere ComfyUI does not find its database by itself.
        *("--database-url", f"sqlite:///{base}/user/comfyui.db"),
        *("--extra-model-paths-config", MODEL_PATHS),
        *("--listen", ADDRESSES[cfg.comfyui.access]),
        *("--port", str(cfg.comfyui.port)),
        *("--preview-method", cfg.comfyui.preview),
        *("--temp-directory", cfg.tmpfs.path),
        *cfg.launch.profiles[profile].flags,
    ]


def variables(cfg: Config, names: tuple[str, ...]) -> dict[str, str]:
    """Value by name, with the constraints that hold the stack's torch in place."""
    held = f"{CURRENT}/constraints.txt"
    chosen = {name: cfg.launch.variables[name].value for name in names}
    return chosen | {"PIP_CONSTRAINT": held, "UV_CONSTRAINT": held}


def profile_file(cfg: Config, profile: str) -> BoxFile:
    """What ``/opt/strixbox/lib/launch`` reads for a profile."""
    content = {
        "managed": "Managed by strixbox: edit launch_profiles",
        "argv": argv(cfg, profile),
        "variables": variables(cfg, cfg.launch.profiles[profile].variables),
        "preload": cfg.launch.profiles[profile].preload,
    }
    text = json.dumps(content, indent=1) + "\n"
    return BoxFile(f"{ETC}/launch/{profile}.json", text.encode())


def launcher() -> BoxFile:
    """The program that every launch script starts: it reads a profile and becomes ComfyUI."""
    return shipped(f"{LIB}/launch", mode="755")


def model_paths(cfg: Config) -> BoxFile:
    """Where ComfyUI finds models and our nodes."""
    return rendered(
        MODEL_PATHS,
        active=cfg.comfyui.models_directory,
        archive=cfg.models.archive,
        nodes=NODES,
        folders=MODEL_FOLDERS,
    )


def script_path(profile: str) -> str:
    """Launch script of a profile, under the chapter's name for it."""
    return f"{BIN}/launch_comfyui_{profile}.sh"


def service_unit(cfg: Config) -> BoxFile:
    """The unit; the digest of its other lines goes into the process's environment, so that a
    process started from another text of it can be told.
    """
    return _unit(cfg, unit_digest(cfg))


def unit_digest(cfg: Config) -> str:
    """Digest of all that a server reads at its start: unit, profile, model paths, our nodes.

    The launcher, too, which starts it.
    """
    profile = profile_file(cfg, cfg.comfyui.profile)
    read = (_unit(cfg, ""), launcher(), profile, model_paths(cfg))
    return digest_of([*(file.content.decode() for file in read), nodes_digest(cfg)])


def _unit(cfg: Config, digest: str) -> BoxFile:
    given = cfg.launch.profiles[cfg.comfyui.profile].variables
    return rendered(
        f"/etc/systemd/system/{SERVICE}",
        user=cfg.box.user,
        script=script_path(cfg.comfyui.profile),
        environment_file=f"{ETC}/comfyui.env",
        unset=[name for name in HARMFUL if name not in given],
        writes=(cfg.comfyui.base_directory, cfg.tmpfs.path),
        digest=digest,
    )


def preload_unit(cfg: Config) -> BoxFile:
    """Reads the models into the page cache after boot."""
    return rendered(
        "/etc/systemd/system/strixbox-preload.service",
        models=cfg.comfyui.models_directory,
    )


def warmup_unit(cfg: Config) -> BoxFile:
    """Tunes what is new after a start of the service."""
    return rendered(
        "/etc/systemd/system/strixbox-warmup.service",
        user=cfg.box.user,
        service=SERVICE,
        state=TOOLS_STATE,
    )


def running_argv(cfg: Config, release: Release) -> list[str]:
    """Command line of the service's process when it runs this release and profile."""
    return [
        f"{release.venv}/bin/python",
        f"{release.code}/main.py",
        *("--extra-model-paths-config", f"{release.path}/extra_model_paths.yaml"),
        *argv(cfg, cfg.comfyui.profile),
    ]


def preloaded(cfg: Config) -> list[str]:
    """Model files that are read into the page cache: those of the active tier."""
    models = cfg.comfyui.models_directory
    return [f"{models}/{m.folder}/{m.name}" for m in cfg.models.manifest if m.tier == "active"]


def proof_digest(cfg: Config, release: Release) -> str:
    """Digest of what is proved: another flag or variable is proved before it goes live."""
    order = _proof(cfg, release)
    return digest_of({key: order[key] for key in ("user", "variables", "profiles", "start_flags")})


def proof_order(cfg: Config, release: Release) -> dict[str, Any]:
    """What strixbox/box/prove_release.py needs to know."""
    seal = {"id": release.id, "stack": cfg.stack, "pins": release.pins()}
    return _proof(cfg, release) | {"seal": seal | {"proved": proof_digest(cfg, release)}}


def _proof(cfg: Config, release: Release) -> dict[str, Any]:
    own = ["--extra-model-paths-config", f"{release.path}/extra_model_paths.yaml"]
    profile = cfg.launch.profiles[cfg.comfyui.profile]
    return {
        "release": release.path,
        "user": cfg.box.user,
        "hip": cfg.python.hip,
        "variables": variables(cfg, profile.variables),
        "profiles": {name: [*own, *argv(cfg, name)] for name in cfg.launch.profiles},
        "start_flags": [
            *("--base-directory", cfg.comfyui.base_directory),
            *own,
            *profile.flags,
        ],
        "timeout": max(cfg.comfyui.start_timeout, 60),
    }
