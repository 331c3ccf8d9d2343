"""Failures that a test asks for, by an environment variable or a file in the user directory."""

import os

import folder_paths

HERE = os.path.dirname(os.path.abspath(__file__))


def asked(word: str) -> bool:
    """Whether that failure is wanted now."""
    if os.environ.get("STRIXBOX_STANDIN_FAULT") == word:
        return True
    user = folder_paths.get_user_directory()
    if os.path.exists(os.path.join(user, word)):
        return True
    # A fault of the next commit alone: what an upgrade has to survive.
    newer = os.path.exists(os.path.join(HERE, "NEWER"))
    return newer and os.path.exists(os.path.join(user, f"newer-{word}"))
