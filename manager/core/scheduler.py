"""Which ready task goes to which worker, and why not.

Waiting tasks are grouped by shape: tasks of one shape ask for the same and are equally urgent, so
one look at a worker answers for all of them. What did not fit is remembered by omission: a shape
and a worker are compared again only after the worker got room or the shape got tasks. An event
therefore costs what it changed, not what is there: a result compares one worker with the waiting
shapes, a submission one shape with the workers that have room.

Two rounds. In the first a worker takes what it can run now; in the second, while tasks are left,
it takes a few more to hold ready (see Worker.prefetch_max), so that short tasks need not wait for
a round trip. Workers take turns, one task each.
"""

import bisect
from collections.abc import Iterator

from wqueue.manager.core.job import Job
from wqueue.manager.core.worker import Worker, WorkerState
from wqueue.protocol.resources import Resources


class Shape:
    """Tasks that ask for the same: resources, features and priority; its jobs in their order."""

    __slots__ = ("features", "is_settling", "jobs", "priority", "rank", "resources")

    def __init__(self, spec_key: "ShapeKey", rank: int) -> None:
        self.priority, self.resources, self.features, self.is_settling = spec_key
        self.rank = (-self.priority, rank)
        self.jobs: dict[int, Job] = {}

    def next_job(self) -> Job | None:
        """Give the first job with a ready task; jobs without one are dropped on the way."""
        while self.jobs:
            job = next(iter(self.jobs.values()))
            if job.ready_count:
                return job
            del self.jobs[job.number]
        return None


ShapeKey = tuple[float, Resources, tuple[str, ...], bool]


def _hashable(key: ShapeKey) -> tuple[object, ...]:
    resources = key[1]
    amounts = (
        resources.cores_milli, resources.memory_mb, resources.disk_mb, resources.gpus,
        tuple(sorted(resources.named.items())),
    )  # fmt: skip
    return (key[0], amounts, key[2], key[3])


