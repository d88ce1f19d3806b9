"""The line of what waits to be sent to one peer."""

from wqueue.manager.outgoing import Outgoing
from wqueue.protocol.messages import Counts, Data, Done, Progress


def progress(events: int, job: int = 1) -> Progress:
    return Progress(job, events, Counts())


def is_urgent(line: Outgoing) -> bool:
    return line.is_urgent


def waits_for(line: Outgoing) -> int | None:
    return line.waits_for


def test_messages_leave_in_order_once_their_records_are_committed() -> None:
    line = Outgoing()
    line.add(Done(1), after=5)
    line.add(Done(2))
    assert line.take(4) == []
    assert waits_for(line) == 5
    assert line.take(5) == [Done(1), Done(2)]
    assert waits_for(line) is None
    assert not line


def test_of_progress_of_one_job_the_older_and_the_newest_are_kept() -> None:
    line = Outgoing()
    for events in range(1, 10):
        line.add(progress(events), after=events)
    line.add(progress(1, job=2), after=9)
    assert line.take(1) == [progress(1)]
    line.add(progress(10), after=10)
    assert line.take(9) == [progress(9), progress(1, job=2)]
    assert line.take(10) == [progress(10)]


def test_a_steady_stream_of_progress_does_not_starve_its_reader() -> None:
    line = Outgoing()
    seen = []
    for record in range(1, 100):
        line.add(progress(record), after=record)
        seen += line.take(record - 1)
    assert len(seen) > 40


def test_progress_alone_is_not_urgent_unless_the_job_has_ended() -> None:
    line = Outgoing()
    line.add(progress(1))
    assert not is_urgent(line)
    line.add(Progress(1, 2, Counts(), is_ended=True))
    assert is_urgent(line)
    line.take(0)
    assert not is_urgent(line)
    line.add(Done(1))
    assert is_urgent(line)


def test_content_has_a_line_of_its_own() -> None:
    line = Outgoing()
    line.add_content(Data(1, 0), b"x")
    line.add(Done(1), after=7)
    assert line.take(6) == []
    assert line.take_content() == (Data(1, 0), b"x")
    assert line.take_content() is None
    assert line.take(7) == [Done(1)]
