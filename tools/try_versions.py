"""Both ends of every dependency range in fresh environments, on each Python: `make versions`.

    python tools/try_versions.py python3.11 python3.12 python3.13
    python tools/try_versions.py python3.11 --ends lowest --extras onnx convert

For each Python and each end it installs the wheel, with the lowest or the newest versions that
pyproject.toml allows and that have wheels for this Python, and lets the installed commands do a
little of everything in an empty folder. Then it adds the extras one by one, which may want older
versions of the rest, and uses each. Prints a table for docs/versions.md; exits 1 when a step
fails. Needs pip, a package index and about 2 GB of temporary space; takes minutes per environment.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
ENDS = {"lowest": "lowest-direct", "newest": "highest"}
# Packages that come as source alone; anything else must have a wheel, or a range promises more
# than a user without a compiler can install.
SOURCE_ALONE = ("promise",)
# Pythons are those that are here; nothing is judged by its speed, and compiling is what takes time.
VARIABLES = {
    "UV_PYTHON_DOWNLOADS": "never",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_PLATFORMS": "cpu",
}
TIMEOUT = 3600  # seconds of one step; a limit for what hangs, not for what is slow
# The demo, as small as a network of two stages can be.
TINY = {
    "data.leaves.classes": 3, "data.leaves.train_per_class": 4, "data.leaves.test_per_class": 2,
    "data.leaves.size": 48, "data.resize": 40, "image_size": 32, "eval.resize": 36,
    "eval.batch_size": 6, "eval.every_epochs": 1, "epochs": 2, "batch_size": 4,
    "model.embed_dim": 8, "model.depths": "(1,1)", "model.num_heads": "(1,2)",
    "optim.warmup_epochs": 1, "checkpoint.every_steps": 2,
}  # fmt: skip
LEAVES = "runs/demo-leaves"  # where the demo writes its images
IMPORT_ALL = """
import importlib, pkgutil, clevit_jax
for module in pkgutil.walk_packages(clevit_jax.__path__, "clevit_jax."):
    if not module.name.startswith("clevit_jax.configs"):  # read as files, by get_config
        importlib.import_module(module.name)
for name in clevit_jax.__all__:
    getattr(clevit_jax, name)
for name in clevit_jax.recipes.names():
    clevit_jax.get_config(name + ":R3" * (name == "soyageing"))
"""


class StepError(Exception):
    """A step did not do what it should; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """A fresh environment with the wheel installed.

    Attributes:
        bin: its programs.
        folder: a folder to work in.
    """

    bin: pathlib.Path
    folder: pathlib.Path

    def run(self, program: str, *arguments: str | pathlib.Path) -> str:
        """Runs one of its programs in the folder; returns what it printed, or raises StepError."""
        return run([self.bin / program, *arguments], self.folder)

    def train(self, *arguments: str) -> str:
        """The command with the tiny demo's settings."""
        settings = [f"--config.{name}={value}" for name, value in TINY.items()]
        return self.run("clevit_jax", "--config=demo", *settings, *arguments)

    def has(self, name: str) -> pathlib.Path:
        """A file of the folder that must be there and hold something."""
        path = self.folder / name
        if not path.is_file() or not path.stat().st_size:
            raise StepError(f"{name} was not written")
        return path


