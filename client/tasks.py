"""What a user builds: a task with its files and needs.

Nothing here touches a socket or a disk. A Task is checked when it is made, as far as it can be
without looking at files; `wqueue.spec` makes the job's description from it.

Files may be written short: the str "LOCAL" or "LOCAL=REMOTE" (split at the last "="), or as an
InputFile, InputBuffer or OutputFile. A path object is always one local name, "=" or not. Without
REMOTE the name in the sandbox is the relative path as given, of an absolute path its last part.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Union

from msgspec import Struct

from wqueue.protocol.errors import UsageError
from wqueue.protocol.resources import MILLI, Resources

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Text = str | bytes

WORD_MAX = 256
"""Longest name, tag, category or feature, in characters: what the wire takes."""

AMOUNT_MAX = 2**53
"""Largest amount of any resource: what the wire takes."""

STRING_MAX_BYTES = 128 * 1024
"""Longest argument or environment entry: what Linux takes in one string of an exec."""


class InputFile(Struct, frozen=True):
    """A local file that a task reads; `remote` is its name in the sandbox."""

    local: Path
    remote: Path | None = None


class InputBuffer(Struct, frozen=True):
    """Bytes of this program that a task finds as the file `remote` in its sandbox."""

    content: bytes
    remote: Path

    def __post_init__(self) -> None:
        """Refuse what is not bytes, with UsageError: bytes(5) would be five of them."""
        content: object = self.content
        if not isinstance(content, bytes | bytearray | memoryview):
            kind = type(content).__name__
            raise UsageError(f"the content of an InputBuffer is a {kind}; it must be bytes")


class OutputFile(Struct, frozen=True):
    """A file that a task makes; without `local` the manager keeps it until it is fetched.

    `remote` None means the name that `local` gives it.
    """

    remote: Path | None
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
    inputs: Sequence[Input] | Mapping[Path, Path | None] = ()
    outputs: Sequence[Output] | Mapping[Path, Path | None] = ()
    env: Mapping[str, Text] = {}
    cores: float = 1
    memory_mb: float = 0
    disk_mb: float = 0
    gpus: int = 0
    name: str = ""
    tag: str = ""
    category: str = "default"
    priority: float = 0.0
    max_retries: int | None = None
    features: Sequence[str] = ()
    named: Mapping[str, int] = {}

    def __post_init__(self) -> None:
        """Refuse what makes no sense, with UsageError."""
        _check_command(self.command)
        if not self._is_plain():
            for name in self.named:
                _check_label("the name of a resource", name)
            self.resources()
        if self.inputs:
            _check_list("inputs", self.inputs)
        if self.outputs:
            _check_list("outputs", self.outputs)
        if self.env:
            _check_env(self.env)
        if not (self.name == self.tag == "" and self.category == "default"):
            _check_words(name=self.name, tag=self.tag, category=self.category)
        if self.features:
            _check_features(self.features)
        # What a caller's annotations promise need not be so.
        priority: object = self.priority
        if not isinstance(priority, int | float) or not math.isfinite(priority):
            raise UsageError(f"the priority is {priority!r}; it must be a finite number")
        retries: object = self.max_retries
        if retries is not None and not (isinstance(retries, int) and 0 <= retries < 2**31):
            raise UsageError(f"max_retries is {retries!r}; it must be 0 or more")

    def resources(self) -> Resources:
        """Give the needs as the wire has them: cores in thousandths, the rest rounded up."""
        if self._is_plain():
            return _ONE_CORE
        return Resources(
            _whole("cores", self.cores, MILLI),
            _whole("memory_mb", self.memory_mb),
            _whole("disk_mb", self.disk_mb),
            _whole("gpus", self.gpus),
            {name: _whole(name, amount) for name, amount in self.named.items()},
        )

    def _is_plain(self) -> bool:
        return self.cores == 1 and not (self.memory_mb or self.disk_mb or self.gpus or self.named)

    def input_list(self) -> list[InputFile | InputBuffer]:
        """Give the inputs in their long form."""
        if isinstance(self.inputs, Mapping):
            return [InputFile(local, remote) for local, remote in self.inputs.items()]
        return [_input(entry) for entry in self.inputs]

    def output_list(self) -> list[OutputFile]:
        """Give the outputs in their long form."""
        if isinstance(self.outputs, Mapping):
            return [OutputFile(remote, local) for remote, local in self.outputs.items()]
        return [_output(entry) for entry in self.outputs]


_ONE_CORE = Resources()

# Unions are made anew each time they are written down, and a Task is checked ten thousand times.
_TEXT = (str, bytes)


_FILE = (str, bytes, os.PathLike, InputFile, InputBuffer, OutputFile)


def parse_input(text: Text) -> InputFile:
    """Read "LOCAL" or "LOCAL=REMOTE", as `wq-submit --input` takes it."""
    local, remote = _split(text, "input")
    return InputFile(local, remote)


def parse_output(text: Text) -> OutputFile:
    """Read "LOCAL" or "LOCAL=REMOTE", as `wq-submit --output` takes it."""
    local, remote = _split(text, "output")
    return OutputFile(remote, local)


def _split(text: Text, what: str) -> tuple[bytes, bytes | None]:
    name = os.fsencode(text)
    local, equals, remote = name.rpartition(b"=")
    if not equals:
        local = name
    if not local or (equals and not remote):
        raise UsageError(f"the {what} {os.fsdecode(name)!r} is not LOCAL or LOCAL=REMOTE")
    return local, remote if equals else None


def _input(entry: Input) -> InputFile | InputBuffer:
    if isinstance(entry, InputFile | InputBuffer):
        return entry
    return parse_input(entry) if isinstance(entry, str | bytes) else InputFile(entry)


def _output(entry: Output) -> OutputFile:
    if isinstance(entry, OutputFile):
        return entry
    return parse_output(entry) if isinstance(entry, str | bytes) else OutputFile(None, entry)


def _check_command(command: Text | Sequence[Path]) -> None:
    if isinstance(command, _TEXT):
        _check_word("the command", command)
        if not command.strip():
            raise UsageError("the command is empty")
        return
    if not isinstance(command, Sequence):
        raise UsageError(f"the command is a {type(command).__name__}, not a str or a list")
    if not command or not command[0]:
        raise UsageError("the command is empty")
    for word in command:
        _check_word("a word of the command", word)


def _check_word(what: str, word: object) -> None:
    if not isinstance(word, _TEXT):
        if not isinstance(word, os.PathLike):
            raise UsageError(f"{what} is {word!r}; write it as a str")
        word = os.fsencode(word)
    if "\0" in word if isinstance(word, str) else b"\0" in word:
        raise UsageError(f"{what} holds a NUL character")
    # Most words are far too short to be counted in bytes.
    if len(word) >= STRING_MAX_BYTES // 4 and len(os.fsencode(word)) >= STRING_MAX_BYTES:
        raise UsageError(f"{what} has {len(os.fsencode(word))} bytes; put it into a script file")


def _check_list(what: str, files: object) -> None:
    # A lone "a.txt" would be taken as the five files "a", ".", "t", "x", "t".
    if isinstance(files, str | bytes) or not isinstance(files, Sequence | Mapping):
        raise UsageError(f"{what} is a {type(files).__name__}; write {what}=[...]")
    for entry in files:
        if not isinstance(entry, _FILE):
            raise UsageError(f"one of the {what} is {entry!r}; write the name of a file")


def _check_env(env: object) -> None:
    if not isinstance(env, Mapping):
        raise UsageError(f"env is a {type(env).__name__}; write env={{name: value}}")
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise UsageError(f"an environment variable cannot be called {name!r}")
        if not isinstance(value, _TEXT):
            raise UsageError(f"the environment variable {name} is {value!r}; write it as a str")
        text = os.fsencode(value)
        if b"\0" in text:
            raise UsageError(f"the value of the environment variable {name} holds a NUL character")
        if len(name) + len(text) >= STRING_MAX_BYTES:
            raise UsageError(
                f"the environment variable {name} has {len(text)} bytes; put them into a file"
            )


def _check_words(**words: str) -> None:
    for what, word in words.items():
        if not _is_text(word):
            raise UsageError(f"the {what} is {word!r}; it must be a str of valid Unicode")
        if len(word) > WORD_MAX:
            raise UsageError(f"the {what} has {len(word)} characters; {WORD_MAX} are allowed")


def _check_features(features: Sequence[str]) -> None:
    if isinstance(features, str):
        raise UsageError("features is a str; write features=[...]")
    for feature in features:
        _check_label("a feature", feature)


def _check_label(what: str, word: str) -> None:
    if not _is_text(word):
        raise UsageError(f"{what} is {word!r}; it must be a str of valid Unicode")
    if not 0 < len(word) <= WORD_MAX:
        raise UsageError(f"{what} has 1 to {WORD_MAX} characters, not {word[:20]!r}")


def _is_text(word: object) -> bool:
    # Lone surrogates, as names of files that are no UTF-8 have them, cannot be sent as text.
    if not isinstance(word, str):
        return False
    return word.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in word)


def _whole(what: str, amount: float, scale: int = 1) -> int:
    if not isinstance(amount, int | float):
        raise UsageError(f"{what} is {amount!r}; it must be a number")
    if not 0 <= amount * scale <= AMOUNT_MAX:
        raise UsageError(f"{what} is {amount}; it must be 0 or more")
    return math.ceil(amount * scale - 1e-9)
