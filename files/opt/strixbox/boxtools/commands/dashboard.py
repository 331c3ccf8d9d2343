"""``strixbox dashboard``: the monitor, htop and the log in one tmux session."""

from __future__ import annotations

import shutil
import sys

import click

from boxtools import dashboard, settings
from boxtools.output import remarks


@click.command()
@click.option("--session", default=dashboard.SESSION, show_default=True, help="Its name in tmux.")
@click.option("--kill", is_flag=True, help="End the session.")
def command(session: str, kill: bool) -> None:
    """Monitor, htop and the service's log side by side in tmux.

    Runs on when the terminal goes away; called again, it shows the same session.
    """
    dashboard.check_name(session)
    say = remarks()
    if kill:
        ended = dashboard.kill(session)
        say.print(f"{session} has ended" if ended else f"there is no session {session}")
        return
    begun = False
    if not dashboard.exists(session):
        monitor = [shutil.which("strixbox") or sys.argv[0], "monitor"]
        begun = dashboard.create(session, monitor, settings.load().service)
    if sys.stdin.isatty() and sys.stdout.isatty():
        dashboard.attach(session)
    else:
        state = "runs now" if begun else "runs already"
        say.print(f"{session} {state}; show it: tmux attach -t {session}")
