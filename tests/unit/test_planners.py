"""What is decided from what a box tells: purge, models, preflight, releases."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from itertools import product
from typing import Any

import pytest

from strixbox.codes import CODES
from strixbox.config import Config, Model
from strixbox.generation import Generation
from strixbox.layout import GENERATIONS
from strixbox.models import Places, Step, crowded, obstacles, plan, steps
from strixbox.operations.apt import allowed, not_installable
from strixbox.operations.base import BoxTrouble
from strixbox.operations.release import (
    SILENT,
    changed_pins,
    earlier,
    is_noted,
    service_trouble,
    settled_service,
    superfluous,
)
from strixbox.operations.verify import standing
from strixbox.preflight import CHECKS, Finding, examine, kernel_is_fixed
from strixbox.preflight import models as examine_models
from strixbox.purge import contested
from strixbox.purge import plan as purge_plan
from strixbox.release import Release, constraints, file_name, overrides
from strixbox.rocm_versions import release_of, releases
from tests.unit.conftest import GROUPS

# --- purge ------------------------------------------------------------------------------------

CLEAN: dict[str, Any] = {
    "packages": [],
    "sources": {},
    "preferences": {},
    "loader": [],
    "trees": [],
    "keyrings": {},
    "owners": {},
}
BUILDS = {"7.2.1": "70201-81~24.04", "6.4.2": "60402-120~24.04", "6.4.1": "60401-83~24.04"}


def package(
    name: str, release: str, status: str = "ii", *, maintained: bool = True
) -> dict[str, Any]:
    """A package of a release, or with that version; AMD's people maintain it."""
    version = f"1.0.{BUILDS[release]}" if release in BUILDS else release
    told = {"package": name, "status": status, "version": version}
    return told | {"maintained": maintained}


def tree(path: str, version: str | None = None) -> dict[str, Any]:
    """A directory below /opt."""
    return {"path": path, "link": False, "version": version}


def to(path: str, target: str, *, dangling: bool = False) -> dict[str, Any]:
    """A link below /opt."""
    return {"path": path, "link": True, "dangling": dangling, "target": target}


def test_a_clean_box_and_a_box_at_the_wanted_version_have_nothing_to_purge(cfg: Config) -> None:
    assert not purge_plan(CLEAN, cfg.rocm)
    there = CLEAN | {
        "packages": [
            package("rocm-core", "6.4.2"),
            package("hipcc", "6.4.2", "hi"),
            package("rocprofiler-sdk", "0.6.0-120~24.04"),
        ],
        "trees": [tree("/opt/rocm-6.4.2", "6.4.2-120"), to("/opt/rocm", "/opt/rocm-6.4.2")],
        "loader": [
            {
                "path": "/etc/ld.so.conf.d/10-rocm-opencl.conf",
                "directories": [{"there": False, "real": "/opt/rocm-6.4.2/opencl/lib"}],
            },
            # AMD's post-installation page has this one written by hand.
            {
                "path": "/etc/ld.so.conf.d/rocm.conf",
                "directories": [
                    {"there": True, "real": "/opt/rocm-6.4.2/lib"},
                    {"there": False, "real": "/opt/rocm-6.4.2/lib64"},
                ],
            },
        ],
        "owners": {
            "/etc/ld.so.conf.d/10-rocm-opencl.conf": ["rocm-core"],
            "/opt/rocm-6.4.2": ["rocm-core", "hipcc"],
        },
    }
    assert not purge_plan(there, cfg.rocm)


def test_other_versions_removed_ones_and_the_driver_go(cfg: Config) -> None:
    remains = CLEAN | {
        "packages": [
            package("rocm-core", "6.4.1"),
            package("rocm-libs", "6.4.2", "rc"),
            package("amdgpu-dkms", "6.4.2"),
            package("rocblas", "6.4.2", "hi"),
            package("hip-dev", "6.3.4.60304-76~24.04", "hi"),
            package("comgr", "5.1.3.50103-66"),
            package("hsa-rocr:i386", "6.4.1"),
        ],
    }
    todo = purge_plan(remains, cfg.rocm)
    assert todo.packages == (
        *("amdgpu-dkms", "comgr", "hip-dev", "hsa-rocr:i386", "rocm-core", "rocm-libs"),
    )
    assert todo.held == ("hip-dev",)


@pytest.mark.parametrize(
    ("name", "version", "goes"),
    [
        ("amdgpu-dkms", "1:6.14.14.30100100-2212064.24.04", True),
        ("amdgpu-install", "30.20.1.0.30200100-2255209.24.04", True),
        ("amdgpu-dkms-firmware", "1:6.16.6.30200100-2255209.24.04", True),
        ("amdgpu-insecure-instinct-udev-rules", "30.20.1.0-2255209.24.04", True),
        ("amdgpu-pro-core", "23.40", True),
        ("rocprofiler-sdk", "0.6.0-83~24.04", True),
        ("rocprofiler-sdk", "0.6.0-120~24.04", False),
        # TheRock's, and one that somebody built, have no build number.
        ("amdrocm-core7.11-gfx94x", "7.11.0~20251224", True),
        ("amdrocm7.14-gfx1151", "7.14.0-3", True),
        ("amdrocm-amdsmi7.14:i386", "7.14.0-3", True),
        ("rocm-core", "1.0.0-local", True),
        ("hipblaslt", "1.0.0-local", True),
        ("hsa-rocr", "6.4.0.60400-crdnnh.15158~22.04", True),
        # The NPU's runtime and AMD's tools for CPUs are of AMD's people too.
        ("xrt", "2.20.0", False),
        ("xrt-plugin-amdxdna", "2.20.0", False),
        ("amduprof", "5.1-701", False),
        ("aocc-compiler-5.0.0", "5.0.0-1", False),
        ("amd-microcode-tools", "7.14.0-3", False),
    ],
)
def test_what_amd_built_is_told_by_its_version_or_its_name(
    cfg: Config, name: str, version: str, goes: bool
) -> None:
    remains = CLEAN | {"packages": [package("rocblas", "6.4.2"), package(name, version)]}
    assert purge_plan(remains, cfg.rocm).packages == ((name,) if goes else ())


@pytest.mark.parametrize(
    ("name", "version", "goes"),
    [
        # Its maintainer is an address on GitHub, and rocm-core does not go without it.
        ("rocprofiler-systems", "1.0.1.60401-83~24.04", True),
        ("omnitrace:i386", "1.11.2.60200-66~24.04", True),
        ("rocprofiler-systems", "1.0.2.60402-120~24.04", False),
        # A name or a number alone is anybody's.
        ("rocprofiler-mine", "1.0.1-1", False),
        ("rocket-launcher", "1.0.0-83~24.04", False),
        ("nightly-build", "1.0.60401-83~24.04", False),
    ],
)
def test_what_names_no_maintainer_of_amds_needs_name_and_number(
    cfg: Config, name: str, version: str, goes: bool
) -> None:
    remains = CLEAN | {"packages": [package(name, version, maintained=False)]}
    assert purge_plan(remains, cfg.rocm).packages == ((name,) if goes else ())


def test_somebody_elses_package_tells_no_release_of_amds(cfg: Config) -> None:
    theirs = package("nightly", "1.0.60401-120~24.04", maintained=False)
    own = [package("rocm-core", "6.4.2"), package("rocprofiler-sdk", "0.6.0-120~24.04")]
    assert purge_plan(CLEAN | {"packages": [theirs, *own]}, cfg.rocm).packages == ()


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("6.4.2.60402-120~24.04", "6.4.2"),
        ("1:2.4.125.70101-2255337.24.04", "7.1.1"),
        ("5.1.3.50103-66", "5.1.3"),
        ("10.0.0.100000-7~24.04", "10.0.0"),
        ("1:6.16.6.30200100-2255209.24.04", None),
        ("1.1.0-81~24.04", None),
        ("5.7.1-3build1", None),
    ],
)
def test_a_build_number_is_a_release(version: str, release: str | None) -> None:
    assert release_of(version) == release


