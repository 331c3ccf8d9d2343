"""The ``strixbox`` command: its sub-commands, and how every failure ends.

Exit codes: 0 ok, 1 something is wrong (with a sentence on stderr), 2 wrong use, 130 Ctrl-C. Output
that could not be written is never 0, so that a script does not take half a result for the whole.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from importlib import import_module

import click
from rich.markup import escape

from boxtools.errors import Trouble, WrongUse
from boxtools.output import remarks

# A command's module is imported when it is called: matplotlib and its like take a second.
COMMANDS = {
    "bench": "Measure this box, compare runs, try flags.",
    "dashboard": "Monitor, htop and the service's log side by side in tmux.",
    "doctor": "Find what is wrong and how to mend it; explain an error message.",
    "memory": "What holds VRAM, GTT and RAM, and what fits beside it.",
    "models": "List, move, check and download models.",
    "monitor": "Watch GPU, CPU, memory and the queue live.",
    "preload": "Read models into the page cache.",
    "profile": "Trace a workflow inside the server with torch's profiler.",
    "render": "Render a workflow and save its images.",
    "warmup": "Tune matrix products for the sizes that are used.",
}


class Lazy(click.Group):
    """A group whose commands are imported when they are wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"boxtools.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from boxtools.version import version

        click.echo("\n".join(version()))
        ctx.exit()


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show what this box was deployed with and exit.",
)
def strixbox() -> None:
    """Tools for the ComfyUI on this box.

    Every command that reads takes --json. Exit codes: 0 ok, 1 something is wrong, 2 wrong use,
    130 Ctrl-C.
    """


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _have_streams()
    try:
        code = _run(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, click.Abort):
        return _end("interrupted", 130)
    except BrokenPipeError:
        # `strixbox models | head`: whoever reads has enough, which is nothing to tell anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # Every reader and writer of a command tells its own trouble: this is the output's.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _end(f"the result could not be written ({error.strerror}); see where it goes", 1)


def _run(words: list[str]) -> int:
    try:
        # Not strixbox.main(): it would end the process itself where nobody reads on.
        with strixbox.make_context("strixbox", words) as context:
            strixbox.invoke(context)
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except Trouble as trouble:
        return _end(str(trouble), 1)
    except WrongUse as mistake:
        return _end(str(mistake), 2)
    except click.ClickException as mistake:
        with contextlib.suppress(OSError):
            mistake.show()
        return 2


def _have_streams() -> None:
    """Have all three, and no character that one of them cannot take as a reason to end."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # closed by the caller: >&-
            # A result cannot be written there, as the descriptor says; remarks may be lost.
            access = os.O_RDONLY if name == "stdout" else os.O_RDWR
            while os.open(os.devnull, access) < number:
                pass
            setattr(sys, name, os.fdopen(number, mode))
        stream = getattr(sys, name)
        if name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _end(sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):  # where stderr is full, the exit code still tells
        remarks().print(f"strixbox: {escape(sentence)}", soft_wrap=True)
    return code
