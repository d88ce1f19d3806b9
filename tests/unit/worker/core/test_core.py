from typing import get_args

import pytest
from support.worker_core import (
    UID,
    Bench,
    attempt_id,
    dispatch,
    file_ref,
    live_bench,
    one_job,
    only,
)

from wqueue.protocol.messages import (
    STDOUT,
    Announcement,
    Assignment,
    AttemptResult,
    Bye,
    Cancel,
    Data,
    Dispatch,
    Forget,
    Get,
    GetFailed,
    HeldAttempt,
    Leave,
    ManagerHeartbeat,
    OutputResult,
    Reattach,
    Refusal,
    Register,
    ResultAck,
    ResultFromManager,
    Returned,
    Started,
    Stopping,
    TakeBack,
    TaskFromManager,
    Usage,
    WorkerHeartbeat,
)
from wqueue.protocol.resources import Resources
from wqueue.worker.core.events import (
    Acknowledge,
    Append,
    Collect,
    Collected,
    Connect,
    Connected,
    ConnectFailed,
    Disconnect,
    DropFetch,
    Ended,
    Event,
    Exit,
    Fetch,
    FileFailed,
    FilesCached,
    Finished,
    Heard,
    Kill,
    LinkLost,
    Measured,
    Note,
    OpenResults,
    OutputFound,
    Remove,
    Reported,
    Restored,
    ResultsOpened,
    Resumed,
    SendResults,
    SendTask,
    Start,
    StopRequested,
    Ticked,
)

A, B, C = attempt_id(0), attempt_id(1), attempt_id(2)

ONE_CORE = [
    (b"CORES", b"1"),
    (b"OMP_NUM_THREADS", b"1"),
    (b"OPENBLAS_NUM_THREADS", b"1"),
    (b"VECLIB_NUM_THREADS", b"1"),
    (b"MKL_NUM_THREADS", b"1"),
    (b"NUMEXPR_NUM_THREADS", b"1"),
]

NO_GPUS = [
    (b"CUDA_VISIBLE_DEVICES", b""),
    (b"ROCR_VISIBLE_DEVICES", b""),
    (b"ZE_AFFINITY_MASK", b""),
]


def start(attempt: bytes, index: int, **other: object) -> Start:
    environment = [*ONE_CORE, *NO_GPUS, (b"WQ_TASK_ID", b"7.%d" % index)]
    facts: dict[str, object] = {
        "command": [b"true"],
        "is_shell": False,
        "environment": environment,
        "links": [],
        "outputs": [],
    }
    return Start(attempt, **(facts | other))  # type: ignore[arg-type]


def succeeded(attempt: bytes) -> AttemptResult:
    return AttemptResult(attempt, "succeeded", 0)


def sent(*messages: object, session: int = 1) -> list[object]:
    return [SendTask(session, message) for message in messages]  # type: ignore[arg-type]


def test_every_event_and_every_message_has_its_answer() -> None:
    core = Bench().core
    told = get_args(Event)
    said = {*get_args(TaskFromManager), *get_args(ResultFromManager), *get_args(Announcement)}
    assert set(core._handlers) == set(told)
    assert set(core._listeners) == said - {Get, Data, GetFailed}


# --- sessions -----------------------------------------------------------------------------------


def test_a_worker_connects_registers_and_opens_its_result_link() -> None:
    bench = Bench(features=["big"], host="node1", pid=5)
    assert bench.feed(Restored()) == [Connect(1, 0.0, 0.0)]
    register = Register(
        b"R" * 32, 1, Resources(2000, 1000, 1000), "node1", 5, features=["big"], epoch_seen=4
    )
    assert bench.connect(epoch=4) == sent(register)
    assert bench.register() == [
        Note("info", "connected to manager HOST:9123 as worker 3"),
        OpenResults(1),
    ]
    assert bench.feed(ResultsOpened(1)) == []


def test_attempts_to_connect_come_later_and_later_and_are_noted_once() -> None:
    bench = Bench()
    bench.feed(Restored())
    refused = "nobody answers at HOST:9123"
    effects = bench.feed(ConnectFailed(1, "unreachable", refused, 3))
    note = Note("warning", "nobody answers at HOST:9123; trying again for up to 900 s")
    assert effects == [note, Connect(2, 0.1, 0.1)]
    delays = []
    for session in range(2, 14):
        effects = bench.feed(ConnectFailed(session, "unreachable", refused, 3))
        delays.append(only(Connect, effects)[0].delay_s)
        assert len(effects) == 1
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == 15.0


