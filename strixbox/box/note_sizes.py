"""Writer: notes which files of an environment were installed otherwise than their RECORDs say."""

from __future__ import annotations

import json
import sys
from typing import Any

from strixbox.box._records import note_sizes


def main(order: dict[str, Any]) -> None:
    """``{"environment": path}``, right after something was installed into it."""
    note_sizes(order["environment"])


if __name__ == "__main__":
    main(json.load(sys.stdin))
