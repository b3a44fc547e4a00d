"""`make quick`: the tests nearest to what was changed, as many as fit into two minutes.

What was changed is what differs from the main branch, committed or not; on the main branch itself
without a change it is the last commit. Near are first the test files that were changed, then those
that import a changed file, then those that import what imports it, and so on. What does not fit is
named at the end.
"""

import ast
import collections
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = ROOT / ".pytest_cache" / "v" / "clevit_jax" / "seconds"  # which conftest.py writes
BUDGET = 160.0  # seconds of tests, by two workers
UNKNOWN = 8.0  # seconds of a file that never ran here, but for these
SLOW = {
    "cam": 45, "devices": 155, "explain": 30, "export": 30, "features": 30, "kernels": 145,
    "main": 30, "predict": 35, "preflight": 35, "processes": 210, "report": 30,
    "report_browser": 60, "rotation": 55, "scan": 30, "seeds_trained": 65, "start": 20,
    "swin": 40, "throughput": 30, "train": 80, "train_step": 65, "verify": 20,
}  # fmt: skip


def changed_files() -> list[str]:
    """Paths from the root."""

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.splitlines() if done.returncode == 0 else []

    (base,) = git("merge-base", "HEAD", "origin/main") or git("merge-base", "HEAD", "main") or [""]
    for since in filter(None, (base, "HEAD", "HEAD~1")):
        found = git("diff", "--name-only", since)
        found += git("ls-files", "--others", "--exclude-standard")
        if found:
            return found
    return []


def read_imports(path: pathlib.Path, paths: Iterable[str]) -> set[str]:
    """The files among `paths` that a file imports, or whose name stands in it."""
    text = path.read_text(encoding="utf-8")
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {other for other in paths if module_of(other) in names or _names(text, other)}


def module_of(path: str) -> str:
    """`clevit_jax.steps.losses`; of a file of tests/, its name alone."""
    parts = pathlib.PurePath(path).with_suffix("").parts
    parts = parts[1:] if parts[0] == "tests" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _names(text: str, path: str) -> bool:
    """Whether a text names a file that cannot be imported from it, such as an asset or a tool."""
    pure = pathlib.PurePath(path)
    return (pure.suffix != ".py" or pure.parts[0] in ("tools", "configs")) and pure.name in text


def nearest(changed: list[str]) -> Iterator[list[str]]:
    """Test files that reach a changed file; those at one distance together, nearest first."""
    sources = [
        path.relative_to(ROOT).as_posix()
        for folder in ("clevit_jax", "configs", "tests", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    paths = {*sources, *changed}
    importers = collections.defaultdict(set)
    for source in sources:
        for imported in read_imports(ROOT / source, paths):
            importers[imported].add(source)
    front, seen = [path for path in changed if path in paths], set(changed)
    while front:
        yield [path for path in front if path.startswith("tests/test_")]
        front = sorted(set().union(*(importers[path] for path in front)) - seen)
        seen |= set(front)


def fitting(groups: Iterable[list[str]], seconds: dict[str, float]) -> tuple[list[str], list[str]]:
    """The files that fit into the budget, and those that do not; quick ones of a group first."""

    def cost(file: str) -> float:
        return seconds.get(file, SLOW.get(file[len("tests/test_") : -len(".py")], UNKNOWN))

    taken: list[str] = []
    left: list[str] = []
    for group in groups:
        for file in sorted(filter(lambda file: (ROOT / file).exists(), group), key=cost):
            fits = sum(map(cost, [*taken, file])) <= BUDGET
            (taken if fits or not taken else left).append(file)
    return taken, left


def main() -> int:
    """Runs them; returns pytest's exit code."""
    changed = changed_files()
    seconds = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    # The order of the imports and what docs name are cheap to hold, whatever changed.
    taken, left = fitting(nearest(changed), seconds)
    taken = list(dict.fromkeys([*taken, "tests/test_layers.py", "tests/test_docs.py"]))
    print(f"{len(changed)} changed files: {', '.join(changed)}", flush=True)
    code = pytest.main(["-n", "2", "--dist", "worksteal", *taken])
    if left:
        print(f"Left for `make test`: {', '.join(pathlib.PurePath(x).name for x in left)}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
