from wqueue.pace import BURST_ROUNDS, Pace


def test_the_first_rounds_after_a_quiet_time_go_at_once() -> None:
    pace = Pace(0.01)
    assert [pace.rest_s(100.0) for _ in range(BURST_ROUNDS)] == [0.0] * BURST_ROUNDS
    assert pace.rest_s(100.0) > 0.009
    assert [pace.rest_s(101.0) for _ in range(BURST_ROUNDS)] == [0.0] * BURST_ROUNDS


def test_a_stream_goes_on_at_one_round_per_interval() -> None:
    pace = Pace(0.01)
    now_s, rounds = 100.0, 0
    while now_s < 101.0:
        now_s += pace.rest_s(now_s) + 0.0001
        rounds += 1
    assert 100 <= rounds <= 100 + BURST_ROUNDS + 1


def test_rounds_that_come_slowly_by_themselves_are_never_delayed() -> None:
    pace = Pace(0.01)
    assert not any(pace.rest_s(100.0 + number * 0.011) for number in range(1000))
