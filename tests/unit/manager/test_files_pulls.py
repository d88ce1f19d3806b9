from wqueue.manager.file_shell import Peer
from wqueue.manager.pulls import ACTIVE_MAX, PEER_ACTIVE_MAX, PEER_BYTES, POOL_BYTES, STALL_S, Pulls
from wqueue.manager.turns import READ_AHEAD_BYTES, REQUESTS_MAX, TURN_CHUNKS, Turns
from wqueue.protocol.limits import CHUNK_BYTES, WINDOW_BYTES
from wqueue.protocol.messages import Data, Get

A = Peer("worker", 1)
B = Peer("worker", 2)
C = Peer("client", 1)


def lengths(asked: list[tuple[Peer, Get]], peer: Peer) -> int:
    return sum(get.length for to, get in asked if to == peer)


def test_a_transfer_asks_for_no_more_than_its_window() -> None:
    pulls = Pulls()
    transfer = pulls.add(A, b"x", 10 * WINDOW_BYTES)
    asked = pulls.requests()
    assert [get.offset for _, get in asked] == [CHUNK_BYTES * i for i in range(4)]
    assert pulls.requests() == []
    assert pulls.take(A, Data(transfer, 0), CHUNK_BYTES) == "write"
    # What has come and is not written still takes memory.
    assert pulls.requests() == []
    assert not pulls.wrote(transfer, 0, CHUNK_BYTES)
    assert [get.offset for _, get in pulls.requests()] == [WINDOW_BYTES]


def test_all_transfers_together_stay_within_the_pool() -> None:
    pulls = Pulls()
    peers = [Peer("worker", number) for number in range(40)]
    for peer in peers:
        pulls.add(peer, b"x", 100 * WINDOW_BYTES)
    asked = pulls.requests()
    assert pulls.used_bytes == POOL_BYTES == sum(get.length for _, get in asked)
    # By turns: nobody has a second chunk before the pool was offered to all.
    assert len({peer for peer, _ in asked}) == POOL_BYTES // CHUNK_BYTES


def test_one_peer_never_takes_the_whole_pool() -> None:
    pulls = Pulls()
    for _ in range(50):
        pulls.add(A, b"x", WINDOW_BYTES)
    assert lengths(pulls.requests(), A) == PEER_BYTES
    pulls.add(B, b"y", WINDOW_BYTES)
    assert lengths(pulls.requests(), B) == WINDOW_BYTES


def test_few_transfers_are_under_way_at_once_and_peers_take_turns() -> None:
    pulls = Pulls()
    for _ in range(1000):
        pulls.add(A, b"x", 10)
    for _ in range(1000):
        pulls.add(B, b"y", 10)
    asked = pulls.requests()
    assert len(asked) == ACTIVE_MAX
    assert sum(peer == A for peer, _ in asked) == PEER_ACTIVE_MAX
    peer, first = asked[0]
    assert pulls.take(peer, Data(first.transfer, 0), 10) == "write"
    assert pulls.wrote(first.transfer, 0, 10)
    pulls.remove(first.transfer)
    assert len(pulls.requests()) == 1


def test_removed_transfers_give_their_credit_back_and_take_no_late_data() -> None:
    pulls = Pulls()
    transfers = [pulls.add(A, b"x", WINDOW_BYTES) for _ in range(100)]
    pulls.requests()
    for transfer in transfers:
        pulls.remove(transfer)
        pulls.remove(transfer)
    assert pulls.used_bytes == 0
    assert len(pulls) == 0
    assert pulls.take(A, Data(transfers[0], 0), CHUNK_BYTES) == "ignore"
    pulls.add(B, b"y", 10)
    assert len(pulls.requests()) == 1


def test_data_of_another_peer_is_not_taken() -> None:
    pulls = Pulls()
    transfer = pulls.add(A, b"x", 10)
    pulls.requests()
    assert pulls.take(B, Data(transfer, 0), 10) == "ignore"
    assert pulls.take(A, Data(transfer, 0), 9) == "short"


def test_a_holder_that_owes_data_for_too_long_stalls_and_one_that_waits_for_credit_does_not() -> (
    None
):
    pulls = Pulls()
    owing = pulls.add(A, b"x", 10)
    paid = pulls.add(B, b"y", 10)
    pulls.requests()
    pulls.take(B, Data(paid, 0), 10)
    pulls.now_s = STALL_S + 1
    assert pulls.stalled() == [owing]


# --- sending --------------------------------------------------------------------------------------


def get(transfer: int, length: int = CHUNK_BYTES) -> Get:
    return Get(transfer, b"d", 0, length)


def test_no_more_is_read_ahead_than_the_bound() -> None:
    turns = Turns()
    for number in range(100):
        turns.ask(A, get(number))
    reads = turns.next_reads()
    assert len(reads) == READ_AHEAD_BYTES // CHUNK_BYTES
    assert turns.next_reads() == []
    turns.answer(reads[0], b"")
    assert len(turns.next_sends()) == 1
    assert len(turns.next_reads()) == 1


def test_a_turn_sends_four_chunks_and_peers_take_turns() -> None:
    turns = Turns()
    for number in range(5):
        turns.ask(A, get(number))
    for number in range(2):
        turns.ask(B, get(number))
    for slot in turns.next_reads():
        turns.answer(slot, b"")
    first = [(slot.peer, slot.get.transfer) for slot in turns.next_sends()]
    assert len(first) == TURN_CHUNKS
    assert first == [(A, 0), (B, 0), (A, 1), (B, 1)]
    assert turns.is_any_ready
    assert [slot.get.transfer for slot in turns.next_sends()] == [2, 3, 4]
    assert not turns.is_any_ready


def test_answers_of_a_peer_keep_the_order_of_its_requests() -> None:
    turns = Turns()
    for number in range(3):
        turns.ask(A, get(number))
    turns.ask(C, get(9))
    slots = turns.next_reads()
    by_transfer = {slot.get.transfer: slot for slot in slots}
    turns.answer(by_transfer[1], b"second")
    turns.answer(by_transfer[9], b"other")
    assert [slot.get.transfer for slot in turns.next_sends()] == [9]
    turns.answer(by_transfer[0], b"first")
    assert [slot.get.transfer for slot in turns.next_sends()] == [0, 1]


def test_a_peer_that_is_gone_holds_nothing() -> None:
    turns = Turns()
    for number in range(100):
        turns.ask(A, get(number))
    slots = turns.next_reads()
    turns.forget(A)
    turns.answer(slots[0], b"late")
    assert turns.next_sends() == []
    turns.ask(B, get(1))
    assert [slot.peer for slot in turns.next_reads()] == [B]


def test_a_peer_with_too_many_requests_is_refused() -> None:
    turns = Turns()
    assert all(turns.ask(A, get(number)) for number in range(REQUESTS_MAX))
    assert not turns.ask(A, get(0))
    assert turns.ask(B, get(0))
