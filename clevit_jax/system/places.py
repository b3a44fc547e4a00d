"""Places: what a path that a user types stands for, `~` and `$VAR` in it resolved.

Every flag, setting and argument that is a path goes through `place`, `run_place` or `expand`, and
through nothing else. A place is on this machine's disks (`pathlib.Path`) or in a bucket
(`system.buckets.BucketPath`, which has the same methods).
"""

import os
import pathlib
import re
import shlex
import urllib.parse
from typing import cast

from clevit_jax.errors import ConfigError
from clevit_jax.system import addresses

_VARIABLE = re.compile(r"\$(?:\{([^{}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def place(path: str | os.PathLike[str], what: str = "The path") -> pathlib.Path:
    """The path on this machine that somebody means; see `expand`. Raises ConfigError."""
    return pathlib.Path(expand(os.fspath(path), what))


def run_place(path: str | os.PathLike[str], what: str = "The path") -> pathlib.Path:
    """The path of a run, or of what is made of one, which may lie in a bucket: `gs://BUCKET/run`.

    Raises:
        ConfigError: as `expand`; it is an address of another kind, or what reads buckets is not
            installed.
    """
    text = os.fspath(path)
    scheme = addresses.scheme(text)
    if scheme in ("s3", "s3a", "az", "abfs", "hf"):
        raise ConfigError(
            f"{what} is {text}, and runs cannot be written to {scheme}://: Orbax, which writes the "
            "checkpoints, has no way there yet. Name a folder, or gs://BUCKET/run, and copy it "
            "afterwards."
        )
    if scheme != "gs":
        return place(text, what)
    from clevit_jax.system import buckets

    buckets.check_installed(f"{what} {text}")
    buckets.prepare()
    found = buckets.BucketPath(_resolved(f"gs://{text[5:]}", text, what))
    if not buckets.is_bucket_name(found.bucket):
        raise ConfigError(
            f"{what} is {text}, and a bucket's name has 3 signs or more: small letters, digits, "
            "-, _ and dots; write gs://BUCKET/run."
        )
    return cast(pathlib.Path, found)


def in_bucket(path: os.PathLike[str] | str) -> bool:
    """Whether a place that `run_place` gave lies in a bucket."""
    return isinstance(path, pathlib.PurePath) and not isinstance(path, pathlib.Path)


def expand(text: str, what: str = "The path", *, hub: bool = False, fetched: bool = False) -> str:
    """A path or a pattern with `~`, `~user`, `$NAME` and `${NAME}` resolved.

    A shell does this only where the path begins a word, so not in `--workdir=~/run` or
    `--config.data.root=$DATA` inside quotes, and a notebook never does. What is there under the
    name as it stands goes first, folder by folder: in `a$b/new` only `new` is looked at where there
    is a folder `a$b`.

    Args:
        text: the path; "" stays as it is.
        what: what messages call it: `--workdir`, `data.root`.
        hub: whether a name on the hub, `hf://OWNER/REPO`, is taken there, too; it stays as it is,
            and `system.hub` fetches it.
        fetched: whether an address in a bucket or on the web is taken, which `system.fetch` copies;
            of a bucket's, variables are resolved.

    Raises:
        ConfigError: a variable is not set, or there is no such user; or it is an address, as
            `gs://bucket/run`, of which the system would make folders called so.
    """
    if scheme := addresses.scheme(text):
        if hub and scheme == "hf":
            return text
        if fetched and addresses.is_fetched(text):
            return text if scheme in addresses.WEB else _resolved(text, text, what)
        raise ConfigError(f"{what} is {text}, {_not_here(scheme, text)}.")
    if "$" not in text and not text.startswith("~"):
        return text
    there = _there(text)
    return there + _resolved(text[len(there) :], text, what)


def _not_here(scheme: str, text: str) -> str:
    """What an address is, and what to do instead."""
    if scheme == "file":
        return (
            f"an address; write the path: {urllib.parse.unquote(urllib.parse.urlparse(text).path)}"
        )
    if scheme == "hf":
        return (
            "an address, a name on the Hugging Face hub; --config.model.pretrained, "
            "--config.data.root and the converter take it, and here the path of a file or a folder "
            "is meant"
        )
    if on_hub := addresses.ON_HUB.match(text):
        kind, repo, revision, file = on_hub.groups()
        at = f"@{revision}" if revision and revision != "main" else ""
        return f"an address of the Hugging Face hub; write hf://{kind or ''}{repo}{at}{file or ''}"
    if scheme in ("http", "https", "ftp"):
        name = shlex.quote(urllib.parse.urlparse(text).path.rpartition("/")[2] or "FILE")
        return (
            "an address, and nothing is downloaded; fetch it and name the file or folder: "
            f"curl -L -o {name} {_quoted(text)}"
        )
    return "an address, and paths are of this machine; mount it or copy it, and name the folder"


def _quoted(address: str) -> str:
    """For a shell; in quotes in any case, since a full stop follows."""
    quoted = shlex.quote(address)
    return quoted if quoted != address else f"'{address}'"


def _there(text: str) -> str:
    """The longest beginning of a path, of whole names, that exists as it stands."""
    parts = re.split(r"(?<=/)(?!/)", text)
    there = 0
    for k in range(len(parts), 0, -1):
        if _exists("".join(parts[:k])):
            there = k
            break
    return "".join(parts[:there])


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a null byte
        return False


def _resolved(rest: str, text: str, what: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] if match[1] is not None else match[2]
        if not os.environ.get(name):
            state = "is not set" if name not in os.environ else "is empty"
            raise ConfigError(
                f"{what} is {text}, and the variable {name or '${}'} {state}; set it "
                f"(export {name or 'NAME'}=...) or write the path in full."
            )
        return os.environ[name]

    home = rest == text and rest.startswith("~")
    if home:
        user, slash, rest = rest.partition("/")
        expanded = os.path.expanduser(user)
        if expanded.startswith("~"):
            whose = f"there is no user {user[1:]} here" if user[1:] else "no home folder is known"
            raise ConfigError(f"{what} is {text}, and {whose}; write the path in full.")
        return expanded + slash + _VARIABLE.sub(value, rest)
    return _VARIABLE.sub(value, rest)