def test_a_wrong_password_ends_a_worker_that_never_had_a_session() -> None:
    bench = Bench()
    bench.feed(Restored())
    text = "the password was refused"
    assert bench.feed(ConnectFailed(1, "not_authorized", text, 4)) == [Exit(4, text)]
    assert bench.feed(Ticked()) == []


def test_a_fatal_refusal_before_the_first_session_ends_the_worker_with_its_code() -> None:
    bench = Bench()
    bench.feed(Restored())
    bench.connect()
    refusal = Refusal("version", "this manager speaks 2", is_fatal=True)
    assert bench.hear(refusal) == [Exit(7, "this manager speaks 2")]


def test_a_refused_registration_is_tried_again() -> None:
    bench = Bench()
    bench.feed(Restored())
    bench.connect()
    effects = bench.hear(Refusal("full", "no room for workers", is_fatal=True))
    assert effects == [Disconnect(1), Connect(2, 0.1, 0.1)]


def test_no_manager_for_the_whole_connect_timeout_ends_with_exit_code_3() -> None:
    bench = Bench(connect_timeout_s=60.0)
    bench.feed(Restored())
    assert bench.core.deadline() == 160.0
    bench.now_s = 160.0
    assert bench.feed(Ticked()) == [Exit(3, "no manager answered for 60 s")]


def test_a_lost_link_is_made_again_and_tasks_go_on_meanwhile() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0))
    bench.run(A)
    assert bench.feed(LinkLost(1, "reset by peer")) == [
        Disconnect(1),
        Note(
            "warning",
            "lost the manager at HOST:9123 (reset by peer); 1 tasks go on, 0 results wait; "
            "connecting again",
        ),
        Connect(2, 0.0, 3.0),
    ]
    bench.now_s += 10
    assert bench.end(A) == [Append([Finished(succeeded(A))])]
    effects = bench.connect(epoch=2)
    register = effects[0].message  # type: ignore[union-attr]
    assert isinstance(register, Register)
    assert register.inventory == [HeldAttempt(A, "finished")]
    assert bench.register() == [
        Note("info", "connected to manager HOST:9123 again as worker 3"),
        OpenResults(2),
    ]
    assert bench.feed(ResultsOpened(2)) == [SendResults(2, [succeeded(A)])]


def test_the_inventory_tells_what_is_queued_and_what_runs() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    bench.now_s += 3.0
    bench.feed(LinkLost(1, "gone"))
    register = bench.connect()[0].message  # type: ignore[union-attr]
    assert isinstance(register, Register)
    assert register.inventory == [
        HeldAttempt(A, "running", 3.0),
        HeldAttempt(B, "running", 3.0),
        HeldAttempt(C, "queued"),
    ]


def test_what_the_manager_does_not_want_any_more_is_stopped_and_forgotten() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    bench.end(A)
    bench.feed(LinkLost(1, "gone"))
    bench.connect()
    effects = bench.register(unwanted=(A, B, attempt_id(9)))
    assert effects[1:] == [OpenResults(2), Kill(B, 5.0), Acknowledge([A])]
    assert bench.end(B, how="signaled", signal=15, has_sandbox=True) == [Remove([B])]


def test_an_older_epoch_discards_nothing() -> None:
    bench = live_bench()
    bench.feed(LinkLost(1, "gone"))
    bench.connect(epoch=9)
    bench.register()
    bench.feed(ResultsOpened(2))
    bench.hear(one_job(), dispatch(0, 1))
    bench.end(A)
    bench.feed(LinkLost(2, "gone"))
    effects = bench.connect(epoch=5)
    assert only(Note, effects)
    register = only(SendTask, effects)[0].message
    assert isinstance(register, Register)
    assert register.epoch_seen == 9
    assert bench.register(unwanted=(A, B))[1:] == [OpenResults(3)]
    assert bench.hear(Cancel([B])) == []
    assert bench.hear(ResultAck([A], "superseded"), door="result") == []
    statistics = bench.core.statistics().attempts
    assert (statistics.running, statistics.quarantined) == (1, 1)


