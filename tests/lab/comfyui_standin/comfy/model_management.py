"""Interrupting a prompt, and what is loaded: names that node packs call."""

import threading


class InterruptProcessingException(Exception):
    """Somebody stopped the prompt."""


_interrupted = threading.Event()
loaded = {}  # path -> bytes of what a loader read and /free has not given back


def interrupt_current_processing(value=True):
    """Stop what runs at its next step, or take that back."""
    _interrupted.set() if value else _interrupted.clear()


def processing_interrupted():
    """Whether somebody asked to stop."""
    return _interrupted.is_set()


def throw_exception_if_processing_interrupted():
    """Raise where somebody asked to stop; once."""
    if _interrupted.is_set():
        _interrupted.clear()
        raise InterruptProcessingException


def unload_all_models():
    """Give back what the loaders hold."""
    loaded.clear()


def soft_empty_cache(force=False):
    """There is no allocator here."""
