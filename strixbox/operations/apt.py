"""apt: old ROCm purged by provenance, AMD's repository, packages and their holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from pyinfra.context import host, state

from strixbox.config import Rocm
from strixbox.digests import digest_of
from strixbox.facts import (
    Account,
    AptKey,
    AptSource,
    DpkgState,
    FileStates,
    Installed,
    OfferedKey,
    PathOwners,
    Rehearsal,
    Removal,
    RocmRemains,
    Unreachable,
)
from strixbox.layout import BACKUPS, KEY, PIN, SOURCE, STATE
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import file_is_right, placing, show_diff
from strixbox.programs import UNWRITTEN, Run, write
from strixbox.purge import PurgePlan, contested, plan
from strixbox.rocm_versions import releases
from strixbox.tree import BoxFile, rendered

STAMP = f"{STATE}/rocm-index"
DPKG = "/var/lib/dpkg"
# Every package of a release is known by its build number or by rocm-core's.
CORE = "rocm-core"
PATIENCE = 600  # seconds: unattended upgrades may have the locks; they end
KEEP_CONFIGURATION = ("--force-confdef", "--force-confold")
APT = (
    *("apt-get", "--yes", "--quiet"),
    *(word for force in KEEP_CONFIGURATION for word in ("-o", f"Dpkg::Options::={force}")),
)
# What needs no source goes on even where apt cannot read them: AMD's old source beside ours, of the
# same repository with another key, is "Conflicting values set for option Signed-By".
NO_SOURCES = (
    *("-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=/dev/null"),
    *("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="),
)
# AMD's repository and no other: somebody's broken source is not what we ask about.
OURS_ALONE = (
    *("-o", f"Dir::Etc::SourceList={SOURCE}", "-o", "Dir::Etc::SourceParts=-"),
    *("-o", "APT::Get::List-Cleanup=false", "-o", "APT::Update::Error-Mode=any"),
)
INTERRUPTED = "If dpkg was interrupted before, run: sudo dpkg --configure -a"
INDEXES = "apt could not fetch its indexes"


def under_lock(*words: str, failed: str, mend: str = INTERRUPTED) -> Run:
    """Command of apt's or dpkg's that waits for their locks, and tells apt's reason if it fails."""
    order = {"words": list(words), "patience": PATIENCE, "failed": failed, "mend": mend}
    return write("apt_run", order, live=True)


@box_operation
def finish_dpkg() -> Steps:
    """Have dpkg finish what a power cut stopped it in; apt refuses everything until then."""
    now = ask(DpkgState, root=DPKG)
    if not now["interrupted"]:
        host.noop("dpkg is not in the middle of anything")
        return
    say("dpkg was interrupted: dpkg --configure -a")
    words = ["dpkg", *KEEP_CONFIGURATION, "--configure", "-a"]
    yield write("dpkg_finish", {"words": words, "updates": f"{DPKG}/updates"}, live=True)


@box_operation
def purge_rocm(wanted: Rocm) -> Steps:
    """Purge what AMD built for another release, and what older installs left behind.

    + wanted: the ROCm that shall stand alone; version None purges all of it

    Nothing is gone before all of it is known to work out: the exact removal is simulated, and so is
    the installation of the new ROCm on the box without the old one, from the repository's own index
    and under the right key. Where either fails, the box is left as it was: key, source and index
    of the rehearsal lie in a temporary directory.
    """
    todo = plan(ask_remains(wanted), wanted)
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
        rehearse(todo, wanted)
        say(f"purge {', '.join(todo.packages)}")
        yield from purging(todo.packages, todo.held)
    # Some leftovers are only to be seen once the packages are gone.
    files = plan(ask_remains(wanted), wanted).files
    for path in files:
        say(f"{path}: to {BACKUPS}")
    if files:
        yield write(
            "retire", {"paths": list(files), "backups": BACKUPS, "why": "left by an older ROCm"}
        )
        yield Run("ldconfig", mend="See ldconfig's words above; free disk room, then run again.")


def purging(packages: Sequence[str], held: Sequence[str]) -> Steps:
    """The commands that take holds off and purge packages; of either there may be none.

    + packages: those that go, as a simulation found that they can
    + held: those whose hold is taken off before
    """
    if held:
        yield under_lock(
            *("apt-mark", *NO_SOURCES, "unhold", *held),
            failed=f"The hold of {', '.join(held)} could not be taken off",
        )
    if packages:
        yield under_lock(
            *(*APT, *NO_SOURCES, "purge", "--no-auto-remove", *packages),
            failed="ROCm packages could not be purged",
        )


def ask_remains(wanted: Rocm) -> dict[str, Any]:
    """What there is of AMD's, with the owners that decide whether it is to go."""
    told = ask(RocmRemains)
    return told | {"owners": ask(PathOwners, paths=contested(told, wanted))}


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


