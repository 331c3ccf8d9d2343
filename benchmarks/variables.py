"""The settings of a box as variables for the playbook in ``benchmarks/ansible``.

Both descriptions of a box read the very same group_data: what Ansible cannot compute by itself
(the release's id, the digest in the unit) is computed here, before its clock starts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from strixbox import ground, launch, layout
from strixbox.config import MODEL_FOLDERS, Config, Wheel
from strixbox.layout import BUILDER, ETC, FOLDERS, KEY, PIN, SOURCE
from strixbox.locks import TOOLS
from strixbox.operations.python import UV_ENVIRONMENT, uv_program
from strixbox.operations.shell import bashrc
from strixbox.release import Release, constraints, overrides
from strixbox.tools import settings_file
from strixbox.tree import ROOT

PATHS = {
    name.lower(): value
    for name, value in vars(layout).items()
    if name.isupper() and isinstance(value, str)
}


def settings(cfg: Config) -> dict[str, Any]:
    """The settings as they stand in group_data: flat ``section_field`` keys."""
    flat: dict[str, Any] = {"stack": cfg.stack}
    for section, values in cfg.model_dump(mode="json").items():
        if isinstance(values, dict):
            flat |= {f"{section}_{field}": value for field, value in values.items()}
    return flat


def variables(cfg: Config, key_sha256: str) -> dict[str, Any]:
    """Everything that the playbook's tasks name.

    + cfg: settings of the box
    + key_sha256: hash of AMD's key file, as get_url has no notion of a fingerprint
    """
    release = Release(cfg.python, cfg.comfyui, {})
    given = {
        name: launch.variables(cfg, profile.variables)
        for name, profile in cfg.launch.profiles.items()
    }
    return settings(cfg) | {
        "project": str(ROOT),
        "layout": PATHS,
        "base_packages": list(ground.PACKAGES),
        "base_directories": [*(p for p in ground.ROOTS if p not in _FILLED), f"{ETC}/launch"],
        "tools_lock": TOOLS,
        "rocm_key": KEY,
        "rocm_key_sha256": key_sha256,
        "rocm_source": SOURCE,
        "rocm_pin": PIN,
        "rocm_build": build_number(cfg.rocm.version),
        "uv": uv_program(cfg.python),
        "uv_environment": UV_ENVIRONMENT,
        "builder": BUILDER,
        "release_id": release.id,
        "release_path": release.path,
        "release_checkouts": [vars(checkout) for checkout in release.checkouts()],
        "release_constraints": constraints(cfg.python),
        "release_overrides": overrides(release),
        "release_pins": release.pins(),
        "wheel_requirements": [wheel_requirement(wheel) for wheel in cfg.python.wheels],
        "comfyui_folders": list(FOLDERS),
        "model_folders": list(MODEL_FOLDERS),
        "bashrc": bashrc(cfg.box),
        "shell_lines": list(launch.SHELL_LINES),
        "shell_values": launch.variables(cfg, cfg.launch.shell),
        "meanings": {name: variable.does for name, variable in cfg.launch.variables.items()},
        "profiles": [
            {
                "name": name,
                "argv": launch.argv(cfg, name),
                "variables": given[name],
                "preload": profile.preload,
            }
            for name, profile in sorted(cfg.launch.profiles.items())
        ],
        "service_values": given[cfg.comfyui.profile],
        "service_script": launch.script_path(cfg.comfyui.profile),
        "service_digest": launch.unit_digest(cfg),
        "service_unset": [n for n in launch.HARMFUL if n not in given[cfg.comfyui.profile]],
        "service_url": launch.url(cfg),
        "preloaded": launch.preloaded(cfg),
        "tools_settings": json.loads(settings_file(cfg).content),
    }


# What synchronize makes itself.
_FILLED = (layout.BOXTOOLS, layout.NODES)


def build_number(version: str | None) -> str:
    """What versions of a ROCm release hold: 60402 for 6.4.2."""
    if version is None:
        return "none"
    major, minor, patch = (int(part) for part in version.split("."))
    return f"{major}{minor:02}{patch:02}"


def wheel_requirement(wheel: Wheel) -> str:
    """The wheel as uv takes it, with its hash where one is known."""
    fragment = f"#sha256={wheel.sha256}" if wheel.sha256 else ""
    return f"{wheel.project} @ {wheel.url}{fragment}"


def inventory(boxes: dict[str, dict[str, Any]], shared: dict[str, Any]) -> dict[str, Any]:
    """An inventory in Ansible's YAML form, of which JSON is a part.

    + boxes: ``address``, ``user`` and ``key`` by name
    + shared: variables of every box
    """
    hosts = {
        name: {
            "ansible_host": box["address"],
            "ansible_user": box["user"],
            "ansible_ssh_private_key_file": str(box["key"]),
        }
        for name, box in boxes.items()
    }
    return {"all": {"hosts": hosts, "vars": shared}}


def key_hash(mirror: Path) -> str:
    """Hash of the key that the lab's mirror serves."""
    return hashlib.sha256((mirror / "rocm" / "rocm.gpg.key").read_bytes()).hexdigest()
