"""Where things are on a box."""

from __future__ import annotations

OPT = "/opt/strixbox"
LIB = f"{OPT}/lib"  # programs that stay on the box
BIN = f"{OPT}/bin"  # launch scripts
LOCKS = f"{OPT}/locks"  # hashed requirement locks
RELEASES = f"{OPT}/releases"
CURRENT = f"{OPT}/current"  # link to the release that runs
ETC = "/etc/strixbox"
STATE = "/var/lib/strixbox"
BACKUPS = "/var/backups/strixbox"
SERVICE = "comfyui.service"
WHEELS = "/var/cache/strixbox/wheels"  # the stack's wheels, kept for the next release
RECORDS = f"{STATE}/files.json"  # hashes that were verified, and those of first use
