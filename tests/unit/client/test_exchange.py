import pytest

from wqueue.exchange import WATCH_JOBS_MAX, Exchange, Follower, Group, Request
from wqueue.protocol.errors import LocalProtocolError, NoSuchTask, Refused, StoreFull
from wqueue.protocol.messages import (
    CancelTasks,
    Counts,
    Data,
    Declare,
    Declared,
    Done,
    FileRef,
    FileStored,
    Get,
    GetFailed,
    JobRange,
    Progress,
    Refusal,
    Submit,
    Submitted,
    Watch,
)

SUBMISSION = b"s" * 16
UID = b"u" * 16


def opened() -> Exchange:
    exchange = Exchange()
    exchange.opened()
    return exchange


def sent(exchange: Exchange) -> list[object]:
    messages: list[object] = list(exchange.outgoing)
    exchange.outgoing.clear()
    return messages


def submit(exchange: Exchange, *, watch: bool = False, group: Group | None = None) -> Request:
    number = exchange.next_number()
    request = Request(Submit(number, SUBMISSION, b"spec", watch=watch), group)
    exchange.ask(number, request)
    return request


def is_done(request: Request) -> bool:
    return request.is_done


def progress(job: int, events: int = 0, *, is_ended: bool = False) -> Progress:
    return Progress(job, events, Counts(done=events), is_ended)


def test_a_request_is_sent_once_and_finished_by_its_answer() -> None:
    exchange = opened()
    request = submit(exchange)
    assert sent(exchange) == [request.message]
    exchange.received(Submitted(1, 7, UID))
    assert request.is_done
    assert request.reply == Submitted(1, 7, UID)
    exchange.received(Submitted(1, 8, UID))
    assert request.reply == Submitted(1, 7, UID)
    exchange.lost()
    exchange.opened()
    assert sent(exchange) == []


def test_what_is_unanswered_is_sent_again_in_order_under_the_same_ids() -> None:
    exchange = opened()
    first, second, third = (submit(exchange) for _ in range(3))
    sent(exchange)
    exchange.received(Submitted(2, 7, UID))
    exchange.lost()
    assert not second.error
    exchange.opened()
    assert sent(exchange) == [first.message, third.message]


def test_what_is_asked_without_a_session_waits_for_one() -> None:
    exchange = Exchange()
    request = submit(exchange)
    assert sent(exchange) == []
    exchange.opened()
    assert sent(exchange) == [request.message]


def test_a_refusal_ends_its_request_with_the_error_of_its_code() -> None:
    exchange = opened()
    group = Group()
    first, second = submit(exchange, group=group), submit(exchange, group=group)
    assert group.open == 2
    exchange.received(Refusal("store_full", "the disk is full", 1))
    assert first.is_done
    assert isinstance(first.error, StoreFull)
    assert not second.is_done
    assert group.open == 1
    assert group.error is first.error


def test_a_refusal_of_nothing_in_particular_ends_every_request() -> None:
    exchange = opened()
    request = submit(exchange)
    exchange.received(Refusal("bad_message", "malformed"))
    assert isinstance(request.error, LocalProtocolError)


def test_giving_up_ends_requests_and_followers() -> None:
    exchange = opened()
    request, follower = submit(exchange), Follower()
    exchange.follow([1], follower)
    error = NoSuchTask("gone")
    exchange.fail(error)
    assert request.error is error
    assert follower.error is error


def test_a_declare_is_finished_when_its_files_are_stored() -> None:
    exchange = opened()
    files = [FileRef(bytes([i]) * 32, i) for i in range(3)]
    request = Request(Declare(exchange.next_number(), files))
    exchange.ask(1, request)
    exchange.received(Declared(1, in_place=[0], wanted=[1, 2]))
    assert not is_done(request)
    exchange.received(FileStored(files[1].digest))
    assert not is_done(request)
    exchange.received(FileStored(files[2].digest))
    assert is_done(request)
    assert request.error is None


def test_a_file_that_cannot_be_stored_ends_its_declare() -> None:
    exchange = opened()
    file = FileRef(b"d" * 32, 1)
    request = Request(Declare(exchange.next_number(), [file]))
    exchange.ask(1, request)
    exchange.received(Declared(1, wanted=[0]))
    exchange.received(FileStored(file.digest, "the disk is full"))
    assert isinstance(request.error, Refused)
    assert str(request.error) == "the disk is full"


def test_a_declare_in_the_middle_of_its_uploads_is_sent_again() -> None:
    exchange = opened()
    file = FileRef(b"d" * 32, 1)
    request = Request(Declare(exchange.next_number(), [file]))
    exchange.ask(1, request)
    exchange.received(Declared(1, wanted=[0]))
    exchange.lost()
    exchange.received(FileStored(file.digest))
    assert not is_done(request)
    exchange.opened()
    assert request.message in sent(exchange)
    exchange.received(Declared(1))
    assert is_done(request)


def test_a_follower_hears_the_newest_of_each_job() -> None:
    exchange, follower = opened(), Follower()
    exchange.follow([1, 2], follower)
    assert sent(exchange) == [Watch(1, [1, 2])]
    exchange.received(progress(1, 1))
    exchange.received(progress(1, 2))
    exchange.received(progress(2, 1, is_ended=True))
    assert follower.news == {1: progress(1, 2), 2: progress(2, 1, is_ended=True)}


def test_watches_are_renewed_for_jobs_that_have_not_ended() -> None:
    exchange, follower = opened(), Follower()
    exchange.follow([1, 2, 3], follower)
    exchange.received(progress(2, 1, is_ended=True))
    sent(exchange)
    exchange.lost()
    exchange.opened()
    assert sent(exchange) == [Watch(2, [1, 3])]


