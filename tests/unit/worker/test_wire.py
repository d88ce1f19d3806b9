from wqueue.protocol.limits import INLINE_BYTES
from wqueue.protocol.messages import STDOUT, AttemptResult, OutputResult
from wqueue.worker.wire import INLINE_PER_MESSAGE_BYTES, RESULTS_PER_MESSAGE, portions


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
    each = INLINE_PER_MESSAGE_BYTES // INLINE_BYTES
    assert [len(part) for part in parts] == [each, each, 1]


def test_a_result_larger_than_a_share_travels_alone() -> None:
    small, large = result(1), result(2, *[INLINE_BYTES] * 5)
    assert portions([small, large, small, small]) == [[small], [large], [small, small]]


def test_nothing_gives_no_message() -> None:
    assert portions([]) == []
