"""Which versions of jax and onnxruntime read an exported file, each in a fresh environment.

    python tools/try_exports.py jax==0.9.2 jax==0.10.2 onnxruntime==1.20.1 --opsets 18 21
    python tools/try_exports.py jax==0.12.0.1 --python python3.12

Exports a small Swin with what is installed here: StableHLO, and ONNX with each opset. For each
package it makes an environment with that alone (jax with the jaxlib of its version and
flatbuffers), where the file is run at batches of one and of three images, as docs/serving.md says.
Prints a table for that page: how far the logits are from this library's, or what is said instead.
Where NumPy is in the way it tries again with numpy<2, which older wheels were built with. Needs
the extra `onnx` where onnxruntime is tried, a package index and 1 GB of temporary space; a minute
for each.
"""

import argparse
import contextlib
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence

import numpy as np

import clevit_jax
from clevit_jax.inference import export

ROOT = pathlib.Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "tests" / "golden" / "dialect_timm.safetensors"
TIMEOUT = 600  # seconds of one command; a limit for what hangs
PACKAGES = ("jax", "onnxruntime")
OLDER_NUMPY = "numpy<2"
SENTENCE = 400  # characters of what a package says
# Runs `model`, which one of the two below opened; prints one line whatever happens.
READ = """
import sys
import numpy as np
images, wanted = np.load("images.npy"), np.load("logits.npy")
try:
{open}
    outs = np.concatenate([np.asarray(run(batch)) for batch in (images[:1], images[1:])])
except Exception as error:
    sys.exit(f"{{type(error).__name__}}: {{' '.join(str(error).split())}}")
assert outs.shape == wanted.shape, outs.shape
print(abs(outs - wanted).max())
"""
OPEN = {
    "jax": """\
    from jax import export
    model = export.deserialize(bytearray(open({file!r}, "rb").read()))
    run = lambda batch: model.call(batch)["logits"]""",
    "onnxruntime": """\
    import onnxruntime
    model = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
    run = lambda batch: model.run(None, {{"images": batch}})[0]""",
}


class StepError(Exception):
    """A command failed; the message is the last line that it wrote."""


