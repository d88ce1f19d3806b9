from hypothesis import given
from hypothesis import strategies as st

from wqueue.worker.orders import (
    BatchBuffer,
    Kill,
    Order,
    OutputFound,
    Probe,
    Start,
    decode_orders,
    decode_reports,
    encode_batch,
)
from wqueue.worker.orders import Ended as End

START = Start(b"a" * 36, b"/s\xff", [b"x"], True, [(b"A", b"\xff")], [(b"c", b"r", 0o444)], [b"o"])


@given(st.integers(1, 40))
def test_batches_are_cut_out_of_any_pieces(step: int) -> None:
    batches: list[list[Order]] = [[START, Kill(b"a", 1.5)], [], [Probe(7)]]
    stream = b"".join(encode_batch(batch) for batch in batches)
    buffer = BatchBuffer()
    found = []
    for at in range(0, len(stream), step):
        found += [decode_orders(body) for body in buffer.feed(stream[at : at + step])]
    assert found == batches


def test_a_report_comes_back_as_it_was() -> None:
    ended = End(b"a", "exited", 3, stdout=None, outputs=[OutputFound(1, "ok", 3, 0o755, b"abc")])
    body = encode_batch([ended])[4:]
    assert decode_reports(body) == [ended]
