"""The packs as modules, and the real ComfyUI with both of them loaded."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
from boxtools.server import Server

from tests.boxtools.conftest import free_port

ROOT = Path(__file__).parents[2]
PACK = ROOT / "files/opt/strixbox/nodes/strixbox"
PROFILER = ROOT / "files/opt/strixbox/nodes-extra/strixbox-profiler"
SOURCE = os.environ.get("STRIXBOX_COMFYUI_SRC")
PYTHON = os.environ.get("STRIXBOX_COMFYUI_PYTHON")
START = 180.0  # seconds; it takes 15 to 25

# Two VAEs of SD's architecture with random weights; the second differs in one weight.
MAKE_VAES = """
import sys, torch
from comfy.cli_args import args
args.cpu = True
from safetensors.torch import save_file
from comfy.ldm.models.autoencoder import AutoencoderKL
torch.manual_seed(1)
model = AutoencoderKL(embed_dim=4, ddconfig={"double_z": True, "z_channels": 4, "resolution": 256,
    "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2,
    "attn_resolutions": [], "dropout": 0.0})
for name, parameter in model.named_parameters():  # ComfyUI's layers leave them as memory was
    if parameter.ndim > 1:
        torch.nn.init.normal_(parameter, std=0.02)
    else:
        torch.nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
save_file(state, sys.argv[1] + "/first.safetensors")
state["encoder.conv_in.weight"][5, 1, 1, 1] += 0.25
save_file(state, sys.argv[1] + "/second.safetensors")
"""


class FakeTensor:
    """As much of a tensor as the cache touches; the numbers are numpy's."""

    def __init__(self, values: Any, device: str = "cpu") -> None:
        self.values = np.asarray(values)
        self.device = device

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def dtype(self) -> str:
        return f"torch.{self.values.dtype}"

    def __getitem__(self, where: Any) -> FakeTensor:
        return FakeTensor(self.values[where], self.device)

    def detach(self) -> FakeTensor:
        return self

    def cpu(self) -> FakeTensor:
        return FakeTensor(self.values)

    def contiguous(self) -> FakeTensor:
        return FakeTensor(np.ascontiguousarray(self.values).reshape(self.values.shape))

    def float(self) -> FakeTensor:
        return FakeTensor(self.values.astype(np.float32))

    def reshape(self, *shape: int) -> FakeTensor:
        return FakeTensor(self.values.reshape(*shape))

    def view(self, dtype: Any) -> FakeTensor:
        return FakeTensor(self.values.view(dtype))

    def numpy(self) -> Any:
        return self.values

    def numel(self) -> int:
        return int(self.values.size)

    def element_size(self) -> int:
        return int(self.values.itemsize)

    def to(self, device: str, copy: bool = False) -> FakeTensor:
        return FakeTensor(self.values.copy() if copy else self.values, device)


class Routes:
    """What the packs add to ComfyUI's routes."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Any] = {}

    def route(self, method: str, path: str) -> Any:
        return lambda handler: self.handlers.setdefault((method, path), handler)

    def ask(self, method: str, path: str, body: bytes = b"", **request: Any) -> tuple[int, Any]:
        """Status and answer of a request from this machine, unless told otherwise."""

        async def read() -> bytes:
            return body

        words = SimpleNamespace(
            method=method,
            remote=request.get("remote", "127.0.0.1"),
            headers=request.get("headers", {"Host": "127.0.0.1:8188"}),
            body_exists=bool(body),
            content_length=request.get("length", len(body)),
            read=read,
        )
        told: tuple[int, Any] = asyncio.run(self.handlers[method, path](words))
        return told


def fake(name: str, **attributes: Any) -> ModuleType:
    """A module that has these attributes."""
    made = ModuleType(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


@dataclass
class Comfyless:
    """Fakes in the place of torch, aiohttp and ComfyUI, and packs loaded over them."""

    patch: pytest.MonkeyPatch
    torch: ModuleType
    routes: Routes

    def load(self, folder: Path) -> ModuleType:
        """A pack, loaded as ComfyUI's nodes.py loads it: by file, under its path as a name."""
        name = str(folder).replace(".", "_x_")
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        for old in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            self.patch.delitem(sys.modules, old)
        self.patch.setitem(sys.modules, name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    def part(self, folder: Path, name: str) -> ModuleType:
        """One file of a pack."""
        return importlib.import_module(f".{name}", self.load(folder).__name__)


@pytest.fixture
def comfyless(monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfyless]:
    """Torch that sees no GPU, ComfyUI that only collects routes."""
    cuda = fake("torch.cuda", is_available=lambda: False)
    version = fake("torch.version", hip=None)
    torch = fake("torch", cuda=cuda, version=version, Tensor=FakeTensor, uint8=np.uint8)
    torch.__version__ = "2.6.0"  # type: ignore[attr-defined]
    routes = Routes()
    web = fake("aiohttp.web", json_response=lambda told, status=200: (status, told))
    server = SimpleNamespace(instance=SimpleNamespace(routes=routes))
    for name, made in {
        "torch": torch,
        "torch.cuda": cuda,
        "aiohttp": fake("aiohttp", web=web),
        "aiohttp.web": web,
        "server": fake("server", PromptServer=server),
    }.items():
        monkeypatch.setitem(sys.modules, name, made)
    before = set(sys.modules)
    yield Comfyless(monkeypatch, torch, routes)
    for name in set(sys.modules) - before:
        if "strixbox/nodes" in name:
            del sys.modules[name]


@dataclass
class Comfy:
    """A running ComfyUI with the packs."""

    server: Server
    base: Path
    log: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.server.url


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    """The real ComfyUI, on the CPU, with both packs by an extra model paths file."""
    if not SOURCE or not PYTHON:
        pytest.skip("STRIXBOX_COMFYUI_SRC and STRIXBOX_COMFYUI_PYTHON name no ComfyUI")
    base = tmp_path_factory.mktemp("comfy")
    for name in ("input", "output", "user", "custom_nodes", "models/vae", "packs"):
        (base / name).mkdir(parents=True)
    # As on a box: a directory of packs beside the user's own custom_nodes.
    for pack in (PACK, PROFILER):
        (base / "packs" / pack.name).symlink_to(pack)
    (base / "paths.yaml").write_text(f"packs:\n  custom_nodes: {base}/packs\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [PYTHON, "-c", MAKE_VAES, str(base / "models/vae")],
        cwd=SOURCE,
        env=environment,
        check=True,
        capture_output=True,
    )
    log = base / "comfyui.log"
    port = free_port()
    words = [
        *(PYTHON, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)),
        *("--base-directory", str(base), "--temp-directory", str(base / "ramdisk")),
        *("--database-url", f"sqlite:///{base}/user/comfyui.db", "--disable-api-nodes"),
        *("--extra-model-paths-config", str(base / "paths.yaml")),
        "--use-pytorch-cross-attention",  # as on a box; the CPU's own choice is made of bmm
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words, cwd=SOURCE, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        running = Comfy(Server(f"http://127.0.0.1:{port}"), base, log)
        until = time.monotonic() + START
        while True:
            with contextlib.suppress(requests.RequestException):
                requests.get(f"{running.url}/prompt", timeout=5)
                break
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.3)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