def rehearse(todo: PurgePlan, wanted: Rocm) -> None:
    """See that the new ROCm can be installed once the old one is gone.

    Raises:
        BoxTrouble: where the repository does not answer, the key is another, or apt would not
            install every package at the wanted release.
    """
    now = _installed(wanted.packages)
    found = _releases(now)
    needed = tuple(
        p for p in wanted.packages if p in todo.packages or found.get(p) != wanted.version
    )
    if wanted.version is None or not needed:
        return
    left = "old ROCm was left in place"
    reason = ask(Unreachable, url=f"{wanted.repository}/dists/{wanted.suite}/InRelease")
    if reason:
        raise BoxTrouble(
            f"The box does not reach {wanted.repository} ({reason}); {left}."
            " Mend the box's network or rocm_repository, then run again."
        )
    key = {"path": KEY}
    if ask(AptKey, path=KEY) != wanted.key_fingerprint:
        offered = ask(OfferedKey, url=wanted.key_url, fingerprint=wanted.key_fingerprint)
        if "trouble" in offered:
            raise BoxTrouble(f"{offered['trouble']}; {left}.")
        key = {"url": wanted.key_url, "sha256": offered["sha256"]}
    told = ask(
        Rehearsal,
        install=needed,
        recommends=True,
        apart={
            "uri": wanted.repository,
            "suite": wanted.suite,
            "key": key,
            "pin": _pin(wanted).content.decode(),
            "without": [*todo.sources, SOURCE, PIN],
            "purged": list(todo.packages),
        },
    )
    staying = {
        name: state["version"]
        for name, state in now.items()
        if state["version"] and name not in todo.packages
    }
    lacking = not_installable(told, needed, wanted.version, staying)
    if lacking:
        raise BoxTrouble(
            f"ROCm {wanted.version} could not be installed in its place: {lacking}; {left}. Mend"
            " rocm_repository, rocm_packages or what apt names, then run again."
        )
    allowed(told, needed, wanted.pinned)


def not_installable(
    told: Mapping[str, Any], packages: tuple[str, ...], release: str, staying: Mapping[str, str]
) -> str:
    """Why a rehearsal does not end with ``packages`` at ``release``; empty where it does."""
    if told["refused"]:
        return str(told["refused"])
    found = releases({**staying, **told["versions"]})
    for package in packages:
        if found.get(package) != release:
            return f"for {package} apt would take {told['versions'].get(package, 'nothing')}"
    return ""


def allowed(
    told: Mapping[str, Any], packages: tuple[str, ...], pinned: tuple[str, ...]
) -> tuple[str, ...]:
    """apt's flags for an installation that was rehearsed.

    Ubuntu's own ROCm packages (rocminfo 5.7.1) sort above AMD's, so a box that had them before
    needs a downgrade; and a hold of ours is ours to change. Neither is allowed for anything else.

    Raises:
        BoxTrouble: where apt would downgrade, or change in spite of a hold, what is not ours.
    """
    others = [
        name
        for name in told["downgraded"]
        if not any(fnmatchcase(name.partition(":")[0], pattern) for pattern in pinned)
    ]
    if others:
        raise BoxTrouble(
            f"Installing {', '.join(packages)} would downgrade {', '.join(others)}, which ROCm does"
            f" not bring; nothing was installed. See 'apt-cache policy {others[0]}' on the box for"
            " the source that wins, mend it, then run again."
        )
    kept = [name for name in told["held"] if name not in packages]
    if kept:
        raise BoxTrouble(
            f"Installing {', '.join(packages)} would change {', '.join(kept)}, which somebody held;"
            f" nothing was installed. Run 'sudo apt-mark unhold {' '.join(kept)}' on the box if"
            " that is all right, then run again."
        )
    downgrades = ("--allow-downgrades",) if told["downgraded"] else ()
    held = ("--allow-change-held-packages",) if told["held"] else ()
    return (*downgrades, *held)


def repository_files(rocm: Rocm) -> tuple[BoxFile, BoxFile]:
    """apt's source and pin for AMD's repository."""
    return (rendered(SOURCE, uri=rocm.repository, suite=rocm.suite, key=KEY), _pin(rocm))


def _pin(rocm: Rocm) -> BoxFile:
    return rendered(PIN, patterns=rocm.pinned, host=urlsplit(rocm.repository).hostname)


@box_operation
def rocm_repository(rocm: Rocm) -> Steps:
    """Have AMD's repository: key by fingerprint, source, narrow pin, and a fetched index.

    + rocm: repository, suite, key and what is pinned to it
    """
    wrong, keyed, fetched = ask_repository(rocm)
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
        for file in wrong:
            show_diff(file)
        yield placing(wrong)
    if not fetched:
        say(f"fetch the index of {rocm.repository}")
        yield under_lock(*APT, "update", failed=INDEXES)
        if not ask(AptSource, uri=rocm.repository, suite=rocm.suite, stamp=STAMP)["indexed"]:
            # apt-get update takes most failures for warnings: for this source alone they are none.
            yield under_lock(
                *(*APT, "update", *OURS_ALONE),
                failed=f"apt has no index of {rocm.repository}",
                mend="See that the box reaches it and that rocm_key_fingerprint is AMD's, then run"
                " again.",
            )
        yield Run("mkdir", "-p", STATE, mend=UNWRITTEN)
        yield Run("tee", STAMP, stdin=_fetch(rocm) + "\n", mend=UNWRITTEN)


