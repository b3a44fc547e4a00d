"""What a typed path stands for: `~`, `~user`, `$NAME`, `${NAME}`, and names that hold these."""

import importlib
import os
import pathlib
import pwd
import types

import pytest
import tiny
from absl import flags
from PIL import Image

import clevit_jax
from clevit_jax import convert, modes, recipes
from clevit_jax import flags as command_line
from clevit_jax.config import resolve, resolve_data
from clevit_jax.data import sources
from clevit_jax.errors import ClevitError, ConfigError
from clevit_jax.system.places import expand, place


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and $SET, in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SET", "cotton")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", ""),
        ("runs/a", "runs/a"),
        ("~", "/home/me"),
        ("~/runs/a", "/home/me/runs/a"),
        ("~/$SET/a", "/home/me/cotton/a"),
        ("$SET", "cotton"),
        ("/data/${SET}80/x", "/data/cotton80/x"),
        ("$SET/$SET", "cotton/cotton"),
        ("runs/~/a", "runs/~/a"),  # as in a shell, a tilde is the home at the beginning alone
        ("runs/a~", "runs/a~"),
        ("cost 5$", "cost 5$"),
        ("a$/b", "a$/b"),
        ("$5", "$5"),
        ("~/photos/*/[ab]?.png", "/home/me/photos/*/[ab]?.png"),
    ],
)
def test_a_typed_path_is_what_a_shell_makes_of_it(home, typed, meant):
    assert expand(typed) == meant
    assert place(typed) == pathlib.Path(meant)


def test_the_home_of_a_user(home):
    me = pwd.getpwuid(os.getuid())
    assert expand(f"~{me.pw_name}/runs") == f"{me.pw_dir}/runs"


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("/data/$UNSET/x", ["--workdir is /data/$UNSET/x", "variable UNSET is not set", "export"]),
        ("${UNSET}", ["variable UNSET is not set"]),
        ("$EMPTY/x", ["variable EMPTY is empty"]),  # /x is never meant
        ("~/$UNSET", ["variable UNSET is not set"]),
        ("${}", ["the variable ${} is not set"]),
        ("~no-such-user/x", ["no user no-such-user"]),
    ],
)
def test_what_cannot_be_resolved_is_named(home, typed, names):
    with pytest.raises(ConfigError) as error:
        place(typed, "--workdir")
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("gs://bucket/run", "paths are of this machine; mount it or copy it"),
        ("s3://bucket/$SET", "paths are of this machine; mount it or copy it"),
        ("https://x.org/a.zip", "the file or folder: curl -L -o a.zip 'https://x.org/a.zip'."),
        (
            "https://x.org/a b.zip?v=1",
            "file or folder: curl -L -o 'a b.zip' 'https://x.org/a b.zip?v=1'.",
        ),
        ("https://huggingface.co/a/b", "of the Hugging Face hub; write hf://a/b."),
        ("https://hf.co/datasets/a/b/tree/main/", "write hf://datasets/a/b."),
        (
            "https://huggingface.co/a/b/resolve/v1/x/y.pth?download=true",
            "write hf://a/b@v1/x/y.pth.",
        ),
        ("https://huggingface.co/a/b/blob/main/y.pth", "write hf://a/b/y.pth."),
        ("hf://a/b", "and here the path of a file or a folder is meant."),
        ("file:///data/my%20photos", "write the path: /data/my photos."),
    ],
)
def test_an_address_is_no_path(home, typed, said):
    """The system would make folders called `gs:` of it."""
    with pytest.raises(ConfigError) as error:
        place(typed, "--workdir")
    assert str(error.value).startswith(f"--workdir is {typed}, an address")
    assert said in str(error.value)
    (home / typed).mkdir(parents=True)
    assert expand(typed) == typed
    assert place("C://x/y") == pathlib.Path("C:/x/y")


def test_a_name_on_the_hub_stays_as_it_is_where_it_is_taken():
    assert expand("hf://datasets/a/b@$X", "data.root", hub=True) == "hf://datasets/a/b@$X"


