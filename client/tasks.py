"""What a user builds: a task with its files and needs.

Nothing here touches a socket or a disk. A Task is checked when it is made, as far as it can be
without looking at files; `wqueue.spec` makes the job's description from it.

Files may be written short: the str "LOCAL" or "LOCAL=REMOTE" (split at the last "="), or as an
InputFile, InputBuffer or OutputFile. A path object is always one local name, "=" or not. Without
REMOTE the name in the sandbox is the relative path as given, of an absolute path its last part.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Union

from msgspec import Struct

from wqueue.protocol.errors import UsageError
from wqueue.protocol.resources import MILLI, Resources

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Text = str | bytes


class InputFile(Struct, frozen=True):
    """A local file that a task reads; `remote` is its name in the sandbox."""

    local: Path
    remote: Path | None = None


class InputBuffer(Struct, frozen=True):
    """Bytes of this program that a task finds as the file `remote` in its sandbox."""

    content: bytes
    remote: Path


class OutputFile(Struct, frozen=True):
    """A file that a task makes; without `local` the manager keeps it until it is fetched."""

    remote: Path
    local: Path | None = None


Input = Path | InputFile | InputBuffer
Output = Path | OutputFile


class Task(Struct, frozen=True):
    """One command with its files, its environment and what it needs.

    A `command` that is a str is a shell line; a sequence is an argument vector, run as it is.
    `inputs` and `outputs` are lists, or mappings: {local: remote} for inputs, {remote: local} for
    outputs. `cores` may be a fraction. `max_retries` None means the default rule: the task's own
    failure is final, a lost worker costs up to five further attempts. Placeholders ({} and its
    relatives) have a meaning only in an array.
    """

    command: Text | Sequence[Path]
    inputs: Iterable[Input] | Mapping[Path, Path] = ()
    outputs: Iterable[Output] | Mapping[Path, Path | None] = ()
    env: Mapping[str, Text] = {}
    cores: float = 1
    memory_mb: int = 0
    disk_mb: int = 0
    gpus: int = 0
    name: str = ""
    tag: str = ""
    category: str = "default"
    priority: float = 0.0
    max_retries: int | None = None
    features: Sequence[str] = ()
    named: Mapping[str, int] = {}

    def resources(self) -> Resources:
        """Give the needs as the wire has them, cores in thousandths."""
        raise NotImplementedError


def parse_input(text: Text) -> InputFile:
    """Read "LOCAL" or "LOCAL=REMOTE", as `wq-submit --input` takes it."""
    raise NotImplementedError


def parse_output(text: Text) -> OutputFile:
    """Read "LOCAL" or "LOCAL=REMOTE", as `wq-submit --output` takes it."""
    raise NotImplementedError
