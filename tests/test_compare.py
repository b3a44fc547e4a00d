"""The table of runs, against tables and sums that are written out here."""

import os
import pathlib
import subprocess
import sys

import pytest
from made_runs import OTHER_SPLIT, TOTAL, record, scores, write_finished, write_run

from clevit_jax.errors import ConfigError
from clevit_jax.sweeps.compare import (
    WIDTH,
    _names,
    _ranges,
    compare_runs,
    comparison_text,
    read_rows,
)


def shown(*paths):
    return comparison_text(read_rows(paths))


def table(*paths):
    """The cells of the table of scores, a list a run."""
    lines = shown(*paths).splitlines()[3:]
    return [line.split() for line in lines[: lines.index("")]]


def write_seeds(folder, top1, **more):
    for seed, value in enumerate(top1):
        write_finished(folder / f"seed-{seed}", value, seed=seed, loss=1 + value, **more)
    return folder


def test_a_mix_of_all(tmp_path):
    """By hand: of 50, 60, 70 the mean is 60 and the deviation sqrt(200 / 2); 1 + top-1 is lost."""
    paths = [
        write_finished(tmp_path / "plain", 0.5, best=0.55),
        write_finished(tmp_path / "no-contrast", 0.45, loss=1.23456, loss__contrast=0.0),
        write_seeds(tmp_path / "sgd", (0.5, 0.6, 0.7), optim__name="sgd"),
        write_run(tmp_path / "stopped", records=[record(20, 0.25), {"step": 31}], seed=7),
        write_finished(tmp_path / "elsewhere", 1.0, split_hash=OTHER_SPLIT),
    ]
    assert shown(*paths) == (
        """\
Test scores after the last epoch, in %; best: of the epoch best on the images named.

    run                 top-1   mean/class            loss         best top-1       step  seed
1   plain               50.00        25.00          1.5000         55.00 test      60/60     0
2   no-contrast         45.00        22.50          1.2346         45.00 test      60/60     0
3   sgd          60.00+-10.00  30.00+-5.00  1.6000+-0.1000  60.00+-10.00 test  3/3 seeds   0-2
4*  stopped             25.00        12.50          1.5000                  -      31/60     7
5!  elsewhere          100.00        50.00          1.5000        100.00 test      60/60     0

* not finished: the scores are of its newest evaluation, on validation images where it says val.
+- is the sample standard deviation over the seeds.
! not comparable: 5 had other images, or another split of them, than 1 (split 50115011).

Settings that differ:

               1 plain  2 no-contrast  3 sgd  4 stopped  5 elsewhere
loss.contrast  1.0      0.0            1.0    1.0        1.0
optim.name     adamw    adamw          sgd    adamw      adamw"""
    )


def test_levels_that_all_have(tmp_path):
    """In a table of their own; by hand: of 50 and 70 the mean is 60, the deviation sqrt(200)."""
    folders = []
    for name, shares in {"one": (0.8,), "more": (0.5, 0.7)}.items():
        for seed, share in enumerate(shares):
            folder = tmp_path / name / (f"seed-{seed}" if len(shares) > 1 else "")
            last = scores(TOTAL, 0.25) | {"accuracy_genus": share, f"accuracy_of {name}": 1.0}
            write_run(folder, last=last, seed=seed)
        folders.append(tmp_path / name)
    lines = shown(*folders).splitlines()
    start = lines.index("Images in the right group, in %:")
    assert lines[start + 1 : start + 6] == [
        "",
        "   run          genus",
        "1  one          80.00",
        "2  more  60.00+-14.14",
        "",
    ]
    assert "of one" in shown(folders[0])
    older = write_finished(tmp_path / "older", 0.5)
    assert "right group" not in shown(*folders, older)


def test_a_run_on_validation_images(tmp_path):
    """Unfinished, it shows their score and says so; finished, the test of what they chose."""
    stopped = write_run(tmp_path / "a", records=[record(20, 0.5, split="val", count=4)])
    done = write_finished(tmp_path / "b", 0.25, best=0.75, chosen_on="val")
    assert table(stopped, done) == [
        ["1*", "a", "50.00", "val", "25.00", "1.5000", "-", "20/60", "0"],
        ["2", "b", "25.00", "12.50", "1.5000", "75.00", "val", "60/60", "0"],
    ]
    assert "All were tested on the same 20 images" in shown(stopped, done)
    assert "All were tested on the same images (split 50115011)." in shown(stopped, stopped)


