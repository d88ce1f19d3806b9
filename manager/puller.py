"""Files coming in: asks for what `pulls` decides, and has the I/O threads write what arrives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wqueue.manager.file_shell import Peer, Shell
from wqueue.manager.inflow import Inflow, is_temporary
from wqueue.manager.io_threads import IoThreads
from wqueue.manager.pulls import Pulls
from wqueue.protocol.messages import Data, GetFailed


class Failure(NamedTuple):
    """Why a file did not come. `is_peer_at_fault`: its link, its content or its silence."""

    text: str
    is_peer_at_fault: bool = False
    is_temporary: bool = False


@dataclass
class _Incoming:
    """One transfer: its file, the chunks that wait for their turn, and who wants to know.

    Content is hashed as it is written, so it is written in order, however it came.
    """

    inflow: Inflow
    size: int
    digest: bytes
    mode: int
    then: Callable[[Failure | None], None]
    chunks: dict[int, bytes] = field(default_factory=dict)
    next_offset: int = 0
    is_busy: bool = False
    is_over: bool = False


class Puller:
    """Fetches files from peers. All methods are called in the loop's thread."""

    def __init__(self, shell: Shell, threads: IoThreads) -> None:
        self._shell = shell
        self._threads = threads
        self._pulls = Pulls()
        self._incoming: dict[int, _Incoming] = {}

    def fetch(
        self,
        peer: Peer,
        source: bytes,
        size: int,
        path: Path,
        digest: bytes,
        mode: int,
        then: Callable[[Failure | None], None],
    ) -> int:
        """Fetch `size` > 0 bytes into the new file `path`; `then` hears None when it is there.

        Nothing is asked for before `ask()`. Gives the number to cancel it by.
        """
        transfer = self._pulls.add(peer, source, size)
        self._incoming[transfer] = _Incoming(
            Inflow(path, f"part{transfer}"), size, digest, mode, then
        )
        return transfer

    def ask(self) -> None:
        """Send the requests that credit allows."""
        for peer, request in self._pulls.requests():
            self._shell.send(peer, request)

    def heard(self, peer: Peer, message: Data | GetFailed, data: bytes | None) -> None:
        """Take an answer to a request; one that nobody waits for is ignored."""
        transfer = message.transfer
        if isinstance(message, GetFailed):
            pull = self._pulls.get(transfer)
            if pull is not None and pull.peer == peer:
                text = message.text or message.code
                self._end(transfer, Failure(text, is_peer_at_fault=True))
            return
        content = data or b""
        verdict = self._pulls.take(peer, message, len(content))
        if verdict == "short":
            self._end(transfer, Failure("the file is shorter than announced", True))
        elif verdict == "write":
            incoming = self._incoming[transfer]
            incoming.chunks[message.offset] = content
            self._write(transfer, incoming)

    def cancel(self, transfer: int) -> None:
        """Stop a transfer and remove its file; nobody hears of it."""
        incoming = self._incoming.get(transfer)
        if incoming is not None:
            incoming.then = _ignore
            self._end(transfer, Failure("canceled"))

    def lost(self, peer: Peer) -> None:
        """End all transfers with a peer that is gone."""
        for transfer in self._pulls.of_peer(peer):
            self._end(transfer, Failure("the link was lost", is_peer_at_fault=True))

    def tick(self, monotonic_s: float) -> None:
        """Give up transfers without progress."""
        self._pulls.now_s = monotonic_s
        for transfer in self._pulls.stalled():
            self._end(transfer, Failure("no data came for too long", is_peer_at_fault=True))

    def _write(self, transfer: int, incoming: _Incoming) -> None:
        """Have what has come written; one thread at a time writes a file."""
        if incoming.is_busy:
            return
        run: dict[int, bytes] = {}
        while (chunk := incoming.chunks.pop(incoming.next_offset, None)) is not None:
            run[incoming.next_offset] = chunk
            incoming.next_offset += len(chunk)
        if not run:
            return
        incoming.is_busy = True
        is_last = incoming.next_offset == incoming.size
        self._threads.run(
            partial(_write, incoming, list(run.values()), is_last=is_last),
            partial(self._wrote, transfer, incoming, {at: len(run[at]) for at in run}),
        )

    def _wrote(
        self,
        transfer: int,
        incoming: _Incoming,
        lengths: dict[int, int],
        failure: Failure | None,
    ) -> None:
        incoming.is_busy = False
        if incoming.is_over:
            self._remove_file(incoming)
            return
        is_complete = False
        for offset, length in lengths.items():
            is_complete = self._pulls.wrote(transfer, offset, length)
        if failure is not None or is_complete:
            self._end(transfer, failure)
            return
        self._write(transfer, incoming)
        self.ask()

    def _end(self, transfer: int, failure: Failure | None) -> None:
        incoming = self._incoming.pop(transfer, None)
        if incoming is None:
            return
        self._pulls.remove(transfer)
        incoming.is_over = True
        incoming.inflow.is_unwanted = failure is not None
        if failure is not None and not incoming.is_busy:
            self._remove_file(incoming)
        incoming.then(failure)
        self.ask()

    def _remove_file(self, incoming: _Incoming) -> None:
        self._threads.run(incoming.inflow.abandon, _ignore)


def _ignore(_: object) -> None:
    pass


def _write(incoming: _Incoming, chunks: list[bytes], *, is_last: bool) -> Failure | None:
    inflow = incoming.inflow
    try:
        inflow.write(chunks)
        if is_last and not inflow.finish(incoming.digest, incoming.mode):
            return Failure("the content is not what was announced", is_peer_at_fault=True)
    except OSError as error:
        return Failure(error.strerror or str(error), is_temporary=is_temporary(error))
    return None
