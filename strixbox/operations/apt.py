"""apt: old ROCm purged by provenance, AMD's repository, packages and their holds."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pyinfra.context import host

from strixbox.config import Rocm
from strixbox.digests import digest_of
from strixbox.facts import (
    Account,
    AptKey,
    AptSource,
    FileStates,
    Installed,
    Removal,
    RocmRemains,
    Unreachable,
)
from strixbox.layout import BACKUPS, STATE
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import file_is_right, placing
from strixbox.programs import Run, write
from strixbox.purge import plan
from strixbox.tree import rendered

KEY = "/etc/apt/keyrings/strixbox-rocm.asc"
SOURCE = "/etc/apt/sources.list.d/strixbox-rocm.sources"
PIN = "/etc/apt/preferences.d/strixbox-rocm"
STAMP = f"{STATE}/rocm-index"
APT = (
    *("env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"),
    # Unattended upgrades may have the lock; they end.
    *("apt-get", "--yes", "--quiet", "-o", "DPkg::Lock::Timeout=600"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)
INTERRUPTED = "If dpkg was interrupted before, run: sudo dpkg --configure -a"


@box_operation
def purge_rocm(wanted: Rocm) -> Steps:
    """Purge what AMD built for another release, and what older installs left behind.

    + wanted: the ROCm that shall stand alone; version None purges all of it

    The exact list is simulated first: a removal outside it stops this box before anything is gone.
    """
    todo = plan(ask(RocmRemains), wanted)
    if not todo:
        host.noop(f"no ROCm but {wanted.version or 'none'} on the box")
        return
    if todo.mixed:
        raise BoxTrouble(
            f"{', '.join(todo.mixed)} names AMD's repository beside others; remove AMD's lines"
            " from it and run again."
        )
    if todo.packages:
        check_removal(todo.packages)
        check_repository(wanted)
        say(f"purge {', '.join(todo.packages)}")
        if todo.held:
            yield Run("apt-mark", "unhold", *todo.held, mend=INTERRUPTED)
        yield Run(
            *(*APT, "purge", "--no-auto-remove", "--allow-change-held-packages", *todo.packages),
            mend=f"Old ROCm packages could not be purged; apt's words are above. {INTERRUPTED}",
        )
    # Some leftovers are only to be seen once the packages are gone.
    files = plan(ask(RocmRemains), wanted).files
    for path in files:
        say(f"{path}: to {BACKUPS}")
    if files:
        yield write(
            "retire", {"paths": list(files), "backups": BACKUPS, "why": "left by an older ROCm"}
        )
        yield Run("ldconfig", mend="")


def check_removal(packages: tuple[str, ...]) -> None:
    """Simulate the purge.

    Raises:
        BoxTrouble: where apt refuses, or would remove a package that is not in the list.
    """
    removal = ask(Removal, packages=packages)
    if removal["refused"]:
        raise BoxTrouble(f"apt refuses the purge: {removal['refused']} {INTERRUPTED}")
    more = sorted(set(removal["removed"]) - set(packages))
    if more:
        raise BoxTrouble(
            f"Purging old ROCm would also remove {', '.join(more)}; nothing was removed. Remove"
            " those by hand if you can do without them, then run again."
        )


def check_repository(wanted: Rocm) -> None:
    """See that the new ROCm can be had before the old one goes.

    Raises:
        BoxTrouble: where the box gets no answer from the repository.
    """
    if wanted.version is None:
        return
    reason = ask(Unreachable, url=f"{wanted.repository}/dists/{wanted.suite}/InRelease")
    if reason:
        raise BoxTrouble(
            f"The box does not reach {wanted.repository} ({reason}); old ROCm was left in place."
            " Mend the box's network or rocm_repository, then run again."
        )


@box_operation
def rocm_repository(rocm: Rocm) -> Steps:
    """Have AMD's repository: key by fingerprint, source, narrow pin, and a fetched index.

    + rocm: repository, suite, key and what is pinned to it
    """
    files = (
        rendered(SOURCE, uri=rocm.repository, suite=rocm.suite, key=KEY),
        rendered(PIN, patterns=rocm.pinned, host=urlsplit(rocm.repository).hostname),
    )
    states = ask(FileStates, paths=tuple(file.path for file in files))
    wrong = tuple(file for file in files if not file_is_right(file, states[file.path]))
    keyed = ask(AptKey, path=KEY) == rocm.key_fingerprint
    index = ask(AptSource, uri=rocm.repository, suite=rocm.suite, stamp=STAMP)
    wanted = digest_of([files[0].sha256, rocm.key_fingerprint])
    fetched = index["indexed"] and index["stamp"] == wanted
    if keyed and fetched and not wrong:
        host.noop(f"{rocm.repository} is known to apt")
        return
    if not keyed:
        say(f"{KEY}: fetch {rocm.key_url}, fingerprint {rocm.key_fingerprint}")
        yield write(
            "apt_key", {"url": rocm.key_url, "path": KEY, "fingerprint": rocm.key_fingerprint}
        )
    if wrong:
        say(f"write {', '.join(file.path for file in wrong)}")
        yield placing(wrong)
    if not fetched:
        say(f"fetch the index of {rocm.repository}")
        yield Run(*APT, "update", mend=f"apt could not fetch its indexes. {INTERRUPTED}")
        if not ask(AptSource, uri=rocm.repository, suite=rocm.suite, stamp=STAMP)["indexed"]:
            raise BoxTrouble(
                f"apt has no index of {rocm.repository}: the box does not reach it, or its key does"
                f" not fit; run 'sudo apt-get update' on the box to see apt's words."
            )
        yield Run("mkdir", "-p", STATE, mend="")
        yield Run("tee", STAMP, stdin=wanted + "\n", mend="")


@box_operation
def apt_packages(packages: tuple[str, ...], release: str | None = None) -> Steps:
    """Have packages installed; those of a ROCm release at that release, and held.

    + packages: names
    + release: ROCm release that they must be of, None for packages of the distribution
    """
    now = ask(Installed, packages=packages)
    missing = [p for p in packages if not is_of(now[p]["version"], release)]
    loose = [p for p in packages if release and not now[p]["held"]]
    if not missing and not loose:
        host.noop(f"{', '.join(packages)} installed")
        return
    if missing:
        say(f"install {', '.join(missing)}")
        if release is None:
            yield Run(*APT, "update", mend=f"apt could not fetch its indexes. {INTERRUPTED}")
        recommends = () if release else ("--no-install-recommends",)
        yield Run(
            *(*APT, "install", "--no-remove", "--allow-change-held-packages", *recommends),
            *missing,
            mend=f"{', '.join(missing)} could not be installed; apt's words are above. Free disk"
            f" room or mend what apt names, then run again. {INTERRUPTED}",
        )
        after = ask(Installed, packages=packages)
        wrong = [p for p in packages if not is_of(after[p]["version"], release)]
        if wrong:
            raise BoxTrouble(
                f"apt installed {wrong[0]} {after[wrong[0]]['version']} in place of ROCm {release};"
                f" see 'apt-cache policy {wrong[0]}' on the box for the source that wins."
            )
    if loose:
        say(f"hold {', '.join(loose)}")
        yield Run("apt-mark", "hold", *loose, mend=INTERRUPTED)


def is_of(version: str | None, release: str | None) -> bool:
    """Whether an installed version is of the ROCm release; any version where none is asked."""
    if version is None or release is None:
        return version is not None
    build = re.search(r"[.:](\d)(\d\d)(\d\d)-", version)
    return build is not None and ".".join(str(int(n)) for n in build.groups()) == release


@box_operation
def group_membership(user: str, groups: tuple[str, ...]) -> Steps:
    """Have the account in groups; its other groups stay. It counts from the next login on.

    + user: the account
    + groups: groups that exist on every Ubuntu
    """
    missing = [group for group in groups if group not in ask(Account, user=user)["groups"]]
    if not missing:
        host.noop(f"{user} is in {', '.join(groups)}")
        return
    say(f"{user}: add to {', '.join(missing)}; log in again for it to count in a shell")
    yield Run(
        *("usermod", "--append", "--groups", ",".join(missing), user),
        mend=f"{user} could not be put into {', '.join(missing)}; see that account and groups"
        " exist.",
    )