def test_a_package_without_a_build_number_is_of_its_revisions_release() -> None:
    core, sdk = "7.2.1.70201-81~24.04", "1.1.0-81~24.04"
    assert releases({"rocm-core": core, "rocprofiler-sdk": sdk})["rocprofiler-sdk"] == "7.2.1"
    assert releases({"rocprofiler-sdk": sdk})["rocprofiler-sdk"] is None
    two = {"a": core, "b": "6.3.1.60301-81~24.04", "rocprofiler-sdk": sdk}
    assert releases(two)["rocprofiler-sdk"] is None


def test_without_apts_rocm_everything_of_amds_goes(cfg: Config) -> None:
    none = cfg.rocm.model_copy(update={"version": None})
    todo = purge_plan(CLEAN | {"packages": [package("rocm-core", "6.4.2")]}, none)
    assert todo.packages == ("rocm-core",)


AMD_LIST = (
    "# AMD\ndeb [signed-by=/etc/apt/keyrings/rocm.gpg] https://repo.radeon.com/rocm/apt/6.4.1 n m\n"
)


def test_amds_sources_pins_and_keyrings_go_others_stay(cfg: Config) -> None:
    remains = CLEAN | {
        "sources": {
            "/etc/apt/sources.list": "deb http://archive.ubuntu.com/ubuntu noble main\n",
            "/etc/apt/sources.list.d/rocm.list": AMD_LIST,
            "/etc/apt/sources.list.d/docker.list": (
                "deb [signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/x n s\n"
            ),
            "/etc/apt/sources.list.d/strixbox-rocm.sources": (
                "Types: deb\nURIs: https://repo.radeon.com/rocm/apt/6.4.2\n"
            ),
        },
        "preferences": {
            "/etc/apt/preferences.d/rocm-pin-600": (
                "Package: *\nPin: release o=repo.radeon.com\nPin-Priority: 600\n"
            ),
            "/etc/apt/preferences.d/mine": "Package: nginx\nPin: version 1\nPin-Priority: 9\n",
        },
    }
    todo = purge_plan(remains, cfg.rocm)
    # Killed after the first of them, the next run still knows which the keyring was.
    assert todo.files == (
        "/etc/apt/keyrings/rocm.gpg",
        "/etc/apt/preferences.d/rocm-pin-600",
        "/etc/apt/sources.list.d/rocm.list",
    )
    assert todo.mixed == ()


def test_a_file_with_amds_and_other_lines_is_its_owners(cfg: Config) -> None:
    text = AMD_LIST + "deb http://archive.ubuntu.com/ubuntu noble universe\n"
    remains = CLEAN | {"sources": {"/etc/apt/sources.list": text}}
    todo = purge_plan(remains, cfg.rocm)
    assert todo.mixed == ("/etc/apt/sources.list",)
    assert todo.files == ()


def test_a_keyring_that_another_source_uses_stays(cfg: Config) -> None:
    shared = "deb [signed-by=/etc/apt/keyrings/rocm.gpg] https://example.org/x n m\n"
    remains = CLEAN | {
        "sources": {
            "/etc/apt/sources.list.d/rocm.list": AMD_LIST,
            "/etc/apt/sources.list.d/other.list": shared,
        }
    }
    assert purge_plan(remains, cfg.rocm).files == ("/etc/apt/sources.list.d/rocm.list",)


AMDS, OTHERS = "CA8BB4727A47B4D09B4EE8969386B48A1A693C5C", "F" * 40
RADEON = "https://repo.radeon.com/rocm/apt/6.4.1"


@pytest.mark.parametrize(
    "text",
    [
        f"deb [signed-by=/etc/apt/keyrings/a,/usr/share/keyrings/b arch=amd64] {RADEON} n m\n",
        f"Types: deb\nSigned-By: /etc/apt/keyrings/a /usr/share/keyrings/b\nURIs: {RADEON}\n",
        f"URIs: {RADEON}\nsigned-by:\n /etc/apt/keyrings/a\n /usr/share/keyrings/b\nSuites: n\n",
        f"URIs: {RADEON}\nSigned-By: /etc/apt/keyrings/a, {AMDS}\n /usr/share/keyrings/b\n",
    ],
)
def test_every_keyring_that_a_source_names_counts(cfg: Config, text: str) -> None:
    radeon = {"/etc/apt/sources.list.d/radeon.sources": text}
    both = ("/etc/apt/keyrings/a", "/usr/share/keyrings/b")
    assert purge_plan(CLEAN | {"sources": radeon}, cfg.rocm).sources == (*both, *radeon)
    # Of another source's, the second one counts as much.
    other = {"/etc/apt/sources.list.d/x.sources": text.replace("repo.radeon.com", "example.org")}
    assert purge_plan(CLEAN | {"sources": radeon | other}, cfg.rocm).sources == (*radeon,)


@pytest.mark.parametrize(
    ("path", "keys", "goes"),
    [
        ("/etc/apt/keyrings/rocm.gpg", [AMDS], True),
        ("/etc/apt/keyrings/rocm.gpg", [AMDS, AMDS], True),
        # A key that only AMD's source is checked with is AMD's too, another one by now.
        ("/etc/apt/keyrings/rocm.gpg", [OTHERS], True),
        ("/etc/apt/keyrings/rocm.gpg", [AMDS, OTHERS], False),
        ("/etc/apt/trusted.gpg.d/rocm.gpg", [AMDS], True),
        # ... but not where apt takes it for sources that name none.
        ("/etc/apt/trusted.gpg.d/rocm.gpg", [OTHERS], False),
        ("/usr/share/keyrings/ubuntu-archive-keyring.gpg", ["A" * 40, OTHERS], False),
        ("/etc/apt/keyrings/strixbox-rocm.asc", [AMDS], False),
        # wget without pipefail leaves it empty.
        ("/etc/apt/keyrings/rocm.gpg", None, True),
    ],
)
def test_a_keyring_of_amds_source_goes_unless_it_holds_keys_of_others(
    cfg: Config, path: str, keys: list[str] | None, goes: bool
) -> None:
    source = {"/etc/apt/sources.list.d/rocm.list": f"deb [signed-by={path}] {RADEON} n m\n"}
    known = {path: keys} if keys else {}
    todo = purge_plan(CLEAN | {"sources": source, "keyrings": known}, cfg.rocm)
    assert todo.files == ((path, *source) if goes else (*source,))


def test_a_commented_line_of_amds_file_gives_no_keyring_away(cfg: Config) -> None:
    text = "# deb [signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/x n s\n"
    source = {"/etc/apt/sources.list.d/rocm.list": text + AMD_LIST}
    assert "docker" not in " ".join(purge_plan(CLEAN | {"sources": source}, cfg.rocm).files)


@pytest.mark.parametrize(
    ("path", "keys", "owner", "goes"),
    [
        ("/etc/apt/keyrings/rocm.gpg", [AMDS], None, True),
        ("/etc/apt/trusted.gpg.d/rocm.asc", [AMDS], None, True),
        ("/etc/apt/keyrings/rocm.gpg", [AMDS, OTHERS], None, False),
        ("/etc/apt/keyrings/docker.asc", [OTHERS], None, False),
        ("/etc/apt/keyrings/empty.gpg", [], None, False),
        ("/usr/share/keyrings/rocm.gpg", [AMDS], None, False),
        ("/etc/apt/keyrings/strixbox-rocm.asc", [AMDS], None, False),
        ("/etc/apt/trusted.gpg.d/corp.gpg", [AMDS], "corp-keyring", False),
        ("/etc/apt/keyrings/mirror.gpg", [AMDS], None, False),
    ],
)
def test_a_keyring_that_nobody_uses_goes_where_it_holds_amds_key_alone(
    cfg: Config, path: str, keys: list[str], owner: str | None, goes: bool
) -> None:
    remains = CLEAN | {
        "keyrings": {path: keys},
        "sources": {
            "/etc/apt/sources.list.d/ubuntu.list": "deb http://de.archive.ubuntu.com/ubuntu n m\n",
            "/etc/apt/sources.list.d/mirror.list": (
                "deb [signed-by=/etc/apt/keyrings/mirror.gpg] https://mirror.example.org/rocm n m\n"
            ),
        },
        "owners": {path: [owner]} if owner else {},
    }
    todo = purge_plan(remains, cfg.rocm)
    assert todo.leftovers == ((path,) if goes else ())
    assert todo.sources == ()
    # Who owns it is asked for, and for nothing else on a box where nothing is to go.
    assert contested(remains, cfg.rocm) == ((path,) if goes or owner else ())


