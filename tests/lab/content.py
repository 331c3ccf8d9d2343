"""What the mirror serves: apt repositories, wheels, git remotes, models. Built once, by digest."""

from __future__ import annotations

import hashlib
import json
import os
import random
import runpy
import shutil
import struct
from pathlib import Path
from typing import Any

from tests.lab import rocm, wheels
from tests.lab.debs import Repository
from tests.lab.podman import LabError, run

URL = "http://mirror.lab"
# A host of its own, as AMD has: the toolkit tells apt sources apart by host.
AMD = "http://radeon.lab"
# What the real ComfyUI runs on in a box without a GPU; there is no later torchaudio.
CPU_STACK = ("torch==2.13.0", "torchvision==0.28.0", "torchaudio==2.11.0")
REAL_LOCK = "comfyui-0.3.64-torch-2.9"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "linux")
# A git hook that runs the tests has its own repository in these: never touch that one.
DETACHED = ("env", "-u", "GIT_DIR", "-u", "GIT_WORK_TREE", "-u", "GIT_INDEX_FILE")
STAMPED = (
    *("GIT_AUTHOR_DATE=2025-10-08T00:00:00Z", "GIT_COMMITTER_DATE=2025-10-08T00:00:00Z"),
    *("GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null"),
)
GIT = (
    *("-c", "user.name=Lab", "-c", "user.email=lab@example.org"),
    *("-c", "init.defaultBranch=main", "-c", "commit.gpgSign=false"),
)


def gpg_key(homedir: Path, uid: str) -> str:
    """Fingerprint of the key of that name; made where there is none."""
    homedir.mkdir(mode=0o700, parents=True, exist_ok=True)
    gpg = ("gpg", "--homedir", str(homedir), "--batch", "--quiet")
    if run(*gpg, "--list-keys", uid, check=False).returncode != 0:
        unprotected = ("--passphrase", "", "--pinentry-mode", "loopback")
        run(*gpg, *unprotected, "--quick-generate-key", uid, "rsa2048", "sign", "never")
    for line in run(*gpg, "--with-colons", "--list-keys", uid).stdout.splitlines():
        if line.startswith("fpr:"):
            return line.split(":")[9]
    raise LabError(f"gpg made no key {uid} in {homedir}; remove that directory and try again")


def armoured(homedir: Path, fingerprint: str) -> str:
    """The public key as text."""
    return run("gpg", "--homedir", str(homedir), "--armor", "--export", fingerprint).stdout


