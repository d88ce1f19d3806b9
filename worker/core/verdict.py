"""How an attempt is judged by what became of its process and its outputs, one clear line each."""

from wqueue.protocol.limits import OUTPUTS_MAX
from wqueue.protocol.messages import STDERR, STDOUT, AttemptResult, OutputResult
from wqueue.protocol.names import show
from wqueue.protocol.outcomes import (
    EXIT_NONZERO,
    OUTPUT_FAILED,
    OUTPUT_MISSING,
    OUTPUT_UNSAFE,
    SIGNAL,
    SUCCEEDED,
)
from wqueue.worker.core.events import Ended, OutputFound

RESULT_OUTPUTS_MAX = OUTPUTS_MAX + 2
"""Outputs that one result can tell of: the declared ones and what was printed."""

SIGNAL_NAMES = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}
"""Linux's names of the signals that end processes."""


def judge(ended: Ended, names: list[bytes]) -> tuple[str, str]:
    """Give outcome and text of an attempt whose declared outputs have `names`.

    What the outputs lack matters only when the command itself has succeeded.
    """
    if ended.how == "signaled":
        return SIGNAL, ended.text or f"Received signal {name_signal(ended.signal)}"
    if ended.how != "exited":
        return ended.how, ended.text
    if ended.exit_code:
        return EXIT_NONZERO, f"Exited with code {ended.exit_code}"
    for kind, outcome, sentence in (
        ("unsafe", OUTPUT_UNSAFE, "is not a regular file inside the sandbox"),
        ("missing", OUTPUT_MISSING, "was not made"),
    ):
        found = [names[output.position] for output in ended.outputs if output.kind == kind]
        if found:
            more = f" ({len(found) - 1} more like it)" if len(found) > 1 else ""
            return outcome, f"Output {show(found[0])!r} {sentence}{more}"
    return SUCCEEDED, ""


def name_signal(number: int) -> str:
    """Give a signal's number and, where it has one, its name: "11 (SIGSEGV)"."""
    name = SIGNAL_NAMES.get(number)
    return f"{number} ({name})" if name else str(number)


def deliverable(result: AttemptResult) -> AttemptResult:
    """Give a result that fits into a frame: one with too many outputs tells of that instead."""
    count = len(result.outputs)
    if count <= RESULT_OUTPUTS_MAX:
        return result
    text = f"The result has {count:,} outputs; at most {RESULT_OUTPUTS_MAX:,} can be delivered"
    r = result
    return AttemptResult(
        r.attempt, OUTPUT_FAILED, r.exit_code, r.signal, text, r.usage, [], r.ended_ago_s
    )


def inline_outputs(ended: Ended) -> list[OutputResult]:
    """Give the outputs that travel inside the result; nothing is said of an empty stdout."""
    results = [
        OutputResult(found.position, found.size, found.mode, b"", found.inline)
        for found in ended.outputs
        if found.inline is not None
    ]
    if ended.stdout:
        results.append(OutputResult(STDOUT, ended.stdout_size, 0o644, b"", ended.stdout))
    if ended.stderr:
        results.append(OutputResult(STDERR, ended.stderr_size, 0o644, b"", ended.stderr))
    return results


def to_collect(ended: Ended, names: list[bytes]) -> list[tuple[int, bytes, int]]:
    """Give the outputs that must be hashed: position, name, permission bits."""
    wanted = [
        (found.position, names[found.position], found.mode)
        for found in ended.outputs
        if _is_large(found)
    ]
    if ended.stdout is None:
        wanted.append((STDOUT, b"", 0o644))
    if ended.stderr is None:
        wanted.append((STDERR, b"", 0o644))
    return wanted


def _is_large(found: OutputFound) -> bool:
    return found.kind == "ok" and found.inline is None
