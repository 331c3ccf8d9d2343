"""Programs that ask and run apt and dpkg; where this machine has apt, the real one."""

from __future__ import annotations

import fcntl
import http.server
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import (
    apt_key,
    apt_run,
    dpkg_state,
    installed,
    path_owners,
    rehearsal,
    rocm_remains,
)
from strixbox.box.removal import removed
from tests.box.conftest import NO_FOOT, SURVEY, asked, started
from tests.lab.content import armoured, gpg_key
from tests.lab.debs import Deb, Repository

DPKG = """\
rocm-core\tamd64\tii \t6.4.1.60401-83~24.04\tROCm Dev Support <rocm-dev.support@amd.com>
hsa-rocr\ti386\trc \t1.15.0.60401-83~24.04\tAMD <x@amd.com>
amdgpu-dkms\tall\thi \t1:6.12.12.60401-2164967.24.04\tAMD <gpudriver.dkms@amd.com>
rocminfo\tamd64\tii \t5.7.1-3build1\tUbuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>
amdrocm-runtime7.14\tamd64\tii \t7.14.0-3\tAMD HSA Support <dl.HSA-Runtime-Support@amd.com>
hipcc\tamd64\tii \t5.7.1-3\tUbuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>
rocprofiler-systems\tamd64\tii \t1.0.1.60401-83~24.04\thttps://github.com/ROCm/rocprofiler-systems
rocm-backport\tamd64\tii \t5.7.60401-83~24.04\tUbuntu MOTU <motu@lists.ubuntu.com>
rocm-smi\tamd64\tii \t5.7.60401-83\tDebian ROCm Team <debian-ai@lists.debian.org>
rocm-mine\tamd64\tii \t7.14.0-3\tAnna <anna@amd.com.example.org>
librocblas0\tamd64\tii \t5.5.1+dfsg-7\tDebian <team@debian.org>
gone\t\tun \t\t
"""


def test_packages_that_may_be_amds_are_told_with_their_architecture() -> None:
    found = rocm_remains.packages(DPKG, "amd64")
    assert [(p["package"], p["status"], p["maintained"]) for p in found] == [
        ("rocm-core", "ii", True),
        ("hsa-rocr:i386", "rc", True),
        ("amdgpu-dkms", "hi", True),
        ("amdrocm-runtime7.14", "ii", True),
        ("rocprofiler-systems", "ii", False),
    ]


def test_trees_and_links_are_told_with_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "rocm-6.4.1" / ".info").mkdir(parents=True)
    (tmp_path / "rocm-6.4.1" / ".info" / "version").write_text("6.4.1-83\n")
    (tmp_path / "rocm-mine").mkdir()
    (tmp_path / "rocm").symlink_to("rocm-gone")
    (tmp_path / "alternative").symlink_to("rocm-6.4.1")
    (tmp_path / "rocm-6").symlink_to("alternative")
    found = {Path(t["path"]).name: t for t in rocm_remains.trees(str(tmp_path / "rocm*"))}
    assert found["rocm"]["dangling"] is True
    assert found["rocm-6"]["dangling"] is False
    assert found["rocm-6"]["target"] == str((tmp_path / "rocm-6.4.1").resolve())
    assert found["rocm-6.4.1"]["version"] == "6.4.1-83"
    assert found["rocm-mine"]["version"] is None


def test_an_entry_of_the_loaders_is_told_with_its_directories(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    entry = tmp_path / "10-rocm.conf"
    entry.write_text(f"# ours\n{tmp_path}/lib # here\n\n{tmp_path}/lib64\ninclude x\n")
    assert rocm_remains.loader(f"{tmp_path}/*rocm*") == [
        {
            "path": str(entry),
            "directories": [
                {"there": True, "real": f"{tmp_path}/lib"},
                {"there": False, "real": f"{tmp_path}/lib64"},
            ],
        }
    ]


def test_owners_are_dpkgs_packages() -> None:
    said = (
        "rocm-core, hipcc:amd64, hsa-rocr:i386: /opt/rocm-6.4.1\n"
        "diversion by x from: /opt/rocm\nlocal diversion from: /opt/rocm\n"
        "local diversion to: /opt/rocm.mine\nrocm-core: /etc/ld.so.conf.d/10: odd.conf\n"
    )
    assert path_owners.owners(said, "amd64") == {
        "/opt/rocm-6.4.1": ["rocm-core", "hipcc", "hsa-rocr:i386"],
    } | {"odd.conf": ["rocm-core: /etc/ld.so.conf.d/10"]}


def test_apts_simulation_is_read_whole() -> None:
    said = (
        "Remv rocm-dev [6.4.1.60401-83~24.04]\nPurg rocm-core [6.4.1]\n"
        "Inst other [1] (2 x)\nRemv rocm-core [1] [x ]\nPurg hsa-rocr:i386 [1]\n"
    )
    assert removed(said) == ["hsa-rocr:i386", "rocm-core", "rocm-dev"]


def test_what_is_installed_is_of_the_boxs_own_architecture_and_held_by_dpkg() -> None:
    query = (
        "a\tamd64\thi \t2\na\ti386\tii \t1\nb\tall\tii \t3\nc\tamd64\trc \t4\n"
        "dpkg\tamd64\tii \t1.22\n"
    )
    assert installed.installed(["a", "b", "c", "d"], query) == {
        "a": {"version": "2", "held": True},
        "b": {"version": "3", "held": False},
        "c": {"version": None, "held": False},
        "d": {"version": None, "held": False},
    }


@pytest.mark.parametrize(
    ("program", "query"),
    [
        ("rocm_remains", {}),
        ("path_owners", {"paths": ["/opt/rocm"]}),
        ("installed", {"packages": ["rocm-core"]}),
        ("removal", {"packages": ["rocm-core"]}),
        ("rehearsal", {"install": ["rocm-core"], "recommends": True, "apart": None}),
        ("footprint", NO_FOOT),
        ("survey", SURVEY),
    ],
)
def test_a_name_in_latin_1_stops_no_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, query: dict[str, Any]
) -> None:
    tabs = r"\t" * (3 if program == "installed" else 4)
    for name in ("dpkg", "dpkg-query", "apt-get", "apt-mark", "systemctl"):
        said = tmp_path / name
        said.write_text(f"#!/bin/sh\nprintf 'J\\366rg{tabs}\\n'\n")
        said.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    asked(program, query)


