"""Reader: one account of the box."""

from __future__ import annotations

import grp
import json
import os
import pwd
import sys
from typing import Any


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"user"}`` -> home, uid, gid and the names of all its groups."""
    try:
        account = pwd.getpwnam(query["user"])
    except KeyError:
        return {"exists": False, "home": None, "uid": None, "gid": None, "groups": []}
    groups = []
    for gid in os.getgrouplist(account.pw_name, account.pw_gid):
        try:
            groups.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return {
        "exists": True,
        "home": account.pw_dir,
        "uid": account.pw_uid,
        "gid": account.pw_gid,
        "groups": sorted(groups),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