def ask_repository(rocm: Rocm) -> tuple[tuple[BoxFile, ...], bool, bool]:
    """Files that are not as they shall be, whether the key is, and whether the index is fetched."""
    files = repository_files(rocm)
    states = ask(FileStates, paths=tuple(file.path for file in files))
    wrong = tuple(file for file in files if not file_is_right(file, states[file.path]))
    keyed = ask(AptKey, path=KEY) == rocm.key_fingerprint
    index = ask(AptSource, uri=rocm.repository, suite=rocm.suite, stamp=STAMP)
    return wrong, keyed, index["indexed"] and index["stamp"] == _fetch(rocm)


def _fetch(rocm: Rocm) -> str:
    """What the stamp says of an index that was fetched from this source under this key."""
    return digest_of([repository_files(rocm)[0].sha256, rocm.key_fingerprint])


@box_operation
def apt_packages(
    packages: tuple[str, ...], release: str | None = None, pinned: tuple[str, ...] = ()
) -> Steps:
    """Have packages installed; those of a ROCm release at that release, and held.

    + packages: names
    + release: ROCm release that they must be of, None for packages of the distribution
    + pinned: patterns of the packages that may be downgraded to that release
    """
    missing, loose = astray(packages, release)
    if not missing and not loose:
        host.noop(f"{', '.join(packages)} installed")
        return
    if missing:
        say(f"install {', '.join(missing)}")
        if release is None:
            yield under_lock(*APT, "update", failed=INDEXES)
        flags = _flags(tuple(missing), pinned) if release else ("--no-install-recommends",)
        yield under_lock(
            *(*APT, "install", "--no-remove", *flags, *missing),
            failed=f"{', '.join(missing)} could not be installed",
            mend=f"Mend what apt names, then run again. {INTERRUPTED}",
        )
        wrong = astray(packages, release)[0]
        if wrong:
            raise BoxTrouble(
                f"apt left {wrong[0]} at {_installed(packages)[wrong[0]]['version']}, which is not"
                f" of ROCm {release}; see 'apt-cache policy {wrong[0]}' on the box for the source"
                " that wins."
            )
    if loose:
        say(f"hold {', '.join(loose)}")
        yield under_lock("apt-mark", "hold", *loose, failed=f"{', '.join(loose)} could not be held")


def _flags(packages: tuple[str, ...], pinned: tuple[str, ...]) -> tuple[str, ...]:
    """apt's flags for an installation of ROCm's packages on the box as it is.

    Raises:
        BoxTrouble: where apt refuses it, or it would change what is not ours.
    """
    if not state.is_executing:
        # A plan looks at the box before the repository of this very run is on it.
        return ()
    told = ask(Rehearsal, install=packages, recommends=True)
    if told["refused"]:
        held = " ".join(told["held"])
        hint = f" Somebody held {held}: 'sudo apt-mark unhold {held}' lets it go." if held else ""
        raise BoxTrouble(
            f"{', '.join(packages)} cannot be installed: {told['refused']}; nothing was changed."
            f"{hint} Mend what apt names, then run again."
        )
    return allowed(told, packages, pinned)


def astray(packages: tuple[str, ...], release: str | None) -> tuple[list[str], list[str]]:
    """Packages that are not there as wanted, and those of a release that are not held.

    Raises:
        BoxTrouble: where the box did not answer.
    """
    now = _installed(packages)
    found = _releases(now)
    if release is None:
        return [name for name in packages if now[name]["version"] is None], []
    return (
        [name for name in packages if found.get(name) != release],
        [name for name in packages if not now[name]["held"]],
    )


def _installed(packages: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Packages and rocm-core, whose version tells the release of those without a build number."""
    return ask(Installed, packages=tuple(dict.fromkeys((*packages, CORE))))


def _releases(now: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    return releases({name: state["version"] for name, state in now.items() if state["version"]})


@box_operation
def group_membership(user: str, groups: tuple[str, ...]) -> Steps:
    """Have the account in groups; its other groups stay. It counts from the next login on.

    + user: the account
    + groups: groups that exist on every Ubuntu
    """
    missing = missing_groups(user, groups)
    if not missing:
        host.noop(f"{user} is in {', '.join(groups)}")
        return
    say(f"{user}: add to {', '.join(missing)}; log in again for it to count in a shell")
    for group in missing:
        # usermod knows /etc/passwd alone; gpasswd takes accounts of a directory (LDAP) too.
        yield Run(
            *("gpasswd", "--add", user, group),
            mend=f"{user} could not be put into {group}; see that account and group exist.",
        )


def missing_groups(user: str, groups: tuple[str, ...]) -> list[str]:
    """Groups that the account is not in.

    + user: the account
    + groups: names
    """
    now = ask(Account, user=user)["groups"]
    return [group for group in groups if group not in now]