def test_seeds_that_are_not_finished_are_left_out(tmp_path):
    """Of 40 and 60 the deviation is sqrt(2 x 100); with one there is none, with none no mean."""
    write_seeds(tmp_path / "two", (0.4, 0.6))
    write_run(tmp_path / "two" / "seed-5", records=[record(20, 0.9)], seed=5)
    write_seeds(tmp_path / "one", (0.4,))
    write_run(tmp_path / "one" / "seed-1", seed=1)
    write_run(tmp_path / "none" / "seed-3", begun=False, seed=3)
    two, one, none = table(*(tmp_path / name for name in ("two", "one", "none")))
    assert two[:3] == ["1*", "two", "50.00+-14.14"]
    assert two[-3:] == ["2/3", "seeds", "0-1,5"]
    assert one == ["2*", "one", "40.00", "20.00", "1.4000", "40.00", "test", "1/2", "seeds", "0-1"]
    assert none == ["3*", "none", "-", "-", "-", "-", "0/1", "seeds", "3"]
    text = shown(*(tmp_path / name for name in ("two", "one", "none")))
    assert "* seeds that are not finished are left out of the mean." in text
    assert "not finished: the scores are" not in text
    assert "It is not recorded which images 3 was tested on." in text


def test_which_splits_differ(tmp_path):
    """From the first that is known; those of which nothing is known are not accused."""
    unknown = write_run(tmp_path / "a", begun=False)
    first, same = (write_finished(tmp_path / name, 0.5) for name in "bc")
    others = [write_finished(tmp_path / n, 0.5, split_hash=OTHER_SPLIT) for n in ("d", "e")]
    runs = [unknown, first, same, *others]
    assert [row[0] for row in table(*runs)] == ["1*", "2", "3", "4!", "5!"]
    text = shown(*runs)
    note = (
        "! not comparable: 4-5 had other images, or another split of them, than 2 (split 50115011)."
    )
    assert note in text.splitlines()
    assert "It is not recorded which images 1" in text
    assert "All were tested on the same" not in text
    assert "not comparable" not in shown(first, same)
    assert "All were tested on the same 20 images (split 50115011)." in shown(first, same)


def test_settings_that_differ(tmp_path):
    """The seed is none of them; nor is what an older run lacks; empty is ''."""
    a = write_finished(tmp_path / "a", 0.5, seed=1)
    b = write_finished(tmp_path / "b", 0.5, seed=2, model__pretrained="w.pth", epochs=3)
    text = (b / "config.json").read_text()
    assert '"ema": 0.0, ' in text
    (b / "config.json").write_text(text.replace('"ema": 0.0, ', ""))
    lines = [line.split("  ") for line in shown(a, b).splitlines()]
    lines = [[cell.strip() for cell in line if cell] for line in lines]
    assert lines[lines.index(["Settings that differ:"]) + 2 :] == [
        ["1 a", "2 b"],
        ["epochs", "1", "3"],
        ["model.pretrained", "''", "w.pth"],
    ]


def test_nothing_differs(tmp_path):
    a, b = (write_finished(tmp_path / str(seed), 0.5, seed=seed) for seed in (1, 2))
    assert shown(a, b).endswith("\n\nAll settings but the seed are the same.")
    assert shown(a).endswith("\n\nA single run has no differences.")
    assert "All were tested on the same" not in shown(a)


def test_many_runs_are_listed_by_value(tmp_path):
    """Where a column a run would be too narrow."""
    paths = [write_finished(tmp_path / f"run-{k}", 0.5, epochs=k % 3 or 9) for k in range(8)]
    assert shown(*paths).splitlines()[-5:] == [
        "Settings that differ, and the runs with each value:",
        "epochs",
        "  1,4,7            9",
        "  2,5,8            1",
        "  3,6              2",
    ]
    assert "Settings that differ:" in shown(*paths[:4])


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 40])
def test_it_fits_in_100_columns(tmp_path, count):
    """With long names, long values, long numbers, many seeds, and all that there can be to say."""
    made = []
    for k in range(count):
        folder = tmp_path / ("a-name-that-is-far-too-long-for-a-column" * 2 + f"-{k}")
        weights = f"/{'weights/' * 20}{k % 2}.pth"
        if k % 3 == 0:
            seeds = (0, 2, 4, 6, 1000)
            for seed in seeds:
                write_finished(folder / f"seed-{seed}", float(seed % 4 > 0), seed=seed,
                               best=float(seed > 2), loss=8.0 + seed % 3, epochs=k + 1,
                               model__pretrained=weights)  # fmt: skip
            write_run(folder / "seed-7", seed=7)
        elif k % 3 == 1:
            write_finished(folder, 1.0, split_hash=f"{k}" * 64, chosen_on="val", epochs=k + 1)
        else:
            write_run(folder, records=[record(123456, 1.0, split="val")], model__pretrained=weights)
        made.append(folder)
    text = shown(*made)
    assert max(map(len, text.splitlines())) <= WIDTH == 100
    assert f"{count}" in text
    for k in range(count):  # the end of a name is what tells them apart
        assert f"-{k} " in text.splitlines()[3 + k]


