"""What a socket monitor says: which event, and its value.

zmq.utils.monitor does the same and imports asyncio for it, 35 ms at each tool's start.
"""

import struct

_EVENT = struct.Struct("=HI")


def parse_event(frame: bytes) -> tuple[int, int]:
    """Give event and value of a monitor message's first frame (layout: zmq_socket_monitor(3))."""
    event, value = _EVENT.unpack(frame)
    return event, value
