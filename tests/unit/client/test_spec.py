import os
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol.codec import decode_spec, encode_spec
from wqueue.protocol.errors import UsageError
from wqueue.protocol.messages import FileIdentity, FileRef, InputSpec, JobSpec, OutputSpec
from wqueue.protocol.names import why_unsafe
from wqueue.protocol.template import expand
from wqueue.spec import Plan, Source
from wqueue.task_array import Array, array_of
from wqueue.tasks import InputBuffer, InputFile, OutputFile, Task

HERE = b"/home/ada"


def plan(task: Task, values: Sequence[str | bytes] | None = None, count: int = 0) -> Plan:
    array: Array | None = None
    if values is not None:
        array = array_of(None, values, 0, 1)
    elif count:
        array = array_of(count, None, 0, 1)
    return Plan(task, array, HERE)


def refs(of: Plan) -> list[FileRef]:
    return [FileRef(bytes([i]) * 32, i) for i in range(len(of.sources))]


def test_a_plain_task_becomes_a_small_description() -> None:
    spec = plan(Task("echo $HOME", env={"A": "1"}, name="n", tag="t", max_retries=2)).spec([])
    assert spec.template.command == [b"echo $HOME"]
    assert spec.template.is_shell
    assert not spec.template.is_array
    assert spec.template.env == [(b"A", b"1")]
    assert (spec.name, spec.tag, spec.category, spec.max_retries) == ("n", "t", "default", 2)
    assert spec.count == 1
    assert len(encode_spec(spec)) < 100


def test_a_vector_is_run_as_it_is() -> None:
    spec = plan(Task(["echo", "$HOME"])).spec([])
    assert spec.template.command == [b"echo", b"$HOME"]
    assert not spec.template.is_shell


def test_the_default_of_retries_is_the_rule() -> None:
    assert plan(Task("true")).spec([]).max_retries == -1


@pytest.mark.parametrize(
    ("local", "path", "remote"),
    [
        ("a.txt", b"/home/ada/a.txt", b"a.txt"),
        ("data/a.txt", b"/home/ada/data/a.txt", b"data/a.txt"),
        ("./data//a.txt", b"/home/ada/./data//a.txt", b"data/a.txt"),
        ("/etc/hosts", b"/etc/hosts", b"hosts"),
        ("../b/a.txt=a.txt", b"/home/ada/../b/a.txt", b"a.txt"),
        ("/etc/hosts=etc/h", b"/etc/hosts", b"etc/h"),
        ("{}", b"/home/ada/{}", b"{}"),
    ],
)
def test_remote_names_default_to_the_path_as_given(local: str, path: bytes, remote: bytes) -> None:
    made = plan(Task("true", inputs=[local]))
    assert list(made.sources) == [Source(path)]
    assert made.inputs == [InputSpec(remote, 0)]
    made = plan(Task("true", outputs=[local]))
    assert made.outputs == [OutputSpec(remote, path)]


def test_buffers_travel_as_files() -> None:
    made = plan(Task("true", inputs=[InputBuffer(b"hello", "h.txt"), InputBuffer(b"", "e")]))
    assert list(made.sources) == [Source(b"", b"hello"), Source(b"", b"")]
    assert made.inputs == [InputSpec(b"h.txt", 0), InputSpec(b"e", 1)]


def test_one_file_under_two_names_is_one_file() -> None:
    made = plan(Task("true", inputs=["a=b", "a=c", "a=b"]))
    assert list(made.sources) == [Source(b"/home/ada/a")]
    assert made.inputs == [InputSpec(b"b", 0), InputSpec(b"c", 0)]


def test_an_array_has_a_column_where_names_differ() -> None:
    made = plan(Task("gzip {/}", inputs=["{}={/}", "common"]), values=["x/a", "x/b", "x/a"])
    assert list(made.sources) == [
        Source(b"/home/ada/x/a"),
        Source(b"/home/ada/x/b"),
        Source(b"/home/ada/common"),
    ]
    assert made.columns == [[0, 1, 0]]
    assert made.inputs == [InputSpec(b"{/}", -1), InputSpec(b"common", 2)]
    spec = made.spec(refs(made))
    assert spec.count == 3
    assert spec.items == [b"x/a", b"x/b", b"x/a"]
    assert spec.template.is_array
    assert decode_spec(encode_spec(spec)) == spec


def test_absolute_values_are_known_by_their_last_part() -> None:
    made = plan(
        Task("true", inputs=["{}"], outputs=["{.}.gz"]), values=["/data/a.txt", "/data/b.txt"]
    )
    assert made.inputs == [InputSpec(b"{/}", -1)]
    assert list(made.sources) == [Source(b"/data/a.txt"), Source(b"/data/b.txt")]
    assert made.outputs == [OutputSpec(b"{/.}.gz", b"{.}.gz")]
    assert made.destinations(1) == [b"/data/b.gz"]
    assert made.folder == b"/data"


def test_a_range_stays_a_description() -> None:
    made = plan(Task("echo {}", outputs=["out/{}.txt"]), count=100_000_000)
    assert len(encode_spec(made.spec([]))) < 300
    assert made.folder == b"/home/ada/out"
    assert made.destinations(99_999_999) == [b"/home/ada/out/99999999.txt"]


def test_outputs_without_a_destination_stay_at_the_manager() -> None:
    made = plan(Task("true", outputs=[OutputFile("r")]), count=3)
    assert made.outputs == [OutputSpec(b"r", b"")]
    assert made.folder == b""
    assert made.destinations(2) == [b""]


