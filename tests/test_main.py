"""The command as a user types it: every mistake ends in one sentence, and nothing is written."""

import importlib
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags, logging
from PIL import Image

from clevit_jax import flags as command_line
from clevit_jax import main
from clevit_jax.data import decode

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
TINY = pathlib.Path(__file__).with_name("tiny.py")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in: tiny.py, and data/ of 3 classes x 2 + 1 images, layout `ufg`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(TINY.read_text())
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "anno").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        lines = ""
        for label, k in np.ndindex(3, count):
            name = f"{label}_{k}_{split}.png"
            pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "images" / name)
            lines += f"{name} {label + 1}\n"
        (tmp_path / "data" / "anno" / f"{split}.txt").write_text(lines)
    return tmp_path


@pytest.fixture
def command(monkeypatch, capfd):
    """`command(*args)` -> (exit code, stdout, stderr) of main.py run anew with its own flags."""

    def run(*args: object) -> tuple[int, str, str]:
        values = flags.FlagValues()
        argv = ["main", *map(str, args)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            command_line.define(values)
            verbosity = logging.get_verbosity()
            capfd.readouterr()
            try:
                code = main.main(command_line.parse(values, argv), values)
            except SystemExit as error:
                code = error.code
            finally:
                logging.set_verbosity(verbosity)
        return code, *capfd.readouterr()

    return run


def refused(result, *parts):
    """Asserts exit code 2, one sentence that holds all parts, and no workdir."""
    code, out, err = result
    # The bars of the reading come first, drawn with carriage returns.
    lines = [line for line in re.split(r"[\r\n]", err) if line and "images/s]" not in line]
    lines = [line for line in lines if "Reading" not in line]
    assert code == 2, (out, err)
    assert lines[0].startswith("error: "), err
    assert "Traceback" not in err + out
    assert not pathlib.Path("run").exists()
    for part in parts:
        assert part in err
    return lines


OK = ("--config=tiny.py", "--workdir=run", "--config.data.root=data")
MISTAKES = {
    "nothing": ([], ["Say what to train, and where: clevit_jax --config demo --workdir runs/demo"]),
    "no workdir": (["--config=tiny.py"], ["--workdir DIR"]),
    "no config": (["--workdir=run"], ["run holds no run", "--config FILE"]),
    "misspelt file": (["--config=tinny.py", "--workdir=run"], ["tinny.py", "mean tiny.py?"]),
    "misspelt file, apart": (["--config", "tinny.py", "--workdir=run"], ["mean tiny.py?"]),
    "misspelt recipe": (["--config=coton80:x", "--workdir=run"],
                        ["There is no recipe coton80; there are cotton80, "]),
    "recipe as a file": (["--config=configs/cub.py", "--workdir=run"],
                         ["no config file configs/cub.py", "mean the recipe, --config cub?"]),
    "file as a recipe": (["--config=tiny", "--workdir=run"],
                         ["no recipe tiny", "mean the file tiny.py?"]),
    "too long a name": ([f"--config={'x' * 300}.py", "--workdir=run"], ["no config file x"]),
    "no such file": (["--config=zzz/none.py", "--workdir=run"], ["no config file zzz/none.py"]),
    "misspelt setting": (
        [*OK, "--config.model.windw=7"],
        ["no setting --config.model.windw;", "nearest is --config.model.window."],
    ),
    "wrong group": (
        [*OK, "--config.lr=1"],
        ["no setting --config.lr;", "nearest is --config.optim.lr."],
    ),
    "a group": ([*OK, "--config.optim=3"], ["no setting --config.optim;"]),
    "override first": (["--config.seed=1", "--workdir=run"], ["--config.seed needs --config FILE"]),
    "no number": ([*OK, "--config.optim.lr=abc"], ["optim.lr is 'abc'; it must be a number,"]),
    "no whole number": ([*OK, "--config.epochs=1.5"], ["epochs is '1.5'; it must be a whole"]),
    "neither": ([*OK, "--config.log.report=3"], ["log.report is '3'; it must be True or False"]),
    "no numbers": ([*OK, "--config.model.depths=2,a"], ["model.depths", "numbers"]),
    "unknown flag": ([*OK, "--workdri=x"], ["'workdri'", "workdir"]),
    "unknown mode": ([*OK, "--mode=test"], ["--mode=test", "train|eval|check_data|seeds|compare"]),
    "a pattern without quotes": (
        [*OK, "--mode=predict", "--input=a.jpg", str(pathlib.Path(__file__))],
        ["the shell has put files in the place of a pattern", "--input 'DIR/*.jpg'"],
    ),
    "left over": ([*OK, "epochs=3"], ["'epochs=3' is not a flag", "--config.NAME=VALUE"]),
    "flag of another mode": ([*OK, "--seeds=3"], ["--seeds is for --mode seeds, not for train"]),
    "flag of other modes": ([*OK, "--input=x"],
                            ["--input is for --mode predict, features and explain, not for train"]),
    "no input": (["--workdir=run", "--mode=predict", "--output=o.csv"],
                 ["--mode predict needs --input: a folder, a file or a quoted pattern"]),
    "no output": (["--workdir=run", "--mode=explain", "--input=data"],
                  ["--mode explain needs --output"]),
    "no model": (["--workdir=run", "--mode=predict", "--input=data", "--output=o.csv"],
                 ["run does not exist"]),
    "nothing to export": (["--workdir=data", "--mode=export", "--output=o.onnx"],
                          ["data is neither a run", "nor a converted checkpoint"]),
    "opset of what has none": (
        ["--workdir=run", "--mode=export", "--output=o.stablehlo", "--opset=18"],
        ["--opset is for an .onnx; --output is 'o.stablehlo'"],
    ),
    "batch sizes": ([*OK, "--mode=throughput", "--batch_sizes=1,x"], ["--batch_sizes is 1,x"]),
    "other test-time views": (["--workdir=run", "--mode=predict", "--tta=crop"], ["none|flip"]),
    "one step to profile": ([*OK, "--profile_steps=10"],
                            ["--profile_steps is '10'", "START:STOP", "such as 10:13 for"]),
    "steps backwards": ([*OK, "--profile_steps=13:10"], ["is '13:10'", "STOP above START"]),
    "steps in words": ([*OK, "--profile_steps=a:b"], ["is 'a:b'", "such as 10:13"]),
    "step 0": ([*OK, "--profile_steps=0:3"], ["is '0:3'", "START at least 1"]),
    "no steps": ([*OK, "--profile_steps="], ["--profile_steps is ''", "START:STOP"]),
    "steps after the end": ([*OK, "--profile_steps=10:13"],
                            ["after the last update of this run, 1,", "--profile_steps=1:2."]),
    "steps of no training": ([*OK, "--mode=eval", "--profile_steps=1:2"],
                             ["--profile_steps is for --mode train, not for eval"]),
    "no heartbeat": ([*OK, "--heartbeat=0"], ["--heartbeat=0", "in the range [1, 604800]"]),
    "a heartbeat that JAX cannot count": ([*OK, "--heartbeat=9999999999"], ["[1, 604800]"]),
    "heartbeat in words": ([*OK, "--heartbeat=often"], ["--heartbeat=often"]),
    "heartbeat of one process": ([*OK, "--mode=seeds", "--heartbeat=9"],
                                 ["--heartbeat is for --mode train and eval, not for seeds"]),
    "no seeds": ([*OK, "--mode=seeds", "--seeds=0"], ["--seeds=0", "positive"]),
    "fold": ([*OK, "--config.data.folds=3", "--config.data.fold=3"],
             ["data.fold is 3", "below data.folds, 3"]),
    "folds beside a test split": ([*OK, "--config.data.folds=3"],
                                  ["data has a test split", "data.folds=0"]),
    "fraction": ([*OK, "--config.data.val_fraction=1.0"],
                 ["data.val_fraction is 1.0", "at least 0 and below 1"]),
    "negative": ([*OK, "--config.optim.lr=-1"], ["optim.lr is -1.0", "at least 0"]),
    "no data": (["--config=tiny.py", "--workdir=run"], ["data.root is empty", "data.root=DIR"]),
    "data elsewhere": ([*OK, "--config.data.root=dta"],
                       ["error: There is no folder /",
                        "/dta; name the folder of the images: --config.data.root=DIR.\n"]),
    "image size": ([*OK, "--config.image_size=20", "--config.eval.resize=20"],
                   ["size 20", "16 and 32"]),
    "views without loss": ([*OK, "--config.views.kind=base"],
                           ["views.kind=base", "loss.positive=0", "loss.contrast=0"]),
    "batch over devices": ([*OK, "--config.batch_size=6"], ["batch_size is 6", "4 or 8"]),
    "evaluation over devices": ([*OK, "--config.eval.batch_size=6"],
                                ["eval.batch_size is 6", "4 or 8"]),
    "mesh": ([*OK, "--config.mesh.data=3"], ["mesh.data x mesh.fsdp", "4 devices"]),
    "warm-up": ([*OK, "--config.optim.warmup_epochs=9"],
                ["optim.warmup_epochs is 9.0", "lower the one"]),
    "heads": ([*OK, "--config.model.num_heads=3,2"], ["model.num_heads[0] is 3"]),
    "variant": ([*OK, "--config.model.variant=huge"], ["'huge'", "tiny, small, base, large"]),
    "nothing to evaluate": ([*OK, "--mode=eval"], ["run has no checkpoint", "train it"]),
    "too many classes": ([*OK, "--config.model.num_classes=4"],
                         ["train.txt: label 4 has no training image"]),
    "soyageing": ([f"--config={CONFIGS / 'soyageing.py'}", "--workdir=run"],
                  ["growth stage", "R6"]),
    "soyageing R2": ([f"--config={CONFIGS / 'soyageing.py'}:R2", "--workdir=run"],
                     ["growth stage", "'R2'"]),
    "argument for none": ([f"--config={CONFIGS / 'cub.py'}:R2", "--workdir=run"],
                          ["cub.py:R2 cannot be loaded", "takes 0 positional arguments"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistyped_command_is_one_sentence(command, place, name):
    args, parts = MISTAKES[name]
    assert len(refused(command(*args), *parts)) == 1


@pytest.mark.parametrize(("given", "seconds"), [([], 30), (["--heartbeat=5"], 5)])
def test_the_heartbeat_is_that_of_jax(command, place, monkeypatch, given, seconds):
    asked = []

    def initialize(*args, **options):
        asked.append(options["heartbeat_timeout_seconds"])
        raise RuntimeError("enough")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    several = ("--coordinator=localhost:1", "--processes=2", "--process=1")
    refused(command(*OK, *several, *given), "Process 1 of 2 cannot join: enough")
    assert asked == [seconds]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def get_config(:\n", "SyntaxError: "),
        ("def get_config():\n    return 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("x = 1\n", "no attribute 'get_config'"),
        (
            "def get_config():\n    raise ValueError('wrong moon.')\n",
            "cannot be loaded: wrong moon.",
        ),
        ("def get_config():\n    pass\n", "broken.py cannot be loaded"),
    ],
)
def test_a_broken_config_file_is_one_sentence(command, place, text, part):
    (place / "broken.py").write_text(text)
    assert len(refused(command("--config=broken.py", "--workdir=run"), "broken.py", part)) == 1


def _annotate(place, split, text):
    (place / "data" / "anno" / f"{split}.txt").write_text(text)


def test_bad_data_is_named_by_file_and_line(command, place):
    _annotate(place, "train", "0_0_train.png 1\n1_0_train.png x\n2_0_train.png -1\ngone.png 2\n")
    lines = refused(command(*OK))
    assert re.search(r"train.txt, line 2: .*'x'", lines[0])
    assert re.search(r"train.txt, line 3: .*is -1, but labels start at 1", lines[1])
    assert re.search(r"train.txt, line 4: .*'gone.png' is not in images/", lines[2])
    _annotate(place, "train", "0_0_train.png 1\n1_0_train.png 5\n")
    assert len(refused(command(*OK, "--config.model.num_classes=3"),
                       "train.txt, line 2", "is 5, above num_classes = 3")) >= 1  # fmt: skip


def test_an_empty_class_and_an_empty_split(command, place):
    _annotate(place, "train", "0_0_train.png 1\n2_0_train.png 3\n")
    refused(command(*OK), "train.txt: label 2 has no training image")
    _annotate(place, "train", "0_0_train.png 1\n1_0_train.png 2\n2_0_train.png 3\n")
    _annotate(place, "test", "")
    refused(command(*OK), "test.txt lists no image")


def test_an_empty_class_folder(command, place):
    for folder in ("train/a", "train/b", "test/a"):
        (place / "folders" / folder).mkdir(parents=True)
        if folder != "train/b":
            source = place / "data" / "images" / "0_0_train.png"
            shutil.copy(source, place / "folders" / folder / "0.png")
    refused(command(*OK, "--config.data.root=folders"), "has one class, 'a'", "no image in b/")


def test_all_truncated_images_are_named(command, place):
    """One of each split; a good one in between is not."""
    for name in ("1_0_train.png", "2_0_test.png"):
        path = place / "data" / "images" / name
        path.write_bytes(path.read_bytes()[:60])
    result = command(*OK)
    refused(result, "1_0_train.png is truncated, its last", "2_0_test.png is truncated, its last")
    assert "0_0_train.png" not in result[2]


def test_no_room_on_the_disk(command, place, monkeypatch):
    full = shutil.disk_usage(place)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    lines = refused(command(*OK), "no room", "free some space", "No checkpoint is saved yet")
    assert len(lines) == 1


def test_leaves_are_not_written_over_other_files(command, place):
    before = sorted(place.rglob("*"))
    refused(command(*OK, "--config.data.leaves.classes=3"), "data is not empty")
    assert sorted(place.rglob("*")) == before


def test_a_workdir_that_cannot_be_written(command, place):
    (place / "file").write_text("mine")
    code, _, err = command(*OK, "--workdir=file")
    assert code == 2
    assert "error: --workdir file cannot be written" in err
    assert "Traceback" not in err
    assert (place / "file").read_text() == "mine"
    assert command(*OK, "--workdir=file/run")[0] == 2


def test_a_folder_of_other_results_is_left_alone(command, place):
    (place / "other" / "checkpoints" / "20").mkdir(parents=True)
    code, _, err = command(*OK, "--workdir=other")
    assert code == 2
    assert "other holds results but no config.json; name another --workdir" in err
    assert [path.name for path in (place / "other").iterdir()] == ["checkpoints"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["prepare_run", "decode_all", "claim_workdir"])
def test_a_signal_before_the_first_update(command, place, monkeypatch, phase, number):
    """Nothing is lost, so nothing is saved; a job is to be started again."""
    before = getattr(training, phase)
    # As where the suite is started by nohup, which takes SIGHUP away.
    handler = signal.signal(number, signal.default_int_handler)

    def signalled(*args, **kwargs):
        signal.raise_signal(number)
        return before(*args, **kwargs)

    monkeypatch.setattr(training, phase, signalled)
    monkeypatch.setattr(training, "_loop", None)
    try:
        code, out, err = command(*OK)
    finally:
        signal.signal(number, handler)
    assert code == 75
    assert "Stopped before an update was made; run the same command to go on.\n" in out
    assert "Traceback" not in err
    assert (place / "run").exists() == (phase == "claim_workdir")


def test_traceback_shows_where_an_error_came_from(command, place):
    """Beside its sentence, and only when it is asked for."""
    mistake = ("--workdir=run", "--config=tiny.py", "--config.epochs=0")
    code, _, err = command(*mistake, "--traceback")
    assert (code, err.count("Traceback (most recent call last)")) == (2, 1)
    assert err.splitlines()[-1].startswith("error: epochs is 0")


def test_every_file_is_found_from_anywhere(command, place):
    """A config of the repository by its full path, from a folder where `configs` is not."""
    args = (f"--config={CONFIGS / 'cub.py'}", "--workdir=run", "--config.data.root=data")
    refused(command(*args), "labels 4 to 200 have no training image")
    assert decode.read_rgb(place / "data" / "images" / "0_0_train.png").size == (16, 16)


def test_help_names_every_mode_and_flag():
    """A mode is a line; a flag stands where its value does, with the modes that take it."""
    lines = command_line.help_text("How to begin.").splitlines()
    assert lines[0] == "How to begin."
    assert max(map(len, lines)) <= 90
    for mode, does in command_line.MODES.items():
        assert any(line.split(maxsplit=1) == [mode, does] for line in lines), mode
    for flag in command_line.FLAGS:
        (k,) = (k for k, line in enumerate(lines) if line.split()[:1] == [f"--{flag.name}"])
        if flag.modes:
            assert f"[{', '.join(flag.modes)}]" in "".join(lines[k : k + 2])


@pytest.mark.parametrize("flag", ["-h", "--help", "--helpshort", "--helpfull"])
def test_help_is_no_failure(flag):
    """As a process: absl's own flags, which say 1, are defined once in each."""
    command = [sys.executable, "-m", "clevit_jax.main", "--workdir=run", flag]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("--mode MODE", "--config.NAME=VALUE", "--workdir DIR"):
        assert part in done.stdout
    if flag == "--helpfull":
        assert "--[no]alsologtostderr" in done.stdout


def test_as_a_process():
    """What the tests above take apart: entry point, exit code and both streams of a process."""
    command = [sys.executable, "-m", "clevit_jax.main", "--config=none.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: There is no config file none.py; give the path of one, or the name of a recipe.\n"
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_modes_of_a_trained_model(command, answered, tmp_path, monkeypatch):
    """Each says where its result is; the flags reach the functions."""
    monkeypatch.chdir(tmp_path)
    images = answered.parent / "data" / "test"
    given = (f"--workdir={answered}", f"--input={images}")
    predict = ("--mode=predict", *given, "--output=o.csv", "--top=1", "--tta=flip")
    code, out, _ = command(*predict)
    assert (code, out.rpartition(": ")[2]) == (0, "o.csv\n")
    assert pathlib.Path("o.csv").read_text().startswith("file,class_1,probability_1,margin,")
    code, out, err = command(*predict)
    assert code == 2
    assert "o.csv exists already; go on with it: --resume" in err
    assert command(*predict, "--resume")[0] == 0
    code, out, _ = command("--mode=features", f"--workdir={answered}", "--output=f.npz")
    assert (code, pathlib.Path("f.npz").exists()) == (0, True)
    assert "Linear probe: " in out
    code, out, _ = command("--mode=features", *given, "--output=f.npz", "--overwrite")
    assert (code, out.splitlines()[0]) == (0, "32 images, 16 features each: f.npz")
    code, out, _ = command(
        "--mode=explain", *given, "--output=looks", "--class==1+1", "--map=grad_cam:norm"
    )
    assert (code, out) == (0, "32 pictures, with grad_cam:norm and rollout: looks\n")
    code, out, _ = command("--mode=report", f"--workdir={answered}", "--output=r.html",
                           "--checkpoint=best")  # fmt: skip
    assert (code, out) == (0, "Report: r.html\n")
    code, out, _ = command("--mode=export", f"--workdir={answered}", "--output=m.stablehlo")
    assert (code, pathlib.Path("m.stablehlo").exists()) == (0, True)
