"""Writer: many links, each made by one rename; what stands there and is no link is left alone.

They are made as the account that owns the directories: a link that something of its own planted
there leads no further than the account itself may go.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from strixbox.box._account import become
from strixbox.box._links import lead


def main(order: dict[str, Any]) -> None:
    """``{"links": [[path, target]], "owner"}``."""
    become(order["owner"])
    for path, target in order["links"]:
        try:
            lead(path, target)
        except OSError as error:
            raise SystemExit(
                f"{path} could not be made a link by {order['owner']}: {error.strerror}; see who"
                f" owns {os.path.dirname(path)} (sudo chown {order['owner']}: gives it back), then"
                " run again"
            ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
