"""Files in and out of the manager: uploads, what workers read, staging and publishing of outputs.

One object stands between the loop and the disk. The loop tells it what it heard and carries its
messages; all disk work is done by a few I/O threads, whose results come back by `post`. Every
method is called in the loop's thread and returns at once. The receiver of a file always asks (Get)
and to ask is to give credit; so memory here is bounded by the pool of credit, not by file sizes.

    uploads   Declare -> Declared, Get b"d"+digest to the client -> STATE_DIR/files -> FileStored
    inputs    Get b"d"+digest of a worker <- the file in place, or STATE_DIR/files
    outputs   StageOutputs -> Get b"o"+... to the worker -> staging -> OutputsStaged;
              PublishOutputs -> rename -> OutputsPublished; DiscardOutputs -> removed
    fetches   Get b"r"+uid+index+position of a client <- STATE_DIR/outputs or the destination
"""

import os
import stat
import struct
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

from msgspec import Struct

from wqueue.manager import staging
from wqueue.manager.content import Descriptors, Place, read_chunk
from wqueue.manager.core.events import DiscardOutputs, PublishOutputs, Restored, StageOutputs
from wqueue.manager.file_shell import FinishedOutput, Peer, Shell
from wqueue.manager.io_threads import IoThreads
from wqueue.manager.outputs import Outputs
from wqueue.manager.puller import Puller
from wqueue.manager.same_file import why_not_in_place, why_not_shared
from wqueue.manager.staging import OutputPaths
from wqueue.manager.turns import Slot, Turns
from wqueue.manager.uploads import Uploads, stored_path
from wqueue.protocol.messages import (
    Data,
    Declare,
    Declared,
    FileIdentity,
    FileRef,
    Get,
    GetFailed,
)

__all__ = ["Files", "FinishedOutput", "Peer", "Shell", "Verdict"]

IO_THREADS = 4
"""Threads for the disk: enough that one hanging network folder does not stop the rest."""

CLOSE_TIMEOUT_S = 2.0
"""How long the end waits for each thread; a hung disk must not hold up the daemon."""

PLACES_MAX = 8
"""Files of equal content that are tried before it counts as missing."""

_RESULT_SOURCE = struct.Struct(">16sQH")


class Verdict(Struct, frozen=True):
    """Whether a submission's files are all there. `code` "" means yes, else it is the refusal's.

    Codes: "unknown_file" (not uploaded), "changed" (in place, but not the file that was declared),
    "not_shared" (in place, but this client's word is not enough). `may_write` says that the
    destinations are granted.
    """

    code: str = ""
    text: str = ""
    may_write: bool = False


