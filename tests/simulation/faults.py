"""Which faults a history has, and how often: drawn anew from each seed."""

from random import Random

from msgspec import Struct

KINDS = (
    "lost_link",
    "cut_off",
    "repeated",
    "late",
    "worker_crash",
    "worker_leaves",
    "manager_crash",
    "failed_commit",
)


class Options(Struct, frozen=True):
    """The size of a history and its mix of faults. Chances are per message, effect or commit.

    `cut_off` is the chance that a worker whose link is lost cannot come back for `cut_off_s`;
    `staging_s` is the longest time that outputs take to come in.
    """

    workers: int
    jobs: int
    tasks: int
    lost_link: float
    cut_off: float
    cut_off_s: float
    repeated: float
    late: float
    late_s: float
    worker_crash: float
    worker_leaves: float
    manager_crash: float
    failed_commit: float
    task_s: float
    staging_s: float
    faults_end_s: float


def draw_options(dice: Random) -> Options:
    """Draw a mix: each kind of fault is absent, rare or frequent."""

    def chance(most: float) -> float:
        return dice.choice((0.0, most / 10, most))

    return Options(
        workers=dice.choice((1, 2, 3, 5, 8)),
        jobs=dice.randint(1, 4),
        tasks=dice.choice((1, 3, 10, 40)),
        lost_link=chance(0.03),
        cut_off=dice.choice((0.0, 0.5)),
        cut_off_s=dice.choice((3.0, 10.0, 60.0)),
        repeated=chance(0.1),
        late=chance(0.2),
        late_s=dice.choice((0.05, 1.0, 20.0)),
        worker_crash=chance(0.02),
        worker_leaves=chance(0.02),
        manager_crash=chance(0.02),
        failed_commit=chance(0.1),
        task_s=dice.choice((0.01, 0.5, 5.0)),
        staging_s=dice.choice((0.02, 5.0)),
        faults_end_s=dice.choice((5.0, 30.0, 120.0)),
    )


def big_options(workers: int, tasks: int) -> Options:
    """Give a large history with every kind of fault, for `make sim`."""
    return Options(
        workers=workers,
        jobs=4,
        tasks=tasks,
        lost_link=0.001,
        cut_off=0.2,
        cut_off_s=20.0,
        repeated=0.01,
        late=0.01,
        late_s=1.0,
        worker_crash=0.0005,
        worker_leaves=0.0005,
        manager_crash=0.0001,
        failed_commit=0.01,
        task_s=1.0,
        staging_s=0.5,
        faults_end_s=60.0,
    )


class Faults:
    """Throws the dice for each fault and counts what it did, until it is told to stop."""

    def __init__(self, options: Options, dice: Random) -> None:
        self._options = options
        self._dice = dice
        self.is_over = False
        self.seen = dict.fromkeys(KINDS, 0)

    def strikes(self, kind: str) -> bool:
        """Tell whether a fault of this kind happens now."""
        chance: float = getattr(self._options, kind)
        if self.is_over or not chance or self._dice.random() >= chance:
            return False
        self.seen[kind] += 1
        return True

    def delay_s(self) -> float:
        """Give how long a message is on its way."""
        if self.strikes("late"):
            return self._dice.random() * self._options.late_s
        return self._dice.random() * 0.002
