import select
import threading

import pytest
from support.processes import wait_until

from wqueue.worker.file_threads import FileThreads


def test_work_is_done_elsewhere_and_its_outcome_told_here() -> None:
    threads = FileThreads(1)
    told: list[tuple[str, str]] = []
    here = threading.current_thread().name

    def then(name: str) -> None:
        told.append((name, threading.current_thread().name))

    threads.do(lambda: threading.current_thread().name, then)
    assert select.select([threads.fileno()], [], [], 30)[0]
    assert told == []
    threads.deliver()
    assert told == [("files-0", here)]
    assert not select.select([threads.fileno()], [], [], 0)[0]
    threads.close()


def test_what_was_not_expected_reaches_the_loop() -> None:
    threads = FileThreads(1)

    def fail() -> None:
        raise AssertionError("a bug")

    threads.do(fail, lambda _: None)
    select.select([threads.fileno()], [], [], 30)
    with pytest.raises(AssertionError, match="a bug"):
        threads.deliver()
    threads.close()


def test_work_that_ends_after_the_close_is_nobodys() -> None:
    threads = FileThreads(1)
    gate = threading.Event()
    done: list[int] = []
    threads.do(gate.wait, lambda _: None)
    threads.do(lambda: done.append(1), lambda _: None)
    threads.close()
    gate.set()
    wait_until(lambda: done, what="the second piece of work")
