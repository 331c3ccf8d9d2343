"""What the block in ~/.bashrc costs an ssh command: the same command with and without it, in turn.

bash reads ~/.bashrc for every command that comes over ssh, so each millisecond there is paid by
every scp, rsync, git push and Ansible task. Needs a lab box that has been deployed to
(``bin/lab up --state converged``); ``bin/uv run python -m benchmarks.bashrc_block``.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time

from tests.lab import Box, Lab

ROUNDS = 60
BASHRC = "/home/strix/.bashrc"


def seconds(ssh: list[str]) -> float:
    """How long one ssh command takes over a connection that stands already."""
    begin = time.perf_counter()
    subprocess.run([*ssh, "bash -c true"], check=True, capture_output=True)
    return time.perf_counter() - begin


def measure(box: Box) -> tuple[list[float], list[float]]:
    """Seconds with the block and without it, pair by pair in changing order."""
    box.run(
        f"cp -p {BASHRC} {BASHRC}.with && sed '/>>> strixbox/,/<<< strixbox/d' {BASHRC}.with"
        f" > {BASHRC}.without && chown strix: {BASHRC}.without"
    )
    taken: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        options = ("-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/s", "-q")
        hosts = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
        ssh = ["ssh", "-i", str(box.key), *hosts, *options, f"strix@{box.address}"]
        master = subprocess.Popen([*ssh, "-N"])
        try:
            time.sleep(1)
            for number in range(ROUNDS):
                order = ("with", "without") if number % 2 else ("without", "with")
                for kind in order:
                    box.run(f"cp -p {BASHRC}.{kind} {BASHRC}")
                    taken[kind].append(seconds(ssh))
        finally:
            master.terminate()
            box.run(f"mv {BASHRC}.with {BASHRC} && rm {BASHRC}.without")
    return taken["with"], taken["without"]


def main() -> None:
    """Print both medians and the median of the differences."""
    box = next(box for box in Lab().boxes() if "strixbox" in box.read(BASHRC))
    block, plain = measure(box)
    extra = statistics.median(a - b for a, b in zip(block, plain, strict=True))
    print(f"with the block    {statistics.median(block) * 1e3:7.2f} ms")
    print(f"without           {statistics.median(plain) * 1e3:7.2f} ms")
    print(f"median difference {extra * 1e3:7.2f} ms over {ROUNDS} pairs")


if __name__ == "__main__":
    main()