class Scheduler:
    """The waiting shapes, the workers with room, and what changed since the last look."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._order: list[Shape] = []
        self._shapes_made = 0
        self._open: dict[int, Worker] = {}
        self.queueing: dict[int, Worker] = {}
        """Workers that hold tasks ready; one whose queue has emptied since is out at its next
        change."""
        self._changed_workers: dict[int, Worker] = {}
        self._changed_shapes: dict[tuple[float, int], Shape] = {}

    def job_is_ready(self, job: Job) -> None:
        """Note that `job` has ready tasks (again)."""
        shape = self._shape_of(job)
        shape.jobs.setdefault(job.number, job)
        self._changed_shapes[shape.rank] = shape

    def worker_has_room(self, worker: Worker) -> None:
        """Note that `worker` came, or that something it had has ended."""
        if worker.state is WorkerState.LIVE and not worker.is_leaving:
            self._open[worker.number] = worker
            self._changed_workers[worker.number] = worker

    def worker_is_closed(self, worker: Worker) -> None:
        """Note that nothing may be sent to `worker` any more."""
        self._open.pop(worker.number, None)
        self._changed_workers.pop(worker.number, None)
        self.queueing.pop(worker.number, None)

    def settled(self) -> None:
        """Let the jobs from before the start go: those waited for have come or are given up."""
        for shape in [shape for shape in self._order if shape.is_settling]:
            jobs = list(shape.jobs.values())
            self._drop(shape)
            for job in jobs:
                job.is_restored = False
                job.shape = None
                self.job_is_ready(job)

    def pairs(self) -> Iterator[tuple[Worker, Job]]:
        """Give worker and job of each attempt to be made, until nothing fits any more.

        The caller makes the attempt before it asks for the next pair.
        """
        if not self._changed_workers and not self._changed_shapes:
            return
        for may_wait in (False, True):
            yield from self._pairs_of_workers(may_wait)
            yield from self._pairs_of_shapes(may_wait)
        self._sort_out()
        self._changed_workers.clear()
        self._changed_shapes.clear()

    def idle_workers(self) -> Iterator[Worker]:
        """Give the workers that have cores left and nothing waiting for them."""
        return (w for w in self._open.values() if w.room.cores_milli > 0 and not w.queued)

    def _sort_out(self) -> None:
        """Drop what this look has filled up or emptied; of the rest nothing has changed."""
        for worker in self._changed_workers.values():
            if worker.queued:
                self.queueing[worker.number] = worker
            else:
                self.queueing.pop(worker.number, None)
            if not _has_any_room(worker):
                self._open.pop(worker.number, None)
        for shape in [s for s in self._changed_shapes.values() if not s.jobs]:
            self._drop(shape)

    def _pairs_of_workers(self, may_wait: bool) -> Iterator[tuple[Worker, Job]]:
        for shape in [shape for shape in self._order if not shape.is_settling]:
            yield from self._deal(shape, list(self._changed_workers.values()), may_wait)

    def _pairs_of_shapes(self, may_wait: bool) -> Iterator[tuple[Worker, Job]]:
        for rank in sorted(self._changed_shapes):
            shape = self._changed_shapes[rank]
            if not shape.is_settling and shape.next_job() is not None:
                yield from self._deal(shape, list(self._open.values()), may_wait)

    def _deal(
        self, shape: Shape, workers: list[Worker], may_wait: bool
    ) -> Iterator[tuple[Worker, Job]]:
        """Deal tasks of a shape to workers in turns until none takes another or none is left."""
        while workers:
            able = []
            for worker in workers:
                if not fits(shape, worker, may_wait=may_wait):
                    continue
                job = shape.next_job()
                if job is None:
                    self._changed_shapes[shape.rank] = shape
                    return
                self._changed_workers[worker.number] = worker
                yield worker, job
                able.append(worker)
            workers = able

    def _shape_of(self, job: Job) -> Shape:
        shape = job.shape
        if isinstance(shape, Shape) and shape.jobs:
            return shape
        spec = job.spec
        key: ShapeKey = (
            spec.priority,
            spec.template.resources,
            tuple(sorted(spec.features)),
            job.is_restored,
        )
        name = _hashable(key)
        found = self._shapes.get(name)
        if found is None:
            self._shapes_made += 1
            found = Shape(key, self._shapes_made)
            self._shapes[name] = found
            bisect.insort(self._order, found, key=lambda s: s.rank)
        job.shape = found
        return found

    def _drop(self, shape: Shape) -> None:
        key = (shape.priority, shape.resources, shape.features, shape.is_settling)
        del self._shapes[_hashable(key)]
        self._order.remove(shape)
        self._changed_shapes.pop(shape.rank, None)

    def check(self) -> None:
        """Assert that the shapes are in order and none is listed twice."""
        ranks = [shape.rank for shape in self._order]
        assert ranks == sorted(ranks), "shapes are out of order"
        assert len(ranks) == len(self._shapes) == len(set(ranks))


def fits(shape: Shape, worker: Worker, *, may_wait: bool) -> bool:
    """Tell whether `worker` can take a task of `shape` now, or with `may_wait` hold it ready."""
    if worker.state is not WorkerState.LIVE or worker.is_leaving:
        return False
    if shape.features and not _has_features(worker, shape.features):
        return False
    if not may_wait:
        return not worker.queued and worker.room.fits(shape.resources)
    return len(worker.queued) < worker.prefetch_max() and shape.resources.fits_in(worker.room.total)


def why_none(job: Job, workers: list[Worker]) -> str:
    """Say why no worker takes a ready task of `job` now."""
    live = [w for w in workers if w.state is WorkerState.LIVE and not w.is_leaving]
    if not live:
        return "no worker is connected"
    features = tuple(job.spec.features)
    able = [w for w in live if _has_features(w, features)]
    if not able:
        return f"no worker has the features {', '.join(features)}"
    wanted = job.spec.template.resources
    if not any(wanted.fits_in(w.room.total) for w in able):
        largest = max(able, key=lambda w: sum(_amounts(w.room.total)))
        lacking = wanted.lacking_in(largest.room.total)
        return f"no worker is large enough: it needs {lacking}"
    return "all workers that could run it are busy"


def _amounts(resources: Resources) -> tuple[int, ...]:
    return (resources.cores_milli, resources.memory_mb, resources.gpus)


def _has_features(worker: Worker, features: tuple[str, ...]) -> bool:
    offered = worker.register.features if worker.register is not None else []
    return all(feature in offered for feature in features)


def _has_any_room(worker: Worker) -> bool:
    if worker.state is not WorkerState.LIVE or worker.is_leaving:
        return False
    if worker.queued:
        return len(worker.queued) < worker.prefetch_max()
    return True
