"""The command: `python -m clevit_jax.main --config FILE --workdir DIR [--mode train|eval]`."""

import difflib
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "File of the experiment; --config.a.b=VALUE overrides a setting of it."
)
flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, pictures.")
flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")


def main(argv: list[str]) -> int:
    """Runs the mode; prints a failure as one sentence and returns 2."""
    from clevit_jax import rundir
    from clevit_jax.checkpoint import CheckpointError, quiet
    from clevit_jax.data.dataset import DataError
    from clevit_jax.record import TrainingError
    from clevit_jax.scoring import evaluate_workdir
    from clevit_jax.train import train

    quiet()
    try:
        if len(argv) > 1:
            raise rundir.ConfigError(f"{argv[1]!r} is no flag; settings are --config.NAME=VALUE.")
        if not FLAGS.workdir:
            raise rundir.ConfigError("Name the folder of the run: --workdir DIR.")
        workdir = pathlib.Path(FLAGS.workdir)
        config = FLAGS.config if FLAGS.config is not None else rundir.load_config(workdir)
        return (train if FLAGS.mode == "train" else evaluate_workdir)(config, workdir)
    except (rundir.ConfigError, DataError, CheckpointError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # outside the updates, where there is nothing to save
        print("Stopped; run the same command to go on.", file=sys.stderr)
        return 130


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parsing, with config files found from anywhere and failures as one sentence."""
    # Config files import `configs.base`; let them, wherever the command is run from.
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
    try:
        rest = FLAGS(argv)
        if FLAGS["config"].present:
            _ = FLAGS.config.to_dict()  # a file that is missing shows at the first use only
        return rest
    except Exception as error:  # a config file may raise anything
        print(f"error: {_explain(argv, error)}", file=sys.stderr)
        sys.exit(2)


def _explain(argv: list[str], error: Exception) -> str:
    """The sentence for a command line that cannot be parsed."""
    from clevit_jax.experiment import flatten

    path = ""
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name == "config":
            path = value if equals else following
    given = [arg.lstrip("-").partition("=")[0] for arg in argv[1:] if arg.startswith("--config.")]
    if not path:
        return f"--{given[0]} needs --config FILE before it." if given else str(error)
    file = pathlib.Path(path.partition(":")[0])
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.py")])
        mend = f"did you mean {file.with_name(near[0])}?" if near else "give the path of one."
        return f"There is no config file {file}; {mend}"
    try:  # the file by itself, without what the command line overrides
        config = FLAGS["config"].parser.parse(path)
        known = [f"config.{name}" for name in flatten(config)]
    except Exception as failure:
        # ml_collections packs a traceback into the message of a ValueError or TypeError.
        cause = failure.__context__ or failure
        text = str(cause) if isinstance(cause, ValueError) else f"{type(cause).__name__}: {cause}"
        return f"The config {path} cannot be loaded: {text.removesuffix('.')}."
    for name in given:
        if name not in known:
            same_end = [k for k in known if k.rsplit(".", 1)[1] == name.rsplit(".", 1)[1]]
            near = same_end or difflib.get_close_matches(name, known, n=1, cutoff=0)
            return f"There is no setting --{name}; the nearest is --{near[0]}."
    return str(error).strip() or type(error).__name__


def run() -> None:
    """The entry point."""
    app.run(main, flags_parser=_parse_flags)


if __name__ == "__main__":
    run()
