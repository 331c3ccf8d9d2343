"""Reader: version and hold of packages by name."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def main(query: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """``{"packages"}`` -> version (None: not installed whole) and whether it is held."""
    form = "${Package}\t${db:Status-Abbrev}\t${Version}\n"
    command = ["dpkg-query", "--show", f"--showformat={form}", *query["packages"]]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    held = subprocess.run(["apt-mark", "showhold"], capture_output=True, text=True, check=False)
    found: dict[str, dict[str, Any]] = {
        name: {"version": None, "held": False} for name in query["packages"]
    }
    for line in answer.stdout.splitlines():
        name, status, version = line.split("\t")
        if name in found and status[1:2] == "i":
            found[name] = {"version": version, "held": name in held.stdout.split()}
    return found


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
