"""Names on the Hugging Face hub: parsed, looked up and fetched once, into the library's own cache.

The only room that imports huggingface_hub, and only when such a name is given. Cache, locks between
processes, resuming and tokens are the library's; what is chosen of a repository, and what a user is
told, is ours.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Literal

from clevit_jax.errors import ClevitError, ConfigError
from clevit_jax.system import hub_errors
from clevit_jax.system.progress import watched
from clevit_jax.system.quoting import printable, quoted

PREFIX = "hf://"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# Branches of the hub itself have slashes in their names.
_REVISION = r"refs/(?:convert|pr)/[^/@]+|[^/@]+"
_NAME = re.compile(
    rf"hf://(?:(datasets|models)/)?(?!(?:datasets|models|spaces|buckets)/)({_PART}/{_PART})"
    rf"(?:@({_REVISION}))?(/[^@]*)?",
    re.IGNORECASE,
)
_SECONDS = 30.0  # that the hub may take to say what a repository holds


@dataclasses.dataclass(frozen=True)
class Name:
    """A repository on the hub, or something in it.

    Attributes:
        kind: "model" or "dataset".
        repo: OWNER/REPO.
        revision: branch, tag or commit; "" is the default branch.
        path: of a file or a folder in it; "" is all of it.
    """

    kind: Literal["model", "dataset"]
    repo: str
    revision: str = ""
    path: str = ""

    def __str__(self) -> str:
        kind = "datasets/" if self.kind == "dataset" else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{kind}{self.repo}{revision}{'/' if self.path else ''}{self.path}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is fetched of a repository.

    Attributes:
        files: names in it.
        patterns: the same, as few patterns of `fnmatch`.
        path: what is read then; "" is the folder of all.
    """

    files: tuple[str, ...]
    patterns: tuple[str, ...]
    path: str = ""


