"""The manager's log: one file of bounded size, and the same lines on stderr."""

import logging
import logging.handlers
import os
from collections import OrderedDict
from pathlib import Path

from wqueue.manager.limits import LOG_EVERY_S, LOG_KEYS_MAX, LOG_MAX_BYTES

LOG = logging.getLogger("wqueue.manager")


def open_log(path: Path) -> None:
    """Send what is logged from now on to `path` and to stderr."""
    # A full disk or a closed terminal must not end the manager.
    logging.raiseExceptions = False
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    file = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_MAX_BYTES, backupCount=1)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    handlers: list[logging.Handler] = [file, logging.StreamHandler()]
    for handler in handlers:
        handler.setFormatter(form)
        LOG.addHandler(handler)


def close_log() -> None:
    """Stop logging to what open_log opened."""
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()


def one_line(text: str, most: int = 300) -> str:
    """Make what a stranger sent fit for one line of the log."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= most else shown[:most] + "..."


class Seldom:
    """Says a thing once per key and minute, so that a noisy peer cannot fill the log."""

    def __init__(self, every_s: float = LOG_EVERY_S) -> None:
        self._every_s = every_s
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def warn(self, key: str, text: str, now_s: float) -> None:
        """Log a warning, unless something of the same key was logged within the last minute."""
        self.say(logging.WARNING, key, text, now_s)

    def say(self, level: int, key: str, text: str, now_s: float) -> None:
        """Log `text` at `level`, unless something of the same key was within the last minute."""
        when, withheld = self._said.get(key, (float("-inf"), 0))
        if now_s - when < self._every_s:
            self._said[key] = (when, withheld + 1)
            return
        more = f" (and {withheld} more since the last such line)" if withheld else ""
        LOG.log(level, "%s%s", one_line(text), more)
        self._said[key] = (now_s, 0)
        self._said.move_to_end(key)
        if len(self._said) > LOG_KEYS_MAX:
            self._said.popitem(last=False)