def test_messages_of_an_older_session_and_repeated_batches_are_ignored() -> None:
    bench = live_bench()
    batch = Heard(1, "task", 2, [one_job(), dispatch(0)])
    assert len(bench.feed(batch)) == 1
    bench.end(A)
    bench.hear(ResultAck([A]), door="result")
    assert bench.feed(batch) == []
    bench.feed(LinkLost(1, "gone"))
    bench.connect()
    assert bench.feed(batch) == []
    assert bench.feed(LinkLost(1, "again")) == []
    assert bench.feed(Connected(1, 1)) == []
    assert bench.feed(ConnectFailed(1, "unreachable", "late", 3)) == []
    assert bench.feed(ResultsOpened(1)) == []


def test_reattach_makes_a_new_session_at_once() -> None:
    bench = live_bench()
    effects = bench.hear(Reattach(), door="result")
    assert effects[0] == Disconnect(1)
    assert effects[-1] == Connect(2, 0.0, 0.0)


def test_heartbeats_are_sent_at_their_interval() -> None:
    bench = live_bench(idle_timeout_s=0.0)
    bench.hear(one_job(), dispatch(0, 1, 2))
    bench.feed(Measured(1.5, 700))
    bench.end(A)
    bench.now_s += 5.0
    assert bench.feed(Ticked())[-1] == SendTask(1, Started([B, C]))
    bench.now_s += 4.0
    bench.hear(ManagerHeartbeat(1), door="announce")
    bench.now_s += 1.0
    assert bench.feed(Ticked()) == sent(WorkerHeartbeat(0, 2, 1, 1.5, 700))


def test_a_silent_manager_is_lost_and_a_heard_one_is_not() -> None:
    bench = live_bench()
    bench.now_s += 29.0
    bench.hear(ManagerHeartbeat(1), door="announce")
    bench.now_s += 29.0
    assert not only(Disconnect, bench.feed(Ticked()))
    bench.now_s += 1.0
    effects = bench.feed(Ticked())
    assert only(Disconnect, effects) == [Disconnect(1)]
    assert only(Connect, effects) == [Connect(2, 0.0, 0.0)]


def test_a_worker_that_stood_still_does_not_blame_the_manager() -> None:
    bench = live_bench()
    bench.now_s += 100.0
    assert bench.feed(Resumed()) == []
    assert not only(Disconnect, bench.feed(Ticked()))


def test_without_a_manager_for_its_grace_a_worker_kills_what_runs_and_ends() -> None:
    bench = Bench()
    bench.feed(Restored())
    bench.connect()
    bench.register(grace_s=60.0)
    bench.hear(one_job(), dispatch(0))
    bench.run(A)
    bench.feed(LinkLost(1, "gone"))
    bench.now_s += 60.0
    assert bench.feed(Ticked()) == [Kill(A, 5.0)]
    effects = bench.end(A, how="signaled", signal=15)
    assert effects == [Exit(3, "no manager answered for 60 s")]


def test_a_single_shot_worker_ends_when_it_is_disconnected() -> None:
    bench = live_bench(is_single_shot=True)
    effects = bench.feed(LinkLost(1, "gone"))
    assert effects == [Disconnect(1), Exit(0, "disconnected from the manager: gone")]


# --- attempts -----------------------------------------------------------------------------------


def test_a_dispatched_task_is_started_and_its_result_stored_sent_and_forgotten() -> None:
    bench = live_bench()
    assert bench.hear(one_job(b"true"), dispatch(0)) == [start(A, 0)]
    assert bench.run(A) == []
    result = AttemptResult(A, "succeeded", 0, usage=Usage(0.01, 0.001, 0.002, 3.0))
    usage = {"wall_s": 0.01, "user_s": 0.001, "system_s": 0.002, "memory_peak_mb": 3.0}
    assert bench.end(A, **usage) == [Append([Finished(result)]), SendResults(1, [result])]
    assert bench.hear(ResultAck([A]), door="result") == [Acknowledge([A])]
    assert bench.core.statistics().attempts.finished == 0


def test_tasks_start_in_order_as_room_allows() -> None:
    bench = live_bench()
    effects = bench.hear(one_job(), dispatch(0, 1, 2))
    assert effects == [start(A, 0), start(B, 1)]
    effects = bench.end(B)
    assert effects[0] == start(C, 2)


