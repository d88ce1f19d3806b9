"""Between the core and the world: what was heard becomes events, effects are carried out in order.

The loop calls this with what the sockets gave; everything happens in the loop's thread. Events are
queued and handed over one by one, so an effect never meets the core in the middle of another
event's effects. Records gather until the end of a turn and go to the store together; what depends
on them is held back by number, sends in the wire's lines, publishing here.
"""

import hashlib
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from wqueue.manager.core import events as e
from wqueue.manager.core.core import Core
from wqueue.manager.core.events import Now
from wqueue.manager.file_shell import FinishedOutput
from wqueue.manager.file_shell import Peer as FilePeer
from wqueue.manager.files import Files
from wqueue.manager.limits import (
    CLIENTS_TURN_S,
    REQUESTS_WAITING_BYTES,
    REQUESTS_WAITING_MAX,
    TURN_EVENTS_KEPT,
)
from wqueue.manager.lines import Lines
from wqueue.manager.log import LOG, one_line
from wqueue.manager.peers import Peer
from wqueue.manager.requests import AT_ONCE, Requests
from wqueue.manager.store import Store
from wqueue.manager.wire import Heard, Wire
from wqueue.protocol import messages as m
from wqueue.protocol.codec import Message
from wqueue.protocol.messages import STDOUT

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_RECORDS = (
    e.JobAdded, e.JobEnded, e.WorkerAdmitted, e.WorkerLeft, e.AttemptStarted, e.AttemptFailed,
    e.TaskPublishing, e.TaskEnded,
)  # fmt: skip


