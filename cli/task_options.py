"""The options of wq-submit that describe the task, and the Task they make."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from wqueue.cli.options import Tool, cores, size, words
from wqueue.cli.values import environment, file_lines
from wqueue.tasks import InputFile, Task, parse_input, parse_output

TASK_OPTIONS = (
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="LOCAL[=REMOTE]",
        help="A file the task reads, and its name in the sandbox.  [repeat]",
    ),
    click.option(
        "--input-list",
        metavar="FILE",
        help='More inputs, one LOCAL[=REMOTE] a line ("-": stdin).',
    ),
    click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="LOCAL[=REMOTE]",
        help="A file the task makes: where it goes, and its name in the sandbox.  [repeat]",
    ),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="A variable for the task; without =VALUE as it is here.  [repeat]",
    ),
    click.option(
        "--cores", type=cores, default="1", metavar="N", show_default=True, help="Cores of a task."
    ),
    click.option(
        "--memory", type=size, default="0", metavar="SIZE", help="Memory of a task: 500M, 4G."
    ),
    click.option(
        "--disk", type=size, default="0", metavar="SIZE", help="Disk space of a task: 500M, 4G."
    ),
    click.option(
        "--gpus", type=click.IntRange(min=0), default=0, metavar="N", help="GPUs of a task."
    ),
    click.option("--name", type=words, default="", metavar="TEXT", help="A name for the job."),
    click.option("--tag", type=words, default="", metavar="TEXT", help="A tag for the job."),
    click.option(
        "--category",
        type=words,
        default="default",
        metavar="TEXT",
        help="What kind of task it is: those of a kind need much the same.",
    ),
    click.option("--priority", type=float, default=0.0, metavar="N", help="Higher ones go first."),
    click.option(
        "--max-retries",
        type=click.IntRange(min=0),
        metavar="N",
        help="Run a failed task up to N times more.  [default: none; for lost workers 5]",
    ),
)


class Described(NamedTuple):
    """What the options say of the task."""

    inputs: Sequence[str] = ()
    input_list: str | None = None
    outputs: Sequence[str] = ()
    env: Sequence[str] = ()
    cores: float = 1
    memory: int = 0
    disk: int = 0
    gpus: int = 0
    name: str = ""
    tag: str = ""
    category: str = "default"
    priority: float = 0.0
    max_retries: int | None = None

    def templates(self) -> list[str]:
        """Name all but the command where a placeholder may stand."""
        return [*self.inputs, *self.outputs, *self.env]


def task_options(tool: Tool) -> Tool:
    """Give a tool the options that describe a task, as one argument `described`."""

    def gathered(*arguments: Any, **given: Any) -> Any:
        described = Described(**{name: given.pop(name) for name in Described._fields})
        return tool(*arguments, described=described, **given)

    result: Tool = gathered
    result.__doc__ = tool.__doc__
    # What decorators below this one have declared already stays declared.
    result.__dict__.update(tool.__dict__)
    for option in reversed(TASK_OPTIONS):
        result = option(result)
    return result


def task_from(command: Sequence[str], described: Described) -> Task:
    """Make the task: one word is a shell line, several are an argument vector."""
    return Task(
        command=command[0] if len(command) == 1 else list(command),
        inputs=_inputs(described),
        outputs=[parse_output(text) for text in described.outputs],
        env=environment(described.env),
        cores=described.cores,
        memory_mb=described.memory,
        disk_mb=described.disk,
        gpus=described.gpus,
        name=described.name,
        tag=described.tag,
        category=described.category,
        priority=described.priority,
        max_retries=described.max_retries,
    )


def _inputs(described: Described) -> list[InputFile]:
    inputs = [parse_input(text) for text in described.inputs]
    if described.input_list is not None:
        lines = file_lines(described.input_list, "--input-list")
        inputs += [parse_input(line) for line in lines]
    return inputs
