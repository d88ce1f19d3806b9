"""Larger outputs: hashed when a task has ended, and served to the manager until it has them."""

import os
from collections.abc import Callable

from blake3 import blake3

from wqueue.protocol.errors import RemoteProtocolError
from wqueue.protocol.messages import STDERR, STDOUT, Data, Get, GetFailed, OutputResult
from wqueue.protocol.names import show
from wqueue.protocol.sources import AttemptOutput, parse_source
from wqueue.protocol.transfer import readable
from wqueue.worker.core.events import Collect, Collected
from wqueue.worker.file_threads import FileThreads
from wqueue.worker.outbox import Kept, Outbox
from wqueue.worker.sandbox import ERR, OUT, open_output

HASH_BYTES = 1024 * 1024
"""Read at once while hashing."""


def output_path(sandbox: bytes, position: int, name: bytes) -> bytes:
    """Give the place of an output; what was printed lies beside the sandbox."""
    if position == STDOUT:
        return sandbox + OUT
    if position == STDERR:
        return sandbox + ERR
    return sandbox + b"/" + name


class Outputs:
    """What the manager may fetch from here. For use by the loop's thread."""

    def __init__(
        self,
        sandbox: Callable[[bytes], bytes],
        outbox: Outbox,
        threads: FileThreads,
        send: Callable[[int, Data | GetFailed, bytes | None], None],
        report: Callable[[Collected], None],
    ) -> None:
        self._sandbox = sandbox
        self._outbox = outbox
        self._threads = threads
        self._send = send
        self._report = report

    def collect(self, effect: Collect) -> None:
        """Hash the outputs of an attempt and report them."""
        sandbox = self._sandbox(effect.attempt)
        self._threads.do(lambda: _collect(sandbox, effect), self._report)

    def serve(self, session: int, get: Get) -> None:
        """Answer a request for a part of an output."""
        found = self._find(get.source)
        if found is None:
            self._send(session, GetFailed(get.transfer, "missing", "it is not here"), None)
            return
        kept, path = found
        self._threads.do(
            lambda: _read(kept.sandbox, path, get),
            lambda answer: self._send(session, answer[0], answer[1]),
        )

    def _find(self, source: bytes) -> tuple[Kept, bytes] | None:
        try:
            wanted = parse_source(source)
        except RemoteProtocolError:
            return None
        if not isinstance(wanted, AttemptOutput):
            return None
        kept = self._outbox.get(wanted.attempt)
        path = dict(kept.files).get(wanted.position) if kept is not None else None
        return None if kept is None or path is None else (kept, path)


def _collect(sandbox: bytes, effect: Collect) -> Collected:
    results = []
    for position, name, mode in effect.outputs:
        try:
            size, digest = _hash(sandbox, output_path(sandbox, position, name))
        except OSError as error:
            what = {STDOUT: "standard output", STDERR: "standard error"}.get(position)
            shown = what or f"output {show(name)!r}"
            return Collected(effect.attempt, [], f"Cannot read {shown}: {error.strerror}")
        results.append(OutputResult(position, size, mode, digest))
    return Collected(effect.attempt, results)


def _open(sandbox: bytes, path: bytes) -> int:
    # A link is followed as long as it stays inside the sandbox, as when the outputs were looked at.
    inside = path.removeprefix(sandbox + b"/")
    if inside != path:
        return open_output(sandbox, inside)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _hash(sandbox: bytes, path: bytes) -> tuple[int, bytes]:
    hasher, size = blake3(), 0
    descriptor = _open(sandbox, path)
    try:
        while content := os.read(descriptor, HASH_BYTES):
            hasher.update(content)
            size += len(content)
    finally:
        os.close(descriptor)
    return size, hasher.digest()


def _read(sandbox: bytes, path: bytes, get: Get) -> tuple[Data | GetFailed, bytes | None]:
    try:
        descriptor = _open(sandbox, path)
        try:
            length = readable(get, os.fstat(descriptor).st_size)
            content = os.pread(descriptor, length, get.offset) if length else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return GetFailed(get.transfer, "missing", "it is not there any more"), None
    except OSError as error:
        return GetFailed(get.transfer, "unreadable", error.strerror or str(error)), None
    return Data(get.transfer, get.offset), content
