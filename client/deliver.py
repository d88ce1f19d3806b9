"""Outputs that the manager could not write for us: fetched and put where the task wanted them.

A manager writes outputs itself only where it provably sees the same file system as the client.
Elsewhere it keeps them, and whoever waits for the job in the submitting program brings them home.
"""

import os
import threading
from pathlib import Path

from wqueue.fetch import save_output
from wqueue.follow import pull
from wqueue.protocol.messages import STDOUT, Progress, TaskRecord
from wqueue.spec import Plan
from wqueue.wire import Connection


class _Delivery:
    """The outputs of one job: all those of events up to `cursor` are where they belong."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cursor = 0
        self.lock = threading.Lock()


class Deliveries:
    """Jobs of this client whose outputs it must fetch. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._deliveries: dict[int, _Delivery] = {}

    def add(self, job: int, plan: Plan) -> None:
        """Note where the outputs of a job belong."""
        self._deliveries.setdefault(job, _Delivery(plan))

    def deliver(self, progress: Progress) -> None:
        """Bring home what has ended so far."""
        delivery = self._deliveries.get(progress.job)
        if delivery is None:
            return
        cursor, events = delivery.cursor, progress.events
        for record in pull(self._connection, progress.job, cursor, events):
            self.deliver_record(record)

    def deliver_record(self, record: TaskRecord) -> None:
        """Bring home the outputs of one task, if that is ours to do and not done."""
        delivery = self._deliveries.get(record.job)
        if delivery is None:
            return
        with delivery.lock:
            if record.event <= delivery.cursor:
                return
            places = delivery.plan.destinations(record.index)
            for output in record.outputs:
                if output.position < STDOUT and places[output.position]:
                    to = Path(os.fsdecode(places[output.position]))
                    save_output(self._connection, record, output.position, to)
            if record.event == delivery.cursor + 1:
                delivery.cursor = record.event
