"""Writer: makes a release current and starts it; goes back to the one before if it is not answered.

The link is replaced by one rename, so at every instant it names a whole release.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import Any


def point(link: str, target: str) -> None:
    """Have ``link`` name ``target``, atomically."""
    aside = f"{link}.new"
    if os.path.lexists(aside):
        os.unlink(aside)
    os.symlink(target, aside)
    os.replace(aside, link)


def systemctl(*words: str) -> str | None:
    """Run systemctl; None, or what it said where it failed."""
    answer = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    return None if answer.returncode == 0 else (answer.stderr.strip() or "systemctl failed")


def start(order: dict[str, Any]) -> str | None:
    """Restart the service and wait for its answer; None, or why there is none."""
    systemctl("reset-failed", order["service"])
    trouble = systemctl("restart", order["service"])
    if trouble:
        return trouble
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    begin = time.monotonic()
    told = 0.0
    reason = "no answer"
    while time.monotonic() - begin < order["timeout"]:
        try:
            with opener.open(order["url"], timeout=5) as answer:
                if answer.status == 200 and systemctl("is-active", order["service"]) is None:
                    return None
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
        if systemctl("is-failed", "--quiet", order["service"]) is None:
            return "the service failed: " + _log(order["service"])
        waited = time.monotonic() - begin
        if waited - told >= 10:
            told = waited
            print(f"waiting for {order['url']} since {waited:.0f} s", flush=True)
        time.sleep(0.25)
    return f"{order['url']} was not answered in {order['timeout']} s ({reason}): " + _log(
        order["service"]
    )


def _log(service: str) -> str:
    command = ["journalctl", "--unit", service, "--lines", "5", "--output", "cat", "--no-pager"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return " | ".join(line.strip() for line in answer.stdout.splitlines() if line.strip())[-400:]


def main(order: dict[str, Any]) -> None:
    """``{"link", "release", "service", "url", "timeout"}``; everything else stands already."""
    link, release = order["link"], order["release"]
    before = os.readlink(link) if os.path.islink(link) else None
    trouble = systemctl("daemon-reload") or systemctl("enable", "--quiet", order["service"])
    if trouble:
        raise SystemExit(f"{order['service']}: {trouble}; mend that and run again")
    if before != release:
        point(link, release)
    trouble = start(order)
    if trouble is None:
        return
    if before in (None, release) or not os.path.exists(os.path.join(str(before), "release.json")):
        raise SystemExit(
            f"{order['service']} does not answer: {trouble};"
            f" see journalctl -u {order['service']}, mend it and run again"
        )
    point(link, str(before))
    back = start(order)
    state = "is in use again" if back is None else f"does not answer either ({back})"
    raise SystemExit(
        f"release {os.path.basename(release)} does not answer: {trouble};"
        f" the release before, {os.path.basename(str(before))}, {state}"
    )


if __name__ == "__main__":
    main(json.load(sys.stdin))
