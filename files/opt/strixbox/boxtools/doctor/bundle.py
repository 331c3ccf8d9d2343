"""One file to ask for help with: findings, versions and logs, without what is private."""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import re
import tarfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from boxtools.doctor import symptoms
from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import Finding
from boxtools.doctor.redact import Redactor, redactor
from boxtools.doctor.world import World
from boxtools.errors import Trouble
from boxtools.gpu import Gpu
from boxtools.server import Server

SAMPLES = 5  # of the GPU, a fifth of a second apart
# Variables whose values are technical; of all others only the name is told.
PLAIN = re.compile(
    r"(?:HSA|HIP|ROCR|ROCM|GPU|AMD|PYTORCH|TORCH|MIOPEN|ROCBLAS|HIPBLASLT|TRITON|OMP|MKL|OPENBLAS"
    r"|MIGRAPHX|RADV|LD|PIP|UV|STRIXBOX|CUDA|COMFYUI)_\w+"
)
# Lines of ComfyUI's log that are written by its own code and hold nothing of the user's
# (v0.3.64: main.py, server.py, comfy/model_management.py), and those of systemd and tqdm. Any other
# line may hold a prompt and is left out, unless it is a known error or part of a traceback.
OWN_LINES = re.compile(
    r"(?:Total VRAM \d+ MB, total RAM \d+ MB|pytorch version: \S+|AMD arch: \S+|Device: .{1,60}"
    r"|ROCm version: .{1,20}|Set vram state to: \w+|Using \w[\w -]{0,40}attention\w*"
    r"|Python version: .{1,90}|ComfyUI version: \S+|ComfyUI frontend version: \S+|got prompt"
    r"|Prompt executed in [\d.:]+(?: seconds)?|Starting server|Requested to load \w+"
    r"|loaded (?:completely|partially)[ \d.a-zA-Z]{0,60}|model weight dtype torch\.\w+.{0,60}"
    r"|model_type \w+|VAE load device: .{1,90}|CLIP/text encoder model load device: .{1,120}"
    r"|Processing interrupted|Stopped server|Unloading models.{0,30}|\d+ models unloaded\."
    r"|Using (?:RAM|LRU) .{1,20}|Disabling smart memory management|Checkpoint files will .{1,60}"
    r"|\s*\d{1,3}%\|.{0,200}|Started .{1,80}|Starting .{1,80}|Stopp(?:ed|ing) .{1,80}"
    r"|\S+\.service: .{1,160}|Traceback \(most recent call last\):|During handling of .{1,60})"
)
# What stands for something that was left out: of the redactor, and of the functions here.
STAND_IN = re.compile(
    r"<(?:user|host|id|serial|prompt|key|query|private key|mail|uuid|mac|address|image|model|set"
    r"|text)>"
)
FRAME = re.compile(r'\s*File "[^"\n]{1,300}", line \d{1,7}, in [\w<>.]{1,80}')
ERROR = re.compile(
    r"(?:!!! Exception during processing !!! )?((?:[\w.]{1,100}\.)?\w{1,60}"
    r"(?:Error|Exception|Warning|Interrupt|Exit)):? ?(.{0,400})"
)


def log_lines(lines: Iterable[str]) -> list[str]:
    """Lines of the service's log that may be shown; what is left out is counted."""
    kept: list[str] = []
    left = 0
    for line in lines:
        shown = _shown(line.rstrip())
        if shown is None:
            left += 1
            continue
        if left:
            kept.append(f"<{left} lines left out>")
            left = 0
        kept.append(shown)
    return [*kept, f"<{left} lines left out>"] if left else kept


def _shown(line: str) -> str | None:
    if OWN_LINES.fullmatch(line) or FRAME.fullmatch(line):
        return line
    found = symptoms.explain(line)
    error = ERROR.fullmatch(line)
    if found and not error:
        return _without_quotes(line)
    if error:
        return _without_quotes(line) if found else f"{error[1]}: {_without_quotes(error[2])}"
    return None


