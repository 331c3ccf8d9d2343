"""The bundle tells what helpers need and nothing that is private."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from boxtools.doctor import bundle
from boxtools.doctor.checks import examine
from boxtools.doctor.redact import Redactor, redactor, texts
from boxtools.doctor.world import Answer
from boxtools.errors import Trouble
from boxtools.settings import ManagedModel, Profile, Variable
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.boxtools.doctor_box import FLAGS, HOME, STARTED, USER, Box, put

PROMPT = "a portrait of Falbala beside the sea"
IMAGE = "falbala at the beach_00001_.png"
# Whatever of these is found anywhere in the bundle is a leak.
SECRETS = {
    "user": USER,
    "full name": "Getafix Druid",
    "other user": "obelix",
    "host": "gergovia",
    "prompt": "Falbala",
    "image": "beach",
    "address": "192.168.77.13",
    "public address": "203.0.113.77",
    "v6": "2001:db8:77::c0de",
    "mac": "de:ad:be:ef:77:01",
    "serial": "MSS1-778899-XY",
    "machine id": "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf",
    "hugging face": "hf_abcdefGHIJKLmnopQRSTuv",
    "github": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "bearer": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefgh12345",
    "password": "correct-horse-battery",
    "url user": "idefix:wau",
    "query": "X-Amz-Signature",
    "mail": "asterix@village.example",
    "lora": "my_private_face",
    "private key": "MIIEvQIBADANBgkq",
    "plain variable": "dogmatix-value",
}
LEAKS = [
    f"Exception: user {USER} of gergovia at 192.168.77.13 and 203.0.113.77 (2001:db8:77::c0de)",
    f"got prompt: {PROMPT}",
    f"ValueError: cannot encode '{PROMPT}'",
    f"RuntimeError: No HIP GPUs are available for {PROMPT}",
    f"FileNotFoundError: [Errno 2] No such file: '/home/{USER}/ComfyUI/output/{IMAGE}'",
    f"OSError: {IMAGE} of Getafix Druid, mail asterix@village.example",
    "ValueError: token=hf_abcdefGHIJKLmnopQRSTuv password: correct-horse-battery",
    "requests.HTTPError: https://idefix:wau@files.example/a?X-Amz-Signature=abcdef failed",
    "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefgh12345",
    "PermissionError: [Errno 13] denied: '/home/obelix/loras/my_private_face.safetensors'",
    "KeyError: ghp_16C7e42F292c6912E7710c838347Ae178B4a de:ad:be:ef:77:01 MSS1-778899-XY",
    "RuntimeError: -----BEGIN PRIVATE KEY-----MIIEvQIBADANBgkq",
    "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf hip out of memory",
    PROMPT,
]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A box with something private in every place that the bundle takes from."""
    box = Box(tmp_path)
    everything = " ".join(LEAKS)
    passwd = box.root / "etc/passwd"
    put(
        passwd,
        f"{USER}:x:1000:7:Getafix Druid,,,:{HOME}:/bin/sh\n"
        "obelix:x:1001:7:Obelix:/home/obelix:/bin/sh\n",
    )
    put(box.root / "etc/machine-id", SECRETS["machine id"] + "\n")
    put(box.root / "sys/class/dmi/id/product_serial", SECRETS["serial"] + "\n")
    put(box.root / "etc/os-release", f'PRETTY_NAME="Ubuntu 24.04 on gergovia {USER}"\n')
    put(box.models / "loras/my_private_face.safetensors", "<html>")
    put(box.bashrc, f"export HSA_OVERRIDE_GFX_VERSION=1 # {PROMPT}\n")
    (box.models / "loras/obelix 192.168.77.13.safetensors").symlink_to("/nowhere")
    box.log = [STARTED, "got prompt", *LEAKS, "  7%|#  | 1/20 [00:01<00:20]", "AMD arch: gfx1151"]
    box.kernel_log = [f"amdgpu: {leak}" for leak in LEAKS] + ["nvme serial MSS1-778899-XY", "hello"]
    seal = {"id": "0123abcd", "proof": {"torch": {"archs": ["gfx1151"]}}, "notes": LEAKS}
    put(
        box.release / "release.json",
        json.dumps(seal | {everything: 1, "api_key": "dogmatix-value"}),
    )
    box.variables = {
        "HF_TOKEN": SECRETS["hugging face"],
        "SOMETHING": "dogmatix-value",
        "PIP_INDEX_URL": "https://idefix:wau@files.example/simple",
        "PYTORCH_TUNABLEOP_FILENAME": f"/home/{USER}/x.csv",
    }
    box.argv += ["--front-end-root", f"/home/{USER}/gergovia", "--password", SECRETS["password"]]
    box.refused = {"production": f"main.py: error: unrecognized arguments: {everything}"}
    stats = {"system": {"argv": box.argv, "comfyui_version": "0.3.64", "leak": LEAKS}}
    box.answer = Answer(0.1, stats | {"devices": [{"name": "cuda:0 gfx1151", "type": "cuda"}]})
    box.packages["linux-firmware"] += f" {everything}"
    put(box.root / "proc/sys/kernel/osrelease", "6.17.0-19-generic gergovia\n")
    box.changed(
        profiles={"production": Profile(flags=(*FLAGS, everything), variables=(), preload=True)},
        variables={"HF_TOKEN": Variable(value=SECRETS["hugging face"], does="x")},
        models=(
            ManagedModel(name="sd_xl_base_1.0.safetensors", folder="checkpoints", tier="active"),
        ),
    )
    return box


