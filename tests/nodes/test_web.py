"""Who may call the packs' routes, and with what."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.nodes.conftest import PACK, Comfyless


@pytest.fixture
def web(comfyless: Comfyless) -> ModuleType:
    """web.py."""
    return comfyless.part(PACK, "web")


@pytest.mark.parametrize(
    ("remote", "origin", "host", "trusted"),
    [
        ("127.0.0.1", None, "127.0.0.1:8188", True),
        ("127.8.0.1", None, "box:8188", True),
        ("::1", None, "[::1]:8188", True),
        ("::ffff:127.0.0.1", None, "box:8188", True),
        ("192.168.1.5", None, "box:8188", False),
        ("::ffff:192.168.1.5", None, "box:8188", False),
        ("fe80::1%eth0", None, "box:8188", False),
        (None, None, "box:8188", False),
        ("", None, "box:8188", False),
        # A page: by whose it is, not by where the browser runs.
        ("127.0.0.1", "http://127.0.0.1:8188", "127.0.0.1:8188", True),
        ("192.168.1.5", "http://BOX:8188", "box:8188", True),
        ("127.0.0.1", "http://evil.example", "127.0.0.1:8188", False),
        ("127.0.0.1", "http://evil.example:8188", "box:8188", False),
        ("127.0.0.1", "null", "127.0.0.1:8188", False),
        ("127.0.0.1", "", "", False),
        ("127.0.0.1", "http://[", "[", False),
    ],
)
def test_who_is_trusted(
    web: ModuleType, remote: str | None, origin: str | None, host: str, trusted: bool
) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert web.trusted(remote, headers) is trusted


FIELDS = {"on": bool, "name": str, "number": int}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", {}),
        (b" \n", {}),
        (b"{}", {}),
        (b'{"on": true, "name": "x", "number": 3}', {"on": True, "name": "x", "number": 3}),
        (b'{"on": null}', {}),
    ],
)
def test_bodies(web: ModuleType, raw: bytes, told: dict[str, object]) -> None:
    assert web.parse(raw, FIELDS) == told


@pytest.mark.parametrize(
    "raw",
    [
        *(b"x", b"[]", b"3", b"null", b'"on"', b"\xff\xfe", b"[" * 100_000),
        *(b'{"on": 1}', b'{"number": true}', b'{"number": 1.5}', b'{"name": []}', b'{"else": 1}'),
    ],
)
def test_odd_bodies_are_refused_in_a_sentence(web: ModuleType, raw: bytes) -> None:
    with pytest.raises(web.Refused) as refused:
        web.parse(raw, FIELDS)
    assert refused.value.status == 400 and 10 < len(str(refused.value)) < 200


@given(raw=st.binary() | st.text().map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_is_a_traceback(web: ModuleType, raw: bytes) -> None:
    try:
        told = web.parse(raw, FIELDS)
    except web.Refused:
        return
    assert set(told) <= set(FIELDS)


def test_a_route_answers_with_json(comfyless: Comfyless, web: ModuleType) -> None:
    def work(words: dict[str, object]) -> dict[str, object]:
        if words.get("on"):
            raise KeyError("broken")
        return {"got": words}

    web.add("POST", "/x", work, FIELDS)
    ask = comfyless.routes.ask
    assert ask("POST", "/x", b'{"name": "a"}') == (200, {"got": {"name": "a"}})
    assert ask("POST", "/x") == (200, {"got": {}})
    assert ask("POST", "/x", b'{"on": true}') == (500, {"error": "KeyError: 'broken'"})
    assert ask("POST", "/x", b"{}", length=None)[0] == 400
    assert ask("POST", "/x", b"{}", length=web.BODY + 1)[0] == 400
    assert ask("POST", "/x", remote="10.0.0.1")[0] == 403
