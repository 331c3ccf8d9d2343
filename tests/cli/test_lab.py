"""The lab's command line, with a podman that never ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_ctrl_c_is_one_sentence_and_130(tmp_path: Path) -> None:
    podman, began = tmp_path / "podman", tmp_path / "began"
    podman.write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 60\n")
    podman.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "status"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not began.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told == "lab: status was interrupted; run it again, and it goes on with what is there\n"
