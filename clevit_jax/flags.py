"""The flags of the command as one table, and how a command line is read.

A mistake ends in one sentence and exit code 2.
"""

import dataclasses
import difflib
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

# What `--mode` may be.
MODES = {
    "train": "train, or go on with a run that was stopped",
    "eval": "score the newest and the best checkpoint",
    "check_data": "read every image once and list what is wrong",
    "seeds": "train with several seeds",
    "compare": "RUN RUN ...: compare runs, line by line",
    "preflight": "compile for another machine, and say whether it fits",
    "predict": "the classes of images, as a table",
    "features": "a file of features, and how well they tell the classes apart",
    "explain": "pictures of where the model looks",
    "report": "a page on the run",
    "export": "one file of StableHLO or ONNX",
    "throughput": "images per second, by batch size",
}
ANALYSES = ("predict", "features", "explain", "report", "export")
TOGETHER = ("train", "eval")  # which several processes may run
COMPILERS = ("preflight", "throughput")  # say how long compiling takes, so do it each time


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: without the dashes.
        kind: of absl's `DEFINE_*`: string, enum, bool, integer, list or multi_string.
        default: its value when it is not given.
        help: one sentence.
        modes: those that it is for; all, when empty.
        options: further arguments of `DEFINE_*`.
    """

    name: str
    kind: str
    default: Any
    help: str
    modes: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


_POSITIVE = {"lower_bound": 1}
FLAGS = (
    Flag("workdir", "string", None, "Folder of the run: checkpoints, metrics, pictures. For "
         "predict, features, explain and export a converted checkpoint or a file of weights, too."),
    Flag("other_split", "bool", False, "Score on images that are not those of the run.", ("eval",)),
    Flag("seeds", "integer", 5, "How many, from the config's seed on.", ("seeds",), _POSITIVE),
    Flag("parallel", "integer", 1, "How many seeds at a time.", ("seeds",), _POSITIVE),
    Flag("topology", "string", "local", "The machine, such as v5e:4x4 or h200:8.", ("preflight",)),
    Flag("json", "bool", False, "Print JSON.", COMPILERS),
    Flag("largest_batch", "bool", False, "Find the largest batch that fits.", ("preflight",)),
    Flag("checkpoint", "enum", "last", "Which checkpoint of the run.", ANALYSES,
         {"enum_values": ["last", "best"]}),
    Flag("input", "string", None, "A folder, a file or a quoted pattern.",
         ("predict", "features", "explain")),
    Flag("output", "string", None, "predict: .csv, .json or .jsonl; features: .npz or .parquet; "
         "explain: a folder; report: .html; export: .stablehlo or .onnx.", ANALYSES),
    Flag("top", "integer", 5, "Classes per image.", ("predict",), _POSITIVE),
    Flag("tta", "enum", "none", "flip: average over both mirrorings.", ("predict",),
         {"enum_values": ["none", "flip"]}),
    Flag("resume", "bool", False, "Go on with a table that is there.", ("predict",)),
    Flag("reference", "string", None, "Features of training images, of --mode features.",
         ("predict",)),
    Flag("class", "multi_string", [], "A class besides the predicted one; repeatable.",
         ("explain",)),
    Flag("map", "string", "auto", "Which map; auto: by the deletion test.", ("explain",)),
    Flag("overwrite", "bool", False, "Replace files that are there.", ("features", "export")),
    Flag("image_size", "integer", None, "Pixels per side, if not those of the run.", ("export",)),
    Flag("dtype", "enum", "float32", "Of activations.", ("export",),
         {"enum_values": ["float32", "bfloat16"]}),
    Flag("batch_sizes", "list", None, "Such as 8,16,32; else doubled while they fit.",
         ("throughput",)),
    Flag("compilation_cache", "string", "auto", "Folder where compiled programs are kept for the "
         "next run; auto: JAX_COMPILATION_CACHE_DIR or one in the user's cache; empty: none."),
    Flag("coordinator", "string", None, "Address of process 0, HOST:PORT, if there are several.",
         TOGETHER),
    Flag("processes", "integer", None, "How many processes there are.", (), _POSITIVE),
    Flag("process", "integer", None, "Which of them this is, from 0.", TOGETHER,
         {"lower_bound": 0}),
    Flag("wait", "integer", 300, "Seconds to wait for the other processes.", TOGETHER, _POSITIVE),
)  # fmt: skip


def define(values: flags.FlagValues, *, mode: str | None = None) -> None:
    """Defines `--config`, `--mode` and `FLAGS` in `values`; they are what `--help` shows.

    With a `mode`, only the flags that are for it: of a command that does nothing else.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        "File of the settings; --config.a.b=VALUE overrides one.",
        flag_values=values,
    )
    defined = ["config"]
    if mode is None:
        what = "; ".join(f"{name}: {does}" for name, does in MODES.items())
        flags.DEFINE_enum("mode", "train", list(MODES), f"{what}.", flag_values=values)
        defined.append("mode")
    for flag in FLAGS:
        if mode is not None and flag.modes and mode not in flag.modes:
            continue
        only = f"[{', '.join(flag.modes)}] " if flag.modes and mode is None else ""
        # absl takes the choices of an enum by their place.
        choices = {k: v for k, v in flag.options.items() if k == "enum_values"}
        bounds = {k: v for k, v in flag.options.items() if k != "enum_values"}
        getattr(flags, f"DEFINE_{flag.kind}")(
            flag.name, flag.default, *choices.values(), only + flag.help,
            flag_values=values, **bounds,
        )  # fmt: skip
        defined.append(flag.name)
    for name in defined:
        values.register_key_flag_for_module(sys.argv[0], values[name])


def check_mode(values: flags.FlagValues) -> None:
    """Raises ConfigError when a flag is given that is for other modes."""
    from clevit_jax.errors import ConfigError

    for flag in FLAGS:
        if flag.modes and values[flag.name].present and values.mode not in flag.modes:
            *others, last = flag.modes
            modes = f"{', '.join(others)} and {last}" if others else last
            raise ConfigError(f"--{flag.name} is for --mode {modes}, not for {values.mode}.")


def parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """absl's parsing, with config files found from anywhere; exits 2 with one sentence.

    Args:
        values: the flags, among them `config`.
        argv: the command line.

    Returns:
        The program and what is no flag.
    """
    # Config files import `configs.base`; let them, wherever the command is run from.
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
    try:
        rest = values(argv)
        if values["config"].present:
            _ = values.config.to_dict()  # a file that is missing shows at the first use only
        return rest
    except Exception as error:  # a config file may raise anything
        print(f"error: {_explain(values, argv, error)}", file=sys.stderr)
        sys.exit(2)


def _explain(values: flags.FlagValues, argv: list[str], error: Exception) -> str:
    """The sentence for a command line that cannot be parsed."""
    from clevit_jax.config import flatten

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
        config = values["config"].parser.parse(path)
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
