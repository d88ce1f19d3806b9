"""Inputs on their way from the manager into the cache folder.

One Download per file decides what to ask for; the bytes are written and verified by file threads,
one job at a time per file, and new chunks are asked for only when old ones have left memory.
"""

from collections.abc import Callable, Iterable

from wqueue.protocol.messages import Data, Get, GetFailed
from wqueue.protocol.sources import Content, pack_source
from wqueue.protocol.transfer import Download
from wqueue.worker.cache_files import CacheFiles, Incoming, Stamp
from wqueue.worker.core.events import FileFailed, FilesCached
from wqueue.worker.file_threads import FileThreads

DIGEST_BYTES = 32


class _Fetch:
    """One file that the core wants."""

    def __init__(self, key: bytes, size: int) -> None:
        self.key = key
        self.size = size
        self.download: Download | None = None
        self.incoming: Incoming | None = None
        self.stamp: Stamp | None = None
        self.arrived: list[tuple[int, bytes]] = []
        self.is_writing = False
        self.is_dropped = False

    @property
    def digest(self) -> bytes:
        return self.key[:DIGEST_BYTES]

    @property
    def is_executable(self) -> bool:
        return len(self.key) > DIGEST_BYTES


class Downloads:
    """All transfers into the cache. For use by the loop's thread."""

    def __init__(
        self,
        files: CacheFiles,
        threads: FileThreads,
        send: Callable[[list[Get]], None],
        report: Callable[[FilesCached | FileFailed], None],
    ) -> None:
        self._files = files
        self._threads = threads
        self._send = send
        self._report = report
        self._fetches: dict[bytes, _Fetch] = {}
        self._transfers: dict[int, _Fetch] = {}
        self._number = 0
        self._is_open = False
        # Files that lie in the folder, with the stamp they had when they were verified, if so.
        self._here: dict[bytes, Stamp | None] = {}
        # Files that are being removed, and those of them that are wanted again already.
        self._leaving: set[bytes] = set()
        self._again: dict[bytes, int] = {}

    def index(self) -> list[tuple[bytes, int]]:
        """List what an earlier process has left: key and size."""
        entries = self._files.index()
        left = [(e.digest + b"x" if e.is_executable else e.digest, e.size) for e in entries]
        self._here = dict.fromkeys(key for key, _ in left)
        return left

    def path(self, key: bytes) -> bytes:
        """Give the place of a file in the cache."""
        return self._files.path(key[:DIGEST_BYTES], len(key) > DIGEST_BYTES)

    def spoiled(self, keys: Iterable[bytes]) -> list[bytes]:
        """Give those that are not what they were when they were verified, or not there."""
        spoiled = []
        for key in keys:
            stamp = self._files.stamp(key[:DIGEST_BYTES], len(key) > DIGEST_BYTES)
            if stamp is None or stamp != self._here.get(key):
                spoiled.append(key)
        return spoiled

    def open(self) -> None:
        """The result link is up: begin what waits for it."""
        self._is_open = True
        for fetch in list(self._fetches.values()):
            if fetch.download is not None:
                self._proceed(fetch)

    def forget(self) -> None:
        """The link is lost, and every transfer with it."""
        self._is_open = False
        for key in [key for key, fetch in self._fetches.items() if fetch.download is not None]:
            self.drop(key)

    def fetch(self, key: bytes, size: int) -> None:
        """Bring a file into the cache; what is under way goes on."""
        if key in self._fetches:
            return
        if key in self._leaving:
            # A removal that comes late would take the new file.
            self._again[key] = size
            return
        fetch = self._fetches[key] = _Fetch(key, size)
        digest = fetch.digest
        if digest not in self._here and digest + b"x" not in self._here:
            self._begin(fetch)
            return

        def look() -> bool:
            files, is_executable = self._files, fetch.is_executable
            fetch.stamp = files.verify(digest, is_executable, size)
            fetch.stamp = fetch.stamp or files.derive(digest, is_executable)
            return fetch.stamp is not None

        self._threads.do(look, lambda is_here: self._looked(fetch, is_here))

    def drop(self, key: bytes) -> None:
        """Give a transfer up; what is being written is removed when its job ends."""
        self._again.pop(key, None)
        fetch = self._fetches.pop(key, None)
        if fetch is None:
            return
        fetch.is_dropped = True
        if fetch.download is not None:
            self._transfers.pop(fetch.download.transfer, None)
        if not fetch.is_writing:
            self._abort(fetch)

    def evict(self, keys: list[bytes]) -> None:
        """Remove files from the folder."""
        for key in keys:
            self._here.pop(key, None)
        self._leaving.update(keys)

        def remove() -> None:
            for key in keys:
                self._files.remove(key[:DIGEST_BYTES], len(key) > DIGEST_BYTES)

        self._threads.do(remove, lambda _: self._removed(keys))

    def _removed(self, keys: list[bytes]) -> None:
        self._leaving.difference_update(keys)
        for key in keys:
            size = self._again.pop(key, None)
            if size is not None:
                self.fetch(key, size)

    def take(self, data: Data, content: bytes) -> None:
        """Take a chunk that has come."""
        fetch = self._transfers.get(data.transfer)
        if fetch is None or fetch.download is None:
            return
        verdict = fetch.download.receive(data, len(content))
        if verdict == "short":
            self._fail(fetch, "the file is shorter than it was when it was submitted")
        elif verdict == "write":
            fetch.arrived.append((data.offset, content))
            self._proceed(fetch)

    def failed(self, message: GetFailed) -> None:
        """The manager does not have it."""
        fetch = self._transfers.get(message.transfer)
        if fetch is not None:
            self._fail(fetch, message.text or message.code)

    def _looked(self, fetch: _Fetch, is_here: bool) -> None:
        if fetch.is_dropped:
            # The core may have had it removed meanwhile.
            return
        if is_here:
            self._finish(fetch)
        else:
            self._begin(fetch)

    def _begin(self, fetch: _Fetch) -> None:
        self._number = self._number % (2**32 - 1) + 1
        fetch.download = Download(self._number, pack_source(Content(fetch.digest)), fetch.size)
        self._transfers[self._number] = fetch
        self._proceed(fetch)

    def _proceed(self, fetch: _Fetch) -> None:
        """Ask for more, and write what has come."""
        download = fetch.download
        assert download is not None, fetch.key
        if self._is_open:
            gets = download.next_gets()
            if gets:
                self._send(gets)
        if fetch.is_writing or not (fetch.arrived or download.is_complete):
            return
        chunks, fetch.arrived = fetch.arrived, []
        is_last = download.written + sum(len(content) for _, content in chunks) == download.size
        fetch.is_writing = True
        self._threads.do(
            lambda: self._write(fetch, chunks, is_last),
            lambda fault: self._wrote(fetch, chunks, is_last, fault),
        )

    def _write(self, fetch: _Fetch, chunks: list[tuple[int, bytes]], is_last: bool) -> str | None:
        """Write in a file thread; give None, or what is wrong: empty for damaged content."""
        try:
            if fetch.incoming is None:
                fetch.incoming = self._files.receive(fetch.digest, fetch.size, fetch.is_executable)
            for offset, content in chunks:
                fetch.incoming.write(offset, content)
            if not is_last:
                return None
            fetch.stamp = fetch.incoming.finish()
            return None if fetch.stamp else ""
        except OSError as error:
            return error.strerror or str(error)

    def _wrote(
        self, fetch: _Fetch, chunks: list[tuple[int, bytes]], is_last: bool, fault: str | None
    ) -> None:
        fetch.is_writing = False
        if fault is not None:
            is_own_fault = fault != ""
            text = f"this worker cannot store it: {fault}" if fault else "it arrived damaged"
            self._fail(fetch, text, is_own_fault=is_own_fault)
        elif is_last:
            self._finish(fetch)
        elif fetch.is_dropped:
            self._abort(fetch)
        else:
            assert fetch.download is not None, fetch.key
            for offset, _ in chunks:
                fetch.download.wrote(offset)
            self._proceed(fetch)

    def _finish(self, fetch: _Fetch) -> None:
        self._here[fetch.key] = fetch.stamp
        fetch.incoming = None
        if not fetch.is_dropped:
            self.drop(fetch.key)
        self._report(FilesCached([(fetch.key, fetch.size)]))

    def _fail(self, fetch: _Fetch, text: str, *, is_own_fault: bool = False) -> None:
        if fetch.is_dropped:
            self._abort(fetch)
            return
        self.drop(fetch.key)
        self._report(FileFailed(fetch.key, text, is_own_fault))

    def _abort(self, fetch: _Fetch) -> None:
        incoming, fetch.incoming = fetch.incoming, None
        if incoming is not None:
            self._threads.do(incoming.abort, lambda _: None)
