"""Which program a command means, and what to tell a person when there is none.

posix_spawn would search the PATH of the spawner, in the folder of the spawner; a task means its
own PATH and its own sandbox. And the kernel's ENOENT does not say whether the command is missing
or the interpreter that its first line names. So the search is done here, and a failed exec is
explained after the fact.

A shell line without shell syntax is split here and run directly, as make does: it saves a shell
per task. Whatever could mean something else to sh than to us goes to sh.
"""

import errno
import os
import re
import time

from wqueue.protocol.names import show
from wqueue.worker.orders import NOT_EXECUTABLE, NOT_FOUND, SANDBOX_FAILED

SHELL = b"/bin/sh"

FOUND_AGAIN_S = 2.0
"""How long a search of PATH is believed: shells believe theirs for a whole session."""

FOUND_MAX = 512
"""Most searches remembered; at the bound all are forgotten."""

_SPECIAL = re.compile(rb"[^\w@%+:,./ \t'\"=^\x80-\xff-]", re.ASCII)
_WORD = re.compile(rb"(?:[^ \t'\"]|'[^']*'|\"[^\"]*\")+")
_PIECE = re.compile(rb"'([^']*)'|\"([^\"]*)\"|([^'\"]+)")
_QUOTED = re.compile(rb"'[^']*'|\"[^\"$`\\]*\"")

_SHELL_WORDS = frozenset(
    b". : [ alias bg bind break builtin caller case cd command compgen complete continue coproc"
    b" declare dirs disown do done elif else enable esac eval exec exit export fc fg fi for"
    b" function getopts hash help history if in jobs kill let local logout mapfile newgrp popd"
    b" printf pushd pwd read readarray readonly return select set shift shopt source suspend test"
    b" then time times trap type typeset ulimit umask unalias unset until wait while".split()
)
"""First words that mean something to a shell; true and false do too, but nothing different."""


class CannotStart(Exception):
    """The command cannot be run; `how` is a word of orders.py, the message one line."""

    def __init__(self, how: str, text: str) -> None:
        super().__init__(text)
        self.how = how


def split_line(line: bytes) -> list[bytes] | None:
    """Split a shell line into the words sh would make of it; None when it takes a shell to know."""
    if b"'" in line or b'"' in line:
        if _SPECIAL.search(_QUOTED.sub(b"", line)) or b"\0" in line:
            return None
        bare = _QUOTED.sub(b"", line)
        if b"'" in bare or b'"' in bare:
            return None
        words = [_unquote(word) for word in _WORD.findall(line)]
    else:
        if _SPECIAL.search(line):
            return None
        words = line.split()
    if not words or not words[0] or words[0] in _SHELL_WORDS or b"=" in words[0]:
        return None
    if words[0] == b"echo" and (b"\\" in line or any(w.startswith(b"-") for w in words[1:2])):
        return None
    return words


def _unquote(word: bytes) -> bytes:
    return b"".join(b"".join(piece) for piece in _PIECE.findall(word))


def argument_vector(command: list[bytes], is_shell: bool) -> list[bytes]:
    """Give the words to execute for a command or a shell line."""
    if not is_shell:
        return command
    line = command[0]
    return split_line(line) or [SHELL, b"-c", line]


