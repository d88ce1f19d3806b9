import struct

from wqueue.protocol.monitor import parse_event


def test_a_monitor_message_is_an_event_and_its_value() -> None:
    assert parse_event(struct.pack("=HI", 0x0200, 37)) == (0x0200, 37)
