"""Writer: proves a release and seals it with release.json; nothing is sealed that was not run.

What is proved: torch is the stack's ROCm build and, where there is a GPU, computes on it; every
launch profile's flags are accepted by this ComfyUI's own parser; ComfyUI starts with the user's
directory and loads the pinned nodes.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from strixbox.box._atomic import put

TORCH_PROOF = """
import json, os, torch
proof = {"version": torch.__version__, "hip": torch.version.hip, "archs": [], "gpu": None}
if os.path.exists("/dev/kfd") and torch.cuda.is_available():
    proof["archs"] = list(torch.cuda.get_arch_list())
    proof["gpu"] = torch.cuda.get_device_properties(0).gcnArchName
    a = torch.rand(256, 256, device="cuda")
    q = torch.rand(1, 4, 64, 32, device="cuda")
    torch.nn.functional.conv2d(a[None, None], a[None, None, :3, :3])
    torch.nn.functional.scaled_dot_product_attention(q, q, q)
    proof["product"] = bool(torch.isfinite(a @ a).all())
print(json.dumps(proof))
"""
PARSER_PROOF = """
import comfy.options
comfy.options.enable_args_parsing()
import comfy.cli_args
"""


class Prover:
    """Runs the release's programs as the user who will run the service."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.release = order["release"]
        self.code = os.path.join(self.release, "ComfyUI")
        self.python = os.path.join(self.release, "venv", "bin", "python")
        account = pwd.getpwnam(order["user"])
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": account.pw_dir,
            "USER": order["user"],
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **order["variables"],
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the release's Python in ComfyUI's directory, bounded in time."""
        try:
            return subprocess.run(
                [self.python, *words],
                cwd=self.code,
                env=self.environment,
                user=self.order["user"],
                group=pwd.getpwnam(self.order["user"]).pw_gid,
                extra_groups=os.getgrouplist(
                    self.order["user"], pwd.getpwnam(self.order["user"]).pw_gid
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=self.order["timeout"],
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(
                f"{self.release}: {' '.join(words)[:80]} did not end within"
                f" {self.order['timeout']} s; raise comfyui_start_timeout, or see dmesg"
            ) from None

    def torch(self) -> dict[str, Any]:
        """Torch imports, is the ROCm build, and computes where there is a GPU."""
        answer = self.run("-c", TORCH_PROOF)
        if answer.returncode < 0:
            raise SystemExit(f"torch of {self.release} was ended by {_killed(-answer.returncode)}")
        if answer.returncode != 0:
            raise SystemExit(
                f"torch of {self.release} does not work: {_last(answer.stdout)};"
                " see `strixbox` preflight's findings for kernel and firmware"
            )
        proof = told(answer.stdout)
        if proof is None:
            raise SystemExit(
                f"torch of {self.release} told nothing of itself: {_last(answer.stdout)}; run its"
                " venv/bin/python on the box, import torch, and mend what it says"
            )
        wanted = self.order["hip"]
        if wanted is not None and not str(proof["hip"] or "").startswith(wanted):
            raise SystemExit(
                f"torch {proof['version']} of {self.release} is not the build for ROCm"
                f" {wanted} (torch.version.hip is {proof['hip']}); remove"
                f" {self.release} and run again"
            )
        if proof.get("product") is False:
            raise SystemExit(
                f"torch of {self.release} computes wrong numbers on {proof['gpu']}: this build does"
                " not fit the chip; put the box into the group rocm_7_2 in boxes.yaml, or see"
                " launch_variables' HSA_OVERRIDE_GFX_VERSION"
            )
        return proof

    def flags(self) -> None:
        """Every profile's flags are known to this ComfyUI."""
        for profile, flags in self.order["profiles"].items():
            answer = self.run("-c", PARSER_PROOF, *flags)
            if answer.returncode != 0:
                raise SystemExit(
                    f"launch profile {profile}: this ComfyUI refuses its flags:"
                    f" {_last(answer.stdout)}; mend launch_profiles"
                )

    def start(self) -> list[str]:
        """ComfyUI starts and ends by itself; returns the user's nodes that did not load."""
        with scratch_of(self.order["user"]) as scratch:
            answer = self.run(
                *("main.py", "--quick-test-for-ci", *self.order["start_flags"]),
                *("--temp-directory", scratch, "--database-url", f"sqlite:///{scratch}/proof.db"),
            )
        failed = [line for line in answer.stdout.splitlines() if "(IMPORT FAILED)" in line]
        if answer.returncode != 0:
            raise SystemExit(
                f"ComfyUI of {self.release} does not start (exit {answer.returncode}):"
                f" {_last(answer.stdout)}; the release in use was left as it is"
            )
        ours = [line for line in failed if self.release in line]
        if ours:
            raise SystemExit(
                f"a pinned node does not load: {ours[0].strip()}; mend comfyui_nodes and run again"
            )
        # The path of a node, which may have blanks.
        return [line.partition("(IMPORT FAILED): ")[2].strip() for line in failed]


@contextmanager
def scratch_of(user: str) -> Iterator[str]:
    """A directory that goes again, of the user's within one of ours.

    It is held open meanwhile: leftovers.py takes away what nobody has open.
    """
    with tempfile.TemporaryDirectory(prefix="strixbox-proof-") as outer:
        held = os.open(outer, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.chmod(outer, 0o711)  # noqa: S103 - passed through, and root's alone to write
            scratch = os.path.join(outer, "scratch")
            os.mkdir(scratch, 0o700)
            os.chown(scratch, pwd.getpwnam(user).pw_uid, -1)
            yield scratch
        finally:
            os.close(held)


def told(output: str) -> dict[str, Any] | None:
    """What TORCH_PROOF prints, among the lines that libraries print before and after it."""
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and {"version", "hip"} <= found.keys():
            return found
    return None


def _killed(number: int) -> str:
    """The signal that ended torch, and what it means here."""
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
        # hipMalloc of 6.4.1, 7.0.2 and 7.1.0 segfaults on this chip (warpfront/hipfire PR 81).
        return (
            f"{signal.Signals(number).name} when it used the GPU: this ROCm does not work on this"
            " chip or with this kernel; put the box into the group rocm_7_2 in boxes.yaml, or see"
            " preflight's findings for kernel and firmware"
        )
    if number == signal.SIGKILL:
        return (
            "SIGKILL, most likely for want of memory (dmesg tells): stop what uses it, comfyui for"
            " one, then run again"
        )
    return f"signal {number}; see dmesg for who sent it, then run again"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def main(order: dict[str, Any]) -> None:
    """Prove ``order["release"]`` and write its release.json last of all."""
    prover = Prover(order)
    print("proving torch", flush=True)
    torch = prover.torch()
    print(f"proving the flags of {len(order['profiles'])} launch profiles", flush=True)
    prover.flags()
    print("starting ComfyUI once", flush=True)
    failed = prover.start()
    for node in failed:
        print(f"the user's node {node} does not load; it is left as it is", flush=True)
    sealed = {**order["seal"], "proof": {"torch": torch, "user_nodes_failed": failed}}
    sealed["built"] = int(time.time())
    path = os.path.join(order["release"], "release.json")
    # Everything that was written before must be on the disk when the seal is.
    os.sync()
    put(path, json.dumps(sealed, indent=1).encode(), 0o644)


if __name__ == "__main__":
    main(json.load(sys.stdin))
