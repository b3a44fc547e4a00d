"""Files, names, settings, flags and links that the docs name are there, so that docs cannot rot."""

import functools
import importlib
import importlib.util
import pathlib
import re
import sys

import pytest

from clevit_jax import convert, flags
from clevit_jax.config import flatten
from configs import base

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "tests/*/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
TOP = {"clevit_jax", "tests", "docs", "tools", "benchmarks", "configs", "examples"}
WINGS = {path.stem for path in (ROOT / "clevit_jax").iterdir() if not path.stem.startswith("_")}
SETTINGS = flatten(base.get_config())
# Files of the user, of other projects, and folders that `pip` or a run makes.
THEIRS = {".py", "mine.py", "utils.py", "clevit_jax/configs/"}
# Named before they are there.
AWAITED: set[str] = set()
FILE = re.compile(r".+\.(csv|json|jsonl|npz|parquet|png|pth|py|safetensors|txt)")
# Changelogs name what was.
OLD = {"CHANGELOG.md"}


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def spans(page):
    """What stands in single backticks outside of fenced blocks."""
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose)]


def slug(heading):
    """The anchor that GitHub gives a heading."""
    heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.lower().replace("`", ""))
    return re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    """To files of the repository, and to headings of their pages."""
    broken = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text_of(page)):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.resolve().exists():
            if path.resolve().relative_to(ROOT.resolve()).as_posix() not in AWAITED:
                broken.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in map(slug, headings):
                broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OLD])
def test_files(page):
    """`tests/test_x.py`, `steps/losses.py` of the package, or a name alone that some file has."""
    names = {path.name for folder in TOP for path in (ROOT / folder).rglob("*.py")} | {"setup.py"}
    missing = []
    for word in re.findall(r"(?<![\w/.-])[\w.-]+(?:/[\w.*{},-]+)*/?", text_of(page)):
        word = word.rstrip(".,")
        first, slash, _ = word.partition("/")
        if word in THEIRS | AWAITED or "*" in word or "{" in word:
            continue
        if not slash:
            if word.endswith(".py") and word not in names:
                missing.append(word)
        elif first in TOP:
            if not (ROOT / word).exists():
                missing.append(word)
        elif first in WINGS and word.endswith(".py") and not (ROOT / "clevit_jax" / word).exists():
            missing.append(word)
    assert missing == []


def resolves(name):
    """Whether `a.b.c` is a module, or an attribute of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            if importlib.util.find_spec(module) is None:
                continue
        except ModuleNotFoundError:
            continue
        try:
            functools.reduce(getattr, parts[count:], importlib.import_module(module))
        except AttributeError:
            return False
        return True
    return False


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OLD])
def test_names(page):
    """`clevit_jax.load`, `config.resolve` and settings such as `data.folds`."""
    groups = {name.partition(".")[0] for name in SETTINGS if "." in name}
    missing = []
    for span in spans(page):
        dotted = re.match(r"[A-Za-z_]\w*(?:\.\w+)+(?=$|[\s=(])", span)
        if dotted is None or FILE.fullmatch(dotted[0]):
            continue
        name = dotted[0]
        first = name.partition(".")[0]
        if any(setting == name or setting.startswith(f"{name}.") for setting in SETTINGS):
            continue
        full = name if first == "clevit_jax" else f"clevit_jax.{name}"
        if first in {"clevit_jax", *WINGS, *groups} and not resolves(full):
            missing.append(name)
    assert missing == []


def commands(page):
    """Lines of fenced blocks and of backticks, with what their backslashes continue."""
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```", text_of(page), re.DOTALL | re.MULTILINE)
    whole = "\n".join(fenced).replace("\\\n", " ")
    return [line.partition(" #")[0] for line in whole.splitlines()] + spans(page)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OLD])
def test_commands(page):
    """Flags, modes, settings and recipes of our commands; modules after `python -m`."""
    ours = {"config", "mode", "help", *(flag.name for flag in flags.FLAGS)}
    theirs = {word for action in convert._parser()._actions for word in action.option_strings}
    wrong = []
    for line in commands(page):
        for module in re.findall(r"python3? -m ((?:clevit_jax|benchmarks)[\w.]*)", line):
            if importlib.util.find_spec(module) is None:
                wrong.append(module)
        for setting in re.findall(r"(?<!\S)--config\.([\w.]+)", line):
            if setting not in SETTINGS and setting != "NAME":
                wrong.append(setting)
        for mode in re.findall(r"--mode[ =]([a-z]\w*)", line):
            if mode not in flags.MODES:
                wrong.append(mode)
        for name in re.findall(r"--config[ =]([a-z]\w*)(?![\w/.])", line):
            if not (ROOT / "configs" / f"{name}.py").exists():
                wrong.append(name)
        given = set(re.findall(r"(?<!\S)--([\w-]+)", line.replace("--config.", "--config ")))
        if re.search(r"convert_torch_weights|clevit_jax_convert", line):
            wrong += [flag for flag in given if f"--{flag}" not in theirs]
        elif re.search(r"clevit_jax\.main|(?<![\w/.-])clevit_jax --|bin/clevit_jax ", line):
            # pip's and Slurm's flags may stand before our command.
            after = re.split(r"clevit_jax\.main|clevit_jax ", line, maxsplit=1)[1]
            after = after.replace("--config.", "--config ")
            wrong += [f for f in re.findall(r"(?<!\S)--([\w-]+)", after) if f not in ours]
    assert wrong == []


def test_make_targets():
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for line in commands(page)
        for target in re.findall(r"^make ([a-z]+)", line)
    }
    assert named <= targets


def test_pages_that_the_code_names():
    """Comments, messages and help that send a reader to `docs/...`."""
    missing = {
        word
        for folder in ("clevit_jax", "configs", "benchmarks", "tools", ".github")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".html", ".yml")
        for word in re.findall(r"\bdocs/[\w-]+\.\w+", path.read_text(encoding="utf-8"))
        if not (ROOT / word).exists()
    }
    assert missing <= AWAITED


def test_the_picture_shows_the_wings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    draw_wings = importlib.import_module("draw_wings")
    monkeypatch.delitem(sys.modules, "draw_wings")
    drawn = draw_wings.draw(draw_wings.read_floors())
    assert drawn == draw_wings.PICTURE.read_text(encoding="utf-8"), "run tools/draw_wings.py"
