"""From a Task to a JobSpec: which files it needs, where its outputs go, and what is wrong with it.

Pure: paths are only joined and compared. The facts of files (digest, size, identity) are handed in
when they are known. In an array, names are templates; they are checked as each task will see them.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from wqueue.naming import absolute, check_sandbox, default_remote, is_varied
from wqueue.protocol.errors import UsageError
from wqueue.protocol.messages import (
    FileIdentity,
    FileRef,
    InputSpec,
    JobSpec,
    OutputSpec,
    TaskTemplate,
)
from wqueue.protocol.names import normalized, show, why_unsafe
from wqueue.protocol.template import expand
from wqueue.task_array import Array
from wqueue.tasks import InputBuffer, InputFile, OutputFile, Task


class Source(NamedTuple):
    """What an input is made of: the file at an absolute path, or with b"" the bytes `content`."""

    path: bytes
    content: bytes = b""


class Plan:
    """A task or array on its way to the manager.

    `sources` are the different files it needs, in the order of the job's `files`. `folder` is the
    one below which all its destinations lie, empty when there are none.
    """

    __slots__ = ("array", "columns", "folder", "inputs", "outputs", "sources", "task")

    def __init__(self, task: Task, array: Array | None, working_folder: bytes) -> None:
        self.task = task
        self.array = array
        self.sources: dict[Source, int] = {}
        self.columns: list[list[int]] = []
        self.inputs: list[InputSpec] = []
        self.outputs: list[OutputSpec] = []
        self.folder = b""
        if task.inputs or task.outputs:
            for entry in task.input_list():
                self._add_input(entry, working_folder)
            self.outputs = [_output(entry, array, working_folder) for entry in task.output_list()]
            self._check()

    def spec(
        self,
        files: list[FileRef],
        directory: FileIdentity | None = None,
        *,
        keeps_outputs: bool = False,
    ) -> JobSpec:
        """Make the description, with the facts of `sources` in their order.

        `directory` is the identity of `folder`. With `keeps_outputs` the manager keeps all outputs
        until they are fetched.
        """
        assert len(files) == len(self.sources), f"{len(files)} facts of {len(self.sources)} files"
        task, array = self.task, self.array or _ONE
        return JobSpec(
            self._template(keeps_outputs),
            array.count,
            array.start,
            array.step,
            array.items,
            files,
            self.columns,
            task.name,
            task.tag,
            task.category,
            float(task.priority),
            -1 if task.max_retries is None else task.max_retries,
            list(task.features),
            None if keeps_outputs else directory,
        )

    def _template(self, keeps_outputs: bool) -> TaskTemplate:
        task = self.task
        command = task.command
        words = [command] if isinstance(command, str | bytes) else command
        return TaskTemplate(
            [os.fsencode(word) for word in words],
            words is not command,
            self.array is not None,
            [(os.fsencode(name), os.fsencode(value)) for name, value in task.env.items()],
            task.resources(),
            self.inputs,
            [OutputSpec(output.remote) for output in self.outputs]
            if keeps_outputs
            else self.outputs,
        )

    def destinations(self, index: int) -> list[bytes]:
        """Name the local file that each output of a task goes to; b"" for nowhere."""
        value = b"" if self.array is None else self.array.value(index)
        return [self._expand(output.destination, index, value) for output in self.outputs]

    # --- building -----------------------------------------------------------------------------

    def _add_input(self, entry: InputFile | InputBuffer, working_folder: bytes) -> None:
        if isinstance(entry, InputBuffer):
            source = Source(b"", bytes(entry.content))
            self.inputs.append(InputSpec(os.fsencode(entry.remote), self._position(source)))
            return
        local = os.fsencode(entry.local)
        if not local or b"\0" in local:
            raise UsageError(f"an input file cannot be called {os.fsdecode(local)!r}")
        remote = os.fsencode(entry.remote or default_remote(local, self.array))
        path = absolute(local, working_folder, self.array)
        self.inputs.append(InputSpec(remote, self._files_of(path)))

    def _files_of(self, path: bytes) -> int:
        # A column where each task has its own file, else one position for all.
        array = self.array
        if array is None or not is_varied(path, array):
            return self._position(Source(path))
        values = enumerate(array.values())
        column = [self._position(Source(expand(path, value, i))) for i, value in values]
        if column not in self.columns:
            self.columns.append(column)
        return -1 - self.columns.index(column)

    def _position(self, source: Source) -> int:
        return self.sources.setdefault(source, len(self.sources))

    # --- checking -----------------------------------------------------------------------------

    def _check(self) -> None:
        self._drop_repeated_inputs()
        for index, value in self._tasks():
            self._check_names(index, value)
        if any(output.destination for output in self.outputs):
            self._check_destinations()

    def _drop_repeated_inputs(self) -> None:
        self.inputs = list(dict.fromkeys(self.inputs))

    def _tasks(self) -> Iterator[tuple[int, bytes]]:
        names = [entry.remote for entry in self.inputs]
        names += [entry.remote for entry in self.outputs]
        if self.array is None or not any(is_varied(name, self.array) for name in names):
            return iter([(0, b"")])
        return iter(self.array.checked())

    def _check_names(self, index: int, value: bytes) -> None:
        inputs = [self._safe("input", entry.remote, index, value) for entry in self.inputs]
        outputs = [self._safe("output", entry.remote, index, value) for entry in self.outputs]
        if len(inputs) + len(outputs) > 1:
            check_sandbox(inputs, outputs)

    def _safe(self, what: str, template: bytes, index: int, value: bytes) -> bytes:
        name = self._expand(template, index, value)
        reason = why_unsafe(name)
        if reason:
            of_task = f" of task {index}" if self.array is not None else ""
            raise UsageError(
                f"the {what}{of_task} cannot be called {show(name)!r} in the sandbox: {reason}; "
                "say LOCAL=NAME"
            )
        return normalized(name) if b"/" in name else name

    def _expand(self, template: bytes, index: int, value: bytes) -> bytes:
        return template if self.array is None else expand(template, value, index)

    def _check_destinations(self) -> None:
        destinations = [output.destination for output in self.outputs if output.destination]
        if self.array is not None and self.array.count > 1:
            for destination in destinations:
                if not is_varied(destination, self.array):
                    raise UsageError(
                        f"every task of the array would write {show(destination)}; "
                        "put a placeholder such as {#} into the name"
                    )
        tasks = [(0, b"")] if self.array is None else self.array.checked()
        seen: set[bytes] = set()
        for index, value in tasks:
            for destination in destinations:
                path = _normal(self._expand(destination, index, value))
                if path in seen:
                    raise UsageError(f"two outputs would be written to {show(path)}")
                seen.add(path)
        self.folder = os.path.commonpath({path.rpartition(b"/")[0] or b"/" for path in seen})


def _output(entry: OutputFile, array: Array | None, working_folder: bytes) -> OutputSpec:
    if entry.local is None:
        if entry.remote is None:
            raise UsageError("an output needs a name in the sandbox or a local one")
        return OutputSpec(os.fsencode(entry.remote))
    local = os.fsencode(entry.local)
    if not local or b"\0" in local:
        raise UsageError(f"an output file cannot be called {os.fsdecode(local)!r}")
    if local.endswith(b"/"):
        raise UsageError(f"the output {show(local)} is a folder; name the file in it")
    remote = default_remote(local, array) if entry.remote is None else os.fsencode(entry.remote)
    return OutputSpec(remote, absolute(local, working_folder, array))


def _normal(path: bytes) -> bytes:
    # A million destinations are checked in seconds only if the plain ones cost little.
    return os.path.normpath(path) if b"/." in path or b"//" in path else path


_ONE = Array(1)