def run(command: list[str | pathlib.Path], folder: pathlib.Path) -> str:
    """Runs a program; returns its output, or raises StepError with the last line of it."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=folder, timeout=TIMEOUT, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **VARIABLES},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StepError(f"{words[0]} hangs") from None
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise StepError((done.stdout.strip() or "no output").splitlines()[-1])
    return done.stdout


def import_all(env: Environment) -> None:
    """Every module, every public name and every recipe."""
    env.run("python", "-c", IMPORT_ALL)


def train(env: Environment) -> None:
    """A run with its evaluations, pictures and report."""
    env.train("--workdir=run")
    for name in ("run/evaluation.json", "run/report.html", "run/views.png", "run/run.json"):
        env.has(name)


def scores(env: Environment) -> dict[str, Any]:
    """Those of the last and of the best checkpoint."""
    evaluation = json.loads(env.has("run/evaluation.json").read_text())
    return {name: evaluation[name] for name in ("last", "best")}


def resume(env: Environment) -> None:
    """The run without its last checkpoint goes on, and ends with the same scores."""
    before = scores(env)
    steps = sorted(
        (path for path in (env.folder / "run/checkpoints").iterdir() if path.name.isdigit()),
        key=lambda path: int(path.name),
    )
    if len(steps) < 2:
        raise StepError("there is no checkpoint to go back to")
    shutil.rmtree(steps[-1])
    (env.folder / "run/evaluation.json").unlink()
    env.train("--workdir=run")
    if scores(env) != before:
        raise StepError("the resumed run has other scores")


def predict(env: Environment) -> None:
    """The classes of the images, as a table."""
    images = f"--input={LEAVES}/images"
    env.run("clevit_jax", "--mode=predict", "--workdir=run", images, "--output=classes.csv")
    rows = env.has("classes.csv").read_text().splitlines()
    if len(rows) != 1 + 3 * (4 + 2):
        raise StepError(f"classes.csv has {len(rows)} lines, not 19")


def features(env: Environment) -> None:
    """Features with the neighbours and the linear probe, in both formats."""
    for output in ("features.npz", "table.parquet"):
        env.run("clevit_jax", "--mode=features", "--workdir=run", f"--output={output}")
        env.has(output)


def explain(env: Environment) -> None:
    """Pictures of where the model looks."""
    given = (f"--input={LEAVES}/images", "--output=looks")
    env.run("clevit_jax", "--mode=explain", "--workdir=run", *given)
    if not any((env.folder / "looks").rglob("*.png")):
        raise StepError("looks holds no picture")


def data(env: Environment) -> None:
    """The check of a data set, as folders and as what TFDS reads."""
    env.train("--mode=check_data", "--workdir=checked")
    tool = ROOT / "tools" / "prepare_tfds.py"
    env.run("python", tool, LEAVES, "prepared", "--name", "leaves")
    root = ("--config.data.root=prepared/leaves", "--config.data.leaves.classes=0")
    env.train("--mode=check_data", "--workdir=checked-tfds", *root)


def convert(env: Environment) -> None:
    """Weights of timm in, the run out."""
    env.run("clevit_jax_convert", GOLDEN / "dialect_timm.safetensors", "weights")
    env.run("clevit_jax_convert", "run", "mine.safetensors", "--to", "timm")
    env.has("mine.safetensors")


def export(env: Environment, output: str = "model.stablehlo") -> None:
    """A file that runs without this library; the export itself compares their answers."""
    env.run("clevit_jax", "--mode=export", "--workdir=run", f"--output={output}")
    env.has(output)


def export_onnx(env: Environment) -> None:
    """The same for ONNX."""
    export(env, "model.onnx")


def convert_pth(env: Environment) -> None:
    """A file of PyTorch, and its answers compared with PyTorch's."""
    env.run("clevit_jax_convert", GOLDEN / "swin_nano_224.pth", "weights-pth", "--verify")


STEPS: tuple[Callable[[Environment], None], ...] = (
    import_all, train, resume, predict, features, explain, data, convert, export,
)  # fmt: skip
EXTRAS: dict[str, Callable[[Environment], None]] = {"onnx": export_onnx, "convert": convert_pth}


def install(uv: pathlib.Path, env: Environment, end: str, *extras: str) -> dict[str, str]:
    """Installs what pyproject.toml asks for, and the wheel; raises StepError.

    Returns:
        The version of each direct dependency by its normalised name.
    """
    place = env.folder.parent
    python = env.bin / "python"
    wanted = [word for extra in extras for word in ("--extra", extra)]
    sources = [word for name in SOURCE_ALONE for word in ("--no-binary", name)]
    pins = run(
        [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", python,
         "--resolution", ENDS[end], "--only-binary", ":all:", *sources, *wanted,
         ROOT / "pyproject.toml"],
        place,
    )  # fmt: skip
    (place / "pins.txt").write_text(pins)
    run([uv, "pip", "install", "--quiet", "--python", python, "-r", place / "pins.txt"], place)
    (wheel,) = place.parent.glob("*.whl")
    run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel], place)
    lines = (line.partition("==") for line in pins.splitlines())
    direct = direct_dependencies(extras)
    return {name: version for name, _, version in lines if name in direct}


