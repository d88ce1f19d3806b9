"""Content that clients must send: fetched once, however many clients want it stored."""

import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wqueue.manager.file_shell import Peer, Shell
from wqueue.manager.inflow import digest_of, write_new
from wqueue.manager.io_threads import IoThreads
from wqueue.manager.puller import Failure, Puller
from wqueue.protocol.messages import FileRef, FileStored

IN_FLIGHT_MAX = 64
"""Uploads of one client handed to the puller at once: the rest costs only its digest."""

_EMPTY_DIGEST = digest_of(b"")


def stored_path(folder: Path, digest: bytes) -> Path:
    """Give the place of uploaded content."""
    name = digest.hex()
    return folder / name[:2] / name


@dataclass(eq=False)
class _Upload:
    """Content that is wanted, and the clients that have it, the one to be asked first."""

    size: int
    clients: list[Peer] = field(default_factory=list)


class Uploads:
    """All uploads under way. All methods are called in the loop's thread."""

    def __init__(self, folder: Path, shell: Shell, threads: IoThreads, puller: Puller) -> None:
        self._folder = folder
        self._shell = shell
        self._threads = threads
        self._puller = puller
        self._uploads: dict[bytes, _Upload] = {}
        self._waiting: dict[Peer, deque[bytes]] = {}
        self._in_flight: dict[Peer, int] = {}

    def want(self, client: Peer, file: FileRef) -> None:
        """Fetch this content from the client, unless another one sends it already."""
        upload = self._uploads.get(file.digest)
        if upload is None:
            self._uploads[file.digest] = _Upload(file.size, [client])
            self._queue(client, file.digest)
        elif client not in upload.clients:
            upload.clients.append(client)

    def begin(self) -> None:
        """Hand waiting uploads to the puller: call it after a series of `want`."""
        for client in list(self._waiting):
            self._fill(client)
        self._puller.ask()

    def lost(self, client: Peer) -> None:
        """Forget a client; what it was to send is fetched from another one that has it."""
        self._waiting.pop(client, None)
        for digest, upload in list(self._uploads.items()):
            if client not in upload.clients:
                continue
            was_first = upload.clients[0] == client
            upload.clients.remove(client)
            if not upload.clients:
                del self._uploads[digest]
            elif was_first:
                self._queue(upload.clients[0], digest)
        self._in_flight.pop(client, None)
        self.begin()

    def _queue(self, client: Peer, digest: bytes) -> None:
        self._waiting.setdefault(client, deque()).append(digest)

    def _fill(self, client: Peer) -> None:
        waiting = self._waiting[client]
        while waiting and self._in_flight.get(client, 0) < IN_FLIGHT_MAX:
            digest = waiting.popleft()
            upload = self._uploads.get(digest)
            if upload is None or upload.clients[0] != client:
                continue
            self._in_flight[client] = self._in_flight.get(client, 0) + 1
            self._fetch(client, digest, upload.size)
        if not waiting:
            del self._waiting[client]

    def _fetch(self, client: Peer, digest: bytes, size: int) -> None:
        path = stored_path(self._folder, digest)
        then = partial(self._fetched, client, digest)
        if size:
            self._puller.fetch(client, b"d" + digest, size, path, digest, 0o600, then)
        elif digest == _EMPTY_DIGEST:
            self._threads.run(partial(_write_empty, path), then)
        else:
            self._threads.run(lambda: Failure("the content is not empty", True), then)

    def _fetched(self, client: Peer, digest: bytes, failure: Failure | None) -> None:
        if client in self._in_flight:
            self._in_flight[client] -= 1
            if not self._in_flight[client]:
                del self._in_flight[client]
        upload = self._uploads.get(digest)
        if upload is not None and upload.clients[0] == client:
            self._tell(digest, upload, failure)
        if client in self._waiting:
            self._fill(client)
            self._puller.ask()

    def _tell(self, digest: bytes, upload: _Upload, failure: Failure | None) -> None:
        text = failure.text if failure is not None else ""
        if failure is not None and failure.is_peer_at_fault and len(upload.clients) > 1:
            first = upload.clients.pop(0)
            self._shell.send(first, FileStored(digest, text))
            self._queue(upload.clients[0], digest)
            self.begin()
            return
        del self._uploads[digest]
        for client in upload.clients:
            self._shell.send(client, FileStored(digest, text))


def _write_empty(path: Path) -> Failure | None:
    # A name of its own first: another thread may be reading the one that is there.
    part = path.with_name(f"{path.name}.empty{os.getpid()}")
    try:
        write_new(part, b"", 0o600)
        part.replace(path)
    except OSError as error:
        return Failure(error.strerror or str(error))
    return None
