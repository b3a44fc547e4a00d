"""The flags of the command as one table, `--help`, and the parsing of a command line.

A mistake ends in one sentence and exit code 2.
"""

import dataclasses
import pathlib
import re
import sys
import textwrap
from typing import Any

from absl import flags
from ml_collections import config_flags

from clevit_jax import recipes
from clevit_jax.errors import ClevitError
from clevit_jax.runs import named
from clevit_jax.system.places import run_place

# What `--mode` may be, in the order in which somebody comes to them.
MODES = {
    "train": "train a model, or go on with a run that was stopped",
    "eval": "score the newest and the best checkpoint of a run",
    "check_data": "read every image once and list what is wrong",
    "seeds": "train with several seeds; mean and deviation of their scores",
    "compare": "line up runs and their settings: --mode compare RUN RUN ...",
    "preflight": "compile for a machine, and say whether training fits",
    "predict": "classes of images, as a table",
    "features": "features of images, and how well they tell the classes apart",
    "explain": "pictures of where the model looks",
    "report": "a web page on a run",
    "export": "the model as one file, StableHLO or ONNX",
    "throughput": "images per second, by batch size",
}
ANALYSES = ("predict", "features", "explain", "report", "export")
SCORED = ("eval", *ANALYSES)  # that look at a checkpoint
TOGETHER = ("train", "eval")  # which several processes may run
SAVING = ("train", "seeds")  # which a signal asks to save
COMPILERS = ("preflight", "throughput")  # say how long compiling takes, so do it each time


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: without the dashes.
        kind: of absl's `DEFINE_*`: string, enum, bool, integer, list or multi_string.
        default: its value when it is not given.
        value: what `--help` shows in the place of its value; "" for a bool.
        help: one sentence.
        modes: those that it is for; all, when empty.
        options: further arguments of `DEFINE_*`.
    """

    name: str
    kind: str
    default: Any
    value: str
    help: str
    modes: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


_POSITIVE = {"lower_bound": 1}
_SECONDS = {"lower_bound": 1, "upper_bound": 7 * 24 * 3600}
# By what they are for, as `--help` shows them.
GROUPS = {
    "Every mode": (
        Flag("workdir", "string", None, "DIR",
             "Folder of the run: checkpoints, metrics, pictures. predict, features, explain and "
             "export also take a converted checkpoint or a file of weights."),
        Flag("compilation_cache", "string", "auto", "DIR",
             "Where compiled programs are kept for the next run. auto: "
             "JAX_COMPILATION_CACHE_DIR, or a folder in the user's cache; empty: nowhere."),
        Flag("traceback", "bool", False, "", "After an error, print where it came from, too."),
    ),
    "Scoring": (
        Flag("other_split", "bool", False, "", "Score on images that are not those of the run.",
             ("eval",)),
        Flag("checkpoint", "string", None, "last|best|STEP",
             "Which checkpoint of the run. If not given, the last; eval scores the last and the "
             "best.", SCORED),
    ),
    "Going on, and going further": (
        Flag("extend", "bool", False, "",
             "Go on with a run, finished or not, under other epochs, rates or losses.", ("train",)),
        Flag("from", "string", None, "RUN[@STEP]",
             "Begin a new run with the config and the weights of another, @last, @best or @STEP; "
             "or with a file of weights and --config.", ("train",)),
    ),
    "Several seeds": (
        Flag("seeds", "integer", 5, "N", "How many, from the config's seed on.", ("seeds",),
             _POSITIVE),
        Flag("parallel", "integer", 1, "N", "How many seeds at a time.", ("seeds",), _POSITIVE),
    ),
    "Questions to a trained model": (
        Flag("input", "string", None, "PATH", "Images: a folder, a file or a quoted pattern, also gs://BUCKET/FOLDER.",
             ("predict", "features", "explain")),
        Flag("output", "string", None, "PATH",
             "predict: .csv, .json or .jsonl; features: .npz or .parquet; explain: a folder; "
             "report: .html; export: .stablehlo or .onnx.", ANALYSES),
        Flag("top", "integer", 5, "N", "Classes per image.", ("predict",), _POSITIVE),
        Flag("tta", "enum", "none", "none|flip", "flip: average over both mirrorings.",
             ("predict",), {"enum_values": ["none", "flip"]}),
        Flag("submission", "string", None, "FORM",
             "A table such as sample_submission.csv, which is filled in as it is.", ("predict",)),
        Flag("form_classes", "string", None, "0|1|FILE|NAME",
             "How that form writes the classes, where it does not show it: the number of the "
             "first one, a file of what is written and class, or the one class whose probability "
             "it wants.", ("predict",)),
        Flag("resume", "bool", False, "", "Go on with a table that is there.", ("predict",)),
        Flag("reference", "string", None, "FILE",
             "Features of the training images, from --mode features: says which images are unlike "
             "them.", ("predict",)),
        Flag("class", "multi_string", [], "NAME", "A class besides the predicted one; repeatable.",
             ("explain",)),
        Flag("map", "string", "auto", "NAME", "Which map; auto: chosen by the deletion test.",
             ("explain",)),
        Flag("overwrite", "bool", False, "", "Replace files that are there.",
             ("features", "export")),
        Flag("image_size", "integer", None, "N", "Pixels per side, if not those of the run.",
             ("export",)),
        Flag("dtype", "enum", "float32", "float32|bfloat16", "Of activations.", ("export",),
             {"enum_values": ["float32", "bfloat16"]}),
        Flag("opset", "integer", None, "N",
             "Of an .onnx: the version of its operators, 18 or newer; if not given, 21.",
             ("export",)),
    ),
    "Memory and speed": (
        Flag("topology", "string", "local", "KIND:SHAPE",
             "The machine, such as v5e:4x4, v5e:4x4*2 (two slices) or h200:8; local is this one.",
             ("preflight",)),
        Flag("largest_batch", "bool", False, "", "Find the largest batch that fits.",
             ("preflight",)),
        Flag("batch_sizes", "list", None, "N,N,...",
             "Such as 8,16,32; if not given, doubled while they fit.", ("throughput",)),
        Flag("json", "bool", False, "", "Print JSON.", COMPILERS),
        Flag("profile_steps", "string", None, "START:STOP",
             "Profile the updates START to STOP - 1, counted from 1, into the workdir's profile/, "
             "for xprof or Perfetto; 10:13 is three of them. The first of a start compiles.",
             ("train",)),
    ),
    "Several hosts": (
        Flag("processes", "integer", None, "N", "How many processes there are.", (), _POSITIVE),
        Flag("process", "integer", None, "N", "Which of them this is, from 0.", TOGETHER,
             {"lower_bound": 0}),
        Flag("coordinator", "string", None, "HOST:PORT", "Address of process 0.", TOGETHER),
        Flag("wait", "integer", 300, "N", "Seconds to wait for the other processes.", TOGETHER,
             _SECONDS),
        Flag("heartbeat", "integer", 30, "N",
             "Seconds without a sign of life, after which a process is given up, and the others "
             "end.", TOGETHER, _SECONDS),
    ),
}  # fmt: skip
FLAGS = tuple(flag for group in GROUPS.values() for flag in group)
_WIDTH, _MARGIN = 90, 28  # characters of a line of `--help`, and before its second column


def _config_help() -> str:
    return (
        f"A recipe ({', '.join(recipes.names())}), a file of settings or the workdir of a run; "
        "NAME:ARGUMENT where it takes one. If not given, that of --workdir's run, or of --from's."
    )


def help_text(intro: str) -> str:
    """What `--help` prints: how to begin, the modes, and the flags by what they are for."""
    lines = [*intro.rstrip().splitlines(), "", "Modes (--mode MODE; train if not given):"]
    lines += [_help_line(name, does) for name, does in MODES.items()]
    lines += [
        "",
        "Settings:",
        _help_line("--config NAME|FILE|RUN", _config_help()),
        _help_line(
            "--config.NAME=VALUE",
            "Changes one setting, such as --config.epochs=50 or --config.optim.lr=0.01; "
            "configs/base.py names them all.",
        ),
    ]
    for heading, group in GROUPS.items():
        lines += ["", f"{heading}:"]
        for flag in group:
            modes = f"[{', '.join(flag.modes)}] " if flag.modes else ""
            default = "" if flag.default in (None, False, []) else f" (default: {flag.default})"
            lines.append(
                _help_line(f"--{flag.name} {flag.value}".rstrip(), f"{modes}{flag.help}{default}")
            )
    return "\n".join(lines)


def _help_line(name: str, text: str) -> str:
    """Two columns; the second is wrapped, and begins on a new line where the first is long."""
    indent = " " * _MARGIN
    wrapped = textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    if len(name) + 4 > _MARGIN:
        return f"  {name}\n{wrapped}"
    return f"  {name}".ljust(_MARGIN) + wrapped.lstrip()


class _ConfigParser(flags.ArgumentParser[Any]):
    """Reads `--config` as `clevit_jax.get_config` does."""

    def parse(self, argument: str) -> Any:
        return named.load(argument)

    def flag_type(self) -> str:
        return "config"


def define(values: flags.FlagValues, *, mode: str | None = None) -> None:
    """Defines `--config`, `--mode` and `FLAGS` in `values`.

    With a `mode`, only the flags that are for it: of a command that does nothing else, whose
    `--help` is absl's.
    """
    config_flags.DEFINE_config_file("config", None, _config_help(), flag_values=values)
    values["config"].parser = _ConfigParser()
    if mode is None:
        flags.DEFINE_enum("mode", "train", list(MODES), "What to do.", flag_values=values)
    chosen = [flag for flag in FLAGS if mode is None or not flag.modes or mode in flag.modes]
    for flag in chosen:
        # absl takes the choices of an enum by their place.
        choices = {k: v for k, v in flag.options.items() if k == "enum_values"}
        bounds = {k: v for k, v in flag.options.items() if k != "enum_values"}
        define_flag = getattr(flags, f"DEFINE_{flag.kind}")
        define_flag(
            flag.name, flag.default, *choices.values(), flag.help, flag_values=values, **bounds
        )
    if mode is not None:  # absl's `--help` shows those of the program's own module
        for name in ("config", *(flag.name for flag in chosen)):
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
    argv = [argv[0], *("--help" if word == "-h" else word for word in argv[1:])]
    try:
        argv = with_own_config(argv)
    except ClevitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        return values(argv)
    except SystemExit:
        # absl ends `--help` and its like with 1, which a script would take for a failure.
        if any(word.lstrip("-").startswith(("help", "?")) for word in argv[1:]):
            sys.exit(0)
        raise
    except Exception as error:  # a setting's own type may refuse a value in many ways
        print(f"error: {_explain(argv, error)}", file=sys.stderr)
        sys.exit(2)


def with_own_config(argv: list[str]) -> list[str]:
    """The command line, with the `--config` of its run where it changes settings of none.

    That is the run in `--workdir`, else the one that `--from` names.
    """
    changes = any(re.match(r"--?(no)?config\.", arg) for arg in argv[1:])
    if not changes or any(re.match(r"--?config(=|$)", arg) for arg in argv[1:]):
        return argv
    run = own_run(_given(argv, "workdir"), _given(argv, "from"))
    return argv if run is None else [argv[0], f"--config={run}", *argv[1:]]


def own_run(workdir: str, origin: str) -> pathlib.Path | None:
    """The run whose config is meant where none is named; None where there is none.

    Args:
        workdir: what `--workdir` says, or "".
        origin: what `--from` says, or "".
    """
    if workdir and (run := named.run_of(run_place(workdir, "--workdir"))):
        return run
    if not origin:
        return None
    from clevit_jax.runs.load import split_checkpoint

    return named.run_of(split_checkpoint(origin)[0])


def _given(argv: list[str], name: str) -> str:
    """The value of a flag on a command line, "" where it has none; the last one counts."""
    found = ""
    for arg, following in zip(argv[1:], [*argv[2:], ""], strict=True):
        flag, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-") and flag == name:
            found = value if equals else following
    return found


def _explain(argv: list[str], error: Exception) -> str:
    """The sentence for a command line that cannot be parsed."""
    from clevit_jax.config import flatten
    from clevit_jax.config.ranges import of_another_type
    from clevit_jax.errors import ConfigError

    name = _given(argv, "config")
    given = [arg.lstrip("-").partition("=")[0] for arg in argv[1:] if arg.startswith("--config.")]
    if not name:
        needs = "needs --config FILE before it, or the --workdir of a run."
        return f"--{given[0]} {needs}" if given else str(error)
    try:  # the config by itself, without what the command line overrides
        known = list(flatten(named.load(name)))
    except ConfigError as failure:
        return str(failure)
    for setting in (flag.removeprefix("config.") for flag in given):
        if setting not in known:
            return recipes.no_such_setting(setting, known, flag="--config.")
    unread = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
    if unread and unread[1] in recipes.defaults():
        return f"--config.{of_another_type(unread[1], unread[2])}"
    return str(error).strip() or type(error).__name__