# --- a rehearsal ------------------------------------------------------------------------------

needs_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
STATUS = """\
Package: rocm-core
Status: hold ok installed
Architecture: amd64
Version: 6.4.1.60401-83~24.04

Package: rocminfo
Status: install ok installed
Architecture: amd64
Version: 5.7.1-3build1

Package: hsa-rocr
Status: install ok installed
Architecture: i386
Version: 1.0.60401-83~24.04
"""


def test_a_purged_package_is_out_of_the_list_and_others_stay() -> None:
    left = rehearsal.without(STATUS, ["rocm-core", "hsa-rocr"], "amd64")
    assert "rocm-core" not in left
    assert "Architecture: i386" in left
    assert left.endswith("60401-83~24.04\n\n")
    assert "i386" not in rehearsal.without(STATUS, ["hsa-rocr:i386"], "amd64")


def test_no_hook_of_the_boxs_runs_in_a_rehearsal() -> None:
    dump = (
        'Acquire::http::Proxy "http://p:1";\nAPT::Update::Post-Invoke:: "appstreamcli refresh";\n'
        'DPkg::Post-Invoke:: "x";\n'
    )
    text = rehearsal.settings(dump, "/t")
    assert "http://p:1" in text
    assert "Invoke" not in text
    assert text.index("Proxy") < text.index('Dir::State::Lists "/t/lists";')


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A signed repository behind HTTP: its address and its key's fingerprint."""
    root = tmp_path_factory.mktemp("mirror")
    key = gpg_key(root / "gnupg", "Lab <lab@lab.invalid>")
    core = Deb("rocm-core", "6.4.2.60402-120~24.04")
    info = Deb("rocminfo", "1.0.0.60402-120~24.04", (f"rocm-core (= {core.version})",))
    odd = Deb("rocm-odd", "1", ("rocm-never",))
    Repository(root / "www" / "rocm", "lab", "noble", "main", key, root / "gnupg").write(
        [core, info, odd]
    )
    (root / "www" / "key").write_text(armoured(root / "gnupg", key))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            """Nothing."""

    handler = partial(Quiet, directory=str(root / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"url": f"http://127.0.0.1:{server.server_port}", "fingerprint": key}
        server.shutdown()


def test_a_key_is_offered_by_its_fingerprint(mirror: dict[str, str]) -> None:
    url = f"{mirror['url']}/key"
    assert len(apt_key.offered(url, mirror["fingerprint"])["sha256"]) == 64
    query = {"url": url, "fingerprint": "0" * 40}
    assert (
        f"has the fingerprint {mirror['fingerprint']}, not 0000"
        in asked("apt_key", query)["trouble"]
    )
    absent = apt_key.offered(f"{mirror['url']}/none", "0" * 40)
    assert "could not be fetched" in absent["trouble"]


def test_a_server_that_speaks_no_http_is_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            """What a proxy's login or a printer says, to each of three."""
            for _ in range(3):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"220 printer\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/key"
        assert "could not be fetched (220 printer" in apt_key.offered(url, "0" * 40)["trouble"]
        assert "220 printer" in asked("reachable", {"url": url})
        with pytest.raises(rehearsal.Trouble, match=r"could not be fetched \(220 printer"):
            rehearsal.fetched_key({"url": url, "sha256": "0"}, "/none")
        thread.join(10)


@needs_apt
@pytest.mark.parametrize(
    ("install", "suite", "expected"),
    [
        (["rocminfo"], "noble", None),
        (["rocm-odd"], "noble", "rocm-odd : Depends: rocm-never but it is not installable"),
        (["rocm-nowhere"], "noble", "Unable to locate package rocm-nowhere"),
        (["rocminfo"], "jammy", "apt cannot fetch the index of http://127.0.0.1"),
    ],
)
def test_a_rehearsal_is_apts_own_word_on_the_box_without_the_old_packages(
    mirror: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    install: list[str],
    suite: str,
    expected: str | None,
) -> None:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a_Packages").write_text("")
    monkeypatch.setattr(rehearsal, "STATUS", str(tmp_path / "status"))
    monkeypatch.setattr(rehearsal, "LISTS", str(tmp_path / "lists"))
    monkeypatch.setattr(rehearsal, "ETC", str(tmp_path / "etc"))
    offered = apt_key.offered(f"{mirror['url']}/key", mirror["fingerprint"])
    apart = {
        "uri": f"{mirror['url']}/rocm",
        "suite": suite,
        "key": {"url": f"{mirror['url']}/key", **offered},
        "pin": 'Package: rocm*\nPin: origin "127.0.0.1"\nPin-Priority: 1001\n',
        "without": [],
        "purged": ["rocm-core", "hsa-rocr:i386"],
    }
    told = rehearsal.main({"install": install, "recommends": True, "apart": apart})
    if expected:
        assert expected in told["refused"]
        return
    assert told == {
        "refused": None,
        "versions": {"rocm-core": "6.4.2.60402-120~24.04", "rocminfo": "1.0.0.60402-120~24.04"},
        "downgraded": ["rocminfo"],
        "held": [],
    }


# --- locks ------------------------------------------------------------------------------------


def test_a_lock_is_waited_for_and_the_holder_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = tmp_path / "free"
    held = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt)"
    script = f"[ -e {free} ] && exit 0; touch {free}; echo '{held}'; exit 100"
    monkeypatch.setattr(apt_run, "PAUSE", 0.01)
    apt_run.main({"words": ["sh", "-c", script], "patience": 30})
    assert "waiting for process 7 (apt)" in capsys.readouterr().out
    assert free.exists()