@pytest.mark.parametrize(
    ("path", "text", "goes"),
    [
        # A mirror of AMD's repository that names no key may need this one.
        ("x.list", "deb https://mirror.example.org/rocm noble main\n", False),
        ("x.list", f"deb [arch=amd64 signed-by={AMDS}] https://mirror.example.org/r n m\n", False),
        ("x.list", "deb file:/srv/debs ./\n", False),
        ("x.sources", "Types: deb\nURIs: http://archive.ubuntu.com/u http://a.org/x\n", False),
        ("x.sources", "Types: deb\nURIs: https://archive.ubuntu.com.example.org/\n", False),
        ("x.list", "# deb https://mirror.example.org/rocm noble main\n", True),
        ("x.list", "deb [signed-by=/k.asc] https://mirror.example.org/r n m\n", True),
        ("x.sources", "URIs: https://a.org\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK\n", True),
        ("x.sources", "URIs: http://archive.ubuntu.com/u http://security.ubuntu.com/u\n", True),
    ],
)
def test_a_key_that_apt_trusts_for_all_stays_where_a_source_may_need_it(
    cfg: Config, path: str, text: str, goes: bool
) -> None:
    trusted = "/etc/apt/trusted.gpg.d/rocm.gpg"
    remains = CLEAN | {
        "sources": {f"/etc/apt/sources.list.d/{path}": text},
        "preferences": {"/etc/apt/preferences.d/x": "Package: *\nPin-Priority: 1\n"},
        "keyrings": {trusted: [AMDS], "/etc/apt/keyrings/rocm.gpg": [AMDS]},
    }
    todo = purge_plan(remains, cfg.rocm)
    assert todo.leftovers == ("/etc/apt/keyrings/rocm.gpg", *((trusted,) if goes else ()))
    named = {"/etc/apt/sources.list.d/a.list": f"deb [signed-by={trusted}] {RADEON} n m\n"}
    todo = purge_plan(remains | {"sources": remains["sources"] | named}, cfg.rocm)
    assert todo.sources == ((trusted,) if goes else ()) + (*named,)


@pytest.mark.parametrize(
    "text",
    [
        "deb https://repo.radeon.com.example.org/x n m\n",
        "# deb https://repo.radeon.com/rocm/apt/6.4.1 n m\ndeb http://a/b n m\n",
        "deb https://my-repo.radeon.com/x n m\n",
    ],
)
def test_only_amds_own_host_counts(cfg: Config, text: str) -> None:
    remains = CLEAN | {"sources": {"/etc/apt/sources.list.d/x.list": text}}
    assert not purge_plan(remains, cfg.rocm)


def test_trees_of_no_release_and_owned_ones_stay(cfg: Config) -> None:
    remains = CLEAN | {
        "trees": [
            tree("/opt/rocm-6.3.4", "6.3.4-69"),
            # Its version file went with rocm-core; the name tells as much.
            tree("/opt/rocm-6.2.0"),
            tree("/opt/rocm-mine"),
            tree("/opt/rocm-6.4.1", "6.4.1-83"),
            tree("/opt/rocm-6.4.20"),
        ],
        "owners": {"/opt/rocm-6.4.1": ["rocm-core"]},
    }
    assert purge_plan(remains, cfg.rocm).leftovers == (
        *("/opt/rocm-6.2.0", "/opt/rocm-6.3.4", "/opt/rocm-6.4.20"),
    )


def test_owners_are_asked_for_where_they_decide(cfg: Config) -> None:
    there = CLEAN | {
        "trees": [tree("/opt/rocm-6.4.2", "6.4.2-120"), to("/opt/rocm", "/opt/rocm-6.4.2")],
        "loader": [
            {
                "path": "/etc/ld.so.conf.d/10-rocm.conf",
                "directories": [{"there": True, "real": "/opt/rocm-6.4.2/lib"}],
            }
        ],
    }
    assert contested(there, cfg.rocm) == ()
    paths = {"/etc/ld.so.conf.d/10-rocm.conf", "/opt/rocm-6.4.2", "/opt/rocm"}
    old = tree("/opt/rocm-6.4.1", "6.4.1-83")
    more = there | {"trees": [*there["trees"], old]}
    assert {*contested(more, cfg.rocm)} == {*paths, "/opt/rocm-6.4.1"}
    packages = there | {"packages": [package("rocm-core", "6.4.1")]}
    assert {*contested(packages, cfg.rocm)} == paths


def test_links_into_what_goes_go_with_it(cfg: Config) -> None:
    remains = CLEAN | {
        "trees": [
            to("/opt/rocm", "/opt/rocm-6.3.4"),
            to("/opt/rocm-6", "/opt/gone", dangling=True),
            to("/opt/rocm-live", "/srv/rocm"),
            to("/opt/rocm-near", "/opt/rocm-6.3.40"),
            tree("/opt/rocm-6.3.4"),
        ],
    }
    assert purge_plan(remains, cfg.rocm).leftovers == (
        *("/opt/rocm", "/opt/rocm-6", "/opt/rocm-6.3.4"),
    )


@pytest.mark.parametrize(
    ("directories", "owner", "goes"),
    [
        ([(False, "/opt/rocm-6.3.4/lib")], [], True),
        ([(True, "/opt/rocm-6.3.4/lib")], [], True),
        ([(True, "/opt/rocm-6.3.4/lib"), (True, "/srv/rocm/lib")], [], False),
        ([], [], False),
        ([(False, "/opt/rocm-6.4.2/lib")], ["rocm-opencl"], False),
        ([(True, "/srv/rocm/lib")], ["rocm-core"], True),
    ],
)
def test_an_entry_of_the_loaders_goes_with_all_of_its_directories(
    cfg: Config, directories: list[tuple[bool, str]], owner: list[str], goes: bool
) -> None:
    path = "/etc/ld.so.conf.d/rocm.conf"
    entry = {"path": path, "directories": [{"there": t, "real": r} for t, r in directories]}
    remains = CLEAN | {
        "packages": [package("rocm-core", "6.4.1")],
        "trees": [tree("/opt/rocm-6.3.4", "6.3.4-69")],
        "loader": [entry],
        "owners": {path: owner} if owner else {},
    }
    assert (path in purge_plan(remains, cfg.rocm).files) is goes


# --- what apt may change ----------------------------------------------------------------------

CORE = {"rocm-core": "6.4.2.60402-120~24.04"}


def test_only_what_is_pinned_to_amds_repository_may_be_downgraded() -> None:
    pinned = ("rocminfo", "hip*")
    told: dict[str, Any] = {"downgraded": ["hipcc", "rocminfo"], "held": []}
    assert allowed(told, ("rocm-libs",), pinned) == ("--allow-downgrades",)
    assert allowed({"downgraded": [], "held": []}, ("rocm-libs",), pinned) == ()
    told["downgraded"].append("libdrm2")
    with pytest.raises(BoxTrouble, match=r"would downgrade libdrm2, .*apt-cache policy libdrm2"):
        allowed(told, ("rocm-libs",), pinned)