class Shell:
    """Carries events in and effects out. Attributes set after making it: files, requests."""

    files: Files
    requests: Requests

    def __init__(
        self,
        core: Core,
        store: Store,
        wire: Wire,
        wake: Callable[[], None],
        *,
        is_checking: bool = False,
    ) -> None:
        self.core = core
        self.store = store
        self.wire = wire
        self.is_stopping = False
        self._wake = wake
        self._is_checking = is_checking
        self._posted: deque[Callable[[], None]] = deque()
        self._events: deque[tuple[e.Event, str]] = deque()
        self._recent: deque[tuple[e.Event, str]] = deque(maxlen=TURN_EVENTS_KEPT)
        self._speaker = ""
        self._records: list[e.Record] = []
        self._last_record = 0
        self._publishing: list[tuple[int, int, e.PublishOutputs]] = []
        self._counter = itertools.count()
        self._waiting: Lines[m.ClientToManager] = Lines(REQUESTS_WAITING_MAX)
        self._served: dict[int, list[m.FileRef]] = {}
        self._resume_secrets: dict[bytes, Peer] = {}
        self._now = Now(time.monotonic(), time.time())
        carry_out: dict[type, Callable[[Any], None]] = dict.fromkeys(_RECORDS, self._record)
        carry_out[e.JobAdded] = self._add_job
        carry_out[e.JobEnded] = self._end_job
        carry_out[e.Send] = self._send_to_worker
        carry_out[e.Reply] = self._reply_to_client
        carry_out[e.DropWorker] = self._drop_worker
        carry_out[e.StageOutputs] = self._stage
        carry_out[e.PublishOutputs] = self._publish
        carry_out[e.DiscardOutputs] = self._stage
        carry_out[e.Note] = self._note
        carry_out[e.Announce] = self._announce
        carry_out[e.Stop] = self._stop
        self._carry_out = carry_out

    # --- what others call ------------------------------------------------------------------

    def now(self) -> Now:
        """The time of this turn."""
        return self._now

    def begin_turn(self) -> Now:
        """Read the clocks; all that happens in a turn happens at this time."""
        self._now = Now(time.monotonic(), time.time())
        return self._now

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` run in the loop's thread soon; the one method other threads may call."""
        self._posted.append(call)
        self._wake()

    def emit(self, event: e.Event) -> None:
        """Queue an event for the core."""
        self._events.append((event, self._speaker))

    def send(
        self,
        peer: FilePeer,
        message: m.Get | m.Data | m.GetFailed | m.Declared | m.FileStored,
        data: bytes | None = None,
    ) -> None:
        """Send a file message; a peer that is gone is no error."""
        addressee = self.wire.peers.get(peer.number)
        if addressee is None:
            return
        if isinstance(message, m.Data):
            self.wire.send_content(addressee, message, data or b"")
        else:
            self.wire.send(addressee, message)

    def reply(self, peer: Peer, message: Message, after: int = 0) -> None:
        """Send to a peer that may be gone."""
        if self.is_here(peer):
            self.wire.send(peer, message, after)

    def is_here(self, peer: Peer) -> bool:
        """Tell whether a peer is still linked."""
        return peer.number in self.wire.peers

    def has_untaken(self, peer: Peer) -> bool:
        """Tell whether a client has yet to take what was sent to it."""
        return self.wire.has_untaken(peer)

    def find_output(self, job_uid: bytes, index: int, position: int) -> FinishedOutput | None:
        """Say where an ended task's output lies."""
        job = self.core.job_of_uid(job_uid)
        if job is None or index >= job.spec.count or not job.is_task_ended(index):
            return None
        if position >= STDOUT or not job.may_write:
            return FinishedOutput(job.number, b"")
        outputs = job.spec.template.outputs
        if position >= len(outputs):
            return None
        destination = job.filled(outputs[position].destination, index)
        return FinishedOutput(job.number, destination)

    def replace_session(self, peer: Peer, resume_secret: bytes) -> None:
        """End an older session of the same client process."""
        name = hashlib.sha256(resume_secret).digest()[:16]
        old = self._resume_secrets.get(name)
        if old is not None and old is not peer and old.number in self.wire.peers:
            self.wire.cut(old)
        self._resume_secrets[name] = peer

    # --- hearing ---------------------------------------------------------------------------

    def run_posted(self) -> None:
        """Run what other threads have posted."""
        for _ in range(len(self._posted)):
            self._posted.popleft()()
            self.run_events()

    def hear(self, heard: Heard) -> None:
        """Take what a peer said and let the core react."""
        self._speaker = heard.peer.name
        if heard.door == "client":
            self._hear_client(heard)
        else:
            for message in heard.messages:
                self._hear_worker(heard.peer, message, heard.content)
        self._speaker = ""
        self.run_events()

    def _hear_client(self, heard: Heard) -> None:
        """Put requests in line; what must not wait is carried out: one step each, and short."""
        size = heard.size // len(heard.messages)
        for message in heard.messages:
            if isinstance(message, AT_ONCE):
                self.requests.heard(heard.peer, message, heard.content)
            elif not self._waiting.put(heard.peer, message, size):  # type: ignore[arg-type]
                self.refuse_more(heard.peer)
                return

    def serve_clients(self) -> None:
        """Carry out clients' requests, peers in turn, as long as a turn of the loop has time."""
        ends_s = time.monotonic() + CLIENTS_TURN_S
        while (waiting := self._waiting.take()) is not None:
            peer, message = waiting
            self._speaker = peer.name
            self.requests.heard(peer, message, None)
            self._speaker = ""
            self.run_events()
            if time.monotonic() >= ends_s:
                return

    @property
    def has_waiting_clients(self) -> bool:
        """Whether requests are left for the next turn."""
        return bool(self._waiting)

    @property
    def is_hearing_clients(self) -> bool:
        """Whether there is room for more requests; else they wait in the sockets."""
        return self._waiting.cost < REQUESTS_WAITING_BYTES

    def refuse_more(self, peer: Peer) -> None:
        """Drop a client that asks for more than may wait, and all that waits of it."""
        text = f"more than {REQUESTS_WAITING_MAX} requests wait; ask for less at a time"
        self.wire.refuse_for_good(peer, "too_many", text, self._now.monotonic_s)
        self._forget_requests(peer)

    def _forget_requests(self, peer: Peer) -> None:
        self._waiting.forget(peer)
        self.requests.forget(peer)

    def _hear_worker(self, peer: Peer, message: Message, content: bytes | None) -> None:
        if isinstance(message, m.Register):
            self._register(peer, message)
        elif isinstance(message, m.Attach):
            if message.session != peer.session:
                LOG.warning("result: %s attaches to a session it has not; dropped", peer.name)
                self.wire.cut(peer)
        elif isinstance(message, m.Get | m.Data | m.GetFailed):
            self.files.heard(FilePeer("worker", peer.number), message, content)
        else:
            self.emit(e.WorkerHeard(peer.number, message))  # type: ignore[arg-type]

    def _register(self, peer: Peer, message: m.Register) -> None:
        peer.kind = "worker"
        peer.session = message.session
        peer.name = f"the worker {message.pid} on {one_line(message.host)}"
        worker_id = hashlib.sha256(message.resume_secret).digest()[:16]
        # The secret is the worker's alone: it goes no further than this line.
        register = msgspec.structs.replace(message, resume_secret=bytes(32))
        self.emit(e.WorkerRegistered(peer.number, worker_id, peer.address, register))

    def lose(self, peer: Peer) -> None:
        """Take note that a peer's session is over."""
        self._speaker = peer.name
        if peer.kind == "worker":
            self.files.lost(FilePeer("worker", peer.number))
            self.emit(e.WorkerLost(peer.number))
        elif peer.kind == "client":
            self._forget_requests(peer)
            self.files.lost(FilePeer("client", peer.number))
            self.emit(e.ClientGone(peer.number))
            for name in [n for n, p in self._resume_secrets.items() if p is peer]:
                del self._resume_secrets[name]
        self._speaker = ""
        self.run_events()

    # --- the core --------------------------------------------------------------------------

    def run_events(self) -> None:
        """Hand the queued events to the core and carry out what it wants, in order."""
        while self._events:
            event, speaker = self._events.popleft()
            self._recent.append((event, speaker))
            for effect in self.core.handle(event, self._now):
                self._carry_out[type(effect)](effect)
            if self._is_checking:
                self.core.check()

    def tick(self) -> None:
        """Let the core look at the time when it wants to."""
        deadline = self.core.deadline()
        if deadline is not None and deadline <= self._now.monotonic_s:
            self.emit(e.Ticked())
            self.run_events()

    def restore(self, restored: e.Restored) -> None:
        """Give the core what the store had; the first event of all."""
        self.emit(restored)
        self.run_events()
        for job in self.core.state.jobs.values():
            if not job.is_ended:
                self._serve(job.number, job.spec.files)

    # --- the store -------------------------------------------------------------------------

    def hear_store(self) -> None:
        """Take what the store has to say, and begin what waited for its commits."""
        for news in self.store.news():
            self.emit(news)
        committed = self.store.committed
        while self._publishing and self._publishing[0][0] <= committed:
            self.files.carry_out(heapq.heappop(self._publishing)[2])
        self.run_events()

    def write_records(self) -> None:
        """Hand this turn's records to the store."""
        if self._records:
            records, self._records = self._records, []
            self.store.write(records)

    @property
    def is_committed(self) -> bool:
        """Whether everything decided so far is on disk and on its way."""
        is_written = not self._records and self.store.committed >= self._last_record
        return is_written and not self._publishing and not self.wire.has_to_send

    # --- effects ---------------------------------------------------------------------------

    def _record(self, effect: e.Record) -> None:
        self._records.append(effect)
        self._last_record = effect.record

    def _add_job(self, effect: e.JobAdded) -> None:
        self._record(effect)
        job = self.core.job(effect.job)
        assert job is not None, f"job {effect.job} was added and is not there"
        self._serve(job.number, job.spec.files)

    def _serve(self, job: int, refs: list[m.FileRef]) -> None:
        if refs:
            self._served[job] = refs
            self.files.add_job(refs)

    def _end_job(self, effect: e.JobEnded) -> None:
        self._record(effect)
        refs = self._served.pop(effect.job, None)
        if refs is not None:
            self.files.forget_job(refs)

    def _send_to_worker(self, effect: e.Send) -> None:
        peer = self.wire.peers.get(effect.session)
        if peer is not None:
            self.wire.send(peer, effect.message, effect.after)

    def _reply_to_client(self, effect: e.Reply) -> None:
        peer = self.wire.peers.get(effect.client)
        if peer is not None:
            self.wire.send(peer, effect.message, effect.after)

    def _drop_worker(self, effect: e.DropWorker) -> None:
        peer = self.wire.peers.get(effect.session)
        if peer is not None:
            LOG.info("%s is dropped: %s", peer.name, effect.reason)
            self.wire.drop(peer, self._now.monotonic_s)

    def _stage(self, effect: e.StageOutputs | e.DiscardOutputs) -> None:
        self.files.carry_out(effect)

    def _publish(self, effect: e.PublishOutputs) -> None:
        if effect.after <= self.store.committed:
            self.files.carry_out(effect)
        else:
            heapq.heappush(self._publishing, (effect.after, next(self._counter), effect))

    def _note(self, effect: e.Note) -> None:
        LOG.log(_LEVELS.get(effect.level, logging.INFO), "%s", one_line(effect.text, 2000))

    def _announce(self, effect: e.Announce) -> None:
        self.wire.announce([m.Stopping(effect.is_final, effect.reason)])

    def _stop(self, effect: e.Stop) -> None:
        self.is_stopping = True

    # --- when something went wrong -----------------------------------------------------------

    def log_recent(self) -> None:
        """Log the last events, so that a bug can be told from the log."""
        for event, speaker in self._recent:
            LOG.error("  event%s: %s", f" of {speaker}" if speaker else "", one_line(repr(event)))
        if self._recent and self._recent[-1][1]:
            LOG.error("the last event came from %s", self._recent[-1][1])