@pytest.mark.parametrize(
    "said",
    [
        "E: Could not get lock /var/lib/dpkg/lock-frontend - open (11: Resource temporarily)",
        "dpkg: error: dpkg frontend lock was locked by another process with pid 12",
        "dpkg: error: dpkg status database is locked by another process",
    ],
)
def test_no_lock_is_waited_for_for_ever(said: str) -> None:
    words = ["sh", "-c", f"echo '{said}'; exit 1"]
    answer = started("apt_run", {"words": words, "patience": 0})
    assert answer.returncode == 1
    assert "has had the lock of apt or dpkg for 0 s" in answer.stderr


def test_any_other_failure_is_told_at_once_with_apts_words() -> None:
    told = "E: Unable to lock directory /var/lib/apt/lists/; E: No space left on device"
    words = ["sh", "-c", f"echo '{told}'; exit 100"]
    order = {"words": words, "patience": 600, "failed": "No index", "mend": "Run it again."}
    answer = started("apt_run", order)
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [told, f"No index: {told[3:]}. Run it again."]
    assert apt_run.reason(["Err: 1", "E: no key.", "E: not signed."]) == "no key"
    assert apt_run.reason(["killed", ""]) == "killed"
    dpkg = [
        "dpkg: error processing archive /a.deb (--unpack):",
        " trying to overwrite '/opt/x', which is also in package y",
        "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    ]
    assert apt_run.reason(dpkg).endswith(
        "/a.deb (--unpack): trying to overwrite '/opt/x', which is also in package y"
    )
    assert apt_run.reason(dpkg[:1]) == "dpkg: error processing archive /a.deb (--unpack)"
    assert apt_run.reason([]) == "it said nothing"
    assert apt_run.holder(["no one"]) == "another process"


def test_dpkg_is_interrupted_where_it_has_a_journal_and_nobody_works_on_it(tmp_path: Path) -> None:
    (tmp_path / "updates").mkdir()
    (tmp_path / "updates" / "tmp.i").touch()
    query = {"root": str(tmp_path)}
    assert asked("dpkg_state", query) == {"interrupted": False, "busy": None}
    (tmp_path / "updates" / "0001").touch()
    assert asked("dpkg_state", query) == {"interrupted": True, "busy": None}
    with (tmp_path / "lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        told = asked("dpkg_state", query)
        # The lock was only asked for: its holder still has it.
        assert dpkg_state.holder(str(tmp_path / "lock")) is None  # one's own counts as free
    assert told["interrupted"] is False
    assert told["busy"] is not None


def test_dpkg_that_finished_is_enough_whatever_could_not_be_configured(tmp_path: Path) -> None:
    (tmp_path / "0001").touch()
    fails = ["sh", "-c", "echo no room >&2; exit 1"]
    answer = started("dpkg_finish", {"words": fails, "updates": str(tmp_path)})
    assert answer.returncode == 1
    assert "no room" in answer.stderr
    assert "could not finish" in answer.stderr
    half = ["sh", "-c", f"rm {tmp_path}/0001; echo amdgpu-dkms >&2; exit 1"]
    answer = started("dpkg_finish", {"words": half, "updates": str(tmp_path)})
    assert answer.returncode == 0
    assert "amdgpu-dkms" in answer.stdout