def test_only_a_hold_of_ours_is_changed() -> None:
    told: dict[str, Any] = {"downgraded": [], "held": ["rocm-libs"]}
    assert allowed(told, ("rocm-libs",), ()) == ("--allow-change-held-packages",)
    told["held"].append("rocblas")
    with pytest.raises(BoxTrouble, match=r"change rocblas, .*apt-mark unhold rocblas"):
        allowed(told, ("rocm-libs",), ())


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"rocm-libs": "6.4.2.60402-120~24.04", "rocprofiler-sdk": "0.6.0-120~24.04"}, ""),
        ({"rocm-libs": "6.4.1.60401-83~24.04"}, "for rocm-libs apt would take 6.4.1.60401-83"),
        ({"rocm-libs": "6.4.2.60402-120~24.04"}, "for rocprofiler-sdk apt would take nothing"),
    ],
)
def test_a_rehearsal_must_end_with_every_package_at_the_release(
    versions: dict[str, str], words: str
) -> None:
    told = {"refused": None, "versions": versions}
    packages = ("rocm-libs", "rocprofiler-sdk")
    assert not_installable(told, packages, "6.4.2", CORE).startswith(words)
    assert bool(not_installable(told, packages, "6.4.2", CORE)) is bool(words)
    refused = {"refused": "E: no such package", "versions": {}}
    assert not_installable(refused, packages, "6.4.2", CORE) == "E: no such package"


# --- models -----------------------------------------------------------------------------------

ABSENT = {"kind": "absent", "sha256": None}
FOLDER = {"kind": "other", "sha256": None, "what": "a directory"}
SHA = "a" * 64
ACTIVE, ARCHIVE, OLD = "/a/loras/m", "/s/loras/m", "/old/loras/m"


def file(sha256: str | None = SHA, inode: int | None = None) -> dict[str, Any]:
    """A file with its verified hash."""
    return {"kind": "file", "size": 3, "sha256": sha256, "inode": inode}


def link(target: str, former: dict[str, Any] | None = None) -> dict[str, Any]:
    """A link; ``former`` is at its end, where a model was managed."""
    found = {"kind": "link", "sha256": None, "target": target}
    return found | ({"former": former | {"recorded": SHA}} if former else {})


def model(tier: str = "active", **own: Any) -> Model:
    """A model of the manifest."""
    data = {"name": "m", "folder": "loras", "tier": tier, "url": "http://h/m", "sha256": SHA}
    return Model.model_validate(data | own)


