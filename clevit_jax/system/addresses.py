"""Addresses: what lies in a bucket or on the web, `SCHEME://...`, and is copied before it is read.

Names on the Hugging Face hub are none of these (`system.hub`), nor are its pages.
"""

import os
import pathlib
import re
import urllib.parse
from collections.abc import Callable

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# The page of a repository of the hub, or of a file in it.
ON_HUB = re.compile(
    r"https?://(?:huggingface\.co|hf\.co)/(datasets/)?([^/?#]+/[^/?#]+)"
    r"(?:/(?:resolve|blob|tree|raw)/([^/?#]+)(/[^?#]+)?)?/?(?:[?#].*)?$"
)
WEB = ("http", "https")
BUCKETS = ("gs", "gcs")
_ELSEWHERE = ("hf", "file", "local")  # which other rooms read, or have a better name
# Parameters that let somebody in, by the words in their names; whoever has them may read.
_SECRET = re.compile(
    r"token|secret|sign|sig$|key|passw|auth|credential|expire|policy|jwt|^x-(amz|goog|ms)-"
    r"|^s[ekprtv]$|^spr$|^rlkey$",
    re.IGNORECASE,
)


def scheme(text: str | os.PathLike[str]) -> str:
    """The scheme of an address, in small letters; "" of a path, and of what is there as one."""
    found = _ADDRESS.match(os.fspath(text))
    try:
        return "" if found is None or os.path.lexists(text) else found[1].lower()
    except ValueError:  # a null byte
        return ""


def is_fetched(text: str | os.PathLike[str]) -> bool:
    """Whether a text is an address that can be copied here (`system.fetch`)."""
    if not (kind := scheme(text)) or kind in _ELSEWHERE or ON_HUB.match(os.fspath(text)):
        return False
    if kind in WEB or kind in BUCKETS:
        return True
    from fsspec.registry import known_implementations  # imported here: paths need none of it

    return kind in known_implementations


def shown(address: str | os.PathLike[str]) -> str:
    """An address as messages, tables and pages show it: without a password, and a query."""
    return _with_query(os.fspath(address), lambda parameters: [])


def public(address: str | os.PathLike[str]) -> str:
    """An address as files keep it, without what lets somebody in: a password, a signed query.

    Two addresses that differ in these alone name one thing.
    """
    return _with_query(
        os.fspath(address), lambda found: [pair for pair in found if not _SECRET.search(pair[0])]
    )


def _with_query(
    address: str, keep: Callable[[list[tuple[str, str]]], list[tuple[str, str]]]
) -> str:
    if not scheme(address):
        return address
    kind, _, rest = address.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    if kind.lower() in WEB:
        place = host
    elif ":" in user:
        place = f"{user.partition(':')[0]}{at}{host}"
    if kind.lower() in WEB:
        path, _, query = path.partition("#")[0].partition("?")
        kept = keep(urllib.parse.parse_qsl(query, keep_blank_values=True))
        path += f"?{urllib.parse.urlencode(kept)}" if kept else ""
    return f"{kind}://{place}{slash}{path}"


def last_name(address: str) -> str:
    """The name of the file or folder at an address: `leaves` of `gs://BUCKET/data/leaves/`."""
    path = shown(address).partition("://")[2].rstrip("/")
    name = path.rpartition("/")[2]
    return urllib.parse.unquote(name) if scheme(address) in WEB else name


def parent(address: str) -> tuple[str, str]:
    """The folder of an address, without a slash at the end, and the name in it."""
    folder, _, name = address.rstrip("/").rpartition("/")
    return folder, name


def below(address: str, name: str | pathlib.PurePath) -> str:
    """The address of what lies below another, as messages show it; of a pattern, its folder's."""
    name = pathlib.PurePath(name).as_posix()
    folder = shown(address).rstrip("/")
    return folder if name in ("", ".") else f"{folder}/{name}"
