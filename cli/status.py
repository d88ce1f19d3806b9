"""wq-status: the queue, its jobs, tasks and workers; one job; one task."""

from contextlib import closing

import click

from wqueue.cli.connection import connect, job_numbers, ranges_of
from wqueue.cli.detail import job_view, task_view
from wqueue.cli.listing import Wanted, listing
from wqueue.cli.options import Place, ToolCommand, json_option, place_options, version_option
from wqueue.cli.output import print_json, print_lines, tell
from wqueue.cli.run import run
from wqueue.cli.selection import parse_selector

ROWS_MAX = 1000
"""Rows of a table of tasks, unless --limit says otherwise: nobody reads a million lines."""

EXAMPLES = """
wq-status              the queue and its active jobs
wq-status 7            one job, with its first failures
wq-status 7.3          one task: why it waits, how it ended, what it printed
wq-status -T 7.0-99    a table of tasks
wq-status -W --json    the workers, for programs
"""


@click.command("wq-status", cls=ToolCommand, examples=EXAMPLES)
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("-Q", "--queue", is_flag=True, help="The queue in one line.")
@click.option("-J", "--jobs", is_flag=True, help="A table of jobs.")
@click.option("-T", "--tasks", is_flag=True, help="A table of tasks, a line each.")
@click.option("-W", "--workers", is_flag=True, help="A table of workers.")
@click.option(
    "--all", "everything", is_flag=True, help="All jobs and tasks, not only the active ones."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"At most N tasks (a table: {ROWS_MAX} unless said otherwise; JSON: all).",
)
@json_option
@place_options("--name")
@version_option
def command(
    selectors: tuple[str, ...],
    queue: bool,
    jobs: bool,
    tasks: bool,
    workers: bool,
    everything: bool,
    limit: int | None,
    as_json: bool,
    place: Place,
) -> None:
    """Show the queue and its active jobs, or what is asked for.

    SELECTOR is a job (7), jobs (3-5), a task (7.3), tasks (7.0-99), "last" or "all". Without
    selectors, -J lists jobs that have not ended and -T the tasks that workers have; with them, or
    with --all, also what waits and what has ended.
    """
    chosen = [parse_selector(text) for text in selectors]
    is_plain = not (queue or jobs or tasks or workers)
    only = chosen[0] if is_plain and len(chosen) == 1 else None
    with closing(connect(place, "wq-status")) as client:
        if only is not None and only.is_one_job:
            view = job_view(client, job_numbers(client, chosen)[0], place)
        elif only is not None and only.is_one_task:
            view = task_view(client, ranges_of(client, chosen)[0], place)
        else:
            if is_plain:
                queue = not chosen
                tasks = any(not selector.is_whole_jobs for selector in chosen)
                jobs = not tasks
            row_limit = limit if as_json else limit or ROWS_MAX
            wanted = Wanted(queue, jobs, tasks, workers, everything, row_limit)
            view = listing(client, wanted, chosen)
    if as_json:
        print_json("status", view.values)
    else:
        print_lines(view.lines)
        tell(*view.notes)


def main() -> None:
    """Run wq-status."""
    run(command, "wq-status")


if __name__ == "__main__":
    main()
