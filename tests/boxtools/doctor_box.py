"""A healthy gfx1151 box as files and programs that answer; tests spoil one thing of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxtools.doctor.checks import examine
from boxtools.doctor.facts import Facts, gather
from boxtools.doctor.finding import Finding
from boxtools.doctor.world import Answer, Room, Said, World
from boxtools.settings import Profile, Settings, Variable

from tests.boxtools.conftest import safetensors

GIB = 1 << 30
# The account of the box: the one that runs the tests, or any other one for root, who may all.
UID, GID = os.getuid() or 1000, os.getgid() or 1000
USER = "miraculix"
HOME = f"/home/{USER}"
PID = 4242
NOW = 1_800_000_000.0
TORCH = "2.9.1+rocm7.2.1.lw.gitff65f5bc"
FLAGS = ("--use-pytorch-cross-attention", "--disable-mmap", "--bf16-vae")
STARTED = "Started comfyui.service - ComfyUI."


def put(path: Path, content: str | bytes, mode: int = 0o644) -> Path:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


@dataclass
class Box:
    """The box; every field may be changed before it is looked at."""

    root: Path
    groups: dict[str, int] = field(default_factory=lambda: {USER: GID, "render": GID, "video": 44})
    unit: dict[str, str] = field(
        default_factory=lambda: {
            **{"LoadState": "loaded", "ActiveState": "active", "SubState": "running"},
            **{"MainPID": str(PID), "NRestarts": "0", "Result": "success"},
            **{"ExecMainStatus": "0", "UnitFileState": "enabled"},
        }
    )
    packages: dict[str, str] = field(
        default_factory=lambda: {"linux-firmware": "ii  20240318.git3b128b60-0ubuntu2.21"}
    )
    log: list[str] = field(default_factory=lambda: [STARTED, "got prompt"])
    kernel_log: list[str] = field(default_factory=lambda: ["amdgpu 0000:c5:00.0: SMU is resumed"])
    refused: dict[str, str | None] = field(default_factory=dict)  # what the parser says
    synchronised: str = "yes"
    free: int = 900 * GIB
    answer: Answer = field(
        default_factory=lambda: Answer(
            0.01,
            {"system": {"argv": ["main.py"]}, "devices": [{"name": "cuda:0", "type": "cuda"}]},
        )
    )
    variables: dict[str, str] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)
    ran: list[list[str]] = field(default_factory=list)
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self._hardware()
        self._system()
        self._release()
        base = self.root / "home" / USER / "ComfyUI"
        put(base / "models/checkpoints/sd_xl_base_1.0.safetensors", safetensors(64))
        temp = self.root / "ramdisk"
        state = self.root / "var/lib/strixbox/tools"
        tuned = self.root / "var/lib/strixbox/tunableop"
        for directory in (temp, state, tuned):
            directory.mkdir(parents=True)
            if os.getuid() == 0:
                os.chown(directory, UID, GID)
        put(
            self.root / "proc/self/mounts",
            f"/dev/nvme0n1p2 / ext4 rw 0 0\ntmpfs {temp} tmpfs rw 0 0\n",
        )
        self.settings = Settings(
            url="http://127.0.0.1:8188",
            user=USER,
            service="comfyui.service",
            base_directory=base,
            temp_directory=temp,
            archive=None,
            current=self.root / "opt/strixbox/current",
            launch=self.root / "opt/strixbox/lib/launch",
            state=state,
            stack="rocm-7.2.1",
            torch=TORCH,
            hip="7.2",
            tunableop=tuned / "rocm-7.2.1-%d.csv",
            profile="production",
            profiles={"production": Profile(flags=FLAGS, variables=(), preload=True)},
            variables={"HIP_VISIBLE_DEVICES": Variable(value="0", does="Shows the GPU.")},
            models=(),
            ram_gib=128,
        )
        self.argv = [
            f"{self.release}/venv/bin/python",
            f"{self.release}/ComfyUI/main.py",
            *("--base-directory", str(base), "--port", "8188", *FLAGS),
        ]

    @property
    def release(self) -> Path:
        """Directory of the release in use."""
        return self.root / "opt/strixbox/releases/0123abcd"

    @property
    def card(self) -> Path:
        """The GPU's directory in sysfs."""
        return self.root / "sys/class/drm/card1/device"

    @property
    def models(self) -> Path:
        """The active tier."""
        return self.settings.active

    def _hardware(self) -> None:
        files = {
            **{"vendor": "0x1002", "device": "0x1586", "gpu_busy_percent": "3"},
            **{"mem_info_vram_total": str(GIB // 2), "mem_info_vram_used": "104857600"},
            **{"mem_info_gtt_total": str(62 * GIB), "mem_info_gtt_used": "209715200"},
            **{"hwmon/hwmon3/temp1_input": "46000", "hwmon/hwmon3/freq1_input": "1200000000"},
            "power_dpm_force_performance_level": "auto",
        }
        for name, content in files.items():
            put(self.card / name, content + "\n")
        (self.card / "drm/renderD128").mkdir(parents=True)
        kfd = self.root / "sys/class/kfd/kfd/topology/nodes"
        put(kfd / "0/properties", "gfx_target_version 0\n")
        put(kfd / "1/properties", "gfx_target_version 110501\ndrm_render_minor 128\n")
        put(self.root / "sys/firmware/acpi/platform_profile", "performance\n")
        for name in ("dev/kfd", "dev/dri/renderD128"):
            path = put(self.root / name, "", 0o660)
            if os.getuid() == 0:
                os.chown(path, UID, GID)

    def _system(self) -> None:
        proc = self.root / "proc"
        put(proc / "sys/kernel/osrelease", "6.17.0-19-generic\n")
        put(proc / "sys/kernel/hostname", "gergovia\n")
        put(
            proc / "meminfo",
            "MemTotal: 131072000 kB\nMemFree: 90000000 kB\nMemAvailable: 110000000 kB\n"
            "SwapTotal: 8388608 kB\nSwapFree: 8388608 kB\n",
        )
        self.listen("0100007F")
        (proc / f"{PID}/fd").mkdir(parents=True)
        (proc / f"{PID}/fd/9").symlink_to("socket:[777]")
        put(proc / f"{PID}/comm", "python\n")
        put(proc / f"{PID}/status", f"Name:\tpython\nGroups:\t44 {GID} \n")
        put(self.root / "etc/hostname", "gergovia\n")
        put(
            self.root / "etc/passwd",
            f"root:x:0:0::/root:/bin/sh\n{USER}:x:1000:7:A:{HOME}:/bin/sh\n",
        )
        put(self.root / "etc/environment", 'PATH="/usr/bin:/bin"\n')
        put(
            self.root / HOME.lstrip("/") / ".bashrc",
            "# HSA_OVERRIDE_GFX_VERSION=11.0.0\n# >>> strixbox >>>\n"
            "export HSA_OVERRIDE_GFX_VERSION=11.0.0\n# <<< strixbox <<<\n",
        )

    def _release(self) -> None:
        site = self.release / "venv/lib/python3.12/site-packages"
        put(
            site / "torch/version.py",
            f"from typing import Optional\n__version__ = '{TORCH}'\n"
            "cuda: Optional[str] = None\nhip: Optional[str] = '7.2.53211'\n",
        )
        for name in (f"torch-{TORCH}", "numpy-1.26.4"):
            put(site / f"{name}.dist-info/RECORD", "")
        put(self.release / "constraints.txt", f"torch=={TORCH}\nnumpy==1.26.4\n")
        proof = {"torch": {"version": TORCH, "hip": "7.2.53211", "archs": ["gfx1100", "gfx1151"]}}
        put(self.release / "release.json", json.dumps({"id": "0123abcd", "proof": proof}))
        put(self.release / "ComfyUI/main.py", "")
        (self.root / "opt/strixbox/current").symlink_to(self.release)

    def listen(self, address: str, inode: int = 777) -> None:
        """Have somebody listen on the port; the address in the kernel's notation."""
        head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid\n"
        line = f"   0: {address}:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000"
        put(self.root / "proc/net/tcp", f"{head}{line}        0 {inode} 1 0\n")

    @property
    def bashrc(self) -> Path:
        """The account's .bashrc."""
        return self.root / HOME.lstrip("/") / ".bashrc"

    def give(self, *paths: Path) -> None:
        """Give files to the account, and let it reach them, where the tests run as root."""
        if os.getuid() != 0:
            return
        for path in paths:
            os.chown(path, UID, GID)
            for parent in path.parents:
                if parent.name.startswith("pytest-") or self.root in (parent, *parent.parents):
                    parent.chmod(0o755)
        self.root.chmod(0o755)

    def set(self, **variables: str) -> None:
        """Give the service variables."""
        self.variables |= variables

    def run(self, words: list[str], **how: Any) -> Said:
        """The programs of the box."""
        self.ran.append(words)
        match words:
            case ["getent", "passwd", user] if user == USER and USER in self.groups:
                return Said(0, f"{USER}:x:{UID}:{GID}:A:{HOME}:/bin/sh\n")
            case ["id", "-G", _]:
                return Said(0, " ".join(map(str, self.groups.values())))
            case ["id", "-Gn", _]:
                return Said(0, " ".join(self.groups))
            case ["systemctl", "show", *_]:
                return Said(0, "".join(f"{key}={value}\n" for key, value in self.unit.items()))
            case ["systemctl", *_]:
                return Said(0, "active\n")
            case ["journalctl", *rest]:
                lines = self.kernel_log if "--dmesg" in rest else self.log
                return Said(0, "".join(f"{line}\n" for line in lines))
            case ["dpkg-query", *_, name]:
                return Said(0, self.packages[name]) if name in self.packages else Said(1)
            case ["timedatectl", *_]:
                return Said(0, f"{self.synchronised}\n")
            case [python, "-s", "-c", _, _] if python.endswith("/venv/bin/python"):
                return Said(0, json.dumps({"production": None, **self.refused}))
        return Said(None)

    @property
    def world(self) -> World:
        """The box as the doctor sees it."""
        proc = self.root / f"proc/{PID}"
        if self.unit.get("MainPID") == str(PID):
            put(proc / "cmdline", "\0".join(self.argv) + "\0")
            pairs = {"HOME": HOME, **self.variables}
            put(proc / "environ", "".join(f"{n}={v}\0" for n, v in pairs.items()))
        return World(
            root=self.root,
            run=self.run,
            ask=lambda url: self.answer,
            room=lambda path: (
                Room(32 * GIB, 30 * GIB)
                if path == self.settings.temp_directory
                else Room(2000 * GIB, self.free)
            ),
            now=lambda: NOW,
            uid=0,
        )

    def facts(self) -> Facts:
        """Look at the box."""
        return gather(self.world, self.settings)

    def findings(self) -> dict[str, Finding]:
        """What is found, by code."""
        found = examine(self.facts())
        assert len({finding.code for finding in found}) == len(found)
        return {finding.code: finding for finding in found}

    def changed(self, **values: Any) -> None:
        """Other settings."""
        self.settings = self.settings.model_copy(update=values)


Spoil = Callable[[Box], object]