def test_a_large_task_that_waits_for_room_is_not_overtaken() -> None:
    bench = live_bench()
    other = b"K" * 16
    bench.hear(one_job(), one_job(cores=2, uid=other), dispatch(0))
    assert bench.hear(dispatch(0, uid=other), dispatch(1)) == []
    effects = bench.end(A)
    assert [s.attempt for s in only(Start, effects)] == [attempt_id(0, uid=other)]
    effects = bench.end(attempt_id(0, uid=other))
    assert [s.attempt for s in only(Start, effects)] == [B]


def test_a_task_whose_inputs_are_on_their_way_holds_up_nobody() -> None:
    bench = live_bench()
    other = b"K" * 16
    effects = bench.hear(one_job(files=("in",)), one_job(uid=other), dispatch(0))
    assert effects == [Fetch(file_ref("in").digest, 10)]
    assert len(only(Start, bench.hear(dispatch(0, uid=other)))) == 1
    key = file_ref("in").digest
    assert bench.feed(FilesCached([(key, 10)])) == [start(A, 0, links=[(key, b"in", 0o644)])]


def test_programs_among_the_inputs_have_a_key_of_their_own() -> None:
    bench = live_bench()
    describe = one_job(files=("in",))
    describe.files[0] = file_ref("in", mode=0o755)
    key = file_ref("in").digest + b"x"
    assert bench.hear(describe, dispatch(0)) == [Fetch(key, 10)]
    assert bench.feed(FilesCached([(key, 10)])) == [start(A, 0, links=[(key, b"in", 0o755)])]


def test_an_input_that_cannot_be_had_ends_all_who_wait_for_it() -> None:
    bench = live_bench()
    bench.hear(one_job(files=("in", "also")), dispatch(0, 1))
    effects = bench.feed(FileFailed(file_ref("in").digest, "it was changed after submission"))
    text = "Input 'in': it was changed after submission"
    results = [AttemptResult(a, "input_missing", text=text) for a in (A, B)]
    assert effects == [
        DropFetch(file_ref("also").digest),
        Append([Finished(result) for result in results]),
        SendResults(1, results),
    ]


def test_a_full_disk_here_is_not_a_missing_input() -> None:
    bench = live_bench()
    bench.hear(one_job(files=("in",)), dispatch(0))
    effects = bench.feed(FileFailed(file_ref("in").digest, "no space left", is_own_fault=True))
    assert only(SendResults, effects)[0].results[0].outcome == "sandbox_failed"


def test_an_unknown_job_and_a_task_that_can_never_fit_are_given_back() -> None:
    bench = live_bench()
    assert bench.hear(dispatch(0)) == sent(Returned([A], "unknown_job"))
    assert bench.hear(one_job(cores=3), dispatch(1)) == sent(Returned([B], "does_not_fit"))


def test_a_forgotten_job_is_unknown() -> None:
    bench = live_bench()
    bench.hear(one_job(), Forget([UID]))
    assert bench.hear(dispatch(0)) == sent(Returned([A], "unknown_job"))


def test_a_doubled_dispatch_is_ignored_while_running_and_answered_when_finished() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0))
    assert bench.hear(dispatch(0)) == []
    bench.end(A)
    bench.now_s += 2.0
    again = AttemptResult(A, "succeeded", 0, ended_ago_s=2.0)
    assert bench.hear(dispatch(0)) == [SendResults(1, [again])]


def test_placeholders_are_filled_and_quoted_in_shell_lines_only() -> None:
    bench = live_bench()
    describe = one_job(
        b"cat {} > {/.}-{#}",
        is_shell=True,
        is_array=True,
        env=((b"V", b"{}"),),
        outputs=(b"{/}.o",),
    )
    effects = bench.hear(describe, Dispatch([Assignment(attempt_id(5), b"d/a b.txt")]))
    begun = only(Start, effects)[0]
    assert begun.command == [b"cat 'd/a b.txt' > 'a b'-5"]
    assert begun.environment[0] == (b"V", b"d/a b.txt")
    assert begun.outputs == [b"a b.txt.o"]


def test_the_columns_of_an_array_give_each_task_its_own_file() -> None:
    bench = live_bench()
    describe = one_job(files=("in",), is_array=True)
    describe.template.inputs[0] = type(describe.template.inputs[0])(b"in", -1)
    own = file_ref("own")
    effects = bench.hear(describe, Dispatch([Assignment(A, b"", [own])]))
    assert effects == [Fetch(own.digest, 10)]
    effects = bench.hear(Dispatch([Assignment(B, b"", [])]))
    assert only(SendResults, effects)[0].results == [
        AttemptResult(B, "input_missing", text="Input 'in': no file was given for it")
    ]


