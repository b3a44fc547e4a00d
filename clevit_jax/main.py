"""The command: `python -m clevit_jax.main --config FILE --workdir DIR [--mode MODE]`."""

import sys

from absl import app, flags
from ml_collections import config_flags

from clevit_jax import command_line, modes

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "File of the experiment; --config.a.b=VALUE overrides a setting of it."
)
flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints, metrics, pictures. For predict, features, "
    "explain and export a converted checkpoint or a file of weights, too.",
)  # fmt: skip
flags.DEFINE_enum(
    "mode",
    "train",
    modes.NAMES,
    "train, or go on; eval: score the newest and the best checkpoint; check_data: look at every "
    "image once; seeds: train with several seeds; compare RUN...: line runs up; preflight: "
    "compile for another machine and say whether it fits; predict: classes of images, as a table; "
    "features: a file of features and what they are worth; explain: pictures of where the model "
    "looks; report: a page on the run; export: StableHLO or ONNX; throughput: images a second.",
)
flags.DEFINE_bool("other_split", False, "eval: score on images that are not those of the run.")
flags.DEFINE_integer("seeds", 5, "seeds: how many, from the config's seed on.", lower_bound=1)
flags.DEFINE_integer("parallel", 1, "seeds: how many at a time.", lower_bound=1)
flags.DEFINE_string("topology", "local", "preflight: the machine, such as v5e:4x4 or h200:8.")
flags.DEFINE_bool("json", False, "preflight, throughput: print JSON.")
flags.DEFINE_bool("largest_batch", False, "preflight: find the largest batch that fits.")
flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Of the run, which is looked at.")
flags.DEFINE_string("input", None, "predict, features, explain: a folder, a file or a pattern.")
flags.DEFINE_string(
    "output", None, "predict: .csv, .json or .jsonl; features: .npz or .parquet; explain: a "
    "folder; report: .html; export: .stablehlo or .onnx.",
)  # fmt: skip
flags.DEFINE_integer("top", 5, "predict: classes an image.", lower_bound=1)
flags.DEFINE_enum("tta", "none", ["none", "flip"], "predict: flip averages over both mirrorings.")
flags.DEFINE_bool("resume", False, "predict: go on with a table that is there.")
flags.DEFINE_string("reference", None, "predict: training images, a file of --mode features.")
flags.DEFINE_multi_string("class", [], "explain: a class besides the predicted one; repeatable.")
flags.DEFINE_string("map", "auto", "explain: the map, or auto: by the deletion test.")
flags.DEFINE_bool("overwrite", False, "features, export: replace files that are there.")
flags.DEFINE_integer("image_size", None, "export: pixels a side, if not those of the run.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "export: of activations.")
flags.DEFINE_list("batch_sizes", None, "throughput: such as 8,16,32; else doubled while they fit.")
flags.DEFINE_enum("peer", None, ["timm"], "throughput: measure this library's Swin beside.")
flags.DEFINE_string(
    "compilation_cache", "auto", "Folder where compiled programs are kept for the next run; auto: "
    "JAX_COMPILATION_CACHE_DIR or one in the user's cache; empty: none is kept.",
)  # fmt: skip
flags.DEFINE_string("coordinator", None, "Where process 0 is, HOST:PORT, if there are several.")
flags.DEFINE_integer("processes", None, "How many processes there are.", lower_bound=1)
flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
flags.DEFINE_integer("wait", 300, "Seconds to wait for the other processes.", lower_bound=1)


def main(argv: list[str]) -> int:
    """Runs the mode; prints a failure as one sentence and returns 2."""
    from clevit_jax.checkpoint import CheckpointError, quiet
    from clevit_jax.data.dataset import DataError
    from clevit_jax.data.decode import DecodeError
    from clevit_jax.experiment import ConfigError
    from clevit_jax.processes import ProcessError
    from clevit_jax.record import TrainingError
    from clevit_jax.weights_error import WeightsError

    quiet()
    ours = (ConfigError, DataError, DecodeError, CheckpointError, TrainingError, ProcessError)
    known = (*ours, WeightsError, OSError)
    try:
        return modes.run(FLAGS, argv[1:], known)
    except known as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # outside the updates, where there is nothing to save
        print("Stopped; run the same command to go on.", file=sys.stderr)
        return 130


def run() -> None:
    """The entry point."""
    app.run(main, flags_parser=lambda argv: command_line.parse(FLAGS, argv))


if __name__ == "__main__":
    run()
