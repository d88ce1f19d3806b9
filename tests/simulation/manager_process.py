"""One life of the manager: the real core, with the shell's duties done in virtual time."""

from collections import deque
from collections.abc import Callable
from hashlib import sha256

from simulation.checks import Checks
from simulation.faults import Faults
from simulation.model_store import ModelStore, Tables
from simulation.network import Link
from simulation.schedule import Schedule, Ticker
from wqueue.manager.core.core import Core
from wqueue.manager.core.events import (
    Announce,
    ClientGone,
    ClientHeard,
    DiscardOutputs,
    DropWorker,
    Effect,
    Event,
    JobSubmitted,
    Note,
    Now,
    OutputsPublished,
    OutputsStaged,
    PublishOutputs,
    Reply,
    Send,
    StageOutputs,
    Stop,
    StoreBlocked,
    StoreOpened,
    Ticked,
    WorkerHeard,
    WorkerLost,
    WorkerRegistered,
)
from wqueue.manager.core.limits import Settings
from wqueue.protocol.codec import decode_spec
from wqueue.protocol.messages import (
    ClientToManager,
    FromWorker,
    GetResults,
    ManagerHeartbeat,
    Register,
    Results,
    Submit,
)

SETTINGS = Settings(worker_grace_s=5.0, reattach_wait_s=10.0, manager_grace_s=1e6)
WALL_S = 1.7e9


class Peer:
    """A worker's or client's connection as the manager's shell keeps it."""

    def __init__(self, link: Link, hear: Callable[[object], None]) -> None:
        self.link = link
        self.hear = hear
        self.waiting: deque[tuple[int, object]] = deque()


