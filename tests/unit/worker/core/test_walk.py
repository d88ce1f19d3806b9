"""Random walks: in any order of events every invariant stands and every task is accounted for."""

from random import Random

import pytest
from support.worker_core import Bench, attempt_id, dispatch, file_ref, one_job

from wqueue.protocol.messages import (
    Cancel,
    OutputResult,
    Reattach,
    Registered,
    ResultAck,
    Returned,
    TakeBack,
)
from wqueue.protocol.resources import Resources, Room
from wqueue.worker.core.attempt import AttemptStatistics
from wqueue.worker.core.events import (
    Acknowledge,
    Append,
    Collect,
    Collected,
    Connect,
    ConnectFailed,
    Disconnect,
    DropFetch,
    Effect,
    Ended,
    Evict,
    Exit,
    Fetch,
    FileFailed,
    FilesCached,
    FileSpoiled,
    Kill,
    LinkLost,
    NotStarted,
    OpenResults,
    OutputFound,
    Reported,
    Restored,
    ResultsOpened,
    Resumed,
    SendResults,
    SendTask,
    Start,
    StopRequested,
    Ticked,
)

TOTAL = Resources(4000, 400, 0, 2)

FILES = [file_ref(f"file{i}", 40) for i in range(30)]


class World:
    """What stands around a core: a shell and a manager that are slow and forgetful, never wrong."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.bench = Bench(
            resources=TOTAL, gpu_ids=["0", "1"], cache_bytes_max=400, idle_timeout_s=0.0
        )
        self.started: dict[bytes, Start] = {}
        self.collecting: list[Collect] = []
        self.fetching: dict[bytes, int] = {}
        self.cache: dict[bytes, None] = {}
        self.spoiled: set[bytes] = set()
        """Cached files that a task has changed, which is seen when the next one is to start."""
        self.given: dict[bytes, None] = {}
        """Attempts that this worker must account for."""
        self.outbox: dict[bytes, None] = {}
        self.unacknowledged: dict[bytes, None] = {}
        self.room = Room(TOTAL)
        self.jobs: list[bytes] = []
        self.link = "wanted"
        self.index = 0
        self.trace: list[Effect] = []
        self.is_over = False
        self.resources: dict[bytes, Resources] = {}
        self.carry_out(self.bench.feed(Restored()))

    def carry_out(self, effects: list[Effect]) -> None:
        self.trace += effects
        for effect in effects:
            assert not self.is_over
            self.carry_out_one(effect)
        for effect in effects:
            if isinstance(effect, Start) and not self.is_over:
                self.look_at_links(effect)

    def look_at_links(self, effect: Start) -> None:
        keys = [key for key, _, _ in effect.links]
        spoiled = [key for key in keys if key in self.spoiled or key not in self.cache]
        if not spoiled:
            return
        del self.started[effect.attempt]
        self.room.give_back(self.resources[effect.attempt])
        for key in spoiled:
            self.feed(FileSpoiled(key))
        self.feed(NotStarted(effect.attempt))

    def spoil(self) -> None:
        if self.cache:
            key = self.dice.choice(list(self.cache))
            if self.dice.random() < 0.5:
                self.spoiled.add(key)
            else:
                self.feed(FileSpoiled(key))

    def carry_out_one(self, effect: Effect) -> None:
        match effect:
            case Connect():
                assert self.link in ("wanted", "closed")
                self.link = "wanted"
            case Disconnect():
                self.link = "closed"
                self.fetching.clear()
            case OpenResults():
                self.link = "half"
            case Fetch(key, size):
                assert key not in self.cache
                self.fetching[key] = size
                assert len(self.fetching) <= 8
            case DropFetch(key):
                del self.fetching[key]
            case Evict(keys):
                for key in keys:
                    del self.cache[key]
                    self.spoiled.discard(key)
            case Start(attempt):
                assert attempt not in self.started
                assert all(key in self.cache for key, _, _ in effect.links)
                self.room.take(self.resources[attempt])
                self.started[attempt] = effect
            case Kill(attempt):
                assert attempt in self.started
            case Collect():
                self.collecting.append(effect)
            case Append(finished):
                self.outbox |= dict.fromkeys(f.result.attempt for f in finished)
                for one in finished:
                    self.given.pop(one.result.attempt, None)
            case SendResults(_, results):
                assert self.link == "up"
                for result in results:
                    assert result.attempt in self.outbox
                    self.unacknowledged[result.attempt] = None
            case Acknowledge(attempts):
                for attempt in attempts:
                    del self.outbox[attempt]
            case SendTask(_, Returned(attempts)):
                for attempt in attempts:
                    self.given.pop(attempt, None)
            case Exit():
                self.is_over = True
            case _:
                pass

    def step(self) -> None:
        self.bench.now_s += self.dice.choice([0.0, 0.01, 0.2, 3.0])
        actions = [self.tick, self.connect, self.dispatch, self.dispatch, self.cancel, self.fetch]
        actions += [self.fetch, self.end, self.end, self.collect, self.acknowledge, self.take_back]
        actions += [self.spoil]
        if self.dice.random() < 0.05:
            actions = [self.lose]
        self.dice.choice(actions)()

    def feed(self, event: object) -> None:
        self.carry_out(self.bench.feed(event))  # type: ignore[arg-type]

    def tick(self) -> None:
        self.feed(self.dice.choice([Ticked(), Resumed()]))

    def connect(self) -> None:
        session = self.bench.session
        if self.link == "wanted":
            if self.dice.random() < 0.3:
                self.feed(ConnectFailed(session, "unreachable", "no", 3))
                return
            self.link = "registering"
            self.jobs.clear()
            self.carry_out(self.bench.connect())
        elif self.link == "registering":
            unwanted = [a for a in self.started if self.dice.random() < 0.1]
            for attempt in unwanted:
                self.given.pop(attempt, None)
            self.carry_out(self.bench.hear(Registered(1, 5.0, 30.0, [], unwanted)))
        elif self.link == "half":
            self.link = "up"
            self.feed(ResultsOpened(session))

    def lose(self) -> None:
        if self.link in ("registering", "half", "up"):
            self.unacknowledged.clear()
            if self.dice.random() < 0.5:
                self.feed(LinkLost(self.bench.session, "gone"))
            else:
                self.carry_out(self.bench.hear(Reattach()))

    def dispatch(self) -> None:
        if self.link not in ("half", "up"):
            return
        uid = b"%016d" % self.dice.randrange(6)
        kind = int(uid)
        messages: list[object] = []
        shape = Resources([1000, 1000, 2000, 500, 4000, 9000][kind], 0, 0, int(kind == 2))
        if uid not in self.jobs:
            self.jobs.append(uid)
            names = [f"file{i}" for i in self.dice.sample(range(30), kind)]
            describe = one_job(
                uid=uid,
                outputs=(b"o",),
                cores=shape.cores_milli / 1000,
                gpus=shape.gpus,
                files=tuple(names),
            )
            describe.files[:] = [file_ref(name, 40) for name in names]
            messages.append(describe)
        indexes = list(range(self.index, self.index + self.dice.randrange(1, 4)))
        self.index = indexes[-1] + 1
        if self.dice.random() < 0.1:
            indexes[0] = self.dice.randrange(self.index)
        for index in indexes:
            attempt = attempt_id(index, uid=uid)
            if attempt not in self.resources:
                self.resources[attempt] = shape
                self.given[attempt] = None
        fresh = [i for i in indexes if attempt_id(i, uid=uid) in self.resources]
        self.carry_out(self.bench.hear(*messages, dispatch(*fresh, uid=uid)))  # type: ignore[arg-type]

    def some(self, attempts: dict[bytes, None]) -> list[bytes]:
        return [a for a in attempts if self.dice.random() < 0.2]

    def cancel(self) -> None:
        if self.link in ("half", "up"):
            unwanted = self.some(self.given)
            for attempt in unwanted:
                del self.given[attempt]
            self.carry_out(self.bench.hear(Cancel(unwanted)))

    def take_back(self) -> None:
        if self.link in ("half", "up"):
            self.carry_out(self.bench.hear(TakeBack(self.some(self.given))))

    def fetch(self) -> None:
        if not self.fetching:
            return
        key = self.dice.choice(list(self.fetching))
        size = self.fetching.pop(key)
        if self.dice.random() < 0.1:
            self.feed(FileFailed(key, "Input was changed", self.dice.random() < 0.5))
        else:
            self.cache[key] = None
            self.feed(FilesCached([(key, size)]))

    def end(self) -> None:
        if self.started:
            attempt = self.dice.choice(list(self.started))
            del self.started[attempt]
            self.room.give_back(self.resources[attempt])
            found = self.dice.choice(
                [[], [OutputFound(0, "ok", 1, inline=b"x")], [OutputFound(0, "ok", 99999)]]
            )
            self.feed(Reported([Ended(attempt, "exited", 0, outputs=found, has_sandbox=True)]))

    def collect(self) -> None:
        if self.collecting:
            effect = self.collecting.pop(self.dice.randrange(len(self.collecting)))
            results = [OutputResult(p, 99999, mode, b"D" * 32) for p, _, mode in effect.outputs]
            self.feed(Collected(effect.attempt, results))

    def acknowledge(self) -> None:
        if self.link == "up" and self.unacknowledged:
            acked = self.some(self.unacknowledged)
            for attempt in acked:
                del self.unacknowledged[attempt]
            self.carry_out(self.bench.hear(ResultAck(acked), door="result"))

    def come_to_rest(self) -> None:
        """Let everything go well from here on, until nothing is left to do."""
        for _ in range(3000):
            self.bench.now_s += 0.05
            for action in (self.connect, self.fetch, self.end, self.collect, self.acknowledge):
                action()
            if self.bench.core.statistics().attempts == AttemptStatistics():
                return
        raise AssertionError(self.bench.core.statistics())


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_every_task_is_accounted_for(seed: int) -> None:
    world = World(seed)
    for _ in range(300):
        world.step()
    world.come_to_rest()
    assert not world.given
    assert not world.started
    assert not world.outbox
    assert world.room.left() == TOTAL
    assert not world.is_over


@pytest.mark.parametrize("seed", range(10))
def test_a_worker_can_be_stopped_at_any_moment(seed: int) -> None:
    world = World(seed)
    for _ in range(world.dice.randrange(200)):
        world.step()
    world.feed(StopRequested("SIGTERM"))
    for _ in range(100):
        if world.is_over:
            break
        world.bench.now_s += 0.2
        for action in (world.end, world.collect, world.acknowledge, world.tick):
            if not world.is_over:
                action()
    assert world.is_over
    assert world.bench.core.deadline() is None


def test_equal_events_give_equal_effects() -> None:
    first, second = World(7), World(7)
    for world in (first, second):
        for _ in range(300):
            world.step()
    assert first.trace == second.trace