CASES: dict[str, tuple[Model, dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing there": (model(), ABSENT, ABSENT, ["fetch"]),
    "all right": (model(), file(), ABSENT, []),
    "there, never hashed": (model(), file(None), ABSENT, ["adopt"]),
    "there, another hash": (model(), file("b" * 64), ABSENT, ["adopt"]),
    "no url and not there": (model(url=None), ABSENT, ABSENT, ["missing"]),
    "in the archive": (model(), ABSENT, file(), ["move"]),
    "in the archive, linked": (model(), link(ARCHIVE), file(), ["move"]),
    "a link elsewhere": (model(), link("/elsewhere"), ABSENT, ["blocked"]),
    "something else there": (model(), FOLDER, ABSENT, ["blocked"]),
    "a move that was cut": (model(), file(None), file(), ["adopt", "move"]),
    "a copy of the user's": (model(), file(), file(None), []),
    "a copy with another content": (model(), file(), file("b" * 64), []),
    "archive: nothing there": (model("archive"), ABSENT, ABSENT, ["fetch", "link"]),
    "archive: all right": (model("archive"), link(ARCHIVE), file(), []),
    "archive: no link": (model("archive"), ABSENT, file(), ["link"]),
    "archive: still active": (model("archive"), file(), ABSENT, ["move"]),
    "archive: cut before the link": (model("archive"), file(), file(None), ["adopt", "move"]),
    "archive: a link elsewhere": (model("archive"), link("/x"), file(), ["blocked"]),
    "the archive is another": (model(), link(OLD, file(None)), ABSENT, ["move"]),
    "... and empty": (model(), link(OLD, ABSENT), ABSENT, ["fetch"]),
    "... and empty, no url": (model(url=None), link(OLD, ABSENT), ABSENT, ["missing"]),
    "... and has it already": (model(), link(OLD, ABSENT), file(), ["move"]),
    "... and no file there": (model(), link(OLD, link("/x")), ABSENT, ["blocked"]),
    "archive: another": (model("archive"), link(OLD, file(None)), ABSENT, ["move"]),
    "archive: another, empty": (model("archive"), link(OLD, ABSENT), ABSENT, ["fetch", "link"]),
    "archive: another, has it": (model("archive"), link(OLD, ABSENT), file(), ["link"]),
    "archive: another, cut": (model("archive"), link(OLD, file()), file(None), ["adopt", "move"]),
    "archive: another mount": (model("archive"), link(OLD, file(inode=7)), file(inode=7), ["link"]),
    "archive: another, the user's": (
        model("archive"),
        link(OLD, file()),
        link("/x"),
        ["blocked"],
    ),
    "a dead link into the archive": (model(), link(ARCHIVE), ABSENT, ["fetch"]),
    "one file, two names": (model(), file(inode=7), file(inode=7), []),
    "archive: one file, two names": (model("archive"), file(inode=7), file(inode=7), []),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_of_a_model(case: str) -> None:
    wanted, active, archive, actions = CASES[case]
    files = {ACTIVE: active, ARCHIVE: archive}
    found = steps(wanted, Places(ACTIVE, ARCHIVE), files, {})
    assert [step.action for step in found] == actions


def test_only_the_active_place_keeps_a_link() -> None:
    # An archive whose name begins like the active tier's is another directory.
    archive = "/a-archive/loras/m"
    for tier, source, target in (("archive", ACTIVE, archive), ("active", archive, ACTIVE)):
        files = {source: file(), target: ABSENT}
        moves = [
            step
            for step in steps(model(tier), Places(ACTIVE, archive), files, {})
            if step.action == "move"
        ]
        assert [step.link for step in moves] == [ACTIVE if tier == "archive" else ""], tier


def test_a_model_of_a_former_archive_is_moved_by_its_link_and_hash() -> None:
    gone = {"/a/loras/m": link(OLD, file(None))}
    (step,) = steps(model(), Places("/a/loras/m", None), gone, {})
    assert step == Step("move", model(), "/a/loras/m", OLD, "", SHA)
    (step,) = steps(model("archive"), Places(ACTIVE, ARCHIVE), gone | {ARCHIVE: ABSENT}, {})
    assert step == Step("move", model("archive"), ARCHIVE, OLD, ACTIVE, SHA)
    # A link of the user's is no business of ours.
    (step,) = steps(model(), Places("/a/loras/m", None), {"/a/loras/m": link(OLD)}, {})
    assert step.action == "blocked"


@pytest.mark.parametrize("pinned", [True, False])
def test_every_move_says_which_content_it_takes(pinned: bool) -> None:
    urls = {} if pinned else {"http://h/m": SHA}
    own = {} if pinned else {"sha256": None}
    moves = 0
    for wanted, active, archive, _ in CASES.values():
        # What was recorded where a former archive was is not asked where more is known.
        if "former" in active:
            active = active | {"former": active["former"] | {"recorded": "b" * 64}}
        files = {ACTIVE: active, ARCHIVE: archive}
        chosen = model(wanted.tier, url=wanted.url or "http://h/m", **own)
        found = steps(chosen, Places(ACTIVE, ARCHIVE), files, urls)
        moved = [step.sha256 for step in found if step.action == "move"]
        assert moved in ([], [SHA])
        moves += len(moved)
    assert moves >= 8


@pytest.mark.parametrize(
    ("stands", "words", "mend"),
    [
        (FOLDER, f"{ACTIVE} is a directory, and in the way of the model", "move it away;"),
        (
            link("/x"),
            f"{ACTIVE} is a link to /x, and in the way of the model",
            "set models_archive",
        ),
        (link(OLD, FOLDER), f"{ACTIVE} is a link to {OLD}, which is a directory, and in", "set"),
        (link(OLD, link("/x")), f"{ACTIVE} is a link to {OLD}, which is a link to /x, and", "set"),
    ],
)
def test_what_is_in_the_way_is_named(stands: dict[str, Any], words: str, mend: str) -> None:
    blocked = steps(model(), Places(ACTIVE, ARCHIVE), {ACTIVE: stands, ARCHIVE: ABSENT}, {})
    ((evidence, told),) = obstacles(blocked)
    assert evidence.startswith(words)
    assert mend in told
    both = [*blocked, *steps(model(), Places("/b/m", None), {"/b/m": FOLDER}, {})]
    ((evidence, _),) = obstacles(both)
    assert evidence.startswith(words)
    assert evidence.endswith("; /b/m is a directory, and in the way of the model")


def rooms(active: int, archive: int, old: int = 0) -> dict[str, dict[str, int]]:
    """Free bytes of three disks."""
    free = {"/a/loras": active, "/s/loras": archive, "/old/loras": old}
    return {path: {"device": n, "free": free[path]} for n, path in enumerate(free)}


def crowd(wanted: Model, free: dict[str, dict[str, int]], **own: dict[str, Any]) -> list[str]:
    """Models that have no room, with 7 bytes on the active disk that are freed before."""
    files = {ACTIVE: own.get("active", ABSENT), ARCHIVE: own.get("archive", ABSENT)}
    known = {"files": files, "rooms": free}
    todo = steps(wanted, Places(ACTIVE, ARCHIVE), files, {})
    return [evidence for evidence, _ in crowded(todo, known, {0: 7} if "freed" in own else {})]


def test_a_move_needs_room_for_the_whole_model() -> None:
    assert crowd(model(), rooms(3, 0), archive=file()) == []
    (told,) = crowd(model(), rooms(2, 0), archive=file())
    assert told == "/a/loras has 0.0 GiB free and m needs 0.0"
    assert crowd(model(), rooms(2, 0), active=link(OLD, file())) == [told]
    assert crowd(model(), rooms(3, 0), active=link(OLD, file())) == []
    assert crowd(model(), rooms(2, 0), archive=file(), freed={}) == []
    # What a move that was cut left is discarded first.
    assert crowd(model(), rooms(2, 0), active=ABSENT | {"part": 1}, archive=file()) == []
    # Nothing is copied where both are there.
    assert crowd(model(), rooms(0, 0), active=file(None), archive=file()) == []


def test_a_download_needs_room_for_what_the_manifest_says() -> None:
    assert crowd(model(bytes=3), rooms(2, 0)) != []
    assert crowd(model(bytes=3), rooms(2, 0), active=ABSENT | {"part": 1}) == []
    assert crowd(model(), rooms(0, 0)) == []


def test_moves_make_room_for_what_follows() -> None:
    one, two = model("archive"), model(name="n")
    names = {path: path[:-1] + "n" for path in (ACTIVE, ARCHIVE)}
    files = {ACTIVE: file(), ARCHIVE: ABSENT, names[ACTIVE]: ABSENT, names[ARCHIVE]: file()}
    known = {"files": files, "urls": {}, "rooms": rooms(0, 3)}
    assert list(crowded(plan((one, two), "/a", "/s", known), known, {})) == []
    assert list(crowded(plan((two, one), "/a", "/s", known), known, {})) != []


def test_what_is_to_be_done_is_said_in_words() -> None:
    step = Step("adopt", model(), ACTIVE)
    assert step.words() == f"{ACTIVE} is there, and its content is to be checked by its sha256"
    step = Step("missing", model(), ACTIVE, OLD)
    assert step.words().endswith(f"no url (the link leads to {OLD}, where nothing is)")


def test_one_tier_needs_no_archive() -> None:
    known = {"files": {"/a/loras/m": file()}, "urls": {}}
    assert plan((model(),), "/a", None, known) == []


def test_the_hash_of_first_use_is_the_wanted_one() -> None:
    files = {ACTIVE: file("b" * 64), ARCHIVE: ABSENT}
    wanted = model(sha256=None)
    assert steps(wanted, Places(ACTIVE, ARCHIVE), files, {"http://h/m": "b" * 64}) == []
    found = steps(wanted, Places(ACTIVE, ARCHIVE), files, {"http://h/m": "c" * 64})
    assert [step.action for step in found] == ["adopt"]


# --- preflight --------------------------------------------------------------------------------

GIB = 1 << 30
GOOD: dict[str, Any] = {
    "distribution": "ubuntu-24.04",
    "machine": "x86_64",
    "kernel": "6.17.0-19-generic",
    "cpu": "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S",
    "memory": 125 * GIB,
    "gpus": [{"device": "0x1586", "vram": str(GIB // 2), "gtt": str(62 * GIB)}],
    "gfx_targets": ["110501"],
    "kfd": True,
    "render": True,
    "disks": {
        "/opt": {"device": 1, "free": 200 * GIB},
        "/opt/strixbox": {"device": 1, "free": 200 * GIB},
        "/var/cache": {"device": 1, "free": 200 * GIB},
        "/home/anna": {"device": 1, "free": 200 * GIB},
    },
    "sealed": False,
    "rocm": "",
    "driver": "",
    "firmware": "20240318.git3b128b60-0ubuntu2.18",
    "mes": ["0x80"],
    "overrides": [],
    "secure_boot": "on",
    "time": time.time(),
    "synchronised": "yes",
    "home": "/home/anna",
    "closed": [],
    "interrupted": False,
    "read_only": [],
    "init": "systemd",
    "port": None,
}


def disks(opt: int, var: int, home: int, root: int | None = None) -> dict[str, dict[str, int]]:
    """Free GiB; the same number stands for the same disk, and ROCm's is ours where none is told."""
    rooms = {"/opt": root or opt, "/opt/strixbox": opt, "/var/cache": var, "/home/anna": home}
    return {path: {"device": free, "free": free * GIB} for path, free in rooms.items()}


SPOILT: dict[str, tuple[dict[str, Any], str, str]] = {
    "another distribution": ({"distribution": "debian-12"}, "OS.DISTRIBUTION", "refuse"),
    "ARM": ({"machine": "aarch64"}, "OS.DISTRIBUTION", "refuse"),
    "no systemd": ({"init": "sh"}, "OS.SYSTEMD", "refuse"),
    "read-only": ({"read_only": ["/"]}, "OS.READ_ONLY", "refuse"),
    "dpkg halfway": ({"interrupted": True}, "APT.INTERRUPTED", "warn"),
    "ten years late": ({"time": time.time() - 315_360_000}, "OS.CLOCK", "refuse"),
    "ten years early": ({"time": time.time() + 315_360_000}, "OS.CLOCK", "refuse"),
    "another CPU": ({"cpu": "Intel"}, "CPU.MODEL", "warn"),
    "half the memory": ({"memory": 62 * GIB}, "RAM.SIZE", "warn"),
    "no GPU": ({"gpus": []}, "GPU.PCI", "refuse"),
    "another GPU": (
        {"gpus": [{"device": "0x744c", "vram": "1", "gtt": "1"}]},
        "GPU.PCI",
        "refuse",
    ),
    "no KFD": ({"kfd": False}, "GPU.KFD", "refuse"),
    "another target": ({"gfx_targets": ["110000"]}, "GPU.KFD", "refuse"),
    "no render node": ({"render": False}, "GPU.RENDER", "refuse"),
    "carved out": (
        {"gpus": [{"device": "0x1586", "vram": str(96 * GIB), "gtt": str(62 * GIB)}]},
        "GPU.CARVE_OUT",
        "warn",
    ),
    "small GTT": (
        {"gpus": [{"device": "0x1586", "vram": "0", "gtt": str(15 * GIB)}]},
        "GPU.GTT",
        "warn",
    ),
    "dkms": ({"driver": "ii 1:6.12"}, "DRIVER.DKMS", "warn"),
    "broken firmware": ({"mes": ["0x83"]}, "FIRMWARE.BROKEN", "refuse"),
    "firmware that is not told": ({"mes": []}, "FIRMWARE.BROKEN", "warn"),
    "a RAM disk of half the carved-out memory": ({"memory": 31 * GIB}, "RAM.TMPFS", "refuse"),
    "override": ({"overrides": ["/etc/environment: HSA"]}, "ENV.OVERRIDE", "warn"),
    "full disk": ({"disks": disks(3, 3, 3)}, "DISK.ROOM", "refuse"),
    "room for one release": (
        {"disks": disks(20, 20, 20), "rocm": "ii 7.2.1"},
        "DISK.ROOM",
        "warn",
    ),
    "a larger disk for the releases alone": (
        {"disks": disks(200, 12, 12, root=12), "rocm": "", "sealed": False},
        "DISK.ROOM",
        "refuse",
    ),
    "room for ROCm, and none for the downloads of a release elsewhere": (
        {"disks": disks(200, 22, 22, root=22), "rocm": "", "sealed": False},
        "DISK.ROOM",
        "refuse",
    ),
    "a small disk for /var": ({"disks": disks(200, 3, 200)}, "DISK.ROOM", "refuse"),
    "a full disk for the home": ({"disks": disks(200, 200, 1)}, "DISK.ROOM", "warn"),
    "another home": ({"home": "/srv/anna"}, "USER.HOME", "refuse"),
    "no account": ({"home": None}, "USER.HOME", "refuse"),
    "a directory of root's": ({"closed": ["/data takes nothing"]}, "USER.DIRECTORIES", "refuse"),
    "port taken": ({"port": "nginx (process 7)"}, "PORT.TAKEN", "refuse"),
}


@pytest.fixture
def new(data: dict[str, Any]) -> Config:
    """A box of the stack that AMD supports."""
    return Config.load(data | deepcopy(GROUPS["rocm_7_2"]))


def test_a_good_box_has_no_findings(new: Config) -> None:
    assert {f.code for f in examine(GOOD, new) if f.verdict != "ok"} == set()


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_wrong_is_found_with_a_mend(new: Config, case: str) -> None:
    change, code, verdict = SPOILT[case]
    found = {f.code: f for f in examine(GOOD | change, new)}
    assert found[code].verdict == verdict
    assert found[code].evidence
    assert found[code].mend


def test_what_is_accepted_keeps_its_evidence_and_reason(data: dict[str, Any]) -> None:
    cfg = Config.load(data | {"box_accept": {"CPU.MODEL": "a test box"}})
    (finding,) = [f for f in examine(GOOD | {"cpu": "Intel"}, cfg) if f.code == "CPU.MODEL"]
    assert finding.verdict == "accepted"
    assert (finding.evidence, finding.mend) == ("Intel", "accepted: a test box")


def test_every_code_is_listed_and_used(new: Config) -> None:
    found = {f.code for check in CHECKS for f in check(GOOD, new)}
    found |= {
        f.code
        for f in examine_models({"files": {}, "urls": {}, "rooms": {}}, None, emptied(new), {})
    }
    assert found | {"TMPFS.PLACE"} == CODES  # which is asked about with the RAM disk


def emptied(cfg: Config, *manifest: Model, archive: str | None = None) -> Config:
    """The box with other models."""
    models = cfg.models.model_copy(update={"manifest": manifest, "archive": archive})
    base = cfg.comfyui.model_copy(update={"base_directory": "/a"})
    return cfg.model_copy(update={"models": models, "comfyui": base})


@pytest.mark.parametrize(
    ("state", "tier", "free", "code"),
    [
        (link("/x"), {"exists": True, "other_disk": True}, 9, "MODELS.PLACE"),
        (link("/old/loras/m", file()), {"exists": True, "other_disk": True}, 2, "MODELS.ROOM"),
        (link("/x"), {"exists": False, "other_disk": False}, 9, "MODELS.ARCHIVE"),
        (file(), {"exists": True, "other_disk": False}, 0, None),
    ],
)
def test_what_the_models_lack_is_refused_at_once(
    cfg: Config, state: dict[str, Any], tier: dict[str, bool], free: int, code: str | None
) -> None:
    box = emptied(cfg, model(), archive="/s")
    known = {
        "files": {"/a/models/loras/m": state, "/s/loras/m": ABSENT},
        "urls": {},
        "rooms": {path: {"device": 1, "free": free} for path in ("/a/models/loras", "/s/loras")},
    }
    refused = [f for f in examine_models(known, tier, box, {}) if f.verdict == "refuse"]
    assert [f.code for f in refused] == ([code] if code else [])
    assert all(f.evidence and f.mend for f in refused)


# Kernels with the two commits that this chip needs, and without them.
FIXED, OLDER = ("6.17.0-19-generic", "6.14.0-1018-oem", "6.18.4"), ("6.17.0-18-generic", "6.14.0")
KERNEL, GROUP = "linux-oem-24.04c", "group rocm_7_2"


@pytest.mark.parametrize(
    ("releases", "kernels", "verdict", "words", "mends"),
    [
        ("6.4.0 6.4.2 6.4.4", FIXED, "warn", "AMD does not support them", [GROUP]),
        ("6.4.0 6.4.2 6.4.4", OLDER, "warn", "AMD calls them unstable", [KERNEL, GROUP]),
        ("7.1.1", FIXED, "warn", "AMD does not support them", [GROUP]),
        ("7.1.1", OLDER, "warn", "AMD calls them unstable", [KERNEL, GROUP]),
        ("7.2.0", FIXED, "ok", "AMD supports them", []),
        ("7.2.0", OLDER, "warn", "AMD does not support them", [KERNEL]),
        ("7.2.1 7.2.4", FIXED, "ok", "AMD supports them", []),
        ("7.2.1 7.2.4", OLDER, "warn", "AMD calls them unstable", [KERNEL]),
        ("7.9.0 7.10.0", FIXED, "warn", "AMD does not support them", [GROUP]),
        ("7.9.0 7.10.0", OLDER, "warn", "AMD calls them unstable", [KERNEL, GROUP]),
        ("7.11.0 7.12.0 7.13.0", FIXED, "ok", "AMD supports them", []),
        ("7.11.0 7.12.0 7.13.0", OLDER, "warn", "AMD calls them unstable", [KERNEL]),
        ("7.14.0 7.14.1", FIXED, "ok", "AMD supports them", []),
        ("7.14.0 7.14.1", OLDER, "warn", "AMD calls them unstable", [KERNEL]),
        ("6.3.4 7.0.0 7.2.5 7.8.0 7.15.0 10.0.0", FIXED, "warn", "not in AMD's table", [GROUP]),
        ("6.3.4 7.0.0 7.2.5 7.8.0", OLDER, "warn", "not in AMD's table", [KERNEL, GROUP]),
        # Known to break, whatever else the table says of them.
        ("6.4.1 7.0.2 7.1.0", FIXED, "refuse", "hipMalloc", [GROUP]),
        ("6.4.1 7.0.2 7.1.0", OLDER, "refuse", "hipMalloc", [KERNEL, GROUP]),
    ],
)
def test_amds_table_of_kernels_and_releases(
    cfg: Config,
    releases: str,
    kernels: tuple[str, ...],
    verdict: str,
    words: str,
    mends: list[str],
) -> None:
    for release, kernel in product(releases.split(), kernels):
        rocm = cfg.rocm.model_copy(update={"version": release})
        finding = kernel_finding(cfg.model_copy(update={"rocm": rocm}), kernel)
        assert finding.verdict == verdict, (release, kernel)
        assert f"kernel {kernel} with ROCm {release}: " in finding.evidence
        assert words in finding.evidence
        assert ("two fixes" in finding.evidence) is (kernels is OLDER)
        assert [mend for mend in (KERNEL, GROUP) if mend in finding.mend] == mends
        assert bool(finding.mend) is bool(mends)


@pytest.mark.parametrize(
    ("torch", "verdict", "words"),
    [
        ("2.6.0+rocm6.4.2.git76481f7c", "warn", "ROCm 6.4.2: AMD does not support"),
        ("2.9.1+rocm7.2.1.lw.gitff65f5bc", "ok", "ROCm 7.2.1: AMD supports"),
        # PyTorch's own name no patch release: it may be the one that breaks, or the next.
        ("2.10.0+rocm7.1", "warn", "ROCm 7.1: AMD does not support"),
        ("2.9.1+rocm7.1.0.git1", "refuse", "ROCm 7.1.0: hipMalloc"),
        ("2.9.1+rocm7.0", "warn", "ROCm 7.0: this release is not in AMD's table"),
        ("2.11.0+rocm7.13.0", "ok", "ROCm 7.13.0: AMD supports"),
        ("2.9.1+cpu", "ok", "torch 2.9.1+cpu uses no ROCm"),
    ],
)
def test_without_apts_rocm_the_wheels_decide(
    cfg: Config, torch: str, verdict: str, words: str
) -> None:
    (wheel,) = (wheel for wheel in cfg.python.wheels if wheel.project == "torch")
    wheels = (wheel.model_copy(update={"version": torch}),)
    box = cfg.model_copy(
        update={
            "rocm": cfg.rocm.model_copy(update={"version": None}),
            "python": cfg.python.model_copy(update={"wheels": wheels}),
        }
    )
    finding = kernel_finding(box, "6.17.0-19-generic")
    assert finding.verdict == verdict
    assert words in finding.evidence


def kernel_finding(cfg: Config, kernel: str) -> Finding:
    """What is found of a kernel."""
    (finding,) = [f for f in examine(GOOD | {"kernel": kernel}, cfg) if f.code == "KERNEL.ROCM"]
    return finding


def test_what_is_there_already_needs_no_room(cfg: Config) -> None:
    def room(**survey: Any) -> str:
        (found,) = [f for f in examine(GOOD | survey, cfg) if f.code == "DISK.ROOM"]
        return found.verdict

    built = {"sealed": True, "rocm": "ii 6.4.2"}
    assert cfg.rocm.disk_gib + cfg.comfyui.release_disk_gib == 42
    assert room(disks=disks(41, 41, 41)) == "refuse"
    assert room(disks=disks(43, 43, 43)) == "warn"
    assert room(disks=disks(61, 61, 61)) == "ok"
    assert room(disks=disks(17, 17, 17), rocm="hi 6.4.2") == "warn"
    # A converged box is never refused: nothing is built.
    assert room(disks=disks(0, 0, 0), **built) == "warn"
    # The downloads are part of the whole on one disk, and asked of /var where it is another.
    assert room(disks=disks(200, 10, 200)) == "refuse"
    assert room(disks=disks(200, 11, 200)) == "warn"


def test_gtt_is_advised_from_the_memory_that_the_kernel_has(new: Config) -> None:
    pool = {"device": "0x1586", "vram": str(64 * GIB), "gtt": str(8 * GIB)}
    found = {f.code: f for f in examine(GOOD | {"memory": 62 * GIB, "gpus": [pool]}, new)}
    assert found["GPU.GTT"].verdict == "warn"
    assert f"pages_limit={38 * GIB // 4096} " in found["GPU.GTT"].mend


def test_a_kernel_that_does_not_know_the_chip_is_named_with_a_newer_one(cfg: Config) -> None:
    old = GOOD | {"kernel": "6.8.0-51-generic", "kfd": False, "render": False}
    found = {f.code: f for f in examine(old, cfg)}
    for code in ("GPU.KFD", "GPU.RENDER", "KERNEL.ROCM"):
        assert "linux-oem-24.04c" in found[code].mend, code
    # A kernel that knows it has another reason.
    found = {f.code: f for f in examine(GOOD | {"kfd": False}, cfg)}
    assert "dmesg" in found["GPU.KFD"].mend


def test_a_box_without_the_gpu_has_no_firmware_to_warn_of(new: Config) -> None:
    found = {f.code: f for f in examine(GOOD | {"gpus": [], "mes": []}, new)}
    assert found["FIRMWARE.BROKEN"].verdict == "ok"


@pytest.mark.parametrize("state", ["ii", "hi", "iU", "iF", "iHR", "iW", "it", "ri", "un", "rc", ""])
def test_a_driver_that_is_on_the_disk_is_told_whatever_its_state(new: Config, state: str) -> None:
    driver = f"{state} 1:6.12" if state else ""
    (finding,) = [f for f in examine(GOOD | {"driver": driver}, new) if f.code == "DRIVER.DKMS"]
    assert finding.verdict == ("ok" if state in ("un", "rc", "") else "warn")
    assert (driver or "absent") in finding.evidence


@pytest.mark.parametrize(
    ("release", "fixed"),
    [
        ("6.8.0-51-generic", False),
        ("6.11.0-17-generic", False),
        ("6.14.0-1017-oem", False),
        ("6.14.0-1018-oem", True),
        ("6.14.0-37-generic", False),
        ("6.17.0-18-generic", False),
        ("6.17.0-19-generic", True),
        ("6.17.0-1005-oem", False),
        ("6.17.0-1005-azure", False),
        ("6.17.0-20-lowlatency", True),
        ("6.14.0-1018-azure", False),
        ("6.18.3", False),
        ("6.18.4", True),
        ("6.19.0-rc1", True),
        ("7.0.0-1-generic", True),
        ("unknown", False),
    ],
)
def test_kernels_with_the_two_fixes(release: str, fixed: bool) -> None:
    assert kernel_is_fixed(release) is fixed


# --- releases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("releases", "keep", "doomed"),
    [
        ({"now": 9}, 2, []),
        ({"now": 9, "unsealed": None, "old": 5}, 2, ["unsealed"]),
        ({"now": None, "old": 5}, 2, []),
        ({"now": 9, "old": 5}, 2, []),
        ({"now": 9, "old": 5, "older": 3}, 2, ["older"]),
        ({"now": 9, "half": None, "old": 5}, 2, []),
        ({"now": 1, "newer": 5, "old": 3}, 2, ["newer"]),
        ({"now": 9, "a": 1, "b": 2, "c": 3}, 3, ["a"]),
    ],
)
def test_the_newest_sealed_releases_are_kept(
    releases: dict[str, int | None], keep: int, doomed: list[str]
) -> None:
    # A half-built one is cleared at the start; one that was in use and lost its seal goes here.
    answered = {"unsealed": 1, "now": 9, "old": 5}
    assert superfluous(releases, "now", keep, answered) == doomed


def test_the_release_to_go_back_to_is_kept_before_one_that_never_answered() -> None:
    releases: dict[str, int | None] = {"a": 100, "b": 200, "c": 300}
    assert superfluous(releases, "c", 2, {"a": 110, "c": 310}) == ["b"]
    # b answered once, and a after it: somebody went back to a.
    assert superfluous(releases, "c", 2, {"a": 250, "b": 210, "c": 310}) == ["b"]


def test_a_release_is_named_by_its_pins_alone(cfg: Config, data: dict[str, Any]) -> None:
    one = Release(cfg.python, cfg.comfyui, {})
    other = Config.load(data | {"comfyui_port": 9000, "comfyui_start_timeout": 9})
    assert Release(other.python, other.comfyui, {}).id == one.id
    pinned = Config.load(data | {"comfyui_commit": "0" * 40})
    assert Release(pinned.python, pinned.comfyui, {}).id != one.id
    assert Release(cfg.python, cfg.comfyui, {"node": "x"}).id != one.id


def test_the_lock_leaves_torch_to_the_stack(cfg: Config, new: Config) -> None:
    for each in (cfg, new):
        release = Release(each.python, each.comfyui, {})
        assert "+rocm" in release.packages()["torch"]
        assert release.packages()["numpy"] == each.python.numpy
        assert "requests" in release.packages()
        assert "pip" in release.packages()  # ComfyUI-Manager starts `python -m pip`
        assert f"torch=={release.packages()['torch']}" in constraints(each.python)
        assert f"torch=={release.packages()['torch']}" in overrides(release)
        assert all("%" not in file_name(wheel) for wheel in each.python.wheels)


def running(cfg: Config, release: Release) -> dict[str, Any]:
    """A service that runs as it shall."""
    from strixbox import launch

    profile = cfg.launch.profiles[cfg.comfyui.profile]
    environment = launch.variables(cfg, profile.variables)
    return {
        "enabled": True,
        "active": True,
        "stale": False,
        "other_commands": [],
        "answers": True,
        "current": release.path,
        "process": {
            "argv": launch.running_argv(cfg, release),
            "environment": environment | {"STRIXBOX_UNIT": launch.unit_digest(cfg)},
        },
    }


def test_a_service_that_runs_as_it_shall_is_left_alone(cfg: Config) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    assert service_trouble(cfg, release, running(cfg, release)) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"current": "/opt/strixbox/releases/x"}, "shall name release"),
        ({"enabled": False}, "enabled at boot"),
        ({"stale": True}, "not read its unit file"),
        ({"other_commands": ["/etc/x.conf"]}, "/etc/x.conf has it start another command"),
        ({"active": False}, "to be started"),
        ({"answers": False}, "does not answer"),
        ({"process": {"argv": ["python"], "environment": {}}}, "other flags"),
    ],
)
def test_a_service_that_differs_is_told(cfg: Config, change: dict[str, Any], words: str) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    trouble = service_trouble(cfg, release, running(cfg, release) | change)
    assert words in "; ".join(trouble)


