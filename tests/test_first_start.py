"""What comes before the packages: `make` with any Python, `.venv`, and the command in a clone."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# A Python of a version, with what `-m venv` does made short: its pip prints its version, or notes
# what it was to install.
PYTHON = """#!/bin/sh
case "$1" in
    -c) exec {real} -I -c 'import sys
sys.version_info = ({version}, 0, "final", 0)
exec(sys.argv[1])' "$2" ;;
    -m) exec {real} -I {maker} "$@" ;;
esac
exit 1
"""
MAKER = """
import pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[-1])
subprocess.run([sys.executable, "-I", *sys.argv[1:-1], "--without-pip", folder], check=True)
(pip,) = (folder.resolve() / "lib").glob("python*/site-packages")
pip = pip / "pip"
pip.mkdir()
(pip / "__init__.py").touch()
(pip / "__main__.py").write_text('''
import pathlib, sys
if sys.argv[1] == "--version":
    print(f"pip 1.0 from {pathlib.Path(__file__).parent} (python 3.99)")
else:
    with open("installed.txt", "a") as file:
        file.write(sys.argv[-1] + chr(10))
''')
script = folder / "bin" / "pip"
script.write_text(f"#!/bin/sh\\nexec '{folder.resolve()}/bin/python' -m pip \\"$@\\"\\n")
script.chmod(0o755)
"""


@pytest.fixture
def clone(tmp_path):
    """A folder with a space in its name, with what `make` reads, and the Pythons beside it."""
    folder = tmp_path / "a clone"
    (folder / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/make_venv.sh"):
        shutil.copy(ROOT / name, folder / name)
    (tmp_path / "maker.py").write_text(MAKER)
    # The real one of an environment has that environment's prefix, and venv takes the base.
    real = pathlib.Path(sysconfig.get_config_var("BINDIR"), f"python3.{sys.version_info[1]}")
    for version in ("2, 7", "3, 10", "3, 12"):
        path = tmp_path / f"python{version.replace(', ', '.')}"
        text = PYTHON.format(real=real, version=version, maker=tmp_path / "maker.py")
        path.write_text(text)
        path.chmod(0o755)
    return folder


def make(clone, *arguments):
    """`make` in the clone, not as a part of the one that may run these tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=clone, text=True, capture_output=True, check=False,
        env={**kept, "PATH": f"{clone.parent}:{os.environ['PATH']}"},
    )  # fmt: skip


GOOD = ".venv/demo.stamp"


@pytest.mark.parametrize("version", ["2.7", "3.10"])
def test_a_python_that_is_too_old(clone, version):
    done = make(clone, "demo", f"PYTHON=python{version}")
    assert done.returncode == 2
    error, _ = done.stderr.splitlines()  # the other is make's own
    assert error.startswith(
        f"error: python{version} is Python {version}.0, and CLE-ViT needs 3.11 or newer; "
        "type: make demo PYTHON=python3.1"
    )
    assert sorted(path.name for path in clone.iterdir()) == [
        "Makefile", "constraints.txt", "pyproject.toml", "tools"]  # fmt: skip
    assert make(clone, GOOD, "PYTHON=python3.12").returncode == 0
    # From now on `python3` may be any.
    assert make(clone, GOOD, f"PYTHON=python{version}").returncode == 0
    assert (clone / "installed.txt").read_text() == ".\n"  # once


def test_a_python_that_is_not_there(clone):
    done = make(clone, "test", "PYTHON=python9")
    assert done.returncode == 2
    assert "error: There is no Python as python9, and CLE-ViT needs 3.11" in done.stderr
    assert "; type: make test PYTHON=python3.1" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_python_without_venv(clone):
    path = clone.parent / "python3.12"
    lacking = 'sys.modules["ensurepip"] = None\nexec('
    path.write_text(path.read_text().replace("exec(", lacking))
    done = make(clone, "demo", "PYTHON=python3.12")
    assert done.returncode == 2
    assert "error: python3.12 lacks venv" in done.stderr
    assert "apt install python3.12-venv), and type: make demo\n" in done.stderr
    assert not (clone / ".venv").exists()


