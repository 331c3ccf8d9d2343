"""What of a library's error a user is told."""

from __future__ import annotations

import pytest
import requests
from boxtools.doctor import world
from boxtools.errors import Trouble, reason
from boxtools.server import Server

from .conftest import free_port


def test_the_systems_own_words_are_found_inside() -> None:
    inner = OSError(113, "No route to host")
    wrapped = requests.ConnectionError(RuntimeError("retries", inner))
    assert reason(wrapped) == "No route to host"


def test_errors_that_wrap_each_other_have_an_end() -> None:
    first, second = RuntimeError("first\nsecond line"), RuntimeError("other")
    first.__cause__, second.__cause__ = second, first
    assert reason(first) == "first"


def test_an_error_without_words_is_told_by_its_kind() -> None:
    assert reason(ConnectionAbortedError()) == "ConnectionAbortedError"


def test_doctor_and_tools_say_the_same_of_a_server_that_is_gone() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert world.ask(url).trouble == "Connection refused"
    with pytest.raises(Trouble, match=r"\(Connection refused\)"):
        Server(url).system_stats()
