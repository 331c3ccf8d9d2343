"""Byte code of what those who run it may not write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from strixbox.operations.python import NEVER_LOADED
from tests.box.conftest import started


def test_what_is_loaded_is_compiled_and_nothing_is_run(tmp_path: Path) -> None:
    told = tmp_path / "told"
    for name in ("app/main.py", "app/tests/test_main.py", "broken.py"):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(told)!r}, 'w')\n")
    (tmp_path / "code" / "broken.py").write_text("print 'of another Python'\n")
    order = {"paths": [str(tmp_path / "code")], "without": NEVER_LOADED}
    assert started("bytecode", order).returncode == 0
    compiled = sorted(p.name.split(".")[0] for p in (tmp_path / "code").rglob("*.pyc"))
    assert compiled == ["main"]
    assert not told.exists()
    # Taken as it is by whoever runs the file, under the file's own name.
    words = [sys.executable, "-v", "-c", "import main"]
    code = tmp_path / "code" / "app"
    answer = subprocess.run(words, cwd=code, capture_output=True, text=True, check=True)
    assert f"matches {code / 'main.py'}" in answer.stderr


def test_a_directory_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    answer = started("bytecode", {"paths": [str(tmp_path / "none")], "without": None})
    assert answer.returncode == 0
