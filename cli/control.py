"""wq-control: orders to a manager."""

from contextlib import closing

import click

from wqueue.cli.connection import connect
from wqueue.cli.options import Place, ToolCommand, place_options, version_option
from wqueue.cli.output import tell
from wqueue.cli.run import run

SHUTDOWN_EXAMPLES = """
wq-control shutdown              this account's manager
wq-control shutdown -M night     the manager that was started with --name night
"""


@click.group("wq-control")
@version_option
def command() -> None:
    """Give orders to a manager; only its owner may."""


@command.command("shutdown", cls=ToolCommand, examples=SHUTDOWN_EXAMPLES)
@place_options("--name")
def shutdown(place: Place) -> None:
    """End the manager and send its workers home.

    Nothing is lost: tasks that run are given back, and all goes on when the manager is started
    again on the same state directory.
    """
    with closing(connect(place, "wq-control")) as client:
        queue = client.queue()
        client.shutdown()
    tell(f"the manager {queue.name} at {queue.host}:{queue.port} ends, and its workers with it")


def main() -> None:
    """Run wq-control."""
    run(command, "wq-control")


if __name__ == "__main__":
    main()
