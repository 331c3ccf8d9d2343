"""``strixbox models``: every sub-command as it is called on a box."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from boxtools import hashes as records
from boxtools import tiers
from boxtools.cli import main
from boxtools.commands.models import amount
from boxtools.download import Wanted
from boxtools.errors import WrongUse
from boxtools.hashes import Hashes
from boxtools.settings import ENVIRONMENT, Settings
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.boxtools import box

KEY = "checkpoints/a [x].safetensors"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = box.two_tiers(tmp_path)
    box.model(made.active / KEY, b"a" * 5000)
    box.model(made.active / "vae/b.safetensors", b"b")
    monkeypatch.setattr(tiers, "DEPLOY_LOCK", tmp_path / "no-deploy")
    monkeypatch.setattr(records, "DEPLOY", tmp_path / "deploy.json")
    told(made, monkeypatch)
    return made


def told(settings: Settings, monkeypatch: pytest.MonkeyPatch, **own: Any) -> Settings:
    """Have the command read these settings."""
    settings = settings.model_copy(update=own)
    file = settings.state.parent / "tools.json"
    file.write_text(settings.model_dump_json())
    monkeypatch.setenv(ENVIRONMENT, str(file))
    return settings


def archived(settings: Settings, key: str = KEY) -> Path:
    assert settings.archive is not None
    return settings.archive / key


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    """Output and remarks of a command that ends as expected."""
    capsys.readouterr()
    assert main(["models", *words]) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return out, " ".join(err.split())


def test_list(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys)
    line = next(line for line in out.splitlines() if line.startswith(KEY))
    for word in ("active", "VAE", "U8", "KiB", "today"):
        assert word in line
    assert out == run(capsys, "list")[0]


@pytest.mark.parametrize("words", [["activate"], ["activate", "--dry"], ["verify"]])
@pytest.mark.parametrize("name", ["a [x]", "checkpoints/*"])
def test_a_model_of_an_archive_that_is_not_mounted(
    settings: Settings, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    assert settings.archive is not None
    run(capsys, "archive", KEY)
    elsewhere = settings.archive.rename(settings.archive.with_name("unmounted"))
    settings.archive.mkdir()
    _, err = run(capsys, *words, name, code=1)
    assert f"{settings.archive} is empty: its disk is not mounted" in err
    assert f"findmnt {settings.archive}" in err
    run(capsys, "verify", "vae/b.safetensors")  # others are none the worse
    settings.archive.rmdir()
    _, err = run(capsys, *words, name, code=1)
    assert f"{settings.archive} is not there: its disk is not mounted" in err
    elsewhere.rename(settings.archive)
    run(capsys, *words, name)


def test_a_model_that_is_gone_from_the_archive(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "archive", KEY)
    archived(settings).unlink()
    _, err = run(capsys, "activate", KEY, code=1)
    assert f"leads to {archived(settings)}, which is not there; put the file back" in err
    (settings.active / "vae/own.safetensors").symlink_to("/nowhere")
    assert "no model" in run(capsys, "activate", "vae/own.safetensors", code=2)[1]


def test_list_as_json(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    lost = settings.active / "vae/gone.safetensors"
    lost.symlink_to("/nowhere")
    value = json.loads(run(capsys, "--json", "--folder", "vae")[0])
    assert [model["name"] for model in value["models"]] == ["b.safetensors"]
    assert value["models"][0]["tier"] == "active"
    assert value["lost_links"] == [str(lost)]
    assert value["cut_move"] is None
    assert json.loads(run(capsys, "--folder", "loras", "--json")[0])["models"] == []
    assert "there are: checkpoints, vae" in run(capsys, "--folder", "nope", code=2)[1]


def test_archive_and_back(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    content = (settings.active / KEY).read_bytes()
    assert "->" in run(capsys, "archive", "a [x]", "--dry")[0]
    assert not (settings.active / KEY).is_symlink()
    assert "in the archive tier" in run(capsys, "archive", "a [x]")[0]
    assert (settings.active / KEY).readlink() == archived(settings)
    assert (settings.active / KEY).read_bytes() == content
    assert "archive, linked" in run(capsys)[0]
    assert "in the archive tier already" in run(capsys, "archive", KEY)[1]
    assert "in the active tier" in run(capsys, "activate", "checkpoints/*")[0]
    assert not archived(settings).exists()
    assert (settings.active / KEY).read_bytes() == content
    assert box.leftovers(settings.state.parent) == []


def test_a_managed_model_is_moved_with_a_warning(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told(settings, monkeypatch, models=(box.managed(KEY, "active"),))
    assert "the next deploy moves it back" in run(capsys, "archive", KEY)[1]
    assert "deploy" not in run(capsys, "activate", KEY)[1]


def test_a_cut_move_is_told_and_finished(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = settings.active / KEY, archived(settings)
    target.write_bytes(source.read_bytes())
    move = tiers.Move(source=source, target=target, link=True)
    (settings.state / tiers.JOURNAL).write_text(json.dumps(move.plain()))
    assert "the next move finishes it" in run(capsys)[1]
    assert "that was cut is finished" in run(capsys, "archive", "b")[1]
    assert source.readlink() == target


def test_wrong_use_of_moves(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box.model(settings.active / "vae/a [y].safetensors", b"other")
    box.model(settings.active / "loras/a [y].safetensors", b"other")
    # Taken literally, though it is a pattern too; a plain name would be ambiguous.
    run(capsys, "archive", "a [y].safetensors")
    box.model(settings.active / "loras/b.safetensors", b"other")
    assert "name one with its folder" in run(capsys, "archive", "b", code=2)[1]
    assert "there is no model" in run(capsys, "archive", "zzz", code=2)[1]
    run(capsys, "archive", code=2)
    told(settings, monkeypatch, archive=None)
    assert "one tier" in run(capsys, "archive", "vae/b.safetensors", code=2)[1]
    assert "one tier" in run(capsys, "plan", code=2)[1]


def test_all_are_checked_before_the_first_is_moved(
    settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = box.model(tmp_path / "own.safetensors", b"own")
    (settings.active / "vae/z.safetensors").symlink_to(own)
    assert "a link of yours" in run(capsys, "archive", "*", code=2)[1]
    assert not (settings.active / KEY).is_symlink()


def test_names_that_are_no_text(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"\xff\x1b[31m.safetensors")
    box.model(settings.active / "loras" / name, b"x")
    assert "loras/??[31m.safetensors" in run(capsys)[0]
    assert name in {model["name"] for model in json.loads(run(capsys, "--json")[0])["models"]}
    run(capsys, "archive", "loras/*")
    assert (settings.active / "loras" / name).readlink() == archived(settings, f"loras/{name}")
    run(capsys, "verify", "loras/*")
    run(capsys, "plan", "--days", "0")
    run(capsys, "activate", "loras/*")
    move = tiers.Move(settings.active / "loras" / name, archived(settings, f"loras/{name}"), True)
    (settings.state / tiers.JOURNAL).write_text(json.dumps(move.plain()))
    assert tiers.cut_move(settings) == move
    run(capsys, "archive", name[:3] + "*")
    assert "there is no model" in run(capsys, "archive", "\udcff", code=2)[1]


def test_no_state(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings.state.rmdir()
    assert "tiers.lock cannot be opened" in run(capsys, "archive", "b", code=1)[1]


# verify


def verdicts(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, str]:
    value = json.loads(run(capsys, "verify", "--json", *words, code=code)[0])
    return {Path(model["key"]).stem: model["verdict"] for model in value["models"]}


def test_first_use_is_recorded_and_checked_after(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdicts(capsys) == {"a [x]": "recorded", "b": "recorded"}
    assert verdicts(capsys) == {"a [x]": "ok", "b": "ok"}
    box.model(settings.active / KEY, b"written anew")
    assert verdicts(capsys, code=1) == {"a [x]": "changed", "b": "ok"}
    assert verdicts(capsys, code=1) == {"a [x]": "changed", "b": "ok"}
    assert verdicts(capsys, "--accept", "a [x]") == {"a [x]": "recorded"}
    assert verdicts(capsys) == {"a [x]": "ok", "b": "ok"}
    run(capsys, "verify", "--accept", code=2)


def test_what_cannot_be_loaded_is_never_recorded(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings.active / "vae/b.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert verdicts(capsys, code=1) == {"a [x]": "recorded", "b": "broken"}
    assert verdicts(capsys, "--accept", "b", code=1) == {"b": "broken"}
    out, err = run(capsys, "verify", "b", code=1)
    assert "broken" in out
    assert f"{path}: 1 bytes are missing at its end" in err
    path.write_bytes(whole)
    assert verdicts(capsys) == {"a [x]": "ok", "b": "recorded"}


def test_what_an_earlier_version_recorded_of_it_is_no_proof(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings.active / "vae/b.safetensors"
    path.write_bytes(b"<html>please log in</html>")
    records = Hashes.load(settings)
    records.note(path, hashlib.sha256(path.read_bytes()).hexdigest(), "vae/b.safetensors")
    records.save()
    assert verdicts(capsys, "b", code=1) == {"b": "broken"}


def test_damage_is_found_again(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts(capsys)
    path = settings.active / KEY
    info = path.stat()
    with path.open("r+b") as stream:
        stream.seek(4000)
        stream.write(b"X")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert verdicts(capsys)["a [x]"] == "ok"  # known by size, time and inode
    assert verdicts(capsys, "--again", code=1)["a [x]"] == "damaged"
    assert verdicts(capsys, code=1)["a [x]"] == "changed"
    out, err = run(capsys, "verify", code=1)
    assert KEY in out
    assert "1 of 2 are not what they should be" in err


def test_the_manifest_decides(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = hashlib.sha256((settings.active / KEY).read_bytes()).hexdigest()
    told(settings, monkeypatch, models=(box.managed(KEY, "active", sha256=good),))
    assert verdicts(capsys)["a [x]"] == "ok"
    told(settings, monkeypatch, models=(box.managed(KEY, "active", sha256="0" * 64),))
    assert verdicts(capsys, code=1)["a [x]"] == "changed"
    assert verdicts(capsys, "--accept", "a [x]", code=1)["a [x]"] == "changed"


def test_the_deploys_hashes_of_first_use_are_known(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://example.org/x"
    told(settings, monkeypatch, models=(box.managed(KEY, "active", url=url),))
    (settings.state.parent / "deploy.json").write_text(json.dumps({"urls": {url: "0" * 64}}))
    assert verdicts(capsys, code=1)["a [x]"] == "changed"


def test_a_hash_goes_with_a_moved_file(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts(capsys)
    run(capsys, "archive", "*")
    monkeypatch.setattr(records, "sha256", lambda *_: pytest.fail("was read"))
    assert verdicts(capsys) == {"a [x]": "ok", "b": "ok"}


def test_a_model_that_cannot_be_read(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(records, "sha256", fails)
    assert verdicts(capsys, "b", code=1) == {"b": "unreadable"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    told=JSON
    | st.fixed_dictionaries(
        {}, optional={"files": st.dictionaries(st.text(), JSON) | JSON, "first": JSON, "urls": JSON}
    )
)
@profile(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_json_is_a_record(settings: Settings, told: Any) -> None:
    (settings.state / records.RECORDS).write_text(json.dumps(told))
    loaded = Hashes.load(settings)
    assert loaded.known(settings.active / KEY) is None
    loaded.save()


# download


def content_of(path: str) -> bytes:
    """A small .safetensors file, another one for each path."""
    header = json.dumps({"__metadata__": {"of": path}}).encode()
    return struct.pack("<Q", len(header)) + header


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        body = content_of(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_download_by_url(settings: Settings, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("download", "--url", f"{url}/n.safetensors", "--folder", "loras")
    out, err = run(capsys, *words)
    path = settings.active / "loras/n.safetensors"
    assert path.read_bytes() == content_of("/n.safetensors")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in out
    assert "this one is recorded" in err
    assert "is there already" in run(capsys, *words)[0]
    path.write_bytes(b"the user's own")
    assert "another content" in run(capsys, *words, code=1)[1]
    assert path.read_bytes() == b"the user's own"


def test_ctrl_c_says_what_is_kept(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(wanted: Wanted, _: object) -> str:
        wanted.part.write_bytes(b"x" * 2048)
        raise KeyboardInterrupt

    monkeypatch.setattr("boxtools.download.download", stopped)
    words = ("download", "--url", "http://127.0.0.1:9/n.ckpt", "--folder", "loras")
    _, err = run(capsys, *words, code=130)
    assert "loras/n.ckpt: 2.0 KiB are kept; the same command goes on from there" in err


def test_download_of_the_manifest(
    settings: Settings,
    url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = hashlib.sha256(content_of("/1")).hexdigest()
    models = (
        box.managed("vae/one.safetensors", "active", url=f"{url}/1", sha256=digest),
        box.managed("loras/two.safetensors", "archive", url=f"{url}/2"),
        box.managed("loras/three.safetensors", "active"),
    )
    told(settings, monkeypatch, models=models)
    run(capsys, "download", "one", "two")
    assert (settings.active / "vae/one.safetensors").read_bytes() == content_of("/1")
    link = settings.active / "loras/two.safetensors"
    assert link.readlink() == archived(settings, "loras/two.safetensors")
    assert link.read_bytes() == content_of("/2")
    # Where it was moved to is where it is.
    run(capsys, "archive", "one")
    assert "is there already" in run(capsys, "download", "one")[0]
    assert "has no url" in run(capsys, "download", "three", code=2)[1]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("x", "--url", "http://127.0.0.1:9/x.ckpt"),
        ("--url", "http://127.0.0.1:9/x.ckpt"),
        ("--url", "http://127.0.0.1:9/x.ckpt", "--folder", "../x"),
        ("--url", "http://127.0.0.1:9/x", "--folder", "vae"),
        ("--url", "http://127.0.0.1:9/x.ckpt", "--folder", "vae", "--name", "../x.ckpt"),
        ("--url", "http://127.0.0.1:9/x.ckpt", "--folder", "vae", "--sha256", "1"),
        ("b", "--folder", "vae"),
        ("unmanaged",),
    ],
)
def test_wrong_use_of_download(
    settings: Settings, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    run(capsys, "download", *words, code=2)


# plan


def test_plan_proposes_and_applies(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    os.utime(settings.active / KEY, (1e9, 1e9))
    value = json.loads(run(capsys, "plan", "--json")[0])
    assert value["commands"] == [f"strixbox models archive '{KEY}'"]
    assert [model["name"] for model in value["archive"]] == ["a [x].safetensors"]
    run(capsys, "plan", "--apply", "--dry")
    assert not (settings.active / KEY).is_symlink()
    out, err = run(capsys, "plan", "--apply")
    assert f"strixbox models archive '{KEY}'" in out
    assert "one file system" in err
    assert (settings.active / KEY).readlink() == archived(settings)
    assert "nothing to move" in run(capsys, "plan")[0]
    os.utime(archived(settings))
    run(capsys, "plan", "--apply")
    assert not (settings.active / KEY).is_symlink()


def test_plan_says_what_is_missing(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert "less than wanted" in run(capsys, "plan", "--free", "900T")[1]
    assert "write it as 100G" in run(capsys, "plan", "--free", "lots", code=2)[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("100G", 100 << 30), ("1.5 GiB", 3 << 29), ("7k", 7168), ("2TB", 2 << 40)],
)
def test_amount(text: str, expected: int) -> None:
    assert amount(text) == expected


@given(st.text())
def test_any_text_as_amount(text: str) -> None:
    with contextlib.suppress(WrongUse):
        assert amount(text) >= 0
