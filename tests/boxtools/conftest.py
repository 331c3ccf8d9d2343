"""A small server in ComfyUI's place, and the settings of a box that runs it.

The server is tests/lab/comfyui_standin, the same that the lab's boxes run, with the lab's locked
packages. ``standin`` is one of its own for each test; ``shared_standin`` one for all tests that
leave it as they found it; ``settings`` what the deploy would have told the tools about ``standin``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from boxtools import settings as tools
from boxtools.settings import Profile, Settings, Variable

from tests.lab import wheels

ROOT = Path(__file__).parents[2]
CODE = ROOT / "tests/lab/comfyui_standin"
LOCK = ROOT / "files/opt/strixbox/locks/lab-standin.txt"
START = 30.0  # seconds for the server to answer; it takes one
# Of each folder, what a box has: (name, bytes of its only tensor).
MODELS = {
    "checkpoints": (("sd_xl_base_1.0", 64 << 10), ("sd_xl_refiner_1.0", 32 << 10)),
    "vae": (("sdxl_vae", 16 << 10),),
    "loras": (("detail_tweaker_xl", 8 << 10), ("lcm-lora-sdxl", 8 << 10)),
    "controlnet": (("controlnet_union_sdxl", 16 << 10),),
}


def safetensors(size: int, seed: str = "") -> bytes:
    """A valid .safetensors file of one tensor of ``size`` bytes; the same for the same seed."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    body = random.Random(seed).randbytes(size)  # noqa: S311 - the same bytes every time
    return struct.pack("<Q", len(header)) + header.encode() + body


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Standin:
    """A running stand-in; ``base`` is its --base-directory (models, input, output, user, ...)."""

    python: Path
    torch: Path  # directory of the torch that only tells its version
    base: Path
    port: int
    flags: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def temp(self) -> Path:
        """Its --temp-directory; its files are in ``temp`` below, as with ComfyUI."""
        return self.base.parent / "ramdisk"

    @property
    def log(self) -> str:
        """What it wrote to stdout and stderr so far, of every start."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def _log(self) -> Path:
        return self.base.parent / "standin.log"

    @property
    def environment(self) -> dict[str, str]:
        """Environment that it runs in."""
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(self.torch),
            "PYTHONDONTWRITEBYTECODE": "1",  # the tree is part of the checkout
            # torch's default is the current directory, which is the checkout as well.
            "PYTORCH_TUNABLEOP_FILENAME": str(self.base.parent / "tunableop_%d.csv"),
            **self.variables,
        }

    @property
    def argv(self) -> list[str]:
        """Flags that every start has."""
        return [
            *("--base-directory", str(self.base), "--temp-directory", str(self.temp)),
            *("--database-url", f"sqlite:///{self.base}/user/comfyui.db"),
            *("--listen", "127.0.0.1", "--port", str(self.port), *self.flags),
        ]

    def fault(self, word: str, wanted: bool = True) -> None:
        """Make it fail in that way from now on (see its README.md), or no longer."""
        note = self.base / "user" / word
        note.touch() if wanted else note.unlink(missing_ok=True)

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: with its log, where it ends or does not answer.
        """
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.python), "main.py", *self.argv],
                cwd=CODE,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START
        while wait:
            with contextlib.suppress(requests.RequestException):
                requests.get(f"{self.url}/prompt", timeout=START)
                return
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the stand-in does not answer:\n{self.log}")
            time.sleep(0.02)

    def stop(self) -> int:
        """End it as systemd does, with SIGINT; returns its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def restart(self, *flags: str, **variables: str) -> None:
        """Stop it and start it anew, with further flags and variables."""
        self.stop()
        self.flags += flags
        self.variables |= variables
        self.start()


@pytest.fixture(scope="session")
def standin_python(pytestconfig: pytest.Config) -> Path:
    """Python with the packages that the lab locks for the stand-in; made once, by digest."""
    key = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    assert pytestconfig.cache is not None
    home = pytestconfig.cache.mkdir("standin") / key
    if not home.exists():
        uv = str(ROOT / "bin/uv")
        made = home.with_name(f"{key}-{os.getpid()}")
        packages = ("--require-hashes", "--compile-bytecode", "--requirement", str(LOCK))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(made)], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", str(made / "bin/python"), *packages],
            check=True,
        )
        with contextlib.suppress(OSError):  # another run was faster: its copy is as good
            made.rename(home)
    return home / "bin/python"


@pytest.fixture(scope="session")
def fake_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the torch that the lab's boxes import."""
    home = tmp_path_factory.mktemp("torch")
    for name, text in wheels.stacks()["6.4.2"][0].modules.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return home


