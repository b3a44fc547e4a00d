"""Tables that are called as the form in which a competition wants its answers."""

import re

_ANSWERS = re.compile(r"(^|[^a-z])(sample|submission|submit|sub)([^a-z]|$)|submission")


def is_form(name: str) -> bool:
    """Whether a table is called so.

    >>> is_form("sample_submission.csv"), is_form("train.csv")
    (True, False)
    """
    return _ANSWERS.search(table_stem(name).lower()) is not None


def table_stem(name: str) -> str:
    """The name of a table without its endings."""
    return re.sub(r"\.[ct]sv(\.gz)?$", "", name, flags=re.IGNORECASE)