def test_names_that_leave_the_sandbox_are_outcomes() -> None:
    bench = live_bench()
    effects = bench.hear(one_job(outputs=(b"../x",)), dispatch(0))
    text = "Output '../x': the name leaves the sandbox through \"..\""
    assert only(SendResults, effects)[0].results == [AttemptResult(A, "output_unsafe", text=text)]
    effects = bench.hear(one_job(files=("/etc/x",)), dispatch(1))
    assert only(SendResults, effects)[0].results[0].outcome == "sandbox_failed"


def test_gpus_are_concrete_and_given_back() -> None:
    bench = live_bench(resources=Resources(4000, 0, 0, 2), gpu_ids=["0", "1"])
    effects = bench.hear(one_job(gpus=1), dispatch(0, 1, 2))
    seen = [dict(s.environment)[b"CUDA_VISIBLE_DEVICES"] for s in only(Start, effects)]
    assert seen == [b"0", b"1"]
    assert dict(only(Start, effects)[0].environment)[b"GPUS"] == b"1"
    effects = bench.end(B)
    assert dict(only(Start, effects)[0].environment)[b"CUDA_VISIBLE_DEVICES"] == b"1"


def test_a_cancelled_task_is_killed_and_says_no_more() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    assert bench.hear(Cancel([A, C, attempt_id(77)])) == [Kill(A, 5.0)]
    assert bench.hear(Cancel([A])) == []
    assert bench.end(A, how="signaled", signal=15, has_sandbox=True) == [Remove([A])]


def test_what_has_not_begun_can_be_taken_back() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    assert bench.hear(TakeBack([A, C])) == sent(Returned([C], "taken_back"))


def test_only_tasks_that_run_for_a_while_are_told_as_started() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1))
    assert bench.core.deadline() == bench.now_s + 0.1
    bench.end(A)
    bench.now_s += 0.1
    assert bench.feed(Ticked()) == sent(Started([B]))


def test_an_unknown_result_is_kept_and_not_repeated() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0))
    bench.end(A)
    assert bench.hear(ResultAck([A], "unknown"), door="result") == []
    bench.feed(LinkLost(1, "gone"))
    register = bench.connect()[0].message  # type: ignore[union-attr]
    assert isinstance(register, Register)
    assert (register.inventory, register.quarantined) == ([], [A])
    bench.register()
    assert bench.feed(ResultsOpened(2)) == []


def test_results_of_an_earlier_process_are_delivered() -> None:
    bench = Bench()
    old = AttemptResult(A, "succeeded", 0, ended_ago_s=50.0)
    bench.feed(Restored([old]))
    bench.now_s += 1.0
    bench.connect()
    bench.register()
    again = AttemptResult(A, "succeeded", 0, ended_ago_s=51.0)
    assert bench.feed(ResultsOpened(1)) == [SendResults(1, [again])]


# --- outcomes -----------------------------------------------------------------------------------


def outcome_of(**facts: object) -> tuple[str, str]:
    bench = live_bench()
    bench.hear(one_job(outputs=(b"a", b"b")), dispatch(0))
    result = only(SendResults, bench.end(A, **facts))[0].results[0]
    return result.outcome, result.text


def test_each_end_has_its_outcome_and_one_clear_line() -> None:
    assert outcome_of() == ("succeeded", "")
    assert outcome_of(exit_code=3) == ("exit_nonzero", "Exited with code 3")
    signaled = {"how": "signaled", "exit_code": -1}
    assert outcome_of(**signaled, signal=11) == ("signal", "Received signal 11 (SIGSEGV)")
    assert outcome_of(**signaled, signal=40) == ("signal", "Received signal 40")
    assert outcome_of(how="not_found", text="no x") == ("not_found", "no x")
    missing = [OutputFound(0, "missing"), OutputFound(1, "missing")]
    text = "Output 'a' was not made (1 more like it)"
    assert outcome_of(outputs=missing) == ("output_missing", text)
    assert outcome_of(outputs=missing, exit_code=1)[0] == "exit_nonzero"
    unsafe = [OutputFound(0, "missing"), OutputFound(1, "unsafe")]
    text = "Output 'b' is not a regular file inside the sandbox"
    assert outcome_of(outputs=unsafe) == ("output_unsafe", text)