MakeStandin = Callable[..., Standin]


@pytest.fixture(scope="session")
def new_standin(
    standin_python: Path, fake_torch: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeStandin:
    """Makes stand-ins that are not started yet; who asks for one ends it."""

    def made(**own: object) -> Standin:
        base = tmp_path_factory.mktemp("standin") / "ComfyUI"
        for name in ("input", "output", "user", "custom_nodes"):
            (base / name).mkdir(parents=True)
        for folder, files in MODELS.items():
            (base / "models" / folder).mkdir(parents=True)
            for name, size in files:
                path = base / "models" / folder / f"{name}.safetensors"
                path.write_bytes(safetensors(size, name))
        return Standin(standin_python, fake_torch, base, free_port(), **own)  # type: ignore[arg-type]

    return made


@pytest.fixture
def make_standin(new_standin: MakeStandin) -> Iterator[MakeStandin]:
    """Makes stand-ins that are not started yet; they are ended with the test."""
    all_of_them: list[Standin] = []

    def make(**own: object) -> Standin:
        all_of_them.append(new_standin(**own))
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        one.stop()


@pytest.fixture
def standin(make_standin: MakeStandin) -> Standin:
    """A running stand-in with small models, which the test may disturb."""
    one = make_standin()
    one.start()
    return one


@pytest.fixture(scope="session")
def shared_standin(new_standin: MakeStandin) -> Iterator[Standin]:
    """A running stand-in for every test that leaves it as it found it."""
    one = new_standin()
    one.start()
    yield one
    one.stop()


LAUNCH = """#!{python}
import json, os, re, sys
profiles, environment, argv, program = json.loads({told!r})
flags = sys.argv[1:]
if not flags or flags[0] not in profiles:
    sys.exit("usage: launch PROFILE [NAME=VALUE...] [FLAG...]")
profile = profiles[flags.pop(0)]
os.environ.update(environment | profile["variables"])
while flags and re.match(r"[A-Z_][A-Z0-9_]*=", flags[0]):
    name, _, value = flags.pop(0).partition("=")
    os.environ[name] = value
    if not value:
        del os.environ[name]
os.chdir(os.path.dirname(program[1]))
os.execv(program[0], [*program, *argv, *profile["flags"], *flags])
"""
VARIABLES = {
    "PYTORCH_TUNABLEOP_ENABLED": Variable(value="1", does="Tunes matrix products."),
    "GPU_MAX_HEAP_SIZE": Variable(value="99", does="Lowers the GPU heap's bound."),
}
PROFILES = {
    "production": Profile(
        flags=("--highvram", "--use-pytorch-cross-attention"),
        variables=("PYTORCH_TUNABLEOP_ENABLED", "GPU_MAX_HEAP_SIZE"),
        preload=False,
    ),
    "normalvram": Profile(flags=("--normalvram",), variables=(), preload=False),
    "lowvram": Profile(flags=("--lowvram",), variables=("GPU_MAX_HEAP_SIZE",), preload=False),
}


@pytest.fixture
def settings(standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the tools are told of the box whose server is ``standin``; STRIXBOX_TOOLS names it."""
    box = tmp_path / "box"
    for name in ("state", "archive", "release"):
        (box / name).mkdir(parents=True)
    (box / "current").symlink_to(box / "release")
    launch = box / "launch"
    profiles = {
        name: {
            "flags": profile.flags,
            "variables": {v: VARIABLES[v].value for v in profile.variables},
        }
        for name, profile in PROFILES.items()
    }
    program = [str(standin.python), str(CODE / "main.py")]
    told = json.dumps([profiles, standin.environment, standin.argv, program])
    launch.write_text(LAUNCH.format(python=sys.executable, told=told), encoding="utf-8")
    launch.chmod(0o755)
    made = Settings(
        url=standin.url,
        user=os.environ.get("USER", "root"),
        service="comfyui.service",
        base_directory=standin.base,
        temp_directory=standin.temp,
        archive=box / "archive",
        current=box / "current",
        launch=launch,
        state=box / "state",
        stack="rocm-6.4.2",
        torch="2.6.0+rocm6.4.2.git76481f7c",
        hip="6.4",
        tunableop=box / "state/tunableop/rocm-6.4.2-%d.csv",
        profile="production",
        profiles=PROFILES,
        variables=VARIABLES,
        models=(),
        ram_gib=128,
    )
    file = box / "tools.json"
    file.write_text(made.model_dump_json(), encoding="utf-8")
    monkeypatch.setenv(tools.ENVIRONMENT, str(file))
    return made
