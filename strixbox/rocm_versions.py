"""Which ROCm release a package of AMD's belongs to, told from its version alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

# AMD's build number: 6.4.2.60402-120~24.04, 1:6.12.12.60402-2187269.24.04; older releases had no
# distribution at the end (5.1.3.50103-66). The driver's own numbers have eight digits since ROCm 7
# (amdgpu-dkms 1:6.16.6.30200100-2255209.24.04) and name no ROCm release.
_BUILD = re.compile(r"(?:^|[.:])(\d{1,2})(\d\d)(\d\d)-\d+(?:[~.]\d\d\.\d\d)?$")
# What AMD's build machines end every version with. Few packages have that alone: 7.2.1's
# rocprofiler-sdk is 1.1.0-81~24.04, beside rocm-core 7.2.1.70201-81~24.04.
_REVISION = re.compile(r"-(\d+[~.]\d\d\.\d\d)$")


def release_of(version: str) -> str | None:
    """ROCm release of a version's build number: 60402 is 6.4.2, 70001 is 7.0.1."""
    build = _BUILD.search(version)
    return ".".join(str(int(part)) for part in build.groups()) if build else None


def revision_of(version: str) -> str | None:
    """What AMD's build machines end a version with, None where it was made by others."""
    revision = _REVISION.search(version)
    return revision.group(1) if revision else None


def releases(versions: Mapping[str, str]) -> dict[str, str | None]:
    """Release by package, for packages seen together.

    One without a build number is of the release whose revision it shares.
    """
    seen: dict[str, set[str]] = {}
    for version in versions.values():
        release, revision = release_of(version), revision_of(version)
        if release and revision:
            seen.setdefault(revision, set()).add(release)
    found = {}
    for package, version in versions.items():
        shared = seen.get(revision_of(version) or "", set())
        found[package] = release_of(version) or (next(iter(shared)) if len(shared) == 1 else None)
    return found