def test_a_table_with_room_has_its_names_whole(tmp_path):
    name = "a-name-of-24-characters-"
    assert table(write_finished(tmp_path / name, 0.5))[0][1] == name
    longer = write_finished(tmp_path / f"{name}x", 0.5)
    assert table(longer)[0][1] == "a-name-of-...haracters-x"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run", "z"], ["x/run", "y/run", "z"]),
        (["x/1/run", "x/2/run", "y/2/run"], ["1/run", "x/2/run", "y/2/run"]),
        (["a", "b/../a/"], ["a", "a"]),
        (["run", "x/run"], ["{here}/run", "x/run"]),
    ],
)
def test_names_tell_the_runs_apart(tmp_path, monkeypatch, paths, names):
    monkeypatch.chdir(tmp_path)
    wanted = [name.format(here=tmp_path.name) for name in names]
    assert _names([pathlib.Path(path) for path in paths]) == wanted


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "3"), ([1, 2], "1-2"), ([5, 0, 2, 1], "0-2,5"), ([0, 2, 4], "0,2,4"), ([], "")],
)
def test_ranges(numbers, text):
    assert _ranges(numbers) == text


def test_what_is_no_run(tmp_path):
    run = write_finished(tmp_path / "run", 0.5)
    for paths, sentence in (
        ([tmp_path / "nowhere"], f"{tmp_path}/nowhere is not a run: there is neither config.json"),
        ([run, tmp_path, tmp_path / "x"], f"{tmp_path}, {tmp_path}/x are not runs: there is"),
        ([run / "config.json"], "config.json is not a run"),
        ([], "Name the runs to compare: --mode compare RUN RUN ..."),
    ):
        with pytest.raises(ConfigError) as error:
            compare_runs(paths)
        assert str(error.value).startswith(sentence) or sentence in str(error.value)


def test_nothing_is_printed_when_a_file_is_torn(tmp_path, capsys):
    good, torn = write_finished(tmp_path / "a", 0.5), write_finished(tmp_path / "b", 0.5)
    (torn / "evaluation.json").write_text('{"last": {"step"')
    with pytest.raises(ConfigError, match=r"b/evaluation.json is not JSON"):
        compare_runs([good, torn])
    assert capsys.readouterr().out == ""


def test_seeds_of_two_data_sets_are_no_row(tmp_path):
    write_finished(tmp_path / "seed-0", 0.5)
    write_finished(tmp_path / "seed-1", 0.5, seed=1, split_hash=OTHER_SPLIT)
    with pytest.raises(ConfigError) as error:
        compare_runs([tmp_path])
    assert str(error.value).startswith(f"{tmp_path}: The seeds cannot be put together")


OPENED: list[str] = []
WATCHED: list[str] = []  # an audit hook stays for good; it looks at what lies in here only


def _watch(event, args):
    if event == "open" and WATCHED and str(args[0]).startswith(WATCHED[0]):
        OPENED.append(str(args[0]))


def test_only_small_json_files_are_read(tmp_path, capsys):
    """Neither checkpoints nor pictures, and nothing is written."""
    write_seeds(tmp_path / "seeds", (0.5, 0.6))
    run = write_finished(tmp_path / "run", 0.5)
    for folder in (run, tmp_path / "seeds" / "seed-1"):
        (folder / "checkpoints" / "60").mkdir(parents=True)
        (folder / "checkpoints" / "60" / "state").write_text("x")
        (folder / "views.png").write_text("x")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    sys.addaudithook(_watch)
    WATCHED.append(str(tmp_path))
    try:
        assert compare_runs([run, tmp_path / "seeds"]) == 0
    finally:
        WATCHED.clear()
    assert capsys.readouterr().out == shown(run, tmp_path / "seeds") + "\n"
    names = {pathlib.Path(path).name for path in OPENED}
    assert names == {"config.json", "run.json", "evaluation.json", "metrics.jsonl"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_as_a_process(tmp_path):
    """No device is asked for, or the process would fail; and any terminal can show the table."""
    run = write_run(tmp_path / "läufe", last=scores(60, 0.5))
    command = [sys.executable, "-m", "clevit_jax.main", "--mode=compare", str(run)]
    environ = {**os.environ, "JAX_PLATFORMS": "nosuch", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n1  l\\xe4ufe  50.00" in done.stdout
