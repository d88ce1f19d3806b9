"""wq-manager: the daemon that keeps the queue."""

import sys
from pathlib import Path

import click

from wqueue.cli.options import ToolCommand, duration, version_option
from wqueue.cli.run import run
from wqueue.manager.options import Options
from wqueue.manager.supervisor import supervise
from wqueue.protocol.errors import UsageError
from wqueue.protocol.locate import DEFAULT_NAME, DEFAULT_PORT, default_state_dir

EXAMPLES = f"""
wq-manager                            on port {DEFAULT_PORT}, or the next free one
wq-manager --name genomes --port 9200 a second manager beside it
wq-manager --port 0 --port-file F     any port; F names it once the manager answers
"""


def port_range(text: str) -> tuple[int, int]:
    """Read two ports with a dash between them."""
    low, dash, high = text.partition("-")
    if not (dash and low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) < 65536):
        raise click.BadParameter(f"{text!r} is not LOW-HIGH, two ports with a dash between them")
    return int(low), int(high)


@click.command(cls=ToolCommand, examples=EXAMPLES)
@click.option(
    "--name",
    envvar="WQ_NAME",
    default=DEFAULT_NAME,
    metavar="NAME",
    help="What this manager is called; each name has a state directory of its own.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help=f"The port that peers name.  [default: the one it had, else {DEFAULT_PORT} or the next "
    "free one; 0: any]",
)
@click.option(
    "--ports",
    type=port_range,
    metavar="LOW-HIGH",
    help="Use only these ports, as a firewall allows them.",
)
@click.option(
    "--listen",
    default="0.0.0.0",
    metavar="ADDRESS",
    help="Listen on this address only.  [default: on all of this machine's]",
)
@click.option(
    "--advertise",
    multiple=True,
    metavar="HOST",
    help="Tell peers to use this address; may be given several times.",
)
@click.option(
    "--state-dir",
    envvar="WQ_STATE_DIR",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Keep keys, journal and files here.  [default: ~/.local/state/wqueue/NAME]",
)
@click.option(
    "--password-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A file with a password of your own, beside the credentials that the manager makes.",
)
@click.option("--no-password", is_flag=True, help="Let everybody in who reaches the port.")
@click.option(
    "--info-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write here where the manager is, once it answers.",
)
@click.option(
    "--port-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the port here, once the manager answers.",
)
@click.option(
    "--worker-grace",
    type=duration,
    metavar="TIME",
    help="How long tasks wait for a worker whose link is lost before they run elsewhere.",
)
@click.option(
    "--reattach-wait",
    type=duration,
    metavar="TIME",
    help="How long, after a start, older tasks wait for the workers known before.",
)
@click.option(
    "--manager-grace",
    type=duration,
    metavar="TIME",
    help="How long workers carry on alone when the manager is gone.",
)
@click.option("--check-invariants", is_flag=True, help="Check everything at every step (slow).")
@version_option
def command(
    name: str,
    port: int | None,
    ports: tuple[int, int] | None,
    listen: str,
    advertise: tuple[str, ...],
    state_dir: str | None,
    password_file: str | None,
    no_password: bool,
    info_file: str | None,
    port_file: str | None,
    worker_grace: float | None,
    reattach_wait: float | None,
    manager_grace: float | None,
    check_invariants: bool,
) -> int:
    """Run the manager: it keeps the queue and gives tasks to workers.

    It stays in the foreground; SIGTERM or Ctrl-C ends it cleanly, and the next start goes on where
    it was. The first start makes the keys and the password file, which tools on this account find
    by themselves.
    """
    if sys.flags.optimize:
        raise UsageError("wq-manager relies on its assertions; run python without -O")
    if no_password and password_file:
        raise UsageError("--no-password and --password-file exclude each other")
    if port and ports and not ports[0] <= port <= ports[1]:
        raise UsageError(f"port {port} is not between {ports[0]} and {ports[1]}")
    folder = Path(state_dir) if state_dir else default_state_dir(name)
    return supervise(
        Options(
            name=name,
            state_dir=str(folder.absolute()),
            port=port,
            ports=ports,
            listen=listen,
            advertise=advertise,
            password_file=_absolute(password_file),
            has_password=not no_password,
            info_file=_absolute(info_file),
            port_file=_absolute(port_file),
            worker_grace_s=worker_grace,
            reattach_wait_s=reattach_wait,
            manager_grace_s=manager_grace,
            is_checking_invariants=check_invariants,
        )
    )


def _absolute(path: str | None) -> str | None:
    return str(Path(path).absolute()) if path else None


def main() -> None:
    """Run wq-manager."""
    run(command, "wq-manager")


if __name__ == "__main__":
    main()
