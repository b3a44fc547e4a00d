"""Errors of the house, and what is taken of the errors of others."""

import pytest

from clevit_jax.errors import DataError, first_line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n  no room.\nat frame 1\nat frame 2", "no room."),
        ("", "RuntimeError"),
        (" \n ", "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error(text, said):
    assert first_line(RuntimeError(text)) == said


def test_a_data_error_shows_twenty_and_keeps_all():
    error = DataError([f"{k}." for k in range(23)])
    assert len(error.problems) == 23
    assert str(error).splitlines()[-2:] == ["19.", "... and 3 more."]
