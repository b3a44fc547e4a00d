"""Placeholder."""

import pathlib

from clevit_jax.data.layouts.listing import Contents, Notes, Request

LOOKS_FOR = "*.tar of images and labels, as WebDataset has"


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None."""
    del root, request
    return None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads nothing yet."""
    del request
    notes.problems.append(f"{root} holds no {LOOKS_FOR}.")
    return Contents((), {"train": []})
