"""Reader: what apt would remove with a list of packages, without removing anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any


def removed(output: str) -> list[str]:
    """Packages of the lines ``Remv`` and ``Purg`` of ``apt-get --simulate``."""
    names = re.findall(r"^(?:Remv|Purg) (\S+)", output, re.MULTILINE)
    return sorted({name.partition(":")[0] for name in names})


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"packages"}`` -> what would go, or what apt said where it refuses."""
    command = ["apt-get", "--simulate", "--allow-change-held-packages", "purge", *query["packages"]]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    said = answer.stderr.strip() if answer.returncode else None
    return {"removed": removed(answer.stdout), "refused": said}


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
