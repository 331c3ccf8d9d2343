"""TunableOp in the running server, through the routes of strixbox's node pack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from boxtools.errors import Trouble
from boxtools.server import Server

ROUTE = "/strixbox/tunableop"


class Tuning(BaseModel):
    """What the server's node pack tells of TunableOp."""

    model_config = ConfigDict(extra="ignore")

    supported: bool = False
    reason: str | None = None
    enabled: bool = False
    tuning: bool = False
    filename: str | None = None
    results: int = 0
    validators: dict[str, str] = {}


def ask(server: Server, **wanted: bool) -> Tuning:
    """TunableOp's state, after switching what is ``wanted`` of ``tuning`` and ``write``.

    Raises:
        Trouble: where the server does not answer, or refuses to switch.
    """
    try:
        told = server.json("POST", ROUTE, json=wanted) if wanted else server.json("GET", ROUTE)
    except Trouble as trouble:
        if wanted:
            raise
        server.system_stats()  # a dead server is another trouble than one without the route
        return Tuning(reason=f"it has no route {ROUTE} ({str(trouble).partition(';')[0]})")
    try:
        return Tuning.model_validate(told)
    except ValidationError:
        return Tuning(reason=f"{ROUTE} does not answer as strixbox's node pack does")


def obstacle(state: Tuning, gpu: bool) -> str | None:
    """Why nothing can be tuned, and what would change that; None where it can."""
    if not gpu:
        return "ComfyUI runs on the CPU, where there is nothing to tune"
    if not state.supported:
        return f"ComfyUI cannot switch TunableOp: {state.reason}; run the deploy on this box again"
    if not state.enabled:
        return (
            "TunableOp is off in this launch profile;"
            " choose one with PYTORCH_TUNABLEOP_ENABLED=1 (setting comfyui_profile)"
        )
    return None


@contextlib.contextmanager
def tuning(server: Server) -> Iterator[None]:
    """Tuning on; off again and its results written in any case, Ctrl-C too.

    Raises:
        Trouble: where it cannot be switched.
    """
    try:
        if not ask(server, tuning=True).tuning:
            raise Trouble(
                "TunableOp's tuning stays off; take PYTORCH_TUNABLEOP_TUNING=0 out of the launch"
                " profile, torch lets it win over any later switch"
            )
        yield
    except BaseException:
        with contextlib.suppress(Trouble):  # what went wrong first is what counts
            ask(server, tuning=False, write=True)
        raise
    ask(server, tuning=False, write=True)
