"""What a task asks for and a worker offers: cores, memory, disk, accelerators."""

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=2**53)]

ResourceName = Annotated[str, Meta(max_length=256)]

MILLI = 1000


class Resources(Struct, frozen=True, array_like=True):
    """An amount of everything that can run out.

    cores in thousandths, memory and disk in MB (2**20 bytes), gpus whole, and any named resource
    in units of its own (at most 64 of them). Zero asks for nothing of that kind.
    """

    cores_milli: Count = MILLI
    memory_mb: Count = 0
    disk_mb: Count = 0
    gpus: Count = 0
    named: Annotated[dict[ResourceName, Count], Meta(max_length=64)] = {}

    def fits_in(self, room: "Resources") -> bool:
        """Tell whether this much can be taken out of `room`."""
        return (
            self.cores_milli <= room.cores_milli
            and self.memory_mb <= room.memory_mb
            and self.disk_mb <= room.disk_mb
            and self.gpus <= room.gpus
            and (not self.named or self._named_fits_in(room.named))
        )

    def _named_fits_in(self, room: dict[str, int]) -> bool:
        return all(amount <= room.get(name, 0) for name, amount in self.named.items())

    def lacking_in(self, room: "Resources") -> str:
        """Say which amount does not fit into `room`, or give an empty string when all do."""
        pairs = [
            ("cores", self.cores_milli / MILLI, room.cores_milli / MILLI),
            ("MB of memory", self.memory_mb, room.memory_mb),
            ("MB of disk", self.disk_mb, room.disk_mb),
            ("gpus", self.gpus, room.gpus),
        ]
        pairs += [(name, wanted, room.named.get(name, 0)) for name, wanted in self.named.items()]
        for name, wanted, there in pairs:
            if wanted > there:
                return f"{wanted:g} {name} (there: {there:g})"
        return ""


class Room:
    """What is left of a worker's resources: the one place where amounts are taken and given back.

    Mutable, because it changes twice for every attempt. Never negative: taking more than there is
    is a bug of the caller.
    """

    __slots__ = ("cores_milli", "disk_mb", "gpus", "memory_mb", "named", "total")

    def __init__(self, total: Resources) -> None:
        self.total = total
        self.cores_milli = total.cores_milli
        self.memory_mb = total.memory_mb
        self.disk_mb = total.disk_mb
        self.gpus = total.gpus
        self.named = dict(total.named)

    def fits(self, wanted: Resources) -> bool:
        """Tell whether `wanted` can be taken now."""
        return (
            wanted.cores_milli <= self.cores_milli
            and wanted.memory_mb <= self.memory_mb
            and wanted.disk_mb <= self.disk_mb
            and wanted.gpus <= self.gpus
            and (
                not wanted.named
                or all(amount <= self.named.get(name, 0) for name, amount in wanted.named.items())
            )
        )

    def take(self, wanted: Resources) -> None:
        """Take `wanted` out."""
        self._add(wanted, -1)
        assert self.cores_milli >= 0, f"{self.cores_milli} thousandths of a core left"
        assert self.memory_mb >= 0, f"{self.memory_mb} MB of memory left"
        assert self.disk_mb >= 0, f"{self.disk_mb} MB of disk left"
        assert self.gpus >= 0, f"{self.gpus} gpus left"

    def give_back(self, wanted: Resources) -> None:
        """Put `wanted` back."""
        self._add(wanted, 1)
        assert self.cores_milli <= self.total.cores_milli, "more cores given back than taken"

    def _add(self, amount: Resources, sign: int) -> None:
        self.cores_milli += sign * amount.cores_milli
        self.memory_mb += sign * amount.memory_mb
        self.disk_mb += sign * amount.disk_mb
        self.gpus += sign * amount.gpus
        for name, count in amount.named.items():
            self.named[name] = self.named.get(name, 0) + sign * count

    def left(self) -> Resources:
        """Give what is left as a value."""
        return Resources(self.cores_milli, self.memory_mb, self.disk_mb, self.gpus, self.named)
