"""wq-cancel: cancel jobs or tasks that have not ended."""

from contextlib import closing

import click

from wqueue.cli.connection import check_tasks, connect, ranges_of
from wqueue.cli.failure import count_of_tasks
from wqueue.cli.options import Place, ToolCommand, json_option, place_options, version_option
from wqueue.cli.output import print_json, tell
from wqueue.cli.run import run
from wqueue.cli.selection import parse_selector

EXAMPLES = """
wq-cancel 7               all of job 7 that has not ended
wq-cancel 7.3 7.10-19     some of its tasks
wq-cancel last            the newest job
"""


@click.command("wq-cancel", cls=ToolCommand, examples=EXAMPLES)
@click.argument("selectors", nargs=-1, required=True, metavar="SELECTOR...")
@click.option("--quiet", is_flag=True, help="Say nothing.")
@json_option
@place_options("--name")
@version_option
def command(selectors: tuple[str, ...], quiet: bool, as_json: bool, place: Place) -> int:
    """Cancel whatever of the selected jobs and tasks has not ended.

    SELECTOR is a job (7), jobs (3-5), a task (7.3), tasks (7.0-99), "last" or "all". What runs is
    killed; what has ended stays as it is. Exit code: 0, also when there was nothing left to cancel.
    """
    chosen = [parse_selector(text) for text in selectors]
    with closing(connect(place, "wq-cancel")) as client:
        ranges = ranges_of(client, chosen, active_only=True)
        check_tasks(client, ranges)
        canceled = client.cancel(ranges) if ranges else 0
    if as_json:
        print_json("cancel", {"canceled": canceled})
    if not quiet:
        done = f"canceled {count_of_tasks(canceled)}"
        tell(done if canceled else "nothing to cancel: all of it had ended")
    return 0


def main() -> None:
    """Run wq-cancel."""
    run(command, "wq-cancel")


if __name__ == "__main__":
    main()
