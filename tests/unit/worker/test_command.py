import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wqueue.worker.command import SHELL, argument_vector, split_line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"true", [b"true"]),
        (b"  gzip  -c\tfile ", [b"gzip", b"-c", b"file"]),
        (b"tar --exclude=x -f 'a b' \"c d\"e", [b"tar", b"--exclude=x", b"-f", b"a b", b"c de"]),
        (b"cat ''", [b"cat", b""]),
        (b"cat '$HOME; ls'", [b"cat", b"$HOME; ls"]),
        (b"cat f\xfcr", [b"cat", b"f\xfcr"]),
        (b"echo hello", [b"echo", b"hello"]),
    ],
)
def test_a_plain_line_is_split_as_the_shell_would(line: bytes, words: list[bytes]) -> None:
    assert split_line(line) == words


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"   ",
        b"a | b",
        b"a > b",
        b"a; b",
        b"a & b",
        b"a\nb",
        b"cat *.txt",
        b"cat a?",
        b"cat [ab]",
        b"cat ~/x",
        b"cat $HOME",
        b'cat "$HOME"',
        b'cat "`ls`"',
        b'cat "a\\"b"',
        b"cat a\\ b",
        b"A=1 env",
        b"cd /",
        b"exit 3",
        b"if true",
        b"{ ls",
        b"! true",
        b"true # comment",
        b"cat 'a",
        b'cat "a',
        b"echo -n x",
        b"echo 'a\\nb'",
        b"printf x",
        b"[ a = a ]",
    ],
)
def test_what_a_shell_would_read_otherwise_goes_to_a_shell(line: bytes) -> None:
    assert split_line(line) is None
    assert argument_vector([line], is_shell=True) == [SHELL, b"-c", line]


def test_an_argument_vector_is_left_alone() -> None:
    assert argument_vector([b"a", b"$x"], is_shell=False) == [b"a", b"$x"]


@given(st.text("ab '\"$\\*=;#~{}!-\t%@", max_size=12))
@settings(deadline=None, max_examples=60)
def test_a_line_split_here_gives_the_words_that_sh_makes_of_it(tail: str) -> None:
    line = ("/usr/bin/printf '%s\\0' " + tail).encode()
    words = split_line(line)
    if words is None:
        return
    by_shell = subprocess.run([SHELL, b"-c", line], capture_output=True, check=False)
    by_us = subprocess.run(words, capture_output=True, check=False)
    assert by_us.stdout == by_shell.stdout


@given(st.lists(st.text(max_size=8).filter(lambda word: "\0" not in word), min_size=1, max_size=4))
def test_quoted_words_come_back_unless_they_need_a_shell(words: list[str]) -> None:
    line = "/bin/prog " + " ".join(shlex.quote(word) for word in words)
    split = split_line(line.encode())
    assert split is None or split == [b"/bin/prog", *(word.encode() for word in words)]