def test_a_variable_that_left_the_profile_is_found_in_the_process(
    cfg: Config, data: dict[str, Any]
) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    before = running(cfg, release)
    data["launch_profiles"] = deepcopy(data["launch_profiles"])
    data["launch_profiles"]["production"]["variables"].remove("OMP_NUM_THREADS")
    trouble = service_trouble(Config.load(data), release, before)
    assert trouble == ("it runs without the value of STRIXBOX_UNIT",)


@pytest.mark.parametrize(
    ("then", "asked", "left"),
    [({"answers": True}, [0, 180], ()), ({"answers": False}, [0, 180], (SILENT,))],
)
def test_a_busy_server_has_the_time_of_a_start_to_answer(
    cfg: Config,
    monkeypatch: pytest.MonkeyPatch,
    then: dict[str, Any],
    asked: list[int],
    left: tuple[str, ...],
) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    answers = [running(cfg, release) | {"answers": False}, running(cfg, release) | then]
    waits: list[int] = []

    def ask_service(cfg: Config, patience: int = 0) -> dict[str, Any]:
        waits.append(patience)
        return answers[len(waits) - 1]

    monkeypatch.setattr("strixbox.operations.release.ask_service", ask_service)
    monkeypatch.setattr("strixbox.operations.release.say", lambda text: None)
    assert settled_service(cfg, release)[1] == left
    assert waits == asked