def graphs() -> list[Any]:
    graph = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT, "seed": 5}}}
    outputs = {"9": {"images": [{"filename": IMAGE, "subfolder": "", "type": "output"}]}}
    return [{"id": {"prompt": [1, "id", graph], "outputs": outputs}}]


def packed(box: Box, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The bundle's files, as somebody unpacks them."""

    class Remembers:
        def __init__(self, url: str) -> None:
            self.url = url

        def table(self, path: str) -> dict[str, Any]:
            if path == "/queue":
                raise Trouble("it is gone")
            return dict(graphs()[0])

    monkeypatch.setattr(bundle, "Server", Remembers)
    facts = box.facts()
    files = bundle.collect(box.world, facts, examine(facts))
    content = bundle.archive(files, 1_800_000_000)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = tar.getmembers()
        assert all(m.uid == m.gid == 0 and m.uname == m.gname == "" for m in members)
        found = {}
        for member in members:
            stream = tar.extractfile(member)
            assert stream
            found[member.name.removeprefix("strixbox-doctor/")] = stream.read().decode()
    return found


def test_no_secret_of_any_source_is_in_the_bundle(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = packed(box, monkeypatch)
    for what, secret in SECRETS.items():
        for name, text in files.items():
            where = text.lower().find(secret.lower())
            assert where < 0, f"{what} in {name}: {text[max(0, where - 80) : where + 80]}"


def test_the_bundle_tells_what_helps(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    files = packed(box, monkeypatch)
    assert set(files) == {
        *("findings.json", "versions.json", "release.json", "service.json", "profiles.json"),
        *("system_stats.json", "gpu.json", "memory.json", "service.log", "kernel.log"),
    }
    for name in files:
        if name.endswith(".json"):
            json.loads(files[name])
    codes = {finding["code"] for finding in json.loads(files["findings.json"])}
    assert {"FLAGS.REFUSED", "MODELS.LINKS", "SERVICE.LOG"} <= codes
    versions = json.loads(files["versions.json"])
    assert versions["torch"]["hip"] == "7.2.53211"
    assert "numpy==1.26.4" in versions["packages"]
    assert versions["kernel"].startswith("6.17.0-19-generic")
    service = json.loads(files["service.json"])
    assert service["environment"]["SOMETHING"] == "<set>"
    assert "--bf16-vae" in service["argv"]
    assert "AMD arch: gfx1151" in files["service.log"]
    assert "No HIP GPUs are available" in files["service.log"]
    assert "1/20" in files["service.log"]
    assert "lines left out" in files["service.log"]
    assert "hello" not in files["kernel.log"]
    assert json.loads(files["gpu.json"])[0]["gfx"] == "gfx1151"


def test_ordinary_technical_text_stays(box: Box) -> None:
    redact = redactor(box.world, box.settings)
    for text in (
        "torch 2.9.1+rocm7.2.1.lw.gitff65f5bc, HSA_OVERRIDE_GFX_VERSION=11.0.0, kernel 6.17.0-19",
        "amdgpu 0000:c5:00.0: amdgpu: [gfxhub] page fault (src_id:0 ring:24 vmid:8 pasid:32773)",
        "listens on 127.0.0.1 and 0.0.0.0 and ::",
        "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
        "linux-firmware 20240318.git3b128b60-0ubuntu2.21 GCVM_L2_PROTECTION_FAULT_STATUS:0x0080",
        "--use-pytorch-cross-attention --disable-mmap TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1",
        'File "/opt/strixbox/current/ComfyUI/nodes.py", line 12, in load at 12:34:56',
    ):
        assert redact.text(text) == text


def test_a_short_name_is_taken_as_a_word_only() -> None:
    redact = Redactor((("al", "<user>"),), frozenset())
    assert (
        redact.text("manual of al, al-box /home/x") == "manual of <user>, <user>-box /home/<user>"
    )


def test_known_models_keep_their_names(box: Box) -> None:
    redact = redactor(box.world, box.settings)
    line = redact.text("loading sd_xl_base_1.0.safetensors and /x/my_private_face.safetensors")
    assert "sd_xl_base_1.0.safetensors" in line
    assert "<model>.safetensors" in line


def test_the_file_is_for_its_owner_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    bundle.write(path, b"x")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Trouble, match="is there already; name another file"):
        bundle.write(path, b"y")
    assert path.read_bytes() == b"x"
    with pytest.raises(Trouble, match="cannot be written"):
        bundle.write(tmp_path / "none" / "b.tar.gz", b"x")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_under_sudo_the_file_is_for_who_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1234")
    bundle.write(tmp_path / "b", b"x")
    assert (tmp_path / "b").stat().st_uid == 1234


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(VALUES, st.text(max_size=400))
def test_any_value_can_be_redacted(value: Any, text: str) -> None:
    redact = Redactor((("falbala", "<prompt>"),), frozenset({"a.safetensors"}))
    json.dumps(redact.value(value))
    assert "falbala" not in redact.text(f"{text} Falbala {text}").lower()
    list(texts(value))
    bundle.log_lines(text.splitlines())


def test_long_lines_are_redacted_quickly() -> None:
    redact = Redactor((), frozenset())
    for text in ("a" * 1_000_000, "a b" * 300_000, "1.2.3." * 200_000, "ab:" * 300_000):
        redact.text(text)
    assert len(bundle.log_lines(["x" * 2000] * 3)) == 1
