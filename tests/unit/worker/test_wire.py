from wqueue.protocol.codec import BATCH_HEADER_MAX_BYTES, PAYLOAD_MAX_BYTES, encode
from wqueue.protocol.limits import INLINE_BYTES
from wqueue.protocol.messages import STDOUT, AttemptResult, OutputResult, Result, Usage
from wqueue.worker.core.verdict import RESULT_OUTPUTS_MAX, deliverable
from wqueue.worker.orders import INLINE_TOTAL_BYTES
from wqueue.worker.wire import (
    OUTPUT_HEAD_BYTES,
    OUTPUTS_PER_MESSAGE_BYTES,
    RESULTS_PER_MESSAGE,
    portions,
)

FRAME_MAX_BYTES = PAYLOAD_MAX_BYTES - BATCH_HEADER_MAX_BYTES


def largest(output_count: int, inline: bytes = b"") -> AttemptResult:
    outputs = [
        OutputResult(60_000, 2**60, 0o777, b"D" * 32, inline if number == 0 else None)
        for number in range(output_count)
    ]
    usage = Usage(1e9, 1e9, 1e9, 1e9, 1e9, 1e9)
    return AttemptResult(
        b"A" * 36, "o" * 32, -(2**31), 64, "\N{SNOWMAN}" * 4096, usage, outputs, 1e9
    )


def result(number: int, *inline: int) -> AttemptResult:
    outputs = [OutputResult(STDOUT, size, inline=bytes(size)) for size in inline]
    return AttemptResult(b"%036d" % number, "succeeded", outputs=outputs)


def test_results_are_sent_in_messages_of_bounded_size_and_in_order() -> None:
    results = [result(number) for number in range(3 * RESULTS_PER_MESSAGE + 1)]
    parts = portions(results)
    assert [len(part) for part in parts] == [RESULTS_PER_MESSAGE] * 3 + [1]
    assert [r for part in parts for r in part] == results


def test_results_with_much_inline_content_share_a_message_with_few() -> None:
    parts = portions([result(number, INLINE_BYTES) for number in range(9)])
    assert OUTPUTS_PER_MESSAGE_BYTES // (INLINE_BYTES + OUTPUT_HEAD_BYTES) == 3
    assert [len(part) for part in parts] == [3, 3, 3]


def test_a_result_larger_than_a_share_travels_alone() -> None:
    small, large = result(1), result(2, *[INLINE_BYTES] * 5)
    assert portions([small, large, small, small]) == [[small], [large], [small, small]]


def test_a_result_with_as_many_outputs_as_there_may_be_fits_into_a_frame() -> None:
    result = largest(RESULT_OUTPUTS_MAX, bytes(INLINE_TOTAL_BYTES))
    assert deliverable(result) is result
    assert len(encode(Result([result]))) <= FRAME_MAX_BYTES


def test_results_with_many_outputs_share_a_message_with_few() -> None:
    for count in (300, 3_000, RESULT_OUTPUTS_MAX):
        parts = portions([largest(count)] * RESULTS_PER_MESSAGE)
        assert max(len(encode(Result(part))) for part in parts) <= FRAME_MAX_BYTES


def test_nothing_gives_no_message() -> None:
    assert portions([]) == []
