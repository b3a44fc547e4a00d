"""The flags of the command as one table, and how a command line is read.

A mistake ends in one sentence and exit code 2.
"""

import dataclasses
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from clevit_jax import recipes

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


class _ConfigParser(flags.ArgumentParser[Any]):
    """Reads `--config` as `clevit_jax.get_config` does."""

    def parse(self, argument: str) -> Any:
        return recipes.load(argument)

    def flag_type(self) -> str:
        return "config"


def define(values: flags.FlagValues, *, mode: str | None = None) -> None:
    """Defines `--config`, `--mode` and `FLAGS` in `values`; they are what `--help` shows.

    With a `mode`, only the flags that are for it: of a command that does nothing else.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        f"A recipe ({', '.join(recipes.names())}) or a file of settings, NAME or NAME:ARGUMENT; "
        "--config.a.b=VALUE overrides one.",
        flag_values=values,
    )
    values["config"].parser = _ConfigParser()
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
    """absl's parsing; exits 2 with one sentence.

    Args:
        values: the flags, among them `config`.
        argv: the command line.

    Returns:
        The program and what is no flag.
    """
    try:
        return values(argv)
    except Exception as error:  # a setting's own type may refuse a value in many ways
        print(f"error: {_explain(argv, error)}", file=sys.stderr)
        sys.exit(2)


def _explain(argv: list[str], error: Exception) -> str:
    """The sentence for a command line that cannot be parsed."""
    from clevit_jax.config import flatten
    from clevit_jax.errors import ConfigError

    name = ""
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-") and flag == "config":
            name = value if equals else following
    given = [arg.lstrip("-").partition("=")[0] for arg in argv[1:] if arg.startswith("--config.")]
    if not name:
        return f"--{given[0]} needs --config FILE before it." if given else str(error)
    try:  # the config by itself, without what the command line overrides
        known = list(flatten(recipes.load(name)))
    except ConfigError as failure:
        return str(failure)
    for setting in (flag.removeprefix("config.") for flag in given):
        if setting not in known:
            return recipes.no_such_setting(setting, known, flag="--config.")
    return str(error).strip() or type(error).__name__