def _without_quotes(text: str) -> str:
    """A message without what it quotes, unless that is a flag, a type or a library."""

    def keep(match: re.Match[str]) -> str:
        plain = re.fullmatch(r"--[\w-]+|[\w.]+\.so[\w.]*|[a-zA-Z_.0-9]{1,40}", match[2])
        return match[0] if plain else f"{match[1]}<text>{match[1]}"

    return re.sub(r"(['\"])((?:(?!\1).){1,400})\1", keep, text)


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Variables as they may be shown."""
    return {n: v if PLAIN.fullmatch(n) else "<set>" for n, v in sorted(variables.items())}


def contents(
    facts: Facts, findings: list[Finding], stats: dict[str, Any] | None, gpus: list[Gpu]
) -> dict[str, Any]:
    """Every part of the bundle by file name, not redacted yet: a JSON value, or lines."""
    settings, release, service = facts.settings, facts.software.release, facts.service
    process = service.process
    versions = {
        "kernel": facts.machine.kernel,
        "linux-firmware": facts.machine.firmware,
        "amdgpu-dkms": facts.machine.dkms,
        "distribution": None,
        "python of the tools": platform.python_version(),
        "stack": settings.stack,
        "torch": asdict(release.torch) if release.torch else None,
        "packages": [f"{name}=={version}" for name, version in sorted(release.packages.items())],
        "pins": [f"{name}=={version}" for name, version in sorted(release.pins.items())],
        "targets": facts.machine.targets,
    }
    unit = {
        **asdict(service.unit),
        "argv": process.argv if process else None,
        "environment": environment(facts.environment),
        "groups": process.gids if process else None,
        "listeners": [asdict(one) for one in service.listeners],
        "refused flags": facts.software.flags,
    }
    profiles = {
        name: {"flags": one.flags, "variables": one.variables, "preload": one.preload}
        for name, one in settings.profiles.items()
    }
    variables = {name: one.value for name, one in settings.variables.items()}
    kernel = [
        line
        for line in service.kernel_log or ()
        if re.search(r"amdgpu|kfd|drm\]|oom|Out of memory|thermal|nvme|EXT4", line)
        and not re.search(r"serial", line, re.IGNORECASE)
    ]
    return {
        "findings.json": [finding.model_dump() for finding in findings],
        "versions.json": versions,
        "release.json": release.seal,
        "service.json": unit,
        "profiles.json": {"profiles": profiles, "variables": environment(variables)},
        "system_stats.json": stats,
        "gpu.json": [asdict(gpu) for gpu in gpus],
        "memory.json": asdict(facts.machine.memory) if facts.machine.memory else None,
        "service.log": log_lines(service.log or ()),
        "kernel.log": kernel[-400:],
    }


def redacted(parts: dict[str, Any], redact: Redactor) -> dict[str, bytes]:
    """The parts as they go into the file."""
    files = {}
    for name, part in parts.items():
        plain = redact.value(part)
        if name.endswith(".log"):
            text = "".join(f"{line}\n" for line in plain)
        else:
            text = json.dumps(plain, indent=1, default=str) + "\n"
        files[name] = text.encode("utf-8", errors="replace")
    return files


def replaced(files: dict[str, bytes]) -> dict[str, int]:
    """What stands in the files for something private, and how often."""
    found = Counter(STAND_IN.findall(b"\n".join(files.values()).decode(errors="replace")))
    return dict(sorted(found.items()))


def archive(files: dict[str, bytes], now: float) -> bytes:
    """A .tar.gz of the files, which tells nothing of who made it."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=int(now)) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in files.items():
            member = tarfile.TarInfo(f"strixbox-doctor/{name}")
            member.size, member.mtime, member.mode = len(content), int(now), 0o600
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write the bundle for its owner's eyes only; never over another file.

    Raises:
        Trouble: where there is a file already or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Trouble(f"{path} is there already; name another file") from None
    except OSError as error:
        raise Trouble(f"{path} cannot be written ({error.strerror}); name another file") from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # Under sudo it is for the person who called it.
        owner = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
        if os.geteuid() == 0 and all(number.isdecimal() for number in owner):
            os.chown(path, int(owner[0]), int(owner[1]))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Trouble(f"{path} cannot be written ({error.strerror}); name another file") from None


def collect(world: World, facts: Facts, findings: list[Finding]) -> dict[str, bytes]:
    """Everything, redacted, by file name."""
    graphs = []
    server = Server(facts.settings.url)
    for path in ("/history", "/queue") if facts.service.answer.stats is not None else ():
        try:
            graphs.append(server.table(path))
        except Trouble:
            continue
    gpus = []
    for number in range(SAMPLES if facts.machine.gpu else 0):
        time.sleep(0.2 if number else 0)
        gpu = world.gpu(world.root)
        gpus += [gpu] if gpu else []
    parts = contents(facts, findings, facts.service.answer.stats, gpus)
    names = re.findall(
        r'^PRETTY_NAME="?([^"\n]{1,80})', world.text("/etc/os-release"), re.MULTILINE
    )
    parts["versions.json"]["distribution"] = names[0] if names else None
    return redacted(parts, redactor(world, facts.settings, graphs))
