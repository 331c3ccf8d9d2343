"""Where things are on a box."""

from __future__ import annotations

OPT = "/opt/strixbox"
TOOLS = f"{OPT}/tools"  # environment of the strixbox command
BOXTOOLS = f"{OPT}/boxtools"  # its package
NODES = f"{OPT}/nodes"  # ComfyUI nodes of ours
COMMAND = "/usr/local/bin/strixbox"
TOOLS_STATE = "/var/lib/strixbox/tools"  # results of the command; the user owns it
LIB = f"{OPT}/lib"  # programs that stay on the box
BIN = f"{OPT}/bin"  # launch scripts
LOCKS = f"{OPT}/locks"  # hashed requirement locks
RELEASES = f"{OPT}/releases"
# Names of releases and generations, as glob and as regular expression: what has another name there,
# as a copy that somebody made of a release, is not ours.
RELEASE_ID = "[0-9a-f]" * 12
GENERATION_ID = f"{RELEASE_ID}-" + "[0-9a-f]" * 8
CURRENT = f"{OPT}/current"  # link to the release that runs
GENERATIONS = "/var/lib/strixbox/generations"  # releases with the files they were run with
IN_USE = f"{GENERATIONS}/in-use"  # link to the one that answered last
ETC = "/etc/strixbox"
FOLDERS = ("custom_nodes", "input", "models", "output", "user")  # in the user's directory
STATE = "/var/lib/strixbox"
CACHE = "/var/cache/strixbox"
BACKUPS = "/var/backups/strixbox"
LOGS = "/var/log/strixbox"
CHANGES = f"{LOGS}/changes.jsonl"  # who changed what on the box
SERVICE = "comfyui.service"
UV_CACHE = f"{CACHE}/uv"  # uv's own
WHEELS = f"{CACHE}/wheels"  # the stack's wheels, kept for the next release
RECORDS = f"{STATE}/files.json"  # hashes that were verified, and those of first use
# Root's own, unlike /run/lock, where anybody could make or hold a lock before us.
RUN = "/run/strixbox"
RUN_LOCK = f"{RUN}/run"  # held by a run for as long as its connection lives
WRITING = f"{RUN}/writing"  # held by every command that writes
BUILDER = "strixbox"  # the account that builds environments, and may do nothing else
# AMD's repository on the box: its key, the source that names it, and what of it apt may take.
KEY = "/etc/apt/keyrings/strixbox-rocm.asc"
SOURCE = "/etc/apt/sources.list.d/strixbox-rocm.sources"
PIN = "/etc/apt/preferences.d/strixbox-rocm"
