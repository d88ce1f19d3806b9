"""What clients ask of the shell itself: to be let in, files, submissions, results and views.

Submissions are decoded and their files checked here, before the core hears of them. Ended tasks
are read from the store on a thread of its own, so that a slow disk holds up nobody else; only what
is committed can be read there. One read is under way at a time, clients take turns, and who has not
taken its last answer waits: answers of half a megabyte each must not pile up for a deaf one.
"""

import hashlib
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from wqueue._version import __version__
from wqueue.manager.core.core import Core
from wqueue.manager.core.events import ClientHeard, JobSubmitted, Now
from wqueue.manager.file_shell import Peer as FilePeer
from wqueue.manager.files import Files, Verdict
from wqueue.manager.io_threads import IoThreads
from wqueue.manager.limits import RANGES_WAITING_MAX, REQUESTS_WAITING_MAX, STOP_MAX_S
from wqueue.manager.lines import Lines
from wqueue.manager.log import one_line
from wqueue.manager.peers import Peer
from wqueue.manager.report import Facts, answer, needs_records
from wqueue.manager.store import StoreReader
from wqueue.protocol import codec
from wqueue.protocol import messages as m
from wqueue.protocol.codec import Message
from wqueue.protocol.errors import RemoteProtocolError, StoreError
from wqueue.protocol.limits import SILENCE_MAX_S

ANSWER_MAX_BYTES = codec.PAYLOAD_MAX_BYTES - 1024
"""Largest encoded Answer; a longer listing gets fewer rows than were asked for."""

RECORDS_MAX = 10_000
"""Most records read from the store for one listing."""


AT_ONCE = (m.Open, m.Get, m.Data, m.GetFailed)
"""What never waits in line: who somebody is, and file frames, which have bounds of their own."""


