"""Command line of the lab."""

from __future__ import annotations

import argparse
import os
import sys

from tests.lab import Lab, LabError
from tests.lab.lab import MAKING, STATES, say


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    main = argparse.ArgumentParser(prog="lab", description="Test boxes on this machine.")
    commands = main.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start boxes box1, box2, ...")
    up.add_argument("-n", "--boxes", type=int, default=1)
    up.add_argument("--state", choices=STATES, default="bare")
    up.add_argument("--keep", action="store_true", help="leave boxes that run as they are")
    down = commands.add_parser("down", help="remove all boxes and the mirror")
    down.add_argument("--purge", action="store_true", help="and their images and keys")
    commands.add_parser("status", help="list the boxes")
    ssh = commands.add_parser("ssh", help="log in to a box")
    ssh.add_argument("name")
    ssh.add_argument("words", nargs=argparse.REMAINDER)
    return main


def main() -> int:
    """Run one command; 1 with a sentence where it fails, 130 where it was interrupted."""
    options = parser().parse_args()
    try:
        if options.command == "up":
            up(options.boxes, options.state, options.keep)
        elif options.command == "down":
            Lab().down(purge=options.purge)
        elif options.command == "status":
            for box in Lab().boxes():
                say(f"{box.name} {box.address}")
        else:
            ssh(options.name, options.words)
    except LabError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say(f"{options.command} was interrupted; run it again, and it goes on with what is there")
        return 130
    return 0


def up(boxes: int, state: str, keep: bool) -> None:
    """Start the lab and ``boxes`` boxes."""
    lab = Lab.start()
    running = {box.name for box in lab.boxes()}
    wanted = {f"box{n}" for n in range(1, boxes + 1)}
    for box in lab.boxes():
        # The one that a state is made from is left where that was interrupted.
        if box.name == MAKING or (not keep and box.name not in wanted):
            box.remove()
    for number in range(1, boxes + 1):
        name = f"box{number}"
        if keep and name in running:
            say(f"{name} runs")
        else:
            lab.box(name, state)
    lab.save()
    for box in lab.boxes():
        say(f"{box.name} is {box.address}; bin/lab ssh {box.name}")


def ssh(name: str, words: list[str]) -> None:
    """Replace this process by ssh to a box."""
    found = [box for box in Lab().boxes() if box.name == name]
    if not found:
        raise LabError(f"there is no box {name}; see bin/lab status")
    options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-q")
    command = ["ssh", *options, "-i", str(found[0].key), f"strix@{found[0].address}", *words]
    os.execvp("ssh", command)  # noqa: S606 - words, no shell


if __name__ == "__main__":
    sys.exit(main())
