"""wq-worker: run tasks for a manager on this machine."""

import contextlib
from typing import NoReturn

import click

from wqueue.cli.options import (
    Place,
    ToolCommand,
    cores,
    duration,
    place_options,
    size,
    version_option,
    words,
)
from wqueue.cli.run import run
from wqueue.protocol.locate import DEFAULT_PORT
from wqueue.worker.machine import Wishes
from wqueue.worker.main import Options
from wqueue.worker.main import run as run_worker

EXAMPLES = """
wq-worker                          # for this account's manager
wq-worker HEADNODE 9123            # for the manager on that machine
wq-worker -M NAME --cores 4        # for this account's manager called NAME
"""


@click.command(cls=ToolCommand, examples=EXAMPLES)
@click.argument("host", required=False)
@click.argument("port", required=False, type=click.IntRange(1, 65535))
@place_options()
@click.option("--cores", "core_count", metavar="N", help="Cores to offer (default: measured).")
@click.option("--memory", metavar="SIZE", help="Memory to offer (default: measured).")
@click.option("--disk", metavar="SIZE", help="Disk to offer (default: measured).")
@click.option("--gpus", metavar="N", help="Accelerators to offer (default: measured).")
@click.option("--feature", "features", multiple=True, help="What tasks may ask for; repeatable.")
@click.option(
    "-t",
    "--timeout",
    "idle_timeout",
    default="900",
    metavar="TIME",
    help="Leave after so long without work; 0 means never.  [default: 900]",
)
@click.option(
    "--connect-timeout",
    default="900",
    metavar="TIME",
    help="Give up when no manager answers for so long at first.  [default: 900]",
)
@click.option("--wall-time", metavar="TIME", help="Leave after so long, whatever runs.")
@click.option(
    "--manager-grace",
    metavar="TIME",
    help="Carry on for so long without the manager (default: as it says, 15 minutes).",
)
@click.option("-s", "--workdir", metavar="DIR", help="Where to work (default: below TMPDIR).")
@click.option("--single-shot", is_flag=True, help="Leave when the manager is lost.")
@click.option("--parent-death", is_flag=True, help="Leave when the starting process ends.")
@version_option
def command(
    host: str | None,
    port: int | None,
    place: Place,
    core_count: str | None,
    memory: str | None,
    disk: str | None,
    gpus: str | None,
    features: tuple[str, ...],
    idle_timeout: str,
    connect_timeout: str,
    wall_time: str | None,
    manager_grace: str | None,
    workdir: str | None,
    single_shot: bool,
    parent_death: bool,
) -> int:
    """Run tasks for the manager at HOST PORT, or for this account's manager."""
    manager = place.manager
    if host is not None:
        if manager is not None:
            raise click.UsageError("give the manager either as HOST PORT or by --manager")
        manager = _address(host, port)
    core_amount = _amount(core_count)
    options = Options(
        manager=manager,
        info_file=place.info_file,
        state_dir=place.state_dir,
        name=place.name,
        password_file=place.password_file,
        wishes=Wishes(
            None if core_amount is None else round(cores(core_amount) * 1000),
            _mb(memory),
            _mb(disk),
            _count(gpus),
        ),
        features=[words(feature) for feature in features],
        workdir=workdir,
        idle_timeout_s=duration(idle_timeout),
        connect_timeout_s=duration(connect_timeout),
        wall_time_s=None if wall_time is None else duration(wall_time),
        manager_grace_s=None if manager_grace is None else duration(manager_grace),
        is_single_shot=single_shot,
        dies_with_parent=parent_death,
    )
    return run_worker(options, _say)


def main() -> NoReturn:
    """Be the tool wq-worker."""
    run(command, "wq-worker")


def _address(host: str, port: int | None) -> str:
    if port is None:
        return host
    bare = host.removeprefix("[").removesuffix("]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port or DEFAULT_PORT}"


def _amount(text: str | None) -> str | None:
    # "all" and 0 mean what is there, as for Work Queue's worker.
    return None if text is None or text in ("all", "0") else text


def _mb(text: str | None) -> int | None:
    amount = _amount(text)
    return None if amount is None else size(amount)


def _count(text: str | None) -> int | None:
    if text is None or text == "all":
        return None
    if not text.isdigit():
        raise click.BadParameter(f"{text!r} is not a number of gpus")
    return int(text)


def _say(level: str, text: str) -> None:
    prefix = "" if level == "info" else f"{level}: "
    # Nobody may be listening any more; tasks do not suffer for that.
    with contextlib.suppress(OSError):
        click.echo(f"wq-worker: {prefix}{text}")


if __name__ == "__main__":
    main()