class Search:
    """Finds programs in the PATH of a task, remembering what it found for a moment."""

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, bytes], tuple[bytes, float]] = {}

    def find(self, name: bytes, path: bytes) -> bytes:
        """Give the file to execute for `name`; the current folder is the task's sandbox.

        Raises CannotStart when nothing can be executed by that name.
        """
        if b"/" in name:
            return name
        now = time.monotonic()
        known = self._found.get((name, path))
        if known is not None and known[1] > now:
            return known[0]
        return self._search(name, path, now)

    def forget(self) -> None:
        """Search anew next time: a program that was found could not be executed."""
        self._found.clear()

    def _search(self, name: bytes, path: bytes, now: float) -> bytes:
        if not name:
            raise CannotStart(NOT_FOUND, "the command is empty")
        forbidden = b""
        is_fixed = True
        for folder in path.split(b":"):
            candidate = folder + b"/" + name if folder else b"./" + name
            is_fixed = is_fixed and folder.startswith(b"/")
            if not os.path.isfile(candidate):
                continue
            if os.access(candidate, os.X_OK):
                if is_fixed:
                    self._remember((name, path), (candidate, now + FOUND_AGAIN_S))
                return candidate
            forbidden = forbidden or candidate
        if forbidden:
            raise CannotStart(NOT_EXECUTABLE, _explain_forbidden(forbidden))
        hint = ""
        if os.path.lexists(name):
            hint = f"; the sandbox holds a file of that name, so maybe ./{show(name)} is meant"
        raise CannotStart(NOT_FOUND, f"command not found: {show(name)} is not in PATH{hint}")

    def _remember(self, key: tuple[bytes, bytes], value: tuple[bytes, float]) -> None:
        if len(self._found) >= FOUND_MAX:
            self._found.clear()
        self._found[key] = value


def explain(error: OSError, program: bytes) -> CannotStart:
    """Tell why the kernel would not execute `program` (relative to the current folder)."""
    number = error.errno
    if number == errno.ENOENT:
        return CannotStart(NOT_FOUND, _explain_absent(program))
    if number in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return CannotStart(NOT_FOUND, f"command not found: {show(program)}: {error.strerror}")
    if number in (errno.EACCES, errno.EPERM):
        return CannotStart(NOT_EXECUTABLE, _explain_forbidden(program))
    if number == errno.ENOEXEC:
        text = f"{show(program)} is not a program for this machine"
        return CannotStart(NOT_EXECUTABLE, text)
    if number == errno.E2BIG:
        text = "the arguments and the environment are too long for this machine together"
        return CannotStart(NOT_EXECUTABLE, text)
    text = f"{show(program)} could not be started: {os.strerror(number or 0)}"
    return CannotStart(SANDBOX_FAILED, text)


def is_script(program: bytes) -> bool:
    """Tell whether a file that the kernel does not know (ENOEXEC) is text, for sh to run."""
    return b"\0" not in _beginning(program)


def _beginning(program: bytes) -> bytes:
    # Only of a regular file: opening a FIFO would wait for somebody to write to it.
    try:
        if not os.path.isfile(program):
            return b""
        with open(program, "rb", buffering=0) as file:
            return file.read(256)
    except OSError:
        return b""


def _interpreter(program: bytes) -> bytes:
    first = _beginning(program).partition(b"\n")[0]
    words = first[2:].split(b" ") if first.startswith(b"#!") else []
    return next((word for word in words if word), b"")


def _explain_absent(program: bytes) -> str:
    if not os.path.exists(program):
        hint = ""
        if os.path.lexists(program):
            hint = " (it is a link that leads nowhere)"
        return f"command not found: {show(program)} does not exist{hint}"
    interpreter = _interpreter(program)
    if not interpreter:
        return f"{show(program)} exists, but the loader it was linked for does not"
    hint = ""
    if interpreter.endswith(b"\r"):
        hint = "; the file has Windows line ends"
    return f"{show(program)} exists, but its interpreter {show(interpreter)} does not{hint}"


def _explain_forbidden(program: bytes) -> str:
    name = show(program)
    if os.path.isdir(program):
        return f"{name} is a folder, not a program"
    if not os.path.exists(program):
        return f"{name} cannot be reached: permission denied on a folder above it"
    if not os.path.isfile(program):
        return f"{name} is not a regular file"
    if not os.access(program, os.X_OK):
        return f"{name} is not executable; chmod +x it before it is submitted"
    interpreter = _interpreter(program)
    if interpreter and not os.access(interpreter, os.X_OK):
        return f"{name} needs {show(interpreter)}, which is not executable"
    return f"{name} may not be executed: permission denied"
