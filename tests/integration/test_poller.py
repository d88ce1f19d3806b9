import os
import socket
from collections.abc import Iterator

import pytest
import zmq

from wqueue.protocol.poller import Poller

Pair = tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with zmq.Context() as context, context.socket(zmq.PAIR) as left, context.socket(zmq.PAIR) as it:
        left.linger = it.linger = 0
        port = left.bind_to_random_port("tcp://127.0.0.1")
        it.connect(f"tcp://127.0.0.1:{port}")
        yield left, it


def _wait(poller: Poller, source: "zmq.Socket[bytes] | int") -> None:
    """Poll until `source` is given; early returns with nothing are allowed, a miss is not."""
    for _ in range(100):
        if source in poller.poll(5000):
            return
    raise AssertionError("the poller never gave the source")


def test_a_descriptor_is_given_when_it_can_be_read() -> None:
    left, right = socket.socketpair()
    with left, right:
        poller = Poller()
        poller.register(left.fileno())
        assert poller.poll(0) == []
        right.send(b"x")
        assert poller.poll(1000) == [left.fileno()]
        poller.unregister(left.fileno())
        assert poller.poll(0) == []
        poller.close()


@pytest.mark.parametrize("is_sent_on", [False, True])
def test_a_socket_that_was_not_emptied_is_given_again(pair: Pair, is_sent_on: bool) -> None:
    left, right = pair
    poller = Poller()
    poller.register(right, is_sent_on=is_sent_on)
    for number in range(10):
        left.send(b"%d" % number)
    for number in range(10):
        _wait(poller, right)
        assert right.recv(zmq.NOBLOCK) == b"%d" % number
    poller.unregister(right)
    poller.close()


def test_what_arrives_while_sending_is_not_missed(pair: Pair) -> None:
    left, right = pair
    poller = Poller()
    poller.register(right, is_sent_on=True)
    for number in range(2000):
        left.send(b"question %d" % number)
        right.send(b"a send may swallow the sign that something arrived")
        _wait(poller, right)
        assert right.recv(zmq.NOBLOCK) == b"question %d" % number
        left.recv()
    poller.close()


def test_sockets_and_descriptors_are_waited_for_together(pair: Pair) -> None:
    left, right = pair
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    poller = Poller()
    poller.register(right)
    poller.register(descriptor)
    left.send(b"x")
    _wait(poller, right)
    right.recv()
    os.eventfd_write(descriptor, 1)
    _wait(poller, descriptor)
    os.eventfd_read(descriptor)
    assert descriptor not in poller.poll(0)
    poller.close()
    os.close(descriptor)
