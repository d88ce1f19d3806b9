"""wq-wait: wait until jobs have ended, and leave with an exit code that says how."""

from contextlib import closing

import click

from wqueue.cli.connection import connect, job_numbers
from wqueue.cli.ending import Waiting, check_single, wait_for
from wqueue.cli.options import (
    Place,
    ToolCommand,
    duration,
    json_option,
    place_options,
    version_option,
)
from wqueue.cli.output import print_json
from wqueue.cli.run import run
from wqueue.cli.selection import parse_selector
from wqueue.protocol.errors import UsageError
from wqueue.protocol.messages import JobRange

EXAMPLES = """
wq-wait 7                     wait for job 7
wq-wait --progress last       the newest job, with a bar
wq-wait --timeout 2h 3-5      give up after two hours; the jobs go on
"""


@click.command("wq-wait", cls=ToolCommand, examples=EXAMPLES)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option(
    "--timeout", type=duration, metavar="TIME", help="Give up after this time: 90s, 10m, 2h."
)
@click.option("--progress", is_flag=True, help="Show on stderr how far it is.")
@click.option("--quiet", is_flag=True, help="Say nothing; the exit code tells.")
@click.option(
    "--pass-exit-code", is_flag=True, help="Exit with the single task's own code (128 + signal)."
)
@json_option
@place_options("--name")
@version_option
def command(
    jobs: tuple[str, ...],
    timeout: float | None,
    progress: bool,
    quiet: bool,
    pass_exit_code: bool,
    as_json: bool,
    place: Place,
) -> int:
    """Wait until all tasks of the jobs have ended.

    JOB is a number, a range (3-5), "last" or "all". Exit code: 0 all tasks succeeded, 1 some did
    not, 5 the time was over first. The jobs go on whatever happens to this program.
    """
    selectors = [parse_selector(text) for text in jobs]
    for selector in selectors:
        if not selector.is_whole_jobs:
            raise UsageError(f'"{selector.text}" names tasks; wq-wait waits for whole jobs')
    with closing(connect(place, "wq-wait", is_watched=not quiet)) as client:
        numbers = job_numbers(client, selectors)
        if pass_exit_code:
            check_single(
                [row.count for row in client.jobs([JobRange(number) for number in numbers])]
            )
        waiting = Waiting(timeout, progress, quiet, pass_exit_code)
        ending = wait_for(client, numbers, waiting, place)
    if as_json:
        print_json("wait", ending.fields())
    return ending.exit_code


def main() -> None:
    """Run wq-wait."""
    run(command, "wq-wait")


if __name__ == "__main__":
    main()
