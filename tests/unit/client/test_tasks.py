import os
from pathlib import Path
from typing import Any

import pytest

from wqueue.protocol.errors import UsageError
from wqueue.protocol.resources import Resources
from wqueue.tasks import InputBuffer, InputFile, OutputFile, Task, parse_input, parse_output

NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"command": ""}, "the command is empty"),
    ({"command": "  \n"}, "the command is empty"),
    ({"command": []}, "the command is empty"),
    ({"command": [""]}, "the command is empty"),
    ({"command": ["", "x"]}, "the command is empty"),
    ({"command": 7}, "the command is a int"),
    ({"command": ["seq", 7]}, "a word of the command is 7"),
    ({"command": "a\0b"}, "NUL"),
    ({"command": ["a", "b\0"]}, "NUL"),
    ({"command": "x" * 200_000}, "put it into a script file"),
    ({"cores": -1}, "cores is -1"),
    ({"cores": float("nan")}, "cores is nan"),
    ({"cores": float("inf")}, "cores is inf"),
    ({"cores": "2"}, "cores is '2'; it must be a number"),
    ({"memory_mb": -5}, "memory_mb is -5"),
    ({"disk_mb": 1e30}, "disk_mb is 1e"),
    ({"gpus": -1}, "gpus is -1"),
    ({"named": {"licences": -1}}, "licences is -1"),
    ({"max_retries": -1}, "max_retries is -1"),
    ({"priority": float("inf")}, "the priority is inf"),
    ({"name": "n" * 257}, "the name has 257 characters"),
    ({"category": "n" * 300}, "the category has 300 characters"),
    ({"name": 7}, "the name is 7"),
    ({"tag": "\udcff"}, "valid Unicode"),
    ({"category": None}, "the category is None"),
    ({"features": [7]}, "a feature is 7"),
    ({"features": ["\udcff"]}, "valid Unicode"),
    ({"named": {"": 1}}, "the name of a resource has 1 to 256 characters"),
    ({"named": {"n" * 257: 1}}, "the name of a resource has 1 to 256 characters"),
    ({"named": {"\udcff": 1}}, "valid Unicode"),
    ({"features": "gpu"}, "features is a str"),
    ({"features": [""]}, "a feature has 1 to 256 characters"),
    ({"inputs": "a.txt"}, "write inputs="),
    ({"outputs": b"a.txt"}, "write outputs="),
    ({"inputs": 3}, "inputs is a int"),
    ({"env": {"A=B": "x"}}, "cannot be called 'A=B'"),
    ({"env": {"": "x"}}, "cannot be called ''"),
    ({"env": {"A": "x\0"}}, "NUL"),
    ({"env": {"A": "x" * 200_000}}, "put them into a file"),
    ({"env": {"A": 1}}, "the environment variable A is 1"),
    ({"env": ["A=1"]}, "env is a list"),
    ({"inputs": [5]}, "one of the inputs is 5"),
    ({"outputs": [None]}, "one of the outputs is None"),
    ({"priority": "x"}, "the priority is 'x'"),
    ({"max_retries": "x"}, "max_retries is 'x'"),
]


@pytest.mark.parametrize(("fields", "sentence"), NONSENSE)
def test_nonsense_is_refused_in_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Task(**{"command": "true"} | fields)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_task_asks_for_one_core_unless_told_otherwise() -> None:
    assert Task("true").resources() == Resources(1000, 0, 0, 0)


@pytest.mark.parametrize(
    ("cores", "thousandths"), [(0, 0), (0.3, 300), (0.0001, 1), (1, 1000), (2.5, 2500), (8, 8000)]
)
def test_fractions_of_cores_are_thousandths(cores: float, thousandths: int) -> None:
    assert Task("true", cores=cores).resources().cores_milli == thousandths


def test_fractions_of_megabytes_are_rounded_up() -> None:
    task = Task("true", memory_mb=0.5, disk_mb=10.01, gpus=1, named={"licences": 2})
    assert task.resources() == Resources(1000, 1, 11, 1, {"licences": 2})


@pytest.mark.parametrize(
    ("text", "local", "remote"),
    [
        ("a.txt", b"a.txt", None),
        ("a.txt=b.txt", b"a.txt", b"b.txt"),
        ("run=3/a.txt=a.txt", b"run=3/a.txt", b"a.txt"),
        ("{}={/}", b"{}", b"{/}"),
        (b"\xff=b", b"\xff", b"b"),
    ],
)
def test_files_may_be_written_short(text: str | bytes, local: bytes, remote: bytes | None) -> None:
    assert parse_input(text) == InputFile(local, remote)
    assert parse_output(text) == OutputFile(remote, local)


@pytest.mark.parametrize("text", ["", "=", "a=", "=b", b"="])
def test_half_a_file_is_refused(text: str | bytes) -> None:
    with pytest.raises(UsageError, match="LOCAL or LOCAL=REMOTE"):
        parse_input(text)
    with pytest.raises(UsageError, match="LOCAL or LOCAL=REMOTE"):
        parse_output(text)


def test_a_path_object_is_one_name_even_with_an_equals_sign() -> None:
    path = Path("run=3.txt")
    assert Task("true", inputs=[path]).input_list() == [InputFile(path)]
    assert Task("true", outputs=[path]).output_list() == [OutputFile(None, path)]


def test_files_may_be_lists_or_mappings_or_long_forms() -> None:
    buffer = InputBuffer(b"x", "x.txt")
    task = Task("true", inputs={"a": "b"}, outputs={"r": "l", "kept": None})
    assert task.input_list() == [InputFile("a", "b")]
    assert task.output_list() == [OutputFile("r", "l"), OutputFile("kept", None)]
    task = Task("true", inputs=["a=b", buffer], outputs=[OutputFile("r")])
    assert task.input_list() == [InputFile(b"a", b"b"), buffer]
    assert task.output_list() == [OutputFile("r", None)]


def test_names_that_are_no_utf8_are_taken() -> None:
    name = os.fsdecode(b"\xff\xfe")
    assert Task(["cat", name], env={"X": name}, inputs=[name]).input_list() == [
        InputFile(b"\xff\xfe", None)
    ]


def test_a_buffer_holds_bytes_and_nothing_else() -> None:
    with pytest.raises(UsageError, match="must be bytes"):
        InputBuffer(5, "five zeros")  # type: ignore[arg-type]
