"""Lines of what waits, and whose turn it is."""

from wqueue.manager.lines import Lines
from wqueue.manager.peers import Peer


def peer(number: int) -> Peer:
    return Peer(number, bytes(32), "client", b"client:", bytes(8), "127.0.0.1")


ONE, TWO, THREE = peer(1), peer(2), peer(3)


def drained(lines: Lines[str]) -> str:
    taken = []
    while (waiting := lines.take()) is not None:
        taken.append(waiting[1])
    return " ".join(taken)


def test_peers_take_turns_and_each_keeps_its_order() -> None:
    lines: Lines[str] = Lines(10)
    for item in ("a1", "a2", "a3"):
        assert lines.put(ONE, item)
    assert lines.put(TWO, "b1")
    assert lines.put(THREE, "c1")
    assert drained(lines) == "a1 b1 c1 a2 a3"
    assert not lines


def test_a_line_has_so_many_places_and_those_of_others_are_not_fewer() -> None:
    lines: Lines[str] = Lines(2)
    assert lines.put(ONE, "a1")
    assert lines.put(ONE, "a2")
    assert not lines.put(ONE, "a3")
    assert lines.put(TWO, "b1")
    assert lines.take() == (ONE, "a1")
    assert lines.put(ONE, "a3")


def test_what_waits_costs_so_much_per_peer_and_the_sum_is_known() -> None:
    lines: Lines[str] = Lines(10, cost_max=5)
    assert lines.put(ONE, "a1", 3)
    assert not lines.put(ONE, "a2", 3)
    assert lines.put(TWO, "b1", 5)
    assert lines.cost == 8
    lines.take()
    assert lines.cost == 5
    assert lines.put(ONE, "a2", 5)


def test_who_may_not_go_yet_keeps_its_place_and_holds_up_nobody() -> None:
    lines: Lines[str] = Lines(10)
    lines.put(ONE, "a1")
    lines.put(TWO, "b1")
    assert lines.take(lambda peer: peer is not ONE) == (TWO, "b1")
    assert lines.take(lambda peer: peer is not ONE) is None
    assert lines.take() == (ONE, "a1")


def test_nothing_is_left_of_a_peer_that_is_gone() -> None:
    lines: Lines[str] = Lines(10)
    lines.put(ONE, "a1", 7)
    lines.put(TWO, "b1", 1)
    lines.forget(ONE)
    lines.forget(THREE)
    assert lines.cost == 1
    assert drained(lines) == "b1"
