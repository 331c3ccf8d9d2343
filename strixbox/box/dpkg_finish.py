"""Writer: has dpkg finish what it was stopped in.

A package that cannot be configured (amdgpu-dkms on a newer kernel, most often) does not count: the
journal is written down all the same, apt works again, and the run may purge that very package.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from strixbox.box._output import ran


def main(order: dict[str, Any]) -> None:
    """``{"words", "updates"}``: dpkg's command, and its directory of unfinished changes."""
    answer = ran(order["words"], DEBIAN_FRONTEND="noninteractive")
    lines = (answer.stdout + answer.stderr).splitlines()[-20:]
    if any(name.isdigit() for name in os.listdir(order["updates"])):
        print("\n".join(lines), file=sys.stderr)
        raise SystemExit(
            "dpkg could not finish what it was stopped in; its words are above. Free disk room"
            " where they say so, or see sudo dpkg --audit, then run again"
        )
    if answer.returncode:
        print("\n".join([*lines, "dpkg works again; some packages are not configured"]), flush=True)


if __name__ == "__main__":
    main(json.load(sys.stdin))