def test_a_server_with_other_troubles_is_not_waited_for(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    state = running(cfg, release) | {"answers": False, "stale": True}
    monkeypatch.setattr("strixbox.operations.release.ask_service", lambda cfg: state)
    assert len(settled_service(cfg, release)[1]) == 2


def test_a_changed_node_of_the_users_is_one_row_and_the_rest_is_judged_as_built(
    cfg: Config,
) -> None:
    built = Release(cfg.python, cfg.comfyui, {"Mine": "1", "Gone": "2"})
    wanted = Release(cfg.python, cfg.comfyui, {"Mine": "3"})
    judged, changed = standing(wanted, built.pins())
    assert judged.id == built.id
    assert changed == ("Gone", "Mine")
    assert standing(wanted, wanted.pins()) == (wanted, ())
    assert standing(wanted, None) == (wanted, ())
    # Another commit besides: nothing of the old release is right any more.
    other = cfg.comfyui.model_copy(update={"commit": "0" * 40})
    assert standing(wanted, Release(cfg.python, other, {}).pins()) == (wanted, ())


def test_a_generation_is_named_by_its_release_and_its_files(cfg: Config) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    one = Generation.of(cfg, release)
    other = Generation.of(
        cfg.model_copy(update={"comfyui": cfg.comfyui.model_copy(update={"port": 9000})}),
        release,
    )
    assert one.id.startswith(f"{release.id}-")
    assert other.id.startswith(f"{release.id}-")
    assert one.id != other.id
    order = json.loads(one.kept()[-1].content)
    copies = {file.path: file for file in one.kept()}
    for file in order["files"]:
        assert copies[f"{one.path}/files{file['path']}"].mode == file["mode"]
    assert order["release"] == release.path


def test_a_generation_whose_answer_is_not_noted_is_activated_again(cfg: Config) -> None:
    generation = Generation.of(cfg, Release(cfg.python, cfg.comfyui, {}))

    def noted(in_use: str, answered: int | None) -> bool:
        kept = [{"id": generation.id, "answered": answered}, {"id": "other", "answered": 5}]
        return is_noted({"generation": in_use, "generations": kept}, generation)

    assert noted(generation.path, 7)
    assert not noted(generation.path, None)
    assert not noted("/elsewhere/other", 7)


def test_going_back_takes_the_last_that_answered_with_another_release() -> None:
    kept: list[dict[str, Any]] = [
        {"id": "a-1", "release": "a", "answered": 10},
        {"id": "a-2", "release": "a", "answered": 20},
        {"id": "b-1", "release": "b", "answered": 30},
        {"id": "b-2", "release": "b", "answered": 40},
        {"id": "c-1", "release": "c", "answered": None},
    ]
    in_use = f"{GENERATIONS}/b-2"
    assert earlier(kept, in_use, None)["id"] == "a-2"
    assert earlier(kept, in_use, "b")["id"] == "b-2"


def test_nothing_to_go_back_to_is_said_plainly() -> None:
    a = {"id": "a-1", "release": "a", "answered": 10}
    b = {"id": "b-1", "release": "b", "answered": 20}
    c = {"id": "c-1", "release": "c", "answered": None}
    cases: list[tuple[list[dict[str, Any]], str | None, str]] = [
        ([a, b, c], "c", "Release c has never answered on this box.* --data release=ID: a, b."),
        ([a, b], "d", "Release d is not on this box.* --data release=ID: a, b."),
        ([b, c], None, "no earlier release to go back to: b is the only one that has answered"),
        ([c], None, "no earlier release to go back to: none has answered on this box yet"),
        ([], "a", "none has answered on this box yet; run deploy.py."),
    ]
    for kept, wanted, sentence in cases:
        with pytest.raises(BoxTrouble, match=sentence):
            earlier(kept, f"{GENERATIONS}/b-1", wanted)


def test_an_upgrade_tells_what_it_changes(cfg: Config) -> None:
    before = Release(cfg.python, cfg.comfyui, {"Mine": "1" * 64}).pins()
    newer = cfg.comfyui.model_copy(update={"commit": "a" * 40, "nodes": ()})
    after = Release(cfg.python, newer, {}).pins()
    told = changed_pins(before, after)
    assert f"ComfyUI: {cfg.comfyui.commit[:12]} -> aaaaaaaaaaaa" in told
    assert "node ComfyUI-TiledDiffusion: a155b1bac391 -> none" in told
    assert "requirements of your node Mine: 111111111111 -> none" in told
    assert len(told) == 3
    assert changed_pins(None, after) == []
    assert changed_pins(after, after) == []
