"""Part of programs: git in a checkout, whatever somebody has set in it.

What a repository's own files can have git do (run a program when it is asked for the status, take
an edited file for an unchanged one) is either overruled here or found by ``foreign``.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess

# Never ask for a password on a machine where nobody sits; and whoever asks for the status writes
# nothing (git, "BACKGROUND REFRESH").
ENVIRONMENT = {
    **os.environ,
    **{"GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0"},
    **{"LC_ALL": "C"},
}
SETTINGS = (
    *("-c", "safe.directory=*", "-c", "advice.detachedHead=false"),
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"),
)
# What git init writes, on any file system and of any version so far (git-config, core and
# extensions); and git clone, whose remote is never asked: a fetch names its URL.
OURS = re.compile(
    r"\[core\]|\[extensions\]|filemode = true"
    r"|(repositoryformatversion|bare|logallrefupdates|symlinks|ignorecase|precomposeunicode"
    r"|objectformat|refstorage) = \w+"
    r'|\[remote "origin"\]|url = \S+|fetch = \+refs/heads/[^\s:]+:refs/remotes/origin/[^\s:]+'
    r'|\[branch "[^"\s\\]+"\]|remote = origin|merge = refs/heads/\S+'
)
NEW = (
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n"
    "\tlogallrefupdates = true\n"
)


def git(path: str, *words: str, settings: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run git in ``path`` and return what it said."""
    answer = git_bytes(path, *words, settings=settings)
    out, err = (said.decode(errors="surrogateescape") for said in (answer.stdout, answer.stderr))
    return subprocess.CompletedProcess(answer.args, answer.returncode, out, err)


def git_bytes(
    path: str, *words: str, settings: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """The same, for output that has to stay as it is: text would lose the ends of its lines."""
    command = ["git", *SETTINGS, *settings, "-C", path, *words]
    return subprocess.run(
        command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def plain(config: str) -> str:
    """The lines of a config that git init and clone write; a new one where they are gone."""
    lines = config.splitlines(keepends=True)
    ours = "".join(line for line in lines if OURS.fullmatch(line.strip()))
    return ours if "repositoryformatversion" in ours else NEW


def foreign(path: str) -> list[str]:
    """Files of a checkout's repository that change what git does, and that git never wrote."""
    found = []
    try:
        with open(f"{path}/.git/config", encoding="utf-8", errors="surrogateescape") as stream:
            config = stream.read()
    except OSError:
        config = ""
    if config != plain(config):
        found.append(".git/config")
    attributes = ".git/info/attributes"
    return found + ([attributes] if os.path.lexists(f"{path}/{attributes}") else [])


def loose(path: str) -> dict[str, int]:
    """The right mode of what is not the account's own, or that it alone may write and all read.

    git notes of a mode no more than whether a file is a program.
    """
    found = {}
    # From above: who may write to a directory could put anything into the place of what is in it.
    for folder, directories, names in os.walk(path):
        inside = f"{folder}/".startswith(f"{path}/.git/")
        for name in ("", *directories, *names) if folder == path else (*directories, *names):
            info = os.lstat(os.path.join(folder, name))
            mode = stat.S_IMODE(info.st_mode)
            wanted = 0o755 if stat.S_ISDIR(info.st_mode) or mode & stat.S_IXUSR else 0o644
            right = not mode & 0o022 if inside else mode & 0o777 == wanted
            if info.st_uid != os.geteuid() or not (right or stat.S_ISLNK(info.st_mode)):
                found[os.path.join(folder, name)] = wanted
    return found
