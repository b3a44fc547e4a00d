"""Files of a checkpoint: their hashes, what a kill leaves of them, and where damaged ones go.

On a disk a checkpoint gets its name by a rename, when it is whole. In a bucket it has its name from
the start, and Orbax's mark is the last file that is written: without it, it is none.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import math
import pathlib
import shutil
from typing import Any, cast

import jax
from absl import logging

from clevit_jax.distributed import processes
from clevit_jax.errors import CheckpointError, UnreachableError
from clevit_jax.system import faults
from clevit_jax.system.files import write_json
from clevit_jax.system.places import in_bucket

HASHES_FILE = "sha256.json"  # {file: hash} in the folder of a checkpoint; older ones have none
SCORE_FILE = "metrics/metrics"
DAMAGED_FOLDER = "damaged"  # beside the checkpoints: always on their disk
_TORN = ".orbax-checkpoint-tmp"  # orbax's ending of what is not whole yet
_MARK = "commit_success.txt"
_FACTS = "_CHECKPOINT_METADATA"  # of Orbax; has the time at which a checkpoint was finished
_TORN_SCORE = "score-*.tmp"


def write_hashes(folder: pathlib.Path) -> None:
    """Writes the SHA-256 of all files in the folders of a checkpoint, as read from the disk.

    But for orbax's marks that a folder is whole, which hold no numbers.

    Raises:
        OSError: one cannot be read, or the hashes cannot be written.
    """
    inside = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    files = [path for path in inside if path.name != _MARK and not path.name.startswith(".nfs")]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        hashes = dict(zip(files, pool.map(_sha256, files), strict=True))
    names = {path.relative_to(folder).as_posix(): digest for path, digest in hashes.items()}
    write_json(folder / HASHES_FILE, names)


def shapes(tree: Any) -> Any:
    """Shapes, types and shardings of a tree of arrays or shapes."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def check_shapes(there: Any, state: Any) -> None:
    """Raises CheckpointError unless what was written has the names, shapes and types of a state.

    Args:
        there: a tree of Orbax's metadata, as read back.
        state: a tree of arrays or shapes.
    """
    found = {leaf.name: (tuple(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(there)}
    expected = {
        jax.tree_util.keystr(path, simple=True, separator="."): (leaf.shape, leaf.dtype)
        for path, leaf in jax.tree.leaves_with_path(state)
    }
    if found != expected:
        names = sorted(n for n in found.keys() | expected if found.get(n) != expected.get(n))
        raise CheckpointError(f"{', '.join(names[:5])} cannot be read back as they were")


def damage(folder: pathlib.Path, *, score: bool = False) -> str:
    """Which file of a checkpoint is not what was written, in words; "" where all are.

    Args:
        folder: of the checkpoint. One without hashes counts as sound.
        score: whether to look at the score alone, which no other number depends on.
    """
    path = folder / HASHES_FILE
    try:
        hashes = json.loads(path.read_text(encoding="utf-8"))
        named = {name: hashes[name] for name in hashes if (name == SCORE_FILE) == score}
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError) as error:
        _stop_where_away(folder, error)
        return f"its file {HASHES_FILE} is damaged ({error})"

    def differs(name: str) -> str:
        try:
            same = _sha256(folder / name) == named[name]
        except FileNotFoundError:
            return f"its file {name} is missing"
        except OSError as error:
            _stop_where_away(folder, error)
            return f"its file {name} cannot be read ({error.strerror or error})"
        return "" if same else f"its file {name} has changed since it was written (SHA-256)"

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return next(filter(None, pool.map(differs, named)), "")


def is_away(folder: pathlib.Path, error: Exception) -> bool:
    """Whether an error is not of a file, but of a bucket that cannot be reached."""
    return in_bucket(folder) and faults.is_out_of_reach(error)


def _stop_where_away(folder: pathlib.Path, error: Exception) -> None:
    """Raises UnreachableError where it is not the file that is at fault, but the way to it."""
    if is_away(folder, error):
        raise UnreachableError(f"{folder} cannot be read: {error}.") from error


def _sha256(path: pathlib.Path) -> str:
    if in_bucket(path):
        digest = hashlib.sha256()
        for chunk in cast(Any, path).chunks():
            digest.update(chunk)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def torn(folder: pathlib.Path, step: int | None = None) -> list[pathlib.Path]:
    """What is not whole in a folder of checkpoints, or of one step alone."""
    if in_bucket(folder):
        steps = folder.glob("[0-9]*" if step is None else str(step))
        return [path for path in steps if not (path / _MARK).exists()]
    start = "*" if step is None else str(step)
    found = list(folder.glob(f"{start}{_TORN}*"))
    return found if step is not None else [*found, *folder.glob(_TORN_SCORE)]


def remove_torn(folder: pathlib.Path) -> None:
    """Removes what a kill or a full disk left. Nobody may be saving there.

    In a bucket, what was whole once and lacks the mark, as in a copy of an older run, is moved
    aside instead.
    """
    for path in torn(folder):
        if in_bucket(path) and _was_whole(path):
            aside = move_aside(folder, path, path.name)
            logging.error(
                "Checkpoint %s lacks %s, so it counts as one that was not written to its end; it "
                "is moved to %s.", path.name, _MARK, aside,
            )  # fmt: skip
        else:
            with contextlib.suppress(OSError):
                remove(path)


def _was_whole(folder: pathlib.Path) -> bool:
    """Whether a checkpoint without its mark was written to its end, as far as its files say."""
    if (folder / HASHES_FILE).exists():
        return True
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return bool(json.loads((folder / _FACTS).read_text()).get("commit_timestamp_nsecs"))
    return False


def remove(folder: pathlib.Path) -> None:
    """Removes a folder with all that is in it, if it is there."""
    if in_bucket(folder):
        cast(Any, folder).rmtree(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def move_aside(folder: pathlib.Path, path: pathlib.Path, name: str) -> pathlib.Path:
    """Moves a damaged part of a folder of checkpoints to `damaged/name` in it; returns where to.

    Within one folder, since that one may be a link, or the top of another disk. In a bucket it is
    copied and removed, its mark first, so that one that is killed on the way leaves no checkpoint
    that seems whole.
    """
    aside = folder / DAMAGED_FOLDER
    aside.mkdir(exist_ok=True)
    remove(aside / name)
    if not in_bucket(path):
        return path.rename(aside / name)
    cast(Any, path).copy_folder(aside / name)
    (path / _MARK).unlink(missing_ok=True)
    remove(path)
    return aside / name


def write_score(folder: pathlib.Path, step: int, top1: float) -> None:
    """Gives a checkpoint without a score one, whole or not at all."""
    text, there = json.dumps({"top1": top1}), folder / str(step) / SCORE_FILE
    if in_bucket(folder):
        there.write_text(text, encoding="utf-8")
        (there.parent / _MARK).write_text("scored", encoding="utf-8")  # last, as Orbax does it
        return
    temporary = folder / f"score-{step}.tmp"
    remove(temporary)
    temporary.mkdir()
    (temporary / there.name).write_text(text, encoding="utf-8")
    temporary.rename(there.parent)


def check_scores(folder: pathlib.Path, *, read_only: bool) -> None:
    """Moves a damaged score, which orbax reads unasked, aside: its checkpoint has none then.

    Raises:
        CheckpointError: one is damaged, and nothing may be changed.
    """
    for path in sorted(folder.glob(f"[0-9]*/{SCORE_FILE}")):
        try:
            if not math.isfinite(json.loads(path.read_text())["top1"]):
                raise ValueError("it is not finite")
            if problem := damage(path.parents[1], score=True):
                raise ValueError(problem)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _stop_where_away(folder, error)
            problem = f"{path}, the score of a checkpoint, is damaged"
            if read_only:
                raise CheckpointError(
                    f"{problem}; delete the folder {path.parent}, and the checkpoint counts as "
                    "one without a score."
                ) from error
            if processes.index() == 0:
                logging.error("%s; the checkpoint counts as one without a score.", problem)
                move_aside(folder, path.parent, f"{path.parts[-3]}-metrics")
    if not read_only:
        processes.barrier("scores")
