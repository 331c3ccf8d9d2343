"""What goes wrong, told in one sentence each."""

from __future__ import annotations


class Trouble(Exception):
    """Something is wrong on the box: what, where, the mend. Ends the command with 1."""


class WrongUse(Exception):
    """The command was called in a way that makes no sense. Ends it with 2."""


def reason(error: BaseException) -> str:
    """The operating system's own words inside what the libraries wrapped them in."""
    text = system_words(error) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]


def system_words(error: BaseException) -> str:
    """Those words alone; empty where the operating system said nothing."""
    inner: BaseException | None = error
    for _ in range(20):  # deeper than any library wraps, and an end where they wrap in a circle
        if inner is None or getattr(inner, "strerror", None) is not None:
            break
        wrapped = [getattr(inner, "reason", None), *inner.args, inner.__cause__, inner.__context__]
        inner = next((part for part in wrapped if isinstance(part, BaseException)), None)
    return str(getattr(inner, "strerror", None) or "").strip()
