"""What may differ between a box that we made and one that Ansible made, each with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable

EXPLAINED = (
    (r"/\.git/", "a shallow fetch of one commit, or a clone with its remote: the same commit"),
    (r"^/(root|home/[^/]+)/\.ansible", "Ansible's directory for temporary files"),
    (r"^/var/lib/strixbox/generations", "ours keeps what a release was run with, to go back to"),
    (r"^/var/lib/strixbox/(files\.json|rocm-index)", "ours records hashes, and the index's source"),
    (r"^/var/backups/strixbox", "ours keeps what it edits"),
    (r"/releases/\w+/user-nodes\.json", "ours records what the user's nodes were given"),
    (r"/releases/\w+/release\.json", "ours records proof and time"),
    (r"\.dist-info/(direct_url\.json|RECORD|uv_cache\.json)", "installed from a file, or by URL"),
    (r"^/opt/strixbox/uv/", "made aside and renamed, or in its place; with pip or as pip makes it"),
    (
        r"/venv/\.lock$",
        "uv leaves it writable for all; ours takes the environment back from the builder",
    ),
    (r"^unit:session-", "a login that had not ended"),
    (r"^pid:", "a process's number"),
)
KNOWN = re.compile("|".join(pattern for pattern, _ in EXPLAINED))


def unexplained(lines: Iterable[str]) -> list[str]:
    """Lines of a difference that no reason is known for."""
    return [line for line in lines if not KNOWN.search(line.partition(": ")[0])]
