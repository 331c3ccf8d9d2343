"""A run's hold of a box: its agent, the lock that no other run has, and the box's own log."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from paramiko import Transport
from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.context import host, state

from strixbox.agent import AGENTS, GONE, Agent, NoAgent
from strixbox.answers import ANSWERS, Answers
from strixbox.config import Config
from strixbox.journal import JOURNALS, Journal
from strixbox.layout import CHANGES, RUN_LOCK, WRITING
from strixbox.lost import watch
from strixbox.programs import CONNECTION_ENDED
from strixbox.toolkit import toolkit_commit, who

# Seconds that a run waits for what an earlier one, whose connection was cut, left working.
PATIENCE = 300
ALIVE = 15  # seconds between two signs of life; a box that misses four of them is gone


def hold_box(since: str, *, locked: bool) -> str | None:
    """Have the box's agent, and hold the box's lock by it; None, or why not.

    Only boxes that are reached by ssh have an agent and a lock: a local run has no channel.

    + since: when the run began, for whoever finds the lock taken
    + locked: False for what changes nothing and need not be alone
    """
    client = getattr(host.connector, "client", None)
    if client is None or host.name in AGENTS:  # a second entry point of the same run
        return None
    sentence = meet(client.get_transport())
    if sentence is None and locked:
        sentence = take_lock(AGENTS[host.name], since)
    if sentence is not None and host.name in AGENTS:
        # What it has locked by now would keep the next run out until this one ends.
        with suppress(*GONE):
            AGENTS.pop(host.name).channel.close()
    return sentence


def meet(transport: Transport | None) -> str | None:
    """Have the box's agent; None, or why there is none."""
    if transport is None or not transport.is_active():
        return CONNECTION_ENDED
    no_delay(transport)
    sentence = start_agent(transport)
    if sentence is not None:
        return sentence if transport.is_active() else CONNECTION_ENDED
    agent = AGENTS[host.name]
    ANSWERS[host.name] = Answers(agent.drop)
    watch(host.name, agent.lives)
    return None


def no_delay(transport: Transport) -> None:
    """Send each command at once, and notice a box that is gone.

    paramiko leaves Nagle on, 40 ms a command on a LAN. It waits for ever for the answer of a box
    that lost its power, and pyinfra with it, for all boxes.
    """
    transport.set_keepalive(ALIVE)
    if isinstance(transport.sock, socket.socket):  # a jump host's is a channel
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4000 * ALIVE)


def start_agent(transport: Transport) -> str | None:
    """Start the box's agent, for as long as the connection lives; None, or why it did not."""
    box = state.inventory.get_host(host.name)
    with suppress(NoAgent):
        AGENTS[host.name] = Agent.start(box, transport)
        return None
    if not transport.is_active():
        return CONNECTION_ENDED
    # Asks for sudo's password where one is needed; the raw channel of the agent could not.
    try:
        allowed, said = host.run_shell_command(StringCommand("true"), _sudo=True)
    except GONE:
        if not transport.is_active():
            return CONNECTION_ENDED
        return no_sudo(
            str(host.data.ssh_user), ["it wants a password, and there is no terminal to ask on"]
        )
    if not allowed:
        return no_sudo(str(host.data.ssh_user), said.stderr_lines)
    try:
        AGENTS[host.name] = Agent.start(box, transport)
    except NoAgent as words:
        told = last_line(str(words).splitlines())
        return f"python3 does not start on the box: {told}; see that it is installed, run again"
    return None


def take_lock(agent: Agent, since: str) -> str | None:
    """Hold the box's lock for as long as the connection lives; None, or why it is not held."""
    holder = f"{' on '.join(who())} since {since}"
    order = {"run": RUN_LOCK, "writing": WRITING, "holder": holder, "patience": PATIENCE}
    try:
        agent.tell(lock=order)
        while "waiting" in (told := agent.hear()):
            logger.info(
                f"{host.print_prefix}an earlier run was cut, and what it started still works:"
                f" {told['waiting']}; waiting up to {PATIENCE} s for its end"
            )
    except GONE:
        return f"the box's lock {RUN_LOCK} could not be taken: {last_line(agent.errors())}"
    return lock_trouble(told)


def keep_log(run: str, cfg: Config, entry: str) -> None:
    """Have the box log what this run changes.

    + run: name of the run, by which its record is found
    + entry: what is run, as ``deploy``
    """
    agent = AGENTS[host.name]
    about = {
        "run": run,
        "who": "@".join(who()),
        "entry": entry,
        "toolkit": toolkit_commit(),
        "config": cfg.digest(),
    }
    with suppress(*GONE):  # the next question tells of a connection that is gone
        agent.tell(log=CHANGES, about=about)
    JOURNALS[host.name] = Journal(agent.tell, agent.last_words)


def no_sudo(user: str, said: list[str]) -> str:
    """The sentence for an account that may not become root."""
    return (
        f"sudo does not let {user} become root: {last_line(said)}; see that"
        f" 'sudo -v' works for {user} on the box (group sudo, the password), then run again"
    )


def lock_trouble(told: dict[str, Any]) -> str | None:
    """Why the lock is not held, from the agent's answer."""
    if told["held"]:
        return None
    if "working" in told:
        return (
            f"what an earlier run, which was cut, had started still works on this box:"
            f" {told['working']}; wait for its end, or end it, and run again"
        )
    return (
        f"another run works on this box ({told['holder']}); wait for its end and run again; if that"
        f" run is gone, end what holds its lock on the box: {told['process']}"
    )


def last_line(lines: list[str]) -> str:
    """The last line that says anything."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
