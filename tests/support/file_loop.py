"""A loop and peers for tests of the manager's files: calls come back here, peers answer Gets."""

import queue
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from wqueue.manager.core.events import OutputsPublished, OutputsStaged, Restored, StoredJob
from wqueue.manager.files import Files, FinishedOutput, Peer
from wqueue.protocol.messages import (
    Data,
    Declared,
    FileIdentity,
    FileRef,
    FileStored,
    Get,
    GetFailed,
)

PATIENCE_S = 20.0
"""Longest wait for a thread: a test that needs it has failed."""

Sent = Get | Data | GetFailed | Declared | FileStored


def digest(content: bytes) -> bytes:
    """Give the digest of some content."""
    return blake3(content).digest()


def identity_of(path: Path, boot_id: str = "") -> FileIdentity:
    """Describe a file as a client sees it."""
    found = path.stat()
    return FileIdentity(bytes(path), found.st_size, found.st_mtime_ns, found.st_ino, boot_id)


def ref_in_place(path: Path) -> FileRef:
    """Name a file by content and place."""
    content = path.read_bytes()
    return FileRef(digest(content), len(content), 0o644, identity_of(path))


def restored(jobs: list[StoredJob] | None = None) -> Restored:
    """Give what a store says that holds these jobs."""
    return Restored(1, 1, 1, jobs or [], [], [], [])


class Loop:
    """The loop's side of Files: runs posted calls, keeps what was sent and emitted."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.sent: list[tuple[Peer, Sent, bytes | None]] = []
        self.events: list[OutputsStaged | OutputsPublished] = []
        self.finished: dict[tuple[bytes, int, int], FinishedOutput] = {}
        self.holders: dict[Peer, dict[bytes, bytes]] = {}
        self.unanswered: list[tuple[Peer, Get]] = []
        self.files: Files | None = None

    def open(self, state_dir: Path, told: Restored | None = None) -> Files:
        """Make and start Files on this loop."""
        self.files = Files(state_dir, self)
        self.files.start(told or restored())
        return self.files

    def post(self, call: Callable[[], None], /) -> None:
        self.calls.put(call)

    def send(self, peer: Peer, message: Sent, data: bytes | None = None, /) -> None:
        self.sent.append((peer, message, data))
        if isinstance(message, Get):
            self.unanswered.append((peer, message))

    def emit(self, event: OutputsStaged | OutputsPublished, /) -> None:
        self.events.append(event)

    def find_output(self, job_uid: bytes, index: int, position: int, /) -> FinishedOutput | None:
        return self.finished.get((job_uid, index, position))

    def run_until(self, condition: Callable[[], object]) -> None:
        """Run what threads post, let peers answer and send what is ready until it is so."""
        assert self.files is not None
        while True:
            self.answer()
            has_more = self.files.pump()
            if condition():
                return
            if not has_more or not self.calls.empty():
                self.calls.get(timeout=PATIENCE_S)()

    def answer(self) -> None:
        """Have the peers that hold files answer their requests."""
        assert self.files is not None
        waiting, self.unanswered = self.unanswered, []
        for peer, get in waiting:
            held = self.holders.get(peer)
            if held is None:
                self.unanswered.append((peer, get))
            elif get.source in held:
                part = held[get.source][get.offset : get.offset + get.length]
                self.files.heard(peer, Data(get.transfer, get.offset), part)
            else:
                self.files.heard(peer, GetFailed(get.transfer, "missing", "not here"))

    def sent_to(self, peer: Peer, kind: type[Sent]) -> list[Sent]:
        """Give the messages of one kind that a peer was sent."""
        return [message for to, message, _ in self.sent if to == peer and isinstance(message, kind)]

    def data_to(self, peer: Peer) -> bytes:
        """Give the file content that a peer was sent, in order."""
        return b"".join(
            data or b""
            for to, message, data in self.sent
            if to == peer and isinstance(message, Data)
        )