class Surroundings(Protocol):
    """What requests need from the shell."""

    core: Core
    files: Files

    def now(self) -> Now:
        """Give the time."""

    def emit(self, event: ClientHeard | JobSubmitted) -> None:
        """Hand an event to the core."""

    def reply(self, peer: Peer, message: Message, after: int = 0) -> None:
        """Send to a client that may be gone."""

    def is_here(self, peer: Peer) -> bool:
        """Tell whether a client is still linked."""

    def has_untaken(self, peer: Peer) -> bool:
        """Tell whether a client has yet to take what was sent to it."""

    def refuse_more(self, peer: Peer) -> None:
        """Drop a client that asks for more than may wait."""

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` run in the loop's thread."""

    def replace_session(self, peer: Peer, resume_secret: bytes) -> None:
        """End an older session of the same client process."""


class _Read(NamedTuple):
    """A request that is answered with what the journal has."""

    request: int
    read: Callable[[], list[m.TaskRecord]]
    make: Callable[[list[m.TaskRecord]], Message]


class Requests:
    """Answers what clients ask; one method per message, by its type."""

    def __init__(self, shell: Surroundings, facts: Facts, reader: StoreReader) -> None:
        self._shell = shell
        self._facts = facts
        self._reader = reader
        self._reads: Lines[_Read] = Lines(REQUESTS_WAITING_MAX, RANGES_WAITING_MAX)
        self._is_reading = False
        self._thread = IoThreads(1, shell.post)
        self._thread.start()
        self._methods: dict[type, Callable[[Peer, m.ClientToManager], None]] = {
            m.Open: self._open,
            m.Declare: self._declare,
            m.Submit: self._submit,
            m.GetResults: self._get_results,
            m.Query: self._query,
        }

    def heard(self, peer: Peer, message: m.ClientToManager, content: bytes | None) -> None:
        """Take one message of a client whose role allows it."""
        if isinstance(message, m.Get | m.Data | m.GetFailed):
            self._shell.files.heard(FilePeer("client", peer.number), message, content)
            return
        method = self._methods.get(type(message))
        if method is not None:
            method(peer, message)
        else:
            self._shell.emit(ClientHeard(peer.number, peer.role, peer.credential, message))

    def forget(self, peer: Peer) -> None:
        """Read nothing more for a client that is gone."""
        self._reads.forget(peer)

    def close(self) -> None:
        """End the reader's thread and its connection."""
        self._thread.close(STOP_MAX_S)
        self._reader.close()

    # --- coming in -----------------------------------------------------------------------------

    def _open(self, peer: Peer, message: m.ClientToManager) -> None:
        assert isinstance(message, m.Open), message
        self._shell.replace_session(peer, message.resume_secret)
        peer.kind = "client"
        peer.session = message.session
        peer.is_trusted = peer.role == "owner" and message.uid == os.getuid()
        program = message.program or "a client"
        peer.name = one_line(f"{program} (pid {message.pid} on {message.host})")
        self._shell.reply(peer, m.Opened(f"wqueue {__version__}", SILENCE_MAX_S))

    def _declare(self, peer: Peer, message: m.ClientToManager) -> None:
        assert isinstance(message, m.Declare), message
        self._shell.files.declare(peer.number, message, peer.is_trusted)

    # --- submissions ---------------------------------------------------------------------------

    def _submit(self, peer: Peer, message: m.ClientToManager) -> None:
        assert isinstance(message, m.Submit), message
        if not message.spec_digest:
            self._decode(peer, message, message.spec)
        elif len(message.spec_digest) == hashlib.sha256().digest_size:
            self._shell.files.read_stored(
                message.spec_digest, lambda blob: self._decode(peer, message, blob)
            )
        else:
            self._refuse(peer, message.request, "bad_spec", "that is no digest")

    def _decode(self, peer: Peer, message: m.Submit, blob: bytes | None) -> None:
        if blob is None:
            text = "the job's description has not been uploaded"
            self._refuse(peer, message.request, "unknown_file", text)
            return
        try:
            spec = codec.decode_spec(blob)
        except RemoteProtocolError as error:
            self._refuse(peer, message.request, "bad_spec", str(error))
            return

        def then(verdict: Verdict) -> None:
            if verdict.code:
                self._refuse(peer, message.request, verdict.code, verdict.text)
                return
            self._shell.emit(
                JobSubmitted(
                    client=peer.number,
                    credential=peer.credential,
                    request=message.request,
                    submission=message.submission,
                    spec=spec,
                    spec_bytes=blob,
                    may_write=verdict.may_write,
                    # Nobody would ever tell the core that a client gone by now is gone.
                    watch=message.watch and self._shell.is_here(peer),
                )
            )

        self._shell.files.check_submission(spec.files, spec.directory, peer.is_trusted, then)

    # --- reading -------------------------------------------------------------------------------

    def _get_results(self, peer: Peer, message: m.ClientToManager) -> None:
        assert isinstance(message, m.GetResults), message
        if self._shell.core.job(message.job) is None:
            text = f"there is no job {message.job}; wq-status -J lists jobs"
            self._refuse(peer, message.request, "no_such_task", text)
            return
        read = _Read(
            message.request,
            lambda: self._reader.results(message.job, message.cursor, message.limit),
            lambda found: m.Results(message.request, message.job, found),
        )
        self._read(peer, read)

    def _query(self, peer: Peer, message: m.ClientToManager) -> None:
        assert isinstance(message, m.Query), message
        ranges = needs_records(self._shell.core, message)
        if not ranges:
            self._shell.reply(peer, self._view(message, []))
            return
        read = _Read(
            message.request,
            lambda: self._reader.records(ranges, RECORDS_MAX),
            lambda found: self._view(message, found),
        )
        self._read(peer, read, len(message.ranges))

    def _view(self, query: m.Query, records: list[m.TaskRecord]) -> m.Answer:
        view = answer(self._shell.core, self._facts, query, self._shell.now(), records)
        rows = len(view.jobs) + len(view.tasks) + len(view.workers)
        while rows > 1 and len(codec.encode(view)) > ANSWER_MAX_BYTES:
            rows //= 2
            view = msgspec.structs.replace(
                view, jobs=view.jobs[:rows], tasks=view.tasks[:rows], workers=view.workers[:rows]
            )
        return view

    def _read(self, peer: Peer, read: _Read, cost: int = 0) -> None:
        """Have the reader's thread read when it is this client's turn, then answer."""
        if not self._shell.is_here(peer):
            return
        if self._reads.put(peer, read, cost):
            self.read_on()
        else:
            self._shell.refuse_more(peer)

    def read_on(self) -> None:
        """Begin the next read, if none is under way and somebody's turn has come."""
        if self._is_reading or not self._reads:
            return
        waiting = self._reads.take(lambda peer: not self._shell.has_untaken(peer))
        if waiting is not None:
            peer, read = waiting
            self._is_reading = True
            self._thread.run(
                lambda: self._records(read), lambda found: self._end_read(peer, read, found)
            )

    @property
    def is_holding_back(self) -> bool:
        """Whether reads wait for nothing but a client that takes its last answer."""
        return bool(self._reads) and not self._is_reading

    @staticmethod
    def _records(read: _Read) -> list[m.TaskRecord] | StoreError:
        try:
            return read.read()
        except StoreError as error:
            return error

    def _end_read(self, peer: Peer, read: _Read, found: list[m.TaskRecord] | StoreError) -> None:
        self._is_reading = False
        if isinstance(found, StoreError):
            self._refuse(peer, read.request, "store", str(found))
        elif self._shell.is_here(peer):
            self._shell.reply(peer, read.make(found))

    def _refuse(self, peer: Peer, request: int, code: str, text: str) -> None:
        self._shell.reply(peer, m.Refusal(code, text[:4000], request))