def test_small_outputs_travel_inside_the_result() -> None:
    bench = live_bench()
    bench.hear(one_job(outputs=(b"a",)), dispatch(0))
    outputs = [OutputFound(0, "ok", 2, 0o755, b"hi")]
    effects = bench.end(A, outputs=outputs, stdout=b"out", stdout_size=3)
    assert only(SendResults, effects)[0].results[0].outputs == [
        OutputResult(0, 2, 0o755, b"", b"hi"),
        OutputResult(STDOUT, 3, 0o644, b"", b"out"),
    ]


def test_large_outputs_are_hashed_first_and_their_room_is_free_meanwhile() -> None:
    bench = live_bench(resources=Resources(1000))
    bench.hear(one_job(outputs=(b"a", b"b")), dispatch(0, 1))
    outputs = [OutputFound(1, "ok", 99999, 0o644)]
    effects = bench.end(A, outputs=outputs, stdout=None, stdout_size=70000, has_sandbox=True)
    assert effects[0] == Collect(A, [(1, b"b", 0o644), (STDOUT, b"", 0o644)])
    assert [s.attempt for s in only(Start, effects)] == [B]
    large = [
        OutputResult(1, 99999, 0o644, b"D" * 32),
        OutputResult(STDOUT, 70000, 0o644, b"E" * 32),
    ]
    effects = bench.feed(Collected(A, large))
    result = AttemptResult(A, "succeeded", 0, outputs=large)
    assert effects == [
        Append([Finished(result, True, [(1, b"b"), (STDOUT, b"")])]),
        SendResults(1, [result]),
    ]


def test_outputs_that_cannot_be_read_are_an_outcome() -> None:
    bench = live_bench()
    bench.hear(one_job(outputs=(b"a",)), dispatch(0))
    bench.end(A, outputs=[OutputFound(0, "ok", 99999)], has_sandbox=True)
    effects = bench.feed(Collected(A, [], "Output 'a': input/output error"))
    result = only(SendResults, effects)[0].results[0]
    assert (result.outcome, result.text) == ("output_failed", "Output 'a': input/output error")


def test_a_task_cancelled_while_its_outputs_are_hashed_leaves_nothing() -> None:
    bench = live_bench()
    bench.hear(one_job(outputs=(b"a",)), dispatch(0))
    bench.end(A, outputs=[OutputFound(0, "ok", 99999)], has_sandbox=True)
    assert bench.hear(Cancel([A])) == [Remove([A])]
    assert bench.feed(Collected(A, [])) == []


# --- leaving ------------------------------------------------------------------------------------


def test_a_stopped_worker_kills_what_runs_gives_it_back_and_says_goodbye() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    effects = bench.feed(StopRequested("SIGTERM"))
    assert effects == [Kill(A, 5.0), Kill(B, 5.0), *sent(Returned([C], "leaving"))]
    assert bench.end(A, how="signaled", signal=15) == sent(Returned([A], "leaving"))
    assert bench.end(B, how="signaled", signal=15) == [
        *sent(Returned([B], "leaving"), Bye("leaving")),
        Exit(0, "SIGTERM"),
    ]


def test_a_worker_that_leaves_takes_nothing_more() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0))
    bench.feed(StopRequested("SIGTERM"))
    assert bench.hear(dispatch(1)) == sent(Returned([B], "leaving"))


def test_a_worker_that_leaves_waits_for_its_acknowledgements() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0))
    bench.end(A)
    assert bench.feed(StopRequested("SIGTERM")) == []
    effects = bench.hear(ResultAck([A]), door="result")
    assert effects == [Acknowledge([A]), *sent(Bye("leaving")), Exit(0, "SIGTERM")]


def test_a_second_signal_ends_the_worker_at_once() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0))
    bench.feed(StopRequested("SIGTERM"))
    assert bench.feed(StopRequested("SIGTERM")) == [
        Kill(A, 0.0),
        *sent(Returned([A], "leaving"), Bye("leaving")),
        Exit(0, "SIGTERM"),
    ]


def test_a_task_that_cannot_be_killed_holds_a_leaving_worker_for_a_while_only() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0))
    bench.feed(StopRequested("SIGTERM"))
    bench.now_s = 109.5
    assert not only(Exit, bench.feed(Ticked()))
    assert bench.core.deadline() == 110.0
    bench.now_s = 110.0
    assert bench.feed(Ticked())[-1] == Exit(0, "SIGTERM")