def test_what_is_there_goes_first(home):
    """Folder by folder: what follows a literal name is looked at by itself."""
    for name in ("~", "$SET", "a$UNSET", "cotton"):
        (home / name).mkdir()
    assert expand("~") == "~"
    assert expand("$SET") == "$SET"
    assert expand("a$UNSET/new/file") == "a$UNSET/new/file"
    assert expand("a$UNSET/$SET") == "a$UNSET/cotton"
    assert expand("cotton/$SET") == "cotton/cotton"
    assert expand("~/$SET") == "~/cotton"


def _flag_values(*args):
    values = flags.FlagValues()
    command_line.define(values)
    values(["main", *args])
    return values


@pytest.mark.parametrize(
    "args",
    [
        ["--workdir=$UNSET"],
        ["--mode=predict", "--workdir=run", "--input=$UNSET", "--output=o.csv"],
        ["--mode=predict", "--workdir=run", "--input=x", "--output=$UNSET"],
        ["--mode=predict", "--workdir=run", "--input=x", "--output=o.csv", "--reference=$UNSET"],
        ["--mode=predict", "--workdir=run", "--input=x", "--output=o.csv", "--submission=$UNSET"],
        ["--mode=features", "--workdir=run", "--input=$UNSET", "--output=o.npz"],
        ["--mode=explain", "--workdir=run", "--input=$UNSET", "--output=o"],
        ["--mode=report", "--workdir=run", "--output=$UNSET"],
        ["--mode=export", "--workdir=run", "--output=$UNSET"],
        ["--mode=eval", "--workdir=run", "--compilation_cache=$UNSET"],
        ["--mode=compare", "$UNSET", "b"],
    ],
)
def test_every_flag_that_is_a_path(home, monkeypatch, args):
    """Each is resolved: a variable that is not set is named, whatever else is wrong."""
    opened = importlib.import_module("clevit_jax.analysis.trained_model")
    model = types.SimpleNamespace(copy_to="")
    monkeypatch.setattr(opened, "open_trained_model", lambda *_, **__: model)
    values = _flag_values(*args)
    with pytest.raises(ConfigError, match="variable UNSET is not set"):
        modes.run(values, [arg for arg in args if not arg.startswith("--")])


def test_every_setting_that_is_a_path(home):
    config = tiny.small()
    config.data.root, config.model.pretrained = "~/$SET", "${SET}/w.pth"
    config.model.class_map = "$SET.txt"
    assert resolve_data(config).root == "/home/me/cotton"
    settings = resolve(config, None, "cpu")
    assert (settings.pretrained, settings.class_map) == ("cotton/w.pth", "cotton.txt")
    config.model.class_map = "$UNSET"
    with pytest.raises(ConfigError, match=r"model.class_map is .UNSET, and the variable UNSET"):
        resolve(config, None, "cpu")


def test_configs_and_functions(home, monkeypatch):
    """What is called from Python takes the same paths."""
    (home / "mine.py").write_text(pathlib.Path(tiny.__file__).read_text())
    monkeypatch.setenv("HOME", str(home))
    assert recipes.find("~/mine.py:small") == home / "mine.py"
    assert clevit_jax.get_config("$HOME/mine.py:small", epochs=3).epochs == 3
    for call in (
        lambda: clevit_jax.get_config("$UNSET/mine.py"),
        lambda: clevit_jax.train(tiny.small(), "$UNSET"),
        lambda: clevit_jax.evaluate(None, "$UNSET"),
        lambda: clevit_jax.load("$UNSET"),
        lambda: clevit_jax.read_weights("$UNSET"),
        lambda: clevit_jax.convert_weights("$UNSET", "x"),
        lambda: clevit_jax.convert_weights("x", "$UNSET"),
        lambda: clevit_jax.convert_weights("x", "y", class_map="$UNSET"),
        lambda: sources.load_dataset("$UNSET"),
    ):
        with pytest.raises(ClevitError, match="variable UNSET is not set"):
            call()


def test_the_converter(home, capsys):
    for args in (["$UNSET"], ["x", "$UNSET"], ["x", "y", "--class-map", "$UNSET"]):
        assert convert.main(args) == 2
        assert "variable UNSET is not set" in capsys.readouterr().err


def test_images_of_a_classifier(home, monkeypatch, trained):
    monkeypatch.setenv("HOME", str(home))
    Image.new("RGB", (16, 16)).save(home / "leaf.png")
    assert trained.classifier.pixels("~/leaf.png").shape == (16, 16, 3)