def run(command: Sequence[str | pathlib.Path], folder: pathlib.Path) -> str:
    """Runs a program; returns what it printed, or raises StepError."""
    variables = {**os.environ, "JAX_PLATFORMS": "cpu"}
    variables.pop("PYTHONPATH", None)  # nothing of this environment
    try:
        done = subprocess.run(
            [str(word) for word in command], cwd=folder, timeout=TIMEOUT, text=True, check=False,
            capture_output=True, env=variables,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StepError("hangs") from None
    if done.returncode < 0:
        raise StepError(f"ended by signal {-done.returncode}")
    if done.returncode:
        raise StepError((done.stderr.strip() or "no output").splitlines()[-1])
    return done.stdout.strip()


def write_files(folder: pathlib.Path, packages: list[str], opsets: list[int]) -> dict[str, str]:
    """Exports into the folder, beside four images and their logits.

    Returns:
        The files by the head of their column, such as `opset 21`.
    """
    model = clevit_jax.load(WEIGHTS)
    size = model.model.image_size
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    np.save(folder / "images.npy", images)
    files = {}
    if any(name.startswith("jax==") for name in packages):
        export.export_stablehlo(model, folder / "model.stablehlo")
        files["StableHLO"] = "model.stablehlo"
    for opset in opsets if any(name.startswith("onnx") for name in packages) else ():
        name = f"opset_{opset}.onnx"
        export.export_onnx(model, folder / name, opset=opset)
        files[f"opset {opset}"] = name
    logits = model.dispatch(images)()[0]
    np.save(folder / "logits.npy", logits)
    print(f"{model.model.describe()}; the largest logit is {abs(logits).max():.2f}", flush=True)
    return files


def try_one(
    python: str, package: str, files: dict[str, str], folder: pathlib.Path
) -> dict[str, str]:
    """What one package says to the files that are for it, by the heads of their columns."""
    name, _, version = package.partition("==")
    ours = {head: file for head, file in files.items() if (name == "jax") == (head == "StableHLO")}
    wanted = [package, f"jaxlib=={version}", "flatbuffers"] if name == "jax" else [package]
    said: dict[str, str] = {}
    for more in ([], [OLDER_NUMPY]):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            env = pathlib.Path(place) / "env"
            try:
                run([python, "-m", "venv", env], folder)
                pip = ["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"]
                run([env / "bin" / "python", *pip, *wanted, *more], folder)
            except StepError as error:
                return dict.fromkeys(ours, f"not installed: {error}")
            said = {head: _read(env, name, file, folder) for head, file in ours.items()}
        # Some say nothing but that they cannot be imported.
        if not any(re.search("numpy|ImportError|signal", text) for text in said.values()):
            break
    note = f", with `{OLDER_NUMPY}`" if more else ""
    return {head: text + note * text.startswith("reads") for head, text in said.items()}


def _read(env: pathlib.Path, name: str, file: str, folder: pathlib.Path) -> str:
    program = READ.format(open=OPEN[name].format(file=file))
    try:
        difference = float(run([env / "bin" / "python", "-c", program], folder).split()[-1])
    except StepError as error:
        # Neither where in its own source onnxruntime stands, nor its words on what is guaranteed.
        said = re.sub(r"/onnxruntime_src/.*\) (?=[A-Z])", " ", str(error)).replace(file, "FILE")
        said = re.sub(r"ONNX Runtime only \*guarantees.*(?=Current official)", "", said)
        return textwrap.shorten(said, SENTENCE, placeholder=" ...")
    return f"reads, {difference:.1e}"


def machine() -> str:
    """Day, processor and system."""
    model = ""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return f"{time.strftime('%Y-%m-%d')}, {model}, {platform.system()} {platform.machine()}"


def table(rows: list[list[str]]) -> str:
    """Markdown; the first row is the head. What is said instead of numbers stands below, once."""
    sentences: list[str] = []

    def cell(text: str) -> str:
        if not text or text.startswith("reads"):
            return text.removeprefix("reads, ")
        if text not in sentences:
            sentences.append(text)
        return f"no ({sentences.index(text) + 1})"

    told = [[*row[:2], *(cell(text) for text in row[2:])] for row in rows[1:]]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *told)]
    below = [f"{number}. `{text}`" for number, text in enumerate(sentences, 1)]
    return "\n".join([*lines, "", *below])


def package(text: str) -> str:
    """One of `PACKAGES` with its version, as the command line gives it."""
    name, equals, version = text.partition("==")
    if name not in PACKAGES or not equals or not version:
        raise argparse.ArgumentTypeError(f"{text!r} is none of jax==X and onnxruntime==X")
    return text


def main() -> int:
    """Tries all; returns 0, whatever they said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="+", type=package, metavar="PACKAGE==VERSION")
    parser.add_argument("--opsets", nargs="+", type=int, default=[export.OPSET], metavar="N")
    parser.add_argument("--python", default=sys.executable, help="that of the environments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exports-") as temporary:
        folder = pathlib.Path(temporary)
        program = "import platform; print(platform.python_version())"
        try:
            number = run([options.python, "-c", program], folder)
        except (OSError, StepError) as error:
            parser.error(f"--python {options.python} does not run: {error}")
        files = write_files(folder, options.packages, options.opsets)
        rows = [["Python", "read by", *files]]
        for name in options.packages:
            said = try_one(options.python, name, files, folder)
            rows.append([number, name, *(said.get(head, "") for head in files)])
            print(*rows[-1], sep="; ", flush=True)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jax2onnx")]
    print(f"\n{machine()}; written with {' and '.join(versions)}\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