def test_the_folder_is_above_all_destinations() -> None:
    made = plan(Task("true", outputs=["a/b/c", "a/d/../e=e", "/home/ada/a/x/y"]))
    assert made.folder == b"/home/ada/a"


def test_outputs_may_be_kept_instead_of_written() -> None:
    made = plan(Task("true", outputs=["a"]))
    directory = FileIdentity(HERE, 0, 0, 1)
    assert made.spec([], directory).directory == directory
    kept = made.spec([], directory, keeps_outputs=True)
    assert kept.directory is None
    assert kept.template.outputs == [OutputSpec(b"a")]
    assert made.destinations(0) == [b"/home/ada/a"]


REFUSED: list[tuple[dict[str, Any], list[str] | None, str]] = [
    ({"inputs": ["../a"]}, None, "the input cannot be called"),
    ({"inputs": ["a=/a"]}, None, "absolute"),
    ({"inputs": ["a=b/../../c"]}, None, '".."'),
    ({"inputs": ["a=."]}, None, "the sandbox itself"),
    ({"inputs": ["a=x", "b=x"]}, None, "two different inputs are called x"),
    ({"inputs": ["a=x", "b=./x"]}, None, "two different inputs are called x"),
    ({"inputs": ["a=x", "b=x/y"]}, None, "x is a file and cannot hold x/y"),
    ({"inputs": [InputFile("")]}, None, "cannot be called ''"),
    ({"inputs": [InputFile("a\0")]}, None, "cannot be called"),
    ({"outputs": ["../a"]}, None, "the output cannot be called"),
    ({"outputs": ["a=/a"]}, None, "absolute"),
    ({"outputs": ["a=x", "b=x"]}, None, "two outputs are called x"),
    ({"outputs": ["a=x", "a=y"]}, None, "two outputs would be written to /home/ada/a"),
    ({"outputs": ["a=x", "./b/../a=y"]}, None, "two outputs would be written to /home/ada/a"),
    ({"outputs": ["folder/"]}, None, "is a folder"),
    ({"outputs": [OutputFile(None)]}, None, "an output needs a name"),
    ({"inputs": ["a"], "outputs": ["b=a"]}, None, "a is the name of both"),
    ({"outputs": ["all.txt"]}, ["1", "2"], "every task of the array would write"),
    ({"outputs": ["{//}.txt"]}, ["1", "2"], "two outputs would be written to"),
    ({"outputs": ["{/}.gz"]}, ["a/x", "b/x"], "two outputs would be written to"),
    ({"outputs": ["{}.gz"]}, ["x", "x"], "two outputs would be written to"),
    ({"inputs": ["{}"]}, ["a", "../b"], "the input of task 1 cannot be called '../b'"),
    ({"inputs": ["{}={}"]}, ["a", "/b"], "absolute path for some values"),
    ({"inputs": ["{}=x", "{}=x"], "outputs": ["{#}=x"]}, ["a"], "both an input and an output"),
    ({"inputs": ["/{//}"]}, ["x/y/b"], "it is not clear what"),
]


@pytest.mark.parametrize(("fields", "values", "sentence"), REFUSED)
def test_impossible_files_are_refused_in_a_sentence(
    fields: dict[str, Any], values: list[str] | None, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(Task("true", **fields), values)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((None, None, 0, 1), "needs values or a count"),
        ((3, ["a"], 0, 1), "not both"),
        ((None, ["a"], 1, 1), "not both"),
        ((0, None, 0, 1), "1 to 100000000 tasks, not 0"),
        ((100_000_001, None, 0, 1), "not 100000001"),
        ((2, None, 0, 0), "step of an array is 0"),
        ((2, None, 2**63, 1), "too large"),
        ((None, [], 0, 1), "not 0"),
        ((None, ["a", "b\0"], 0, 1), "value 1"),
        ((None, ["x" * 5000], 0, 1), "5000 bytes"),
    ],
)
def test_impossible_arrays_are_refused(arguments: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        array_of(*arguments)
    assert sentence in str(caught.value)


def test_a_range_counts_by_its_step() -> None:
    array = array_of(3, None, 10, -5)
    assert list(array.values()) == [b"10", b"5", b"0"]
    assert array.value(2) == b"0"


names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)
templates = st.lists(
    st.sampled_from([b"a", b"/", b"..", b".", b"{}", b"{/}", b"{.}", b"{//}", b"{#}", b"=", b"{"]),
    min_size=1,
    max_size=5,
).map(b"".join)


@given(
    inputs=st.lists(templates, max_size=3),
    outputs=st.lists(templates, max_size=3),
    values=st.none() | st.lists(names, min_size=1, max_size=4),
)
def test_whatever_is_accepted_is_safe_for_every_task(
    inputs: list[bytes], outputs: list[bytes], values: list[bytes] | None
) -> None:
    try:
        made = plan(Task("true", inputs=inputs, outputs=outputs), values)
    except UsageError:
        return
    spec = decode_spec(encode_spec(made.spec(refs(made))))
    assert isinstance(spec, JobSpec)
    destinations = set()
    for index, value in enumerate(values or [b""]):
        taken = set()
        remotes = [entry.remote for entry in spec.template.inputs]
        remotes += [entry.remote for entry in spec.template.outputs]
        for remote in remotes:
            name = remote if values is None else expand(remote, value, index)
            assert not why_unsafe(name)
            taken.add(os.path.normpath(name))
        assert len(taken) == len(remotes)
        for place in made.destinations(index):
            assert place.startswith(b"/")
            path = os.path.normpath(place)
            assert path not in destinations
            assert (path + b"/").startswith(made.folder.rstrip(b"/") + b"/")
            destinations.add(path)
