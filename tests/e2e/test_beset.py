"""An upgrade that meets every fault on its way: the release in use goes on until it is through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from strixbox.groups import read_group_data
from strixbox.layout import CURRENT, RELEASES, SERVICE, WHEELS
from tests.e2e.conftest import Fleet
from tests.lab import Box, settled_difference

pytestmark = pytest.mark.lab

USER = "/home/strix/ComfyUI/user"
APT = "/rocm/apt/6.4.2/dists"
UNHELD = "rm -f /var/lib/apt/lists/*rocm*"  # apt's lists are fetched again
# The shell's word for the new release, which an earlier fault has left half-built.
HALF_BUILT = f"$(ls -d {RELEASES}/* | grep -v $(basename $(readlink {CURRENT})))"
NO_WHEELS = f"rm -rf {WHEELS}"


@dataclass(frozen=True)
class Fault:
    """What goes wrong, the words that tell of it, and how it ends."""

    name: str
    words: str
    mirror: tuple[dict[str, Any], ...] = ()
    before: str = ""
    after: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    resigned: str = ""


def served(name: str, words: str, path: str, kind: str, before: str = "") -> Fault:
    """The mirror misbehaves below a path."""
    return Fault(name, words, ({"path_prefix": path, "kind": kind},), before)


def full(name: str, path: str, size: str, before: str = "") -> Fault:
    """A disk without room stands at a path."""
    mounted = f"mkdir -p {path} && mount -t tmpfs -o size={size},mode=755 tmpfs {path}"
    return Fault(
        name, "free disk room", before=f"{before or 'true'}; {mounted}", after=f"umount {path}"
    )


PROFILES = read_group_data()["all"]["launch_profiles"]
PROFILES["production"]["flags"].append("--use-magic")
WHEEL_PATH = "/wheels/rocm-rel-6.4.2/torch-2"  # and what follows
# In the order in which a run comes upon them.
FAULTS = (
    Fault(
        "/etc read-only",
        "read-only",
        before="echo '# x' >> /etc/apt/preferences.d/strixbox-rocm;"
        " mount --bind /etc /etc && mount -o remount,bind,ro /etc",
        after="umount /etc",
    ),
    Fault("key of another fingerprint", "fingerprint", settings={"rocm_key_fingerprint": "0" * 40}),
    Fault("key rotated", "signed", before=UNHELD, resigned=f"{APT.strip('/')}/noble"),
    served("apt index: 404", "does not have a Release file", APT, "status:404", UNHELD),
    served("apt index: 500", "500", APT, "status:500", UNHELD),
    served("apt index: a web page", "InRelease", APT, "html", UNHELD),
    served("apt index: truncated", "", APT, "truncate:200", UNHELD),
    full("disk full: apt", "/var/cache/apt/archives", "1m", "apt-get -qy purge git"),
    served("wheel: 404", "the server answers 404", WHEEL_PATH, "status:404", NO_WHEELS),
    served("wheel: 500", "500", WHEEL_PATH, "status:500", NO_WHEELS),
    served("wheel: a web page", "web page", WHEEL_PATH, "html", NO_WHEELS),
    served(
        "wheel: cut at every try",
        "the downloaded part is kept",
        WHEEL_PATH,
        "truncate:0",
        NO_WHEELS,
    ),
    full("disk full: wheels", WHEELS, "16k", NO_WHEELS),
    full("disk full: release", HALF_BUILT, "1m"),
    Fault(
        "package index: 500, wheels slow",
        "could not be installed from http://mirror.lab/simple",
        (
            {"path_prefix": "/simple/", "kind": "status:500"},
            {"path_prefix": "/wheels/", "kind": "slow:1000"},
        ),
        NO_WHEELS,
    ),
    served("git remote: 404", "", "/git/", "status:404"),
    Fault("commit missing", "1" * 40, settings={"comfyui_commit": "1" * 40}),
    Fault(
        "flag that ComfyUI does not know",
        "launch profile production: this ComfyUI refuses its flags",
        settings={"launch_profiles": PROFILES},
    ),
    Fault(
        "ComfyUI that crashes at its start",
        "does not start",
        before=f"touch {USER}/newer-crash-at-start",
        after=f"rm {USER}/newer-crash-at-start",
    ),
    Fault(
        "ComfyUI that starts and then crashes",
        "after it had answered",
        before=f"touch {USER}/newer-crash-after-ready",
        after=f"rm {USER}/newer-crash-after-ready",
    ),
    Fault(
        "ComfyUI that hangs",
        "does not answer",
        before=f"touch {USER}/newer-hang",
        after=f"rm {USER}/newer-hang",
    ),
    Fault(
        "ComfyUI that answers 500",
        "does not answer",
        before=f"touch {USER}/newer-http-500",
        after=f"rm {USER}/newer-http-500",
    ),
)


# Those that only show when the service runs the new release.
TRIED = (
    "ComfyUI that starts and then crashes",
    "ComfyUI that hangs",
    "ComfyUI that answers 500",
)


@contextmanager
def met(fleet: Fleet, box: Box, fault: Fault) -> Iterator[None]:
    """The fault stands."""
    kept = dict(fleet.entries[box.name]["settings"])
    fleet.entries[box.name]["settings"] |= fault.settings
    if fault.before:
        box.run(fault.before)
    with ExitStack() as stack:
        if fault.resigned:
            stack.enter_context(fleet.lab.resigned(fault.resigned))
        if fault.mirror:
            stack.enter_context(fleet.lab.faults(*fault.mirror))
        yield
    if fault.after:
        box.run(fault.after)
    fleet.entries[box.name]["settings"] = kept


@pytest.mark.fault("upgrade")
def test_whatever_an_upgrade_meets_the_release_in_use_goes_on(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    release, pid = box.run(["readlink", CURRENT]).stdout, box.main_pid(SERVICE)
    mine = {p: v for p, v in box.state().items() if p.startswith("/home/strix/")}
    fleet.entries["e2e"]["settings"] |= {
        "comfyui_commit": fleet.lab.data["git"]["comfyui"]["newer"],
        "comfyui_start_timeout": 8,
    }
    failures = []
    for fault in FAULTS:
        with met(fleet, box, fault):
            outcome = fleet.run()
            told = outcome.trouble("e2e")
            fleet.faults.append((fault.name, told))
            if outcome.outcome("e2e") != "failed" or fault.words not in told:
                failures.append(f"{fault.name}: {fault.words} is not in: {told}")
            if "Traceback" in outcome.text:
                failures.append(f"{fault.name}: {outcome.text[-500:]}")
            if box.run(["readlink", CURRENT]).stdout != release:
                failures.append(f"{fault.name}: another release is in use")
            if box.run(["systemctl", "is-active", SERVICE], check=False).stdout.strip() != "active":
                failures.append(f"{fault.name}: the service does not run")
            # Not even restarted, unless the new release was tried on it.
            if box.main_pid(SERVICE) != pid and fault.name not in TRIED:
                failures.append(f"{fault.name}: the service was restarted")
            pid = box.main_pid(SERVICE)
    assert failures == []
    assert {p: v for p, v in box.state().items() if p in mine} == mine

    # Over, the same command finishes the upgrade, and the box is as one that met none of them.
    calm = fleet.add("calm", "converged")
    fleet.entries["calm"]["settings"] |= fleet.entries["e2e"]["settings"]
    box.run(UNHELD)
    with fleet.lab.faults({"path_prefix": APT, "kind": "slow:1000"}):
        last = fleet.run()
    fleet.faults.append(("apt index: slow", ""))
    assert last.code == 0, last.text
    assert settled_difference(calm.state(), box.state()) == []
    assert fleet.run().changed("e2e") == []
