"""What is cached, what may be evicted, never what is in use.

A file is known by its key: its digest, and an x behind it when it may be executed, because hard
links share their permissions with the cached file. It is pinned once for each attempt that needs
it, from dispatch until the attempt's process has ended; what nobody pins is evicted, longest unused
first, when the cache has grown past its bound. At most FETCHES_MAX files are fetched at a time, in
the order in which they were first wanted. What an earlier worker process has left is fetched like
any other file before its first use: the shell finds that it is there and verifies it. One that a
task has changed is evicted and fetched again; those that run with it keep what they have.
"""

from msgspec import Struct

from wqueue.worker.core.events import DropFetch, Effect, Evict, Fetch

FETCHES_MAX = 8
"""Files fetched at the same time: enough that small ones hide each other's round trip."""


class CacheStatistics(Struct, frozen=True):
    """The cache at a glance."""

    files: int
    file_bytes: int
    wanted: int
    fetching: int


class _File:
    """One file somebody wants or wanted, and who waits for it."""

    __slots__ = ("is_here", "is_left_over", "pins", "size", "waiting")

    def __init__(self, size: int, is_left_over: bool = False) -> None:
        self.size = size
        self.is_here = is_left_over
        self.is_left_over = is_left_over
        self.pins = 0
        self.waiting: dict[bytes, None] = {}


class Cache:
    """The files of a worker. Effects go to the list that was given."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._files: dict[bytes, _File] = {}
        # Order of last use, oldest first: files that are here and unpinned.
        self._idle: dict[bytes, None] = {}
        # In the order wanted; what is fetched now has left it.
        self._wanted: dict[bytes, None] = {}
        self._fetching: dict[bytes, None] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes of all files that are here."""
        return self._size

    def restore(self, cached: list[tuple[bytes, int]]) -> None:
        """Learn what an earlier process has left."""
        for key, size in cached:
            if key not in self._files:
                self._files[key] = _File(size, is_left_over=True)
                self._idle[key] = None
                self._size += size

    def pin(self, attempt: bytes, files: dict[bytes, int]) -> int:
        """Pin files (key and size) for an attempt and give the number it has to wait for."""
        missing = 0
        for key, size in files.items():
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = _File(size)
                self._wanted[key] = None
            elif file.is_left_over and file.is_here:
                self._distrust(key, file)
            file.pins += 1
            if file.is_here:
                self._idle.pop(key, None)
            else:
                file.waiting[attempt] = None
                missing += 1
        return missing

    def _distrust(self, key: bytes, file: _File) -> None:
        file.is_here = False
        self._idle.pop(key, None)
        self._size -= file.size
        self._wanted[key] = None

    def unpin(self, attempt: bytes, files: dict[bytes, int], out: list[Effect]) -> None:
        """Take an attempt's pins away; what is no longer wanted is not fetched on."""
        for key in files:
            file = self._files[key]
            file.pins -= 1
            file.waiting.pop(attempt, None)
            if file.pins:
                continue
            if file.is_here:
                self._idle[key] = None
            else:
                self._drop(key, out)
        self.evict(out)

    def _drop(self, key: bytes, out: list[Effect]) -> None:
        file = self._files[key]
        if file.is_left_over:
            # It lies there all the same, so it counts, and the next who wants it verifies it.
            file.is_here = True
            self._idle[key] = None
            self._size += file.size
        else:
            del self._files[key]
        self._wanted.pop(key, None)
        if key in self._fetching:
            del self._fetching[key]
            out.append(DropFetch(key))

    def fetch(self, out: list[Effect]) -> None:
        """Ask for what is wanted, as far as FETCHES_MAX allows."""
        while self._wanted and len(self._fetching) < FETCHES_MAX:
            key = next(iter(self._wanted))
            del self._wanted[key]
            self._fetching[key] = None
            file = self._files[key]
            out.append(Fetch(key, file.size))

    def forget_fetches(self) -> None:
        """The link is lost and every transfer with it; all is wanted anew, in the old order."""
        self._wanted = {**self._fetching, **self._wanted}
        self._fetching = {}

    def arrived(self, key: bytes, size: int) -> list[bytes]:
        """Note that a file is here and give the attempts that waited for it."""
        file = self._files.get(key)
        if file is None:
            # Its last user went while it was being written: it is here all the same.
            file = self._files[key] = _File(size)
        if file.is_here:
            return []
        self._fetching.pop(key, None)
        self._wanted.pop(key, None)
        file.is_here = True
        file.is_left_over = False
        self._size += file.size
        if not file.pins:
            self._idle[key] = None
        waiting, file.waiting = list(file.waiting), {}
        return waiting

    def failed(self, key: bytes) -> list[bytes]:
        """Note that a file cannot be had and give the attempts that waited for it.

        They must be unpinned; a later one that wants the file tries again.
        """
        file = self._files.get(key)
        if file is None or file.is_here:
            return []
        self._fetching.pop(key, None)
        self._wanted.pop(key, None)
        file.is_left_over = False
        waiting, file.waiting = list(file.waiting), {}
        return waiting

    def is_here(self, key: bytes) -> bool:
        """Tell whether a file is cached."""
        file = self._files.get(key)
        return file is not None and file.is_here

    def spoil(self, key: bytes, waiting: list[bytes], out: list[Effect]) -> None:
        """Evict a file that was changed. Only the pins of `waiting` remain: they wait for it."""
        file = self._files.pop(key)
        self._idle.pop(key, None)
        self._size -= file.size
        out.append(Evict([key]))
        if waiting:
            fresh = self._files[key] = _File(file.size)
            fresh.pins = len(waiting)
            fresh.waiting = dict.fromkeys(waiting)
            self._wanted[key] = None

    def evict(self, out: list[Effect]) -> None:
        """Evict what is longest unused until the bound is kept or all is in use."""
        if self._size <= self._size_max or not self._idle:
            return
        gone = []
        for key in self._idle:
            if self._size <= self._size_max:
                break
            self._size -= self._files.pop(key).size
            gone.append(key)
        for key in gone:
            del self._idle[key]
        out.append(Evict(gone))

    def statistics(self) -> CacheStatistics:
        """Count."""
        here = len(self._files) - len(self._wanted) - len(self._fetching)
        return CacheStatistics(here, self._size, len(self._wanted), len(self._fetching))

    def check(self, pins: dict[bytes, int], is_settled: bool) -> None:
        """Assert every invariant; `pins` counts what the attempts believe to have pinned.

        `is_settled` says that fetches may run now, so that nothing wanted is left lying.
        """
        assert len(self._fetching) <= FETCHES_MAX, len(self._fetching)
        assert not is_settled or not self._wanted or len(self._fetching) == FETCHES_MAX
        size = 0
        for key, file in self._files.items():
            assert file.pins == pins.get(key, 0), (key, file.pins, pins.get(key))
            is_idle = file.is_here and not file.pins
            assert (key in self._idle) == is_idle, key
            is_asked_for = (key in self._wanted) + (key in self._fetching)
            assert is_asked_for == (not file.is_here), (key, is_asked_for)
            assert not file.is_here or not file.waiting, key
            size += file.size if file.is_here else 0
        assert size == self._size, (size, self._size)
        assert self._size <= self._size_max or not self._idle, self._size
        assert all(key in self._files for key in pins)
