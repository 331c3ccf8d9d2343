"""Writer: many links, each made by one rename; what stands there and is no link is left alone."""

from __future__ import annotations

import json
import os
import pwd
import sys
from typing import Any


def main(order: dict[str, Any]) -> None:
    """``{"links": [[path, target]], "owner"}``."""
    account = pwd.getpwnam(order["owner"])
    for path, target in order["links"]:
        if os.path.lexists(path) and not os.path.islink(path):
            raise SystemExit(f"{path} is a file of its own; move it away and run again")
        aside = f"{path}.strixbox-new"
        if os.path.lexists(aside):
            os.unlink(aside)
        os.symlink(target, aside)
        os.lchown(aside, account.pw_uid, account.pw_gid)
        os.replace(aside, path)


if __name__ == "__main__":
    main(json.load(sys.stdin))
