"""Writer: uv at a pinned version and hash, in a directory of its own.

pip installs it, run from the wheel that new environments get theirs from (ensurepip): unpacking
that first takes longer than all the rest.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
import venv
from typing import Any

from strixbox.box._atomic import ASIDE, mend
from strixbox.box._records import note_sizes

# Debian and Ubuntu keep the wheels in a package of their own; Python keeps them in its library.
WHEELS = ("/usr/share/python-wheels", f"{os.path.dirname(os.__file__)}/ensurepip/_bundled")


def pip_wheel() -> str:
    """Path of the system's wheel of pip.

    Raises:
        SystemExit: where it has none.
    """
    found = [path for place in WHEELS for path in sorted(glob.glob(f"{place}/pip-*.whl"))]
    if not found:
        raise SystemExit("pip's wheel is not on the box; install python3-venv, then run again")
    return found[0]


def install(where: str, order: dict[str, Any]) -> None:
    """Install the pinned version into the environment ``where``, or stop with pip's words."""
    answer = subprocess.run(
        [
            *(f"{where}/bin/python", f"{pip_wheel()}/pip"),
            *("--disable-pip-version-check", "--no-cache-dir", "install", "--quiet", "--no-deps"),
            *("--require-hashes", "--only-binary", ":all:", "--index-url", order["index"]),
            # A mirror on the LAN may be plain http: the hash says whether it is the right wheel.
            *("--trusted-host", order["host"], "--requirement", "/dev/stdin"),
        ],
        input=order["requirement"],
        # pip's own temporary files go with it: in /tmp nobody could tell whose they are.
        # And no /etc/pip.conf: another index there, or --user, would be obeyed.
        env={**os.environ, "TMPDIR": where, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if answer.returncode != 0:
        print(answer.stderr.strip(), file=sys.stderr, flush=True)
        raise SystemExit(order["mend"])


def main(order: dict[str, Any]) -> None:
    """``{"path", "requirement", "index", "host", "mend"}``."""
    path = order["path"]
    # Made aside and renamed when it is whole: pip leaves half a program where the disk runs full.
    aside = path + ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    try:
        venv.create(aside, symlinks=True)
        install(aside, order)
        note_sizes(aside)
        if os.path.lexists(path):
            shutil.rmtree(path)
        os.rename(aside, path)
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; {mend(error)}, then run again") from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