def test_the_end_of_a_job_is_known_without_asking_again() -> None:
    exchange, follower = opened(), Follower()
    exchange.received(progress(5, 1, is_ended=True))
    exchange.follow([5], follower)
    assert sent(exchange) == []
    assert follower.news == {5: progress(5, 1, is_ended=True)}


def test_a_job_watched_by_its_submission_is_not_asked_for_again() -> None:
    exchange, follower = opened(), Follower()
    submit(exchange, watch=True)
    sent(exchange)
    exchange.received(Submitted(1, 9, UID))
    exchange.follow([9], follower)
    assert sent(exchange) == []
    exchange.received(progress(9))
    assert follower.news == {9: progress(9)}


def test_the_manager_may_be_asked_anew() -> None:
    exchange, follower, again = opened(), Follower(), Follower()
    exchange.follow([1, 2], follower)
    exchange.received(progress(1, 3))
    exchange.received(progress(2, 1, is_ended=True))
    exchange.received(Done(1, 2))
    sent(exchange)
    exchange.follow([1, 2], again, asks_anew=True)
    assert again.news == {2: progress(2, 1, is_ended=True)}
    assert sent(exchange) == [Watch(2, [1])]


def test_a_watch_by_submission_ends_with_its_session() -> None:
    exchange, follower = opened(), Follower()
    submit(exchange, watch=True)
    exchange.received(Submitted(1, 9, UID))
    exchange.received(progress(9))
    exchange.lost()
    exchange.opened()
    sent(exchange)
    exchange.follow([9], follower)
    assert sent(exchange) == [Watch(2, [9])]


def test_who_unfollows_hears_nothing_more() -> None:
    exchange, follower, other = opened(), Follower(), Follower()
    exchange.follow([1], follower)
    exchange.follow([1], other)
    exchange.unfollow([1, 2], follower)
    exchange.received(progress(1))
    assert not follower.news
    assert other.news


def test_many_watches_go_out_in_parts() -> None:
    exchange = opened()
    exchange.follow(range(WATCH_JOBS_MAX + 1), Follower())
    watches = [m for m in sent(exchange) if isinstance(m, Watch)]
    assert [len(watch.jobs) for watch in watches] == [WATCH_JOBS_MAX, 1]


def test_of_a_refused_watch_only_the_unknown_job_fails() -> None:
    exchange = opened()
    good, bad = Follower(), Follower()
    exchange.follow([1, 2], good)
    exchange.follow([3], bad)
    assert sent(exchange) == [Watch(1, [1, 2]), Watch(2, [3])]
    exchange.received(Refusal("no_such_task", "there is no job 3", 2))
    assert isinstance(bad.error, NoSuchTask)
    exchange.received(Refusal("no_such_task", "there is no job 2", 1))
    assert good.error is None
    assert sent(exchange) == [Watch(3, [1]), Watch(4, [2])]
    exchange.received(progress(1))
    exchange.received(Refusal("no_such_task", "there is no job 2", 4))
    assert good.news == {1: progress(1)}
    assert isinstance(good.error, NoSuchTask)


def test_pieces_of_a_file_reach_their_fetch_until_the_session_is_lost() -> None:
    exchange = opened()
    number, fetch = exchange.fetch()
    exchange.post(Get(number, b"r", 0, 10))
    assert sent(exchange) == [Get(number, b"r", 0, 10)]
    exchange.received(Data(number, 0), b"piece")
    assert list(fetch.arrived) == [(0, b"piece")]
    exchange.lost()
    assert (fetch.is_lost, list(fetch.arrived)) == (True, [])
    exchange.received(Data(number, 5), b"late")
    assert not fetch.arrived
    exchange.post(Get(number, b"r", 0, 10))
    assert sent(exchange) == []
    exchange.opened()
    assert sent(exchange) == []


def test_a_fetch_hears_that_its_file_cannot_be_had() -> None:
    exchange = opened()
    number, fetch = exchange.fetch()
    exchange.received(GetFailed(number, "missing", "no such output"))
    assert fetch.failure == GetFailed(number, "missing", "no such output")
    exchange.end_fetch(number)
    exchange.received(Data(number, 0), b"late")
    assert not fetch.arrived


@pytest.mark.parametrize("message", [Done(99), Submitted(99, 1, UID), FileStored(b"d" * 32)])
def test_answers_to_nothing_are_dropped(message: Done | Submitted | FileStored) -> None:
    exchange = opened()
    request = submit(exchange)
    exchange.received(message)
    assert not request.is_done


def test_a_dropped_request_is_not_repeated() -> None:
    exchange = opened()
    number = exchange.next_number()
    exchange.ask(number, Request(CancelTasks(number, [JobRange(1)])))
    exchange.drop(number)
    exchange.lost()
    exchange.opened()
    assert sent(exchange) == []


def test_news_may_gather_only_while_many_tasks_are_waited_for() -> None:
    exchange, follower = opened(), Follower()
    exchange.follow([1], follower)
    sent(exchange)
    exchange.received(Progress(1, 0, Counts(ready=1000)))
    exchange.received(Done(1, 1))
    seen = [exchange.is_streaming]
    submit(exchange)
    seen.append(exchange.is_streaming)
    sent(exchange)
    exchange.received(Submitted(2, 2, UID))
    seen.append(exchange.is_streaming)
    exchange.received(Progress(1, 999, Counts(running=1, done=999)))
    seen.append(exchange.is_streaming)
    assert seen == [True, False, True, False]
