"""Writer: a git checkout at one commit, made aside and renamed into place.

Edits that somebody made in a checkout of ours are kept as a patch in the backup directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

from strixbox.box._backups import note

# Never ask for a password on a machine where nobody sits.
ENVIRONMENT = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
# git itself waits for ever on a line that has gone silent: under 1000 bytes a second for a minute
# is the end (git-config: http.lowSpeedLimit, http.lowSpeedTime).
STALL = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")


def git(path: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in ``path`` and return what it said."""
    settings = ("-c", "safe.directory=*", "-c", "advice.detachedHead=false", *STALL)
    command = ["git", *settings, "-C", path]
    return subprocess.run([*command, *words], env=ENVIRONMENT, capture_output=True, check=False)


def need(path: str, *words: str, mend: str) -> None:
    """Run git and stop with what it said and the mend where it fails."""
    answer = git(path, *words)
    if answer.returncode != 0:
        said = answer.stderr.decode(errors="replace").strip().splitlines()
        raise SystemExit(f"{said[-1] if said else 'git failed'}; {mend}")


def keep_edits(path: str, backups: str) -> None:
    """Save the difference to the commit as a patch, before the edits are taken back."""
    patch = git(path, "diff", "--binary", "HEAD").stdout
    if not patch:
        return
    name = f"{os.path.basename(path)}-{time.strftime('%Y%m%dT%H%M%S')}.patch"
    copy = os.path.join(backups, name)
    note(backups, path, copy, hashlib.sha256(patch).hexdigest(), why="edits in a checkout")
    with open(copy, "wb") as stream:
        stream.write(patch)
        stream.flush()
        os.fsync(stream.fileno())
    print(f"the edits in {path} are kept as {copy}", flush=True)


def main(order: dict[str, Any]) -> None:
    """``{"path", "url", "commit", "backups"}``."""
    path, url, commit = order["path"], order["url"], order["commit"]
    if os.path.isdir(os.path.join(path, ".git")):
        keep_edits(path, order["backups"])
        head = git(path, "rev-parse", "--verify", "HEAD").stdout.decode().strip()
        lock = os.path.join(path, ".git", "index.lock")
        if os.path.exists(lock):
            os.unlink(lock)  # left by a run that was killed; nothing else works in a release
        # Not reset --hard: that leaves an ORIG_HEAD which a checkout made anew has not.
        back = ("checkout", "--quiet", "--force", "--detach", commit)
        if head == commit and git(path, *back).returncode == 0:
            return
    aside = f"{path}.strixbox-new"
    shutil.rmtree(aside, ignore_errors=True)
    os.makedirs(aside)
    print(f"fetching {url} at {commit[:12]}", flush=True)
    need(aside, "init", "--quiet", mend="install git and run again")
    reach = f"see that the box reaches {url} and that it has commit {commit}, then run again"
    need(aside, "fetch", "--quiet", "--depth", "1", url, commit, mend=reach)
    need(aside, "checkout", "--quiet", "--detach", commit, mend="free disk room and run again")
    if os.path.lexists(path):
        shutil.rmtree(path)
    os.rename(aside, path)


if __name__ == "__main__":
    main(json.load(sys.stdin))