class ManagerProcess:
    """From start to crash."""

    def __init__(
        self,
        schedule: Schedule,
        faults: Faults,
        tables: Tables,
        checks: Checks,
        on_crash: Callable[[], None],
        trace: Callable[[str], None],
        staging_s: float,
    ) -> None:
        self._staging_s = staging_s
        self.core = Core(SETTINGS)
        self.is_alive = True
        self._schedule = schedule
        self._faults = faults
        self._tables = tables
        self._checks = checks
        self._on_crash = on_crash
        self._trace = trace
        self._store = ModelStore(tables, schedule, faults, self._committed, self._blocked)
        self._workers: dict[int, Peer] = {}
        self._clients: dict[int, Peer] = {}
        self._connections = 0
        self._gated: deque[tuple[int, Callable[[], None]]] = deque()
        self._ticker = Ticker(schedule, lambda: self.handle(Ticked()))
        restored = tables.restored()
        self.epoch = restored.epoch
        self.handle(restored)
        self._beat(0)

    # --- what happens to it -----------------------------------------------------------------

    def connect_worker(self, link: Link, hear: Callable[[object], None]) -> int:
        """Take a proven worker's connection; give its number."""
        self._connections += 1
        session = self._connections
        self._workers[session] = Peer(link, hear)
        link.when_lost(lambda: self._worker_lost(session))
        return session

    def connect_client(self, link: Link, hear: Callable[[object], None]) -> int:
        """Take a proven client's connection; give its number."""
        self._connections += 1
        client = self._connections
        self._clients[client] = Peer(link, hear)
        link.when_lost(lambda: self._client_lost(client))
        return client

    def hear_worker(self, session: int, message: FromWorker) -> None:
        """Take a worker's message off the wire."""
        if session not in self._workers:
            return
        if isinstance(message, Register):
            worker_id = sha256(message.resume_secret).digest()[:16]
            self.handle(WorkerRegistered(session, worker_id, "sim", message))
        else:
            self.handle(WorkerHeard(session, message))

    def hear_client(self, client: int, message: ClientToManager) -> None:
        """Take a client's message off the wire."""
        if client not in self._clients:
            return
        if isinstance(message, Submit):
            spec = decode_spec(message.spec)
            self.handle(
                JobSubmitted(
                    client, b"owner", message.request, message.submission, spec, message.spec,
                    may_write=True, watch=message.watch,
                )
            )  # fmt: skip
        elif isinstance(message, GetResults):
            rows = self._tables.ended.get(message.job, {}).values()
            wanted = sorted((r for r in rows if r.event > message.cursor), key=lambda r: r.event)
            answer = Results(message.request, message.job, wanted[: message.limit])
            self._send(self._clients[client], answer)
        else:
            self.handle(ClientHeard(client, "owner", b"owner", message))

    def _worker_lost(self, session: int) -> None:
        if self._workers.pop(session, None) is not None and self.is_alive:
            self.handle(WorkerLost(session))

    def _client_lost(self, client: int) -> None:
        if self._clients.pop(client, None) is not None and self.is_alive:
            self.handle(ClientGone(client))

    def crash(self) -> None:
        """Die at once: what was not committed or sent is gone, links break."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._store.is_dead = True
        self._trace("manager crashed")
        for peer in [*self._workers.values(), *self._clients.values()]:
            peer.link.lose()
        self._on_crash()

    # --- the loop ---------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Feed the core and carry out what it wants; a crash may come between any two effects."""
        if not self.is_alive:
            return
        now_s = self._schedule.now_s
        effects = self.core.handle(event, Now(now_s, WALL_S + now_s))
        self.core.check()
        self._trace(f"manager {type(event).__name__}")
        for effect in effects:
            if self._faults.strikes("manager_crash"):
                self.crash()
                return
            self._carry_out(effect)
        self._ticker.plan(self.core.deadline())

    def _beat(self, number: int) -> None:
        if not self.is_alive:
            return
        for peer in list(self._workers.values()):
            self._send(peer, ManagerHeartbeat(number), "announce")
        self._schedule.after(SETTINGS.heartbeat_s, lambda: self._beat(number + 1))

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send():
                peer = self._workers.get(effect.session)
                if peer is not None:
                    self._checks.sent_to_worker(self._tables, effect.message)
                    self._queue(peer, effect.after, effect.message)
            case Reply():
                peer = self._clients.get(effect.client)
                if peer is not None:
                    self._queue(peer, effect.after, effect.message)
            case DropWorker():
                peer = self._workers.pop(effect.session, None)
                if peer is not None:
                    peer.link.lose()
            case StageOutputs():
                self._stage(effect)
            case PublishOutputs():
                self._gate(effect.after, lambda: self._publish(effect))
            case DiscardOutputs():
                self._checks.discarded(effect.attempt)
            case Note():
                self._trace(f"note {effect.text}")
            case Announce() | Stop():
                pass
            case _:
                self._trace(f"record {type(effect).__name__} {effect.record}")
                self._store.write(effect)

    # --- gates --------------------------------------------------------------------------------

    def _queue(self, peer: Peer, after: int, message: object) -> None:
        peer.waiting.append((after, message))
        self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        while peer.waiting and peer.waiting[0][0] <= self._store.committed:
            _, message = peer.waiting.popleft()
            self._checks.released(self._tables, message)
            self._send(peer, message)

    def _send(self, peer: Peer, message: object, lane: str = "out") -> None:
        peer.link.carry(lane, lambda: peer.hear(message))

    def _gate(self, after: int, call: Callable[[], None]) -> None:
        if after <= self._store.committed:
            call()
        else:
            self._gated.append((after, call))

    def _committed(self) -> None:
        for peer in [*self._workers.values(), *self._clients.values()]:
            self._flush(peer)
        while self._gated and self._gated[0][0] <= self._store.committed:
            self._gated.popleft()[1]()

    def _blocked(self, is_blocked: bool) -> None:
        self.handle(StoreBlocked("disk full") if is_blocked else StoreOpened())

    # --- files ----------------------------------------------------------------------------------

    def _stage(self, effect: StageOutputs) -> None:
        is_inline = all(output.inline is not None for output in effect.outputs)

        def staged() -> None:
            if not is_inline and effect.session not in self._workers:
                event = OutputsStaged(effect.attempt, "its link was lost", is_worker_at_fault=True)
            else:
                event = OutputsStaged(effect.attempt)
                self._checks.staged(effect.attempt)
            self.handle(event)

        self._schedule.soon(staged, self._staging_s)

    def _publish(self, effect: PublishOutputs) -> None:
        def published() -> None:
            if self.is_alive:
                self._checks.published(self._tables, effect.job, effect.index, effect.attempt)
                self.handle(OutputsPublished(effect.attempt))

        self._schedule.soon(published, 0.02)
