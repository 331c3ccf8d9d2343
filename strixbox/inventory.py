"""boxes.yaml -> pyinfra's hosts and groups, checked before any box is touched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StringConstraints, ValidationError
from pyinfra.api.inventory import Inventory

from strixbox import lab
from strixbox.config import Config, ConfigError, Section, UserName, Word

ROOT = Path(__file__).parent.parent
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:%-]*$")]
GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]

# Groups that mean something without a file in group_data.
PLAIN_GROUPS = frozenset({"canary"})


class BoxEntry(Section):
    """One box of boxes.yaml."""

    name: Word
    address: Address
    user: UserName
    port: int = Field(default=22, ge=1, le=65535)
    key: str | None = None
    groups: tuple[GroupName, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def known_hosts(self) -> Path:
        """Where the box's host key is kept."""
        default = "~/.ssh/known_hosts"
        return Path(str(self.settings.get("ssh_known_hosts_file", default))).expanduser()

    def data(self) -> dict[str, Any]:
        """The host's data for pyinfra: how to reach it, and its own settings.

        The account's home and ComfyUI's directory follow from the user unless they are set.
        """
        home = self.settings.get("box_home", f"/home/{self.user}")
        data: dict[str, Any] = {
            "ssh_hostname": self.address,
            "ssh_user": self.user,
            "ssh_port": self.port,
            "box_user": self.user,
            "box_home": home,
            "comfyui_base_directory": f"{home}/ComfyUI",
        }
        if self.key is not None:
            data["ssh_key"] = str(Path(self.key).expanduser())
        return data | self.settings


@dataclass(frozen=True)
class Boxes:
    """All boxes, and where they came from."""

    entries: tuple[BoxEntry, ...]
    source: str

    def hosts(self) -> list[tuple[str, dict[str, Any]]]:
        """Hosts as pyinfra takes them."""
        return [(entry.name, entry.data()) for entry in self.entries]

    def groups(self) -> dict[str, list[str]]:
        """Members by group, in the order in which the groups first appear."""
        groups: dict[str, list[str]] = {}
        for entry in self.entries:
            for group in entry.groups:
                groups.setdefault(group, []).append(entry.name)
        return groups


class InventoryError(ValueError):
    """All mistakes of boxes.yaml and of the boxes' settings."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def boxes_file() -> Path:
    """The file that lists the boxes; ``STRIXBOX_BOXES`` names another one."""
    return Path(os.environ.get("STRIXBOX_BOXES", ROOT / "boxes.yaml"))


def load_boxes(path: Path) -> Boxes:
    """Boxes of ``path``; without that file, the boxes of the running lab.

    Raises:
        InventoryError: naming every mistake, or saying how to get a first box.
    """
    if path.exists():
        return Boxes(_parse(path), str(path))
    data = lab.load()
    if data is None or not data.boxes():
        raise InventoryError(
            [
                f"{path.name} does not exist and no lab box runs; copy boxes.example.yaml to"
                f" {path.name} and enter your box, or start a lab box with bin/lab up"
            ]
        )
    return Boxes(_entries(data.boxes(), "lab.json"), "the lab")


def have_known_hosts(path: Path) -> None:
    """Create the file that new host keys are added to; without it no connection is made.

    ssh itself creates it at the first login; paramiko (4.0) fails instead.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=True)


def _parse(path: Path) -> tuple[BoxEntry, ...]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise InventoryError([f"{path.name} is not YAML: {where}"]) from None
    if not isinstance(content, dict) or set(content) != {"boxes"}:
        raise InventoryError(
            [f"{path.name} must hold one key, 'boxes', with a list; see boxes.example.yaml"]
        )
    if not isinstance(content["boxes"], list) or not content["boxes"]:
        raise InventoryError([f"{path.name}: 'boxes' must be a list with at least one box"])
    return _entries(content["boxes"], path.name)


def _entries(raw: list[Any], where: str) -> tuple[BoxEntry, ...]:
    mistakes: list[str] = []
    entries: list[BoxEntry] = []
    for number, item in enumerate(raw, start=1):
        label = item.get("name", f"number {number}") if isinstance(item, dict) else number
        try:
            if isinstance(item, dict) and isinstance(item.get("groups"), list):
                item = item | {"groups": tuple(item["groups"])}
            entries.append(BoxEntry.model_validate(item))
        except ValidationError as error:
            mistakes += [f"{where}, box {label}: {_entry_mistake(e)}" for e in error.errors()]
    names = [entry.name for entry in entries]
    for name in sorted({n for n in names if names.count(n) > 1}):
        mistakes.append(f"{where}: two boxes are called {name}; names must differ")
    known = {file.stem for file in (ROOT / "group_data").glob("*.py")} - {"all"} | PLAIN_GROUPS
    for entry in entries:
        for group in entry.groups:
            if group not in known:
                mistakes.append(
                    f"{where}, box {entry.name}: there is no group {group};"
                    f" take one of {', '.join(sorted(known))}, or add group_data/{group}.py"
                )
    if mistakes:
        raise InventoryError(mistakes)
    return tuple(entries)


def _entry_mistake(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "entry"
    if error["type"] == "extra_forbidden":
        return f"there is no key {key}; settings of the toolkit go under 'settings'"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "string_pattern_mismatch":
        return f"{key} {error['input']!r} is not valid; it must match {error['ctx']['pattern']}"
    return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}"


def check_settings(
    boxes: Boxes,
    group_data: Mapping[str, Mapping[str, Any]],
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Config]:
    """The validated configuration of every box, with pyinfra's own precedence of data.

    Raises:
        InventoryError: naming, for every mistake, the box, the setting and the mend; a mistake that
            all boxes share is named once.
    """
    groups = {
        group: (members, dict(group_data.get(group, {})))
        for group, members in boxes.groups().items()
    }
    inventory = Inventory(
        (boxes.hosts(), dict(group_data.get("all", {}))),
        override_data=dict(overrides or {}),
        **groups,
    )
    configs: dict[str, Config] = {}
    wrong: dict[str, list[str]] = {}
    for entry in boxes.entries:
        try:
            configs[entry.name] = Config.load(inventory.get_host(entry.name).data.dict())
        except ConfigError as error:
            for mistake in error.mistakes:
                wrong.setdefault(mistake, []).append(entry.name)
    if wrong:
        raise InventoryError([f"{_names(names)}: {text}" for text, names in wrong.items()])
    return configs


def _names(names: Iterable[str]) -> str:
    names = list(names)
    return ("box " if len(names) == 1 else "boxes ") + ", ".join(names)
