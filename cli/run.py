"""Turns errors into a line or two on stderr and an exit code, once for all tools."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from wqueue.protocol.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, WqueueError


def run(command: click.Command, tool: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a tool's click command and end the process: what every tool's main() does.

    A command returns its exit code, or None for success.
    """
    sys.exit(exit_code_of(command, tool, arguments))


def exit_code_of(command: click.Command, tool: str, arguments: Sequence[str] | None = None) -> int:
    """Run a tool's click command, say on stderr what went wrong, and give the exit code."""
    try:
        code = command.main(args=arguments, prog_name=tool, standalone_mode=False)
        if sys.stdout is not None:  # None: closed by the caller
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        return _usage(tool, error)
    except BrokenPipeError:
        return _broken_pipe()
    except WqueueError as error:
        _say(f"{tool}: {error}")
        return error.exit_code
    except Exception as error:
        return _bug(tool, error)
    return code if isinstance(code, int) else EXIT_OK


def _usage(tool: str, error: click.ClickException) -> int:
    _say(f"{tool}: {error.format_message()}")
    if isinstance(error, click.UsageError):
        _say(f"Try: {tool} --help")
    return 2


def _broken_pipe() -> int:
    # Whoever read our output has gone, as head does: no message, and none at the interpreter's end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _bug(tool: str, error: Exception) -> int:
    what = str(error).splitlines()[0] if str(error) else "no further words"
    _say(f"{tool}: {type(error).__name__}: {what} (this is a bug; WQ_DEBUG=1 shows where)")
    if os.environ.get("WQ_DEBUG"):
        traceback.print_exception(error)
    return EXIT_BUG


def _say(text: str) -> None:
    try:
        click.echo(text, err=True)
    except OSError:
        return
