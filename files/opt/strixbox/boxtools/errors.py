"""What goes wrong, told in one sentence each."""

from __future__ import annotations


class Trouble(Exception):
    """Something is wrong on the box: what, where, the mend. Ends the command with 1."""


class WrongUse(Exception):
    """The command was called in a way that makes no sense. Ends it with 2."""