def direct_dependencies(extras: tuple[str, ...]) -> set[str]:
    """Normalised names of what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"]]
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    matches = (re.match(r"[\w.-]+", line) for line in asked)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in matches if match}


def table(rows: list[list[str]]) -> str:
    """Markdown; the first row is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def main() -> int:
    """Tries all; returns 1 when a step failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="program or version")
    parser.add_argument("--ends", nargs="+", choices=list(ENDS), default=list(ENDS))
    parser.add_argument("--extras", nargs="*", choices=list(EXTRAS), default=["onnx"])
    options = parser.parse_args()
    steps = [step.__name__.replace("_", " ") for step in STEPS]
    rows = [["Python", "versions", *steps, *options.extras]]
    versions: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="versions-") as temporary:
        place = pathlib.Path(temporary)
        run([sys.executable, "-m", "venv", place / "tools"], place)
        run([place / "tools/bin/python", "-m", "pip", "install", "--quiet", "uv"], place)
        uv = place / "tools/bin/uv"
        run([uv, "build", "--quiet", "--out-dir", place, ROOT], place)
        for python in options.pythons:
            for end in options.ends:
                cells, installed = try_one(uv, place, python, end, options.extras)
                rows.append([*cells, *[""] * (len(rows[0]) - len(cells))])
                versions.append(installed)
    heads = [f"{row[0]}, {row[1]}" for row in rows[1:]]
    names = sorted(set().union(*versions))
    packages = [[name, *(installed.get(name, "") for installed in versions)] for name in names]
    print(f"\n{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}\n")
    print(table(rows), table([["package", *heads], *packages]), sep="\n\n")
    return int(any(cell.startswith("FAILED") for row in rows for cell in row))


def try_one(
    uv: pathlib.Path, place: pathlib.Path, python: str, end: str, extras: list[str]
) -> tuple[list[str], dict[str, str]]:
    """One environment.

    Returns:
        A row of the table as far as it came, and the versions of direct dependencies; with an
        extra those that it adds or changes, as `jax (onnx)`.
    """
    print(f"{python}, {end} versions: installing", flush=True)
    own = pathlib.Path(tempfile.mkdtemp(prefix=f"{end}-", dir=place))
    env = Environment(own / "env" / "bin", own / "work")
    env.folder.mkdir()
    try:
        run([uv, "venv", "--quiet", "--python", python, own / "env"], own)
        versions = install(uv, env, end)
    except StepError as error:
        print(f"    FAILED: {error}", flush=True)
        return [python, end, f"FAILED to install: {error}"], {}
    number = env.run("python", "-c", "import platform; print(platform.python_version())")
    cells = [number.strip(), end]
    for step in STEPS:
        cells.append(outcome(step.__name__, env, step))
        if step is import_all and cells[-1] != "ok":  # nor would anything else be
            return cells, versions
    for extra in extras:
        added: dict[str, str] = {}

        def use(env: Environment, extra: str = extra, added: dict[str, str] = added) -> None:
            added |= install(uv, env, end, extra)
            EXTRAS[extra](env)

        cells.append(outcome(extra, env, use))
        versions |= {f"{k} ({extra})": v for k, v in added.items() if versions.get(k) != v}
    shutil.rmtree(own)
    return cells, versions


def outcome(name: str, env: Environment, step: Callable[[Environment], None]) -> str:
    """`ok`, or `FAILED` with the reason; prints it too."""
    start = time.monotonic()
    try:
        step(env)
        result = "ok"
    except StepError as error:
        result = f"FAILED: {error}"
    print(f"    {name:12}{result} ({time.monotonic() - start:.0f} s)", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
