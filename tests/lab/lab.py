"""The lab: the image of a box, the network, the mirror, and the boxes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from strixbox.lab import FOLDER, LabData
from tests.lab.box import (
    LABEL,
    MIRROR_ADDRESS,
    NETWORK,
    PREFIX,
    SUBNET_PREFIX,
    Box,
    address_of,
    start_box,
)
from tests.lab.content import Content, armoured, gpg_key
from tests.lab.podman import (
    LIMITS,
    LabError,
    have_watchers,
    image_exists,
    install_host_packages,
    podman,
    run,
)

PROJECT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
MIRROR = f"{PREFIX}mirror"
IMAGES = "strixbox-"  # all labs of a machine share them
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "sudo", "openssh-server", "acl"),
    *("python3", "ca-certificates", "gpg", "gpgv", "gpg-agent", "iproute2", "curl", "procps"),
    *("kmod", "pciutils", "util-linux", "xz-utils"),
    # Idle until a test asks: containers share the kernel's clock, so it stands in for a wrong one.
    "libfaketime",
)
# Real packages that the toolkit installs on a box; the mirror serves them.
SYSTEM = ("git", "python3-venv", "htop", "tmux")
SUBNET = f"{SUBNET_PREFIX}.0/24"
MAKING = "state"  # the box that a state is made from
STATES = ("bare", "old-rocm", "universe-rocm", "handmade", "converged")


def say(text: str) -> None:
    """One line of progress."""
    print(f"lab: {text}", flush=True)


class Lab:
    """A started lab."""

    def __init__(self, project: Path = PROJECT) -> None:
        self.project = project
        self.folder = project / FOLDER
        self.key = self.folder / "id_ed25519"
        self.data: dict[str, Any] = {}
        if (self.folder / "lab.json").exists():
            self.data = json.loads((self.folder / "lab.json").read_text(encoding="utf-8"))

    @classmethod
    def start(cls, project: Path = PROJECT) -> Lab:
        """Have image, network and mirror; quick where they are there already."""
        lab = cls(project)
        install_host_packages()
        have_watchers()
        lab.folder.mkdir(exist_ok=True)
        if not lab.key.with_suffix(".pub").exists():
            lab.key.unlink(missing_ok=True)  # of a start that was interrupted
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(lab.key))
        lab._network()
        system = lab.system_image()
        python = podman("run", *LIMITS, "--rm", system, *_PYTHON_VERSION).stdout.strip()
        content = Content(lab.folder / "mirror", lab.folder / "gnupg", project, python)
        lab.data = content.build(lab.folder / "debs")
        lab._mirror()
        lab.data |= lab._about(system)
        lab.save()
        return lab

    def save(self) -> None:
        """Write lab.json, which the inventory reads."""
        self.data["boxes"] = [{"name": b.name, "address": b.address} for b in self.boxes()]
        path = self.folder / "lab.json"
        path.with_suffix(".new").write_text(json.dumps(self.data, indent=1), encoding="utf-8")
        path.with_suffix(".new").replace(path)

    def boxes(self) -> list[Box]:
        """Every running box."""
        shown = podman(
            *(
                "ps",
                "--filter",
                f"label={LABEL}",
                "--filter",
                "label=strixbox-kind=box",
                "--format",
                "{{.Names}}",
            ),
            check=False,
        ).stdout.split()
        return [Box(n.removeprefix(PREFIX), address_of(n), self.key) for n in sorted(shown)]

    def box(self, name: str, state: str = "bare") -> Box:
        """A new box in one of the ``STATES``."""
        say(f"starting {name} ({state})")
        box = start_box(name, self._state_image(state), self.key)
        self.save()
        return box

    def mirror_log(self) -> list[dict[str, Any]]:
        """Requests served since the log was last emptied."""
        log: list[dict[str, Any]] = json.loads(self._mirror_call("GET", "/_log"))
        return log

    def forget_log(self) -> None:
        """Empty the mirror's log."""
        self._mirror_call("DELETE", "/_log")

    @contextmanager
    def faults(self, *faults: dict[str, Any]) -> Iterator[None]:
        """Have the mirror misbehave for a while."""
        self._mirror_call("PUT", "/_faults", json.dumps(faults).encode())
        try:
            yield
        finally:
            self.met = json.loads(self._mirror_call("DELETE", "/_faults"))
        for fault in self.met:
            if not fault.get("met"):
                raise LabError(f"nothing met the fault {fault}; the test proves nothing")

    @contextmanager
    def resigned(self, dist: str) -> Iterator[None]:
        """Have a repository's Release signed by another key than the one that boxes know."""
        folder, gnupg = self.folder / "mirror" / dist, self.folder / "gnupg"
        other = gpg_key(gnupg, "Lab Rotated Key <rotated@lab.invalid>")
        signed = {name: (folder / name).read_bytes() for name in ("InRelease", "Release.gpg")}
        gpg = ("gpg", "--homedir", str(gnupg), "--batch", "--yes", "--local-user", other)
        release = str(folder / "Release")
        try:
            run(*gpg, "--clearsign", "--output", str(folder / "InRelease"), release)
            run(*gpg, "-ab", "--output", str(folder / "Release.gpg"), release)
            yield
        finally:
            for name, content in signed.items():
                (folder / name).write_bytes(content)

    @contextmanager
    def replaced(self, url: str) -> Iterator[None]:
        """Have the mirror serve other bytes of the same length for a URL of its own."""
        file = self.folder / "mirror" / unquote(urlsplit(url).path).lstrip("/")
        content = file.read_bytes()
        file.write_bytes(content[::-1])
        try:
            yield
        finally:
            file.write_bytes(content)

    def down(self, *, purge: bool = False) -> None:
        """Take away all containers and the network; with ``purge`` the images as well."""
        names = podman(
            *("ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Names}}"), check=False
        ).stdout.split()
        if names:
            podman("rm", "--force", "--time", "0", "--volumes", *names, check=False)
        podman("network", "rm", "--force", NETWORK, check=False)
        (self.folder / "lab.json").unlink(missing_ok=True)
        if purge:
            form = ("images", "--format", "{{.Repository}}:{{.Tag}}")
            ours = [i for i in podman(*form).stdout.split() if IMAGES in i]
            podman("rmi", "--force", *ours, check=False)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _network(self) -> None:
        if podman("network", "exists", NETWORK, check=False).returncode != 0:
            # Names are in every box's /etc/hosts (box.START): one thing less that can be late.
            podman("network", "create", "--disable-dns", "--subnet", SUBNET, NETWORK)

    def system_image(self) -> str:
        """The base system with the account, before it knows this lab's keys."""
        recipe = "\n".join([*PACKAGES, (HERE / "base.sh").read_text(encoding="utf-8")])
        image = f"{IMAGES}system:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        if not image_exists(image):
            if self._ubuntu():
                say("building the box image from Ubuntu 24.04")
                self._from_ubuntu(image)
            else:
                say("building the box image (mmdebstrap, about a minute)")
                self._from_debian(image)
        debs = self.folder / "debs"
        note = debs / "complete"
        known = note.read_text(encoding="utf-8") if note.exists() else ""
        if known != " ".join(SYSTEM) or not image_exists(f"{IMAGES}mirror-image"):
            self._download_debs(image, debs)
        return image

    def _ubuntu(self) -> bool:
        """Whether ubuntu:24.04 can be had; asked once and remembered."""
        note = self.folder / "ubuntu"
        if not note.exists():
            pulled = run("timeout", "60", "podman", "pull", "--quiet", "ubuntu:24.04", check=False)
            note.write_text("yes" if pulled.returncode == 0 else "no", encoding="utf-8")
        return note.read_text(encoding="utf-8") == "yes"

    def _from_debian(self, image: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            rootfs = Path(scratch) / "rootfs.tar"
            run(
                *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}"),
                f"--customize-hook=copy-in {HERE / 'base.sh'} /root",
                '--customize-hook=chroot "$1" sh /root/base.sh',
                *("bookworm", str(rootfs)),
            )
            podman("import", "--quiet", str(rootfs), image)

    def _from_ubuntu(self, image: str) -> None:
        work = f"{MIRROR}-build"
        podman("rm", "--force", work, check=False)
        podman(
            "run",
            *LIMITS,
            "--label",
            LABEL,
            "--detach",
            "--name",
            work,
            "ubuntu:24.04",
            "sleep",
            "600",
        )
        install = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy "
        podman("exec", work, "sh", "-c", install + " ".join(PACKAGES))
        podman("cp", str(HERE / "base.sh"), f"{work}:/root/base.sh")
        podman("exec", work, "sh", "/root/base.sh")
        podman("commit", "--quiet", work, image)
        podman("rm", "--force", "--time", "0", work)

    def _download_debs(self, image: str, folder: Path) -> None:
        """Real packages for the mirror, and the mirror's own image, which needs git."""
        say(f"downloading {', '.join(SYSTEM)} for the mirror")
        work = f"{MIRROR}-build"
        podman("rm", "--force", "--time", "0", work, check=False)
        podman(
            "run",
            *LIMITS,
            "--label",
            LABEL,
            "--detach",
            "--name",
            work,
            image,
            "sleep",
            "600",
        )
        fetch = "apt-get update -q && apt-get install -qy --no-install-recommends --download-only "
        podman("exec", work, "sh", "-c", fetch + " ".join(SYSTEM))
        folder.mkdir(exist_ok=True)
        podman("cp", f"{work}:/var/cache/apt/archives/.", str(folder))
        shutil.rmtree(folder / "partial", ignore_errors=True)
        (folder / "lock").unlink(missing_ok=True)
        podman("exec", work, "sh", "-c", "dpkg -i /var/cache/apt/archives/*.deb")
        podman("commit", "--quiet", work, f"{IMAGES}mirror-image")
        podman("rm", "--force", "--time", "0", work)
        (folder / "complete").write_text(" ".join(SYSTEM), encoding="utf-8")

    def _mirror(self) -> None:
        """Start the mirror, unless the one that runs is this very one."""
        program = (HERE / "mirror" / "server.py").read_bytes()
        made = hashlib.sha256(program + str(self.folder).encode()).hexdigest()[:12]
        form = '{{.State.Running}} {{index .Config.Labels "made"}}'
        shown = podman("inspect", "--format", form, MIRROR, check=False).stdout.strip()
        if shown == f"true {made}" and self._mirror_answers(seconds=2):
            return
        podman("rm", "--force", "--time", "0", MIRROR, check=False)
        podman(
            *("run", "--detach", "--name", MIRROR, "--network", NETWORK, "--label", f"made={made}"),
            *("--label", LABEL, "--ip", MIRROR_ADDRESS, *LIMITS),
            *("--volume", f"{self.folder / 'mirror'}:/srv/mirror:ro"),
            *("--volume", f"{HERE / 'mirror' / 'server.py'}:/srv/server.py:ro"),
            *(f"{IMAGES}mirror-image", "python3", "/srv/server.py", "/srv/mirror"),
        )
        if not self._mirror_answers(seconds=20):
            log = podman("logs", MIRROR, check=False)
            raise LabError(f"the mirror does not answer: {(log.stdout + log.stderr)[-300:]}")

    def _mirror_answers(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self._mirror_call("GET", "/_log")
            except OSError:
                time.sleep(0.1)
            else:
                return True
        return False

    def _mirror_call(self, method: str, path: str, body: bytes | None = None) -> str:
        url = f"http://{MIRROR_ADDRESS}{path}"
        request = urllib.request.Request(url, data=body, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return str(answer.read().decode())

    def _about(self, system: str) -> dict[str, Any]:
        release = podman("run", *LIMITS, "--rm", system, "cat", "/etc/os-release").stdout
        fields = dict(
            line.split("=", 1) for line in release.replace('"', "").splitlines() if "=" in line
        )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {
            "user": "strix",
            "key": str(self.key),
            "distribution": f"{fields['ID']}-{fields['VERSION_ID']}",
            "ram_gib": max(8, round(memory / 2**30)),
        }

    def _state_image(self, state: str) -> str:
        """Image of a box in a named state, made once from the bare one."""
        if state not in STATES:
            raise LabError(f"there is no state {state}; take one of {', '.join(STATES)}")
        bare = self.bare_image()
        if state == "bare":
            return bare
        digest = hashlib.sha256(bare.encode())
        digest.update((self.folder / "mirror" / "content.json").read_bytes())
        for file in self._sources(state):
            digest.update(file.read_bytes())
        image = f"{IMAGES}{state}:{digest.hexdigest()[:12]}"
        if not image_exists(image):
            say(f"making the state {state}")
            box = start_box(MAKING, bare, self.key)
            try:
                if state == "converged":
                    self._converge(box)
                else:
                    box.run(["sh", "-eu", "-s"], text=self._sources(state)[0].read_text("utf-8"))
                podman("commit", "--quiet", box.container, image)
            finally:
                box.remove()
        return image

    def _sources(self, state: str) -> list[Path]:
        """Files that make the state: its script, or everything that a deploy is made of."""
        if state != "converged":
            return [HERE / "states" / f"{state}.sh"]
        trees = ("strixbox", "tasks", "templates", "files", "group_data")
        files = [file for tree in trees for file in (self.project / tree).rglob("*")]
        ours = [file for file in files if file.is_file() and "__pycache__" not in file.parts]
        return sorted([*ours, self.project / "deploy.py"])

    def _converge(self, box: Box) -> None:
        """Deploy to a box, and end its service cleanly so that nothing is half-written."""
        self.save()
        data = LabData(self.data)
        (entry,) = (entry for entry in data.boxes() if entry["name"] == box.name)
        with tempfile.TemporaryDirectory() as scratch:
            boxes = Path(scratch) / "boxes.yaml"
            boxes.write_text(json.dumps({"boxes": [entry | {"groups": ["lab"]}]}))
            run(
                *("env", "-C", str(self.project), f"STRIXBOX_BOXES={boxes}"),
                *(sys.executable, "-m", "pyinfra", "-y", "inventory.py", "deploy.py"),
            )
        box.run("systemctl stop comfyui.service")

    def bare_image(self) -> str:
        system = self.system_image()
        public = self.key.with_suffix(".pub").read_text(encoding="utf-8")
        gnupg = self.folder / "gnupg"
        ubuntu = armoured(gnupg, gpg_key(gnupg, "Lab Ubuntu Archive <ubuntu@lab.invalid>"))
        digest = hashlib.sha256((system + public + ubuntu).encode()).hexdigest()[:12]
        image = f"{IMAGES}bare:{digest}"
        if image_exists(image):
            return image
        work = f"{MIRROR}-build"
        podman("rm", "--force", "--time", "0", work, check=False)
        podman(
            "run",
            *LIMITS,
            "--label",
            LABEL,
            "--detach",
            "--name",
            work,
            system,
            "sleep",
            "600",
        )
        for path, text in (
            ("/home/strix/.ssh/authorized_keys", public),
            ("/usr/share/keyrings/lab-ubuntu.asc", ubuntu),
            (
                "/etc/apt/sources.list",
                "deb [signed-by=/usr/share/keyrings/lab-ubuntu.asc]"
                " http://mirror.lab/ubuntu noble universe\n",
            ),
        ):
            podman("exec", "-i", work, "sh", "-c", 'cat > "$1"', "sh", path, text=text)
        clean = (
            "rm -rf /etc/apt/sources.list.d/* /var/lib/apt/lists/* /root/base.sh;"
            " chown strix:strix /home/strix/.ssh/authorized_keys;"
            " chmod 600 /home/strix/.ssh/authorized_keys"
        )
        podman("exec", work, "sh", "-c", clean)
        podman("commit", "--quiet", work, image)
        podman("rm", "--force", "--time", "0", work)
        return image


_PYTHON_VERSION = ("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
__all__ = ["Box", "Lab", "LabError"]
