"""Reader: what apt would remove with a list of packages, without removing anything."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from strixbox.box._output import ran

# A removal needs no source: with AMD's old ones beside ours apt may not even be able to read them.
NO_SOURCES = ("Dir::Etc::SourceList=/dev/null", "Dir::Etc::SourceParts=/dev/null")
IN_MEMORY = ("Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=")


def removed(output: str) -> list[str]:
    """Packages of the lines ``Remv`` and ``Purg`` of ``apt-get --simulate``.

    apt writes an architecture only where it is not the box's own.
    """
    return sorted(set(re.findall(r"^(?:Remv|Purg) (\S+)", output, re.MULTILINE)))


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"packages"}`` -> what would go, or what apt said where it refuses."""
    options = [word for option in (*NO_SOURCES, *IN_MEMORY) for word in ("-o", option)]
    words = ("apt-get", "--simulate", "--no-auto-remove", "--allow-change-held-packages")
    answer = ran([*words, *options, "purge", *query["packages"]])
    said = answer.stderr.strip() if answer.returncode else None
    return {"removed": removed(answer.stdout), "refused": said}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
