"""The order of the wings: imports only go down, and heavy packages stay in their rooms."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "clevit_jax"
# Bottom first; a wing may import from wings on lower lines only, and not from its neighbours.
FLOORS = [
    ["errors"],
    ["kernels"],
    ["system"],
    ["distributed"],
    ["model"],
    ["views"],
    ["weights"],
    ["data"],
    ["steps"],
    ["recipes"],
    ["config"],
    ["runs"],
    ["convert", "evaluate", "inference"],
    ["analysis", "performance"],
    ["train"],
    ["sweeps"],
    ["flags"],
    ["modes"],
    ["main"],
]
FLOOR = {wing: floor for floor, wings in enumerate(FLOORS) for wing in wings}


def _wing(module):
    """`clevit_jax.data.sources` -> data."""
    return module.split(".")[1]


def _files():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("clevit_jax", *path.relative_to(PACKAGE).with_suffix("").parts))
        yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def _imports(tree):
    """Full names of what is imported anywhere in a file, `a.b` and `a.b.c` for `c` out of `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = dict(_files())


def _own(module):
    """The modules of the package that a module imports."""
    for name in _imports(MODULES[module]):
        if name.split(".")[0] == "clevit_jax":
            yield name if name in MODULES else name.rpartition(".")[0]


@pytest.mark.parametrize("wing", FLOOR)
def test_imports_go_down(wing):
    up = [
        f"{module} -> {other}"
        for module in MODULES
        if module != "clevit_jax" and _wing(module) == wing  # the package hands out names of all
        for other in _own(module)
        if other == "clevit_jax" or (_wing(other) != wing and FLOOR[_wing(other)] >= FLOOR[wing])
    ]
    assert up == []


def test_every_wing_has_a_floor():
    assert {_wing(module) for module in MODULES if module != "clevit_jax"} == FLOOR.keys()


def test_no_circle():
    """Within a room of several files, too."""
    done: set[str] = set()

    def visit(module, way):
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for other in _own(module):
                visit(other, [*way, module])
            done.add(module)

    for module in MODULES:
        visit(module, [])


def test_only_checkpoint_imports_orbax():
    users = {m for m in MODULES if any(n.split(".")[0] == "orbax" for n in _imports(MODULES[m]))}
    assert users == {"clevit_jax.runs.checkpoint"}


def test_no_torch_and_no_tensorflow_at_the_top():
    """torch and timm are extras; TensorFlow is no dependency at all."""
    for module, tree in MODULES.items():
        for node in tree.body:
            names = {name.split(".")[0] for name in _imports(ast.Module([node], []))}
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not names & {"torch", "tensorflow", "timm"}, module


def test_nothing_pickles():
    """A file that somebody sends must not run code."""
    for module, tree in MODULES.items():
        names = {name.split(".")[0] for name in _imports(tree)}
        assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}, module
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
                safe = node.arg == "weights_only"
                assert isinstance(node.value, ast.Constant), module
                assert node.value.value is safe, module
            if isinstance(node, ast.Attribute) and node.attr in ("savez", "savez_compressed"):
                assert "allow_pickle=False" in ast.unparse(tree), module


def test_everything_is_imported_without_torch_and_tensorflow():
    modules = ", ".join(sorted(MODULES))
    without = "sys.modules |= dict.fromkeys(['torch', 'tensorflow', 'timm'])"
    code = f"import sys\n{without}\nimport {modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rooms_are_small():
    """The house rule: a file has one purpose, and at most about 350 lines."""
    long = {
        str(path.relative_to(PACKAGE)): count
        for path in PACKAGE.rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 420
    }
    assert long == {}
