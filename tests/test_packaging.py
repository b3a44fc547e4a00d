"""What somebody gets who installs the wheel, and that the version is one everywhere."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = "import sys\nfrom setuptools import build_meta\nbuild_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what it is made of, so that no build folder is left here."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("clevit_jax", "configs", "tests", "tools", "benchmarks"):
        junk = shutil.ignore_patterns("__pycache__", "golden", "names")
        shutil.copytree(ROOT / name, place / "source" / name, ignore=junk)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, place / "source")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, str(place)],
        cwd=place / "source", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel):
    """`installed(*arguments)`: Python in an empty folder, where only the wheel has our package."""
    site, folder = wheel.with_name("site"), wheel.with_name("empty")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    folder.mkdir()

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    run.folder = folder
    return run


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    info = f"clevit_jax-{PROJECT['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"clevit_jax", info}
    here = [path for path in (ROOT / "clevit_jax").rglob("*") if path.is_file()]
    expected = {str(path.relative_to(ROOT)) for path in here if path.suffix != ".pyc"}
    expected |= {f"clevit_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert {name for name in names if not name.startswith(info)} == expected


def test_recipes_and_own_configs_are_read_from_the_wheel(installed):
    (installed.folder / "mine.py").write_text(
        "from configs import base\n\n\ndef get_config():\n    return base.get_config()\n"
    )
    code = (
        "import clevit_jax, importlib.util\n"
        "assert importlib.util.find_spec('configs') is None\n"
        "assert 'site' in clevit_jax.__file__, clevit_jax.__file__\n"
        "print(clevit_jax.get_config('cub').model.num_classes)\n"
        "print(clevit_jax.get_config('mine.py').epochs)\n"
    )
    done = installed("-c", code)
    assert (done.stdout, done.stderr) == ("200\n200\n", "")


def test_the_commands_of_the_wheel(installed):
    """As pip's scripts call them."""
    for name, says in (
        ("clevit_jax", ["clevit_jax --config demo", "--workdir DIR ", " A recipe (apple_"]),
        ("clevit_jax_convert", ["clevit_jax_convert runs/mine", "--class-map FILE"]),
    ):
        module, function = PROJECT["scripts"][name].split(":")
        code = f"import sys\nsys.argv[0] = {name!r}\nfrom {module} import {function}\n{function}()"
        done = installed("-c", code, "--help")
        for part in says:
            assert part in done.stdout, (done.stdout, done.stderr)
        assert (done.returncode, done.stderr) == (0, "")


def test_one_version():
    """`docs/releasing.md` names these places."""
    changelog = re.findall(r"^## (\d[\d.]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == changelog[0] == citation["version"]


def test_pythons():
    """CI tries those that the package says it runs on, from the oldest that it allows."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    pythons = workflow["jobs"]["suite"]["strategy"]["matrix"]["python"]
    given = " :: ".join(PROJECT["classifiers"])
    assert pythons == re.findall(r"Python :: (3\.\d+)", given)
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    tried = re.search(r"^PYTHONS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tried is not None
    assert tried[1].split() == [f"python{version}" for version in pythons]


def test_the_issue_forms_are_forms():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert [path.stem for path in forms] == ["bug", "data", "feature"]
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys()
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids)
        assert all(part["attributes"]["label"] for part in form["body"])
    assert "run.json" in forms[0].read_text()
