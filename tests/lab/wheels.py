"""Tiny importable wheels with the real version strings, and a simple index of real ones."""

from __future__ import annotations

import base64
import hashlib
import html
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StandIn:
    """A wheel of our own: project, version, what it requires and its modules."""

    project: str
    version: str
    requires: tuple[str, ...]
    modules: dict[str, str]

    def write(self, folder: Path, tag: str) -> Path:
        """Write the wheel for ``tag``; the same input gives the same bytes."""
        distribution = self.project.replace("-", "_")
        path = folder / f"{distribution}-{self.version}-{tag}.whl"
        info = f"{distribution}-{self.version}.dist-info"
        requires = "".join(f"Requires-Dist: {name}\n" for name in self.requires)
        files: dict[str, str | bytes] = dict(self.modules)
        files[f"{info}/METADATA"] = (
            f"Metadata-Version: 2.1\nName: {self.project}\nVersion: {self.version}\n{requires}"
        )
        files[f"{info}/WHEEL"] = (
            f"Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: false\nTag: {tag}\n"
        )
        _pack(path, info, files)
        return path


def _pack(path: Path, info: str, files: dict[str, str | bytes]) -> None:
    """Write a wheel of these files with its RECORD."""
    contents = {n: c.encode() if isinstance(c, str) else c for n, c in files.items()}
    record = [f"{name},{_hash(content)},{len(content)}" for name, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, (2025, 7, 23, 10, 0, 0)), content)


def _hash(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


_DECLARATIONS = """import torch

_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def cpu_torchvision(wheel: Path) -> Path:
    """Make torchvision's wheel of the public index, a CUDA build, one that a CPU torch can import.

    Its C++ operators need libtorch_cuda and do not load, which torchvision itself passes over; but
    it also registers fake kernels for two of them, which then do not exist. They are declared here
    without an implementation: ComfyUI calls neither. Needed until the index has a CPU build.
    """
    project, version, *rest = wheel.stem.split("-")
    old, new = f"{project}-{version}.dist-info", f"{project}-{version}+cpu.dist-info"
    files: dict[str, str | bytes] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith((".so", "/RECORD")) and not name.startswith("torchvision.libs/"):
                files[name.replace(old, new)] = archive.read(name)
        extension = archive.read("torchvision/extension.py").decode()
        metadata = archive.read(f"{old}/METADATA").decode()
    files[f"{new}/METADATA"] = metadata.replace(
        f"\nVersion: {version}", f"\nVersion: {version}+cpu"
    )
    files["torchvision/extension.py"] = _DECLARATIONS + extension
    path = wheel.with_name(f"{project}-{version}+cpu-{'-'.join(rest)}.whl")
    _pack(path, new, files)
    wheel.unlink()
    return path


# AMD's lightweight wheels take ROCm's libraries from wherever the loader finds them.
_LIGHTWEIGHT = """import os

_NEEDED = "libroctx64.so.4"
_PLACES = os.environ.get("LD_LIBRARY_PATH", "").split(":")
if not any(os.path.exists(os.path.join(place, _NEEDED)) for place in _PLACES):
    raise ImportError(f"{_NEEDED}: cannot open shared object file: No such file or directory")
"""


def torch(version: str, hip: str | None, cuda: str | None, requires: tuple[str, ...]) -> StandIn:
    """A torch that imports and tells its kind; without a GPU, like in any container."""
    needs = _LIGHTWEIGHT if ".lw." in version else ""
    return StandIn(
        "torch",
        version,
        requires,
        {
            "torch/version.py": (f"__version__ = {version!r}\ncuda = {cuda!r}\nhip = {hip!r}\n"),
            "torch/cuda.py": (
                "def is_available():\n    return False\n\n\ndef get_arch_list():\n    return []\n"
            ),
            "torch/__init__.py": (
                f"{needs}from torch import cuda, version\nfrom torch.version import __version__\n"
            ),
        },
    )


def _module(project: str, version: str, requires: tuple[str, ...]) -> StandIn:
    name = project.replace("-", "_")
    return StandIn(project, version, requires, {f"{name}/__init__.py": f"v = {version!r}\n"})


def stacks() -> dict[str, list[StandIn]]:
    """The torch family of each ROCm release."""
    return {
        "6.4.2": [
            torch(
                "2.6.0+rocm6.4.2.git76481f7c",
                "6.4.43484-123eb5128",
                None,
                ("pytorch-triton-rocm==3.2.0+rocm6.4.2.git7e948ebf", "numpy"),
            ),
            _module(
                "torchvision",
                "0.21.0+rocm6.4.2.git4040d51f",
                ("torch==2.6.0+rocm6.4.2.git76481f7c", "numpy"),
            ),
            _module(
                "torchaudio",
                "2.6.0+rocm6.4.2.gitd8831425",
                ("torch==2.6.0+rocm6.4.2.git76481f7c",),
            ),
            _module("pytorch-triton-rocm", "3.2.0+rocm6.4.2.git7e948ebf", ()),
        ],
        "7.2.1": [
            torch(
                "2.9.1+rocm7.2.1.lw.gitff65f5bc",
                "7.2.53211",
                None,
                ("triton==3.5.1+rocm7.2.1.gita272dfa8", "numpy"),
            ),
            _module(
                "torchvision",
                "0.24.0+rocm7.2.1.gitb919bd0c",
                ("torch==2.9.1+rocm7.2.1.lw.gitff65f5bc", "numpy"),
            ),
            _module(
                "torchaudio",
                "2.9.0+rocm7.2.1.gite3c6ee2b",
                ("torch==2.9.1+rocm7.2.1.lw.gitff65f5bc",),
            ),
            _module("triton", "3.5.1+rocm7.2.1.gita272dfa8", ()),
        ],
    }


def traps() -> list[StandIn]:
    """What the public index would put in torch's place, and a package that asks for it."""
    return [
        torch("2.15.0", None, "13.0", ("nvidia-cublas",)),
        _module("nvidia-cublas", "13.0.0.19", ()),
        _module("comfy-extra-dep", "1.0", ("torch>=2.0",)),
    ]


def write_index(folder: Path, wheels: list[Path]) -> None:
    """A PEP 503 index of ``wheels`` below ``folder``, with sha256 in every link."""
    projects: dict[str, list[Path]] = {}
    for wheel in wheels:
        projects.setdefault(wheel.name.split("-")[0].lower().replace("_", "-"), []).append(wheel)
    for project, files in projects.items():
        page = folder / project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        links = []
        for file in sorted(files):
            (page.parent / file.name).write_bytes(file.read_bytes())
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            name = html.escape(file.name)
            links.append(f'<a href="{name.replace("+", "%2B")}#sha256={digest}">{name}</a><br>')
        page.write_text("<!DOCTYPE html>\n" + "\n".join(links) + "\n", encoding="utf-8")
    root = "\n".join(f'<a href="{name}/">{name}</a><br>' for name in sorted(projects))
    (folder / "index.html").write_text(f"<!DOCTYPE html>\n{root}\n", encoding="utf-8")
