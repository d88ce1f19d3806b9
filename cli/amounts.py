"""Amounts as people write them: memory and disk, times, cores.

Sizes are MB of 2**20 bytes, as everywhere in wqueue; a bare number is MB. Times are seconds.
"""

import math
import re

_MB_PER_UNIT = {"": 1.0, "k": 2**-10, "m": 1.0, "g": 2.0**10, "t": 2.0**20}
_SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"(\d+(?:\.\d*)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_TIME_PART = re.compile(r"(\d+(?:\.\d*)?)\s*([smhd])", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d*)?", re.ASCII)

AMOUNT_MAX = 2.0**53
"""No amount may be larger: the wire's bound for resources."""


def parse_mb(text: str) -> int:
    """Read a size: `500` and `500M` are 500 MB, `4G` is 4096 MB; part of a MB counts as one.

    Raises ValueError with a sentence.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size; write for example 500M, 4G or 1.5T")
    amount = float(found.group(1)) * _MB_PER_UNIT[found.group(2).lower()]
    return math.ceil(_bounded(amount, text))


def parse_seconds(text: str) -> float:
    """Read a time: `90`, `90s`, `10m`, `2h`, `1h30m`, `1d`. Raises ValueError with a sentence."""
    bare = text.strip()
    if _NUMBER.fullmatch(bare):
        return _bounded(float(bare), text)
    parts = _TIME_PART.findall(bare)
    if not parts or "".join(_TIME_PART.sub("", bare).split()):
        raise ValueError(f"{text!r} is not a time; write for example 90s, 10m, 2h or 1h30m")
    total = sum(float(amount) * _SECONDS_PER_UNIT[unit.lower()] for amount, unit in parts)
    return _bounded(total, text)


def parse_cores(text: str) -> float:
    """Read a number of cores; parts down to a thousandth. Raises ValueError with a sentence."""
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not a number of cores; write for example 1, 4 or 0.5")
    cores = float(text)
    if round(cores * 1000) != cores * 1000 and not math.isclose(
        round(cores * 1000), cores * 1000, rel_tol=1e-9
    ):
        raise ValueError(f"{text!r} cores are too fine; cores are counted in thousandths")
    return _bounded(cores, text)


def show_seconds(seconds: float) -> str:
    """Show a time in at most seven characters: `0.123s`, `12.3s`, `4m05s`, `3h12m`, `12d03h`."""
    if seconds < 1:
        return f"{seconds:.3f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def show_mb(size_mb: float) -> str:
    """Show a size given in MB: `500M`, `4G`, `1.5T`."""
    for unit, next_unit in (("M", "G"), ("G", "T"), ("T", "")):
        if size_mb < 1024 or not next_unit:
            return f"{size_mb:.3g}{unit}" if size_mb < 999.5 else f"{size_mb:.0f}{unit}"
        size_mb /= 1024
    raise AssertionError("unreachable: the last unit has no next one")


def show_cores(cores: float) -> str:
    """Show a number of cores without needless zeros."""
    return f"{cores:.3f}".rstrip("0").rstrip(".")


def _bounded(amount: float, text: str) -> float:
    if amount > AMOUNT_MAX:
        raise ValueError(f"{text!r} is too much")
    return amount
