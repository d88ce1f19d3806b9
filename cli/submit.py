"""wq-submit: submit one task, or many that differ in one value."""

from contextlib import closing
from typing import TYPE_CHECKING

import click

from wqueue.cli.amounts import show_cores
from wqueue.cli.connection import connect
from wqueue.cli.ending import Waiting, check_single, wait_for
from wqueue.cli.failure import count_of_tasks
from wqueue.cli.options import Place, ToolCommand, json_option, place_options, version_option
from wqueue.cli.output import print_json, print_lines, tell
from wqueue.cli.run import run
from wqueue.cli.task_options import Described, task_from, task_options
from wqueue.cli.values import STDIN, Values, read_values, with_value
from wqueue.protocol.errors import UsageError
from wqueue.tasks import Task

if TYPE_CHECKING:
    from wqueue.client import Client
    from wqueue.job import Job

EXAMPLES = """
wq-submit --input data --output sorted -- 'sort data > sorted'
wq-submit --array 1-100 --cores 0.5 --wait -- ./simulate --seed {}
wq-submit --each-line samples.txt --input '{}={/}' --output '{/}.gz' \\
    --progress -- 'gzip -c {/} > {/}.gz'
find . -name '*.csv' -print0 |
    wq-submit --each-line - --null --input {} -- wc -l {}
"""


@click.command(
    "wq-submit",
    cls=ToolCommand,
    examples=EXAMPLES,
    context_settings={"allow_interspersed_args": False},
)
@click.argument(
    "command_words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND..."
)
@click.option(
    "--each-line",
    metavar="FILE",
    help='A task for each line of FILE ("-": stdin); empty lines are left out.',
)
@click.option("-0", "--null", is_flag=True, help="The lines of --each-line end with NUL bytes.")
@click.option(
    "--array", metavar="RANGE", help="A task for each number: 0-99, 1-10:3, or N for 0 to N-1."
)
@task_options
@click.option("--wait", is_flag=True, help="Wait until all tasks have ended.")
@click.option("--progress", is_flag=True, help="Wait, and show on stderr how far it is.")
@click.option(
    "--pass-exit-code", is_flag=True, help="Wait, and exit with the task's own code (128 + signal)."
)
@click.option("--quiet", is_flag=True, help="Say nothing on stderr but errors.")
@json_option
@place_options()
@version_option
def command(
    command_words: tuple[str, ...],
    each_line: str | None,
    null: bool,
    array: str | None,
    described: Described,
    wait: bool,
    progress: bool,
    pass_exit_code: bool,
    quiet: bool,
    as_json: bool,
    place: Place,
) -> int:
    """Submit COMMAND as one task, or as many tasks that differ in one value.

    One word after -- is a shell line; several words are run as they are, without a shell. In the
    tasks of --each-line and --array, {} stands for the value, {/} for it without folders, {.}
    without suffix, {/.} without both, {//} for its folder, {#} for the task's index from 0; in a
    shell line they are quoted. They may stand in COMMAND, --input, --output and --env. Where there
    is none, --each-line adds the value to the end of COMMAND.

    A task runs in a folder of its own that holds its inputs, and asks for one core unless told
    otherwise. stdout is the job's number and nothing else. With --wait the exit code is 0 if all
    tasks succeeded, else 1.
    """
    if each_line == STDIN == described.input_list:
        raise UsageError("--each-line and --input-list cannot both read stdin")
    values = read_values(each_line, array, is_null=null)
    if each_line is not None:
        command_words = tuple(with_value(command_words, described.templates()))
    task = task_from(command_words, described)
    is_awaited = wait or progress or pass_exit_code
    if pass_exit_code:
        check_single([_count(values)])
    with closing(connect(place, "wq-submit", is_watched=is_awaited and not quiet)) as client:
        job = submit(client, task, values, is_watched=is_awaited)
        if not as_json:
            print_lines([str(job.id)])
        if not quiet:
            tell(_sentence(job.id, _count(values), task, place))
        ending = None
        if is_awaited:
            waiting = Waiting(None, progress, quiet, pass_exit_code)
            ending = wait_for(client, [job.id], waiting, place)
    if as_json:
        fields = {"job": job.id, "tasks": _count(values)}
        print_json("submit", fields | (ending.fields() if ending else {}))
    return ending.exit_code if ending else 0


def submit(client: "Client", task: Task, values: Values | None, *, is_watched: bool) -> "Job":
    """Hand the work to the manager."""
    if values is None:
        return client.submit(task, watch=is_watched)
    return client.submit_array(task, **values.arguments(), watch=is_watched)


def _count(values: Values | None) -> int:
    if values is None:
        return 1
    return values.length if values.items is None else len(values.items)


def _sentence(job: int, count: int, task: Task, place: Place) -> str:
    each = " each" if count > 1 else ""
    needs = f"{show_cores(task.cores)} core{'' if task.cores == 1 else 's'}{each}"
    return (
        f"submitted job {job}: {count_of_tasks(count)} ({needs}); "
        f"watch: {place.command('wq-status', job)}, wait: {place.command('wq-wait', job)}"
    )


def main() -> None:
    """Run wq-submit."""
    run(command, "wq-submit")


if __name__ == "__main__":
    main()