def test_what_cannot_be_made_leaves_nothing(clone):
    (clone.parent / "maker.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[-1], 'lib').mkdir(parents=True)\n"
        "sys.exit('no room')"
    )
    done = make(clone, "demo", "PYTHON=python3.12")
    assert done.returncode == 2
    assert done.stderr.startswith("no room\nerror: .venv could not be made; the lines above")
    assert not (clone / ".venv").exists()


def too_old(clone):
    """As Python 3.10 left it."""
    (script,) = clone.glob(".venv/bin/pip")
    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    shutil.copy(clone.parent / "python3.10", python)
    script.write_text(f"#!/bin/sh\necho 'pip 1.0 from {site(clone)}/pip (python 3.10)'\n")


def half_made(clone):
    shutil.rmtree(site(clone) / "pip")
    (clone / ".venv" / "bin" / "pip").unlink()


def without_python(clone):
    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(clone / "removed")


def moved(clone):
    clone.rename(clone.with_name("moved"))


def copied(clone):
    """The scripts of a copy run what lies in the folder that it was copied from."""
    shutil.copytree(clone, clone.with_name("moved"), symlinks=True)


def site(clone):
    (folder,) = clone.glob(".venv/lib/python*/site-packages")
    return folder


@pytest.mark.parametrize("spoil", [too_old, half_made, without_python, moved, copied])
def test_what_is_of_no_use_is_made_anew(clone, spoil):
    """And what was installed in it is installed again."""
    assert make(clone, GOOD, "PYTHON=python3.12").returncode == 0
    spoil(clone)
    here = clone.with_name("moved") if spoil in (moved, copied) else clone
    done = make(here, GOOD, "PYTHON=python3.12")
    assert done.returncode == 0, done.stderr
    assert ".venv is of no use" in done.stdout
    assert (here / "installed.txt").read_text() == ".\n.\n"
    assert make(here, GOOD, "PYTHON=python3.12").stdout == ""


def test_a_failed_installation_is_tried_again(clone):
    assert make(clone, ".venv/bin/pip", "PYTHON=python3.12").returncode == 0
    program = site(clone) / "pip" / "__main__.py"
    cut = "import sys\nif sys.argv[1] == 'install': sys.exit('cut')\n"
    program.write_text(cut + program.read_text())
    for _ in range(2):
        done = make(clone, GOOD, "PYTHON=python3.12")
        assert (done.returncode, done.stderr.splitlines()[0]) == (2, "cut")
        assert not (clone / GOOD).exists()


def started(code, *options):
    """The first file of the package, as `python -m clevit_jax.main` comes to it."""
    return subprocess.run(
        [sys.executable, *options, "-c", f"import sys\nsys.argv = ['-m']\n{code}import clevit_jax"],
        text=True, capture_output=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_command_under_an_older_python():
    done = started("sys.version_info = (3, 10, 13)\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: CLE-ViT needs Python 3.11 or newer, and {sys.executable} is 3.10; type: make demo "
        "PYTHON=python3.12\n"
    )
    done = started("sys.version_info = (3, 10, 13)\nsys.argv = ['mine.py']\n")
    assert done.returncode == 1
    assert "\nImportError: CLE-ViT needs Python 3.11 or newer" in done.stderr


def test_the_command_without_its_packages():
    done = started("", "-S")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {sys.executable} lacks what CLE-ViT needs (absl, flax, grain, jax, "
        "ml_collections, optax, orbax); in a clone, type: make demo\n"
    )


def test_an_old_python_can_read_the_first_file():
    """Else it says SyntaxError. Annotations and f-strings came after 2.7."""
    tree = ast.parse((ROOT / "clevit_jax" / "__init__.py").read_bytes(), feature_version=(3, 4))
    newer = (ast.AnnAssign, ast.JoinedStr, ast.NamedExpr, ast.Starred, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        assert not isinstance(node, newer), ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None
            assert not any(argument.annotation for argument in node.args.args)
