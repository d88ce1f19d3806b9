"""Options that several tools share: which manager is meant, and amounts with units.

Which manager and which secret follow from what is given here, then from the environment, then
from this account's running manager; the rule itself is wqueue.protocol.locate's.
"""

import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from wqueue._version import __version__
from wqueue.cli.amounts import parse_cores, parse_mb, parse_seconds

Tool = Callable[..., Any]


class Place(NamedTuple):
    """Which manager is meant, as far as the command line said it."""

    manager: str | None = None
    info_file: str | None = None
    state_dir: str | None = None
    name: str | None = None
    password_file: str | None = None

    def command(self, tool: str, *words: object) -> str:
        """Write the command line that runs another tool on the same manager."""
        options: list[str] = []
        for option, value in (
            ("--manager", self.manager),
            ("--info-file", self.info_file),
            ("--state-dir", self.state_dir),
            ("-M", self.name),
            ("--password-file", self.password_file),
        ):
            if value is not None:
                options += [option, value]
        return shlex.join([tool, *options, *map(str, words)])


def size(text: str) -> int:
    """Read an option's size as MB."""
    with _as_bad_parameter():
        return parse_mb(text)


def duration(text: str) -> float:
    """Read an option's time as seconds."""
    with _as_bad_parameter():
        return parse_seconds(text)


def cores(text: str) -> float:
    """Read an option's number of cores."""
    with _as_bad_parameter():
        return parse_cores(text)


def words(text: str) -> str:
    """Refuse text that is not UTF-8: unlike file names, it goes into messages and tables."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("it is not valid UTF-8") from error
    return text


@contextmanager
def _as_bad_parameter() -> Iterator[None]:
    # click then says of which option the sentence speaks.
    try:
        yield
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_manager_option = click.option(
    "--manager",
    metavar="HOST:PORT",
    help="The manager's address.  [env: WQ_MANAGER]",
)
_info_file_option = click.option(
    "--info-file",
    metavar="FILE",
    help="The file in which the manager wrote where it is.  [env: WQ_INFO_FILE]",
)
_state_dir_option = click.option(
    "--state-dir",
    metavar="DIR",
    help="The manager's state directory.  [env: WQ_STATE_DIR]",
)
_password_file_option = click.option(
    "--password-file",
    metavar="FILE",
    help="The secret, if it is not in the state directory.  [env: WQ_PASSWORD_FILE]",
)


def _name_option(flags: Sequence[str]) -> Callable[[Tool], Tool]:
    return click.option(
        "-M",
        "--manager-name",
        *flags,
        "manager_name",
        metavar="NAME",
        help="The name of a manager of this account.  [env: WQ_NAME]",
    )


def place_options(*name_flags: str) -> Callable[[Tool], Tool]:
    """Give a tool the options that say which manager is meant, as one argument `place`.

    `name_flags` are further spellings of -M.
    """
    options: list[Callable[[Tool], Tool]] = [
        _manager_option,
        _info_file_option,
        _state_dir_option,
        _name_option(name_flags),
        _password_file_option,
    ]

    def decorate(tool: Tool) -> Tool:
        @functools.wraps(tool)
        def gathered(
            *arguments: Any,
            manager: str | None,
            info_file: str | None,
            state_dir: str | None,
            manager_name: str | None,
            password_file: str | None,
            **others: Any,
        ) -> Any:
            place = Place(manager, info_file, state_dir, manager_name, password_file)
            return tool(*arguments, place=place, **others)

        result: Tool = gathered
        for option in reversed(options):
            result = option(result)
        return result

    return decorate


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON value on stdout."
)


def version_option(tool: Tool) -> Tool:
    """Give a tool --version."""
    return click.version_option(__version__, message="%(prog)s (wqueue) %(version)s")(tool)


class ToolCommand(click.Command):
    """A command whose examples stand at the end of its help as they were written."""

    def __init__(self, *arguments: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, not wrapped."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip("\n").splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n".rstrip(" "))
