from wqueue.cli.progress import Pace
from wqueue.cli.tally import Standing, Tally
from wqueue.protocol.messages import Counts, Progress


def test_news_of_several_jobs_are_added_up() -> None:
    tally = Tally()
    tally.add(Progress(7, 1, Counts(ready=5, running=2, done=3, failed=1)))
    assert tally.add(Progress(8, 1, Counts(done=1, canceled=1))) == Standing(12, 5, 1, 2)


def test_newer_news_of_a_job_replace_older_ones() -> None:
    tally = Tally()
    tally.add(Progress(7, 0, Counts(ready=2)))
    assert tally.add(Progress(7, 2, Counts(done=2))) == Standing(2, 2, 0, 0)


def test_lines_are_sparse_and_the_last_one_always_comes() -> None:
    pace = Pace(interval_s=10)
    assert pace.is_due(Standing(100, 0), 0.0)
    assert not pace.is_due(Standing(100, 5), 3.0)
    assert pace.is_due(Standing(100, 20), 10.0)
    assert not pace.is_due(Standing(100, 20), 30.0)
    assert pace.is_due(Standing(100, 100), 31.0)


def test_the_sentence_leaves_out_what_is_zero() -> None:
    assert Standing(4, 1).sentence() == "1 of 4 tasks ended (25 %)"
    assert Standing(4, 1, 1, 2).sentence() == "1 of 4 tasks ended (25 %), 2 at workers, 1 failed"
    assert Standing().sentence() == "0 of 0 tasks ended (0 %)"