class Files:
    """All file traffic of the manager."""

    def __init__(self, state_dir: Path, shell: Shell) -> None:
        """Name the state directory; its folders are made if missing (mode 0700)."""
        self._paths = OutputPaths(state_dir)
        self._stored = state_dir / "files"
        self._shell = shell
        self._threads = IoThreads(IO_THREADS, shell.post)
        self._puller = Puller(shell, self._threads)
        self._outputs = Outputs(self._paths, shell, self._threads, self._puller)
        self._uploads = Uploads(self._stored, shell, self._threads, self._puller)
        self._turns = Turns()
        self._descriptors = Descriptors()
        self._in_place: dict[bytes, dict[FileIdentity, int]] = {}
        for folder in (self._stored, self._paths.staging, self._paths.kept):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(self, restored: Restored) -> None:
        """Remove what earlier processes staged for attempts that are not being published.

        Call it once with the store's first event, before any other method. Blocks (before the loop
        runs); starts the I/O threads.
        """
        job_uids = {job.added.job_uid for job in restored.jobs}
        publishing = {row.attempt for row in restored.publishing}
        staging.sweep(self._paths, job_uids, publishing)
        for part in self._stored.glob("*/*.*"):
            part.unlink(missing_ok=True)
        self._threads.start()

    def add_job(self, files: Iterable[FileRef]) -> None:
        """Let workers read these files: call it for each accepted or restored unfinished job."""
        for file in files:
            if file.in_place is not None:
                uses = self._in_place.setdefault(file.digest, {})
                uses[file.in_place] = uses.get(file.in_place, 0) + 1

    def forget_job(self, files: Iterable[FileRef]) -> None:
        """Take back one `add_job`; files of other jobs stay."""
        for file in files:
            uses = self._in_place.get(file.digest, {})
            if file.in_place is None or file.in_place not in uses:
                continue
            uses[file.in_place] -= 1
            if not uses[file.in_place]:
                del uses[file.in_place]
                if not uses:
                    del self._in_place[file.digest]

    def declare(self, client: int, message: Declare, is_trusted: bool) -> None:
        """Answer a Declare by Declared, then fetch what is wanted and tell by FileStored.

        `is_trusted`: the client has proven the owner's role and runs under the manager's uid.
        """
        self._threads.run(
            partial(_look_at, self._stored, message, is_trusted),
            partial(self._declared, Peer("client", client), message),
        )

    def check_submission(
        self,
        files: list[FileRef],
        directory: FileIdentity | None,
        is_trusted: bool,
        then: Callable[[Verdict], None],
    ) -> None:
        """Check that all files of a decoded JobSpec can be served; `then` hears in the loop."""
        self._threads.run(partial(_judge, self._stored, files, directory, is_trusted), then)

    def read_stored(self, digest: bytes, then: Callable[[bytes | None], None]) -> None:
        """Read uploaded content whole (a large job description); None when it is not here."""
        self._threads.run(partial(_read_whole, stored_path(self._stored, digest)), then)

    def carry_out(self, effect: StageOutputs | PublishOutputs | DiscardOutputs) -> None:
        """Begin to carry out an effect of the core (PublishOutputs once its record is committed).

        StageOutputs is answered by exactly one OutputsStaged unless DiscardOutputs comes first or
        the same attempt is staged again; PublishOutputs by exactly one OutputsPublished.
        DiscardOutputs of an unknown attempt is harmless. What is done for one attempt is done in
        the order of these calls.
        """
        if isinstance(effect, StageOutputs):
            self._outputs.stage(effect)
        elif isinstance(effect, PublishOutputs):
            self._outputs.publish(effect)
        else:
            self._outputs.discard(effect)

    def heard(self, peer: Peer, message: Get | Data | GetFailed, data: bytes | None = None) -> None:
        """Take a file message of a peer whose role allows it; `data` is Data's second frame."""
        if not isinstance(message, Get):
            self._puller.heard(peer, message, data)
        elif not self._turns.ask(peer, message):
            failed = GetFailed(message.transfer, "unreadable", "too many requests at once")
            self._shell.send(peer, failed)
        else:
            self._read()

    def lost(self, peer: Peer) -> None:
        """Forget a peer whose link is gone (WorkerLost, ClientGone)."""
        self._turns.forget(peer)
        self._uploads.lost(peer)
        self._puller.lost(peer)

    def pump(self) -> bool:
        """Send file content that has been read, at most 4 chunks: call it once per loop turn.

        Call it after all control. True means that more waits: the loop should not block.
        """
        for slot in self._turns.next_sends():
            if isinstance(slot.answer, bytes):
                data = Data(slot.get.transfer, slot.get.offset)
                self._shell.send(slot.peer, data, slot.answer)
            elif slot.answer is not None:
                self._shell.send(slot.peer, slot.answer)
        self._read()
        return self._turns.is_any_ready

    def tick(self, monotonic_s: float) -> None:
        """Give up transfers without progress: call it about once a second."""
        self._puller.tick(monotonic_s)

    def close(self) -> None:
        """End the I/O threads after what they have begun."""
        self._threads.close(CLOSE_TIMEOUT_S)
        self._descriptors.close()

    def _declared(self, client: Peer, message: Declare, answer: Declared) -> None:
        self._shell.send(client, answer)
        for position in answer.wanted:
            self._uploads.want(client, message.files[position])
        self._uploads.begin()

    def _read(self) -> None:
        for slot in self._turns.next_reads():
            places = self._places_of(slot)
            self._threads.run(
                partial(read_chunk, self._descriptors, slot.get, places),
                partial(self._turns.answer, slot),
            )

    def _places_of(self, slot: Slot) -> list[Place]:
        """Say where a file may lie: workers get inputs by content, clients finished outputs."""
        kind, name = slot.get.source[:1], slot.get.source[1:]
        if slot.peer.kind == "worker" and kind == b"d" and len(name) == 32:
            identities = islice(self._in_place.get(name, ()), PLACES_MAX)
            places = [Place.of(identity) for identity in identities]
            return [*places, Place(stored_path(self._stored, name))]
        if slot.peer.kind == "client" and kind == b"r" and len(name) == _RESULT_SOURCE.size:
            job_uid, index, position = _RESULT_SOURCE.unpack(name)
            found = self._shell.find_output(job_uid, index, position)
            if found is not None:
                return [Place(self._paths.final(found.job, index, position, found.destination))]
        return []


# --- in I/O threads -------------------------------------------------------------------------------


def _look_at(stored: Path, message: Declare, is_trusted: bool) -> Declared:
    """Sort declared files into those read in place, those here already, and those wanted."""
    in_place, wanted = [], []
    for position, file in enumerate(message.files):
        if is_trusted and file.in_place is not None and not _why_not_readable(file):
            in_place.append(position)
        elif not _is_stored(stored, file):
            wanted.append(position)
    directory = message.directory
    is_shared = is_trusted and directory is not None and not why_not_shared(directory)
    return Declared(message.request, in_place, wanted, is_shared)


def _judge(
    stored: Path, files: list[FileRef], directory: FileIdentity | None, is_trusted: bool
) -> Verdict:
    for file in files:
        if file.in_place is None:
            if not _is_stored(stored, file):
                name = file.digest.hex()[:16]
                return Verdict("unknown_file", f"content b3:{name} has not been uploaded")
        elif not is_trusted:
            return Verdict("not_shared", "only the owner on a shared file system names files here")
        elif why := _why_not_readable(file):
            return Verdict("changed", why)
    may_write = is_trusted and directory is not None and not why_not_shared(directory)
    return Verdict(may_write=may_write)


def _why_not_readable(file: FileRef) -> str:
    assert file.in_place is not None
    if file.in_place.size != file.size:
        return "a file's size and its content's differ"
    return why_not_in_place(file.in_place)


def _is_stored(stored: Path, file: FileRef) -> bool:
    try:
        found = os.lstat(stored_path(stored, file.digest))
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size


def _read_whole(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
