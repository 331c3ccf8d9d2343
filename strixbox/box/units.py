"""Reader: units as systemd has them."""

from __future__ import annotations

import json
import sys
from typing import Any

from strixbox.box._units import shown


def main(query: dict[str, Any]) -> dict[str, dict[str, bool]]:
    """``{"units": [...]}`` -> ``enabled`` and ``stale`` (not read as it is written) by unit."""
    known = shown(query["units"], "UnitFileState", "NeedDaemonReload")
    return {
        name: {
            "enabled": unit["UnitFileState"] == "enabled",
            "stale": unit["NeedDaemonReload"] == "yes",
        }
        for name, unit in known.items()
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
