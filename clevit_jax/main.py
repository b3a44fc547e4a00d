"""The command: `python -m clevit_jax.main --config FILE --workdir DIR [--mode MODE]`."""

import pathlib
import sys
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from clevit_jax import command_line

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "File of the experiment; --config.a.b=VALUE overrides a setting of it."
)
flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, pictures.")
flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "check_data", "seeds", "compare", "preflight"],
    "train, or go on; eval: score the newest and the best checkpoint; check_data: look at every "
    "image once; seeds: train with several seeds; compare RUN...: line runs up; preflight: "
    "compile for another machine and say whether it fits.",
)
flags.DEFINE_bool("other_split", False, "eval: score on images that are not those of the run.")
flags.DEFINE_integer("seeds", 5, "seeds: how many, from the config's seed on.", lower_bound=1)
flags.DEFINE_integer("parallel", 1, "seeds: how many at a time.", lower_bound=1)
flags.DEFINE_string("topology", "local", "preflight: the machine, such as v5e:4x4 or h200:8.")
flags.DEFINE_bool("json", False, "preflight: print JSON.")
flags.DEFINE_bool("largest_batch", False, "preflight: find the largest batch that fits.")
flags.DEFINE_string("coordinator", None, "Where process 0 is, HOST:PORT, if there are several.")
flags.DEFINE_integer("processes", None, "How many processes there are.", lower_bound=1)
flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
flags.DEFINE_integer("wait", 300, "Seconds to wait for the other processes.", lower_bound=1)
_SEVERAL = dict.fromkeys(["coordinator", "process", "wait"], ("train", "eval"))
_PREFLIGHT = dict.fromkeys(["topology", "json", "largest_batch"], ("preflight",))
_ONLY_IN = {"other_split": ("eval",), "seeds": ("seeds",), "parallel": ("seeds",)}


def main(argv: list[str]) -> int:
    """Runs the mode; prints a failure as one sentence and returns 2."""
    from clevit_jax.checkpoint import CheckpointError, quiet
    from clevit_jax.data.dataset import DataError
    from clevit_jax.data.decode import DecodeError
    from clevit_jax.experiment import ConfigError
    from clevit_jax.processes import ProcessError
    from clevit_jax.record import TrainingError

    quiet()
    ours = (ConfigError, DataError, DecodeError, CheckpointError, TrainingError, ProcessError)
    known = (*ours, OSError)
    try:
        return _run_mode(argv[1:], known)
    except known as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # outside the updates, where there is nothing to save
        print("Stopped; run the same command to go on.", file=sys.stderr)
        return 130


def _run_mode(rest: list[str], known: tuple[type[Exception], ...]) -> int:
    from clevit_jax import compare, data_check, preflight, processes, rundir, scoring, seeds, train
    from clevit_jax.experiment import ConfigError

    mode = FLAGS.mode
    for name, modes in (_ONLY_IN | _PREFLIGHT | _SEVERAL).items():
        if FLAGS[name].present and mode not in modes:
            raise ConfigError(f"--{name} is for --mode {' and '.join(modes)}, not for {mode}.")
    if mode == "compare":
        return compare.compare([pathlib.Path(run) for run in rest])
    if rest:
        raise ConfigError(f"{rest[0]!r} is no flag; settings are --config.NAME=VALUE.")
    if not FLAGS.workdir and (mode != "preflight" or FLAGS.config is None):
        raise ConfigError("Name the folder of the run: --workdir DIR.")
    workdir = pathlib.Path(FLAGS.workdir or "")
    config = FLAGS.config if FLAGS.config is not None else rundir.load_config(workdir)
    if mode == "preflight":
        more = {"as_json": FLAGS.json, "largest_batch": FLAGS.largest_batch}
        return preflight.preflight(config, FLAGS.topology, **more)
    if mode in ("check_data", "seeds"):
        processes.check_alone(f"--mode {mode}", FLAGS.processes)
    if mode == "check_data":
        return data_check.check_data(config, workdir)
    if mode == "seeds":
        return seeds.train_seeds(config, workdir, seeds=FLAGS.seeds, parallel=FLAGS.parallel)
    several: dict[str, Any] = {name: FLAGS[name].value for name in ("processes", *_SEVERAL)}
    with processes.joined(**several, sentences=known):
        if mode == "eval":
            return scoring.evaluate_workdir(config, workdir, other_split=FLAGS.other_split)
        return train.train(config, workdir)


def run() -> None:
    """The entry point."""
    app.run(main, flags_parser=lambda argv: command_line.parse(FLAGS, argv))


if __name__ == "__main__":
    run()