@dataclasses.dataclass(frozen=True)
class Use:
    """What something is fetched for.

    Attributes:
        choose: what is needed of a repository, by the names of all its files; raises ConfigError
            where it holds nothing of use.
        setting: that takes a path instead, as a message writes it.
        by_hand: the files to bring from another machine, as `hf download` takes them; "" is all.
    """

    choose: Callable[[Name, tuple[str, ...]], Choice]
    setting: str
    by_hand: str = ""


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What lies on this machine now.

    Attributes:
        name: what was asked for.
        commit: that the revision stood for.
        path: of the file or the folder.
    """

    name: Name
    commit: str
    path: pathlib.Path

    def __str__(self) -> str:
        return str(dataclasses.replace(self.name, revision=self.commit))


def is_name(text: str | os.PathLike[str]) -> bool:
    """Whether a text begins as a name on the hub does, and no such path is there."""
    text = os.fspath(text)
    return text.lower().startswith(PREFIX) and not os.path.lexists(text)


def parse(text: str, what: str) -> Name:
    """The repository that `hf://[datasets/]OWNER/REPO[@REVISION][/PATH]` names.

    Args:
        text: for which `is_name` holds.
        what: what messages call it: `data.root`.

    Raises:
        ConfigError: it is no such name.
    """
    match = _NAME.fullmatch(text)
    parts = match[4].strip("/").split("/") if match and match[4] else []
    if match is None or ".." in parts:
        raise ConfigError(
            f"{what} is {printable(text)}, which names nothing on the hub; write "
            "hf://OWNER/REPO for weights and hf://datasets/OWNER/REPO for images, perhaps with "
            "@REVISION, /FILE or /FOLDER behind it."
        )
    kind = (match[1] or "models").lower()
    return Name(
        "dataset" if kind == "datasets" else "model",
        match[2],
        (match[3] or "").replace("%2F", "/").replace("%2f", "/"),
        "/".join(parts),
    )


@functools.cache  # so that one command reads one commit
def fetch(name: Name, use: Use) -> Fetched:
    """Fetches what is needed of a repository, once; prints size and licence first.

    Where the hub cannot be reached, a whole copy in the cache is taken, and it is said.

    Args:
        name: of the repository.
        use: what it is for.

    Raises:
        ConfigError: huggingface_hub is not installed; there is no such repository, revision or
            file, or no right to it; no network; no room; a download was cut off. Each says which
            file to bring, and the setting that names it.
    """
    hub = _library(name)
    with _sentences(name, use):
        try:
            info = hub.HfApi().repo_info(
                name.repo,
                repo_type=name.kind,
                revision=name.revision or None,
                files_metadata=True,
                timeout=_SECONDS,
            )
        except Exception as error:
            if not hub_errors.is_unreachable(error):
                raise
            return _from_cache(hub, name, use, error)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        choice = use.choose(name, tuple(sizes))
        new = [file for file in choice.files if not _is_cached(hub, name, file, info.sha)]
        fetched = Fetched(name, info.sha, pathlib.Path())
        _say(fetched, choice, new, sizes, _licence(info))
        _check_room(hub, name, use, sum(sizes[file] for file in new))
        with _quiet_unless_watched(hub):
            folder = pathlib.Path(_snapshot(hub, name, choice.patterns))
    if folder.name != info.sha:
        raise ConfigError(
            f"{name} was changed while it was fetched; start again, or name a commit: "
            f"{dataclasses.replace(name, revision=folder.name)}."
        )
    return dataclasses.replace(fetched, path=folder / choice.path)


def _library(name: Name) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"{name} is a name on the Hugging Face hub, and huggingface_hub, which fetches from "
            "there, is not installed: pip install 'clevit_jax[hub]'."
        ) from error
    return huggingface_hub


def _snapshot(hub: Any, name: Name, patterns: tuple[str, ...], *, local: bool = False) -> str:
    return hub.snapshot_download(
        name.repo,
        repo_type=name.kind,
        revision=name.revision or None,
        allow_patterns=list(patterns),
        local_files_only=local,
    )


def _is_cached(hub: Any, name: Name, file: str, commit: str) -> bool:
    found = hub.try_to_load_from_cache(name.repo, file, revision=commit, repo_type=name.kind)
    return isinstance(found, str)


def _from_cache(hub: Any, name: Name, use: Use, error: Exception) -> Fetched:
    """The copy that the cache has; raises the error again where it has none, or not all of it."""
    try:
        folder = pathlib.Path(_snapshot(hub, name, (), local=True))
        there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        choice = use.choose(name, tuple(there))
        _snapshot(hub, name, choice.patterns, local=True)  # which refuses a part of the files
    except (OSError, ClevitError):
        raise error from None
    fetched = Fetched(name, folder.name, folder / choice.path)
    reason = hub_errors.unreachable(error, hub.constants.ENDPOINT)
    print(f"{fetched} is read from the cache, since {reason}.", flush=True)
    return fetched


def _say(fetched: Fetched, choice: Choice, new: list[str], sizes: dict[str, int], by: str) -> None:
    files = choice.files[0] if len(choice.files) == 1 else f"{len(choice.files):,} files"
    if new:
        size = sum(sizes[file] for file in new) / 1e6
        print(
            f"Fetching {fetched}: {files}, {size:,.1f} MB to download; licence: {by}.", flush=True
        )
    else:
        print(f"{fetched}: {files}, in the cache already; licence: {by}.", flush=True)


def _licence(info: Any) -> str:
    """The licence that the card of a repository states."""
    card = getattr(info, "card_data", None)
    stated = card.get("license") if card is not None else None
    if isinstance(stated, str):
        stated = [stated]
    tags = getattr(info, "tags", None) or []
    stated = stated or [tag.partition(":")[2] for tag in tags if tag.startswith("license:")]
    return printable(", ".join(map(str, stated))) or "not stated, so ask its owner"


def _check_room(hub: Any, name: Name, use: Use, size: int) -> None:
    """Raises ConfigError where the disk of the cache has not the room."""
    cache = pathlib.Path(hub.constants.HF_HUB_CACHE)
    there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise ConfigError(
            f"{name} takes {size / 1e6:,.1f} MB, and {cache} has {free / 1e6:,.1f} MB left: free "
            f"some space, or name another place (export HF_HOME=DIR). {by_hand(name, use)}"
        )


@contextlib.contextmanager
def _quiet_unless_watched(hub: Any) -> Iterator[None]:
    """Keeps the library's bars, which are written over themselves, out of logs."""
    bars = hub.utils
    if watched() or bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()


def by_hand(name: Name, use: Use) -> str:
    """What to type on a machine that reaches the hub, and here then."""
    words = ["hf", "download", name.repo, *shlex.split(use.by_hand)]
    if pathlib.PurePosixPath(name.path).suffix and name.kind == "model":
        words[3:] = [name.path]
    elif name.path:
        del words[3:]
        words += ["--include", f"{name.path}/*"]
    words += ["--repo-type", "dataset"] if name.kind == "dataset" else []
    words += ["--revision", name.revision] if name.revision else []
    place = "FOLDER" + (f"/{name.path}" if name.path else "")
    return (
        f"Or bring it by hand: {shlex.join(words)} --local-dir FOLDER, on a machine that reaches "
        f"the hub, copy FOLDER here, and name it: {use.setting}={place}."
    )


@contextlib.contextmanager
def _sentences(name: Name, use: Use) -> Iterator[None]:
    """Turns what the library raises into a ConfigError of one sentence, and what to do."""
    try:
        yield
    except ClevitError:
        raise
    except Exception as error:
        import huggingface_hub

        constants = huggingface_hub.constants
        said = hub_errors.sentence(
            error,
            str(name),
            page=f"{constants.ENDPOINT}/{'datasets/' * (name.kind == 'dataset')}{name.repo}",
            endpoint=constants.ENDPOINT,
            cache=constants.HF_HUB_CACHE,
        )
        if said is None:
            raise
        raise ConfigError(f"{said} {by_hand(name, use)}") from error


def named_files(files: tuple[str, ...]) -> str:
    """The files of a repository, for a sentence."""
    return quoted(sorted(files), 5) if files else "nothing"
