"""What the worker orders from its spawner, and what the spawner reports back.

Both travel over one stream socketpair as batches: a big-endian u32 length, then a MessagePack array
of orders or reports. Both ends are one version and one machine, so there is no negotiation; paths
are absolute and bytes. Every Start is answered by exactly one Ended, whatever happens, and between
the two by one Running if a process was made. The handle in process.py keeps that promise even when
the spawner itself is lost.
"""

import select
import socket
from collections.abc import Sequence

import msgspec
from msgspec import Struct

BATCH_LENGTH_BYTES = 4
"""Size of the length in front of each batch."""

BATCH_MAX_BYTES = 1 << 30
"""A length above this is no batch but a broken stream."""

INLINE_TOTAL_BYTES = 128 * 1024
"""Content that one Ended may carry in all, so that its result stays far below a message's limit."""

EXITED = "exited"
"""how: the process exited by itself with exit_code."""

SIGNALED = "signaled"
"""how: a signal ended the process."""

NOT_FOUND = "not_found"
"""how: the command, or the interpreter that its first line names, does not exist."""

NOT_EXECUTABLE = "not_executable"
"""how: the command exists but may not be executed."""

INPUT_MISSING = "input_missing"
"""how: a file to link is not there."""

SANDBOX_FAILED = "sandbox_failed"
"""how: the sandbox could not be made, or the spawner was lost with the task."""

OK = "ok"
"""kind of an output: a regular file inside the sandbox."""

MISSING = "missing"
"""kind of an output: nothing has that name."""

UNSAFE = "unsafe"
"""kind of an output: not a regular file, or one outside the sandbox."""


class Start(Struct, frozen=True, array_like=True, tag="start"):
    """Make the sandbox and run the command in it.

    `sandbox` is a folder that does not exist yet; what the task writes to stdout and stderr goes to
    the files beside it with ".out" and ".err" added. `links` are (cache file, remote name, mode).
    `env` is added to the worker's own environment; the spawner itself sets WQ_ATTEMPT (the id in
    hex), WQ_WORKDIR, WQ_SANDBOX and PWD. `outputs` are remote names in the order of their
    positions.
    """

    attempt: bytes
    sandbox: bytes
    command: list[bytes]
    is_shell: bool = False
    env: list[tuple[bytes, bytes]] = []
    links: list[tuple[bytes, bytes, int]] = []
    outputs: list[bytes] = []


class Kill(Struct, frozen=True, array_like=True, tag="kill"):
    """End an attempt: SIGTERM to its group, after the grace SIGKILL to all that belongs to it.

    Answered by the Ended of the attempt; one that is unknown or has ended is ignored. A grace of 0
    kills at once.
    """

    attempt: bytes
    grace_s: float = 0.0


class Probe(Struct, frozen=True, array_like=True, tag="probe"):
    """Show that you are alive. Sent by the handle itself; answered by Alive."""

    number: int


class Running(Struct, frozen=True, array_like=True, tag="running"):
    """The attempt's process was made; it leads its own session and process group."""

    attempt: bytes
    pid: int


class OutputFound(Struct, frozen=True, array_like=True):
    """What became of one declared output; `inline` holds a small one whole."""

    position: int
    kind: str
    size: int = 0
    mode: int = 0o644
    inline: bytes | None = None


class Ended(Struct, frozen=True, array_like=True, tag="ended"):
    """An attempt is over and no process of it is left.

    `how` is one of the words above; `text` is one line for a person when there is something to
    say. stdout and stderr are None where they are larger than what is carried inline: then the
    content is in the file beside the sandbox. With `sandbox_left` some content is only on disk, and
    the worker removes the sandbox with its two files when nobody needs them any more
    (workdir.remove_sandbox). Without it they belong to the spawner again: hands off.
    """

    attempt: bytes
    how: str
    exit_code: int = -1
    signal: int = 0
    text: str = ""
    wall_s: float = 0.0
    user_s: float = 0.0
    system_s: float = 0.0
    max_rss_kb: int = 0
    stdout_size: int = 0
    stdout: bytes | None = b""
    stderr_size: int = 0
    stderr: bytes | None = b""
    outputs: list[OutputFound] = []
    sandbox_left: bool = False


class Alive(Struct, frozen=True, array_like=True, tag="alive"):
    """Answer to Probe. The handle keeps it to itself."""

    number: int


Order = Start | Kill | Probe
Report = Running | Ended | Alive

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[list[Order]] = msgspec.msgpack.Decoder(list[Order])
_reports: msgspec.msgpack.Decoder[list[Report]] = msgspec.msgpack.Decoder(list[Report])


def encode_batch(batch: Sequence[Order] | Sequence[Report]) -> bytes:
    """Encode a batch with its length in front."""
    body = _encoder.encode(batch)
    return len(body).to_bytes(BATCH_LENGTH_BYTES, "big") + body


def decode_orders(body: bytes) -> list[Order]:
    """Decode a batch of orders without its length."""
    return _orders.decode(body)


def decode_reports(body: bytes) -> list[Report]:
    """Decode a batch of reports without its length."""
    return _reports.decode(body)


class BatchSender:
    """Sends batches without ever blocking: what does not fit waits, and `poll` tells of room."""

    def __init__(self, link: socket.socket, poll: select.epoll) -> None:
        self._link = link
        self._poll = poll
        self._unsent = bytearray()
        self.is_blocked = False

    def add(self, batch: Sequence[Order] | Sequence[Report]) -> None:
        """Put a batch behind what is unsent."""
        self._unsent += encode_batch(batch)

    def flush(self) -> bool:
        """Send what fits; False when nobody reads any more."""
        if not self._unsent:
            return True
        try:
            sent = self._link.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        del self._unsent[:sent]
        if self.is_blocked != bool(self._unsent):
            self.is_blocked = bool(self._unsent)
            wanted = select.EPOLLIN | select.EPOLLOUT if self.is_blocked else select.EPOLLIN
            self._poll.modify(self._link, wanted)
        return True


class BatchBuffer:
    """Cuts a stream of bytes into batch bodies."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; give the bodies that are whole."""
        pending = self._pending
        pending += data
        bodies = []
        start = 0
        while len(pending) - start >= BATCH_LENGTH_BYTES:
            length = int.from_bytes(pending[start : start + BATCH_LENGTH_BYTES], "big")
            assert length <= BATCH_MAX_BYTES, f"a batch of {length} bytes"
            end = start + BATCH_LENGTH_BYTES + length
            if len(pending) < end:
                break
            bodies.append(bytes(pending[start + BATCH_LENGTH_BYTES : end]))
            start = end
        del pending[:start]
        return bodies