def test_an_idle_worker_leaves_after_its_timeout() -> None:
    bench = live_bench(idle_timeout_s=60.0)
    bench.now_s += 10.0
    bench.hear(one_job(), dispatch(0))
    bench.end(A)
    bench.hear(ResultAck([A]), door="result")
    for _ in range(3):
        bench.now_s += 20.0
        bench.hear(ManagerHeartbeat(1), door="announce")
    effects = bench.feed(Ticked())
    assert effects[-2:] == [*sent(Bye("idle")), Exit(0, "no work for 60 s")]


def test_a_worker_ends_with_its_wall_time() -> None:
    bench = live_bench(wall_time_s=20.0)
    bench.hear(one_job(), dispatch(0))
    assert bench.run(A) == []
    bench.now_s += 20.0
    assert Kill(A, 5.0) in bench.feed(Ticked())
    assert bench.end(A)[-1] == Exit(0, "the wall time is over")


def test_a_released_worker_may_finish_what_runs() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    effects = bench.hear(Leave("drain", finish_running=True))
    assert effects == sent(Returned([C], "leaving"))
    bench.end(A)
    bench.end(B)
    effects = bench.hear(ResultAck([A, B]), door="result")
    assert effects[-2:] == [
        *sent(Bye("released")),
        Exit(0, "the manager sent this worker home: drain"),
    ]


def test_a_final_stop_of_the_manager_ends_the_worker_and_another_does_not() -> None:
    bench = live_bench()
    assert bench.hear(Stopping(False), door="announce") == []
    effects = bench.hear(Stopping(True), door="announce")
    assert effects == [*sent(Bye("stopping")), Exit(0, "the manager has stopped")]


def test_reports_of_strangers_change_nothing() -> None:
    bench = live_bench()
    assert bench.feed(Reported([Ended(A, "exited", 0)])) == []
    assert bench.run(A) == []


def test_results_of_a_busy_worker_go_several_together_and_the_last_at_once() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    assert len(only(SendResults, bench.end(A))) == 1
    bench.now_s += 0.001
    assert not only(SendResults, bench.end(B))
    assert bench.core.deadline() == pytest.approx(bench.now_s + 0.004)
    bench.now_s += 0.001
    (report,) = only(SendResults, bench.end(C))
    assert [result.attempt for result in report.results] == [B, C]


def test_a_result_that_waited_is_kept_before_it_is_forgotten() -> None:
    bench = live_bench()
    bench.hear(one_job(), dispatch(0, 1, 2))
    bench.end(A)
    bench.end(B)
    effects = bench.hear(ResultAck([B], "superseded"), door="result")
    kinds = [type(effect) for effect in effects]
    assert kinds == [Append, SendResults, Acknowledge]


# --- what is too much for a frame -----------------------------------------------------------------

TOO_MANY = [OutputResult(i, 100_000, 0o644, b"D" * 32) for i in range(30_000)]

CANNOT_BE_DELIVERED = "The result has 30,000 outputs; at most 10,002 can be delivered"


def test_a_result_with_too_many_outputs_is_a_failure_that_says_so() -> None:
    bench = live_bench()
    bench.hear(one_job(outputs=tuple(b"%d" % i for i in range(30_000))), dispatch(0))
    found = [OutputFound(i, "ok", 100_000) for i in range(30_000)]
    bench.end(A, outputs=found, has_sandbox=True)
    effects = bench.feed(Collected(A, TOO_MANY))
    usage = Usage(0.0, None, None, None, 0.0, 0.0)
    result = AttemptResult(A, "output_failed", 0, 0, CANNOT_BE_DELIVERED, usage)
    assert effects == [Append([Finished(result, has_sandbox=True)]), SendResults(1, [result])]


def test_such_a_result_of_an_earlier_process_is_delivered_as_a_failure() -> None:
    bench = Bench()
    bench.feed(Restored([AttemptResult(A, "succeeded", 0, outputs=TOO_MANY, ended_ago_s=7.0)]))
    bench.connect()
    bench.register()
    effects = bench.feed(ResultsOpened(bench.session))
    result = AttemptResult(A, "output_failed", 0, 0, CANNOT_BE_DELIVERED, ended_ago_s=7.0)
    assert effects == [SendResults(1, [result])]
