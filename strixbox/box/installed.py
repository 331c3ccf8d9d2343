"""Reader: version and hold of packages by name."""

from __future__ import annotations

import json
import sys
from typing import Any

from strixbox.box._output import ran

FORM = "${Package}\t${Architecture}\t${db:Status-Abbrev}\t${Version}\n"


def installed(names: list[str], query: str) -> dict[str, dict[str, Any]]:
    """Version (None: not installed whole) and whether it is held, of the box's own architecture.

    That is dpkg's, which is asked about as well.
    """
    found: dict[str, dict[str, Any]] = {name: {"version": None, "held": False} for name in names}
    lines = [line.split("\t") for line in query.splitlines()]
    native = next((line[1] for line in lines if line[0] == "dpkg"), "")
    for name, architecture, status, version in lines:
        if name in found and status[1:2] == "i" and architecture in (native, "all"):
            found[name] = {"version": version, "held": status.startswith("h")}
    return found


def main(query: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """``{"packages"}``; the hold is dpkg's own, since apt-mark needs sources that can be read."""
    command = ["dpkg-query", "--show", f"--showformat={FORM}", "dpkg", *query["packages"]]
    return installed(query["packages"], ran(command).stdout)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
