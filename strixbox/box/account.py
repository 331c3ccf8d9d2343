"""Reader: one account of the box."""

from __future__ import annotations

import grp
import json
import os
import pwd
import sys
from typing import Any


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"user"}`` -> home, uid, gid, GECOS text and the names of all its groups."""
    try:
        account = pwd.getpwnam(query["user"])
    except KeyError:
        nothing = dict.fromkeys(("home", "uid", "gid", "gecos"))
        return {"exists": False, **nothing, "groups": []}
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
        "gecos": account.pw_gecos,
        "groups": sorted(groups),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
