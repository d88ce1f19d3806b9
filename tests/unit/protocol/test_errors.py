"""Errors: each code of the wire gives its class, and each class its exit code."""

import pytest

from wqueue.protocol import errors, outcomes


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        ("usage", errors.UsageError, 2),
        ("unreachable", errors.ManagerUnreachable, 3),
        ("not_authorized", errors.NotAuthorized, 4),
        ("no_such_task", errors.NoSuchTask, 6),
        ("store_full", errors.StoreFull, 6),
        ("draining", errors.Draining, 6),
        ("bad_message", errors.RemoteProtocolError, 7),
        ("version", errors.VersionMismatch, 7),
    ],
)
def test_a_code_gives_its_error(code: str, kind: type[Exception], exit_code: int) -> None:
    error = errors.error_from_wire(code, "a sentence")
    assert type(error) is kind
    assert str(error) == "a sentence"
    assert (error.code, error.exit_code) == (code, exit_code)


def test_an_unknown_code_is_a_refusal_that_keeps_it() -> None:
    error = errors.error_from_wire("from_the_future", "no")
    assert type(error) is errors.Refused
    assert (error.code, error.exit_code) == ("from_the_future", 6)


def test_a_refusal_without_code_has_its_class_code() -> None:
    assert errors.Refused("no").code == "refused"


def test_every_outcome_has_a_meaning() -> None:
    named = {
        value for name, value in vars(outcomes).items() if name.isupper() and name != "MEANINGS"
    }
    assert named == set(outcomes.MEANINGS)
