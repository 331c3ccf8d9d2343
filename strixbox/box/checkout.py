"""Writer: a git checkout at one commit, made aside and renamed into place.

Edits that somebody made in a checkout of ours are kept in the backup directory: as a patch where
the files are put back, else with the whole tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import suppress
from typing import Any

from strixbox.box._atomic import ASIDE, mend, put
from strixbox.box._backups import keep, new_copy, note
from strixbox.box._git import foreign, git, git_bytes, loose, plain
from strixbox.box._moving import discard
from strixbox.box._regular import regular
from strixbox.box._retiring import put_by

# git itself waits for ever on a line that has gone silent: under 1000 bytes a second for a minute
# is the end (git-config: http.lowSpeedLimit, http.lowSpeedTime).
STALL = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")


def need(path: str, *words: str, mend: str) -> None:
    """Run git and stop with what it said and the mend where it fails."""
    answer = git(path, *words, settings=STALL)
    if answer.returncode != 0:
        said = answer.stderr.strip().splitlines()
        raise SystemExit(f"{said[-1] if said else 'git failed'}; {mend}")


def tighten(path: str) -> None:
    """Have everything the account's own, with the modes that git gives."""
    for place, mode in loose(path).items():
        os.chown(place, os.geteuid(), os.getegid(), follow_symlinks=False)
        if not os.path.islink(place):
            os.chmod(place, mode)


def forget_settings(path: str, backups: str) -> None:
    """Keep what somebody set in the repository, and take it back."""
    for name in foreign(path):
        file = f"{path}/{name}"
        content = b""
        try:
            content, info = regular(file)
        except FileNotFoundError:
            pass
        except OSError:  # a directory or a pipe
            put_by(file, backups, "settings in a checkout")
        else:
            keep(file, content, info, backups)
        if name == ".git/config":
            ours = plain(content.decode(errors="surrogateescape"))
            put(file, ours.encode(errors="surrogateescape"), 0o644)
        else:
            discard(file)


def kept_edits(path: str, commit: str, backups: str) -> bool:
    """Save the difference to the commit as a patch; False where git cannot tell what it is."""
    words = ("diff", "--binary", "--no-ext-diff", "--no-textconv", commit)
    told = git_bytes(path, *words)
    if told.returncode != 0:
        return False
    patch = told.stdout
    if patch:
        copy = new_copy(backups, path, ".patch")
        note(backups, path, copy, hashlib.sha256(patch).hexdigest(), why="edits in a checkout")
        put(copy, patch, 0o600)
        print(f"the edits in {path} are kept as {copy}", flush=True)
    return True


def restored(path: str, commit: str, backups: str) -> bool:
    """Whether a checkout at the commit could be put back as it was, without the network."""
    tighten(path)
    forget_settings(path, backups)
    # A lock was left by a run that was killed; nothing else works in a release. The index may name
    # files that are taken for unchanged.
    for name in ("index.lock", "index"):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}/.git/{name}")
    head = git(path, "rev-parse", "--verify", "HEAD").stdout.strip()
    if head != commit or git(path, "read-tree", commit).returncode != 0:
        return False
    if not kept_edits(path, commit, backups):
        return False
    # Not reset --hard: that leaves an ORIG_HEAD which a checkout made anew has not.
    return git(path, "checkout", "--quiet", "--force", "--detach", commit).returncode == 0


def main(order: dict[str, Any]) -> None:
    """``{"path", "url", "commit", "backups"}``."""
    try:
        make(order["path"], order["url"], order["commit"], order["backups"])
    except OSError as error:
        raise SystemExit(
            f"{error.filename or order['path']}: {error.strerror or error}; nothing is lost:"
            f" {mend(error)}, then run again"
        ) from None


def make(path: str, url: str, commit: str, backups: str) -> None:
    """Have the checkout at the commit."""
    if os.path.isdir(os.path.join(path, ".git")) and restored(path, commit, backups):
        return
    # By another name than what is moved away has on its way.
    aside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}{ASIDE}")
    shutil.rmtree(aside, ignore_errors=True)
    os.makedirs(aside)
    print(f"fetching {url} at {commit[:12]}", flush=True)
    need(aside, "init", "--quiet", mend="install git and run again")
    reach = f"see that the box reaches {url} and that it has commit {commit}, then run again"
    need(aside, "fetch", "--quiet", "--depth", "1", url, commit, mend=reach)
    need(aside, "checkout", "--quiet", "--detach", commit, mend="free disk room and run again")
    if os.path.lexists(path):
        # Anybody's work may be in it.
        copy = put_by(path, backups, "no checkout of its commit")
        print(f"what stood at {path} is kept as {copy}", flush=True)
    os.rename(aside, path)


if __name__ == "__main__":
    main(json.load(sys.stdin))
