"""Every error that crosses a room's border or reaches a user.

    WqueueError                     root; never raised itself
      TaskError                 1   a task did not succeed; raised when a value is asked for
      UsageError                2   the caller asked for something that makes no sense
      ManagerUnreachable        3   no manager there, or it fell silent; trying again may help
      NotAuthorized             4   wrong or missing password, foreign manager key, role too small
      WaitTimedOut              5   the time the caller gave is over; the work goes on
      Refused                   6   the manager said no: .code for programs, the sentence for people
        NoSuchTask                  no job or task has that number
        StoreFull                   the manager's disk is full
        Draining                    the manager takes no new work
      ProtocolError             7   abstract
        LocalProtocolError          we broke the contract: a bug of ours
        RemoteProtocolError         the peer broke it; its connection is dropped
        VersionMismatch             neither side speaks the other's major version
      StoreError                8   the journal cannot be written or read
        JournalFull            75   no room for it at a start; the supervisor tries again

A bug is an AssertionError, caught by nobody: the daemon logs its last events and exits 70.
A message is a sentence with the values in it and, where there is one, what to do next.
"""

EXIT_OK = 0
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class WqueueError(Exception):
    """Root of all errors of this package."""

    exit_code = EXIT_BUG
    code = "error"


class TaskError(WqueueError):
    """A task did not succeed."""

    exit_code = 1
    code = "task_failed"


class UsageError(WqueueError):
    """The caller asked for something that makes no sense."""

    exit_code = 2
    code = "usage"


class ManagerUnreachable(WqueueError):
    """No manager answers there."""

    exit_code = 3
    code = "unreachable"


class NotAuthorized(WqueueError):
    """The proof failed, the manager's key is not the expected one, or the role is too small."""

    exit_code = 4
    code = "not_authorized"


class WaitTimedOut(WqueueError):
    """The time the caller gave is over; the work goes on."""

    exit_code = 5
    code = "timed_out"


class Refused(WqueueError):
    """The manager said no."""

    exit_code = 6
    code = "refused"

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        if code:
            self.code = code


class NoSuchTask(Refused):
    """No job or task has that number."""

    code = "no_such_task"


class StoreFull(Refused):
    """The manager's disk is full; submissions are taken again when there is room."""

    code = "store_full"


class Draining(Refused):
    """The manager finishes what it has and takes no new work."""

    code = "draining"


class ProtocolError(WqueueError):
    """The contract of the wire was broken."""

    exit_code = 7
    code = "protocol"


class LocalProtocolError(ProtocolError):
    """We broke the contract: a bug of ours."""

    code = "local_protocol"


class RemoteProtocolError(ProtocolError):
    """The peer broke the contract."""

    code = "bad_message"


class VersionMismatch(ProtocolError):
    """Neither side speaks the other's major version."""

    code = "version"


class StoreError(WqueueError):
    """The journal cannot be written or read."""

    exit_code = 8
    code = "store"


class JournalFull(StoreError):
    """The disk has no room for the journal at a start.

    Between the manager's two processes only: the supervisor tries again after a restart, and turns
    it into a StoreError for a user who starts the manager.
    """

    exit_code = 75
    code = "journal_full"


_BY_CODE: dict[str, type[WqueueError]] = {
    error.code: error
    for error in (
        UsageError,
        ManagerUnreachable,
        NotAuthorized,
        NoSuchTask,
        StoreFull,
        Draining,
        RemoteProtocolError,
        VersionMismatch,
    )
}


def error_from_wire(code: str, text: str) -> WqueueError:
    """Turn a refusal's code and sentence into the error to raise."""
    kind = _BY_CODE.get(code)
    if kind is None:
        return Refused(text, code)
    return kind(text)
