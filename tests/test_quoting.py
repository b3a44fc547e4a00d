"""Names of files in sentences: whole where they can be, harmless and bounded where they cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clevit_jax.system.quoting import first_of, printable, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Zürich 苹果 🍎 👩\u200d🌾 \u0645\u06cc\u200c\u062e",
            "Zürich 苹果 🍎 👩\u200d🌾 \u0645\u06cc\u200c\u062e",
        ),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[31mred\x07\x9b", r"\x1b[31mred\x07\x9b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udce9 \u2028", r"\udce9 \u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.lists(st.text() | st.binary() | st.integers() | st.none() | st.tuples(st.text())))
def test_a_list_is_one_printable_bounded_line(names):
    line = quoted(names, most=5)
    assert printable(line) == line
    line.encode()
    assert len(line) <= 5 * 90 + 20


def test_short_names_are_quoted_as_python_does():
    names = ["a.weight", "it's", 7, None]
    assert quoted(names) == ", ".join(map(repr, names))
    assert quoted(names, most=2) == "'a.weight', \"it's\" and 2 more"
    assert quoted(["x" * 2_000_000]) == "'" + "x" * 79 + "..."
    assert quoted([]) == ""


def test_sentences_are_counted_from_some_on():
    assert first_of(["a", "b"], 2) == ["a", "b"]
    assert first_of(map(str, range(5000)), 2) == ["0", "1", "and 4,998 more"]
