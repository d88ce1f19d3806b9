"""How many files and sockets this process may have open."""

import resource

from wqueue.protocol.errors import UsageError


def raise_descriptors(least: int) -> int:
    """Raise this process's soft limit of open files to the hard one and give it.

    Raises UsageError when even that is below `least`.
    """
    hard = need_descriptors(least)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def need_descriptors(least: int) -> int:
    """Raise the soft limit to `least` if it is below, and give the hard one.

    No further, for what this process starts inherits it. Raises UsageError when the hard limit is
    below `least`: libzmq ends the process without a word when it finds no descriptor (wire 1.13),
    so it must not come to that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1_048_576
    if hard < least:
        raise UsageError(
            f"only {hard} open files are allowed here and {least} are needed; see: ulimit -Hn"
        )
    if soft < least:
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    return hard