class Content:
    """The tree below ``root`` and what the boxes are told of it."""

    def __init__(self, root: Path, gnupg: Path, project: Path, python: str) -> None:
        self.root = root
        self.gnupg = gnupg
        self.project = project
        self.python = python
        self.tag = "cp" + python.replace(".", "")

    def build(self, system_debs: Path) -> dict[str, Any]:
        """Write everything; returns the part of lab.json that tells of it."""
        ubuntu = gpg_key(self.gnupg, "Lab Ubuntu Archive <ubuntu@lab.invalid>")
        amd = gpg_key(self.gnupg, "Lab AMD MLSE DevOps <amd@lab.invalid>")
        debs = "".join(sorted(deb.name for deb in system_debs.glob("*.deb")))
        digest = self._digest(ubuntu + amd + debs)
        note = self.root / "content.json"
        if note.exists():
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["digest"] == digest:
                return dict(known["data"])
        # The directory itself stays: a running mirror has it mounted.
        self.root.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)  # first: half of it must not be taken for all
        for entry in self.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._apt(ubuntu, amd, system_debs)
        data = {
            "mirror": URL,
            "amd": AMD,
            "index_url": f"{URL}/simple",
            "rocm_key_fingerprint": amd,
            "python": self.python,
            "wheels": self._wheels(),
            "git": self._git(),
            "models": self._models(),
        }
        aside = note.with_suffix(".new")
        aside.write_text(json.dumps({"digest": digest, "data": data}), encoding="utf-8")
        aside.replace(note)
        return data

    @staticmethod
    def _real() -> Path | None:
        """The checkout of the real ComfyUI that boxes shall run, if one was named."""
        named = os.environ.get(_SOURCE)
        if not named:
            return None
        if not (Path(named) / "comfy" / "cli_args.py").is_file():
            raise LabError(f"{_SOURCE} names {named}, which is no checkout of ComfyUI; mend it")
        return Path(named)

    @staticmethod
    def _real_tiled() -> Path | None:
        """The checkout of the real ComfyUI-TiledDiffusion that goes with it, if one was named."""
        named = os.environ.get(_TILED)
        if named and not (Path(named) / "tiled_vae.py").is_file():
            raise LabError(f"{_TILED} names {named}, which is no ComfyUI-TiledDiffusion; mend it")
        return Path(named) if named else None

    def _digest(self, keys: str) -> str:
        named = [os.environ.get(name, "") for name in (_SOURCE, _TILED)]
        digest = hashlib.sha256("".join([keys, self.tag, *named]).encode())
        here = Path(__file__).parent
        names = ("content.py", "debs.py", "rocm.py", "wheels.py")
        trees = (here / "comfyui_standin", here / "tiled_standin")
        sources = [*(here / name for name in names), *self._locks()]
        sources += [self.project / "group_data" / "all.py"]
        sources += [file for tree in trees for file in tree.rglob("*")]
        for file in sorted(sources):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def _locks(self) -> list[Path]:
        names = ["lab-standin", "boxtools", *([REAL_LOCK] if self._real() else [])]
        return [self.project / f"files/opt/strixbox/locks/{name}.txt" for name in names]

    def _apt(self, ubuntu: str, amd: str, system_debs: Path) -> None:
        real = [
            (deb, run("dpkg-deb", "--field", str(deb)).stdout)
            for deb in sorted(system_debs.glob("*.deb"))
        ]
        universe = Repository(
            self.root / "ubuntu", "Ubuntu", "noble", "universe", ubuntu, self.gnupg
        )
        universe.write(rocm.universe(), real)
        for release in rocm.BUILDS:
            apt = self.root / "rocm" / "apt" / release
            repository = Repository(apt, "repo.radeon.com", "noble", "main", amd, self.gnupg)
            repository.write(rocm.packages(release))
        drivers = {"6.4.1": rocm.graphics_packages(), "30.10.1": rocm.driver_packages()}
        for release, debs in drivers.items():
            apt = self.root / "amdgpu" / release / "ubuntu"
            repository = Repository(apt, "repo.radeon.com", "noble", "main", amd, self.gnupg)
            repository.write(debs)
        key = armoured(self.gnupg, amd)
        (self.root / "rocm" / "rocm.gpg.key").write_text(key, encoding="utf-8")

    def _wheels(self) -> dict[str, list[dict[str, str]]]:
        told: dict[str, list[dict[str, str]]] = {}
        for release, stack in wheels.stacks().items():
            folder = self.root / "wheels" / f"rocm-rel-{release}"
            folder.mkdir(parents=True)
            tag = f"{self.tag}-{self.tag}-linux_x86_64"
            told[release] = [self._told(wheel.write(folder, tag)) for wheel in stack]
        if self._real():
            folder = self.root / "wheels" / "cpu"
            self._download(folder, *CPU_STACK)
            wheels.cpu_torchvision(next(folder.glob("torchvision-*.whl")))
            told["cpu"] = [self._told(path) for path in sorted(folder.glob("*.whl"))]
        self._index()
        return told

    def _told(self, path: Path) -> dict[str, str]:
        project, version = path.name.split("-")[:2]
        return {
            "name": project,
            "version": version,
            "url": f"{AMD}/wheels/{path.parent.name}/{path.name.replace('+', '%2B')}",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

    def _download(self, folder: Path, *words: str) -> None:
        """Have pip download wheels for the boxes' Python, without what they depend on."""
        run(
            *(str(self.project / "bin" / "uv"), "run", "--quiet", "--no-project"),
            *("--with", "pip", "python", "-m", "pip"),
            *("download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--disable-pip-version-check", "--python-version", self.python),
            *(f"--platform={name}_x86_64" for name in PLATFORMS),
            *("--dest", str(folder), *words),
        )

    def _index(self) -> None:
        download = self.root.parent / "download"
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir()
        shipped = runpy.run_path(str(self.project / "group_data" / "all.py"))
        tools = download / "tools.txt"
        uv = f"uv=={shipped['python_uv_version']} --hash=sha256:{shipped['python_uv_sha256']}\n"
        tools.write_text(uv, encoding="utf-8")
        for lock in (tools, *self._locks()):
            self._download(download, "--require-hashes", "--requirement", str(lock))
        traps = [wheel.write(download, "py3-none-any") for wheel in wheels.traps()]
        real = [file for file in download.glob("*.whl") if file not in traps]
        wheels.write_index(self.root / "simple", [*real, *traps])

    def _git(self) -> dict[str, dict[str, str]]:
        here = Path(__file__).parent
        remotes = {
            "comfyui": self._repository("ComfyUI", here / "comfyui_standin"),
            "tiled": self._repository("ComfyUI-TiledDiffusion", here / "tiled_standin"),
        }
        real = self._real()
        if real:
            # A public copy may lack its largest file: its tree is committed as it stands.
            remotes["real_comfyui"] = self._repository("ComfyUI-real", real)
            if tiled := self._real_tiled():
                remotes["real_tiled"] = self._repository("ComfyUI-TiledDiffusion-real", tiled)
        return remotes

    def _repository(self, name: str, tree: Path) -> dict[str, str]:
        bare = self.root / "git" / f"{name}.git"
        work = self.root.parent / "work" / name
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(tree, work, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        git = (*DETACHED, *STAMPED, "git", "-C", str(work), *GIT)
        run(*git, "init", "--quiet")
        run(*git, "add", "--all")
        run(*git, "commit", "--quiet", "--message", "v0.3.64")
        commit = run(*git, "rev-parse", "HEAD").stdout.strip()
        (work / "NEWER").write_text("the next release\n", encoding="utf-8")
        run(*git, "add", "--all")
        run(*git, "commit", "--quiet", "--message", "v0.3.65")
        newer = run(*git, "rev-parse", "HEAD").stdout.strip()
        run(*DETACHED, "git", "clone", "--quiet", "--bare", str(work), str(bare))
        run("git", "-C", str(bare), "config", "uploadpack.allowAnySHA1InWant", "true")
        return {"url": f"{URL}/git/{name}.git", "commit": commit, "newer": newer}

    def _models(self) -> list[dict[str, Any]]:
        told = []
        for folder, name, size in _MODELS:
            path = self.root / "models" / name
            path.parent.mkdir(exist_ok=True)
            header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
            body = random.Random(name).randbytes(size)  # noqa: S311 - the same bytes every time
            content = struct.pack("<Q", len(header)) + header.encode() + body
            path.write_bytes(content)
            told.append(
                {
                    "name": name,
                    "folder": folder,
                    "url": f"{URL}/models/{name}",
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "bytes": len(content),
                }
            )
        return told


_SOURCE = "STRIXBOX_COMFYUI_SRC"
_TILED = "STRIXBOX_TILED_SRC"
_MODELS = (
    ("checkpoints", "sd_xl_base_1.0.safetensors", 4 << 20),
    ("vae", "sdxl_vae.safetensors", 1 << 20),
    ("loras", "detail_tweaker_xl.safetensors", 200 << 10),
    ("controlnet", "controlnet_union_sdxl.safetensors", 300 << 10),
)
